"""Values of polled keys on their way between nodes, and what applications publish for nodes to hear."""

from __future__ import annotations

import asyncio

import pytest

from realtime.conf.durations import parse_duration
from realtime.conf.options import RedisOptions
from realtime.engines.redis.addresses import deployments
from realtime.engines.redis.notices import RedisNotices
from realtime.node.polls.feeds import Feeds, KeyPublish, publish_key, read_publish
from tests.engines.backends import EngineUnderTest
from tests.redis_servers import RedisServer, single, wait_until


VALUES = [
    KeyPublish("prices:eu", "btc", b'{"p":1}', 1, "one"),
    KeyPublish("prices:eu", "\u00e4 key: of \u20ac", b"\xff\x00 no JSON", 2**64 - 1),
    KeyPublish("prices:e", "ubtc", b"", 3),
]


async def test_values_reach_who_joined_their_key(engine: EngineUnderTest) -> None:
    """As they are, whatever is in them; a name's length keeps two channels apart."""
    feeds = Feeds(engine.broker)
    for value in VALUES:
        await feeds.join(value.channel, [value.key])

    for value in VALUES:
        await publish_key(engine.broker, value)

    await engine.node.until(lambda: len(engine.node.deliveries) == 3)
    told = {each.channel: read_publish(each.publication) for each in engine.node.deliveries}
    assert set(told) == feeds.joined
    assert sorted(told.values(), key=lambda value: value.version) == sorted(
        VALUES, key=lambda value: value.version
    )


async def test_keys_that_were_left_are_silent(engine: EngineUnderTest) -> None:
    """But for those that were joined again in time."""
    feeds = Feeds(engine.broker)
    await feeds.join("c", ["a", "b"])
    feeds.leave("c", ["a", "b", "unknown"])
    await feeds.join("c", ["b"])

    await feeds.tidy()

    assert [name[-1] for name in feeds.joined] == ["b"]
    await publish_key(engine.broker, KeyPublish("c", "b", b"1", 1))
    await engine.node.until(lambda: bool(engine.node.deliveries))
    assert [read_publish(each.publication).key for each in engine.node.deliveries] == ["b"]


@pytest.mark.redis
async def test_notifications_are_heard_after_an_outage_too() -> None:
    """On the channel of this name alone; what was said meanwhile is lost."""
    with single() as server:
        options = RedisOptions(address=(server.address,))
        places = deployments(options, parse_duration=parse_duration)
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        notices = RedisNotices(places, "hints")
        await notices.start(heard.put_nowait)
        try:
            await _say(server, heard, b"first")
            server.kill()
            server.start()
            await _say(server, heard, b"second")
        finally:
            await notices.close()
        assert server.call("PUBLISH", "hints", "nobody") == 0
        assert heard.empty()


async def _say(server: RedisServer, heard: asyncio.Queue[bytes], text: bytes) -> None:
    """Publish until somebody listens, and wait until it is heard, and nothing else."""
    server.call("PUBLISH", "other", b"not for us")
    await asyncio.to_thread(
        wait_until, lambda: server.call("PUBLISH", "hints", text) > 0, "there is a listener"
    )
    assert await asyncio.wait_for(heard.get(), 30) == text
