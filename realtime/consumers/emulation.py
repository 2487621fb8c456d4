"""
Bidirectional sessions over HTTP: a stream for what the server says, a ``POST`` for each thing that the client says.

``http_stream`` and ``sse`` open the streams by ``serve_session``; ``emulation`` takes the posts.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from realtime import bootstrap
from realtime.client.client import Client
from realtime.consumers.scopes import header, random_uuid, user_header
from realtime.consumers.streaming import (
    Headers,
    Receive,
    Scope,
    Send,
    StreamTransport,
    cors_headers,
    respond,
    take_post,
)
from realtime.node.emulation import UnknownNodeError
from realtime.protocol import errors, json_codec, protobuf_codec
from realtime.protocol.errors import EngineError
from realtime.protocol.framing import MalformedFrame
from realtime.session.session import Session


if TYPE_CHECKING:
    from realtime.node.node import Node
    from realtime.protocol.messages import EmulationRequest
    from realtime.protocol.wire import Wire

logger = logging.getLogger(__name__)


class EmulatedTransport(StreamTransport):
    """A stream with a way back: commands that come while others are carried out wait, up to a limit."""

    def __init__(self, node: Node, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(node, wire, scope, receive, send)
        self._is_reading = True
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0

    def deliver(self, data: bytes) -> None:
        """Carry out one request's commands, in turn; nobody can be told to stop sending, so the wait has a limit."""
        assert self.client is not None
        if self._is_reading:
            self.client.on_message(data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > self._node.options.client.queue_max_size:
            self._waiting.clear()
            self.client.disconnect(*errors.SLOW)

    def pause_reading(self) -> None:
        """Let what comes wait."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Go on with what waits."""
        assert self.client is not None
        self._is_reading = True
        while self._waiting and self._is_reading:
            data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self.client.on_message(data)


async def serve_session(
    node: Node,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    wire: Wire,
    name: str,
    commands: bytes,
    headers: Headers,
    preamble: bytes = b"",
) -> None:
    """
    Serve a stream until it ends.

    Args:
        node: This process's.
        scope: The request's.
        receive: The request's; its body has been read.
        send: The request's; nothing has been sent.
        wire: How messages look.
        name: The transport's, for logs and metrics.
        commands: Framed; the first one has to be a connect.
        headers: Besides those of every stream.
        preamble: Sent before any message.

    """
    transport = EmulatedTransport(node, wire, scope, receive, send)
    session = Session(random_uuid(), random_uuid())
    transport.client = Client(
        node,
        session,
        wire,
        transport,
        transport_name=name,
        user_header=user_header(node, scope),
        is_emulated=True,
    )
    node.emulation.add(session.session_id, transport.deliver)
    try:
        await transport.serve(
            lambda: transport.deliver(commands), headers=headers, preamble=preamble
        )
    finally:
        node.emulation.discard(session.session_id)


async def emulation(scope: Any, receive: Any, send: Any) -> None:
    """``/emulation``: take commands for a session of any node."""
    node = await bootstrap.ensure_node()
    limit = node.options.emulation.max_request_body_size
    body = await take_post(node, scope, receive, send, limit, is_session=False)
    if body is not None:
        await respond(send, await _forward(node, scope, body), cors_headers(node, scope))


async def _forward(node: Node, scope: Scope, body: bytes) -> int:
    """Return the HTTP status."""
    try:
        request, data = _decode(body, is_protobuf=is_protobuf(scope))
        await node.emulation.forward(request.node, request.session, data)
    except MalformedFrame:
        return 400
    except UnknownNodeError:
        return 404
    except EngineError:
        logger.warning("commands were not forwarded", exc_info=True)
        return 500
    return 204


def _decode(body: bytes, *, is_protobuf: bool) -> tuple[EmulationRequest, bytes]:
    if is_protobuf:
        request = protobuf_codec.decode_emulation_request(body)
        return request, bytes(request.data)
    request = json_codec.decode_emulation_request(body)
    try:
        return request, msgspec.json.decode(request.data, type=str).encode()
    except (msgspec.MsgspecError, UnicodeError):
        # The stream is told, not the sender: no commands at all are a bad request there.
        return request, b""


def is_protobuf(scope: Scope) -> bool:
    """Say which encoding a request chooses: the header has to be exactly this."""
    return header(scope, b"content-type") == "application/octet-stream"
