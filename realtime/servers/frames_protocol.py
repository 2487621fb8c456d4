"""
A WebSocket connection beneath uvicorn: our frame codec on an asyncio transport, an ASGI application above it.

A connection is in one of these states::

    HANDSHAKE --accept--> OPEN --close()--> CLOSING ----+
        |                  |  \\                         | the peer's close frame,
        | refused          |   --the peer breaks the    | end of stream,
        |                  |     protocol--> DRAINING --+ or 5 seconds
        |                  | the peer's close frame     |
        +------------------+----------------------------+--> GONE

``HANDSHAKE``: the application decides; what the peer already sends waits, unread where possible.
``CLOSING``: our close frame is out, frames are still read but only the peer's close frame counts.
``DRAINING``: the peer can't be understood or sends too much. Our close frame is out and so is our end of the stream; what
comes is thrown away, since closing a socket with unread data resets it, and the reset may overtake the close frame.
``GONE``: the transport is closing or closed.

A connection that has been handed over holds this object (slots), its decoder and the transport: no task, no timer, no scope.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected

from realtime.node.eager import run_eagerly
from realtime.protocol.errors import SERVER_ERROR, SHUTDOWN
from realtime.protocol.wire import frame
from realtime.servers.deflate import decompress, negotiate
from realtime.servers.extension import (
    CLOSE_TIMEOUT_SECONDS,
    EXTENSION,
    HIGH_WATER_BYTES,
    FramesHandler,
    FramesSettings,
)
from realtime.servers.frame_codec import (
    ABNORMAL,
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameDecoder,
    FrameError,
    OnMessage,
    decode_close,
    encode_close,
)
from realtime.servers.handshake import (
    closing_response,
    header_values,
    switching_protocols,
)


logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Application = Callable[
    [Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

HANDSHAKE: Final = 0
OPEN: Final = 1
CLOSING: Final = 2
DRAINING: Final = 3
GONE: Final = 4

NORMAL_CLOSURE = 1000
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012

# A consumer that reads through ASGI has so many messages waiting before the socket is no longer read.
_MAX_WAITING_EVENTS = 16
# TLS has no half-close here: the peer has so long to take our close frame before the socket is dropped.
_TLS_DRAIN_SECONDS = 1.0


def _ignore(*_: object) -> None:
    """Drop what can't be delivered any more."""


class FramesProtocol(asyncio.Protocol):
    """
    One WebSocket connection; also the extension object and the connection of ``realtime.servers.extension``.

    Args:
        settings: Limits; one object for all connections.
        connections: The server's set of live connections; this one is in it until its transport is closed.

    """

    __slots__ = (
        "_asgi",
        "_close_timer",
        "_connections",
        "_cork",
        "_decoder",
        "_handler",
        "_is_attached",
        "_pong",
        "_settings",
        "_transport",
        "_wants_input",
        "_write",
        "is_write_paused",
        "negotiated_compression",
        "state",
    )

    def __init__(self, settings: FramesSettings, connections: set[Any]) -> None:
        self._settings = settings
        self._connections = connections
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # start() sets it
        self._write: Callable[[bytes], object] = _ignore
        self._decoder = FrameDecoder(settings.max_message_bytes)
        # The consumer's first frame waits until it has accepted, and attached if it does so at once.
        self._decoder.is_paused = True
        self._handler: FramesHandler | None = None
        self._is_attached = False
        self._asgi: _AsgiSide | None = None
        self._cork: list[bytes] | None = None
        self._pong: bytes | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self.is_write_paused = False
        self._wants_input = False
        self.state = HANDSHAKE
        self.negotiated_compression = False

    # -- what the extension offers

    def attach(self, handler: FramesHandler) -> FramesProtocol:
        """Hand the connection over; see ``FramesExtension``."""
        asgi = self._asgi
        if self.state == HANDSHAKE or self._is_attached or asgi is None or asgi.has_read:
            raise RuntimeError(
                "attach() comes once, after websocket.accept and before the next receive()"
            )
        self._is_attached = True
        if self.state == OPEN:
            self._handler = handler
            self._wants_input = True
            if self._decoder.has_input or self.is_write_paused:
                # What waits is told once the handler knows its connection; mostly nothing does, which saves 6 µs.
                asyncio.get_running_loop().call_soon(self._begin)
            else:
                self._decoder.is_paused = False
        else:  # it went away meanwhile, and the handler must learn of it
            asyncio.get_running_loop().call_soon(self._tell_close, handler, asgi.close_code)
        return self

    def write(self, framed: bytes) -> None:
        """Send ready-made frames; see ``FramesConnection``."""
        if self._cork is None:
            self._write(framed)
        else:
            self._cork.append(framed)

    def direct_write(self, framed: bytes) -> None:
        """Send without collecting; see ``FramesConnection``."""
        self._write(framed)

    def write_message(self, payload: bytes, opcode: int = TEXT) -> None:
        """Frame and send one message."""
        self.write(self.compress_frame(payload, opcode))

    def compress_frame(self, payload: bytes, opcode: int = TEXT) -> bytes:
        """Return ``payload`` framed as this connection and all of its kind may have it."""
        if self.negotiated_compression:
            return self._settings.compress_frame(payload, opcode)
        return frame(payload, opcode)

    @property
    def settings(self) -> FramesSettings:
        """The limits and the compression of this and all other connections of the server."""
        return self._settings

    def uncork(self) -> None:
        """Send what has been collected in this read."""
        if self._cork:
            collected = b"".join(self._cork)
            self._cork.clear()
            self._write(collected)

    def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close with a handshake of at most 5 s."""
        if self.state != OPEN:
            return
        self.state = CLOSING
        self._send_last(encode_close(code, reason))
        self._drop_later(CLOSE_TIMEOUT_SECONDS)
        # The rest of the read in hand is no longer the handler's; the peer's close frame may be in it.
        self._decoder.is_paused = True
        self._wants_input = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self._finish, code)
        loop.call_soon(self._go_on_reading)

    def drop(self) -> None:
        """End without a close frame."""
        if self.state != OPEN:
            return
        self.uncork()
        self._cork = None
        self.leave()
        asyncio.get_running_loop().call_soon(self._finish, ABNORMAL)

    def buffer_size(self) -> int:
        """Return how many bytes wait for the peer to read."""
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Take no more messages for now."""
        if self.state == OPEN:
            self._wants_input = False
            self._decoder.is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take messages again."""
        if self.state == OPEN and not self._wants_input:
            self._wants_input = True
            asyncio.get_running_loop().call_soon(self._go_on_reading)

    # -- the start, called by the HTTP protocol

    def start(
        self,
        transport: asyncio.Transport,
        scope: MutableMapping[str, Any],
        accept: bytes,
        tail: bytes,
        application: Application,
        *,
        is_direct: bool = False,
    ) -> asyncio.Task[None] | None:
        """
        Take over a transport whose peer asked for the upgrade.

        Args:
            transport: Its protocol is set to this object.
            scope: The ASGI scope, without extensions.
            accept: The value of ``Sec-WebSocket-Accept``.
            tail: What was read behind the request's head.
            application: The ASGI application.
            is_direct: Run it on the spot; a consumer that attaches then costs neither a task nor a turn of the loop, 15 µs.

        Returns:
            The application's task, ``None`` when it has ended already.

        """
        self._transport = transport
        self._write = transport.write
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._connections.add(self)
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: self}
        self._asgi = _AsgiSide(self, scope["headers"], accept)
        if tail:
            self.data_received(tail)
        running = self._run(application, scope, self._asgi)
        if is_direct:
            return run_eagerly(running)[1]
        return asyncio.get_running_loop().create_task(running)

    async def _run(self, application: Application, scope: Any, asgi: _AsgiSide) -> None:
        try:
            await application(scope, asgi.receive, asgi.send)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            self.shutdown()
            raise
        except Exception:
            logger.exception("the websocket application failed")
            self._end_application(SERVER_ERROR if self._is_attached else (INTERNAL_ERROR, ""))
        else:
            if not self._is_attached:
                self._end_application((NORMAL_CLOSURE, ""))
        finally:
            self._asgi = None

    def _end_application(self, close: tuple[int, str]) -> None:
        """Leave no socket behind an application that is over."""
        if self.state == HANDSHAKE:
            self.refuse(500)
        else:
            self.close(*close)

    def accept_handshake(
        self,
        accept: bytes,
        request_headers: list[tuple[bytes, bytes]],
        subprotocol: str | None,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """Send the 101 response; frames are read from the consumer's ``attach`` or ``receive`` on."""
        extensions = None
        if self._settings.has_compression:
            offers = b",".join(header_values(request_headers, b"sec-websocket-extensions"))
            extensions = negotiate(offers.decode("latin-1"))
        head = switching_protocols(accept, subprotocol, extensions, headers)
        if extensions is not None:
            self.negotiated_compression = True
            self._decoder.inflate = partial(decompress, max_bytes=self._settings.decompressed_limit)
        self.state = OPEN
        self._write(head)

    def refuse(
        self, status: int, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes | None = None
    ) -> None:
        """Answer the handshake with an HTTP error and close."""
        self._write(closing_response(status, tuple(headers), body))
        self.leave()

    # -- asyncio's side

    def data_received(self, data: bytes) -> None:
        """Decode what was read; all that is written meanwhile leaves in one write."""
        if self.state >= DRAINING:
            return
        self._cork = []
        self._decode(data)
        cork, self._cork = self._cork, None
        if cork:
            self._write(cork[0] if len(cork) == 1 else b"".join(cork))

    def eof_received(self) -> None:
        """Let the transport close itself: a WebSocket is never half-open."""

    def pause_writing(self) -> None:
        """Pass on that the peer doesn't read."""
        self.is_write_paused = True
        if self._handler is not None:
            self._call(self._handler.on_pause)

    def resume_writing(self) -> None:
        """Pass on that the peer reads again."""
        self.is_write_paused = False
        pong, self._pong = self._pong, None
        if pong is not None:
            self.write(frame(pong, PONG))
        if self._handler is not None:
            self._call(self._handler.on_resume)
        if self._asgi is not None:
            self._asgi.wake_writers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody; the last call from the transport."""
        self.state = GONE
        self.is_write_paused = False
        self._write = _ignore
        self._cork = None
        self._connections.discard(self)
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._finish(ABNORMAL)

    def shutdown(self) -> None:
        """End what the drain has left over; uvicorn calls this on every connection."""
        if self.state == HANDSHAKE:
            self.refuse(503)
        else:
            self.close(*(SHUTDOWN if self._is_attached else (SERVICE_RESTART, "")))

    # -- reading

    def _decode(self, data: bytes) -> None:
        decoder = self._decoder
        if self.state != OPEN:
            on_message: OnMessage = _ignore
        elif self._handler is not None:
            on_message = self._handler.on_message
        elif self._asgi is not None:
            on_message = self._asgi.on_message
        else:
            on_message = _ignore
        try:
            decoder.feed(data, on_message, self._on_control)
        except FrameError as error:
            self._fail(error.code, error.reason)
        except Exception:
            # The decoder was interrupted too, and can't go on.
            logger.exception("a connection's handler failed")
            self._fail(*SERVER_ERROR)
        if decoder.is_paused and self.state <= OPEN:
            self._transport.pause_reading()

    def _go_on_reading(self) -> None:
        """Decode what waits, then read on; if it was paused again meanwhile, or is gone, do nothing."""
        if not self._wants_input or self.state >= DRAINING:
            return
        self._decoder.is_paused = False
        if self._decoder.has_input:
            self.data_received(b"")
        if not self._decoder.is_paused and self.state < DRAINING:
            self._transport.resume_reading()

    def _begin(self) -> None:
        """Start to call the handler, which by now knows its connection."""
        if self.is_write_paused and self._handler is not None:
            self._call(self._handler.on_pause)
        self._go_on_reading()

    def _on_control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._on_close_frame(*decode_close(payload))
        elif opcode == PING and self.state == OPEN:
            if self.is_write_paused:
                # Pings of a peer that doesn't read must not fill our memory; RFC 6455 5.5.3 lets us answer the last.
                self._pong = payload
            else:
                self.write(frame(payload, PONG))
        elif opcode == PONG and self._handler is not None:
            self._call(self._handler.on_pong)

    def _on_close_frame(self, code: int, reason: str) -> None:
        if self.state == OPEN:
            self._send_last(encode_close(code, reason))
        self.leave()
        self._finish(code, reason)

    # -- ending

    def _fail(self, code: int, reason: str) -> None:
        """End a connection whose peer broke the rules."""
        if self.state == OPEN:
            self._send_last(encode_close(code, reason))
        self.state = DRAINING
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._drop_later(CLOSE_TIMEOUT_SECONDS)
        else:
            self._drop_later(_TLS_DRAIN_SECONDS)
        self._finish(code, reason)

    def _send_last(self, close_frame: bytes) -> None:
        self.uncork()
        self._cork = None
        self._write(close_frame)
        self._write = _ignore
        self._pong = None

    def _drop_later(self, seconds: float) -> None:
        """Have an end even with a peer that neither reads nor closes."""
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._close_timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def leave(self) -> None:
        """Close the transport once what was written is flushed, but within 5 s."""
        self.state = GONE
        self._decoder.is_paused = True
        self._drop_later(CLOSE_TIMEOUT_SECONDS)
        self._write = _ignore
        self._transport.close()

    def _finish(self, code: int, reason: str = "") -> None:
        """Tell the application, once, that the connection is over."""
        handler, self._handler = self._handler, None
        if handler is not None:
            self._tell_close(handler, code)
        elif self._asgi is not None:
            self._asgi.on_close(code, reason)

    @staticmethod
    def _tell_close(handler: FramesHandler, code: int) -> None:
        try:
            handler.on_close(code)
        except Exception:
            logger.exception("a connection's on_close failed")

    def _call(self, callback: Callable[[], None]) -> None:
        """Call the handler outside of a read."""
        try:
            callback()
        except Exception:
            logger.exception("a connection's handler failed")
            self.close(*SERVER_ERROR)


class _AsgiSide:
    """
    The ASGI half of a connection: ``receive`` and ``send`` for its application.

    It lives as long as the application's coroutine. Frames are decoded only once the application asks for the event after
    ``websocket.connect``, so that nothing is lost to one that attaches instead.
    """

    __slots__ = (
        "_accept",
        "_connection",
        "_events",
        "_headers",
        "_reader",
        "_response",
        "_writers",
        "close_code",
        "has_read",
    )

    def __init__(
        self, connection: FramesProtocol, headers: list[tuple[bytes, bytes]], accept: bytes
    ) -> None:
        self._connection = connection
        self._headers = headers
        self._accept = accept
        self._events: deque[Message] = deque([{"type": "websocket.connect"}])
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._response: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None
        self.has_read = False
        self.close_code = ABNORMAL

    async def receive(self) -> Message:
        """Return the next event, ``websocket.disconnect`` once the connection is over."""
        while not self._events:
            self.has_read = True
            self._connection.resume_reading()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        event = self._events.popleft()
        if event["type"] == "websocket.disconnect":
            self._events.append(event)  # for whoever asks again
        return event

    async def send(self, message: Message) -> None:
        """
        Do what the application says.

        Raises:
            ClientDisconnected: The connection is over.
            RuntimeError: The message makes no sense now.

        """
        while self._connection.is_write_paused:
            waiter = asyncio.get_running_loop().create_future()
            self._writers.append(waiter)
            await waiter
        kind = message["type"]
        if self._connection.state == HANDSHAKE:
            self._answer_handshake(kind, message)
        elif self._connection.state != OPEN:
            raise ClientDisconnected
        elif kind == "websocket.send":
            payload = message.get("bytes")
            if payload is None:
                self._connection.write_message(message["text"].encode(), TEXT)
            else:
                self._connection.write_message(payload, BINARY)
        elif kind == "websocket.close":
            self._connection.close(message.get("code", NORMAL_CLOSURE), message.get("reason") or "")
        else:
            raise RuntimeError(f"{kind} after websocket.accept")

    def _answer_handshake(self, kind: str, message: Message) -> None:
        if kind == "websocket.http.response.start":
            self._response = (message["status"], list(message.get("headers", ())), bytearray())
        elif self._response is not None:
            self._continue_response(kind, message)
        elif kind == "websocket.accept":
            self._connection.accept_handshake(
                self._accept,
                self._headers,
                message.get("subprotocol"),
                list(message.get("headers", ())),
            )
        elif kind == "websocket.close":
            self._connection.refuse(403)
        else:
            raise RuntimeError(f"{kind} before websocket.accept")

    def _continue_response(self, kind: str, message: Message) -> None:
        if kind != "websocket.http.response.body" or self._response is None:
            raise RuntimeError(f"{kind} after websocket.http.response.start")
        status, headers, body = self._response
        body += message.get("body", b"")
        if not message.get("more_body", False):
            self._connection.refuse(status, headers, bytes(body))

    def on_message(self, payload: bytes, is_text: bool) -> None:
        """Keep a message for ``receive``, and stop reading when there are many."""
        if is_text:
            self._put({"type": "websocket.receive", "text": payload.decode()})
        else:
            self._put({"type": "websocket.receive", "bytes": payload})
        if len(self._events) >= _MAX_WAITING_EVENTS:
            self._connection.pause_reading()

    def on_close(self, code: int, reason: str) -> None:
        """Tell the application, whether it reads or writes."""
        self.close_code = code
        if not self._events or self._events[-1]["type"] != "websocket.disconnect":
            self._put({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.wake_writers()

    def wake_writers(self) -> None:
        """Let those go on who waited for the peer to read."""
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    def _put(self, event: Message) -> None:
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
