"""
Messages on a byte stream that has no frames: what arrives is cut into runs of whole messages.

A run is what ``decode_commands`` of the codec takes. Limits are per message, in bytes.
"""

from __future__ import annotations

from typing import Protocol

from realtime.protocol.framing import MalformedFrame


# A length of 64 bits takes ten bytes, seven bits in each.
_LONGEST_LENGTH = 10


class Splitter(Protocol):
    """Keeps the part of a message whose rest has not come yet."""

    def feed(self, data: bytes) -> bytes:
        """
        Take what arrived and return the whole messages so far, with their framing; often none, which is empty.

        Raises:
            MalformedFrame: A message is over the limit, or its length can't be read.

        """


class LineSplitter:
    """Cuts after line breaks: JSON."""

    __slots__ = ("_limit", "_rest")

    def __init__(self, max_message_bytes: int) -> None:
        self._limit = max_message_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """See ``Splitter``."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += data
            run = b""
        else:
            run = bytes(self._rest) + data[:end] if self._rest else data[:end]
            self._rest = bytearray(data[end:])
        self._check(len(self._rest))
        if len(run) > self._limit:
            self._check(max(map(len, run.split(b"\n"))))
        return run

    def _check(self, size: int) -> None:
        if size > self._limit:
            message = f"a line of {size} bytes or more, at most {self._limit} are taken"
            raise MalformedFrame(message)


class LengthSplitter:
    """Cuts where the lengths in front of the messages say: Protobuf."""

    __slots__ = ("_limit", "_needed", "_rest")

    def __init__(self, max_message_bytes: int) -> None:
        self._limit = max_message_bytes
        self._rest = bytearray()
        self._needed = 1  # bytes without which there is no whole message

    def feed(self, data: bytes) -> bytes:
        """See ``Splitter``."""
        rest = self._rest
        rest += data
        end = 0
        while len(rest) - end >= self._needed:
            size, head = self._length(end)
            self._needed = head + size
            if not head or len(rest) - end < self._needed:
                break
            end += self._needed
            self._needed = 1
        run = bytes(rest[:end])
        del rest[:end]
        return run

    def _length(self, start: int) -> tuple[int, int]:
        """Read the length at ``start``: the message's bytes and those of the length itself, or 1 and 0 for an unfinished one."""
        rest, size = self._rest, 0
        for index, byte in enumerate(rest[start : start + _LONGEST_LENGTH]):
            size |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if size > self._limit:
                    message = f"a message of {size} bytes, at most {self._limit} are taken"
                    raise MalformedFrame(message)
                return size, index + 1
        if len(rest) - start >= _LONGEST_LENGTH:
            message = "a message's length has no end"
            raise MalformedFrame(message)
        # One byte more than there is.
        return len(rest) - start + 1, 0
