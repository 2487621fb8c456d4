"""
A lean WebSocket client: it connects, subscribes, counts what arrives.

It reads frames where they lie in what was received, without copying, and decodes JSON only until it is subscribed: some 1 µs
for a delivery, so that what is measured is the server.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from realtime.servers.frame_codec import CLOSE, PING, PONG, TEXT, decode_close


# RFC 6455's own example; the server's answer to it is RFC 6455's, too.
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_MAX_HEAD_BYTES = 16384
_PUSH = b'{"push":'
_PUBLICATION = b'"pub":{'
_TIME = b'"ts":'
# Subscribe commands in one frame: well below the 64 KiB that a message may have.
_COMMANDS_IN_FRAME = 100

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class SocketError(Exception):
    """A connection did not come about, or ended; the text says why."""


class Tally:
    """
    What the sockets of a process have in common.

    Attributes:
        delivered: Publications that arrived.
        pings: Pings that were answered.
        replies: Good answers to commands other than connect and subscribe.
        last_ns: When the last publication or reply arrived, by ``time.monotonic_ns``.
        latencies_ns: From a publication's ``ts`` to its arrival, at sampled sockets.
        errors: Reasons of what went wrong.

    """

    __slots__ = ("delivered", "errors", "last_ns", "latencies_ns", "pings", "replies")

    def __init__(self) -> None:
        self.delivered = 0
        self.pings = 0
        self.replies = 0
        self.last_ns = 0
        self.latencies_ns = array("q")
        self.errors: list[str] = []


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Put a payload into one frame from a client: masked, with zeros, which leave it as it is."""
    size = len(payload)
    if size < 126:
        return b"%c%c\0\0\0\0%b" % (0x80 | opcode, 0x80 | size, payload)
    if size < 65536:
        return b"%c\xfe%b\0\0\0\0%b" % (0x80 | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\xff%b\0\0\0\0%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


def upgrade_request(authority: str, path: str) -> bytes:
    """Return the request that opens a WebSocket; without ``Origin``, as backend clients send it."""
    return (
        b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %b\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n" % (path.encode(), authority.encode(), _KEY)
    )


class Socket(asyncio.Protocol):
    """
    One connection.

    Args:
        upgrade: From ``upgrade_request``.
        token: A connection JWT; empty sends none.
        channels: What to subscribe to.
        tally: Shared by all sockets.
        is_sampled: Whether latencies are taken; not of publications that may be patches, in which no time can be seen.
        request: What subscribe requests have beside the channel.

    Attributes:
        delivered: Publications that arrived here.
        subscribed: Set to a result once all channels are subscribed, or to ``SocketError``.
        on_reply: Called for each good answer to a later command.

    """

    __slots__ = (
        "_channels",
        "_is_live",
        "_is_open",
        "_is_sampled",
        "_request",
        "_rest",
        "_tally",
        "_token",
        "_transport",
        "_upgrade",
        "_waiting",
        "delivered",
        "on_reply",
        "subscribed",
    )

    def __init__(
        self,
        upgrade: bytes,
        token: str,
        channels: Sequence[str],
        tally: Tally,
        *,
        is_sampled: bool,
        request: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._upgrade = upgrade
        self._token = token
        self._channels = channels
        self._tally = tally
        self._is_sampled = is_sampled
        self._request = request
        self._is_open = False
        # From the connection to its end; an end that is ours is no error.
        self._is_live = False
        self._rest = b""
        self._waiting = 0
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made sets it
        self.delivered = 0
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_reply: Callable[[], None] | None = None

    # -- asyncio's side

    def connection_made(self, transport: Any) -> None:
        """Ask for the upgrade."""
        self._transport = transport
        self._is_live = True
        transport.write(self._upgrade)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; an end that nobody asked for is an error."""
        if self._is_live:
            self._fail(f"the connection ended: {exc or 'closed by the server'}")

    def data_received(self, data: bytes) -> None:
        """Count publications, hand on the rest."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._is_open:
            data = self._take_head(data)
        position, size, found = 0, len(data), 0
        now = time.monotonic_ns()
        while size - position >= 2:
            first, length = data[position], data[position + 1]
            start = position + 2
            if length > 125:
                extended = 2 if length == 126 else 8
                if size < start + extended:
                    break
                length = int.from_bytes(data[start : start + extended], "big")
                start += extended
            end = start + length
            if end > size:
                break
            position = end
            if first == 0x81 and data.startswith(_PUSH, start):
                count = data.count(_PUBLICATION, start, end)
                if data.find(b"\n", start, end) < 0:
                    found += count
                    if self._is_sampled and count:
                        self._take_time(data, start, end, now)
                    continue
            self._take_frame(first, data[start:end], now)
        if found:
            self.delivered += found
            self._tally.delivered += found
            self._tally.last_ns = now
        if position < size:
            self._rest = data[position:]

    # -- what arrives

    def _take_head(self, data: bytes) -> bytes:
        """Read the answer to the upgrade; return what follows it, nothing while it is incomplete."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            if len(data) > _MAX_HEAD_BYTES:
                self._fail("no end of the answer to the upgrade")
            self._rest = data
            return b""
        status = head.partition(b"\r\n")[0].decode("latin-1")
        if not status.startswith("HTTP/1.1 101"):
            self._fail(f"the upgrade was answered {status!r}")
            return b""
        if _ACCEPT not in head:
            self._fail("the upgrade was answered with a wrong Sec-WebSocket-Accept")
            return b""
        self._is_open = True
        request = {"token": self._token} if self._token else {}
        self._waiting = 1
        self.send(_encode({"id": 1, "connect": request}))
        return rest

    def _take_time(self, data: bytes, start: int, end: int, now: int) -> None:
        begin = data.find(_TIME, start, end) + len(_TIME)
        stop = data.find(b",", begin, end)
        if begin >= len(_TIME) and stop > begin:
            self._tally.latencies_ns.append(now - int(data[begin:stop]))

    def _take_frame(self, first: int, payload: bytes, now: int) -> None:
        """Look at any frame but that of one publication."""
        opcode = first & 0x0F
        if opcode == CLOSE:
            code, reason = decode_close(payload)
            self._fail(f"the server closed with {code} {reason}".rstrip())
        elif opcode == PING:
            self._transport.write(client_frame(payload, PONG))
        elif first == 0x80 | TEXT:
            for line in payload.split(b"\n"):
                self._take_message(line, now)
        elif opcode != PONG:
            self._fail(f"a frame that is not expected here: first byte {first:#x}")

    def _take_message(self, line: bytes, now: int) -> None:
        if line == b"{}":
            self._tally.pings += 1
            self.send(b"{}")
        elif line.startswith(_PUSH):
            if _PUBLICATION in line:
                self.delivered += 1
                self._tally.delivered += 1
                self._tally.last_ns = now
                if self._is_sampled:
                    self._take_time(line, 0, len(line), now)
            elif b'"disconnect"' in line[:60] or b'"unsubscribe"' in line:
                self._fail(f"the server sent {line[:200].decode(errors='replace')}")
        elif line:
            self._take_reply(line, now)

    def _take_reply(self, line: bytes, now: int) -> None:
        if b'"error":' in line:
            error = _decode(line).get("error", {})
            self._fail(f"refused: {error.get('code')} {error.get('message')}")
        elif "delta" in self._request and b'"subscribe":' in line and b'"delta":true' not in line:
            self._fail("the server makes no deltas for this channel: see allowed_delta_types")
        elif self._waiting:
            self._waiting -= 1
            if not self._waiting:
                self._go_on()
        else:
            self._tally.replies += 1
            self._tally.last_ns = now
            if self.on_reply is not None:
                self.on_reply()

    def _go_on(self) -> None:
        """Subscribe once connected; be ready once subscribed."""
        channels, self._channels = self._channels, ()
        if not channels:
            if not self.subscribed.done():
                self.subscribed.set_result(None)
            return
        self._waiting = len(channels)
        for begin in range(0, len(channels), _COMMANDS_IN_FRAME):
            part = channels[begin : begin + _COMMANDS_IN_FRAME]
            commands = [
                _encode({"id": number, "subscribe": {"channel": channel, **self._request}})
                for number, channel in enumerate(part, start=begin + 2)
            ]
            self.send(b"\n".join(commands))

    def _fail(self, text: str) -> None:
        """End the connection and tell why, once."""
        if not self._is_live:
            return
        self._tally.errors.append(text)
        if not self.subscribed.done():
            self.subscribed.set_exception(SocketError(text))
        self.close()

    # -- what leaves

    def send(self, message: bytes) -> None:
        """Send commands, joined by line breaks."""
        self._transport.write(client_frame(message))

    def close(self) -> None:
        """End the connection at once; may be called again."""
        if self._is_live:
            self._is_live = False
            self._transport.abort()
