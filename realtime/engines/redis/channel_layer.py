"""
The channel layer ``CHANNEL_LAYERS["realtime"]``: channels-redis' PUB/SUB layer on the engine's own connections.

Groups, names and message format are those of channels-redis, so an unmodified layer with the same prefix hears what
is said in a group. What differs is how it gets there. A group is joined when Redis has confirmed, or not at all; joined
groups are joined again after an outage; the node's own channel has a callback in place of a queue, and queues of other
channels have a bound. The node is told of every loss.

What this relies on in channels-redis 4.3, none of it documented: ``_get_layer`` makes the layer of a loop, which keeps
``channels`` and ``groups`` and reaches Redis only through the objects of ``_get_shard``.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any

from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer
from channels_redis.utils import _wrap_close

from realtime.engines.redis.keys import GroupNames, shard_of
from realtime.engines.redis.shard import Shard, ShardListener


logger = logging.getLogger(__name__)

CAPACITY = 100  # messages of one channel that nobody has received yet, the default of Channels
MakeShards = Callable[[ShardListener], Sequence[Shard]]


class NodeEars:
    """What the node wants to hear; this is one who wants to hear nothing."""

    def on_group_message(self, channel: str, data: bytes) -> None:
        """Take what was said in the group of ``channel``."""

    def on_control(self, data: bytes) -> None:
        """Take what a node said to all, or to this one."""

    def on_restored(self, channels: Sequence[str] | None) -> None:
        """Check what was missed of ``channels`` (``None``: of all)."""


class _ShardConnection:
    """What channels-redis asks of a connection, over a shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    async def publish(self, name: str, message: bytes) -> None:
        await self._shard.publish(name.encode(), message)

    async def subscribe(self, name: str) -> None:
        await self._shard.subscribe(name.encode())

    async def unsubscribe(self, name: str) -> None:
        await self._shard.unsubscribe(name.encode())

    async def flush(self) -> None:
        await self._shard.close()


class RealtimeLoopLayer(RedisPubSubLoopLayer):
    """
    The layer of one loop.

    Attributes:
        shards: The engine's, which scripts run on, too.
        ears: Who is told; nobody at first.

    """

    def __init__(
        self,
        make_shards: MakeShards,
        *,
        prefix: str,
        capacity: int,
        channel_layer: RealtimeChannelLayer,
    ) -> None:
        super().__init__(prefix=prefix, channel_layer=channel_layer)
        self.shards = make_shards(self)
        self.ears = NodeEars()
        self.node_channel = f"{prefix}.node.{uuid.uuid4().hex}"
        self._shards: list[Any] = [_ShardConnection(shard) for shard in self.shards]
        self._capacity = capacity
        # Redis channel of a group -> channel, of the groups that the node is in.
        self._joined: dict[bytes, str] = {}
        # Of those, the ones that somebody else of this process is in, too.
        self._shared: set[bytes] = set()
        self._control: frozenset[bytes] = frozenset()
        self._places: dict[str, int] = {}
        self.channels[self.node_channel] = asyncio.Queue(1)

    async def start(self, control: Sequence[bytes] = ()) -> None:
        """Connect; ``control`` are the names that ``ears.on_control`` hears, kept subscribed on every shard."""
        self._control = frozenset(control)
        for shard in self.shards:
            await shard.start(control)

    # --- the node's own groups ------------------------------------------------------------------------

    async def join(self, channel: str, keys: GroupNames) -> None:
        """Join the group of a channel with the node's layer channel; raises ``EngineError``."""
        name = keys.group_channel
        group, place = name.decode(), shard_of(channel, len(self.shards))
        self._joined[name] = channel
        self._places[group] = place
        # What ``group_add`` does, without its search for the shard: 5 of the 20 µs that a join takes.
        self.groups.setdefault(group, set()).add(self.node_channel)
        try:
            await self.shards[place].subscribe(name)
        except BaseException:
            self._drop_member(group, self.node_channel)
            self._forget(keys)
            raise

    async def leave(self, keys: GroupNames) -> None:
        """Leave the group of a channel; raises ``EngineError``."""
        if keys.group_channel in self._joined:
            await self.group_discard(keys.group, self.node_channel)
            self._forget(keys)

    def _forget(self, keys: GroupNames) -> None:
        self._joined.pop(keys.group_channel, None)
        self._places.pop(keys.group_channel.decode(), None)

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        for shard in self.shards:
            await shard.close()

    # --- what channels-redis does otherwise -----------------------------------------------------------

    def _get_shard(self, name: str) -> Any:
        count = len(self._shards)
        if count == 1:
            return self._shards[0]
        place = self._places.get(name)
        return self._shards[shard_of(name, count) if place is None else place]

    def _get_group_channel_name(self, group: str) -> str:
        # A map's group brings its tag; names of other groups have no braces.
        if self.shards[0].is_cluster and not group.startswith("{"):
            return f"{self.prefix}__group__{{{group}}}"
        return f"{self.prefix}__group__{group}"

    async def _subscribe_to_channel(self, channel: str) -> None:
        self.channels[channel] = asyncio.Queue(self._capacity)
        try:
            await self._get_shard(channel).subscribe(channel)
        except BaseException:
            del self.channels[channel]
            raise

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel of this process to a group; raises ``EngineError``, and then it is not in it."""
        name = self._get_group_channel_name(group)
        was_member = channel in self.groups.get(name, ())
        try:
            await super().group_add(group, channel)
        except BaseException:
            if not was_member:
                self._drop_member(name, channel)
            raise
        self._note_shared(name)

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group."""
        name = self._get_group_channel_name(group)
        try:
            await super().group_discard(group, channel)
        finally:
            self._note_shared(name)

    def _drop_member(self, name: str, channel: str) -> None:
        members = self.groups.get(name, set())
        members.discard(channel)
        if not members:
            self.groups.pop(name, None)

    def _note_shared(self, name: str) -> None:
        if self.groups.get(name, set()) - {self.node_channel}:
            self._shared.add(name.encode())
        else:
            self._shared.discard(name.encode())

    # --- what shards tell -----------------------------------------------------------------------------

    def on_message(self, name: bytes, payload: bytes) -> None:
        """Hand a message to the node, or put it where its receivers look."""
        channel = self._joined.get(name)
        if channel is not None:
            self.ears.on_group_message(channel, payload)
            if name not in self._shared:
                return
        elif name in self._control:
            self.ears.on_control(payload)
            return
        text = name.decode()
        self._put(text, payload)
        for member in self.groups.get(text, ()):
            if member != self.node_channel:
                self._put(member, payload)

    def _put(self, channel: str, payload: bytes) -> None:
        queue = self.channels.get(channel)
        if queue is None:
            return
        try:
            queue.put_nowait(payload)
        except asyncio.QueueFull:
            logger.warning(
                "a channel's receiver is too slow, a message is dropped",
                extra={"layer_channel": channel},
            )

    def on_lost(self, shard: Shard) -> None:
        """Nothing can be checked yet."""
        logger.warning("subscriptions in Redis are lost", extra={"channels": len(self._joined)})

    def on_restored(self, shard: Shard, names: Collection[bytes] | None = None) -> None:
        """Have the node check what it may have missed."""
        channels: list[str] | None = None
        if names is not None:
            channels = [self._joined[name] for name in names if name in self._joined]
        elif len(self.shards) > 1:
            place = list(self.shards).index(shard)
            channels = [
                channel
                for name, channel in self._joined.items()
                if self._places[name.decode()] == place
            ]
        self.ears.on_restored(channels)


class RealtimeChannelLayer(RedisPubSubChannelLayer):
    """
    The layer, for any number of loops.

    Args:
        make_shards: Makes the shards of one loop.
        prefix: Of the engine's names.
        capacity: Messages of one channel that nobody has received yet; more are dropped with a warning.

    """

    def __init__(self, make_shards: MakeShards, *, prefix: str, capacity: int = CAPACITY) -> None:
        super().__init__()
        self._make_shards = make_shards
        self._prefix = prefix
        self._capacity = capacity

    def of_loop(self) -> RealtimeLoopLayer:
        """Return the layer of the running loop."""
        layer: RealtimeLoopLayer = self._get_layer()
        return layer

    def _get_layer(self) -> Any:
        loop = asyncio.get_running_loop()
        layer = self._layers.get(loop)
        if layer is None:
            layer = self._layers[loop] = RealtimeLoopLayer(
                self._make_shards,
                prefix=self._prefix,
                capacity=self._capacity,
                channel_layer=self,
            )
            _wrap_close(self, loop)
        return layer
