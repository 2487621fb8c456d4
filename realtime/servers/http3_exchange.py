"""
A plain request over HTTP/3 as an ASGI request.

It is read no faster than the application takes it, and answered no faster than the peer reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from realtime.consumers.streaming import ABORT
from realtime.servers.application import Application, Message
from realtime.servers.extension import HIGH_WATER_BYTES


logger = logging.getLogger(__name__)

# H3_INTERNAL_ERROR and H3_REQUEST_CANCELLED: how a response that can't be ended well ends.
_INTERNAL_ERROR = 0x102
_CANCELLED = 0x10C
# Headers that belong to a connection, which in HTTP/3 have no place (RFC 9114, section 4.2).
_OF_CONNECTIONS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)


class Connection(Protocol):
    """The HTTP/3 connection that a request came on; all of it is synchronous."""

    def write_head(
        self, stream_id: int, headers: list[tuple[bytes, bytes]], *, is_last: bool = False
    ) -> None:
        """Send a response's head."""

    def write_body(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        """Send a part of its body."""

    def reset(self, stream_id: int, code: int) -> None:
        """Drop the stream."""

    def unsent_bytes(self, stream_id: int) -> int:
        """Return what was written and not sent yet."""

    def pause_reading(self, stream_id: int) -> None:
        """Let the peer send no more than its window has left."""

    def resume_reading(self, stream_id: int) -> None:
        """Widen the window again."""

    def forget_exchange(self, stream_id: int) -> None:
        """Hear that the exchange is over."""


class Exchange:
    """
    One request and its response.

    Args:
        connection: Where it came from.
        stream_id: Its stream.
        scope: Of ASGI; ``extensions`` gets our servers' own.

    """

    def __init__(self, connection: Connection, stream_id: int, scope: dict[str, Any]) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._scope = scope
        scope["extensions"][ABORT] = self._abort
        self._body = bytearray()
        self._is_body_whole = False
        self._has_told_end = False
        self._is_lost = False
        self._head: list[tuple[bytes, bytes]] | None = None
        self._has_answered = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None

    def begin(self, application: Application) -> None:
        """Start the application."""
        self._task = asyncio.get_running_loop().create_task(self._run(application))

    # --- what the connection reports -------------------------------------------------------------

    def on_body(self, data: bytes, *, is_last: bool) -> None:
        """Take a part of the request's body."""
        self._body += data
        self._is_body_whole = self._is_body_whole or is_last
        if len(self._body) > HIGH_WATER_BYTES:
            self._connection.pause_reading(self._stream_id)
        self._arrived.set()

    def on_transmitted(self) -> None:
        """Look whether there is room for more of the response."""
        if self._connection.unsent_bytes(self._stream_id) <= HIGH_WATER_BYTES:
            self._writable.set()

    def on_lost(self) -> None:
        """The peer is gone, or wants no answer."""
        self._is_lost = True
        self._arrived.set()
        self._writable.set()

    # --- ASGI ------------------------------------------------------------------------------------

    async def _run(self, application: Application) -> None:
        try:
            await application(self._scope, self._receive, self._send)
        except Exception:
            logger.exception("an application failed on a request over HTTP/3")
        finally:
            self._finish()

    def _finish(self) -> None:
        """See to it that the stream ends, whatever the application did."""
        if not self._has_answered and not self._is_lost:
            if self._head is None:
                self._connection.write_head(self._stream_id, [(b":status", b"500")], is_last=True)
            else:
                self._connection.reset(self._stream_id, _INTERNAL_ERROR)
        elif not self._is_body_whole and not self._is_lost:
            # The rest of the request is of no use to anybody.
            self._connection.resume_reading(self._stream_id)
        self._connection.forget_exchange(self._stream_id)

    async def _receive(self) -> Message:
        while not (self._body or self._is_over or (self._is_body_whole and not self._has_told_end)):
            self._arrived.clear()
            await self._arrived.wait()
        if self._is_over:
            return {"type": "http.disconnect"}
        data = bytes(self._body)
        self._body.clear()
        self._has_told_end = self._is_body_whole
        self._connection.resume_reading(self._stream_id)
        return {"type": "http.request", "body": data, "more_body": not self._is_body_whole}

    @property
    def _is_over(self) -> bool:
        return self._is_lost or self._has_answered

    async def _send(self, message: Message) -> None:
        await self._writable.wait()
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._head = [
                (b":status", b"%d" % message["status"]),
                *_headers(message.get("headers", ())),
            ]
            self._connection.write_head(self._stream_id, self._head)
        elif message["type"] == "http.response.body":
            self._has_answered = not message.get("more_body", False)
            body = b"" if self._scope["method"] == "HEAD" else message.get("body", b"")
            self._connection.write_body(self._stream_id, body, is_last=self._has_answered)
            if self._has_answered:
                self._arrived.set()
            if self._connection.unsent_bytes(self._stream_id) > HIGH_WATER_BYTES:
                self._writable.clear()

    def _abort(self) -> None:
        if not self._has_answered:
            self._connection.reset(self._stream_id, _CANCELLED)
        self.on_lost()


def _headers(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers as HTTP/3 has them: names in lower case, none of a connection's."""
    lowered = ((name.lower(), value) for name, value in given)
    return [(name, value) for name, value in lowered if name not in _OF_CONNECTIONS]
