"""
What a subscriber missed: pure decisions on what was read and what came meanwhile.

A positioned subscription begins by holding back live publications, then reads the stream, then joins the two. Whether
the client's position can be continued without a hole is decided here; never partly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from realtime.protocol.messages import Publication, StreamPosition
from realtime.session.tags_filter import TagsFilter


@dataclass(frozen=True, slots=True)
class Recovery:
    """The publications owed to the client (ascending), and whether nothing is missing between."""

    recovered: bool
    publications: tuple[Publication, ...] = ()


NOT_RECOVERED = Recovery(recovered=False)


def recover_stream(
    publications: Sequence[Publication], top: StreamPosition, asked: StreamPosition
) -> Recovery:
    """
    Decide a recovery in stream mode.

    Args:
        publications: What the stream has strictly after ``asked.offset``, ascending, up to the recovery limit.
        top: The stream's position at the same moment.
        asked: The client's position; an empty epoch skips the comparison of epochs.

    """
    if asked.epoch and asked.epoch != top.epoch:
        return NOT_RECOVERED
    if not publications:
        return Recovery(recovered=top.offset == asked.offset)
    if publications[0].offset == asked.offset + 1 and publications[-1].offset == top.offset:
        return Recovery(recovered=True, publications=tuple(publications))
    return NOT_RECOVERED


def recover_cache(
    newest: Sequence[Publication],
    top: StreamPosition,
    asked: StreamPosition,
    tags_filter: TagsFilter | None = None,
) -> Recovery:
    """
    Decide a recovery in cache mode, where only the newest publication matters.

    Args:
        newest: The newest stored publications, descending; one is enough without a filter.
        top: The stream's position at the same moment.
        asked: The client's position, which spares it the publication that it has already.
        tags_filter: What the subscriber wants; where nothing passes it is as if nothing was stored.

    """
    has_it = 0 < asked.offset == top.offset and asked.epoch == top.epoch
    wanted = passing(newest, tags_filter)
    if not wanted:
        return Recovery(recovered=has_it)
    if newest[0].offset != top.offset:
        return NOT_RECOVERED
    return Recovery(recovered=True, publications=() if has_it else (wanted[0],))


def passing(
    publications: Sequence[Publication], tags_filter: TagsFilter | None
) -> Sequence[Publication]:
    """Return those that a filter lets through, in their order."""
    if tags_filter is None:
        return publications
    return [each for each in publications if tags_filter.passes_tags(each.tags)]


def merge_publications(
    history: Sequence[Publication], buffered: Sequence[Publication]
) -> tuple[Publication, ...] | None:
    """
    Join what history returned with what arrived while it was being read.

    Args:
        history: Publications from the broker, ascending by ``offset``.
        buffered: Live publications held back since buffering began, in arrival order. May repeat offsets that
            ``history`` already has.

    Returns:
        One ascending tuple without repeats, or ``None`` if an offset is missing between two neighbours: the
        connection is then closed with 3010, since nobody knows what it has.

    """
    if not buffered:
        return tuple(history)
    by_offset = {pub.offset: pub for pub in (*buffered, *history)}
    merged = [by_offset[offset] for offset in sorted(by_offset)]
    # Offsets are dense by contract, so a step other than 1 means that PUB/SUB lost a message.
    if merged[-1].offset - merged[0].offset != len(merged) - 1:
        return None
    return tuple(merged)
