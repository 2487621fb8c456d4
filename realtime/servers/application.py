"""
The outermost ASGI application: it owns the node's life and sends scopes on their way.

A server with a lifespan (uvicorn, hypercorn) starts and stops the node by that. One without (Daphne) never asks, so the
first scope starts the node, and Daphne's classes of ours call ``stop``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    MutableMapping,
    Sequence,
)
from types import MappingProxyType
from typing import Any, Protocol

from realtime.consumers.scopes import local_path
from realtime.servers.ports import SCOPE_KEY, Ports, Side


logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[object]]


# What runs on a listener's port when the node stops has this many seconds to end.
LISTENER_GRACE = 1.0


class Listener(Protocol):
    """A port beside the ASGI server's own, with a protocol that ASGI does not know."""

    async def start(self) -> None:
        """Listen; raises ``ConfigError`` where that can't be."""

    async def stop(self, grace: float) -> None:
        """Take nothing new, end what runs after ``grace`` seconds; may be called twice, or without a start."""


class NodeApplication:
    """
    Answer ``lifespan``, start the node, pass everything else on.

    Args:
        inner: Gets every http and websocket scope.
        start: Starts the node.
        stop: Stops it; called only if it was started.
        websocket_paths: Where WebSockets live. An HTTP request to one is no upgrade, and answered with 400 or 405.
        direct_lane: For the server's HTTP protocol, which answers API requests before ASGI.
        direct_websockets: For ``manage.py serve``, by path: consumers that take an upgrade without ASGI and without ``inner``'s
            routing; ``WebSocketConsumer.open`` is one.
        ports: Knows what is not on the port that a request came to; without it an internal port is refused.
        drain: Sends all clients away within so many seconds.
        listeners: Are started after the node and stopped before it.

    """

    def __init__(
        self,
        inner: Application,
        *,
        start: Callable[[], Awaitable[object]],
        stop: Callable[[], Awaitable[object]],
        websocket_paths: Collection[str] = (),
        direct_lane: Any = None,
        direct_websockets: Mapping[str, Callable[[Any], object]] = MappingProxyType({}),
        ports: Ports | None = None,
        drain: Callable[[float], Coroutine[Any, Any, object]] | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.ports = ports
        self.direct_lane = direct_lane
        self.direct_websockets = direct_websockets
        self._inner = inner
        self._start = start
        self._stop = stop
        self._drain = drain
        self._listeners = tuple(listeners)
        self._websocket_paths = frozenset(websocket_paths)
        self._is_started = False
        self._starting: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
            return
        if not self._is_started:
            await self.start()
        if self.ports is not None and self.ports.is_closed(scope):
            await refuse_unknown_path(scope, receive, send)
            return
        if kind == "http" and local_path(scope) in self._websocket_paths:
            await _refuse_plain_request(scope, send)
            return
        await self._inner(scope, receive, send)

    async def start(self) -> None:
        """Start the node unless it runs; those who ask meanwhile wait for the same start."""
        if self._is_started:
            return
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start_once())
        # The one who asked first may be cancelled; the start goes on for the others.
        await asyncio.shield(self._starting)

    async def start_early(self) -> None:
        """Start the node where it has listeners, which nobody would find before the first request."""
        if self._listeners:
            await self.start()

    async def drain(self, seconds: float) -> None:
        """Take no more calls on the listeners' ports, and send all clients away within so many seconds."""
        # Before the drain, which looks at those who are there when it begins.
        closing: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(listener.stop(seconds + LISTENER_GRACE))
            for listener in self._listeners
        ]
        if self._drain is not None:
            closing.append(asyncio.ensure_future(self._drain(seconds)))
        await asyncio.gather(*closing)

    async def stop(self) -> None:
        """Stop the node if it runs."""
        if self._is_started:
            self._is_started = False
            await self._close_listeners(LISTENER_GRACE)
            await self._stop()

    async def _start_once(self) -> None:
        try:
            await self._start()
            try:
                for listener in self._listeners:
                    await listener.start()
            except BaseException:
                await self._close_listeners(0)
                await self._stop()
                raise
            self._is_started = True
        finally:
            self._starting = None  # after a failure the next one tries again

    async def _close_listeners(self, grace: float) -> None:
        await asyncio.gather(*[listener.stop(grace) for listener in self._listeners])

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            logger.exception("the node could not start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self.stop()
        except Exception as error:
            logger.exception("the node could not stop")
            await send({"type": "lifespan.shutdown.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


async def _refuse_plain_request(scope: Scope, send: Send) -> None:
    """Answer an HTTP request that should have been an upgrade."""
    is_get = scope["method"] == "GET"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if not is_get:
        headers.append((b"allow", b"GET"))
    body = b"Bad Request" if is_get else b"Method Not Allowed"
    headers.append((b"content-length", b"%d" % len(body)))
    status = 400 if is_get else 405
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def refuse_unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or a WebSocket handshake, for which there is no route: 404, or 403 where the server can't say that."""
    prefix = "http.response"
    if scope["type"] == "websocket":
        await receive()
        prefix = "websocket.http.response"
        if prefix not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})
            return
    body = b"Not Found"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": f"{prefix}.start", "status": 404, "headers": headers})
    is_head = scope.get("method") == "HEAD"
    await send({"type": f"{prefix}.body", "body": b"" if is_head else body})


class OnSide:
    """
    An application as one listener serves it.

    Args:
        inner: Has ``Ports``, which reads what is written into the scopes here.
        side: Which listener it is.

    """

    def __init__(self, inner: Application, side: Side) -> None:
        self._inner = inner
        self._side = side

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        scope[SCOPE_KEY] = self._side
        await self._inner(scope, receive, send)
