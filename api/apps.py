"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """The server API over HTTP."""

    name = "api"
    verbose_name = "Server API"

    def ready(self) -> None:
        """Give RPC functions threads that look after database connections, and describe the views."""
        from channels.db import database_sync_to_async

        from api import schema
        from realtime import commands

        commands.run_threads_with(lambda function, params: database_sync_to_async(function)(params))
        schema.describe_views()
