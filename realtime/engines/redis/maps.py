"""
Maps in Redis, delivery over the groups of channels.

A change is one script: checks, stream, state and fan-out, or none of it. Beside a map's state stand its keys in their order,
which pages are read by: a cursor is a key, so it means the same after a failover, as the cursors of HSCAN do not.

Keys are taken by a sweep that every node runs. Deadlines are by Redis' own clock, and a script looks at them again before it
takes anything, so nodes with other clocks and several sweeps at once do no harm.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from realtime.engines.base import NO_POSITION, BrokerEvents, HistoryFilter
from realtime.engines.maps import (
    MapChange,
    MapEntry,
    MapOutcome,
    MapState,
    MapStream,
    StateFilter,
    check_change,
)
from realtime.engines.redis import scripts
from realtime.engines.redis.channel_layer import NodeEars, RealtimeLoopLayer
from realtime.engines.redis.ears import BrokerEars
from realtime.engines.redis.encoding import (
    Epochs,
    change_field,
    encode_tags,
    key_field,
    publication_head,
    read_removed,
    read_value,
    read_written,
    removal_head,
    time_field,
    written_parts,
)
from realtime.engines.redis.keys import shard_of
from realtime.engines.redis.map_keys import MapKeys, MapNaming
from realtime.engines.redis.shard import Shard
from realtime.engines.redis.streams import first_offset, ms, read_ends
from realtime.namespaces.options import MapRules
from realtime.protocol.errors import ConfigError, EngineError
from realtime.protocol.messages import Publication, StreamPosition


logger = logging.getLogger(__name__)

KNOWN_CHANNELS = 1 << 14
BATCHES = 10  # of one map in one sweep
SWEPT_AT_ONCE = 64  # maps of one index
_KEY_FIELDS = 1
_OFFSET_FIELDS = 2  # offset, epoch
_DELTA_FIELDS = 2  # delta, previous
_REASONS = ("", "idempotency", "version", "key_exists", "key_not_found", "position_mismatch")
_NO_STREAM = MapStream((), NO_POSITION)


class _Route(msgspec.Struct, frozen=True, gc=False):
    """What is known of a map; ``field`` is the part of its messages that never changes."""

    keys: MapKeys
    shard: Shard
    field: bytes


class RedisMaps:
    """
    Map broker over Redis.

    Args:
        layer: Of this loop, for maps alone; brings the shards.
        naming: Of keys.
        clock: Unix time in seconds; says when something was published, and nothing more.
        sweep_interval: Seconds between two sweeps; 0 or less leaves them to others.
        batch_size: Keys of one map that are taken in one step.
        result_ttl: Seconds that an idempotency key is known, unless a change says so itself.
        has_delivery: Whether changes are told.

    """

    def __init__(
        self,
        layer: RealtimeLoopLayer,
        naming: MapNaming,
        *,
        clock: Callable[[], float] = time.time,
        sweep_interval: float = 1.0,
        batch_size: int = 100,
        result_ttl: float = 300.0,
        has_delivery: bool = True,
    ) -> None:
        self._layer = layer
        self._naming = naming
        self._clock = clock
        self._sweep_interval = sweep_interval
        self._batch_size = batch_size
        self._result_ttl = result_ttl
        self._has_delivery = has_delivery
        self._epochs = Epochs()
        self._route = functools.lru_cache(KNOWN_CHANNELS)(self._make_route)
        self._sweeping: asyncio.Task[None] | None = None
        self._swept_at = -math.inf
        self._is_failing = False

    def _make_route(self, channel: str) -> _Route:
        shards = self._layer.shards
        shard = shards[shard_of(channel, len(shards))]
        return _Route(self._naming.channel(channel), shard, change_field(channel))

    # --- life -----------------------------------------------------------------------------------------

    async def start(self, events: BrokerEvents) -> None:
        """Connect; an outage at this time is logged and the node starts."""
        self._layer.ears = BrokerEars(events)
        await self._layer.start()

    async def check_support(self) -> None:
        """
        Raise ``ConfigError`` where Redis has no streams; it is told in the log where it may throw maps away.

        Raises:
            EngineError: It is away and can't be asked.

        """
        key = self._naming.indexes[0]
        for shard in self._layer.shards:
            (known,) = await shard.call(key, b"COMMAND", b"INFO", b"XADD")
            if not known:
                raise ConfigError(
                    "map_broker.redis: maps need streams (XADD), which this server does not have"
                )
            facts = await shard.call(key, b"INFO", b"memory")
            if b"maxmemory:0\r\n" not in facts and b"maxmemory_policy:noeviction" not in facts:
                logger.warning(
                    "Redis may evict parts of maps: give map_broker.redis one with maxmemory-policy noeviction"
                )

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.wait((sweeping,))
        self._layer.ears = NodeEars()
        await self._layer.close()

    async def check(self) -> None:
        """Raise ``EngineError`` unless every shard answers and all subscriptions are in force."""
        for shard in self._layer.shards:
            await shard.check()

    async def subscribe(self, channel: str) -> None:
        """Join the channel's group; returns when Redis has confirmed."""
        if self._has_delivery:
            await self._layer.join(channel, self._route(channel).keys)

    async def unsubscribe(self, channel: str) -> None:
        """Leave the channel's group."""
        await self._layer.leave(self._route(channel).keys)

    # --- changes --------------------------------------------------------------------------------------

    async def publish(
        self, channel: str, publication: Publication, rules: MapRules, change: MapChange
    ) -> MapOutcome:
        """Write a key and tell it, in one step, unless a check forbids it."""
        check_change(rules, change)
        route = self._route(channel)
        data, key = bytes(publication.data), publication.key
        now = self._clock()
        fields = _KEY_FIELDS
        if rules.has_stream:
            fields += _OFFSET_FIELDS
        if change.delta:
            fields += _DELTA_FIELDS
        written_head, written_rest = written_parts(publication, len(data), ms(now))
        head = publication_head(key_field(route.field, key), publication, len(data), now, fields)
        reply = await route.shard.run(
            scripts.MAP_WRITE,
            route.keys.of_script(change.idempotency_key),
            (
                key,
                data,
                written_head,
                written_rest,
                head,
                _rules_text(rules),
                ms(rules.key_ttl),
                self._epochs(),
                self._publish_command(route),
                route.keys.group_channel,
                channel,
                ms(change.idempotency_ttl or self._result_ttl),
                change.key_mode,
                b"1" if change.refresh_ttl else b"0",
                *_expected(change),
                change.version,
                change.version_epoch,
                b"1" if change.delta else b"0",
            ),
        )
        return _outcome(key, reply)

    async def remove(
        self, channel: str, publication: Publication, rules: MapRules, change: MapChange
    ) -> MapOutcome:
        """Remove a key and tell it, in one step, unless a check forbids it."""
        check_change(rules, change)
        route = self._route(channel)
        now = self._clock()
        reply = await route.shard.run(
            scripts.MAP_REMOVE,
            route.keys.of_script(change.idempotency_key),
            (
                publication.key,
                encode_tags(publication.tags),
                time_field(route.field, now),
                removal_head(ms(now)),
                _rules_text(rules),
                self._epochs(),
                self._publish_command(route),
                route.keys.group_channel,
                ms(change.idempotency_ttl or self._result_ttl),
                *_expected(change),
            ),
        )
        return _outcome(publication.key, reply)

    def _publish_command(self, route: _Route) -> bytes:
        return route.shard.publish_command if self._has_delivery else b""

    # --- reads ----------------------------------------------------------------------------------------

    async def read_state(self, channel: str, rules: MapRules, what: StateFilter) -> MapState:
        """Read keys in the order of their bytes; a cursor is the page's last key."""
        route = self._route(channel)
        kind, place = "", ""
        if what.key:
            kind, place = "key", what.key
        elif what.limit > 0:
            kind, place = "page", what.cursor
        elif what.limit < 0:
            kind = "all"
        offset, epoch, has_more, flat = await route.shard.run(
            scripts.MAP_STATE,
            route.keys.of_script(),
            (_rules_text(rules), self._epochs(), kind, place, what.limit),
        )
        top = _position(offset, epoch)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        entries = [read_value(key.decode(), value, top.epoch) for key, value in pairs]
        if kind == "all":
            entries.sort(key=_key_of)
        return MapState(entries, top, _key_of(entries[-1]) if has_more else "")

    async def read_stream(self, channel: str, rules: MapRules, what: HistoryFilter) -> MapStream:
        """
        Read changes; those of a map without a stream are not kept, and Redis is not asked for them.

        Downwards from a position above the top a stream begins at the newest.
        """
        if not rules.has_stream:
            return _NO_STREAM
        route = self._route(channel)
        first = first_offset(what)
        offset, epoch, found, before = await route.shard.run(
            scripts.MAP_STREAM,
            route.keys.of_script(),
            (
                _rules_text(rules),
                self._epochs(),
                b"0" if first is None else b"1",
                first or "-",
                max(what.limit, 0),
                b"1" if what.reverse else b"0",
            ),
        )
        top = _position(offset, epoch)
        changes = [_read_change(each, top.epoch) for each in found]
        return MapStream(changes, top, read_ends(before))

    async def count(self, channel: str) -> int:
        """Return the number of keys."""
        route = self._route(channel)
        count: int = await route.shard.call(route.keys.state, b"HLEN", route.keys.state)
        return count

    async def clear(self, channel: str) -> None:
        """
        Delete state, stream and record; the next touch makes a new epoch.

        Results of idempotency keys go with their epoch; where there is no stream, and so none, with their TTL.
        """
        await self._clear(channel, "")

    async def renew(self, channel: str, epoch: str) -> None:
        """End a map of this epoch; the next touch makes a new one."""
        if epoch:
            await self._clear(channel, epoch)

    async def _clear(self, channel: str, epoch: str) -> None:
        route = self._route(channel)
        await route.shard.run(scripts.MAP_CLEAR, route.keys.of_script(), (channel, epoch))

    # --- expiry ---------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Begin to remove the keys that are due, unless that is under way; ``now`` means nothing to Redis."""
        loop = asyncio.get_running_loop()
        if self._sweep_interval <= 0 or self._sweeping is not None:
            return
        # Ticks come once a second, a little early or late; half of one is the tolerance.
        if loop.time() - self._swept_at < self._sweep_interval - 0.5:
            return
        self._swept_at = loop.time()
        self._sweeping = loop.create_task(self.sweep_once())
        self._sweeping.add_done_callback(self._swept)

    def _swept(self, task: asyncio.Task[None]) -> None:
        self._sweeping = None
        if not task.cancelled() and task.exception() is not None:
            logger.error("maps were not swept", exc_info=task.exception())

    async def sweep_once(self) -> None:
        """Remove the keys that are due: of each map so many at once, and so many times; the rest is the next sweep's."""
        indexes = [(shard, index) for shard in self._layer.shards for index in self._naming.indexes]
        results = await asyncio.gather(
            *(self._sweep_index(shard, index) for shard, index in indexes), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, EngineError):
                raise failure
        # Once an outage, not once a second.
        if failures and not self._is_failing:
            logger.warning("keys of maps that are due were not all removed: %s", failures[0])
        self._is_failing = bool(failures)

    async def _sweep_index(self, shard: Shard, index: bytes) -> None:
        for _ in range(BATCHES):
            channels = await shard.run(scripts.MAP_DUE, (index,), (SWEPT_AT_ONCE,))
            await asyncio.gather(*(self._sweep_map(channel.decode()) for channel in channels))
            if len(channels) < SWEPT_AT_ONCE:
                return

    async def _sweep_map(self, channel: str) -> None:
        route = self._route(channel)
        for _ in range(BATCHES):
            now = self._clock()
            _, has_more = await route.shard.run(
                scripts.MAP_SWEEP,
                route.keys.of_script(),
                (
                    channel,
                    self._batch_size,
                    time_field(route.field, now),
                    removal_head(ms(now)),
                    self._publish_command(route),
                    route.keys.group_channel,
                    self._epochs(),
                ),
            )
            if not has_more:
                return


@functools.lru_cache(maxsize=1024)
def _rules_text(rules: MapRules) -> bytes:
    """Encode how a map is kept, as its record has it; there is one per namespace."""
    return b"%d:%d:%d" % (rules.stream_size, ms(rules.stream_ttl), ms(rules.meta_ttl))


def _expected(change: MapChange) -> tuple[str, str]:
    position = change.expected
    return ("", "") if position is None else (str(position.offset), position.epoch)


def _position(offset: int, epoch: bytes) -> StreamPosition:
    return StreamPosition(offset, epoch.decode()) if epoch else NO_POSITION


def _outcome(key: str, reply: Sequence[Any]) -> MapOutcome:
    offset, epoch, reason, *current = reply
    top = _position(offset, epoch)
    if current and current[0]:
        return MapOutcome(top, _REASONS[reason], read_value(key, current[0], top.epoch))
    return MapOutcome(top, _REASONS[reason])


def _key_of(entry: MapEntry) -> str:
    return entry.publication.key


def _read_change(entry: Sequence[Any], epoch: str) -> MapEntry:
    """Read a stream's entry; its fields are ``k``, the key, and ``d``, what was written, or ``r``, that it was removed."""
    entry_id, (_, key, kind, body) = entry
    offset = int(entry_id.partition(b"-")[0])
    read = read_removed if kind == b"r" else read_written
    return read(key.decode(), body, offset, epoch)
