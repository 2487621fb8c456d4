"""What is the memory store's own about maps: what it keeps, and what pages cost."""

from __future__ import annotations

import random

import pytest
from msgspec import Raw

from realtime.engines.maps import IF_EXISTS, IF_NEW, PLAIN_CHANGE, MapChange, StateFilter
from realtime.engines.memory_maps import MemoryMaps
from realtime.namespaces.options import MapRules
from realtime.protocol.messages import Publication
from tests.engines.backends import Delivery, FakeClock, RecordingNode
from tests.engines.test_maps import EPHEMERAL, PERSISTENT, RECOVERABLE, WHOLE_STREAM


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def maps(clock: FakeClock) -> MemoryMaps:
    return MemoryMaps(clock)


async def put(
    maps: MemoryMaps, key: str, rules: MapRules = RECOVERABLE, change: MapChange = PLAIN_CHANGE
) -> str:
    return (await maps.publish("c", Publication(key=key, data=Raw(b"1")), rules, change)).suppressed


@pytest.mark.parametrize("rules", [EPHEMERAL, RECOVERABLE])
async def test_nothing_is_left_of_a_map_that_ended(
    maps: MemoryMaps, clock: FakeClock, rules: MapRules
) -> None:
    """Whether it ended by expiry, by removal, or never began; its results go with their own time."""
    await put(maps, "expired", rules)
    await put(maps, "once", rules, MapChange(idempotency_key="i"))
    await maps.remove("c", Publication(key="once"), rules, PLAIN_CHANGE)
    await maps.publish("never", Publication(key="k"), rules, MapChange(key_mode=IF_EXISTS))
    await maps.read_state("read", rules, StateFilter(limit=9))
    await maps.read_stream("read too", rules, WHOLE_STREAM)

    for _ in range(80):
        clock.advance(10)
        maps.sweep(clock.now)

    assert (maps._maps, maps._heap) == ({}, [])


async def test_a_key_that_is_written_again_and_again_costs_one_deadline(
    maps: MemoryMaps, clock: FakeClock
) -> None:
    """A refresh moves the key's end and leaves the heaps alone."""
    for number in range(500):
        change = MapChange(key_mode=IF_NEW, refresh_ttl=True) if number % 2 else PLAIN_CHANGE
        await put(maps, "k", RECOVERABLE, change)
        clock.advance(1)
        maps.sweep(clock.now)

    (kept,) = maps._maps.values()
    assert len(kept.deadlines) == 1
    assert len(maps._heap) <= 3  # the next key, the stream, and one from before
    assert await maps.count("c") == 1


async def test_a_closed_store_is_empty_and_tells_nobody(maps: MemoryMaps, clock: FakeClock) -> None:
    """And may be closed twice."""
    node = RecordingNode()
    await maps.start(node)
    await put(maps, "k")
    await maps.close()
    await maps.close()

    clock.advance(61)
    maps.sweep(clock.now)
    await put(maps, "k")

    assert len(node.deliveries) == 1
    assert await maps.count("c") == 1


@pytest.mark.parametrize("seed", range(4))
async def test_pages_of_a_large_map_under_much_change(maps: MemoryMaps, seed: int) -> None:
    """Keys that come one by one or by the hundred, and that go by the hundred, are where they belong."""
    chance = random.Random(seed)
    there: set[str] = set()
    for _ in range(25):
        for _ in range(chance.choice([1, 3, 200])):
            name = f"k{chance.randrange(1000)}"
            if chance.random() < 0.6:
                there.add(name)
                await put(maps, name, PERSISTENT)
            else:
                there.discard(name)
                await maps.remove("c", Publication(key=name), PERSISTENT, PLAIN_CHANGE)
        found: list[str] = []
        cursor = ""
        while True:
            page = await maps.read_state("c", PERSISTENT, StateFilter(50, cursor))
            found += [entry.publication.key for entry in page.entries]
            cursor = page.cursor
            if not cursor:
                break
        assert found == sorted(there)


async def test_a_stored_value_does_not_keep_its_frame(maps: MemoryMaps) -> None:
    """A payload that was cut from a frame of 64 KB is stored without the rest."""
    frame = memoryview(b"x" * 65536)
    await maps.publish("c", Publication(key="k", data=Raw(frame[:3])), RECOVERABLE, PLAIN_CHANGE)

    page = await maps.read_state("c", RECOVERABLE, StateFilter(limit=1))

    data = page.entries[0].publication.data
    assert bytes(data) == b"xxx"
    assert memoryview(data).obj is not frame.obj


async def test_a_write_is_told_before_it_returns(maps: MemoryMaps, clock: FakeClock) -> None:
    """No coroutine suspends, so nothing comes between the change and its delivery."""
    node = RecordingNode()
    await maps.start(node)

    coroutine = maps.publish("c", Publication(key="k"), RECOVERABLE, PLAIN_CHANGE)
    with pytest.raises(StopIteration) as returned:
        coroutine.send(None)

    (delivery,) = node.deliveries
    assert isinstance(delivery, Delivery)
    assert delivery.position == returned.value.value.position
