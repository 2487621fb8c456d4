"""
Several nodes on one Redis, as processes, while something fails; real connections keep account of what they receive.

In all of it: a publish fails with an error or is carried out, and never takes longer than a client would wait; clients
stay connected; subscriptions come back by themselves; and a client that counts has the whole stream in order, or was told
that it hasn't.

``TEST_FAULT_SECONDS`` and ``TEST_FAULT_SEED`` lengthen and repeat the random run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests import redis_servers
from tests.live.cutting_proxy import CuttingProxy
from tests.live.followers import (
    Follower,
    Publishers,
    assert_whole,
    assert_whole_or_told,
    eventually,
    until_caught_up,
)
from tests.live.harness import Sdk, Server
from tests.redis_servers import RedisServer


logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.live, pytest.mark.redis]

CHANNELS = [f"long:{number}" for number in range(8)]
FAULT_SECONDS = float(os.environ.get("TEST_FAULT_SECONDS", "40"))
FAULT_SEED = int(os.environ.get("TEST_FAULT_SEED", "1"))
REJOINED_CODE = 3004  # the server could not take the subscription; SDKs connect again

Nodes = Callable[..., "contextlib.AbstractAsyncContextManager[list[Server]]"]


@pytest.fixture
def nodes(database: Path, tmp_path: Path) -> Nodes:
    """Give a context manager that starts serving processes on a Redis, all at once."""

    @contextlib.asynccontextmanager
    async def start(
        count: int, redis: Mapping[str, str], **options: str
    ) -> AsyncIterator[list[Server]]:
        servers = []
        for number in range(count):
            folder = tmp_path / f"node-{number}"
            folder.mkdir(exist_ok=True)
            for file in database.parent.glob("db.sqlite3*"):
                shutil.copy(file, folder)
            environment = {
                "TIDEWIRE_ENGINE_TYPE": "redis",
                "TIDEWIRE_CLIENT_CHANNEL_LIMIT": "10000",
                "TIDEWIRE_CLIENT_RECOVERY_MAX_PUBLICATION_LIMIT": "100000",
                **redis,
                **options,
            }
            servers.append(Server("serve", folder, environment))
        try:
            await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
            yield servers
        finally:
            ends = await asyncio.gather(
                *(asyncio.to_thread(server.stop) for server in servers), return_exceptions=True
            )
        assert ends == [0] * count, [server.log[-3000:] for server in servers]
        for server in servers:
            assert unexpected(server.log) == []

    return start


def unexpected(log: str) -> list[str]:
    """Return the last lines of tracebacks in a log, but for those of an engine that failed, which are facts here."""
    # A chain has several tracebacks: only the last one counts, which nothing follows.
    ends = re.findall(
        r"^Traceback.*\n(?:\s.*\n)*(\w.*)\n(?!\n(?:The above|During handling))", log, re.MULTILINE
    )
    known = ("realtime.protocol.errors.EngineError", "realtime.engines.redis.link.RedisError")
    return [end for end in ends if not end.startswith(known)]


def on(server: RedisServer) -> dict[str, str]:
    return {"TIDEWIRE_ENGINE_REDIS_ADDRESS": server.address}


@contextlib.asynccontextmanager
async def following(
    servers: Sequence[Server], channels: Sequence[str], each: int = 2
) -> AsyncIterator[list[Follower]]:
    """Connect some followers of all channels to every node."""
    async with contextlib.AsyncExitStack() as stack:
        followers = [Follower(server, channels) for server in servers for _ in range(each)]
        await asyncio.gather(*map(stack.enter_async_context, followers))
        yield followers


# --- Redis goes away --------------------------------------------------------------------------------


async def test_redis_crashes_and_comes_back_with_its_data(nodes: Nodes) -> None:
    """Publishes fail meanwhile, nobody is disconnected, and afterwards everybody has everything."""
    with redis_servers.single(is_durable=True) as redis:
        async with nodes(2, on(redis)) as servers, following(servers, CHANNELS) as followers:
            async with Publishers(servers, CHANNELS) as publishers:
                await publishers.until_done()
                redis.kill()
                await publishers.until_failed()
                await asyncio.sleep(1)
                await asyncio.to_thread(redis.restart)
                await publishers.until_done()
            await until_caught_up(publishers, followers)

            assert all(follower.closes == [] for follower in followers)
            assert_whole(publishers, followers)
            assert set(publishers.errors) == {"internal server error"}


async def test_redis_crashes_and_comes_back_empty(nodes: Nodes) -> None:
    """The streams are others then: each client is told, once per channel, and goes on with the new ones."""
    with redis_servers.single() as redis:
        async with nodes(2, on(redis)) as servers, following(servers, CHANNELS) as followers:
            async with Publishers(servers, CHANNELS) as publishers:
                await publishers.until_done()
                redis.kill()
                await publishers.until_failed()
                await asyncio.to_thread(redis.restart)
                await publishers.until_done()
                await eventually(
                    lambda: all(set(one.told) == set(CHANNELS) for one in followers), "all told"
                )
                await publishers.until_done()
            await until_caught_up(publishers, followers)

            assert all(follower.closes == [] for follower in followers)
            assert all(set(follower.told.values()) == {1} for follower in followers)
            assert_whole_or_told(publishers, followers)


async def test_redis_hangs_for_ten_seconds(nodes: Nodes) -> None:
    """A publish fails within the timeout and does not hang along; what had reached Redis is not lost."""
    with redis_servers.single() as redis:
        async with (
            nodes(2, on(redis), TIDEWIRE_ENGINE_REDIS_IO_TIMEOUT="1s") as servers,
            following(servers, CHANNELS) as followers,
        ):
            async with Publishers(servers, CHANNELS) as publishers:
                await publishers.until_done()
                redis.pause()
                await asyncio.sleep(10)
                redis.resume()
                await publishers.until_done()
            await until_caught_up(publishers, followers)

            assert publishers.failed
            assert publishers.slowest < 3
            assert all(follower.closes == [] for follower in followers)
            assert_whole(publishers, followers)


async def test_sentinel_fails_over(nodes: Nodes) -> None:
    """Nodes find the new master by themselves; where its streams are behind, clients are told."""
    with redis_servers.sentinel() as redis:
        options = {
            "TIDEWIRE_ENGINE_REDIS_SENTINEL_ADDRESS": " ".join(redis.addresses),
            "TIDEWIRE_ENGINE_REDIS_SENTINEL_MASTER_NAME": redis.master_name,
        }
        async with nodes(2, options) as servers, following(servers, CHANNELS) as followers:
            async with Publishers(servers, CHANNELS) as publishers:
                await publishers.until_done()
                dead = redis.kill_master()
                await publishers.until_failed()
                await asyncio.to_thread(redis.wait_for_other_than, dead)
                await publishers.until_done()
            await until_caught_up(publishers, followers)

            assert all(follower.closes == [] for follower in followers)
            assert_whole_or_told(publishers, followers)


async def test_an_sdk_goes_through_a_crash_of_redis(nodes: Nodes) -> None:
    """An unmodified SDK sees a subscription end and come back recovered, and no disconnect."""
    with redis_servers.single(is_durable=True) as redis:
        async with nodes(2, on(redis)) as servers:
            sdks = [
                await Sdk.start(kind, server.websocket_url)
                for server, kind in zip(servers, ("js-protobuf", "python-json"), strict=True)
            ]
            try:
                for sdk in sdks:
                    await sdk.connect()
                    await sdk.subscribe("long:sdk")
                async with Publishers(servers, ["long:sdk"]) as publishers:
                    await publishers.until_done()
                    redis.kill()
                    await publishers.until_failed()
                    await asyncio.to_thread(redis.restart)
                    await publishers.until_done()
                done = publishers.done["long:sdk"]
                for sdk in sdks:
                    await sdk.wait("publication", data={"n": done[-1], "padding": ""})

                    seen = [event["data"]["n"] for event in sdk.seen("publication")]
                    unknown = set(publishers.failed["long:sdk"])
                    assert [n for n in seen if n not in unknown] == done
                    assert sdk.seen("disconnected") == []
                    assert len(sdk.seen("connected")) == 1
            finally:
                for sdk in sdks:
                    await sdk.close()


# --- messages are lost --------------------------------------------------------------------------------


async def test_subscriptions_are_cut_under_load_with_2000_groups(nodes: Nodes) -> None:
    """All groups are joined again, all positions are checked in one go, and all channels go on whole."""
    channels = [f"long:{number}" for number in range(2000)]
    busy = channels[:40]
    with redis_servers.single() as redis:
        async with (
            nodes(2, on(redis)) as servers,
            following(servers, channels, each=1) as followers,
            Publishers(servers, busy, pause=0.05) as publishers,
        ):
            await publishers.until_done()
            for _ in range(3):
                assert redis.kill_subscribers() >= 2
                await eventually(
                    lambda: _subscribers(redis) == 2 * len(channels), "all groups joined again"
                )
                await publishers.until_done()
            # A channel that was quiet all the time is heard again, too.
            for channel in channels[-20:]:
                assert await publishers.publish(channel, 1, servers[0])
            publishers._is_open = False
            await until_caught_up(publishers, followers)

            assert all(follower.closes == [] for follower in followers)
            assert not publishers.failed
            assert_whole(publishers, followers)


def _subscribers(redis: RedisServer) -> int:
    names = redis.call("PUBSUB", "CHANNELS", "centrifugo__group__*")
    return sum(redis.call("PUBSUB", "NUMSUB", *names)[1::2]) if names else 0


@pytest.mark.parametrize("has_follower", [True, False], ids=["followed", "last"])
async def test_a_message_that_never_arrives_is_noticed(nodes: Nodes, *, has_follower: bool) -> None:
    """By the next publication if there is one, else by the periodic check; the client then recovers."""
    with redis_servers.single() as redis:
        async with (
            CuttingProxy(redis.port) as proxy,
            nodes(
                1,
                {"TIDEWIRE_ENGINE_REDIS_ADDRESS": proxy.address},
                TIDEWIRE_CLIENT_CHANNEL_POSITION_CHECK_DELAY="1h" if has_follower else "1s",
            ) as servers,
            nodes_beside(nodes, on(redis)) as beside,
            Follower(servers[0], ["long:a"]) as follower,
            Publishers(beside, []) as publishers,
        ):
            assert await publishers.publish("long:a", 1, beside[0])
            await eventually(lambda: follower.received["long:a"] == [1])
            proxy.drop_messages_of(b"long:a")
            assert await publishers.publish("long:a", 2, beside[0])
            await eventually(lambda: proxy.dropped == 1)
            if has_follower:
                await asyncio.sleep(0.3)
                assert follower.received["long:a"] == [1]
                assert await publishers.publish("long:a", 3, beside[0])
            await until_caught_up(publishers, [follower])

            assert follower.ended == {"long:a": 1}
            assert_whole(publishers, [follower])


@contextlib.asynccontextmanager
async def nodes_beside(nodes: Nodes, redis: Mapping[str, str]) -> AsyncIterator[list[Server]]:
    """Start one more node, in a folder of its own."""
    async with nodes(2, redis) as servers:
        yield servers[1:]


# --- clients that come at the wrong time, nodes that don't keep up ------------------------------------


async def test_a_join_during_an_outage_is_refused_and_comes_later(nodes: Nodes) -> None:
    """A client that wants a new channel meanwhile is sent to connect again, and has it afterwards; others stay."""
    with redis_servers.single(is_durable=True) as redis:
        async with (
            nodes(1, on(redis)) as servers,
            Follower(servers[0], ["long:old"]) as patient,
            Follower(servers[0], ["long:old"]) as curious,
            Publishers(servers, ["long:old"]) as publishers,
        ):
            await publishers.until_done()
            redis.kill()
            await publishers.until_failed()
            await curious.subscribe("long:new")
            await eventually(lambda: len(curious.closes) >= 2, "sent away, and refused again")
            assert set(curious.closes) == {REJOINED_CODE}
            await asyncio.to_thread(redis.restart)
            await publishers.until_done()
            await curious.until_subscribed()
            assert await publishers.publish("long:new", 1, servers[0])
            await publishers.stop()
            await until_caught_up(publishers, [patient, curious])

            assert patient.closes == []
            assert_whole(publishers, [patient, curious])


async def test_a_node_that_does_not_keep_up_is_cut_off_and_comes_back(nodes: Nodes) -> None:
    """Redis drops its subscriptions when too much waits for it; its clients recover, the other node's notice nothing."""
    limit = "client-output-buffer-limit pubsub 256kb 0 0"
    with redis_servers.single(lines=[limit]) as redis:
        async with nodes(2, on(redis)) as servers, following(servers, CHANNELS) as followers:
            fast, slow = servers
            async with Publishers([fast], CHANNELS, pause=0.0, padding=16_384) as publishers:
                await publishers.until_done()
                os.kill(slow.pid, signal.SIGSTOP)
                try:
                    await eventually(
                        lambda: "closed ASAP for overcoming of output buffer limits" in redis.log,
                        "cut off",
                    )
                finally:
                    os.kill(slow.pid, signal.SIGCONT)
                await publishers.until_done()
            await until_caught_up(publishers, followers)

            assert not publishers.failed
            assert_whole(publishers, followers)
            assert all(follower.closes == [] for follower in followers)
            assert all(
                follower.ended == Counter() for follower in followers if follower.server is fast
            )


# --- everything at once -------------------------------------------------------------------------------


class Faults:
    """Random faults on a Redis and its nodes, each mended before the next; ``counts`` says what happened."""

    def __init__(
        self, seed: int, redis: RedisServer, servers: Sequence[Server], followers: list[Follower]
    ) -> None:
        self.random = random.Random(seed)
        self.redis = redis
        self.servers = servers
        self.followers = followers
        self.counts: Counter[str] = Counter()

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))

    async def run(self, seconds: float) -> None:
        """Let things fail for so long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        faults = [
            self.crash_redis,
            self.hang_redis,
            self.cut_subscriptions,
            self.cut_commands,
            self.cut_clients,
            self.hang_node,
        ]
        while loop.time() < end:
            fault = self.random.choice(faults)
            self.counts[fault.__name__] += 1
            await fault()
            await asyncio.sleep(self.random.uniform(0.1, 2.0))

    async def crash_redis(self) -> None:
        self.redis.kill()
        await asyncio.sleep(self.random.uniform(0.0, 3.0))
        await asyncio.to_thread(self.redis.restart)

    async def hang_redis(self) -> None:
        self.redis.pause()
        await asyncio.sleep(self.random.uniform(0.1, 4.0))
        self.redis.resume()

    async def cut_subscriptions(self) -> None:
        await asyncio.to_thread(self.redis.kill_subscribers)

    async def cut_commands(self) -> None:
        await asyncio.to_thread(self.redis.kill_clients)

    async def cut_clients(self) -> None:
        for follower in self.random.sample(self.followers, len(self.followers) // 2):
            follower.cut()

    async def hang_node(self) -> None:
        server = self.random.choice(self.servers)
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(self.random.uniform(0.1, 3.0))
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.timeout(FAULT_SECONDS + 180)
async def test_whatever_fails_everybody_has_what_was_published(
    nodes: Nodes,
) -> None:
    """Faults at random over three nodes: what was reported as published is what every client received, in order."""
    with redis_servers.single(is_durable=True) as redis:
        async with (
            nodes(3, on(redis), TIDEWIRE_ENGINE_REDIS_IO_TIMEOUT="1s") as servers,
            following(servers, CHANNELS, each=3) as followers,
        ):
            faults = Faults(FAULT_SEED, redis, servers, followers)
            async with Publishers(servers, CHANNELS) as publishers:
                await faults.run(FAULT_SECONDS)
                await publishers.until_done()
            await until_caught_up(publishers, followers)

            received = assert_whole(publishers, followers)
            done = sum(map(len, publishers.done.values()))
            failed = sum(map(len, publishers.failed.values()))
            ended = sum(follower.ended.total() for follower in followers)
            # Seen with --log-cli-level=INFO.
            logger.info(
                "seed %s, %s s: %s; %s published, %s refused, %s received by %s clients, recovered %s times, "
                "slowest answer %.1f s",
                *(FAULT_SEED, FAULT_SECONDS, faults, done, failed, received, len(followers), ended),
                publishers.slowest,
            )
            assert done > 10 * FAULT_SECONDS
