"""Building blocks: frames as a client sends them, and what a decoder made of bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from websockets.utils import apply_mask

from realtime.servers.frame_codec import FrameDecoder, FrameError


def client_frame(
    payload: bytes = b"",
    opcode: int = 1,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x11\x22\x33\x44",
) -> bytes:
    """Return one frame, masked unless ``mask`` is ``None``; ``rsv`` is 0 to 7, 4 being RSV1."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask is not None else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (mask + apply_mask(payload, mask) if mask is not None else payload)


class Recording:
    """Feeds a decoder and keeps what it called back with, in order."""

    def __init__(self, max_bytes: int = 65536) -> None:
        self.decoder = FrameDecoder(max_bytes)
        self.events: list[tuple[object, bytes]] = []
        self.error: FrameError | None = None

    def feed(self, *pieces: bytes) -> Recording:
        """Feed piece after piece until there is none left or the decoder fails."""
        for piece in pieces:
            if self.error is not None:
                break
            try:
                self.decoder.feed(piece, self._on_message, self._on_control)
            except FrameError as error:
                self.error = error
        return self

    @property
    def failure(self) -> tuple[int, str] | None:
        """Code and reason that the decoder failed with."""
        return None if self.error is None else (self.error.code, self.error.reason)

    def _on_message(self, payload: bytes, is_text: bool) -> None:
        self.events.append(("text" if is_text else "binary", payload))

    def _on_control(self, opcode: int, payload: bytes) -> None:
        self.events.append((opcode, payload))


def split_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut ``data`` at every place that lies in it."""
    cuts = sorted({place for place in places if 0 < place < len(data)})
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
