"""
RFC 6455 frames: a decoder for what clients send, and close frames both ways.

What a server sends otherwise is ``realtime.protocol.wire.frame``.

Pure: bytes in, callbacks out; it owns no socket. ``frames_protocol`` puts it on a transport.

Bytes wait in the decoder only until the frame that they belong to is complete. A message's fragments are joined as they
come, so what a peer can make us hold is one frame and one message, each up to the limit.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

from realtime.protocol.wire import frame


try:
    from websockets.speedups import apply_mask
except ImportError:  # no C extension for this interpreter: the same function in Python
    from websockets.utils import apply_mask


CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009

# RFC 6455 7.4.1 and the registry: what an endpoint may put in a close frame below 3000.
_SENDABLE_CODES = frozenset(
    {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
)
# A control frame's payload is at most 125 bytes, two of them the code.
_MAX_REASON_BYTES = 123

_FIN = 0x80
RSV1: Final = 0x40
_RSV2_RSV3 = 0x30
_CONTROL = 0x08
# A control frame's header and mask; no frame is shorter than that, so no less is looked at.
_SHORTEST_FRAME = 6

OnMessage = Callable[[bytes, bool], None]
OnControl = Callable[[int, bytes], None]


class FrameError(Exception):
    """
    The peer broke the protocol or a limit; the connection must be closed.

    Attributes:
        code: The close code that says why.
        reason: The close reason, usually empty: codes below 3000 need none.

    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


def encode_close(code: int, reason: str = "") -> bytes:
    """
    Return a close frame.

    Args:
        code: The close code; ``NO_STATUS`` makes a frame without one.
        reason: Cut to 123 bytes of UTF-8, at a character's end.

    """
    if code == NO_STATUS:
        return frame(b"", CLOSE)
    text = reason.encode()
    if len(text) > _MAX_REASON_BYTES:
        text = text[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
    return frame(code.to_bytes(2, "big") + text, CLOSE)


def decode_close(payload: bytes) -> tuple[int, str]:
    """
    Read a close frame's payload.

    Returns:
        Code and reason; ``(NO_STATUS, "")`` when the payload is empty.

    Raises:
        FrameError: The code may not be sent, or the reason isn't UTF-8.

    """
    if not payload:
        return NO_STATUS, ""
    if len(payload) < 2:
        raise FrameError(PROTOCOL_ERROR)
    code = int.from_bytes(payload[:2], "big")
    if code not in _SENDABLE_CODES and not 3000 <= code < 5000:
        raise FrameError(PROTOCOL_ERROR)
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA) from None


class FrameDecoder:
    """
    Turn a client's bytes into messages and control frames.

    Args:
        max_bytes: Limit of a frame's payload and of the sum of a message's fragments, as they are on the wire.

    Attributes:
        inflate: Decompresses a message whose first frame has RSV1 set; ``None``, as long as no compression is negotiated,
            makes RSV1 an error. Raises ``FrameError``.
        is_paused: While true ``feed`` only stores. May be set from within a callback: the rest of the read waits.

    """

    __slots__ = (
        "_buffer",
        "_is_compressed",
        "_is_text",
        "_max_bytes",
        "_message",
        "_needed",
        "_utf8",
        "inflate",
        "is_paused",
    )

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.inflate: Callable[[bytes], bytes] | None = None
        self._buffer: bytearray | None = None
        # The frame at the buffer's head is not looked at again before so many bytes are there: a large frame
        # that comes in small pieces costs no repeated parsing and copying.
        self._needed = 0
        self._message: bytearray | None = None  # fragments so far, while a message is open
        self._is_text = False
        self._is_compressed = False
        self._utf8: codecs.IncrementalDecoder | None = None
        self.is_paused = False

    @property
    def has_input(self) -> bool:
        """Say whether bytes are waiting."""
        return self._buffer is not None

    def feed(self, data: bytes, on_message: OnMessage, on_control: OnControl) -> None:
        """
        Take what was read and call back for every frame that is complete.

        Args:
            data: The bytes; may be empty to go on after a pause.
            on_message: Called with a whole message's payload and whether it is text (then it is valid UTF-8).
            on_control: Called with ``CLOSE``, ``PING`` or ``PONG`` and the payload.

        Raises:
            FrameError: The decoder can't go on; feed it no more.

        """
        is_held = self.is_paused
        if self._buffer is not None:
            self._buffer += data
            if is_held or len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer = None
        elif is_held:
            self._keep(data)
            return
        position, size = 0, len(data)
        self._needed = 0
        while size - position >= _SHORTEST_FRAME:
            first, length = data[position], data[position + 1] - 128
            start = position + _SHORTEST_FRAME
            if length < 0:  # the mask bit is missing
                raise FrameError(PROTOCOL_ERROR)
            if length > 125:
                start += 2 if length == 126 else 8
                if size < start:
                    self._needed = start - position
                    break
                length = self._extended_length(length, data[position + 2 : start - 4])
            if not first & _CONTROL and length > self._max_bytes:
                raise FrameError(TOO_BIG)
            if first & _CONTROL and (length > 125 or not first & _FIN):
                raise FrameError(PROTOCOL_ERROR)
            end = start + length
            if size < end:
                self._check_first_byte(first)
                self._needed = end - position
                break
            payload = apply_mask(data[start:end], data[start - 4 : start]) if length else b""
            position = end
            if (
                first == 0x81 and self._message is None
            ):  # the common frame: text, whole, not compressed
                if not payload.isascii():
                    _check_utf8(payload)
                on_message(payload, True)
            else:
                self._take_frame(first, payload, on_message, on_control)
            if self.is_paused:
                break
        if position < size:
            self._keep(data[position:] if position else data)

    def _keep(self, data: bytes) -> None:
        if data:
            self._buffer = bytearray(data)

    @staticmethod
    def _extended_length(short: int, extended: bytes) -> int:
        length = int.from_bytes(extended, "big")
        # The shortest form is required, and the 64-bit form's top bit must be 0.
        if length < (126 if short == 126 else 65536) or length >> 63:
            raise FrameError(PROTOCOL_ERROR)
        return length

    def _check_first_byte(self, first: int) -> None:
        """Refuse flags and opcodes that no frame may have here, before its payload is waited for."""
        opcode = first & 0x0F
        if first & _RSV2_RSV3 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(PROTOCOL_ERROR)
        if first & RSV1 and (self.inflate is None or opcode not in (TEXT, BINARY)):
            raise FrameError(PROTOCOL_ERROR)
        if opcode < CLOSE and (opcode == CONTINUATION) != (self._message is not None):
            raise FrameError(PROTOCOL_ERROR)

    def _take_frame(
        self, first: int, payload: bytes, on_message: OnMessage, on_control: OnControl
    ) -> None:
        self._check_first_byte(first)
        opcode = first & 0x0F
        if opcode >= CLOSE:
            on_control(opcode, payload)
        elif opcode == CONTINUATION:
            self._take_fragment(payload, is_last=bool(first & _FIN), on_message=on_message)
        elif first & _FIN:
            self._finish(
                payload,
                is_text=opcode == TEXT,
                is_compressed=bool(first & RSV1),
                on_message=on_message,
            )
        else:
            self._is_text = opcode == TEXT
            self._is_compressed = bool(first & RSV1)
            # Text is checked as it comes, so that a wrong byte ends the connection before the message does.
            is_checked_early = self._is_text and not self._is_compressed
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if is_checked_early else None
            self._take_fragment(payload, is_last=False, on_message=on_message)

    def _take_fragment(self, payload: bytes, *, is_last: bool, on_message: OnMessage) -> None:
        message = bytearray() if self._message is None else self._message
        if len(message) + len(payload) > self._max_bytes:
            raise FrameError(TOO_BIG)
        message += payload
        self._message = message
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, is_last)
            except UnicodeDecodeError:
                raise FrameError(INVALID_DATA) from None
        if not is_last:
            return
        self._message = None
        if self._utf8 is not None:
            self._utf8 = None
            on_message(bytes(message), True)
            return
        self._finish(
            bytes(message),
            is_text=self._is_text,
            is_compressed=self._is_compressed,
            on_message=on_message,
        )

    def _finish(
        self, payload: bytes, *, is_text: bool, is_compressed: bool, on_message: OnMessage
    ) -> None:
        if (
            is_compressed and self.inflate is not None
        ):  # _check_first_byte let RSV1 through only then
            payload = self.inflate(payload)
        if is_text:
            _check_utf8(payload)
        on_message(payload, is_text)


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA) from None
