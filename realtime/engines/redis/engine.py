"""The engine's parts, put together from the options."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from realtime.engines.redis.addresses import Deployment
from realtime.engines.redis.broker import RedisBroker
from realtime.engines.redis.channel_layer import CAPACITY, RealtimeChannelLayer
from realtime.engines.redis.cluster import ClusterShard
from realtime.engines.redis.connection import FixedResolver
from realtime.engines.redis.control import RedisControlBus
from realtime.engines.redis.keys import Naming
from realtime.engines.redis.map_keys import MapNaming
from realtime.engines.redis.maps import RedisMaps
from realtime.engines.redis.presence import RedisPresence
from realtime.engines.redis.sentinel import SentinelShard
from realtime.engines.redis.shard import Shard, ShardListener, SingleShard


if TYPE_CHECKING:
    from realtime.conf.options import (
        RedisEngineOptions,
        RedisMapBrokerOptions,
        RedisPresenceOptions,
    )


def make_shards(places: Sequence[Deployment], listener: ShardListener) -> tuple[Shard, ...]:
    """Make the shards of one loop, not connected yet."""
    return tuple(_make_shard(place, listener) for place in places)


def _make_shard(place: Deployment, listener: ShardListener) -> Shard:
    if place.kind == "cluster":
        return ClusterShard(place, listener)
    if place.kind == "sentinel":
        return SentinelShard(place, listener)
    return SingleShard(
        FixedResolver(place.data),
        listener,
        connect_timeout=place.connect_timeout,
        io_timeout=place.io_timeout,
        force_resp2=place.force_resp2,
    )


def make_layer(
    places: Sequence[Deployment], *, prefix: str, capacity: int = CAPACITY
) -> RealtimeChannelLayer:
    """
    Make the channel layer of some deployments, which are its shards.

    Args:
        places: In the order that decides which channels live where.
        prefix: Of all names.
        capacity: Messages of one layer channel that nobody has received yet.

    """
    return RealtimeChannelLayer(
        lambda listener: make_shards(places, listener), prefix=prefix, capacity=capacity
    )


def make_maps(
    layer: RealtimeChannelLayer,
    options: RedisMapBrokerOptions,
    *,
    clock: Callable[[], float] = time.time,
) -> RedisMaps:
    """Make the map broker, on the running loop; the layer is its own."""
    of_loop = layer.of_loop()
    return RedisMaps(
        of_loop,
        MapNaming(options.prefix, is_cluster=of_loop.shards[0].is_cluster),
        clock=clock,
        sweep_interval=options.cleanup_interval,
        batch_size=options.cleanup_batch_size,
        result_ttl=options.idempotent_result_ttl,
        has_delivery=not options.skip_pub_sub,
    )


class RedisEngine:
    """
    Broker and control bus over one deployment, on the running loop; presence can be on another.

    Args:
        layer: The deployment's channel layer.
        prefix: Of all names.
        node_id: Of the node that this serves; empty in a process that has none and hears no control messages.
        use_lists: Keep history in lists.
        clock: Unix time in seconds.

    """

    def __init__(
        self,
        layer: RealtimeChannelLayer,
        *,
        prefix: str,
        node_id: str,
        use_lists: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.channel_layer = layer
        self.layer = layer.of_loop()
        self._clock = clock
        self._node_id = node_id
        self._naming = Naming(prefix, is_cluster=self.layer.shards[0].is_cluster)
        self.control_bus = RedisControlBus(self.layer.shards, self._naming)
        self.broker = RedisBroker(
            self.layer,
            self._naming,
            control=(self._naming.control, self._naming.node(node_id)) if node_id else (),
            use_lists=use_lists,
            clock=clock,
        )

    def presence(self, options: RedisPresenceOptions | RedisEngineOptions) -> RedisPresence:
        """Make the presence manager."""
        return RedisPresence(
            self.layer.shards,
            self._naming,
            node_id=self._node_id,
            ttl=options.presence_ttl,
            use_field_ttl=options.presence_hash_field_ttl,
            has_user_mapping=options.presence_user_mapping,
            clock=self._clock,
        )
