"""``CHANNEL_LAYERS["realtime"]`` as a channel layer: what consumers of a project may do with it."""

from __future__ import annotations

import asyncio

import pytest

from realtime.engines.redis.keys import group_of
from tests.engines.backends import redis_under_test
from tests.engines.test_publish import HISTORY, publication


pytestmark = pytest.mark.redis


@pytest.fixture
async def redis():
    async with redis_under_test() as under_test:
        yield under_test


async def test_channels_and_groups_work_as_ever(redis):
    """Send to a channel, to a group, and leave it; a join counts when it returns."""
    layer = redis.engine.channel_layer
    one, other = await layer.new_channel(), await layer.new_channel("specific.")
    await layer.group_add("chat", one)
    await layer.group_add("chat", other)

    await layer.send(one, {"type": "direct", "data": b"\xff"})
    await layer.group_send("chat", {"type": "to.all"})
    # Before it leaves: what is still on its way then is nobody's.
    assert await asyncio.wait_for(layer.receive(other), 30) == {"type": "to.all"}
    await layer.group_discard("chat", other)
    await layer.group_send("chat", {"type": "to.one"})

    received = [await asyncio.wait_for(layer.receive(one), 30) for _ in range(3)]
    assert received == [{"type": "direct", "data": b"\xff"}, {"type": "to.all"}, {"type": "to.one"}]


async def test_a_consumer_may_listen_to_a_channels_group(redis):
    """Beside the node, which still gets everything, and after it has left."""
    layer, broker = redis.engine.channel_layer, redis.engine.broker
    mine = await layer.new_channel()
    await broker.subscribe("c")
    await layer.group_add(group_of("c"), mine)
    await broker.publish("c", publication(1), HISTORY)
    await redis.node.payloads(1)
    await broker.unsubscribe("c")

    await broker.publish("c", publication(2), HISTORY)

    received = [await asyncio.wait_for(layer.receive(mine), 30) for _ in range(2)]
    assert [message["data"] for message in received] == [b'{"n":1}', b'{"n":2}']
    assert len(redis.node.deliveries) == 1


async def test_a_consumer_that_leaves_does_not_take_the_node_along(redis):
    """The group is left with its last member."""
    layer, broker = redis.engine.channel_layer, redis.engine.broker
    mine = await layer.new_channel()
    await layer.group_add(group_of("c"), mine)
    await broker.subscribe("c")
    await layer.group_discard(group_of("c"), mine)

    await broker.publish("c", publication(1), HISTORY)

    assert await redis.node.payloads(1) == [b'{"n":1}']


async def test_what_nobody_receives_has_a_bound(redis, caplog):
    """Beyond it messages are dropped, and the log says so; the node loses nothing."""
    layer = redis.engine.channel_layer
    slow = await layer.new_channel()
    await layer.group_add(group_of("c"), slow)
    await redis.engine.broker.subscribe("c")

    for number in range(150):
        await redis.engine.broker.publish("c", publication(number), HISTORY)
    await redis.node.payloads(150)

    assert layer.of_loop().channels[slow].qsize() == 100
    assert "too slow" in caplog.text
