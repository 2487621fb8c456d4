"""
A WebTransport session: the extended CONNECT that keeps it, and the one stream that carries the client protocol.

The session begins with the answer to its request; the peer has some seconds to open a bidirectional stream, which then is the
client's transport. Whatever ends first ends the rest: the stream, the session, the connection below. When the server ends it,
a disconnect push and the stream's end come first and the session's close a second later: a browser drops what it has not
read of a stream when the session closes.

The capsules on the CONNECT's stream and the codes of WebTransport are those of draft-ietf-webtrans-http3-02, which browsers speak.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from aioquic.buffer import (  # type: ignore[attr-defined]  # it marks no exports
    Buffer,
    BufferReadError,
    encode_uint_var,
)

from realtime.consumers import webtransport
from realtime.protocol import errors
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import DisconnectPush, Push
from realtime.servers.extension import HIGH_WATER_BYTES


if TYPE_CHECKING:
    from realtime.client.client import Client

logger = logging.getLogger(__name__)

# How long a session may be without the stream that it is for.
STREAM_SECONDS = 10.0
# Between the stream's end and the session's.
FAREWELL_SECONDS = 1.0
# From which on a paused reader counts as caught up.
_LOW_WATER_BYTES = HIGH_WATER_BYTES // 4
_NO_FLUSH = (errors.SLOW[0], errors.WRITE_ERROR[0])

_CLOSE_SESSION = 0x2843
# The reason's limit is the draft's; only the end of a longer capsule matters.
_MAX_CAPSULE_BYTES = 4 + 1024
# WEBTRANSPORT_SESSION_GONE, and the application's error 0 as HTTP/3 carries it.
_SESSION_GONE = 0x170D7B68
_NO_ERROR = 0x52E4A40FA8DB


class Carrier(Protocol):
    """The HTTP/3 connection that a session is on; all of it is synchronous."""

    def write(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        """Send on a stream as it is; the datagrams of one round leave together."""

    def write_body(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        """Send in a DATA frame of a request's stream."""

    def reset(self, stream_id: int, code: int) -> None:
        """Drop what a stream has not delivered, in both directions."""

    def unsent_bytes(self, stream_id: int) -> int:
        """Return what was written to a stream and not sent yet."""

    def pause_reading(self, stream_id: int) -> None:
        """Let the peer send no more on a stream than its window has left."""

    def resume_reading(self, stream_id: int) -> None:
        """Widen the window again."""

    def forget(self, session: WebTransportSession, *, is_stuck: bool) -> None:
        """Hear that a session is over; what a stuck one still holds is not worth keeping."""


class WebTransportSession:
    """
    One session, as the transport of its client.

    Args:
        carrier: Its connection.
        session_id: The stream of its CONNECT request, which has been answered.
        scope: The request.

    """

    def __init__(self, carrier: Carrier, session_id: int, scope: dict[str, Any]) -> None:
        self.session_id = session_id
        self._carrier = carrier
        self._scope = scope
        self._wire = webtransport.wire_of(scope)
        self._splitter = webtransport.splitter_of(self._wire)
        self._stream_id = -1
        self._client: Client | None = None
        self._is_closing = False
        self._is_over = False
        self._is_paused = False  # the peer doesn't read
        self._is_reading = True
        self._held = bytearray()  # came while reading was paused; its stream's window bounds it
        self._has_ended = False  # the peer's side of the stream
        self._capsules = bytearray()
        self._timer = asyncio.get_running_loop().call_later(
            STREAM_SECONDS, self._end, *errors.STALE
        )

    # --- Transport -------------------------------------------------------------------------------

    def write(self, framed: bytes) -> None:
        """Send a message."""
        if not self._is_closing:
            self._carrier.write(self._stream_id, framed)

    direct_write = write

    def uncork(self) -> None:
        """Do nothing: what is written in one round leaves together."""

    def close(self, code: int, reason: str) -> None:
        """Say why on the stream and end it, then the session; a reader that is too slow gets the session's close alone."""
        if self._is_closing:
            return
        self._is_closing = True
        if code in _NO_FLUSH:
            self._carrier.reset(self._stream_id, _NO_ERROR)
        else:
            push = Push(disconnect=DisconnectPush(code=code, reason=reason))
            self._carrier.write(self._stream_id, self._wire.encode_push(push), is_last=True)
        self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FAREWELL_SECONDS, self._end, code, reason)

    def buffer_size(self) -> int:
        """Return the bytes that wait."""
        return self._carrier.unsent_bytes(self._stream_id)

    def pause_reading(self) -> None:
        """Hold back what comes, and let no more come."""
        if self._is_reading:
            self._is_reading = False
            self._carrier.pause_reading(self._stream_id)

    def resume_reading(self) -> None:
        """Go on."""
        if not self._is_reading:
            self._is_reading = True
            self._carrier.resume_reading(self._stream_id)
            asyncio.get_running_loop().call_soon(self._read)

    # --- what the connection reports -------------------------------------------------------------

    def take_stream(self, stream_id: int) -> bool:
        """Make a stream that the peer opened the client's; say no to any but the first."""
        if self._stream_id != -1 or self._is_over:
            return stream_id == self._stream_id
        self._stream_id = stream_id
        self._timer.cancel()
        self._client = webtransport.open_client(self._scope, self._wire, self)
        return True

    def on_stream_data(self, data: bytes, *, is_last: bool) -> None:
        """Take what came on the client's stream."""
        self._held += data
        self._has_ended = self._has_ended or is_last
        self._read()

    def on_stream_reset(self, stream_id: int) -> bool:
        """Hear that the peer gave a stream up, in either direction; say whether it was one of this session's."""
        if stream_id not in (self._stream_id, self.session_id):
            return False
        # While the server ends it, this is the peer's answer.
        if stream_id == self.session_id or not self._is_closing:
            self.on_lost()
        return True

    def on_capsules(self, data: bytes, *, is_last: bool) -> None:
        """Read what came on the CONNECT's stream: only the session's close matters."""
        self._capsules += data
        while not is_last and (capsule := _first_capsule(self._capsules)) is not None:
            kind, size = capsule
            if kind == _CLOSE_SESSION or size > _MAX_CAPSULE_BYTES:
                is_last = True
            else:
                del self._capsules[:size]
        if is_last:
            self.on_lost()

    def on_transmitted(self) -> None:
        """Look whether the peer keeps up, now that all that might leave has left."""
        client = self._client
        if client is None or self._is_closing:
            return
        waiting = self.buffer_size()
        if not self._is_paused and waiting > HIGH_WATER_BYTES:
            self._is_paused = True
            client.on_pause()
        elif self._is_paused and waiting <= _LOW_WATER_BYTES:
            self._is_paused = False
            client.on_resume()

    def on_lost(self) -> None:
        """The peer ended the session, or is gone."""
        if self._client is not None:
            self._client.on_close()
        self._end(0, "")

    # ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Hand over what may be handed over."""
        client = self._client
        if client is None or not self._is_reading or self._is_closing:
            return
        data = bytes(self._held)
        self._held.clear()
        try:
            run = self._splitter.feed(data)
            if run:
                client.on_message(run)
        except MalformedFrame as error:
            logger.debug("bad stream: %s", error, extra={"client": client.session.client_id})
            client.disconnect(*errors.BAD_REQUEST)
        except Exception:
            logger.exception("a message failed")
            client.disconnect(*errors.SERVER_ERROR)
        if self._has_ended and self._is_reading:
            self.on_lost()

    def _end(self, code: int, reason: str) -> None:
        """End the session with all that belongs to it."""
        if self._is_over:
            return
        self._is_over = self._is_closing = True
        self._timer.cancel()
        self._held.clear()
        is_stuck = self._stream_id != -1 and self.buffer_size() > 0
        if self._stream_id != -1:
            self._carrier.reset(self._stream_id, _SESSION_GONE)
        text = reason.encode()
        body = encode_uint_var(_CLOSE_SESSION) + encode_uint_var(4 + len(text))
        body += code.to_bytes(4, "big") + text
        self._carrier.write_body(self.session_id, body, is_last=True)
        self._carrier.forget(self, is_stuck=is_stuck)


def _first_capsule(data: bytearray) -> tuple[int, int] | None:
    """Return the kind and the whole size of the capsule at the front, or ``None`` while not all of it that counts is there."""
    buffer = Buffer(data=bytes(data[:16]))
    try:
        kind = buffer.pull_uint_var()
        size = buffer.pull_uint_var() + buffer.tell()
    except BufferReadError:
        return None
    is_there = kind == _CLOSE_SESSION or size > _MAX_CAPSULE_BYTES or len(data) >= size
    return (kind, size) if is_there else None
