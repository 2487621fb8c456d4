"""WebSocket routes, for ``project/asgi.py`` or a project's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.urls import path

from realtime.conf.loader import get_options
from realtime.consumers.websocket import WebSocketConsumer


def websocket_applications() -> dict[str, Any]:
    """Return the ASGI applications of the transports that are on, by path."""
    options = get_options()
    if options.websocket.disabled:
        return {}
    return {options.websocket.handler_prefix: WebSocketConsumer.as_asgi()}


def direct_websockets() -> dict[str, Callable[[Any], object]]:
    """Return, by path, the consumers that a server of ours may hand an upgrade to without ASGI."""
    options = get_options()
    return (
        {}
        if options.websocket.disabled
        else {options.websocket.handler_prefix: WebSocketConsumer.open}
    )


def websocket_urlpatterns() -> list[Any]:
    """Return their routes, for a ``URLRouter``."""
    return [
        path(prefix.strip("/"), cast("Any", application))
        for prefix, application in websocket_applications().items()
    ]
