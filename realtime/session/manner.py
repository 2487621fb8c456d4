"""How a subscription's pushes are written, where that is not the usual way."""

from __future__ import annotations

import msgspec


class Batching(msgspec.Struct, frozen=True, gc=False):
    """
    How messages of one channel are gathered for a subscriber.

    They leave when there are ``max_size`` of them (0: whatever their number) or ``max_delay`` seconds after the first one
    (0: no such limit). ``latest_only``: of the publications only the newest leaves.
    """

    max_size: int
    max_delay: float
    latest_only: bool


class Manner(msgspec.Struct, frozen=True, gc=False):
    """
    What subscribers must have in common to be sent the same bytes, beside encoding, deltas and filter.

    Attributes:
        has_number: A number stands for the channel's name.
        has_joins: Joins and leaves are gathered too; always off where nothing is gathered, since they are then
            written to each who wants them.
        batching: ``None`` where nothing is gathered.

    """

    has_number: bool = False
    has_joins: bool = False
    batching: Batching | None = None
