"""A node at its broker: a channel is joined with the first subscriber and left after the last, whatever takes its time."""

from __future__ import annotations

import asyncio

from realtime.engines.memory import MemoryEngine
from realtime.node import node as node_module


class SlowBroker(MemoryEngine):
    """Keeps what is subscribed; leaving waits until the test lets it."""

    def __init__(self, clock):
        super().__init__(clock)
        self.subscribed = set()
        self.is_leaving = asyncio.Event()
        self.may_leave = asyncio.Event()

    async def subscribe(self, channel):
        self.subscribed.add(channel)

    async def unsubscribe(self, channel):
        self.is_leaving.set()
        await self.may_leave.wait()
        self.subscribed.discard(channel)


async def test_who_comes_while_the_channel_is_left_is_not_deaf(node, connect, clock):
    """The join waits for the leave and is carried out after it."""
    broker = node.broker = SlowBroker(clock)
    first, second = connect(), connect()
    first.send({"id": 2, "subscribe": {"channel": "a"}})
    first.send({"id": 3, "unsubscribe": {"channel": "a"}})
    clock.now += node_module.LEAVE_DELAY
    node._tick()
    await asyncio.wait_for(broker.is_leaving.wait(), 30)

    early = second.send({"id": 2, "subscribe": {"channel": "a"}})
    broker.may_leave.set()
    await asyncio.wait_for(asyncio.gather(*node._tasks), 30)
    late = second.received()

    assert early == []
    assert "subscribe" in late[0]
    assert broker.subscribed == {"a"}
