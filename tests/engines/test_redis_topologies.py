"""
The Redis engine on every shape of deployment, and what becomes of publications while one changes.

The whole suite runs on one Redis, on three shards and on a cluster; here is what differs between shapes, and the essence
of the suite on the others. Publications are counted: what ``publish`` reported as done has to be in the stream, and to
have been delivered unless the node was told that something may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import Raw

from realtime.conf.options import TLSOptions
from realtime.engines.base import HistoryFilter, PublishOptions
from realtime.engines.redis.keys import shard_of
from realtime.protocol.errors import ConfigError, EngineError
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition
from tests import redis_servers
from tests.engines.backends import RecordingNode, RedisUnderTest, redis_under_test
from tests.redis_servers import RedisServer


pytestmark = pytest.mark.redis

META_TTL = 3600.0
HISTORY = PublishOptions(history_size=100_000, history_ttl=60, history_meta_ttl=META_TTL)
EVERYTHING = HistoryFilter(limit=-1)
CHANNELS = [f"channel-{number}" for number in range(24)]
Shape = tuple[Sequence[RedisServer], dict[str, Any]]


# --- the shapes ---------------------------------------------------------------------------------------


@contextmanager
def with_acl(**options: Any) -> Iterator[Shape]:
    with redis_servers.single(username="tide", password="p@ss/word") as server:
        yield [server], {"user": "tide", "password": "p@ss/word", **options}


@contextmanager
def with_acl_in_the_url() -> Iterator[Shape]:
    with redis_servers.single(username="tide", password="p@ss/word") as server:
        address = server.address.replace("://", "://tide:p%40ss%2Fword@")
        yield [server], {"address": (f"{address}/3",), "client_name": "tidewire"}


@contextmanager
def with_tls() -> Iterator[Shape]:
    with redis_servers.single_with_tls() as server:
        yield [server], {"tls": TLSOptions(server_ca_pem=server.tls_ca)}


@contextmanager
def by_unix_socket() -> Iterator[Shape]:
    with redis_servers.single(lines=["port 0"]) as server:
        yield [server], {"address": (f"unix://{server.socket_path}",)}


@contextmanager
def sentinel(binary: str = "") -> Iterator[Shape]:
    with redis_servers.sentinel(
        username="tide", password="secret", sentinel_password="other", binary=binary
    ) as servers:
        yield (
            servers.servers,
            {
                "sentinel_address": tuple(servers.addresses),
                "sentinel_master_name": servers.master_name,
                "sentinel_password": "other",
                "user": "tide",
                "password": "secret",
            },
        )


@contextmanager
def sentinel_by_url() -> Iterator[Shape]:
    with redis_servers.sentinel() as servers:
        first, *more = servers.addresses
        seeds = "".join(f"&addr={address}" for address in more)
        url = f"redis+sentinel://{first}?sentinel_master_name={servers.master_name}{seeds}"
        yield servers.servers, {"address": (url,)}


@contextmanager
def plain_address_of_a_cluster() -> Iterator[Shape]:
    with redis_servers.cluster() as servers:
        yield servers.masters, {"address": (servers.masters[1].address,)}


@contextmanager
def two_clusters() -> Iterator[Shape]:
    with redis_servers.cluster(masters=1) as one, redis_servers.cluster(masters=1) as other:
        yield (
            [*one.masters, *other.masters],
            {"cluster_address": (one.addresses[0], other.addresses[0])},
        )


@contextmanager
def valkey() -> Iterator[Shape]:
    with redis_servers.single(binary=redis_servers.valkey_binary()) as server:
        yield [server], {}


@contextmanager
def valkey_cluster() -> Iterator[Shape]:
    with redis_servers.cluster(binary=redis_servers.valkey_binary()) as servers:
        yield servers.masters, {"cluster_address": (",".join(servers.addresses),)}


SHAPES: dict[str, Callable[[], AbstractContextManager[Shape]]] = {
    "acl": with_acl,
    "acl-resp2": lambda: with_acl(force_resp2=True),
    "acl-url": with_acl_in_the_url,
    "tls": with_tls,
    "unix": by_unix_socket,
    "sentinel": sentinel,
    "sentinel-url": sentinel_by_url,
    "plain-address-of-a-cluster": plain_address_of_a_cluster,
    "two-clusters": two_clusters,
    "valkey": valkey,
    "valkey-sentinel": lambda: sentinel(redis_servers.valkey_binary()),
    "valkey-cluster": valkey_cluster,
}


@contextlib.asynccontextmanager
async def two_nodes(shape: Shape) -> AsyncIterator[tuple[RedisUnderTest, RedisUnderTest]]:
    servers, options = shape
    async with (
        redis_under_test(*servers, **options, prefix="tide", node_id="one") as one,
        redis_under_test(*servers, **options, prefix="tide", node_id="two") as two,
    ):
        yield one, two


def publication(data: str) -> Publication:
    return Publication(data=Raw(data.encode()))


async def stored(under_test: RedisUnderTest, channel: str) -> list[str]:
    history = await under_test.engine.broker.history(channel, EVERYTHING, META_TTL)
    return [bytes(one.data).decode() for one in history.publications]


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_engine_does_its_work_on_every_shape(shape: str) -> None:
    """Between two nodes: streams, delivery in order, idempotency, joins, presence and control messages."""
    with SHAPES[shape]() as servers:
        async with two_nodes(servers) as (one, two):
            ann = ClientInfo("ann", "c1")
            broker, other = one.engine.broker, two.engine.broker
            for channel in CHANNELS:
                await other.subscribe(channel)

            for number in range(5):
                await asyncio.gather(
                    *(broker.publish(name, publication(f"{number}"), HISTORY) for name in CHANNELS)
                )
            await two.node.until(lambda: len(two.node.deliveries) == 5 * len(CHANNELS))
            for channel in CHANNELS:
                mine = [one for one in two.node.deliveries if one.channel == channel]
                assert [bytes(one.publication.data) for one in mine] == [
                    b"%d" % n for n in range(5)
                ]
                assert [one.position.offset for one in mine] == [1, 2, 3, 4, 5]
                assert await stored(two, channel) == ["0", "1", "2", "3", "4"]

            once = PublishOptions(**{**_fields(HISTORY), "idempotency_key": "k"})
            first = await broker.publish("channel-0", publication("once"), once)
            again = await other.publish("channel-0", publication("twice"), once)
            assert (again.suppressed, again.position) == ("idempotency", first.position)

            await broker.publish_join("channel-1", ann)
            await two.node.until(lambda: two.node.joins == [("channel-1", ann)])
            await one.presence.add("channel-1", "c1", ann)
            assert dict(await two.presence.presence("channel-1")) == {"c1": ann}
            assert await two.presence.remove_node("one") == [("channel-1", ann)]
            assert dict(await one.presence.presence("channel-1")) == {}

            await one.engine.control_bus.publish_control(b"to all")
            await one.engine.control_bus.publish_control(b"to two", "two")
            await two.node.until(lambda: sorted(two.node.controls) == [b"to all", b"to two"])
            await one.node.until(lambda: one.node.controls == [b"to all"])

            await other.unsubscribe("channel-2")
            await broker.publish("channel-2", publication("unheard"), HISTORY)
            await broker.publish("channel-3", publication("heard"), HISTORY)
            await two.node.until(lambda: two.node.deliveries[-1].channel == "channel-3")
            assert bytes(two.node.deliveries[-2].publication.data) == b"once"
            await broker.check()


def _fields(options: PublishOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in PublishOptions.__slots__}


async def test_the_address_says_who_comes_and_where_to() -> None:
    """User, database and client name of a URL are what Redis sees."""
    with with_acl_in_the_url() as (servers, options):
        async with redis_under_test(*servers, **options) as under_test:
            await under_test.engine.broker.publish("c", publication("1"), HISTORY)

            clients = servers[0].call("CLIENT", "LIST").splitlines()

    ours = [line for line in clients if " name=tidewire " in line]
    assert len(ours) == 2
    assert all(" user=tide " in line and " db=3 " in line for line in ours)


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "options", "text"),
    [
        (redis_servers.single_with_tls, {"tls": TLSOptions()}, "certificate verify failed"),
        (lambda: redis_servers.single(username="u", password="p"), {}, "NOAUTH"),
        (
            lambda: redis_servers.single(username="u", password="p"),
            {"user": "u", "password": "wrong"},
            "WRONGPASS",
        ),
    ],
    ids=["tls", "no-password", "wrong-password"],
)
async def test_a_server_that_does_not_let_us_in_is_an_outage(
    start: Callable[[], AbstractContextManager[RedisServer]],
    options: dict[str, Any],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The node starts, the log says why Redis is away without a secret, and publishes fail."""
    with start() as server:
        async with redis_under_test(server, **options) as under_test:
            with pytest.raises(EngineError):
                await under_test.engine.broker.publish("c", publication("1"), HISTORY)
            with pytest.raises(EngineError):
                await under_test.engine.broker.check()

    assert text in caplog.text
    assert "wrong" not in caplog.text.replace("WRONGPASS", "")


async def test_shards_are_all_clusters_or_none_is() -> None:
    """A channel has other names in a cluster, so a mixture is refused, and so is a cluster's name for a plain Redis."""
    with redis_servers.cluster(masters=1) as cluster, redis_servers.single() as plain:
        with pytest.raises(ConfigError, match="either all shards of Redis are clusters, or none"):
            async with redis_under_test(plain, cluster.masters[0]):
                pass
        with pytest.raises(ConfigError, match="is no cluster"):
            async with redis_under_test(plain, cluster_address=(f"127.0.0.1:{plain.port}",)):
                pass


async def test_a_cluster_that_was_away_at_start_is_refused_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Behind a plain address it can't be known; what would go to wrong names fails instead."""
    with redis_servers.cluster(masters=1) as cluster:
        server = cluster.masters[0]
        server.kill()
        async with redis_under_test(server) as under_test:
            await asyncio.to_thread(server.restart)
            await eventually(lambda: "name it in cluster_address" in caplog.text)

            with pytest.raises(EngineError):
                await under_test.engine.broker.publish("c", publication("1"), HISTORY)


# --- publications are counted -----------------------------------------------------------------------


async def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Return once ``holds()``; nothing tells of it, so it is looked at again and again."""
    async with asyncio.timeout(seconds):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)


@dataclass
class Traffic:
    """Publishes to all channels for as long as it is open, each channel in its own order."""

    under_test: RedisUnderTest
    done: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    positions: dict[str, dict[str, StreamPosition]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    async def __aenter__(self) -> Traffic:
        self._is_open = True
        self._tasks = [asyncio.create_task(self._publish_to(channel)) for channel in CHANNELS]
        await self.until_all_publish()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        await asyncio.gather(*self._tasks)

    async def _publish_to(self, channel: str) -> None:
        number = 0
        while self._is_open:
            number += 1
            data = f"{number}"
            try:
                outcome = await self.under_test.engine.broker.publish(
                    channel, publication(data), HISTORY
                )
            except EngineError:
                self.failed[channel].append(data)
            else:
                assert outcome.position.offset
                self.done[channel].append(data)
                self.positions[channel][data] = outcome.position
            await asyncio.sleep(0.005)

    async def until_all_publish(self, more: int = 3) -> None:
        """Wait until each channel has so many more successes."""
        before = {channel: len(self.done[channel]) for channel in CHANNELS}
        await eventually(
            lambda: all(len(self.done[name]) >= before[name] + more for name in CHANNELS)
        )

    async def until_something_fails(self) -> None:
        """Wait for the first failure."""
        await eventually(lambda: any(self.failed.values()))


async def assert_nothing_was_lost_in_silence(
    traffic: Traffic, listener: RedisUnderTest, *, may_roll_back: bool = False
) -> None:
    """
    Each success is in the stream, in order and once; it was delivered, or the node was told of a loss.

    ``may_roll_back``: a master that takes over may lack what the old one had confirmed, which Redis doesn't wait for.
    How much is Redis' own affair: on a busy machine a master that is only slow is replaced, too, and if its successor
    goes before it has copied that one's data it goes on with what it had. What holds is that nobody can go on from a
    position whose publication is gone.
    """
    for channel in CHANNELS:
        done = traffic.done[channel]
        history = await listener.engine.broker.history(channel, EVERYTHING, META_TTL)
        by_offset = {one.offset: bytes(one.data).decode() for one in history.publications}
        in_stream = list(by_offset.values())
        positions = traffic.positions[channel]
        for data in done:
            if history.has(positions[data]):
                assert by_offset[positions[data].offset] == data, (channel, positions[data])
        if may_roll_back:
            done = [data for data in done if data in set(in_stream)]
        assert [data for data in in_stream if data in set(done)] == done, channel
        # What failed may be there: nobody knew. Nothing else may.
        assert set(in_stream) <= set(done) | set(traffic.failed[channel]), channel
        assert len(set(in_stream)) == len(in_stream), channel
        heard = delivered(listener.node, channel)
        # A master that was slow while its replica took over hands on late what it had published: the same, at
        # the same position, so that the node knows it for a repeat.
        assert may_roll_back or len(set(heard)) == len(heard), channel
        assert len(set(heard)) == len(set(heard_at(listener.node, channel))), channel
        if set(in_stream) - set(heard):
            assert was_told(listener.node, channel), channel


def delivered(node: RecordingNode, channel: str) -> list[str]:
    return [
        bytes(one.publication.data).decode() for one in node.deliveries if one.channel == channel
    ]


def heard_at(node: RecordingNode, channel: str) -> list[tuple[str, StreamPosition]]:
    return [
        (bytes(one.publication.data).decode(), one.position)
        for one in node.deliveries
        if one.channel == channel
    ]


def was_told(node: RecordingNode, channel: str) -> bool:
    return any(lost is None or channel in lost for lost in node.lost)


async def listen(under_test: RedisUnderTest) -> None:
    for channel in CHANNELS:
        await under_test.engine.broker.subscribe(channel)


async def until_delivery_works(traffic: Traffic, listener: RedisUnderTest) -> None:
    """Wait until what is published now arrives in every channel."""
    counts = {channel: len(delivered(listener.node, channel)) for channel in CHANNELS}
    await eventually(
        lambda: all(len(delivered(listener.node, name)) > counts[name] for name in CHANNELS)
    )
    await traffic.until_all_publish()


async def test_a_shard_that_dies_takes_only_its_own_channels() -> None:
    """Others go on without a failure; after its return its channels are subscribed again and told of."""
    with redis_servers.several(3, is_durable=True) as servers:
        async with two_nodes((servers, {})) as (publisher, listener):
            await listen(listener)
            dead = 1
            its = [name for name in CHANNELS if shard_of(name, 3) == dead]
            others = [name for name in CHANNELS if name not in its]
            assert its
            assert others

            async with Traffic(publisher) as traffic:
                servers[dead].kill()
                await traffic.until_something_fails()
                # Control messages find another way.
                for number in range(3):
                    await publisher.engine.control_bus.publish_control(b"%d" % number)
                await listener.node.until(lambda: len(listener.node.controls) >= 3)
                with pytest.raises(EngineError):
                    await listener.engine.broker.check()
                await asyncio.to_thread(servers[dead].restart)
                await until_delivery_works(traffic, listener)

            assert not any(traffic.failed[name] for name in others)
            assert all(traffic.failed[name] for name in its)
            assert [sorted(lost or ()) for lost in listener.node.lost] == [sorted(its)]
            await assert_nothing_was_lost_in_silence(traffic, listener)
            for name in CHANNELS:
                assert [
                    bool(server.call("EXISTS", f"tide.stream.{name}")) for server in servers
                ] == [place == shard_of(name, 3) for place in range(3)]


async def test_slots_move_under_publishing_without_a_failure() -> None:
    """Commands follow by ASK and MOVED, subscriptions move along, and only channels of the slots are told of."""
    with redis_servers.cluster() as cluster:
        options = {"cluster_address": (",".join(cluster.addresses),)}
        async with two_nodes((cluster.masters, options)) as (publisher, listener):
            await listen(listener)
            naming = publisher.engine.broker._naming
            moving = CHANNELS[:3]
            slots = [cluster.slot_of(naming.channel(name).stream.decode()) for name in moving]

            async with Traffic(publisher) as traffic:
                for slot in slots:
                    target = next(one for one in cluster.masters if one is not cluster.owner(slot))
                    source = cluster.begin_move(slot, target)
                    await traffic.until_all_publish()  # the keys are still on the source
                    await asyncio.to_thread(cluster.move_keys, slot, source, target)
                    await traffic.until_all_publish()  # ASK: they are on the target
                    cluster.end_move(slot, source, target)
                    await traffic.until_all_publish()
                await until_delivery_works(traffic, listener)
                await listener.node.until(
                    lambda: all(was_told(listener.node, name) for name in moving)
                )

            assert not any(traffic.failed.values())
            assert None not in listener.node.lost
            assert {name for lost in listener.node.lost for name in lost or ()} == set(moving)
            await assert_nothing_was_lost_in_silence(traffic, listener)
            await listener.engine.broker.check()


async def test_a_cluster_fails_over_under_publishing() -> None:
    """In order, hardly anything fails; by a crash, the dead master's channels fail until its replica takes over."""
    with redis_servers.cluster(replicas=1) as cluster:
        options = {"cluster_address": (",".join(cluster.addresses),)}
        async with two_nodes((cluster.servers, options)) as (publisher, listener):
            await listen(listener)
            first, second, _ = cluster.masters

            async with Traffic(publisher) as traffic:
                await asyncio.to_thread(cluster.failover, cluster.replica_of(first))
                await until_delivery_works(traffic, listener)
                second.kill()
                await traffic.until_something_fails()
                await asyncio.to_thread(cluster.wait_for_takeover, second)
                await until_delivery_works(traffic, listener)

            await assert_nothing_was_lost_in_silence(traffic, listener, may_roll_back=True)
            await publisher.engine.broker.check()
            await listener.engine.broker.check()


@pytest.mark.parametrize("is_crash", [False, True], ids=["ordered", "crash"])
async def test_sentinels_fail_over_under_publishing(*, is_crash: bool) -> None:
    """Publishes fail until the new master is there, and the node is told that something may be missing."""
    with redis_servers.sentinel() as servers:
        options = {
            "sentinel_address": tuple(servers.addresses),
            "sentinel_master_name": servers.master_name,
        }
        async with two_nodes((servers.servers, options)) as (publisher, listener):
            await listen(listener)

            async with Traffic(publisher) as traffic:
                if is_crash:
                    dead = servers.kill_master()
                    await traffic.until_something_fails()
                    await asyncio.to_thread(servers.wait_for_other_than, dead)
                else:
                    await asyncio.to_thread(servers.failover)
                await until_delivery_works(traffic, listener)

            assert listener.node.lost
            await assert_nothing_was_lost_in_silence(traffic, listener, may_roll_back=True)
            assert servers.master.call("PUBSUB", "NUMSUB", "tide.control")[1] == 2


async def test_a_sentinel_that_dies_is_done_without() -> None:
    """Of three sentinels one is enough to find the master, now and after a failover."""
    with ExitStack() as stack:
        servers = stack.enter_context(redis_servers.sentinel())
        options = {
            "sentinel_address": tuple(servers.addresses),
            "sentinel_master_name": servers.master_name,
        }
        servers.sentinels[0].kill()
        async with two_nodes((servers.servers, options)) as (publisher, listener):
            await listen(listener)
            servers.sentinels.pop(0).close()

            async with Traffic(publisher) as traffic:
                dead = servers.kill_master()
                await asyncio.to_thread(servers.wait_for_other_than, dead)
                await until_delivery_works(traffic, listener)

            await assert_nothing_was_lost_in_silence(traffic, listener, may_roll_back=True)
