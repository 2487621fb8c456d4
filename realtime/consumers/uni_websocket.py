"""
The unidirectional WebSocket: one connect request, then a push per text frame.

The request is the query's ``cf_connect``, or else the first message. As on the bidirectional one, the connection is handed over
where the server offers ``tidewire.frames``, and served by plain ASGI events elsewhere; PING frames and an end without a close
frame are possible only there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from realtime import bootstrap
from realtime.client.client import Transport
from realtime.client.unidirectional import UnidirectionalClient
from realtime.consumers.scopes import random_uuid, user_header
from realtime.consumers.websocket import (
    EXTENSION,
    AsgiTransport,
    Send,
    refusal,
    refuse,
)
from realtime.protocol import errors
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import ConnectRequest, DisconnectPush, Push
from realtime.protocol.wire import (
    PING_FRAME,
    UNI_ASGI_JSON,
    UNI_FRAMES_JSON,
    Wire,
    deflated_wire,
    frame,
)
from realtime.session.session import Session


if TYPE_CHECKING:
    from realtime.conf.options import UniWebSocketOptions
    from realtime.node.node import Node

_PING = frame(b"", PING_FRAME)


async def uni_websocket(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/uni_websocket``: serve one connection."""
    event = await receive()
    if event["type"] != "websocket.connect":
        return
    node = await bootstrap.ensure_node()
    status = refusal(node, scope)
    request: ConnectRequest | None = None
    if not status:
        try:
            request = _request_in_query(scope)
        except MalformedFrame:
            status = 400
    if status:
        await refuse(scope, send, status)
        return
    await send({"type": "websocket.accept", "subprotocol": None})
    extension = scope.get("extensions", {}).get(EXTENSION)
    if extension is not None:
        connection = FramesListener(node, extension, user_header(node, scope))
        extension.attach(connection)  # before anything is written: Daphne's would drop it
        if request is not None:
            connection.client.connect(request)
        return
    transport = AsgiListener(node, send, user_header(node, scope))
    if request is not None:
        transport.listener.connect(request)
    await transport.serve(receive)


def _request_in_query(scope: Any) -> ConnectRequest | None:
    text = scope.get("query_string", b"")
    query = parse_qs(text.decode("latin-1")) if text else {}
    if "cf_connect" not in query:
        return None
    return UNI_FRAMES_JSON.decode_connect_request(query["cf_connect"][0].encode())


def _client(
    node: Node, wire: Wire, transport: Transport, user: str, *, frame_ping: bytes = b""
) -> UnidirectionalClient:
    return UnidirectionalClient(
        node,
        Session(random_uuid(), random_uuid()),
        wire,
        transport,
        transport_name="uni_websocket",
        user_header=user,
        frame_ping=frame_ping,
        write_timeout=node.options.uni_websocket.write_timeout,
    )


def _disconnect_push(wire: Wire, code: int, reason: str) -> bytes:
    return wire.encode_push(Push(disconnect=DisconnectPush(code=code, reason=reason)))


class FramesListener:
    """
    One attached connection: the client's transport on one side, the server's handler on the other.

    Args:
        node: This process's.
        connection: The extension object, before it is attached to.
        user: The user that a trusted reverse proxy named, or empty.

    """

    __slots__ = (
        "_connection",
        "_is_closing",
        "_options",
        "buffer_size",
        "client",
        "direct_write",
        "pause_reading",
        "resume_reading",
        "uncork",
        "write",
    )

    def __init__(self, node: Node, connection: Any, user: str) -> None:
        self._connection = connection
        self._options: UniWebSocketOptions = node.options.uni_websocket
        self._is_closing = False
        self.buffer_size = connection.buffer_size
        self.uncork = connection.uncork
        self.pause_reading = connection.pause_reading
        self.resume_reading = connection.resume_reading
        self.write = connection.write
        self.direct_write = connection.direct_write
        wire = UNI_FRAMES_JSON
        if self._options.join_push_messages:
            wire = UNI_ASGI_JSON  # pushes of one write are joined first, and framed here
            self.write = self._write_joined
            self.direct_write = self._direct_write_joined
        elif connection.negotiated_compression:
            wire = deflated_wire(connection.settings.compress_frame, is_unidirectional=True)
        self.client = _client(node, wire, self, user, frame_ping=_PING)

    def _write_joined(self, messages: bytes) -> None:
        if messages is _PING:
            self._connection.write(messages)
        else:
            self._connection.write_message(messages)

    def _direct_write_joined(self, messages: bytes) -> None:
        self._connection.direct_write(self._connection.compress_frame(messages))

    def close(self, code: int, reason: str) -> None:
        """Tell the client why, then end the connection."""
        if self._is_closing:
            return
        # Before the push, which may fill the buffer: that would end the connection once more.
        self._is_closing = True
        if not self._options.disable_disconnect_push:
            self.write(_disconnect_push(self.client.wire, code, reason))
        if self._options.disable_closing_handshake:
            self._connection.drop()
        else:
            self._connection.close(code, reason)

    # --- what the server reports -----------------------------------------------------------------

    def on_message(self, data: bytes, is_text: bool = True) -> None:
        """Take the connect request; one that can't be read ends the connection without a push, as the reference does."""
        if self.client.has_request:
            return
        try:
            request = self.client.wire.decode_connect_request(data)
        except MalformedFrame:
            self._connection.close(*errors.BAD_REQUEST)
        else:
            self.client.connect(request)

    def on_close(self, code: int = 1006) -> None:
        """The connection is gone."""
        self.client.on_close(code)

    def on_pause(self) -> None:
        """The peer doesn't read."""
        self.client.on_pause()

    def on_resume(self) -> None:
        """The peer reads again."""
        self.client.on_resume()

    def on_pong(self) -> None:
        """A PONG frame came."""
        self.client.on_pong()


class AsgiListener(AsgiTransport):
    """
    One connection over plain ASGI events.

    Args:
        node: This process's.
        send: The connection's; it has been accepted.
        user: The user that a trusted reverse proxy named, or empty.

    """

    def __init__(self, node: Node, send: Send, user: str) -> None:
        options = node.options.uni_websocket
        super().__init__(node, send, options)
        if not options.join_push_messages:
            self.messages_per_frame = 1
        self._has_disconnect_push = not options.disable_disconnect_push
        self.client = self.listener = _client(node, UNI_ASGI_JSON, self, user)

    def write(self, framed: bytes) -> None:
        """Queue pushes one by one; the hub may have joined some."""
        for message in framed.split(b"\n"):
            super().write(message)

    direct_write = write

    def close(self, code: int, reason: str) -> None:
        """Tell the client why, then close."""
        if self._has_disconnect_push and code != errors.SLOW[0]:
            self.write(_disconnect_push(UNI_ASGI_JSON, code, reason))
        super().close(code, reason)

    def take(self, data: bytes, is_text: bool) -> None:
        """Take the connect request; one that can't be read ends the connection without a push, as the reference does."""
        if self.listener.has_request:
            return
        try:
            request = UNI_ASGI_JSON.decode_connect_request(data)
        except MalformedFrame:
            super().close(*errors.BAD_REQUEST)
        else:
            self.listener.connect(request)
