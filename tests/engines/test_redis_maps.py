"""What is Redis' own about maps: names, the wire, the index of deadlines, sweeps of several nodes, and losses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from channels_redis.pubsub import RedisPubSubChannelLayer
from msgspec import Raw

from realtime import outside
from realtime.conf import schema
from realtime.engines.base import HistoryFilter
from realtime.engines.maps import EVERYTHING, PLAIN_CHANGE, MapChange, StateFilter
from realtime.engines.redis.cluster import SLOTS, slot_of
from realtime.engines.redis.encoding import read_value
from realtime.engines.redis.keys import group_of
from realtime.engines.redis.map_keys import PARTITIONS, MapNaming, partition_tags
from realtime.namespaces.options import MapRules
from realtime.protocol.errors import ConfigError, EngineError
from realtime.protocol.messages import Publication, StreamPosition
from tests import redis_servers
from tests.engines.backends import shared_cluster, shared_redis, shared_shards
from tests.engines.map_backends import RedisMapsUnderTest, redis_maps_under_test
from tests.engines.test_maps import EPHEMERAL, PERSISTENT, RECOVERABLE
from tests.engines.test_redis_topologies import SHAPES
from tests.redis_servers import RedisServer


pytestmark = pytest.mark.redis

ALL = StateFilter(limit=EVERYTHING)


@pytest.fixture
async def redis() -> AsyncIterator[RedisMapsUnderTest]:
    async with redis_maps_under_test() as under_test:
        yield under_test


def value(key: str, data: bytes = b"{}", tags: dict[str, str] | None = None) -> Publication:
    return Publication(key=key, data=Raw(data), tags=tags)


async def put(
    redis: RedisMapsUnderTest,
    channel: str,
    key: str = "k",
    rules: MapRules = RECOVERABLE,
    change: MapChange = PLAIN_CHANGE,
) -> StreamPosition:
    return (await redis.maps.publish(channel, value(key), rules, change)).position


def shape(name: str) -> tuple[tuple[RedisServer, ...], dict[str, tuple[str, ...]]]:
    if name == "cluster":
        cluster = shared_cluster()
        return tuple(cluster.masters), {"cluster_address": (",".join(cluster.addresses),)}
    return tuple(shared_shards()) if name == "shards" else (shared_redis(),), {}


# --- names and the wire -----------------------------------------------------------------------------


async def test_keys_are_those_of_the_reference(redis: RedisMapsUnderTest) -> None:
    """And a map that is cleared leaves nothing but results."""
    change = MapChange(version=1, idempotency_key="i")
    await put(redis, "map:x", change=change)

    names = redis.names()
    await redis.maps.clear("map:x")

    prefix = redis.prefix
    result = f"{prefix}.result.{group_of('map:x')}.i"
    assert names == [
        result,
        f"{prefix}:cleanup:channels",
        f"{prefix}:meta:map:x",
        f"{prefix}:state:expire:map:x",
        f"{prefix}:state:map:x",
        f"{prefix}:state:meta:map:x",
        f"{prefix}:state:order:map:x",
        f"{prefix}:stream:map:x",
    ]
    assert redis.names() == [result]


def test_in_a_cluster_all_of_a_map_is_in_one_slot_of_few() -> None:
    """Its group and the index of its deadlines, too; the slots are spread, and all of them are used."""
    naming = MapNaming("tide", is_cluster=True)
    slots = set()
    for number in range(2000):
        keys = naming.channel(f"map:{number}")
        names = {*keys.of_script("result"), keys.group_channel}
        (slot,) = {slot_of(name) for name in names}
        assert keys.index in naming.indexes
        assert keys.group_channel == f"tide__group__{keys.group}".encode()
        slots.add(slot)

    assert sorted(slot * PARTITIONS // SLOTS for slot in slots) == list(range(PARTITIONS))


def test_the_tags_never_change() -> None:
    """Whoever computes others finds nothing of what is stored."""
    tags = partition_tags()

    assert len(set(tags)) == PARTITIONS
    assert tags[:4] == ("10", "18", "113", "342")
    assert tags[-2:] == ("48", "40")


async def test_an_unmodified_layer_reads_changes(redis: RedisMapsUnderTest) -> None:
    """A write with the value before, and a removal."""
    await redis.maps.publish("c", value("k", b"\xff1"), RECOVERABLE, PLAIN_CHANGE)
    layer = RedisPubSubChannelLayer(hosts=[redis.server.address], prefix=redis.prefix)
    channel = await layer.new_channel()
    await layer.group_add(group_of("c"), channel)
    name = f"{redis.prefix}__group__{group_of('c')}"
    await asyncio.to_thread(
        redis_servers.wait_until,
        lambda: redis.server.call("PUBSUB", "NUMSUB", name)[1] == 1,
        "the stock layer's subscription",
    )

    change = MapChange(delta=True)
    await redis.maps.publish("c", value("k", b"\xff2", {"t": "é"}), RECOVERABLE, change)
    top = (await redis.maps.remove("c", Publication(key="k"), RECOVERABLE, PLAIN_CHANGE)).position
    messages = [await asyncio.wait_for(layer.receive(channel), 30) for _ in range(2)]
    await layer.flush()

    previous = read_value("k", messages[0].pop("previous")).publication
    assert (bytes(previous.data), previous.offset) == (b"\xff1", 1)
    common = {"type": "realtime.change", "channel": "c", "key": "k", "time": redis.clock.now}
    assert messages == [
        {
            **common,
            "tags": {"t": "é"},
            "data": b"\xff2",
            "offset": 2,
            "epoch": top.epoch,
            "delta": True,
        },
        {**common, "removed": True, "tags": {"t": "é"}, "offset": 3, "epoch": top.epoch},
    ]


async def test_offsets_beyond_what_lua_prints_are_exact(redis: RedisMapsUnderTest) -> None:
    """In state and stream, in deliveries, and compared with."""
    large = 10**15 + 7
    await redis.maps.subscribe("c")
    epoch = (await put(redis, "c")).epoch
    redis.server.call("HSET", f"{redis.prefix}:meta:c", "s", large - 1)

    top = await put(redis, "c")
    stale = await redis.maps.publish(
        "c", value("k"), RECOVERABLE, MapChange(expected=StreamPosition(large - 1, epoch))
    )
    swapped = await put(redis, "c", change=MapChange(expected=top))

    assert top == StreamPosition(large, epoch)
    assert stale.suppressed == "position_mismatch"
    assert stale.current is not None
    assert stale.current.publication.offset == large
    assert swapped.offset == large + 1
    what = HistoryFilter(limit=EVERYTHING, since=top)
    found = await redis.maps.read_stream("c", RECOVERABLE, what)
    assert [entry.publication.offset for entry in found.entries] == [large + 1]
    await redis.node.payloads(3)
    assert redis.node.deliveries[2].position.offset == large + 1


async def test_a_long_page_is_read_in_parts(redis: RedisMapsUnderTest) -> None:
    """Lua's stack has room for some 8,000 values; a page may be longer."""
    names = [f"k{number:05}" for number in range(9_500)]
    for begin in range(0, len(names), 500):
        await asyncio.gather(
            *(put(redis, "c", name, PERSISTENT) for name in names[begin : begin + 500])
        )

    page = await redis.maps.read_state("c", PERSISTENT, StateFilter(limit=9_000))
    rest = await redis.maps.read_state("c", PERSISTENT, StateFilter(9_000, page.cursor))

    found = [entry.publication.key for entry in [*page.entries, *rest.entries]]
    assert (len(page.entries), found, rest.cursor) == (9_000, names, "")


async def test_changes_may_be_kept_and_not_told() -> None:
    """``skip_pub_sub``: nothing is published, by writes, removals or sweeps."""
    async with redis_maps_under_test(skip_pub_sub=True) as redis:
        await redis.maps.subscribe("c")
        for name in ("a", "b"):
            await put(redis, "c", name)
        await redis.maps.remove("c", Publication(key="a"), RECOVERABLE, PLAIN_CHANGE)
        await redis.pass_time(61)
        await redis.maps.sweep_once()
        assert redis.server.call("PUBSUB", "CHANNELS", f"{redis.prefix}*") == []
        read = await redis.maps.read_stream("c", RECOVERABLE, HistoryFilter(limit=EVERYTHING))
        await redis.maps.unsubscribe("c")

    assert [entry.publication.removed for entry in read.entries] == [False, False, True, True]
    assert redis.node.deliveries == []


# --- sweeps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one", "shards", "cluster"])
async def test_several_nodes_sweep_at_once_and_remove_each_key_once(name: str) -> None:
    """However they meet: each node is told of every removal once, in the order of offsets."""
    servers, options = shape(name)
    channels = [f"map:{number}" for number in range(12)]
    async with (
        redis_maps_under_test(*servers, **options, cleanup_batch_size=7) as one,
        redis_maps_under_test(*servers, **options, cleanup_batch_size=7, prefix=one.prefix) as two,
    ):
        for channel in channels:
            await two.maps.subscribe(channel)
            await asyncio.gather(*(put(one, channel, f"k{number}") for number in range(40)))
        await one.pass_time(61)

        await asyncio.gather(*(under_test.maps.sweep_once() for under_test in (one, two, one, two)))

        await two.node.payloads(2 * 40 * len(channels))
        for channel in channels:
            assert await two.maps.count(channel) == 0
            mine = [each for each in two.node.deliveries if each.channel == channel]
            removals = [each.publication.key for each in mine if each.publication.removed]
            assert sorted(removals) == sorted(f"k{number}" for number in range(40))
            assert [each.position.offset for each in mine] == list(range(1, 81))


async def test_a_sweep_takes_so_many_keys_of_a_map(redis: RedisMapsUnderTest) -> None:
    """Ten batches; what is left is the next sweep's."""
    async with redis_maps_under_test(cleanup_batch_size=3) as redis:
        for number in range(50):
            await put(redis, "c", f"k{number}", EPHEMERAL)
        await redis.pass_time(61)

        left = []
        for _ in range(2):
            await redis.maps.sweep_once()
            left.append(await redis.maps.count("c"))

    assert left == [20, 0]


async def test_the_node_s_ticks_sweep(redis: RedisMapsUnderTest) -> None:
    """One sweep at a time, and none begins before the interval is over."""
    await redis.maps.subscribe("c")
    await put(redis, "c")
    await redis.pass_time(61)

    redis.maps.sweep(0)
    first = redis.maps._sweeping
    redis.maps.sweep(0)

    assert first is not None
    assert redis.maps._sweeping is first
    await redis.node.payloads(2)
    await first
    redis.maps.sweep(0)
    assert redis.maps._sweeping is None


async def test_a_node_may_leave_sweeping_to_others() -> None:
    """``cleanup_interval`` -1."""
    async with redis_maps_under_test(cleanup_interval=-1) as redis:
        redis.maps.sweep(0)

        assert redis.maps._sweeping is None


@pytest.mark.parametrize("name", ["one", "shards", "cluster"])
async def test_a_map_with_deadlines_is_in_the_index_of_its_keys(name: str) -> None:
    """By its first deadline or an earlier time, until a sweep finds no deadline any more."""
    servers, options = shape(name)
    channels = [f"map:{number}" for number in range(30)]

    async with redis_maps_under_test(*servers, **options) as redis:
        now = redis.clock.now * 1000
        for channel in channels:
            await put(redis, channel, "later", MapRules(600, 10, 60, 600))
            await put(redis, channel, "sooner", RECOVERABLE)
            await put(redis, channel, "ever", MapRules(0, 10, 60, 600))
        at_first = redis.indexed()
        await redis.pass_time(61)
        await redis.maps.sweep_once()
        after_one = redis.indexed()
        for channel in channels[:15]:
            await redis.maps.remove(channel, Publication(key="later"), RECOVERABLE, PLAIN_CHANGE)
        await redis.pass_time(600)
        await redis.maps.sweep_once()

        assert set(at_first) == set(after_one) == set(channels)
        assert all(now + 59_000 < at < now + 75_000 for at in at_first.values())
        assert all(now + 530_000 < at < now + 550_000 for at in after_one.values())
        assert redis.indexed() == {}
        for channel in channels:
            assert await redis.maps.count(channel) == 1


async def test_a_sweep_during_an_outage_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the next one does its work; with nobody to do it a key stays, and is told when somebody does."""
    with redis_servers.single(is_durable=True) as server:
        async with redis_maps_under_test(server) as redis:
            await redis.maps.subscribe("c")
            await put(redis, "c")
            await redis.pass_time(61)
            await asyncio.to_thread(server.stop)

            for _ in range(3):
                await redis.maps.sweep_once()

            texts = [record.message.partition(":")[0] for record in caplog.records]
            assert texts.count("keys of maps that are due were not all removed") == 1
            with pytest.raises(EngineError):
                await redis.maps.check()
            await asyncio.to_thread(server.restart)
            await redis.node.until(lambda: bool(redis.node.lost))
            await redis.maps.sweep_once()
            await redis.node.payloads(2)
            assert redis.node.deliveries[1].publication.removed
            await redis.maps.check()


# --- losses -----------------------------------------------------------------------------------------


async def test_a_map_whose_record_was_lost_begins_anew(redis: RedisMapsUnderTest) -> None:
    """With the state dropped: nobody could be told which of it they have seen."""
    epoch = (await put(redis, "c", change=MapChange(version=9))).epoch
    redis.server.call("DEL", f"{redis.prefix}:meta:c")

    page = await redis.maps.read_state("c", RECOVERABLE, ALL)
    again = await put(redis, "c", change=MapChange(version=1))

    assert list(page.entries) == []
    assert page.top.offset == 0
    assert page.top.epoch not in ("", epoch)
    assert again == StreamPosition(1, page.top.epoch)


async def test_keys_without_a_record_are_still_removed(redis: RedisMapsUnderTest) -> None:
    """Without an offset, for there is no stream any more."""
    await redis.maps.subscribe("c")
    await put(redis, "c")
    redis.server.call("DEL", f"{redis.prefix}:meta:c")
    await redis.pass_time(61)

    await redis.maps.sweep_once()

    await redis.node.payloads(2)
    removal = redis.node.deliveries[1]
    assert (removal.publication.removed, removal.position.offset) == (True, 0)
    assert [name for name in redis.names() if ":stream:" not in name] == []


@pytest.mark.parametrize("stored", [b"", b"short", b"x" * 19, b"\0" * 20 + b"\xff"])
async def test_somebody_elses_value_is_an_error_of_the_engine(
    redis: RedisMapsUnderTest, stored: bytes
) -> None:
    """Not a publication of who knows what."""
    await put(redis, "c")
    redis.server.call("HSET", f"{redis.prefix}:state:c", "k", stored)

    with pytest.raises(EngineError, match="malformed"):
        await redis.maps.read_state("c", RECOVERABLE, ALL)


async def test_a_slot_moves_under_writes_and_sweeps() -> None:
    """With all of its maps and their index: no write fails, and every key is removed and told when it is due."""
    with redis_servers.cluster() as cluster:
        options = {"cluster_address": (",".join(cluster.addresses),)}
        async with redis_maps_under_test(*cluster.masters, **options) as redis:
            channels = [f"map:{number}" for number in range(6)]
            for channel in channels:
                await redis.maps.subscribe(channel)
            keys = redis.maps._route(channels[0]).keys
            slot = cluster.slot_of(keys.state.decode())
            target = next(one for one in cluster.masters if one is not cluster.owner(slot))
            written = 0
            moving = asyncio.create_task(asyncio.to_thread(cluster.move_slot, slot, target))
            while written < 20 or not moving.done():
                await asyncio.gather(*(put(redis, each, f"k{written}") for each in channels))
                await redis.maps.sweep_once()
                written += 1
            await moving
            await redis.node.until(
                lambda: any(channels[0] in (told or ()) for told in redis.node.lost)
            )
            await redis.pass_time(61)

            await redis.maps.sweep_once()

            for channel in channels:
                assert await redis.maps.count(channel) == 0
                top = (await redis.maps.read_state(channel, RECOVERABLE, StateFilter())).top
                assert top.offset == 2 * written
                await redis.node.until(
                    lambda channel=channel: (
                        sum(
                            each.publication.removed and each.channel == channel
                            for each in redis.node.deliveries
                        )
                        == written
                    )
                )
            assert target.call("EXISTS", keys.stream) == 1


# --- what Redis must be -----------------------------------------------------------------------------


@contextlib.contextmanager
def server_with(*lines: str) -> Iterator[RedisServer]:
    with redis_servers.single(lines=list(lines)) as server:
        yield server


async def test_a_server_without_streams_is_refused() -> None:
    """By the name of the section."""
    with server_with('rename-command XADD ""') as server:
        async with redis_maps_under_test(server) as redis:
            with pytest.raises(ConfigError, match=r"^map_broker\.redis: .*streams"):
                await redis.maps.check_support()


@pytest.mark.parametrize(
    ("lines", "warns"),
    [
        ([], False),
        (["maxmemory 100mb"], False),
        (["maxmemory 100mb", "maxmemory-policy allkeys-lru"], True),
        (["maxmemory-policy allkeys-lru"], False),
    ],
)
async def test_a_server_that_may_evict_is_told_in_the_log(
    lines: list[str], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Maps lose keys there without anybody hearing of it."""
    with server_with(*lines) as server:
        async with redis_maps_under_test(server) as redis:
            await redis.maps.check_support()

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert bool(warnings) is warns


@pytest.mark.django_db(transaction=True)
def test_a_process_that_serves_nobody_writes_maps() -> None:
    """Over connections of its own, whatever the engine is."""
    values = {
        "map_broker.type": "redis",
        "map_broker.redis.address": (shared_redis().address,),
        "map_broker.redis.prefix": "outside",
    }
    process = outside.get_outside(schema.build(values))
    try:
        process.call(
            lambda node: node.maps.publish("c", value("k"), RECOVERABLE, PLAIN_CHANGE)
        ).result(5)
        page = process.call(lambda node: node.maps.read_state("c", RECOVERABLE, ALL)).result(5)
    finally:
        outside.close_outside()

    assert [entry.publication.key for entry in page.entries] == ["k"]


@pytest.mark.parametrize(
    "name", ["acl-resp2", "two-clusters", "valkey", "valkey-cluster", "sentinel"]
)
async def test_maps_on_other_shapes(name: str) -> None:
    """The essence of the suite, between two nodes."""
    channels = [f"map:{number}" for number in range(8)]
    with SHAPES[name]() as (servers, options):
        async with (
            redis_maps_under_test(*servers, **options, prefix="tide") as one,
            redis_maps_under_test(*servers, **options, prefix="tide") as two,
        ):
            await one.maps.check_support()
            for channel in channels:
                await two.maps.subscribe(channel)
                await put(one, channel, "a", change=MapChange(version=2**63))
                await put(one, channel, "b", change=MapChange(delta=True))
                await one.maps.remove(channel, Publication(key="b"), RECOVERABLE, PLAIN_CHANGE)
                stale = await two.maps.publish(
                    channel, value("a"), RECOVERABLE, MapChange(version=2**63 - 1)
                )
                assert stale.suppressed == "version"
            page = await two.maps.read_state(channels[0], RECOVERABLE, StateFilter(limit=1))
            await one.pass_time(61)
            await asyncio.gather(one.maps.sweep_once(), two.maps.sweep_once())

            await two.node.payloads(4 * len(channels))
            assert [entry.publication.key for entry in page.entries] == ["a"]
            for channel in channels:
                mine = [each for each in two.node.deliveries if each.channel == channel]
                changes = [(each.publication.key, each.publication.removed) for each in mine]
                assert changes == [("a", False), ("b", False), ("b", True), ("a", True)]
                assert [each.position.offset for each in mine] == [1, 2, 3, 4]
