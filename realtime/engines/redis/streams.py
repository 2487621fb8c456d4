"""How scripts are told times and parts of streams."""

from __future__ import annotations

from realtime.engines.base import HistoryFilter
from realtime.protocol.messages import StreamPosition


_LARGEST_OFFSET = 2**64 - 1


def ms(seconds: float) -> int:
    """Return whole milliseconds."""
    return int(seconds * 1000)


def first_offset(what: HistoryFilter) -> str | None:
    """Return where a read begins, as XRANGE and XREVRANGE take it; ``None`` where there is nothing to read."""
    if not what.limit:
        return None
    if what.since is None:
        return "+" if what.reverse else "-"
    offset = what.since.offset + (-1 if what.reverse else 1)
    return str(offset) if 0 < offset <= _LARGEST_OFFSET else None


def read_ends(text: bytes) -> tuple[StreamPosition, ...]:
    """Read how far the epochs before are good, as ``server.lua`` writes it."""
    if not text:
        return ()
    pairs = (end.rpartition(":") for end in text.decode().split(","))
    return tuple(StreamPosition(int(offset), epoch) for epoch, _, offset in pairs)
