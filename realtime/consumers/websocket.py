"""
The bidirectional WebSocket.

Where the server offers ``tidewire.frames`` the consumer attaches the client to the socket and returns: nothing of Channels
stays behind per connection. Elsewhere it reads and writes by plain ASGI events, with one task that writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs

from channels.consumer import AsyncConsumer

from realtime import bootstrap
from realtime.client.client import Client
from realtime.conf.options import UniWebSocketOptions, WebSocketOptions
from realtime.consumers.origins import is_origin_allowed
from realtime.consumers.scopes import header, random_uuid, user_header
from realtime.node.node import Node
from realtime.protocol import errors
from realtime.protocol.wire import (
    ASGI_JSON,
    ASGI_PROTOBUF,
    FRAMES_JSON,
    FRAMES_PROTOBUF,
    PING_FRAME,
    Wire,
    deflated_wire,
    frame,
)
from realtime.session.session import Session


logger = logging.getLogger(__name__)

EXTENSION = "tidewire.frames"
SUBPROTOCOLS = ("centrifuge-json", "centrifuge-protobuf")

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class WebSocketConsumer(AsyncConsumer):
    """``/connection/websocket``: the client protocol over a WebSocket, JSON or Protobuf."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Serve one connection.

        Channels' own ``__call__`` and ``dispatch`` would start a listener per connection and visit a thread
        before each message; connections here belong to no group of the layer, the node does.
        """
        event = await receive()
        if event["type"] != "websocket.connect":
            return
        node = await bootstrap.ensure_node()
        status = refusal(node, scope)
        if status:
            await refuse(scope, send, status)
            return
        terms = _terms(scope.get("query_string", b""), scope.get("subprotocols", ()))
        await send({"type": "websocket.accept", "subprotocol": terms.subprotocol})
        extension = scope.get("extensions", {}).get(EXTENSION)
        user = user_header(node, scope)
        if extension is not None:
            _attach(node, extension, terms, user)
            return
        transport = AsgiTransport(node, send, node.options.websocket, is_protobuf=terms.is_protobuf)
        client = Client(
            node,
            Session(random_uuid()),
            ASGI_PROTOBUF if terms.is_protobuf else ASGI_JSON,
            transport,
            transport_name="websocket",
            user_header=user,
        )
        transport.client = client
        await transport.serve(receive)

    @staticmethod
    def open(upgrade: Upgrade) -> None:
        """
        Do the same without ASGI, for a server of ours that has an upgrade to hand over.

        The scope, the messages and the coroutines between them cost a connect 13 µs more.
        """
        node = bootstrap.running_node()
        scope = {"headers": upgrade.headers}
        status = 503 if node is None else refusal(node, scope)
        if node is None or status:
            upgrade.refuse(status)
            return
        terms = _terms(upgrade.query_string, upgrade.subprotocols)
        connection = upgrade.accept(terms.subprotocol)
        _attach(node, connection, terms, user_header(node, scope))


class Upgrade(Protocol):
    """A WebSocket upgrade that waits for its answer; ``realtime.servers.frames_protocol`` has it."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case."""

    @property
    def query_string(self) -> bytes:
        """Raw."""

    @property
    def subprotocols(self) -> Sequence[str]:
        """What the client offers."""

    def accept(self, subprotocol: str | None) -> Any:
        """Open the connection, and return what ``tidewire.frames`` is in a scope."""

    def refuse(self, status: int) -> None:
        """Answer with an HTTP status."""


class _Terms(NamedTuple):
    """What the client and we agree on by the handshake."""

    subprotocol: str | None
    is_protobuf: bool
    has_frame_pings: bool


_PLAIN = _Terms(None, is_protobuf=False, has_frame_pings=False)


def _terms(query_string: bytes, subprotocols: Sequence[str]) -> _Terms:
    if not query_string and not subprotocols:
        return _PLAIN
    query = parse_qs(query_string.decode("latin-1"))
    subprotocol = next((each for each in subprotocols if each in SUBPROTOCOLS), None)
    return _Terms(
        subprotocol,
        is_protobuf=query.get("format") == ["protobuf"]
        or query.get("cf_protocol") == ["protobuf"]
        or subprotocol == "centrifuge-protobuf",
        has_frame_pings=query.get("cf_ws_frame_ping_pong") == ["true"],
    )


def _attach(node: Node, connection: Any, terms: _Terms, user: str) -> None:
    client = Client(
        node,
        Session(random_uuid()),
        _frames_wire(connection, is_protobuf=terms.is_protobuf),
        connection,
        transport_name="websocket",
        user_header=user,
        frame_ping=frame(b"", PING_FRAME) if terms.has_frame_pings else b"",
    )
    connection.attach(client)


def _frames_wire(extension: Any, *, is_protobuf: bool) -> Wire:
    """Choose the wire of an attached connection; those with compression are a kind of their own."""
    if extension.negotiated_compression:
        return deflated_wire(extension.settings.compress_frame, is_protobuf=is_protobuf)
    return FRAMES_PROTOBUF if is_protobuf else FRAMES_JSON


class AsgiTransport:
    """
    A connection over plain ASGI events: a bounded queue and the task that empties it.

    Args:
        node: Has the bound of the queue.
        send: The connection's; it has been accepted.
        limits: The transport's own.
        is_protobuf: Whether messages are binary.

    Attributes:
        client: Whose transport it is; to be set before ``serve``.
        messages_per_frame: How many may share one; -1 is any number.

    """

    def __init__(
        self,
        node: Node,
        send: Send,
        limits: WebSocketOptions | UniWebSocketOptions,
        *,
        is_protobuf: bool = False,
    ) -> None:
        self.client: Client | None = None
        self.messages_per_frame = node.options.client.messages_per_frame
        self._node = node
        self._send = send
        self._limits = limits
        self._is_protobuf = is_protobuf
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._wakeup = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self._may_read = asyncio.Event()
        self._may_read.set()

    # --- Transport -------------------------------------------------------------------------------

    def write(self, framed: bytes) -> None:
        """Queue a message; a queue over its limit ends the connection."""
        if self._close is not None:
            return
        self._queue.append(framed)
        self._size += len(framed)
        self._wakeup.set()
        if self._size > self._node.options.client.queue_max_size and self.client is not None:
            self._queue.clear()
            self.client.disconnect(*errors.SLOW)

    direct_write = write

    def uncork(self) -> None:
        """Do nothing: all writes take the same queue."""

    def close(self, code: int, reason: str) -> None:
        """Close after what is queued."""
        if self._close is None:
            self._close = (code, reason)
            self._wakeup.set()

    def buffer_size(self) -> int:
        """Return the bytes that wait."""
        return self._size

    def pause_reading(self) -> None:
        """Stop taking events."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Go on."""
        self._may_read.set()

    # --- the connection --------------------------------------------------------------------------

    async def serve(self, receive: Receive) -> None:
        """Read until the connection ends."""
        assert self.client is not None
        writer = asyncio.create_task(self._write_out())
        limit = self._limits.message_size_limit
        try:
            while True:
                await self._may_read.wait()
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    self.client.on_close(event.get("code") or 1005)
                    break
                text = event.get("text")
                data = text.encode() if text is not None else event.get("bytes") or b""
                if len(data) > limit:
                    self.client.disconnect(1009, "")
                    break
                self.take(data, text is not None)
                if self._close is not None:
                    break
        finally:
            self.client.on_close()
            self._close = self._close or (1000, "")
            self._wakeup.set()
            await writer

    def take(self, data: bytes, is_text: bool) -> None:
        """Hand a message in."""
        assert self.client is not None
        self.client.on_message(data, is_text)

    async def _write_out(self) -> None:
        """Write what is queued, then close; a write that takes too long, or fails, ends the connection."""
        timeout = self._limits.write_timeout or None
        try:
            while True:
                await self._wakeup.wait()
                self._wakeup.clear()
                while self._queue:
                    await asyncio.wait_for(self._send(self._next_event()), timeout)
                if self._close is not None:
                    code, reason = self._close
                    await asyncio.wait_for(
                        self._send({"type": "websocket.close", "code": code, "reason": reason}),
                        timeout,
                    )
                    return
        except (OSError, RuntimeError, TimeoutError):
            # The peer went away, or the server says so by an error of its own.
            if self.client is not None:
                self.client.disconnect(*errors.WRITE_ERROR)

    def _next_event(self) -> dict[str, Any]:
        count = len(self._queue)
        if 0 < self.messages_per_frame < count:
            count = self.messages_per_frame
        messages = [self._queue.popleft() for _ in range(count)]
        self._size -= sum(map(len, messages))
        if self._is_protobuf:
            return {"type": "websocket.send", "bytes": b"".join(messages)}
        return {"type": "websocket.send", "text": b"\n".join(messages).decode()}


def refusal(node: Node, scope: dict[str, Any]) -> int:
    """Return the HTTP status that refuses a connection, or 0."""
    origin = header(scope, b"origin")
    if not is_origin_allowed(origin, node.options.client.allowed_origins):
        logger.info("origin refused", extra={"origin": origin})
        return 403
    if not node.admit():
        return 503
    return 0


async def refuse(scope: dict[str, Any], send: Send, status: int) -> None:
    """Answer a handshake with an HTTP status, where the server can."""
    if status != 403 and "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": status, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close"})  # before accept: 403
