"""
Work that is due later, without a timer per connection.

A timer that is set and cancelled costs 3 µs, and as long as it is set 200 bytes. A ``Waitlist`` has one for all who have
equally long to do something. A ``Wheel`` calls something for each member once per interval; members are spread over its slots, and one timer serves
each slot. A member's first turn comes at a random moment in the second half of the interval, so that a storm of
connects does not become a storm of pings.
"""

from __future__ import annotations

import asyncio
import itertools
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


class Waitlist(Generic[Member]):
    """
    Who has to do something within ``seconds``, all the same number of them.

    Args:
        seconds: How long each member has; it is found late by up to an eighth of that.
        on_late: Called with each that is still on the list then, and no longer on it; synchronous.

    """

    def __init__(self, seconds: float, on_late: Callable[[Member], object]) -> None:
        self._seconds = seconds
        self._on_late = on_late
        # In the order of their deadlines, since a dict keeps that of insertion.
        self._deadlines: dict[Member, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._deadlines)

    def add(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        """Put a newcomer on the list."""
        self._deadlines[member] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look, loop)

    def discard(self, member: Member) -> None:
        """Take off who has done it, or is gone."""
        self._deadlines.pop(member, None)

    def stop(self) -> None:
        """Forget everybody; may be called twice."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        late = list(itertools.takewhile(lambda each: self._deadlines[each] <= now, self._deadlines))
        for member in late:
            # A call may take others off the list.
            if self._deadlines.pop(member, None) is not None:
                self._on_late(member)
        first = next(iter(self._deadlines.values()), None)
        if first is not None and self._timer is None:
            self._timer = loop.call_later(max(first - now, self._seconds / 8), self._look, loop)
