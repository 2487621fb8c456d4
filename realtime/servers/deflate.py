"""
RFC 7692, permessage-deflate, always without context takeover.

Without context takeover a compressed message depends on no other, so a connection holds no zlib state (which would be
some 300 KB a socket) and a publication is compressed once for all connections that negotiated it.
"""

from __future__ import annotations

import zlib

from realtime.protocol.wire import frame
from realtime.servers.frame_codec import INVALID_DATA, RSV1, TEXT, TOO_BIG, FrameError


RESPONSE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TOO_BIG_REASON = "message too big after decompression"

_EMPTY_BLOCK = b"\x00\x00\xff\xff"  # 7.2.1: ends every message and is left out on the wire
# How often a message may end zlib's stream and go on. One is what 7.2.3.4 shows; without a bound, two bytes a stream
# would make one message cost thousands of decompressors.
_MAX_STREAMS = 16
_FLAGS = frozenset({"server_no_context_takeover", "client_no_context_takeover"})


def negotiate(header: str) -> str | None:
    """
    Choose among a client's ``Sec-WebSocket-Extensions``.

    An offer that limits our window is passed over: frames are shared between connections, all made with the full one.

    Args:
        header: The header's value; several headers joined by commas.

    Returns:
        The value to answer with, or ``None`` when there is nothing that we can accept.

    """
    for offer in header.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() == "permessage-deflate" and _is_acceptable(parameters):
            return RESPONSE
    return None


def _is_acceptable(parameters: list[str]) -> bool:
    seen = set()
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.lower().partition("="))
        value = value.strip('"')
        if name in seen:
            return False
        seen.add(name)
        if name in _FLAGS:
            if equals:
                return False
        elif name == "client_max_window_bits":
            if equals and not _is_window_size(value):
                return False
        else:  # server_max_window_bits below 15, or something unknown: 7.1 says to decline the offer
            return False
    return True


def _is_window_size(value: str) -> bool:
    return value.isdecimal() and value.isascii() and 8 <= int(value) <= 15 and value[0] != "0"


def compress(payload: bytes, level: int = 1) -> bytes:
    """Return ``payload`` as a message's compressed form."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    compressed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return compressed.removesuffix(_EMPTY_BLOCK) or b"\x00"


def compress_frame(payload: bytes, opcode: int = TEXT, level: int = 1) -> bytes:
    """Return one frame with ``payload`` compressed, fit for every connection with ``negotiated_compression``."""
    return frame(compress(payload, level), opcode | RSV1)


def decompress(payload: bytes, max_bytes: int) -> bytes:
    """
    Return a compressed message's content.

    Raises:
        FrameError: 1009 when there is more than ``max_bytes`` (no more than that is ever unpacked), 1007 when it isn't
            deflate's format.

    """
    data = payload + _EMPTY_BLOCK
    content = b""
    for _ in range(_MAX_STREAMS):
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content += inflater.decompress(data, max_bytes + 1 - len(content))
        except zlib.error:
            raise FrameError(INVALID_DATA) from None
        if len(content) > max_bytes:
            raise FrameError(TOO_BIG, TOO_BIG_REASON)
        # A final block (7.2.3.4) ends zlib's stream; what follows, at least the empty block, is a new one.
        data = inflater.unused_data if inflater.eof else b""
        if not data:
            return content
    raise FrameError(INVALID_DATA)
