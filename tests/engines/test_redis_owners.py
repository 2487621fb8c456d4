"""
A master that is another one just when something is on its way: what servers say is played, so that it comes in that moment.

Names that are subscribed have to be where they are published, whatever was known a moment ago.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hiredis import Reader

from realtime.engines.redis.addresses import Deployment, Endpoint
from realtime.engines.redis.cluster import ClusterShard
from realtime.engines.redis.connection import SubscriptionConnection
from realtime.engines.redis.sentinel import SentinelShard
from tests import redis_servers
from tests.engines.test_redis_topologies import eventually


pytestmark = pytest.mark.redis


class PlayedServer:
    """Answers commands on a port of its own."""

    port = 0

    async def start(self):
        self._serving = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self):
        self._server.close()
        await self._server.wait_closed()
        await asyncio.wait_for(asyncio.gather(*self._serving), 5)

    async def _serve(self, reader, writer):
        self._serving.add(asyncio.current_task())
        commands = Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    writer.write(self.answer(command))
            writer.close()
            await writer.wait_closed()

    def answer(self, command):
        raise NotImplementedError


# --- a cluster that changes its mind ------------------------------------------------------------------


class FickleServer(PlayedServer):
    """
    Speaks as a server of a cluster that has all slots on one.

    Attributes:
        owner: The port that it says has the slots.
        is_stuck: Whether it doesn't answer who would leave a name.
        takes_away: Whether it gives the slots away as soon as a name is subscribed, and has them back at once.
        names: What is subscribed.
        subscribes: How often something was.

    """

    def __init__(self, *, takes_away=False, is_stuck=False):
        self.takes_away = takes_away
        self.is_stuck = is_stuck
        self.names = set()
        self.subscribes = 0

    async def start(self):
        await super().start()
        self.owner = self.port

    def answer(self, command):
        match command:
            case [b"HELLO", *_]:
                return b"%1\r\n+mode\r\n+cluster\r\n"
            case [b"CLUSTER", b"SLOTS"]:
                host = b"$9\r\n127.0.0.1\r\n"
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n%b:%d\r\n" % (host, self.owner)
            case [b"ssubscribe", name]:
                self.subscribes += 1
                if self.takes_away and self.subscribes == 1:
                    # Both in one read: whoever waits for the first finds the second done.
                    return _pushed(b"ssubscribe", name) + _pushed(b"sunsubscribe", name)
                self.names.add(name)
                return _pushed(b"ssubscribe", name)
            case [b"sunsubscribe", _] if self.is_stuck:
                return b""
            case [b"sunsubscribe", name]:
                self.names.discard(name)
                return _pushed(b"sunsubscribe", name)
            case _:
                return b"+OK\r\n"


def _pushed(kind, name):
    return b">3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(name), name)


class Hearing:
    """Keeps the messages."""

    def __init__(self):
        self.heard = []

    def on_message(self, name, payload):
        self.heard.append((name, payload))

    def on_lost(self, shard): ...

    def on_restored(self, shard, names=None): ...


@contextlib.asynccontextmanager
async def shard_on(*servers):
    for server in servers:
        await server.start()
    seeds = tuple(Endpoint(port=server.port) for server in servers)
    shard = ClusterShard(Deployment(kind="cluster", data=seeds[0], seeds=seeds), Hearing())
    await shard.start()
    yield shard
    await shard.close()
    for server in servers:
        await server.close()


async def test_a_name_that_is_taken_away_with_its_confirmation_is_subscribed_again():
    """
    Its slot moved in the same moment; who subscribed has not heard yet that it was confirmed.

    Before, the name was taken for subscribed where it was not, and nobody looked: the slots have the owner that they had.
    """
    server = FickleServer(takes_away=True)
    async with shard_on(server) as shard:
        await shard.subscribe(b"{a}")
        await eventually(shard._is_whole)

        assert server.names == {b"{a}"}


async def test_a_name_is_not_left_on_a_master_that_lost_its_slots_meanwhile(monkeypatch):
    """
    The cluster is looked at after the confirmation has come, and before who waited for it goes on.

    Before, the name stayed where it was, on a connection that was closed then.
    """
    old, new = FickleServer(), FickleServer()
    async with shard_on(old, new) as shard:
        subscribe = SubscriptionConnection.subscribe

        async def subscribe_and_fail_over(connection, name):
            await subscribe(connection, name)
            if old.owner == old.port:
                old.owner = new.owner = new.port
                await shard._refresh()

        monkeypatch.setattr(SubscriptionConnection, "subscribe", subscribe_and_fail_over)
        await shard.subscribe(b"{a}")
        await eventually(shard._is_whole)

        assert new.names == {b"{a}"}


async def test_nobody_waits_for_a_master_that_has_no_slots_any_more():
    """
    It was replaced because it does not answer: what was subscribed there is where it belongs within a moment.

    Before, the first name was waited for until the connection was given up, four seconds in which nothing was heard.
    """
    old, new = FickleServer(is_stuck=True), FickleServer()
    async with shard_on(old, new) as shard:
        await shard.subscribe(b"{a}")
        old.owner = new.owner = new.port

        shard.wake()
        await eventually(lambda: new.names == {b"{a}"}, seconds=2)


# --- a sentinel that has changed its mind ---------------------------------------------------------------


class FakeSentinel(PlayedServer):
    """Names a master, and never tells of another one by itself."""

    def __init__(self):
        self.master = 0

    def answer(self, command):
        match command:
            case [b"HELLO", *_]:
                return b"%1\r\n+mode\r\n+sentinel\r\n"
            case [b"SENTINEL", *_]:
                port = str(self.master).encode()
                return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
            case [b"subscribe", name]:
                return _pushed(b"subscribe", name)
            case _:
                return b"+OK\r\n"


async def test_both_connections_go_to_the_new_master_if_one_finds_it():
    """
    The old master is cut off from its sentinels, and not from us: nothing ends the connection that works.

    Before, messages were waited for where nobody publishes any more, since what the sentinels named was what one of the
    connections had found already.
    """
    sentinel, hearing = FakeSentinel(), Hearing()
    await sentinel.start()
    seed = Endpoint(port=sentinel.port)
    deployment = Deployment(kind="sentinel", seeds=(seed,), master_name="main")
    shard = SentinelShard(deployment, hearing)
    with redis_servers.several(2) as (server, successor):
        sentinel.master = server.port
        await shard.start()
        await shard.subscribe(b"a")

        sentinel.master = successor.port
        server.call("CLIENT", "KILL", "TYPE", "normal")
        await eventually(lambda: successor.call("PUBSUB", "NUMSUB", "a")[1] == 1)
        await shard.publish(b"a", b"1")
        await eventually(lambda: bool(hearing.heard))

        assert hearing.heard == [(b"a", b"1")]
        await shard.close()
    await sentinel.close()
