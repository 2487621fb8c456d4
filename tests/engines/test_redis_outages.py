"""A Redis that goes away, hangs, comes back empty or is too old; and the bounds of what waits for it."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from realtime.engines.base import NO_OPTIONS
from realtime.engines.redis import link
from realtime.engines.redis.addresses import Endpoint
from realtime.engines.redis.connection import (
    CommandConnection,
    FixedResolver,
    UnsupportedServerError,
)
from realtime.engines.redis.keys import group_of
from realtime.protocol.errors import EngineError
from tests import redis_servers
from tests.engines.backends import redis_under_test
from tests.engines.test_presence_and_messages import ANN
from tests.engines.test_publish import EVERYTHING, HISTORY, META_TTL, publication


pytestmark = pytest.mark.redis


@pytest.fixture
def server():
    """A Redis of this test's own, which it may end and stop."""
    with redis_servers.single() as started:
        yield started


async def works(broker):
    try:
        await broker.check()
    except EngineError:
        return False
    return True


async def until(broker, *, is_well):
    """Wait until the engine works, or knows that it does not."""
    async with asyncio.timeout(15):
        while await works(broker) is not is_well:  # noqa: ASYNC110 -- the engine has no event for it
            await asyncio.sleep(0.02)


# --- away -------------------------------------------------------------------------------------------


async def test_everything_fails_at_once_while_redis_is_away(server):
    """No call waits for it, whatever it is about."""
    async with redis_under_test(server) as redis:
        broker = redis.engine.broker
        server.kill()
        await until(broker, is_well=False)
        began = time.monotonic()

        for call in (
            lambda: broker.publish("c", publication(1), HISTORY),
            lambda: broker.publish("c", publication(1), NO_OPTIONS),
            lambda: broker.publish_join("c", ANN),
            lambda: broker.history("c", EVERYTHING, META_TTL),
            lambda: broker.remove_history("c"),
            lambda: broker.subscribe("c"),
            lambda: redis.presence.add("c", "c1", ANN),
            lambda: redis.presence.presence("c"),
            lambda: redis.presence.remove_node("another"),
            lambda: redis.engine.control_bus.publish_control(b"x"),
        ):
            with pytest.raises(EngineError):
                await call()

        assert time.monotonic() - began < 2  # all ten; a time limit is seconds for each


async def test_joined_channels_are_joined_again(server):
    """Without being asked, control messages too; the node is told to check its positions, once."""
    async with redis_under_test(server) as redis:
        broker, node = redis.engine.broker, redis.node
        names = [f"c{n}" for n in range(1200)]  # more than one command's
        await asyncio.gather(*(broker.subscribe(name) for name in names))
        await asyncio.to_thread(server.kill)
        await until(broker, is_well=False)
        assert node.lost == []
        await asyncio.to_thread(server.restart)

        await node.until(lambda: bool(node.lost))
        await asyncio.gather(*(broker.publish(name, publication(1), HISTORY) for name in names))
        await redis.engine.control_bus.publish_control(b"x")

        await node.payloads(len(names))
        await node.until(lambda: bool(node.controls))
        assert sorted(delivery.channel for delivery in node.deliveries) == sorted(names)
        assert node.lost == [None]


async def test_a_join_that_failed_is_not_there_later(server):
    """Nobody waits for it any more; a new one works."""
    async with redis_under_test(server) as redis:
        broker = redis.engine.broker
        await asyncio.to_thread(server.kill)
        await until(broker, is_well=False)
        with pytest.raises(EngineError):
            await broker.subscribe("c")
        await asyncio.to_thread(server.restart)
        await until(broker, is_well=True)
        name = f"{redis.options.prefix}__group__{group_of('c')}"

        assert server.call("PUBSUB", "NUMSUB", name)[1] == 0
        await broker.subscribe("c")
        await broker.publish("c", publication(1), HISTORY)
        assert await redis.node.payloads(1) == [b'{"n":1}']


async def test_a_channel_left_during_the_outage_stays_left(server):
    """It is not among those that are joined again."""
    async with redis_under_test(server) as redis:
        broker = redis.engine.broker
        await broker.subscribe("left")
        await broker.subscribe("kept")
        await asyncio.to_thread(server.kill)
        await until(broker, is_well=False)
        await broker.unsubscribe("left")
        await asyncio.to_thread(server.restart)
        await until(broker, is_well=True)

        channels = server.call("PUBSUB", "CHANNELS", f"{redis.options.prefix}__group__*")

        assert channels == [f"{redis.options.prefix}__group__{group_of('kept')}"]


async def test_a_start_without_redis_is_a_start(server, caplog):
    """It is logged once, and works as soon as Redis does: control messages were wanted from the beginning."""
    caplog.set_level(logging.INFO, "realtime")
    server.kill()
    async with redis_under_test(server) as redis:
        broker = redis.engine.broker
        with pytest.raises(EngineError):
            await broker.check()
        await asyncio.to_thread(server.restart)
        await until(broker, is_well=True)

        await broker.subscribe("c")
        await broker.publish("c", publication(1), HISTORY)
        await redis.engine.control_bus.publish_control(b"x")

        assert await redis.node.payloads(1) == [b'{"n":1}']
        await redis.node.until(lambda: bool(redis.node.controls))
        away = [r for r in caplog.records if r.getMessage().startswith("Redis is away")]
        back = [r for r in caplog.records if r.getMessage() == "Redis is back"]
        assert (len(away), len(back)) == (2, 2)  # commands and subscriptions
        assert redis.node.lost == []


# --- cut and hung -----------------------------------------------------------------------------------


async def test_a_cut_subscription_is_a_loss(server):
    """The node checks its positions, though publishing went on."""
    async with redis_under_test(server) as redis:
        broker, node = redis.engine.broker, redis.node
        await broker.subscribe("c")
        server.kill_subscribers()

        await node.until(lambda: bool(node.lost))
        await broker.publish("c", publication(1), HISTORY)

        assert node.lost == [None]
        assert await node.payloads(1) == [b'{"n":1}']


async def test_a_call_that_is_cut_fails(server):
    """Nobody knows whether it was carried out, and the caller is told so."""
    async with redis_under_test(server) as redis:
        server.pause()
        waiting = [
            asyncio.ensure_future(redis.engine.broker.publish("c", publication(n), HISTORY))
            for n in range(3)
        ]
        await asyncio.sleep(0.05)
        server.kill()

        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 30)

        assert [type(outcome) for outcome in outcomes] == [EngineError] * 3


async def test_an_answer_that_is_overdue_is_an_error(server):
    """A Redis that hangs holds nobody longer than the time limit; afterwards all is well."""
    async with redis_under_test(server, io_timeout=0.4) as redis:
        broker = redis.engine.broker
        await broker.subscribe("c")
        server.pause()
        began = time.monotonic()
        with pytest.raises(EngineError):
            await broker.publish("c", publication(1), HISTORY)
        took = time.monotonic() - began
        with pytest.raises(EngineError):
            await broker.subscribe("d")
        server.resume()
        await until(broker, is_well=True)

        await broker.publish("c", publication(2), HISTORY)

        assert 0.3 < took < 2
        last = redis.node.deliveries
        await redis.node.until(
            lambda: bool(last) and bytes(last[-1].publication.data) == b'{"n":2}'
        )


# --- bounds -----------------------------------------------------------------------------------------


async def test_only_so_much_waits_for_redis(server, monkeypatch):
    """One command more is refused at once; those before are answered when Redis goes on."""
    monkeypatch.setattr(link, "MAX_PENDING", 8)
    async with redis_under_test(server) as redis:
        server.pause()
        waiting = [
            asyncio.ensure_future(redis.engine.broker.publish("c", publication(n), HISTORY))
            for n in range(8)
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(EngineError, match="8 commands are waiting"):
            await redis.engine.broker.publish("c", publication(9), HISTORY)
        server.resume()

        outcomes = await asyncio.gather(*waiting)

        assert [outcome.position.offset for outcome in outcomes] == list(range(1, 9))


async def test_only_so_many_bytes_wait_for_redis(server, monkeypatch):
    """Beyond them a command is refused at once."""
    monkeypatch.setattr(link, "MAX_UNSENT", 1 << 16)
    connection = CommandConnection(FixedResolver(Endpoint(port=server.port)))
    await connection.start()
    server.pause()
    waiting = []

    async def flood():
        for _ in range(200):
            waiting.append(connection.call("SET", "k", b"x" * (1 << 18)))
            await asyncio.sleep(0)

    with pytest.raises(EngineError, match="are waiting for Redis"):
        await flood()
    server.resume()

    assert set(await asyncio.gather(*waiting)) <= {b"OK", "OK"}
    await connection.close()


async def test_a_cancelled_call_disturbs_nobody(server):
    """Its answer is thrown away, and the ones behind it reach their callers."""
    connection = CommandConnection(FixedResolver(Endpoint(port=server.port)))
    await connection.start()
    first, second = connection.call("ECHO", "a"), connection.call("ECHO", "b")
    first.cancel()

    assert await second == b"b"
    assert await connection.call("ECHO", "c") == b"c"
    await connection.close()


# --- who answers ------------------------------------------------------------------------------------


async def old_redis(reader, writer):
    """Speak as a Redis of before 6.2 would: it knows no RESP3."""
    info = b"redis_version:6.0.16\r\nredis_mode:standalone\r\n"
    while data := await reader.read(4096):
        if b"HELLO" in data:
            writer.write(b"-ERR unknown command `HELLO`\r\n")
        else:
            writer.write(b"$%d\r\n%b\r\n" % (len(info), info))
    writer.close()


async def test_a_server_that_is_too_old_is_refused_at_the_start():
    """Naming both versions and the place."""
    listening = await asyncio.start_server(old_redis, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    connection = CommandConnection(FixedResolver(Endpoint(port=port)))

    with pytest.raises(
        UnsupportedServerError, match=rf"127\.0\.0\.1:{port} is 6\.0\.16, expected 6\.2"
    ):
        await connection.start()

    listening.close()
    await listening.wait_closed()


@pytest.mark.parametrize("force_resp2", [False, True])
async def test_both_protocols(server, force_resp2):
    """Everything works in either, and the server is known."""
    async with redis_under_test(server, force_resp2=force_resp2) as redis:
        await redis.engine.broker.subscribe("c")
        await redis.engine.broker.publish("c", publication(1), HISTORY)
        await redis.presence.add("c", "c1", ANN)

        assert await redis.node.payloads(1) == [b'{"n":1}']
        assert dict(await redis.presence.presence("c")) == {"c1": ANN}
        clients = server.call("CLIENT", "LIST").splitlines()
        assert any("resp=3" in client for client in clients) is not force_resp2


async def test_a_wrong_password_is_named_and_never_shown(caplog):
    """The log says what Redis says; the password is not in it."""
    with redis_servers.single(password="the-right-one") as guarded:
        async with redis_under_test(guarded, password="a-wrong-one") as redis:
            with pytest.raises(EngineError):
                await redis.engine.broker.publish("c", publication(1), HISTORY)

    assert "WRONGPASS" in caplog.text
    assert "a-wrong-one" not in caplog.text
    assert "the-right-one" not in caplog.text
