"""
Periodic work without a timer per connection.

A ``Wheel`` calls something for each member once per interval; members are spread over its slots, and one timer serves
each slot. A member's first turn comes at a random moment in the second half of the interval, so that a storm of
connects does not become a storm of pings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar


Member = TypeVar("Member", bound=Hashable)

SLOTS = 32


class Wheel(Generic[Member]):
    """
    Turn once per ``interval`` seconds.

    Args:
        interval: Seconds between two turns of one member.
        turn: Called with the members of a slot, as a tuple; synchronous.
        random: Returns a float in [0, 1).

    """

    def __init__(
        self,
        interval: float,
        turn: Callable[[tuple[Member, ...]], None],
        random: Callable[[], float],
    ) -> None:
        self._turn = turn
        self._random = random
        self._step = interval / SLOTS
        self._slots: list[dict[Member, None]] = [{} for _ in range(SLOTS)]
        self._current = 0
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def start(self) -> None:
        """Begin to turn on the running loop."""
        loop = asyncio.get_running_loop()
        self._next_at = loop.time() + self._step
        self._timer = loop.call_at(self._next_at, self._tick)

    def stop(self) -> None:
        """Stop turning; may be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, member: Member) -> int:
        """Give a member a slot; returns it for ``discard``."""
        ahead = SLOTS // 2 + int(self._random() * (SLOTS // 2)) + 1
        slot = (self._current + ahead) % SLOTS
        self._slots[slot][member] = None
        return slot

    def discard(self, member: Member, slot: int) -> None:
        """Forget a member."""
        self._slots[slot].pop(member, None)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_at += self._step
        self._timer = loop.call_at(self._next_at, self._tick)
        self._current = (self._current + 1) % SLOTS
        members = self._slots[self._current]
        if members:
            self._turn(tuple(members))
