"""
The embedded engine: everything in one process, nothing to install.

All of a node's connections and API calls must share the process. With it go streams, presence and results;
a restart gives every stream a new epoch, so recovering clients are told that they missed something.

No coroutine here suspends, which is what makes a publish atomic: idempotency, version guard, append and fan-out
run to their end before anything else on the loop does, and subscribers see offsets in order. For the same reason
``BrokerEvents.on_publication`` must not publish to the channel that it is being told of.

Expiry is exact for whoever looks: a stream past its deadline is emptied by the read or publish that finds it. Of those
that nobody looks at ``sweep`` frees the memory. One heap entry per stream says when to look at it next; a publish
moves the stream's deadline and leaves the entry alone, so an active stream costs one heap operation per TTL and not
one per publication.
"""

from __future__ import annotations

import math
import secrets
import string
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import islice
from typing import TypeVar

from msgspec.structs import replace

from realtime.engines.base import (
    NO_POSITION,
    Answer,
    BrokerEvents,
    History,
    HistoryFilter,
    NobodyListens,
    PresenceStats,
    PublishOptions,
    PublishOutcome,
)
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition


EPOCH_LETTERS = string.ascii_letters
EPOCH_LENGTH = 8

StoredT = TypeVar("StoredT")

_NEVER = math.inf
_NOT_STORED = PublishOutcome()
_NOBODY: Mapping[str, ClientInfo] = {}


def random_epoch() -> str:
    """Name a stream's generation: 8 letters that nobody can foresee."""
    return "".join([EPOCH_LETTERS[byte % 52] for byte in secrets.token_bytes(EPOCH_LENGTH)])


def refuses(stored: int, stored_epoch: str, version: int, version_epoch: str) -> bool:
    """Say whether a version comes too late after the one that is stored (0: none)."""
    if not stored or (version_epoch and version_epoch != stored_epoch):
        return False
    return version <= stored


class _Stream:
    """
    One channel's stream.

    ``top`` outlives the publications; offsets in ``publications`` are dense and end at ``top.offset`` unless it
    is empty. ``wake_at`` is when its earliest heap entry comes up.
    """

    __slots__ = (
        "expires_at",
        "meta_expires_at",
        "publications",
        "top",
        "version",
        "version_epoch",
        "wake_at",
    )

    def __init__(self, epoch: str) -> None:
        self.top = StreamPosition(0, epoch)
        self.publications: deque[Publication] = deque()
        self.version = 0
        self.version_epoch = ""
        self.expires_at = _NEVER
        self.meta_expires_at = _NEVER
        self.wake_at = _NEVER

    def drop_publications(self) -> None:
        self.publications.clear()
        self.expires_at = _NEVER


class MemoryEngine:
    """
    Broker, presence manager and control bus of a single process.

    Args:
        clock: Unix time in seconds.
        epochs: Gives the next stream's epoch.
        node_id: Whose control messages these are; empty takes those for any node.

    """

    is_reliable = True
    is_remote = False

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        epochs: Callable[[], str] = random_epoch,
        node_id: str = "",
    ) -> None:
        self._clock = clock
        self._epochs = epochs
        self._node_id = node_id
        self._events: BrokerEvents = NobodyListens()
        self._on_publication = self._events.on_publication
        self._streams: dict[str, _Stream] = {}
        self._stream_heap: list[tuple[float, str]] = []
        # (channel, key) -> (position of the first publish, deadline)
        self._results: dict[tuple[str, str], tuple[StreamPosition, float]] = {}
        self._result_heap: list[tuple[float, tuple[str, str]]] = []
        self._presence: dict[str, dict[str, ClientInfo]] = {}

    async def start(self, events: BrokerEvents) -> None:
        """Tell ``events`` from now on."""
        self._events = events
        self._on_publication = events.on_publication

    async def close(self) -> None:
        """Forget everything; may be called twice."""
        await self.start(NobodyListens())
        self._streams.clear()
        self._stream_heap.clear()
        self._results.clear()
        self._result_heap.clear()
        self._presence.clear()

    async def check(self) -> None:
        """Nothing can be away."""

    # --- broker ---------------------------------------------------------------------------------

    async def subscribe(self, channel: str) -> None:
        """Nothing to do: every publication is told, and the hub knows who listens."""

    async def unsubscribe(self, channel: str) -> None:
        """Nothing to do."""

    async def publish(
        self, channel: str, publication: Publication, options: PublishOptions
    ) -> PublishOutcome:
        """
        Append (where the options keep history) and fan out, once.

        The hottest path of the server: one clock reading, no copy without history, one with.
        """
        now = self._clock()
        key = options.idempotency_key
        if key:
            known = self._results.get((channel, key))
            if known is not None and known[1] > now:
                return PublishOutcome(known[0], "idempotency")
        size = options.history_size
        if size <= 0 or options.history_ttl <= 0:
            if publication.offset:
                publication = _at(publication, 0, "")
            if key:
                self._remember(channel, key, NO_POSITION, now + options.idempotency_ttl)
            self._on_publication(
                channel, publication, NO_POSITION, delta=options.delta, published_at=now
            )
            return _NOT_STORED

        stream = self._live_stream(channel, now)
        publications = stream.publications
        version = options.version
        if version > 0:
            if refuses(stream.version, stream.version_epoch, version, options.version_epoch):
                # The clocks stay as they are, as with Redis; the reference's memory engine re-arms them here.
                return PublishOutcome(stream.top, "version")
            # A publish without a version leaves the guard alone: it must not let an older one pass later.
            stream.version = version
            stream.version_epoch = options.version_epoch
        previous = publications[-1] if options.delta and publications else None
        offset = stream.top.offset + 1
        epoch = stream.top.epoch
        publication = _at(publication, offset, epoch)
        stream.top = top = StreamPosition(offset, epoch)
        publications.append(publication)
        while len(publications) > size:
            publications.popleft()
        stream.expires_at = expires_at = now + options.history_ttl
        meta_ttl = options.history_meta_ttl
        stream.meta_expires_at = meta_expires_at = now + meta_ttl if meta_ttl > 0 else _NEVER
        if expires_at < stream.wake_at or meta_expires_at < stream.wake_at:
            self._wake(channel, stream)
        if key:
            self._remember(channel, key, top, now + options.idempotency_ttl)
        self._on_publication(
            channel,
            publication,
            top,
            delta=options.delta,
            previous=previous,
            published_at=now,
        )
        return PublishOutcome(top)

    def publish_ahead(
        self, channel: str, publication: Publication, options: PublishOptions, answer: Answer
    ) -> bool:
        """Leave it to ``publish``: nothing waits here."""
        return False

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Tell the node's subscribers."""
        self._events.on_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell the node's subscribers."""
        self._events.on_leave(channel, info)

    async def history(self, channel: str, what: HistoryFilter, meta_ttl: float) -> History:
        """
        Read; the first touch gives the channel its epoch.

        Downwards from a position above the top there is nothing (Redis begins at the newest).
        """
        now = self._clock()
        stream = self._live_stream(channel, now)
        stream.meta_expires_at = now + meta_ttl if meta_ttl > 0 else _NEVER
        if stream.meta_expires_at < stream.wake_at:
            self._wake(channel, stream)
        publications = stream.publications
        first = publications[0].offset if publications else 0
        return History(select(publications, first, what), stream.top)

    async def remove_history(self, channel: str) -> None:
        """Drop the publications; top and epoch stay."""
        stream = self._streams.get(channel)
        if stream is not None:
            stream.drop_publications()

    async def renew(self, channel: str, epoch: str) -> None:
        """End a stream of this epoch; the next touch makes a new one."""
        stream = self._streams.get(channel)
        if stream is not None and stream.top.epoch == epoch:
            del self._streams[channel]

    # --- presence -------------------------------------------------------------------------------

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        """Record or refresh an entry; it stays until it is removed."""
        entries = self._presence.get(channel)
        if entries is None:
            entries = self._presence[channel] = {}
        entries[client_id] = info

    async def remove(self, channel: str, client_id: str, user: str) -> None:
        """Forget an entry; unknown ones are no error."""
        entries = self._presence.get(channel)
        if entries is None:
            return
        entries.pop(client_id, None)
        if not entries:
            del self._presence[channel]

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Return the entries by client id: a copy, which later changes leave alone."""
        return dict(self._presence.get(channel, _NOBODY))

    async def presence_stats(self, channel: str) -> PresenceStats:
        """Count them."""
        entries = self._presence.get(channel, _NOBODY)
        return PresenceStats(len(entries), len({info.user for info in entries.values()}))

    async def remove_node(self, node_id: str) -> Sequence[tuple[str, ClientInfo]]:
        """Nothing to do: the entries of the one node there is go with it."""
        return ()

    # --- control --------------------------------------------------------------------------------

    async def publish_control(self, data: bytes, node_id: str = "") -> None:
        """Carry it out here, unless it is for another node: there is none to hear it."""
        if not node_id or not self._node_id or node_id == self._node_id:
            self._events.on_control(data)

    # --- expiry ---------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Free what has expired; the node's ticker calls it each second. ``now`` is of the engine's clock."""
        heap = self._stream_heap
        while heap and heap[0][0] <= now:
            at, channel = heappop(heap)
            stream = self._streams.get(channel)
            # An entry that isn't the stream's earliest is left from before a shorter TTL, or an earlier stream.
            if stream is None or stream.wake_at != at:
                continue
            stream.wake_at = _NEVER
            if stream.meta_expires_at <= now:
                del self._streams[channel]
                continue
            if stream.expires_at <= now:
                stream.drop_publications()
            self._wake(channel, stream)
        results = self._result_heap
        while results and results[0][0] <= now:
            _, scoped_key = heappop(results)
            known = self._results.get(scoped_key)
            if known is not None and known[1] <= now:
                del self._results[scoped_key]

    def _live_stream(self, channel: str, now: float) -> _Stream:
        """Return the channel's stream as it is at ``now``, a new one where there is none any more."""
        stream = self._streams.get(channel)
        if stream is None or stream.meta_expires_at <= now:
            stream = self._streams[channel] = _Stream(self._epochs())
        elif stream.expires_at <= now:
            stream.drop_publications()
        return stream

    def _wake(self, channel: str, stream: _Stream) -> None:
        """Have ``sweep`` look at the stream when the first of its two clocks runs out."""
        at = min(stream.expires_at, stream.meta_expires_at)
        if at < stream.wake_at:
            stream.wake_at = at
            heappush(self._stream_heap, (at, channel))

    def _remember(self, channel: str, key: str, position: StreamPosition, deadline: float) -> None:
        scoped_key = (channel, key)
        self._results[scoped_key] = (position, deadline)
        heappush(self._result_heap, (deadline, scoped_key))


def _at(publication: Publication, offset: int, epoch: str) -> Publication:
    """
    Copy a publication to its place in a stream.

    ``Raw.copy`` lets go of the frame that the payload was cut from: a stored message must not keep 64 KiB alive.
    """
    return replace(
        publication,
        data=publication.data.copy(),
        offset=offset,
        epoch=epoch if offset == 1 else "",
    )


def select(stored: deque[StoredT], first: int, what: HistoryFilter) -> list[StoredT]:
    """Cut the wanted part out of what a stream stores (ascending and dense from ``first``), in the order asked for."""
    count = len(stored)
    if not what.limit or not count:
        return []
    limit = what.limit if what.limit > 0 else count
    if what.reverse:
        skipped = 0
        if what.since is not None:
            # The newest one wanted is since-1, at index since-1-first; above the top it isn't stored.
            skipped = count - (what.since.offset - first)
            if skipped < 0:
                return []
        return list(islice(reversed(stored), skipped, skipped + limit))
    begin = 0 if what.since is None else max(0, what.since.offset + 1 - first)
    end = min(begin + limit, count)
    if begin >= end:
        return []
    if begin <= count - end:
        return list(islice(stored, begin, end))
    # Nearer to the end, where those who recover read: walk down and turn round.
    wanted = list(islice(reversed(stored), count - end, count - begin))
    wanted.reverse()
    return wanted
