"""
The ASGI extension ``tidewire.frames``: what a consumer gets from our servers and what it gives.

``scope["extensions"]["tidewire.frames"]`` has ``attach(handler)``, to be called after the consumer has received
``websocket.connect`` and sent ``websocket.accept``. From then on every event goes to the handler, and the consumer
returns: that means handed over, not closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from realtime.protocol.wire import frame
from realtime.servers.deflate import compress_frame


EXTENSION = "tidewire.frames"
# The size of the write buffer from which a reader counts as paused.
HIGH_WATER_BYTES = 64 * 1024
# How long the peer may take to answer our close frame (and to read what was sent before it).
CLOSE_TIMEOUT_SECONDS = 5.0


class FramesHandler(Protocol):
    """
    One connection's side of the application; all calls come on the loop and must not block.

    ``on_message`` is never called again before it returned, nor while reading is paused, nor after ``on_close``.
    An exception from any callback closes the connection with 3004 and is logged.
    """

    def on_message(self, data: bytes, is_text: bool) -> None:
        """Take one whole message; text is valid UTF-8."""

    def on_close(self, code: int) -> None:
        """
        Learn, once, that the connection is over: nothing comes any more and writes are ignored.

        ``code`` is the peer's close code (1005: it gave none), 1006 when the socket went away without one, 1002, 1007 or
        1009 when the peer broke the protocol, or the code of our own ``close``: then the call comes by ``call_soon``,
        while the close frame is still under way.
        """

    def on_pause(self) -> None:
        """Learn that more than ``HIGH_WATER_BYTES`` wait for a peer that doesn't read."""

    def on_resume(self) -> None:
        """Learn that the peer reads again."""

    def on_pong(self) -> None:
        """Learn of a PONG frame, whether a PING was sent or not."""


class FramesConnection(Protocol):
    """What ``attach`` returns."""

    @property
    def negotiated_compression(self) -> bool:
        """Say whether the peer takes compressed frames; uncompressed ones it takes all the same."""

    def write(self, framed: bytes) -> None:
        """
        Send one or several ready-made frames.

        Within ``on_message`` they are collected, and all replies to one read leave in one write. After the connection's
        end they are dropped.
        """

    def direct_write(self, framed: bytes) -> None:
        """Send at once, also within ``on_message``; what ``write`` has collected comes after, unless ``uncork`` is called."""

    def write_message(self, payload: bytes, opcode: int = 1) -> None:
        """Frame and send one message, compressed if that was negotiated and it is large enough."""

    def compress_frame(self, payload: bytes, opcode: int = 1) -> bytes:
        """
        Return ``payload`` as a frame for every connection whose ``negotiated_compression`` equals this one's.

        No context is carried from message to message, so the hub keeps one more variant, asks any member of that cohort
        for the frame once per publication and hands the same bytes to all of it. Where compression wasn't negotiated, or
        the payload isn't above ``websocket.compression_min_size``, the frame is a plain one.
        """

    def uncork(self) -> None:
        """Send now what ``write`` has collected; without effect outside of ``on_message``."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send what is collected, then a close frame; the socket is dropped at the latest 5 s later. Acts once."""

    def drop(self) -> None:
        """Send what is collected, then end without a close frame; the socket is dropped at the latest 5 s later."""

    def buffer_size(self) -> int:
        """Return how many bytes wait for the peer to read."""

    def pause_reading(self) -> None:
        """Take no more messages, not even those already read, until ``resume_reading``."""

    def resume_reading(self) -> None:
        """Go on, with the next message by ``call_soon``."""


class FramesExtension(Protocol):
    """What stands in the scope."""

    def attach(self, handler: FramesHandler) -> FramesConnection:
        """
        Hand the accepted connection over to ``handler``.

        Raises:
            RuntimeError: Not accepted yet, or attached before.

        """


@dataclass(frozen=True, slots=True)
class FramesSettings:
    """
    Limits of a WebSocket connection, all in bytes.

    ``max_decompressed_bytes`` 0 means ten times ``max_message_bytes``. Messages up to ``compression_min_bytes`` are sent as
    they are, 0 compresses all.
    """

    max_message_bytes: int = 65536
    max_decompressed_bytes: int = 0
    has_compression: bool = False
    compression_level: int = 1
    compression_min_bytes: int = 0

    @property
    def decompressed_limit(self) -> int:
        """Return the effective limit of a message after decompression."""
        return self.max_decompressed_bytes or 10 * self.max_message_bytes

    def compress_frame(self, payload: bytes, opcode: int = 1) -> bytes:
        """Frame a message for any connection that negotiated compression under these settings."""
        if len(payload) > self.compression_min_bytes:
            return compress_frame(payload, opcode, self.compression_level)
        return frame(payload, opcode)
