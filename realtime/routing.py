"""Routes of the transports, for ``project/asgi.py`` or a project's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from django.urls import path

from realtime.conf.loader import get_options
from realtime.consumers.emulation import emulation
from realtime.consumers.http_stream import http_stream
from realtime.consumers.init import init
from realtime.consumers.scopes import local_path
from realtime.consumers.sse import sse
from realtime.consumers.uni_http_stream import uni_http_stream
from realtime.consumers.uni_sse import uni_sse
from realtime.consumers.uni_websocket import uni_websocket
from realtime.consumers.websocket import WebSocketConsumer


def websocket_applications() -> dict[str, Any]:
    """Return the ASGI applications of the transports that are on, by path."""
    options = get_options()
    applications: dict[str, Any] = {}
    if not options.websocket.disabled:
        applications[options.websocket.handler_prefix] = WebSocketConsumer.as_asgi()
    if options.uni_websocket.enabled:
        applications[options.uni_websocket.handler_prefix] = uni_websocket
    return applications


def websocket_urlpatterns() -> list[Any]:
    """Return their routes, for a ``URLRouter``."""
    return [
        path(prefix.strip("/"), cast("Any", application))
        for prefix, application in websocket_applications().items()
    ]


def http_applications() -> dict[str, Any]:
    """Return the ASGI applications of what clients ask for by HTTP, and that is on, by path."""
    options = get_options()
    applications: dict[str, Any] = {}
    if options.http_stream.enabled:
        applications[options.http_stream.handler_prefix] = http_stream
    if options.sse.enabled:
        applications[options.sse.handler_prefix] = sse
    if applications:
        applications[options.emulation.handler_prefix] = emulation
    if options.uni_http_stream.enabled:
        applications[options.uni_http_stream.handler_prefix] = uni_http_stream
    if options.uni_sse.enabled:
        applications[options.uni_sse.handler_prefix] = uni_sse
    if options.init.enabled:
        applications[options.init.handler_prefix] = init
    return applications


class StreamRoutes:
    """
    What clients ask for by HTTP, as an ASGI application in front of another one, which gets every other path.

    Args:
        inner: The other one.
        applications: By path, to be matched whole; those that are on where it is left out.

    """

    def __init__(self, inner: Any, applications: Mapping[str, Any] | None = None) -> None:
        self._inner = inner
        self._applications = http_applications() if applications is None else applications

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        application = self._inner
        if scope["type"] == "http":
            application = self._applications.get(local_path(scope), application)
        await application(scope, receive, send)
