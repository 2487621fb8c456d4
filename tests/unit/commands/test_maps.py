"""What a caller can't see through a door at a fixed time: patches, expiry, and a stream that ran dry."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from realtime import commands
from realtime.engines.base import NobodyListens
from realtime.engines.memory_maps import MemoryMaps
from realtime.namespaces.options import ChannelOptions, MapOptions
from realtime.namespaces.table import NamespaceTable
from realtime.protocol.api_messages import (
    MapPublishRequest,
    MapReadStateRequest,
    MapReadStreamRequest,
    MapRemoveRequest,
    MapStatsRequest,
)
from realtime.protocol.errors import UnrecoverablePositionError


RECOVERABLE = MapOptions(mode="recoverable", key_ttl=100.0, stream_ttl=10.0)
NAMESPACES = {
    "map": ChannelOptions(subscription_type="map", map=RECOVERABLE),
    "delta": ChannelOptions(subscription_type="map", map=RECOVERABLE, delta_publish=True),
}


class Told(NobodyListens):
    """Keeps what subscribers would be told."""

    def __init__(self) -> None:
        self.changes: list[tuple[Any, bool, Any]] = []

    def on_publication(
        self,
        channel: str,
        publication: Any,
        position: Any,
        *,
        delta: bool = False,
        previous: Any = None,
        published_at: float = 0,
    ) -> None:
        self.changes.append((publication, delta, previous))


@pytest.fixture
async def node() -> Any:
    """What commands need of a node; ``now`` is its clock, ``told`` what was delivered."""
    node = SimpleNamespace(now=1000.0, told=Told(), table=NamespaceTable(namespaces=NAMESPACES))
    node.maps = MemoryMaps(lambda: node.now)
    await node.maps.start(node.told)
    return node


async def put(node: Any, channel: str, key: str, data: bytes, **facts: Any) -> Any:
    """Write a key."""
    request = MapPublishRequest(channel=channel, key=key, data=Raw(data), **facts)
    return await commands.map_publish(node, request)


@pytest.mark.parametrize(("channel", "asks"), [("map:a", True), ("delta:a", False)])
async def test_a_patch_is_of_what_the_key_had(node: Any, channel: str, asks: bool) -> None:
    """Where the publisher or the namespace allows it; another key's value does not matter."""
    await put(node, channel, "k", b"1", delta=asks)
    await put(node, channel, "other", b"2", delta=asks)
    await put(node, channel, "k", b"3", delta=asks)

    publication, delta, previous = node.told.changes[-1]
    assert (bytes(publication.data), delta, bytes(previous.data)) == (b"3", True, b"1")
    assert node.told.changes[0][1:] == (True, None)


async def test_without_either_there_is_no_patch(node: Any) -> None:
    """Nothing is kept for it."""
    await put(node, "map:a", "k", b"1")
    await put(node, "map:a", "k", b"2")

    assert [told[1:] for told in node.told.changes] == [(False, None), (False, None)]


async def test_a_removal_has_no_patch(node: Any) -> None:
    """Not even in a namespace whose publications all have one."""
    await put(node, "delta:a", "k", b"1", tags={"t": "1"})
    await commands.map_remove(node, MapRemoveRequest("delta:a", "k"))

    publication, delta, _ = node.told.changes[-1]
    assert (publication.removed, publication.tags, delta) == (True, {"t": "1"}, False)


async def test_changes_that_the_stream_lost_are_not_passed_over(node: Any) -> None:
    """An empty stream says nothing of what was in it; who has everything may go on."""
    for data in (b"1", b"2"):
        top = await put(node, "map:a", "k", data)
    node.now += 11

    def read(offset: int, **what: Any) -> Any:
        request = MapReadStreamRequest("map:a", offset, top.epoch, limit=-1, **what)
        return commands.map_read_stream(node, request)

    with pytest.raises(UnrecoverablePositionError):
        await read(1)
    up_to_date = await read(2)
    downwards = await read(2, reverse=True)

    assert (up_to_date.entries, up_to_date.offset) == ([], 2)
    assert downwards.entries == []


async def test_an_expired_key_is_there_until_it_is_swept(node: Any) -> None:
    """So that nobody is told of the end of what they could not see."""
    await put(node, "map:a", "k", b"1")
    node.now += 101

    before = await commands.map_read_state(node, MapReadStateRequest("map:a", limit=-1))
    node.maps.sweep(node.now)
    after = await commands.map_read_state(node, MapReadStateRequest("map:a", limit=-1))
    changes = await commands.map_read_stream(node, MapReadStreamRequest("map:a", limit=-1))
    stats = await commands.map_stats(node, MapStatsRequest("map:a"))

    assert ([entry.key for entry in before.entries], before.offset) == (["k"], 1)
    assert (after.entries, after.offset, stats.num_keys) == ([], 2, 0)
    assert [(entry.key, entry.removed) for entry in changes.entries] == [("k", True)]
    assert node.told.changes[-1][0].removed
