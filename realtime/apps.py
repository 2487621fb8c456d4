"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class RealtimeConfig(AppConfig):
    """Configuration rows, checks and commands."""

    name = "realtime"
    verbose_name = "Realtime"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and let each app register its handlers."""
        from realtime.conf import checks

        checks.register()
        # <app>/realtime.py; in every process, since the admin has to know which proxies there are.
        autodiscover_modules("realtime")
