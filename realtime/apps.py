"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    """Configuration rows, checks and commands."""

    name = "realtime"
    verbose_name = "Realtime"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from realtime.conf import checks

        checks.register()
