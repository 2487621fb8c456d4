"""
What the suite needs of an engine, and the engines it runs on.

To add one: an async context manager that yields an ``EngineUnderTest``, and a ``pytest.param`` in ``ENGINES`` (with
the marker of its service). Where engines may differ the suite asks a field below and never the engine's name.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from realtime.conf.durations import parse_duration
from realtime.conf.options import RedisEngineOptions
from realtime.engines.base import Broker, ControlBus, PresenceManager
from realtime.engines.memory import EPOCH_LENGTH, MemoryEngine
from realtime.engines.redis.addresses import deployments
from realtime.engines.redis.detection import settled
from realtime.engines.redis.engine import RedisEngine, make_layer
from realtime.engines.redis.presence import RedisPresence
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition
from tests import redis_servers
from tests.redis_servers import ClusterServers, RedisServer


ARRIVAL_TIMEOUT = 5.0


@dataclass(frozen=True)
class Delivery:
    """One call of ``on_publication``."""

    channel: str
    publication: Publication
    position: StreamPosition
    delta: bool
    previous: Publication | None
    published_at: float


@dataclass
class RecordingNode:
    """The node's side of an engine: keeps what it is told, in order, and lets a test wait for it."""

    deliveries: list[Delivery] = field(default_factory=list)
    joins: list[tuple[str, ClientInfo]] = field(default_factory=list)
    leaves: list[tuple[str, ClientInfo]] = field(default_factory=list)
    controls: list[bytes] = field(default_factory=list)
    lost: list[Sequence[str] | None] = field(default_factory=list)
    _arrival: asyncio.Event = field(default_factory=asyncio.Event)

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        position: StreamPosition,
        *,
        delta: bool = False,
        previous: Publication | None = None,
        published_at: float = 0,
    ) -> None:
        self.deliveries.append(
            Delivery(channel, publication, position, delta, previous, published_at)
        )
        self._arrival.set()

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.joins.append((channel, info))
        self._arrival.set()

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.leaves.append((channel, info))
        self._arrival.set()

    def on_control(self, data: bytes) -> None:
        self.controls.append(data)
        self._arrival.set()

    def on_lost(self, channels: Sequence[str] | None) -> None:
        self.lost.append(channels)
        self._arrival.set()

    async def until(self, arrived: Callable[[], bool]) -> None:
        """Return once ``arrived()`` holds; fail when it doesn't in time."""
        async with asyncio.timeout(ARRIVAL_TIMEOUT):
            while not arrived():
                self._arrival.clear()
                await self._arrival.wait()

    async def payloads(self, count: int) -> list[bytes]:
        """Wait for ``count`` publications, and return the payloads of all there are by then."""
        await self.until(lambda: len(self.deliveries) >= count)
        return [bytes(delivery.publication.data) for delivery in self.deliveries]


class FakeClock:
    """Unix time that moves only when told; begins now, so that a service's own clock agrees with it."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class EngineUnderTest:
    """
    An engine, started, with the node it tells.

    Attributes:
        pass_time: Lets this many seconds pass for every clock of the engine.
        lose_streams: Takes all streams away as a restart or an eviction would.
        expects_epoch: Whether an epoch looks as the engine's own look.
        reads_down_from_above: Whether a reverse read from above the top begins at the newest; else it is empty.
        presence_ttl: After which an entry that isn't refreshed is gone; 0 where entries stay.

    """

    broker: Broker
    presence: PresenceManager
    control: ControlBus
    node: RecordingNode
    node_id: str
    pass_time: Callable[[float], Awaitable[None]]
    lose_streams: Callable[[], Awaitable[None]]
    expects_epoch: Callable[[str], bool]
    reads_down_from_above: bool = False
    presence_ttl: float = 0


@asynccontextmanager
async def memory_engine() -> AsyncIterator[EngineUnderTest]:
    """Yield the memory engine on a fake clock."""
    clock, node = FakeClock(), RecordingNode()
    numbers = itertools.count(1)
    engine = MemoryEngine(clock, lambda: f"epoch{next(numbers):03}", node_id="node-1")

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)
        engine.sweep(clock.now)

    async def lose_streams() -> None:
        await engine.close()
        await engine.start(node)

    await engine.start(node)
    yield EngineUnderTest(
        broker=engine,
        presence=engine,
        control=engine,
        node=node,
        node_id="node-1",
        pass_time=pass_time,
        lose_streams=lose_streams,
        expects_epoch=lambda epoch: len(epoch) == EPOCH_LENGTH,
    )
    await engine.close()


# Lets time pass for every key of a prefix: what would have ended by then ends.
_PASS_TIME = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    redis.call('PEXPIRE', key, left - ARGV[2])
  end
end
"""
_prefixes = itertools.count(1)


StartedT = TypeVar("StartedT")


def _start_until_exit(context: AbstractContextManager[StartedT]) -> StartedT:
    atexit.register(context.__exit__, None, None, None)
    return context.__enter__()


@functools.cache
def shared_redis() -> RedisServer:
    """Start a Redis for this test process; tests on it have a prefix of their own each."""
    return _start_until_exit(redis_servers.single())


@functools.cache
def shared_shards() -> list[RedisServer]:
    """Start three of them."""
    return _start_until_exit(redis_servers.several(3))


@functools.cache
def shared_cluster() -> ClusterServers:
    """Start a cluster of three masters."""
    return _start_until_exit(redis_servers.cluster())


@dataclass
class RedisUnderTest:
    """An engine on a Redis, and what a test may want to turn."""

    servers: Sequence[RedisServer]
    options: RedisEngineOptions
    clock: FakeClock
    node: RecordingNode
    engine: RedisEngine
    presence: RedisPresence

    @property
    def server(self) -> RedisServer:
        """The one there is."""
        (server,) = self.servers
        return server

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for server in self.servers:
            server.call("EVAL", _PASS_TIME, 0, f"{self.options.prefix}.*", int(seconds * 1000))

    async def lose_streams(self) -> None:
        for server in self.servers:
            for key in server.call("KEYS", f"{self.options.prefix}.*"):
                server.call("DEL", key)


@asynccontextmanager
async def redis_under_test(
    *servers: RedisServer, node_id: str = "node-1", **options: Any
) -> AsyncIterator[RedisUnderTest]:
    """Start an engine on some Redis; several are shards, unless ``options`` name the addresses."""
    servers = servers or (shared_redis(),)
    addresses = tuple(server.address for server in servers)
    values = {"address": addresses, "prefix": f"test{next(_prefixes)}"} | options
    redis_options = RedisEngineOptions(**values)
    clock, node = FakeClock(), RecordingNode()
    places = await settled(deployments(redis_options, parse_duration=parse_duration))
    engine = RedisEngine(
        make_layer(places, prefix=redis_options.prefix),
        prefix=redis_options.prefix,
        node_id=node_id,
        use_lists=redis_options.history_use_lists,
        clock=clock,
    )
    presence = engine.presence(redis_options)
    await engine.broker.start(node)
    try:
        yield RedisUnderTest(servers, redis_options, clock, node, engine, presence)
    finally:
        await engine.broker.close()


@asynccontextmanager
async def redis_engine(*servers: RedisServer, **options: Any) -> AsyncIterator[EngineUnderTest]:
    """Yield the Redis engine on real servers; its clock is moved by moving the ends of keys."""
    async with redis_under_test(*servers, **options) as under_test:
        yield EngineUnderTest(
            broker=under_test.engine.broker,
            presence=under_test.presence,
            control=under_test.engine.control_bus,
            node=under_test.node,
            node_id="node-1",
            pass_time=under_test.pass_time,
            lose_streams=under_test.lose_streams,
            expects_epoch=lambda epoch: len(epoch) == EPOCH_LENGTH and epoch.isalpha(),
            reads_down_from_above=True,
            presence_ttl=under_test.options.presence_ttl,
        )


def sharded_engine() -> AbstractAsyncContextManager[EngineUnderTest]:
    """Open the Redis engine on three servers that know nothing of each other."""
    return redis_engine(*shared_shards())


def cluster_engine() -> AbstractAsyncContextManager[EngineUnderTest]:
    """Open the Redis engine on a cluster."""
    cluster = shared_cluster()
    return redis_engine(*cluster.masters, cluster_address=(",".join(cluster.addresses),))


EngineFactory = Callable[[], AbstractAsyncContextManager[EngineUnderTest]]
ENGINES: list[Any] = [
    pytest.param(memory_engine, id="memory"),
    pytest.param(redis_engine, id="redis", marks=pytest.mark.redis),
    pytest.param(sharded_engine, id="redis-shards", marks=pytest.mark.redis),
    pytest.param(cluster_engine, id="redis-cluster", marks=pytest.mark.redis),
]
