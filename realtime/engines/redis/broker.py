"""
Streams in Redis, delivery over the groups of channels.

A publish is one script: what gets an offset is stored and published, or neither. Without history it is one PUBLISH.
What a channel needs of names and encoded parts is made once and kept, for as many channels as are in use.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from realtime.engines.base import (
    NO_POSITION,
    Answer,
    BrokerEvents,
    History,
    HistoryFilter,
    PublishOptions,
    PublishOutcome,
)
from realtime.engines.redis import scripts
from realtime.engines.redis.channel_layer import NodeEars, RealtimeLoopLayer
from realtime.engines.redis.ears import BrokerEars
from realtime.engines.redis.encoding import (
    DELTA_FIELD,
    Epochs,
    JoinMessage,
    LeaveMessage,
    channel_field,
    encode_membership,
    info_fields,
    publication_head,
    read_stored,
    stored_parts,
)
from realtime.engines.redis.keys import ChannelKeys, Naming, shard_of
from realtime.engines.redis.shard import Shard
from realtime.engines.redis.streams import first_offset, ms, read_ends
from realtime.protocol.errors import EngineError
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition


KNOWN_CHANNELS = 1 << 14  # some 1.5 KB each; a channel that is forgotten costs 10 µs to know again
_NOT_STORED = PublishOutcome()
_SUPPRESSED = ("", "idempotency", "version")
_OFFSET_FIELDS = 2  # offset, epoch
_DELTA_FIELDS = 2  # delta, previous


class _Route(msgspec.Struct, frozen=True, gc=False):
    """What is known of a channel; ``field`` is the part of its messages that never changes."""

    keys: ChannelKeys
    shard: Shard
    field: bytes


class RedisBroker:
    """
    Broker over Redis.

    Args:
        layer: Of this loop; brings the shards.
        naming: Of keys.
        control: Names that control messages come by.
        use_lists: Keep history in lists (no reverse reads, no versions).
        clock: Unix time in seconds.

    """

    is_reliable = False
    is_remote = True

    def __init__(
        self,
        layer: RealtimeLoopLayer,
        naming: Naming,
        *,
        control: Sequence[bytes] = (),
        use_lists: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layer = layer
        self._naming = naming
        self._control = control
        self._use_lists = use_lists
        self._clock = clock
        self._epochs = Epochs()
        self._route = functools.lru_cache(KNOWN_CHANNELS)(self._make_route)

    def _make_route(self, channel: str) -> _Route:
        shards = self._layer.shards
        shard = shards[shard_of(channel, len(shards))]
        return _Route(self._naming.channel(channel), shard, channel_field(channel))

    # --- life -----------------------------------------------------------------------------------------

    async def start(self, events: BrokerEvents) -> None:
        """Connect; an outage at this time is logged and the node starts."""
        self._layer.ears = BrokerEars(events)
        await self._layer.start(self._control)

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        self._layer.ears = NodeEars()
        await self._layer.close()

    def sweep(self, now: float) -> None:
        """Nothing: Redis forgets by itself."""

    async def check(self) -> None:
        """Raise ``EngineError`` unless every shard answers and all subscriptions are in force."""
        for shard in self._layer.shards:
            await shard.check()

    # --- groups ---------------------------------------------------------------------------------------

    async def subscribe(self, channel: str) -> None:
        """Join the channel's group; returns when Redis has confirmed."""
        await self._layer.join(channel, self._route(channel).keys)

    async def unsubscribe(self, channel: str) -> None:
        """Leave the channel's group."""
        await self._layer.leave(self._route(channel).keys)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Fan out a join."""
        await self._say(channel, JoinMessage(channel, info_fields(info)))

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Fan out a leave."""
        await self._say(channel, LeaveMessage(channel, info_fields(info)))

    async def _say(self, channel: str, message: JoinMessage | LeaveMessage) -> None:
        route = self._route(channel)
        await route.shard.publish(route.keys.group_channel, encode_membership(message))

    # --- streams --------------------------------------------------------------------------------------

    async def publish(
        self, channel: str, publication: Publication, options: PublishOptions
    ) -> PublishOutcome:
        """Append (where the options keep history) and fan out, in one step."""
        route = self._route(channel)
        key = options.idempotency_key
        if options.history_size > 0 and options.history_ttl > 0:
            return await self._append(route, publication, options)
        message = self._message(route, publication, options)
        group_channel = route.keys.group_channel
        if not key:
            await route.shard.publish(group_channel, message)
            return _NOT_STORED
        reply = await route.shard.run(
            scripts.PUBLISH_ONCE,
            (route.keys.result_of(key),),
            (message, route.shard.publish_command, group_channel, ms(options.idempotency_ttl)),
        )
        return _outcome(reply)

    def publish_ahead(
        self, channel: str, publication: Publication, options: PublishOptions, answer: Answer
    ) -> bool:
        """
        Begin a publish outside of streams.

        Scripts are none of it: one that Redis has forgotten is sent again, behind what was sent meanwhile.
        """
        route = self._route(channel)
        lane = route.shard.lane
        if lane is None or options.has_history or options.idempotency_key:
            return False
        message = self._message(route, publication, options)
        lane.send(answer, b"PUBLISH", route.keys.group_channel, message)
        return True

    def _message(self, route: _Route, publication: Publication, options: PublishOptions) -> bytes:
        """Encode what is said of a publication that enters no stream."""
        data = bytes(publication.data)
        now = self._clock()
        if options.delta:
            head = publication_head(route.field, publication, len(data), now, 1)
            return b"%b%b%b" % (head, data, DELTA_FIELD)
        return publication_head(route.field, publication, len(data), now, 0) + data

    async def _append(
        self,
        route: _Route,
        publication: Publication,
        options: PublishOptions,
    ) -> PublishOutcome:
        keys, shard = route.keys, route.shard
        data = bytes(publication.data)
        size = len(data)
        fields = _OFFSET_FIELDS + _DELTA_FIELDS if options.delta else _OFFSET_FIELDS
        stored_head, stored_rest = stored_parts(publication, size)
        arguments = (
            data,
            stored_head,
            stored_rest,
            publication_head(route.field, publication, size, self._clock(), fields),
            b"1" if options.delta else b"0",
            options.history_size,
            ms(options.history_ttl),
            ms(options.history_meta_ttl),
            self._epochs(),
            shard.publish_command,
            keys.group_channel,
        )
        key = options.idempotency_key
        names: tuple[bytes, ...] = (keys.result_of(key),) if key else ()
        result_ttl = ms(options.idempotency_ttl)
        if self._use_lists:
            names = (keys.list, keys.list_meta, *names)
            reply = await shard.run(scripts.PUBLISH_LIST, names, (*arguments, result_ttl))
        else:
            names = (keys.stream, keys.stream_meta, *names)
            version = (options.version, options.version_epoch, result_ttl)
            reply = await shard.run(scripts.PUBLISH_STREAM, names, (*arguments, *version))
        return _outcome(reply)

    async def history(self, channel: str, what: HistoryFilter, meta_ttl: float) -> History:
        """
        Read; the first touch gives the channel its epoch.

        Downwards from a position above the top a stream begins at the newest.
        """
        route = self._route(channel)
        if self._use_lists:
            return await self._list_history(route, what, meta_ttl)
        first = first_offset(what)
        reply = await route.shard.run(
            scripts.HISTORY_STREAM,
            (route.keys.stream, route.keys.stream_meta),
            (
                b"0" if first is None else b"1",
                first or "-",
                max(what.limit, 0),
                b"1" if what.reverse else b"0",
                ms(meta_ttl),
                self._epochs(),
            ),
        )
        publications = [
            read_stored(fields[1], int(entry_id.partition(b"-")[0]))
            for entry_id, fields in reply[2]
        ]
        return _history(publications, reply)

    async def _list_history(self, route: _Route, what: HistoryFilter, meta_ttl: float) -> History:
        """Read the whole list and choose here; lists can't be read downwards."""
        reply = await route.shard.run(
            scripts.HISTORY_LIST,
            (route.keys.list, route.keys.list_meta),
            (b"1" if what.limit else b"0", ms(meta_ttl), self._epochs()),
        )
        since = -1 if what.since is None else what.since.offset
        publications = [_read_entry(entry) for entry in reversed(reply[2])]
        wanted = [publication for publication in publications if publication.offset > since]
        if what.limit >= 0:
            wanted = wanted[: what.limit]
        return _history(wanted, reply)

    async def remove_history(self, channel: str) -> None:
        """Drop the publications; top and epoch stay."""
        route = self._route(channel)
        key = route.keys.list if self._use_lists else route.keys.stream
        await route.shard.call(key, b"DEL", key)

    async def renew(self, channel: str, epoch: str) -> None:
        """End a stream of this epoch; the next touch makes a new one."""
        route = self._route(channel)
        keys = route.keys
        names = (keys.list, keys.list_meta) if self._use_lists else (keys.stream, keys.stream_meta)
        await route.shard.run(scripts.RENEW, names, (epoch,))


def _outcome(reply: list[Any]) -> PublishOutcome:
    offset, epoch, suppressed = reply
    position = StreamPosition(offset, epoch.decode()) if epoch else NO_POSITION
    return PublishOutcome(position, _SUPPRESSED[suppressed])


def _history(publications: Sequence[Publication], reply: list[Any]) -> History:
    top, epoch, _, before = reply
    return History(publications, StreamPosition(top, epoch.decode()), read_ends(before))


def _read_entry(entry: bytes) -> Publication:
    """Read a list's entry: ``__p1:<offset>:<epoch>__`` and the stored publication."""
    head, separator, stored = entry[2:].partition(b"__")
    parts = head.split(b":")
    if not separator or len(parts) != 3 or not parts[1].isdigit():
        message = "a stored publication has no position"
        raise EngineError(message)
    return read_stored(stored, int(parts[1]))
