"""
A server that goes on with less than the one before it had delivered: after a crash, or after a failover to a replica that was behind.

It is brought about by a copy on disk: what is published behind it is gone with the process. Offsets that were delivered
are then given away again, so whoever has them must learn that its position is worth nothing, and whoever is not beyond the
copy must not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from realtime.auth.tokens import TokenVerifier
from realtime.conf.options import ProcessOptions
from realtime.conf.snapshot import Configuration
from realtime.engines.base import HistoryFilter
from realtime.engines.maps import PLAIN_CHANGE, MapBroker, MapChange, StateFilter
from realtime.engines.memory_maps import MemoryMaps
from realtime.namespaces.table import NamespaceTable
from realtime.node.node import Node
from realtime.protocol.messages import Publication, StreamPosition
from tests import redis_servers
from tests.engines.backends import RedisUnderTest, redis_under_test
from tests.engines.map_backends import RedisMapsUnderTest, redis_maps_under_test
from tests.engines.test_maps import RECOVERABLE
from tests.engines.test_publish import EVERYTHING, HISTORY, META_TTL, publication
from tests.engines.test_redis_maps import put, value
from tests.engines.test_redis_topologies import eventually
from tests.redis_servers import RedisServer
from tests.unit.client.conftest import NAMESPACES, Connection


pytestmark = pytest.mark.redis

CHANNEL = "hist:a"
MAP = "things:a"
PREFIX = "tide"
INSUFFICIENT_STATE = 2500


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of this test's own, which it may end."""
    with redis_servers.single() as started:
        yield started


def fall_back(server: RedisServer) -> None:
    """Crash it and have it go on with its copy; blocks the loop, so that no node is connected again before others."""
    server.kill()
    server.restart()


async def publish(redis: RedisUnderTest, *numbers: int) -> list[StreamPosition]:
    broker = redis.engine.broker
    outcomes = [await broker.publish(CHANNEL, publication(one), HISTORY) for one in numbers]
    return [outcome.position for outcome in outcomes]


# --- the stream ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_lists", [False, True], ids=["streams", "lists"])
@pytest.mark.parametrize("is_read_first", [False, True], ids=["published", "read"])
async def test_a_stream_that_fell_back_goes_on_in_another_epoch(
    server: RedisServer, *, use_lists: bool, is_read_first: bool
) -> None:
    """Its old positions are good up to the copy, and no further, whatever was published since."""
    options: dict[str, Any] = {"prefix": PREFIX, "history_use_lists": use_lists}
    async with redis_under_test(server, **options) as redis:
        first = await publish(redis, 1, 2, 3)
        server.call("SAVE")
        lost = await publish(redis, 4, 5)

    fall_back(server)

    async with redis_under_test(server, **options) as redis:
        broker = redis.engine.broker
        if is_read_first:
            top = (await broker.history(CHANNEL, EVERYTHING, META_TTL)).top
            assert (top.offset, top.epoch != first[0].epoch) == (3, True)
        second = await publish(redis, 14, 15, 16)
        history = await broker.history(CHANNEL, EVERYTHING, META_TTL)

    (epoch,) = {position.epoch for position in second}
    assert epoch != first[0].epoch
    assert [position.offset for position in second] == [4, 5, 6]
    assert history.top == second[-1]
    assert [stored.offset for stored in history.publications] == [1, 2, 3, 4, 5, 6]
    assert [history.has(position) for position in (*first, *lost, *second)] == (
        [True] * 3 + [False] * 2 + [True] * 3
    )
    assert history.translated(first[1]) == StreamPosition(2, epoch)


async def test_a_server_that_only_was_away_for_a_while_changes_nothing(server: RedisServer) -> None:
    """A connection that broke, a script that was forgotten and a new node are no reason for another epoch."""
    async with redis_under_test(server, prefix=PREFIX) as redis:
        (first,) = await publish(redis, 1)
        server.call("SCRIPT", "FLUSH")
        server.call("CLIENT", "KILL", "TYPE", "normal")
        async with redis_under_test(server, prefix=PREFIX) as another:
            (second,) = await publish(another, 2)
            history = await another.engine.broker.history(CHANNEL, EVERYTHING, META_TTL)

    assert first.epoch == second.epoch == history.top.epoch
    assert history.before == ()


async def test_a_connection_that_was_told_of_another_server_changes_nothing(
    server: RedisServer,
) -> None:
    """Behind a proxy it may be so; the script asks the server that it runs on."""
    async with redis_under_test(server, prefix=PREFIX) as redis:
        (first,) = await publish(redis, 1)
        redis.engine.layer.shards[0]._commands.run_id = b"0123456789abcdef"
        (second,) = await publish(redis, 2)
        read = await redis.engine.broker.history(CHANNEL, EVERYTHING, META_TTL)

    assert first.epoch == second.epoch == read.top.epoch


async def test_a_record_that_names_no_server_keeps_its_epoch(server: RedisServer) -> None:
    """It is of a version that didn't note it, or the server couldn't say."""
    async with redis_under_test(server, prefix=PREFIX) as redis:
        (first,) = await publish(redis, 1)
        for change in (("HDEL", "i"), ("HSET", "i", "")):
            server.call(change[0], f"{PREFIX}.stream.meta.{CHANNEL}", *change[1:])
            (after,) = await publish(redis, 2)

            assert after.epoch == first.epoch
            assert server.call("HGET", f"{PREFIX}.stream.meta.{CHANNEL}", "i")


async def test_positions_of_several_epochs_before_are_good(server: RedisServer) -> None:
    """As far as none of the servers since then had less; one that is too long ago is not known any more."""
    seen: list[StreamPosition] = []
    async with redis_under_test(server, prefix=PREFIX) as redis:
        seen += await publish(redis, 1, 2)
    for number in (3, 4):
        server.call("SAVE")
        fall_back(server)
        async with redis_under_test(server, prefix=PREFIX) as redis:
            seen += await publish(redis, number)
    fall_back(server)  # to the copy without the last one

    async with redis_under_test(server, prefix=PREFIX) as redis:
        read = await redis.engine.broker.history(CHANNEL, EVERYTHING, META_TTL)
        assert [read.has(position) for position in seen] == [True, True, True, False]
        assert read.translated(seen[0]) == StreamPosition(1, read.top.epoch)
    for _ in range(8):
        server.call("SAVE")
        fall_back(server)
        async with redis_under_test(server, prefix=PREFIX) as redis:
            read = await redis.engine.broker.history(CHANNEL, EVERYTHING, META_TTL)

    assert [read.has(position) for position in seen] == [False] * 4
    assert len(read.before) == 8


# --- maps ---------------------------------------------------------------------------------------------


async def write(redis: RedisMapsUnderTest, *keys: str) -> list[StreamPosition]:
    return [await put(redis, MAP, key) for key in keys]


@pytest.mark.parametrize("first", ["write", "removal", "state", "stream", "sweep"])
async def test_a_map_that_fell_back_goes_on_in_another_epoch(
    server: RedisServer, first: str
) -> None:
    """Whoever touches it first: its changes go on from the copy, and old positions are good up to there."""
    async with redis_maps_under_test(server, prefix=PREFIX) as redis:
        old = await write(redis, "a", "b")
        server.call("SAVE")
        lost = await write(redis, "c", "d")

    fall_back(server)

    async with redis_maps_under_test(server, prefix=PREFIX) as redis:
        await redis.maps.subscribe(MAP)
        if first == "write":
            await write(redis, "e")
        elif first == "removal":
            await redis.maps.remove(MAP, Publication(key="a"), RECOVERABLE, PLAIN_CHANGE)
        elif first == "state":
            await redis.maps.read_state(MAP, RECOVERABLE, StateFilter(limit=-1))
        elif first == "sweep":
            await redis.pass_time(61)
            await redis.maps.sweep_once()
        read = await redis.maps.read_stream(MAP, RECOVERABLE, HistoryFilter(limit=-1))
        await redis.node.until(lambda: len(redis.node.deliveries) == len(read.entries) - 2)

    assert read.top.epoch != old[0].epoch
    assert read.before == (old[1],)
    assert [each.publication.offset for each in read.entries[:2]] == [1, 2]
    assert {each.position.epoch for each in redis.node.deliveries} <= {read.top.epoch}
    assert [read.translated(one).epoch == read.top.epoch for one in (*old, *lost)] == (
        [True] * 2 + [False] * 2
    )


async def test_a_change_of_a_map_counts_once_over_a_failover(server: RedisServer) -> None:
    """What it returned is as safe as the change; who tries again because the answer was lost finds both or neither."""
    once, twice = MapChange(idempotency_key="1"), MapChange(idempotency_key="2")
    async with redis_maps_under_test(server, prefix=PREFIX) as redis:
        await put(redis, MAP, "a", change=once)
        server.call("SAVE")
        await put(redis, MAP, "b", change=twice)

    fall_back(server)

    async with redis_maps_under_test(server, prefix=PREFIX) as redis:
        again = [
            await redis.maps.publish(MAP, value(key), RECOVERABLE, change)
            for key, change in (("a", once), ("b", twice))
        ]

    assert [outcome.suppressed for outcome in again] == ["idempotency", ""]
    assert [outcome.position.offset for outcome in again] == [1, 2]


# --- the client ---------------------------------------------------------------------------------------


@asynccontextmanager
async def node_on(redis: RedisUnderTest, maps: MapBroker | None = None) -> AsyncIterator[Node]:
    default = ProcessOptions()
    client = msgspec.structs.replace(default.client, allow_anonymous_connect_without_token=True)
    options = msgspec.structs.replace(default, client=client)
    verifier = TokenVerifier(options.client.token)
    node = Node(
        options=options,
        configuration=Configuration(1, NamespaceTable(namespaces=NAMESPACES), {}),
        broker=redis.engine.broker,
        presence=redis.presence,
        control_bus=redis.engine.control_bus,
        maps=maps or MemoryMaps(redis.clock),
        connection_verifier=verifier,
        subscription_verifier=verifier,
        version="1.2.3",
        node_id="node-1",
    )
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


class Follower:
    """
    What an SDK does with a channel: it follows, and subscribes again from where it is when it is told to.

    Attributes:
        has: The numbers it has received.
        recoveries: Whether each subscribe but the first recovered.

    """

    def __init__(self, node: Node) -> None:
        self._connection = Connection(node, "follower")
        self._connection.send({"id": 1, "connect": {}})
        self.has: list[int] = []
        self.recoveries: list[bool] = []
        self.position = StreamPosition()
        self._connection.send({"id": 2, "subscribe": {"channel": CHANNEL}})

    async def until(self, holds: Callable[[Follower], bool]) -> None:
        """Follow until that holds."""

        def look() -> bool:
            self._read()
            return holds(self)

        await eventually(look)

    def _read(self) -> None:
        for message in self._connection.received():
            if "subscribe" in message:
                self._take_subscribed(message["subscribe"])
            elif "pub" in message.get("push", {}):
                self._take(message["push"]["pub"])
            elif "unsubscribe" in message.get("push", {}):
                assert message["push"]["unsubscribe"]["code"] == INSUFFICIENT_STATE
                offset, epoch = self.position.offset, self.position.epoch
                request = {"channel": CHANNEL, "recover": True, "offset": offset, "epoch": epoch}
                self._connection.send_raw(msgspec.json.encode({"id": 3, "subscribe": request}))

    def _take_subscribed(self, result: dict[str, Any]) -> None:
        if result.get("was_recovering"):
            self.recoveries.append(result.get("recovered", False))
        self.position = StreamPosition(result.get("offset", 0), result["epoch"])
        for pub in result.get("publications", []):
            self._take(pub)

    def _take(self, pub: dict[str, Any]) -> None:
        self.has.append(pub["data"]["n"])
        self.position = StreamPosition(pub["offset"], self.position.epoch)


@pytest.mark.parametrize("has_copy_of_all", [False, True], ids=["behind", "complete"])
async def test_a_client_is_told_if_what_it_has_was_taken_back(
    server: RedisServer, *, has_copy_of_all: bool
) -> None:
    """
    The offsets that it has belong to other publications by the time that the node can look.

    Before, it recovered from behind the first of them, and was told that it had missed nothing. Where the server lost nothing
    it does recover.
    """
    async with redis_under_test(server, prefix=PREFIX) as redis, node_on(redis) as node:
        follower = Follower(node)
        await follower.until(lambda it: bool(it.position.epoch))
        await publish(redis, 1, 2, 3)
        server.call("SAVE")
        await publish(redis, 4, 5)
        if has_copy_of_all:
            server.call("SAVE")
        await follower.until(lambda it: 5 in it.has)

        fall_back(server)
        async with redis_under_test(server, prefix=PREFIX) as another:
            await publish(another, 14, 15, 16)
        await follower.until(lambda it: bool(it.recoveries))
        await publish(redis, 17)
        await follower.until(lambda it: 17 in it.has)

    assert follower.recoveries == [has_copy_of_all]
    expected = [1, 2, 3, 4, 5, 14, 15, 16, 17] if has_copy_of_all else [1, 2, 3, 4, 5, 17]
    assert follower.has == expected


@pytest.mark.parametrize("has_copy_of_all", [False, True], ids=["behind", "complete"])
@pytest.mark.parametrize("phase", [0, 1], ids=["live", "stream"])
async def test_a_client_goes_on_with_a_map_only_if_the_server_has_what_it_has(
    server: RedisServer, *, phase: int, has_copy_of_all: bool
) -> None:
    """Else it loads the map anew, as it would after a clear."""
    async with (
        redis_under_test(server, prefix=PREFIX) as redis,
        redis_maps_under_test(server, prefix=PREFIX) as maps,
    ):
        await write(maps, "a", "b")
        server.call("SAVE")
        (last,) = await write(maps, "c")
        if has_copy_of_all:
            server.call("SAVE")

        fall_back(server)
        async with redis_maps_under_test(server, prefix=PREFIX) as another:
            *_, top = await write(another, "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n")
        await maps.node.until(lambda: bool(maps.node.lost))
        async with node_on(redis, maps.maps) as node:
            connection = Connection(node, "client")
            connection.send({"id": 1, "connect": {}})
            request = {"channel": MAP, "type": 1, "phase": phase, "recover": True}
            request |= {"offset": last.offset, "epoch": last.epoch, "limit": 5}
            connection.send({"id": 2, "subscribe": request})
            await eventually(lambda: bool(connection.transport.written))
            messages = connection.received()

    if not has_copy_of_all:
        assert messages[0]["error"]["code"] == 112
        return
    result = messages[0]["subscribe"]
    assert result["epoch"] == top.epoch
    assert [each["key"] for each in result["publications"]] == list(
        "defgh" if phase == 1 else "defghijklmn"
    )
