"""
When what rooms have pending is written: once per tick, or as much later as the settings say.

Publications of one tick are joined, so they cost a connection one write. Where they may wait longer, all that a connection
is owed by its channels is one write. What is gathered (``realtime.node.batching``) leaves with the flush after its release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from realtime.node.batching import BatchCohort, Batches
from realtime.node.placement import step_in
from realtime.node.rooms import Extras, Room
from realtime.session.subscription import SubscriptionState


if TYPE_CHECKING:
    from realtime.client.client import Client


class Flushes:
    """
    The rooms with something pending, and the timers that write it.

    Args:
        write_delay: Seconds that publications wait for others before they are written; 0 is the current tick.
        websocket_write_delay: The same on bidirectional WebSockets; 0 is as on all others.
        messages_per_frame: How many of those that were gathered may share one; -1 is any number.

    Attributes:
        loop: Set when the node starts.
        batches: The timer of what is gathered.

    """

    def __init__(
        self,
        *,
        write_delay: float = 0,
        websocket_write_delay: float = 0,
        messages_per_frame: int = 16,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.batches = Batches(self._release, messages_per_frame)
        delays = (write_delay, websocket_write_delay or write_delay)
        self._write_delay = min(delays)
        self._late_by = max(delays) - self._write_delay
        self._is_websocket_late = delays[1] > delays[0]
        self._late: dict[Room, None] = {}
        self._on_tick = self._flush_early if self._late_by else self.flush
        self._dirty: list[Room] = []

    def mark(self, room: Room) -> None:
        """Have a room flushed; asking first whether it is dirty already spares a call for each publication."""
        room.is_dirty = True
        self._dirty.append(room)
        if len(self._dirty) == 1:
            # Python 3.11 asks the system for its process id whenever the running loop is looked up.
            loop = self.loop or asyncio.get_running_loop()
            if self._write_delay:
                loop.call_later(self._write_delay, self._on_tick)
            else:
                loop.call_soon(self._on_tick)

    def flush(self) -> None:
        """Write out what the rooms have pending."""
        dirty, self._dirty = self._dirty, []
        if self._write_delay or self._late_by:
            late, self._late = self._late, {}
            dirty += [room for room in late if not room.is_dirty]
            if len(dirty) > 1:
                _write_together(dirty)
        for room in dirty:
            room.is_dirty = False
            room.flush()
            if room.extras is not None:
                self._flush_extras(room, room.extras)

    def _flush_early(self) -> None:
        """Write out what is pending on those transports that wait less than others."""
        dirty, self._dirty = self._dirty, []
        if dirty and not self._late:
            asyncio.get_running_loop().call_later(self._late_by, self.flush)
        for room in dirty:
            room.is_dirty = False
            self._late[room] = None
        _write_together(dirty, is_websocket=not self._is_websocket_late)

    def _release(self, cohort: BatchCohort) -> None:
        """Let what a cohort has gathered leave with the next flush."""
        cohort.release()
        room = cohort.room
        if cohort.is_shared:
            room.more().is_released = True
        if not room.is_dirty:
            self.mark(room)

    def _flush_extras(self, room: Room, extras: Extras) -> None:
        """Write out what single subscribers have pending, and let those join the others who had to wait for these."""
        if extras.alone:
            for alone in tuple(extras.alone.values()):
                if alone.pending:
                    alone.flush()
        if not extras.is_released:
            return
        extras.is_released = False
        for subscription in tuple((room.held or {}).values()):
            if subscription.state is SubscriptionState.HELD:
                # What came since is a little of the next batch; waiting on, some would never get in.
                step_in(room, subscription, self.batches, can_release=True)


def _write_together(rooms: Iterable[Room], *, is_websocket: bool | None = None) -> None:
    """
    Write out what rooms have pending, with one write for each connection whatever the number of its channels.

    ``is_websocket`` restricts it to these, or to all others.

    Costs 0.3 µs for each member of a cohort more than writing at once, and spares some 7 for each write that it joins.
    """
    letters: dict[Client, list[bytes]] = {}
    for room in rooms:
        for cohort in room.every_cohort():
            if cohort.pending and is_websocket in (None, cohort.wire.is_websocket):
                joined = cohort.take()
                for client in cohort.writes:
                    letters.setdefault(client, []).append(joined)
    for client, parts in letters.items():
        if not client.is_closed:
            client.direct_write(client.wire.separator.join(parts))
