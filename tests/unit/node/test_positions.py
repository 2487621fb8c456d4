"""After a loss a node compares its rooms with their streams, all of them in one go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from msgspec import Raw

from realtime.conf.options import ProcessOptions
from realtime.engines.base import HistoryFilter, PublishOptions
from realtime.node.node import Node
from realtime.protocol.messages import Publication
from tests.unit.client.conftest import Connection
from tests.unit.node.cluster import Cluster, settle


HISTORY = PublishOptions(history_size=10, history_ttl=60)
INSUFFICIENT_STATE = 2500


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    replace = msgspec.structs.replace
    default = ProcessOptions()
    client = replace(default.client, allow_anonymous_connect_without_token=True)
    made = Cluster(replace(default, client=client))
    await made.start()
    yield made
    await made.stop()


async def publish(node: Node, *channels: str) -> None:
    for channel in channels:
        await node.broker.publish(channel, Publication(data=Raw(b"{}")), HISTORY)
    await settle()


def told(connection: Connection) -> list[str]:
    """The channels that ended with insufficient state since the last look."""
    return [
        message["push"]["channel"]
        for message in connection.received()
        if message.get("push", {}).get("unsubscribe", {}).get("code") == INSUFFICIENT_STATE
    ]


async def told_later(connection: Connection) -> list[str]:
    """The same, once there is something: all are told at once, half a second after the loss."""
    async with asyncio.timeout(30):
        while not (heard := told(connection)):  # noqa: ASYNC110 -- the fake connection has no event
            await asyncio.sleep(0.02)
    return heard


async def test_all_rooms_that_missed_something_are_told_after_one_wait(cluster: Cluster) -> None:
    """A hundred channels wait for half a second together, and those in step are left alone."""
    a, b = await cluster.add("a"), await cluster.add("b")
    channels = [f"hist:{number}" for number in range(100)]
    connection = await cluster.connect(a, *channels)
    for _ in channels:
        await settle()  # one subscription after the other
    assert a.hub.num_subs == len(channels)
    missed = channels[::2]
    cluster.engine("a").is_cut_off = True
    await publish(b, *missed)
    cluster.engine("a").is_cut_off = False

    a.on_lost(None)

    assert sorted(await told_later(connection)) == sorted(missed)


async def test_only_the_named_channels_are_looked_at(cluster: Cluster) -> None:
    """Where the loss is known to be in some channels, the others cost nothing."""
    a, b = await cluster.add("a"), await cluster.add("b")
    connection = await cluster.connect(a, "hist:1", "hist:2")
    cluster.engine("a").is_cut_off = True
    await publish(b, "hist:1", "hist:2")
    cluster.engine("a").is_cut_off = False

    a.on_lost(["hist:1", "hist:unknown"])

    assert await told_later(connection) == ["hist:1"]


async def test_a_stream_that_fell_back_begins_a_new_epoch(cluster: Cluster) -> None:
    """
    A failover may take back what was delivered; its offsets are given away again.

    Who recovered by them would miss what has them now, so the epoch changes before anybody is told.
    """
    a = await cluster.add("a")
    connection = await cluster.connect(a, "hist:1", "hist:2")
    await publish(a, "hist:1", "hist:1", "hist:2")
    engine = cluster.backend.engine
    before = (await a.broker.history("hist:1", HistoryFilter(), 0)).top
    stream = engine._streams["hist:1"]
    stream.top = msgspec.structs.replace(stream.top, offset=1)
    connection.received()

    a.on_lost(None)

    assert await told_later(connection) == ["hist:1"]
    after = (await a.broker.history("hist:1", HistoryFilter(), 0)).top
    assert (before.offset, after.offset) == (2, 0)
    assert after.epoch != before.epoch
