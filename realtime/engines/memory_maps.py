"""
Maps in this process.

As in ``memory``, no coroutine suspends: a write runs from its first check to the last subscriber it is told to before
anything else on the loop does. A map lives until ``sweep`` finds nothing in it any more; while it has keys its record is
kept, whatever ``meta_ttl`` says, so that a key's expiry always finds the stream it is to be told in.

A due key is there for readers and writers until ``sweep`` takes it, in one step with the removal that subscribers are
told. When that is a heap says: one entry per key, which a write that moves the deadline leaves alone, so a key that is
refreshed costs one heap operation per TTL. A second heap says which maps to look at, in the same way.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush

from msgspec.structs import replace

from realtime.engines.base import NO_POSITION, BrokerEvents, HistoryFilter, NobodyListens
from realtime.engines.maps import (
    IF_EXISTS,
    IF_NEW,
    MapChange,
    MapEntry,
    MapOutcome,
    MapState,
    MapStream,
    StateFilter,
    check_change,
)
from realtime.engines.memory import random_epoch, refuses, select
from realtime.namespaces.options import MapRules
from realtime.protocol.messages import EMPTY, Publication, StreamPosition


RESULT_TTL = 300.0

_NEVER = math.inf
# Up to one key in so many is put in its place in the sorted keys; more are sorted in at once, which takes one pass.
_SORTED_SINGLY = 64


class _Key:
    """A key's value; ``wake_at`` is when its heap entry comes up, ``_NEVER`` where it has none."""

    __slots__ = ("entry", "expires_at", "version", "version_epoch", "wake_at")

    def __init__(self) -> None:
        self.entry: MapEntry
        self.expires_at = _NEVER
        self.wake_at = _NEVER
        self.version = 0
        self.version_epoch = ""


class _Order:
    """
    The keys of a map in the order of their bytes, which is that of their code points.

    Only maps that somebody pages through have one. Sorting 100,000 keys anew for each page would take 35 ms, so keys that
    came are gathered until the next page and sorted in then, and keys that went stay until there are as many as others.
    """

    __slots__ = ("_came", "_keys", "_went")

    def __init__(self, keys: list[str]) -> None:
        self._keys = sorted(keys)
        self._came: set[str] = set()
        self._went: set[str] = set()

    def add(self, key: str) -> None:
        if key in self._went:
            self._went.discard(key)
        else:
            self._came.add(key)

    def discard(self, key: str) -> None:
        if key in self._came:
            self._came.discard(key)
        else:
            self._went.add(key)

    def after(self, cursor: str) -> Iterator[str]:
        """Yield the keys behind ``cursor``, which need not be one of them; nothing may change meanwhile."""
        self._settle()
        keys, went = self._keys, self._went
        for index in range(bisect_right(keys, cursor) if cursor else 0, len(keys)):
            if keys[index] not in went:
                yield keys[index]

    def _settle(self) -> None:
        keys = self._keys
        if len(self._went) * 2 > len(keys):
            went = self._went
            keys = self._keys = [key for key in keys if key not in went]
            self._went = set()
        if len(self._came) * _SORTED_SINGLY > len(keys):
            keys.extend(sorted(self._came))
            keys.sort()
        else:
            for key in self._came:
                insort(keys, key)
        self._came.clear()


class _Map:
    """
    One channel's map.

    ``top`` has no epoch where there is no stream. ``rules`` are those of the last write: what keys that expire are told by.
    ``wake_at`` is when its earliest entry of the store's heap comes up.
    """

    __slots__ = (
        "deadlines",
        "keys",
        "meta_expires_at",
        "order",
        "result_deadlines",
        "results",
        "rules",
        "stream",
        "stream_expires_at",
        "top",
        "wake_at",
    )

    def __init__(self, rules: MapRules, epoch: str) -> None:
        self.top = StreamPosition(0, epoch) if epoch else NO_POSITION
        self.rules = rules
        self.keys: dict[str, _Key] = {}
        self.order: _Order | None = None
        self.stream: deque[MapEntry] = deque()
        self.stream_expires_at = _NEVER
        self.meta_expires_at = _NEVER
        self.deadlines: list[tuple[float, str]] = []
        # Idempotency key -> (position of the first change, deadline)
        self.results: dict[str, tuple[StreamPosition, float]] = {}
        self.result_deadlines: list[tuple[float, str]] = []
        self.wake_at = _NEVER

    def drop_stream(self) -> None:
        self.stream.clear()
        self.stream_expires_at = _NEVER

    def arm(self, meta_ttl: float, now: float) -> None:
        """Start the record's clock, which stands still while there are keys; without a stream nothing is worth keeping."""
        if self.keys:
            self.meta_expires_at = _NEVER
        elif not self.top.epoch:
            self.meta_expires_at = now
        else:
            self.meta_expires_at = now + meta_ttl if meta_ttl > 0 else _NEVER

    def is_done(self, now: float) -> bool:
        """Say whether nothing would be lost with this map."""
        if self.keys or (self.results and not self.top.epoch):
            return False
        return self.meta_expires_at <= now


class MemoryMaps:
    """
    Map broker of a single process.

    Args:
        clock: Unix time in seconds.
        epochs: Gives the next map's epoch.

    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        epochs: Callable[[], str] = random_epoch,
    ) -> None:
        self._clock = clock
        self._epochs = epochs
        self._on_publication = NobodyListens().on_publication
        self._maps: dict[str, _Map] = {}
        self._heap: list[tuple[float, str]] = []

    async def start(self, events: BrokerEvents) -> None:
        """Tell ``events`` from now on."""
        self._on_publication = events.on_publication

    async def close(self) -> None:
        """Forget everything; may be called twice."""
        await self.start(NobodyListens())
        self._maps.clear()
        self._heap.clear()

    async def check(self) -> None:
        """Nothing can be away."""

    async def subscribe(self, channel: str) -> None:
        """Nothing to do: every change is told, and the hub knows who listens."""

    async def unsubscribe(self, channel: str) -> None:
        """Nothing to do."""

    # --- changes --------------------------------------------------------------------------------------

    async def publish(
        self, channel: str, publication: Publication, rules: MapRules, change: MapChange
    ) -> MapOutcome:
        """Write a key, unless a check forbids it."""
        check_change(rules, change)
        now = self._clock()
        kept = self._live_map(channel, rules, now)
        outcome = _repeated(kept, change, now) or self._refused(channel, kept, publication, change)
        if outcome is not None:
            return outcome
        name = publication.key
        key = kept.keys.get(name)
        previous = None if key is None else key.entry.publication
        if key is None:
            key = kept.keys[name] = _Key()
            if kept.order is not None:
                kept.order.add(name)
        kept.meta_expires_at = _NEVER
        key.entry = self._append(channel, kept, publication, now)
        if change.version:
            key.version, key.version_epoch = change.version, change.version_epoch
        self._let_live(channel, kept, name, key, now)
        self._remember(channel, kept, change, now)
        top = kept.top
        self._on_publication(
            channel,
            key.entry.publication,
            top,
            delta=change.delta,
            previous=previous if change.delta else None,
            published_at=now,
        )
        return MapOutcome(top)

    async def remove(
        self, channel: str, publication: Publication, rules: MapRules, change: MapChange
    ) -> MapOutcome:
        """Remove a key, unless a check forbids it."""
        check_change(rules, change)
        now = self._clock()
        kept = self._live_map(channel, rules, now)
        outcome = _repeated(kept, change, now)
        if outcome is not None:
            return outcome
        key = kept.keys.get(publication.key)
        if not _is_expected(kept, key, change):
            return _mismatch(kept, key)
        if key is None:
            return MapOutcome(kept.top, "key_not_found")
        removal = self._take(channel, kept, publication.key, publication.tags, now)
        self._remember(channel, kept, change, now)
        top = kept.top
        self._on_publication(channel, removal, top, published_at=now)
        return MapOutcome(top)

    def _refused(
        self, channel: str, kept: _Map, publication: Publication, change: MapChange
    ) -> MapOutcome | None:
        """Return why a write may not be, in the order that is normative."""
        key = kept.keys.get(publication.key)
        if (
            change.version > 0
            and key is not None
            and refuses(key.version, key.version_epoch, change.version, change.version_epoch)
        ):
            return MapOutcome(kept.top, "version")
        if change.key_mode == IF_NEW and key is not None:
            if change.refresh_ttl:
                self._let_live(channel, kept, publication.key, key, self._clock())
            return MapOutcome(kept.top, "key_exists")
        if change.key_mode == IF_EXISTS and key is None:
            return MapOutcome(kept.top, "key_not_found")
        if not _is_expected(kept, key, change):
            return _mismatch(kept, key)
        return None

    def _append(self, channel: str, kept: _Map, publication: Publication, now: float) -> MapEntry:
        """Give a change its place in the map's stream, where there is one."""
        offset, epoch = 0, kept.top.epoch
        if epoch:
            offset = kept.top.offset + 1
            kept.top = StreamPosition(offset, epoch)
        data = publication.data
        # A copy lets go of the frame that the payload was cut from; EMPTY must stay itself.
        publication = replace(
            publication,
            data=data if data is EMPTY else data.copy(),
            offset=offset,
            epoch=epoch if offset == 1 else "",
        )
        entry = MapEntry(publication, int(now * 1000))
        if epoch:
            rules, stream = kept.rules, kept.stream
            stream.append(entry)
            while len(stream) > rules.stream_size:
                stream.popleft()
            kept.stream_expires_at = now + rules.stream_ttl if rules.stream_ttl > 0 else _NEVER
            self._wake(channel, kept, kept.stream_expires_at)
        return entry

    def _take(
        self, channel: str, kept: _Map, name: str, tags: dict[str, str] | None, now: float
    ) -> Publication:
        """Take a key out and append its removal, which is returned."""
        key = kept.keys.pop(name)
        if kept.order is not None:
            kept.order.discard(name)
        removal = Publication(key=name, removed=True, tags=tags or key.entry.publication.tags)
        entry = self._append(channel, kept, removal, now)
        kept.arm(kept.rules.meta_ttl, now)
        self._wake(channel, kept, kept.meta_expires_at)
        return entry.publication

    def _let_live(self, channel: str, kept: _Map, name: str, key: _Key, now: float) -> None:
        """Set a key's deadline anew."""
        ttl = kept.rules.key_ttl
        key.expires_at = at = now + ttl if ttl > 0 else _NEVER
        if at < key.wake_at:
            key.wake_at = at
            heappush(kept.deadlines, (at, name))
            self._wake(channel, kept, at)

    def _remember(self, channel: str, kept: _Map, change: MapChange, now: float) -> None:
        if change.idempotency_key:
            deadline = now + (change.idempotency_ttl or RESULT_TTL)
            kept.results[change.idempotency_key] = (kept.top, deadline)
            heappush(kept.result_deadlines, (deadline, change.idempotency_key))
            self._wake(channel, kept, deadline)

    # --- reads ----------------------------------------------------------------------------------------

    async def read_state(self, channel: str, rules: MapRules, what: StateFilter) -> MapState:
        """Read keys in the order of their bytes; a cursor is the page's last key."""
        kept = self._live_map(channel, rules, self._clock())
        if what.key:
            key = kept.keys.get(what.key)
            return MapState(() if key is None else (key.entry,), kept.top)
        if not what.limit or not kept.keys:
            return MapState((), kept.top)
        if kept.order is None:
            kept.order = _Order(list(kept.keys))
        entries: list[MapEntry] = []
        for name in kept.order.after("" if what.limit < 0 else what.cursor):
            if len(entries) == what.limit:
                return MapState(entries, kept.top, entries[-1].publication.key)
            entries.append(kept.keys[name].entry)
        return MapState(entries, kept.top)

    async def read_stream(self, channel: str, rules: MapRules, what: HistoryFilter) -> MapStream:
        """Read changes; those of a map without a stream are not kept."""
        kept = self._live_map(channel, rules, self._clock())
        if not kept.stream:
            return MapStream((), kept.top)
        return MapStream(select(kept.stream, kept.stream[0].publication.offset, what), kept.top)

    async def count(self, channel: str) -> int:
        """Return the number of keys."""
        kept = self._maps.get(channel)
        return 0 if kept is None else len(kept.keys)

    async def clear(self, channel: str) -> None:
        """Forget the map; the next touch makes a new one."""
        self._maps.pop(channel, None)

    async def renew(self, channel: str, epoch: str) -> None:
        """Forget a map of this epoch; the next touch makes a new one."""
        kept = self._maps.get(channel)
        if kept is not None and kept.top.epoch == epoch:
            del self._maps[channel]

    # --- life and expiry ------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Remove the keys that are due and tell it, and free what has expired; ``now`` is of the store's clock."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, channel = heappop(heap)
            kept = self._maps.get(channel)
            # An entry that isn't the map's earliest is left from an earlier map, or from before a shorter TTL.
            if kept is None or kept.wake_at != at:
                continue
            kept.wake_at = _NEVER
            self._sweep_map(channel, kept, now)

    def _sweep_map(self, channel: str, kept: _Map, now: float) -> None:
        if kept.stream_expires_at <= now:
            kept.drop_stream()
        deadlines = kept.deadlines
        while deadlines and deadlines[0][0] <= now:
            at, name = heappop(deadlines)
            key = kept.keys.get(name)
            if key is None or key.wake_at != at:
                continue
            key.wake_at = _NEVER
            if key.expires_at > at:
                # Its deadline was moved; where that has come too, it has a turn behind those that were due before.
                if key.expires_at < _NEVER:
                    key.wake_at = key.expires_at
                    heappush(deadlines, (key.expires_at, name))
                continue
            removal = self._take(channel, kept, name, None, now)
            self._on_publication(channel, removal, kept.top, published_at=now)
        overdue = kept.result_deadlines
        while overdue and overdue[0][0] <= now:
            _, name = heappop(overdue)
            known = kept.results.get(name)
            if known is not None and known[1] <= now:
                del kept.results[name]
        if kept.is_done(now):
            self._maps.pop(channel, None)
            return
        next_key = deadlines[0][0] if deadlines else _NEVER
        next_result = overdue[0][0] if overdue else _NEVER
        # Without a stream the record's clock has run out already, and what is left are results.
        next_meta = kept.meta_expires_at if kept.top.epoch else _NEVER
        self._wake(channel, kept, min(kept.stream_expires_at, next_meta, next_key, next_result))

    def _live_map(self, channel: str, rules: MapRules, now: float) -> _Map:
        """Return the channel's map as it is at ``now``, a new one where there is none any more."""
        kept = self._maps.get(channel)
        if kept is None or kept.is_done(now) or (rules.has_stream and not kept.top.epoch):
            # What was kept without a stream goes, too: nobody could be told which of it they have seen.
            epoch = self._epochs() if rules.has_stream else ""
            kept = self._maps[channel] = _Map(rules, epoch)
        elif kept.top.epoch and not rules.has_stream:
            # From now on changes have no offsets: nobody may go on from here where there are some again.
            kept.top = NO_POSITION
            kept.drop_stream()
        if kept.stream_expires_at <= now:
            kept.drop_stream()
        kept.rules = rules
        kept.arm(rules.meta_ttl, now)
        self._wake(channel, kept, kept.meta_expires_at)
        return kept

    def _wake(self, channel: str, kept: _Map, at: float) -> None:
        """Have ``sweep`` look at the map at this time, if nothing has it looked at before."""
        if at < kept.wake_at:
            kept.wake_at = at
            heappush(self._heap, (at, channel))


def _repeated(kept: _Map, change: MapChange, now: float) -> MapOutcome | None:
    if not change.idempotency_key:
        return None
    known = kept.results.get(change.idempotency_key)
    if known is None or known[1] <= now:
        return None
    return MapOutcome(known[0], "idempotency")


def _is_expected(kept: _Map, key: _Key | None, change: MapChange) -> bool:
    expected = change.expected
    if expected is None:
        return True
    return (
        key is not None
        and key.entry.publication.offset == expected.offset
        and kept.top.epoch == expected.epoch
    )


def _mismatch(kept: _Map, key: _Key | None) -> MapOutcome:
    return MapOutcome(kept.top, "position_mismatch", None if key is None else key.entry)
