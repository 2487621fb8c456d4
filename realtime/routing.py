"""WebSocket routes, for ``project/asgi.py`` or a project's own."""

from __future__ import annotations

from typing import Any, cast

from django.urls import path

from realtime.conf.loader import get_options
from realtime.consumers.websocket import WebSocketConsumer


def websocket_urlpatterns() -> list[Any]:
    """Return the routes of the transports that are on."""
    options = get_options()
    if options.websocket.disabled:
        return []
    route = options.websocket.handler_prefix.strip("/")
    return [path(route, cast("Any", WebSocketConsumer.as_asgi()))]
