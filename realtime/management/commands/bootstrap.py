"""``manage.py bootstrap``: what a new installation needs before its first start."""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand

from realtime.models import WITHOUT_NAMESPACE, Namespace


DEMO_NAMESPACE = "demo"
ADMIN_NAME = "admin"


class Command(BaseCommand):
    """Bring a database up to date and make an empty one usable; on any later run nothing but migrate."""

    help = (
        "Apply migrations; where there is no superuser, make one and print its password once; "
        "where there is no namespace, make one to try things with."
    )

    def handle(self, *_: Any, **options: Any) -> None:
        """Do the three steps, each only where it is due."""
        # migrate lists every operation from verbosity 1 on, which hides the password below it.
        call_command("migrate", verbosity=max(0, options["verbosity"] - 1), interactive=False)
        self._make_superuser()
        self._make_namespace()

    def _make_superuser(self) -> None:
        users = get_user_model()._default_manager  # noqa: SLF001 -- documented by Django under this name
        if users.filter(is_superuser=True).exists():
            return
        password = secrets.token_urlsafe(12)
        users.create_superuser(ADMIN_NAME, password=password)
        self.stdout.write(
            f"Created the superuser {ADMIN_NAME!r} with the password {password} (shown only now)."
        )

    def _make_namespace(self) -> None:
        if Namespace.objects.exclude(name=WITHOUT_NAMESPACE).exists():
            return
        Namespace.objects.create(
            name=DEMO_NAMESPACE,
            allow_subscribe_for_client=True,
            allow_subscribe_for_anonymous=True,
            allow_publish_for_subscriber=True,
            allow_publish_for_anonymous=True,
            allow_presence_for_subscriber=True,
            allow_presence_for_anonymous=True,
            allow_history_for_subscriber=True,
            allow_history_for_anonymous=True,
            presence=True,
            join_leave=True,
            force_push_join_leave=True,
            history_size=100,
            history_ttl=300.0,
            force_recovery=True,
            allowed_delta_types=["fossil"],
            delta_publish=True,
        )
        self.stdout.write(
            f"Created the namespace {DEMO_NAMESPACE!r}, open to everybody who connects."
        )
