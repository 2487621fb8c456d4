"""What the suite of maps needs of a store, and the stores it runs on; see ``backends`` for how to add one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from realtime.conf.durations import parse_duration
from realtime.conf.options import RedisMapBrokerOptions
from realtime.engines.maps import MapBroker
from realtime.engines.memory_maps import MemoryMaps
from realtime.engines.redis.addresses import deployments
from realtime.engines.redis.detection import settled
from realtime.engines.redis.engine import make_layer, make_maps
from realtime.engines.redis.maps import RedisMaps
from tests.engines.backends import (
    FakeClock,
    RecordingNode,
    shared_cluster,
    shared_redis,
    shared_shards,
)
from tests.redis_servers import RedisServer


# Lets time pass for every key of a prefix, and for the deadlines of maps.
_PASS_TIME = """
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '[.:]*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    redis.call('PEXPIRE', key, left - ARGV[2])
  end
  if string.find(key, ':state:expire:', 1, true) or string.find(key, ':cleanup:channels', 1, true) then
    local pairs = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for place = 1, #pairs, 2 do
      redis.call('ZADD', key, pairs[place + 1] - ARGV[2], pairs[place])
    end
  end
end
"""
_prefixes = itertools.count(1)


@dataclass
class MapsUnderTest:
    """
    A store, started, with the node it tells.

    Attributes:
        pass_time: Lets this many seconds pass for every clock of the store, and nothing more.
        sweep: Has the store remove what is due, and returns when it has.

    """

    maps: MapBroker
    node: RecordingNode
    clock: FakeClock
    pass_time: Callable[[float], Awaitable[None]]
    sweep: Callable[[], Awaitable[None]]


@asynccontextmanager
async def memory_maps() -> AsyncIterator[MapsUnderTest]:
    """Yield the store in this process, on a fake clock."""
    clock, node = FakeClock(), RecordingNode()
    maps = MemoryMaps(clock)

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    async def sweep() -> None:
        maps.sweep(clock.now)

    await maps.start(node)
    yield MapsUnderTest(maps, node, clock, pass_time, sweep)
    await maps.close()


@dataclass
class RedisMapsUnderTest:
    """Maps on a Redis, and what a test may want to turn."""

    servers: tuple[RedisServer, ...]
    options: RedisMapBrokerOptions
    clock: FakeClock
    node: RecordingNode
    maps: RedisMaps

    @property
    def prefix(self) -> str:
        """Of all names."""
        return self.options.prefix

    @property
    def server(self) -> RedisServer:
        """The one there is."""
        (server,) = self.servers
        return server

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for server in self.servers:
            with contextlib.suppress(redis.ReadOnlyError):  # a replica hears of it from its master
                server.call("EVAL", _PASS_TIME, 0, self.prefix, int(seconds * 1000))

    def names(self) -> list[str]:
        """List the keys that are stored, on all servers."""
        found = [key for server in self.servers for key in self._names_on(server)]
        return sorted(found)

    def _names_on(self, server: RedisServer) -> list[str]:
        found: list[str] = server.call("KEYS", f"{self.prefix}[.:]*")
        return found

    def indexed(self) -> dict[str, float]:
        """Return the maps that are in an index of deadlines, each by the time that is to be looked at it in ms."""
        return {
            member: float(server.call("ZSCORE", name, member))
            for server in self.servers
            for name in self._names_on(server)
            if ":cleanup:channels" in name
            for member in server.call("ZRANGE", name, 0, -1)
        }


@asynccontextmanager
async def redis_maps_under_test(
    *servers: RedisServer, **options: Any
) -> AsyncIterator[RedisMapsUnderTest]:
    """Start maps on some Redis; several are shards, unless ``options`` name the addresses."""
    servers = servers or (shared_redis(),)
    values = {
        "address": tuple(server.address for server in servers),
        "prefix": f"maps{next(_prefixes)}",
    } | options
    map_options = RedisMapBrokerOptions(**values)
    clock, node = FakeClock(), RecordingNode()
    places = await settled(deployments(map_options, parse_duration=parse_duration))
    maps = make_maps(make_layer(places, prefix=map_options.prefix), map_options, clock=clock)
    await maps.start(node)
    try:
        yield RedisMapsUnderTest(servers, map_options, clock, node, maps)
    finally:
        await maps.close()


@asynccontextmanager
async def redis_maps(*servers: RedisServer, **options: Any) -> AsyncIterator[MapsUnderTest]:
    """Yield maps on real servers; their clocks are moved by moving deadlines and the ends of keys."""
    async with redis_maps_under_test(*servers, **options) as opened:
        yield MapsUnderTest(
            opened.maps, opened.node, opened.clock, opened.pass_time, opened.maps.sweep_once
        )


def sharded_maps() -> AbstractAsyncContextManager[MapsUnderTest]:
    """Open maps on three servers that know nothing of each other."""
    return redis_maps(*shared_shards())


def cluster_maps() -> AbstractAsyncContextManager[MapsUnderTest]:
    """Open maps on a cluster."""
    cluster = shared_cluster()
    return redis_maps(*cluster.masters, cluster_address=(",".join(cluster.addresses),))


MapsFactory = Callable[[], AbstractAsyncContextManager[MapsUnderTest]]
MAP_STORES: list[Any] = [
    pytest.param(memory_maps, id="memory"),
    pytest.param(redis_maps, id="redis", marks=pytest.mark.redis),
    pytest.param(sharded_maps, id="redis-shards", marks=pytest.mark.redis),
    pytest.param(cluster_maps, id="redis-cluster", marks=pytest.mark.redis),
]
