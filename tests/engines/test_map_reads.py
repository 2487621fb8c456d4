"""What every store of maps does: pages, streams, expiry, and what ends a map."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from msgspec import Raw

from realtime.engines.base import NO_POSITION, HistoryFilter
from realtime.engines.maps import (
    IF_EXISTS,
    IF_NEW,
    PLAIN_CHANGE,
    MapChange,
    MapOutcome,
    StateFilter,
)
from realtime.namespaces.options import MapRules
from realtime.protocol.messages import Publication, StreamPosition
from tests.engines.map_backends import MapsUnderTest
from tests.engines.test_maps import (
    CHANNEL,
    EPHEMERAL,
    PERSISTENT,
    RECOVERABLE,
    WHOLE_STREAM,
    put,
    state,
    stream,
    take,
    told,
)


def keys_of(entries: Iterable[object]) -> list[str]:
    return [entry.publication.key for entry in entries]


async def pages(store: MapsUnderTest, limit: int, rules: MapRules = RECOVERABLE) -> list[list[str]]:
    found, cursor = [], ""
    while True:
        page = await store.maps.read_state(CHANNEL, rules, StateFilter(limit, cursor))
        found.append(keys_of(page.entries))
        cursor = page.cursor
        if not cursor:
            return found


# --- pages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [PERSISTENT, EPHEMERAL])
async def test_pages_go_by_the_bytes_of_keys(store: MapsUnderTest, rules: MapRules) -> None:
    """That is the order of code points; the last page says that it is the last, also where it is full."""
    names = ["b", "a", "Z", "é", "zz", "z", "10", "9", "\U0001f600", "￿"]
    for name in names:
        await put(store, name, rules=rules)
    expected = sorted(names, key=str.encode)

    assert await pages(store, 4, rules) == [expected[:4], expected[4:8], expected[8:]]
    assert await pages(store, 5, rules) == [expected[:5], expected[5:]]
    assert await pages(store, 10, rules) == [expected]
    assert list(await state(store, rules)) == expected


async def test_a_read_of_one_key_or_of_none(store: MapsUnderTest) -> None:
    """A key wins over limit and cursor; limit 0 is the position alone."""
    top = (await put(store, "b", b"1")).position
    top = (await put(store, "a", b"2")).position
    read = store.maps.read_state

    one = await read(CHANNEL, RECOVERABLE, StateFilter(limit=0, cursor="z", key="b"))
    missing = await read(CHANNEL, RECOVERABLE, StateFilter(limit=9, key="c"))
    none = await read(CHANNEL, RECOVERABLE, StateFilter())

    assert (keys_of(one.entries), one.top, one.cursor) == (["b"], top, "")
    for page in (missing, none):
        assert (list(page.entries), page.top, page.cursor) == ([], top, "")


async def test_an_unknown_map_is_empty_and_has_the_epoch_of_its_first_write(
    store: MapsUnderTest,
) -> None:
    """Who subscribes before the first write can go on from there."""
    page = await store.maps.read_state(CHANNEL, RECOVERABLE, StateFilter(limit=10))
    read = await store.maps.read_stream(CHANNEL, RECOVERABLE, WHOLE_STREAM)

    written = await put(store, "k")

    assert (list(page.entries), list(read.entries), page.cursor) == ([], [], "")
    assert page.top == read.top == StreamPosition(0, written.position.epoch)
    assert len(page.top.epoch) == 8
    assert await store.maps.count("map:other") == 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_key_that_stays_is_on_a_page_while_others_come_and_go(
    store: MapsUnderTest, seed: int
) -> None:
    """However keys around it change between two pages; and no key is on two."""
    chance = random.Random(seed)
    staying = {f"stay{number:03}" for number in range(0, 120, 3)}
    for name in staying:
        await put(store, name, rules=PERSISTENT)
    found: list[str] = []
    cursor = "start"
    while cursor:
        page = await store.maps.read_state(
            CHANNEL, PERSISTENT, StateFilter(7, "" if cursor == "start" else cursor)
        )
        found += keys_of(page.entries)
        cursor = page.cursor
        for _ in range(5):
            name = f"stay{chance.randrange(120):03}x"
            if chance.random() < 0.5:
                await put(store, name, rules=PERSISTENT)
            else:
                await take(store, name, PERSISTENT)

    assert staying <= set(found)
    assert found == sorted(set(found))


async def test_a_page_goes_on_behind_a_key_that_was_removed(store: MapsUnderTest) -> None:
    """A cursor need not be there any more."""
    for name in "abcdef":
        await put(store, name)
    first = await store.maps.read_state(CHANNEL, RECOVERABLE, StateFilter(limit=2))
    for name in "bcf":
        await take(store, name)
    await put(store, "bb")

    second = await store.maps.read_state(CHANNEL, RECOVERABLE, StateFilter(9, first.cursor))

    assert (keys_of(first.entries), keys_of(second.entries)) == (["a", "b"], ["bb", "d", "e"])
    assert second.cursor == ""


async def test_a_key_that_went_and_came_again_is_on_one_page(store: MapsUnderTest) -> None:
    """In its place, once."""
    for name in "abc":
        await put(store, name)
    await pages(store, 2)
    await take(store, "b")
    await put(store, "b")
    await put(store, "aa")
    await take(store, "aa")

    assert await pages(store, 2) == [["a", "b"], ["c"]]


# --- the stream -------------------------------------------------------------------------------------


async def test_parts_of_the_stream(store: MapsUnderTest) -> None:
    """``since`` is exclusive, and downwards the newest comes first."""
    for name in "abcd":
        await put(store, name)
    top = (await take(store, "a")).position

    async def read(what: HistoryFilter) -> list[int]:
        found = await store.maps.read_stream(CHANNEL, RECOVERABLE, what)
        assert found.top == top
        return [entry.publication.offset for entry in found.entries]

    def at(offset: int) -> StreamPosition:
        return StreamPosition(offset, top.epoch)

    assert await read(HistoryFilter()) == []
    assert await read(HistoryFilter(limit=2)) == [1, 2]
    assert await read(HistoryFilter(limit=-1, since=at(3))) == [4, 5]
    assert await read(HistoryFilter(limit=1, since=at(3))) == [4]
    assert await read(HistoryFilter(limit=-1, since=at(5))) == []
    assert await read(HistoryFilter(limit=2, reverse=True)) == [5, 4]
    assert await read(HistoryFilter(limit=-1, since=at(3), reverse=True)) == [2, 1]


async def test_the_stream_has_a_size_and_the_state_has_none(store: MapsUnderTest) -> None:
    """A gap shows: the first change that is left is not the one behind ``since``."""
    rules = MapRules(key_ttl=60, stream_size=3, stream_ttl=60, meta_ttl=600)
    for number in range(10):
        top = (await put(store, f"k{number}", rules=rules)).position

    read = await store.maps.read_stream(
        CHANNEL, rules, HistoryFilter(-1, StreamPosition(2, top.epoch))
    )

    assert [entry.publication.offset for entry in read.entries] == [8, 9, 10]
    assert read.top == top
    assert len(await state(store, rules)) == 10


async def test_the_stream_ends_all_at_once_and_the_rest_stays(store: MapsUnderTest) -> None:
    """Its TTL counts from the last change; keys, top and epoch are kept."""
    await put(store, "a", rules=PERSISTENT)
    await store.pass_time(40)
    top = (await put(store, "b", rules=PERSISTENT)).position
    await store.pass_time(40)
    before = await stream(store, PERSISTENT)
    await store.pass_time(21)
    after = await store.maps.read_stream(CHANNEL, PERSISTENT, WHOLE_STREAM)

    assert before == [(1, "a", False), (2, "b", False)]
    assert (list(after.entries), after.top) == ([], top)
    assert list(await state(store, PERSISTENT)) == ["a", "b"]
    assert (await put(store, "c", rules=PERSISTENT)).position == StreamPosition(3, top.epoch)


# --- expiry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [RECOVERABLE, EPHEMERAL])
async def test_a_key_that_is_due_is_removed_and_told_once(
    store: MapsUnderTest, rules: MapRules
) -> None:
    """It is there until the sweep, which removes it, appends the removal with its tags, and tells it."""
    await store.maps.subscribe(CHANNEL)
    await put(store, "k", b"1", rules, tags={"kind": "a"})
    await store.pass_time(59)
    await store.sweep()
    assert await state(store, rules) == {"k": b"1"}
    await store.pass_time(1.5)
    assert await state(store, rules) == {"k": b"1"}
    assert (await put(store, "k", rules=rules, change=MapChange(key_mode=IF_NEW))).suppressed

    await store.sweep()
    await store.sweep()

    assert await state(store, rules) == {}
    await put(store, "end", rules=rules)
    offsets = (1, 2, 3) if rules.has_stream else (0, 0, 0)
    expected = list(zip(offsets, ("k", "k", "end"), (False, True, False), strict=True))
    assert await told(store, 3) == expected
    assert await stream(store, rules) == (expected if rules.has_stream else [])
    removal = store.node.deliveries[1]
    assert removal.publication.tags == {"kind": "a"}
    assert (bytes(removal.publication.data), removal.delta) == (b"", False)
    assert removal.published_at == store.clock.now


async def test_a_write_lets_a_key_live_on(store: MapsUnderTest) -> None:
    """Its deadline counts from the last write, or from a suppressed one that asks for it."""
    refresh = MapChange(key_mode=IF_NEW, refresh_ttl=True)
    for name in ("written", "refreshed", "asked", "left"):
        await put(store, name, b"1")
    await store.pass_time(40)
    await put(store, "written", b"2")
    assert (await put(store, "refreshed", b"2", change=refresh)).suppressed == "key_exists"
    await put(store, "asked", b"2", change=MapChange(key_mode=IF_NEW))
    await store.sweep()

    await store.pass_time(30)
    await store.sweep()
    half = await state(store)
    await store.pass_time(31)
    await store.sweep()

    assert half == {"written": b"2", "refreshed": b"1"}
    assert await state(store) == {}
    removals = [change for change in await stream(store) if change[2]]
    assert [offset for offset, _, _ in removals] == [6, 7, 8, 9]
    assert {key for _, key, _ in removals[:2]} == {"asked", "left"}


async def test_a_key_that_was_due_and_was_written_again_stays(store: MapsUnderTest) -> None:
    """A late sweep looks at the deadline that there is now."""
    await put(store, "k", b"1")
    await store.pass_time(100)
    await put(store, "k", b"2")

    await store.sweep()

    assert await state(store) == {"k": b"2"}


async def test_other_ttls_from_the_next_write_on(store: MapsUnderTest) -> None:
    """Shorter, longer or none: what counts is what was given last."""
    short, none = MapRules(5, 100, 60, 600), MapRules(0, 100, 60, 600)
    for name in ("shorter", "ever"):
        await put(store, name)
    await put(store, "longer", rules=short)
    await put(store, "shorter", rules=short)
    await put(store, "ever", rules=none)
    await put(store, "longer")

    seen = []
    for seconds in (6, 55, 3600):
        await store.pass_time(seconds)
        await store.sweep()
        seen.append(list(await state(store)))

    assert seen == [["ever", "longer"], ["ever"], ["ever"]]


async def test_many_keys_of_many_maps_expire_in_one_sweep(store: MapsUnderTest) -> None:
    """More than one batch of a map, and maps on every server."""
    channels = [f"map:{number}" for number in range(70)]
    for channel in channels:
        await store.maps.publish(channel, Publication(key="k"), RECOVERABLE, PLAIN_CHANGE)
    for number in range(250):
        await put(store, f"k{number}")
    await store.pass_time(61)

    await store.sweep()

    assert [await store.maps.count(channel) for channel in channels] == [0] * 70
    assert await store.maps.count(CHANNEL) == 0
    assert len(await stream(store)) == RECOVERABLE.stream_size


# --- how long a map lives ---------------------------------------------------------------------------


async def test_the_record_lives_while_there_are_keys_and_then_for_its_ttl(
    store: MapsUnderTest,
) -> None:
    """A key's expiry is told in the stream it was written to, though the record's time was as short."""
    rules = MapRules(key_ttl=60, stream_size=10, stream_ttl=5, meta_ttl=60)
    await store.maps.subscribe(CHANNEL)
    epoch = (await put(store, "k", rules=rules)).position.epoch

    await store.pass_time(90)
    await store.sweep()
    kept = await store.maps.read_state(CHANNEL, rules, StateFilter())
    await store.pass_time(59)
    await store.sweep()
    still = await store.maps.read_state(CHANNEL, rules, StateFilter())
    await store.pass_time(61)
    await store.sweep()
    anew = await store.maps.read_state(CHANNEL, rules, StateFilter())

    assert kept.top == still.top == StreamPosition(2, epoch)
    assert await told(store, 2) == [(1, "k", False), (2, "k", True)]
    assert anew.top.offset == 0
    assert anew.top.epoch != epoch


async def test_a_record_without_a_ttl_stays(store: MapsUnderTest) -> None:
    """A persistent map's position outlives its keys by any time."""
    await put(store, "k", rules=PERSISTENT)
    top = (await take(store, "k", PERSISTENT)).position
    await store.pass_time(10_000_000)
    await store.sweep()

    assert (await store.maps.read_state(CHANNEL, PERSISTENT, StateFilter())).top == top


async def test_a_cleared_map_begins_anew(store: MapsUnderTest) -> None:
    """With another epoch, without keys, deadlines, versions or results."""
    await store.maps.subscribe(CHANNEL)
    change = MapChange(idempotency_key="i", version=7)
    before = (await put(store, "k", change=change)).position
    await store.maps.clear(CHANNEL)

    assert await store.maps.count(CHANNEL) == 0
    read = await store.maps.read_stream(CHANNEL, RECOVERABLE, WHOLE_STREAM)
    assert (list(read.entries), read.top.offset) == ([], 0)
    assert read.top.epoch != before.epoch
    missing = await put(store, "k", change=MapChange(key_mode=IF_EXISTS))
    assert missing == MapOutcome(read.top, "key_not_found")
    again = await put(store, "k", change=change)
    assert again == MapOutcome(StreamPosition(1, read.top.epoch))
    await store.pass_time(61)
    await store.sweep()
    assert await told(store, 3) == [(1, "k", False), (1, "k", False), (2, "k", True)]


async def test_only_a_map_of_this_epoch_is_renewed(store: MapsUnderTest) -> None:
    """Another node may have done it already."""
    top = (await put(store, "k")).position

    await store.maps.renew(CHANNEL, "another")
    await store.maps.renew(CHANNEL, "")
    kept = await store.maps.read_state(CHANNEL, RECOVERABLE, StateFilter())
    await store.maps.renew(CHANNEL, top.epoch)
    after = await store.maps.read_state(CHANNEL, RECOVERABLE, StateFilter())

    assert kept.top == top
    assert after.top.offset == 0
    assert after.top.epoch not in ("", top.epoch)
    assert await state(store) == {}


async def test_a_map_that_gets_a_stream_begins_anew(store: MapsUnderTest) -> None:
    """And one that loses it keeps its keys: nobody may go on over what was changed meanwhile."""
    epoch = (await put(store, "a", b"1", rules=RECOVERABLE)).position.epoch

    lost = await put(store, "b", b"2", EPHEMERAL)
    without = await state(store, EPHEMERAL)
    again = await store.maps.read_state(CHANNEL, RECOVERABLE, StateFilter(limit=9))

    assert lost.position == NO_POSITION
    assert without == {"a": b"1", "b": b"2"}
    assert list(again.entries) == []
    assert again.top.offset == 0
    assert again.top.epoch not in ("", epoch)


async def test_maps_do_not_share_anything(store: MapsUnderTest) -> None:
    """Names that could run into each other are different maps."""
    names = ["x", ".x", "meta:x", ".meta:x", "expire:x", "order:x", "state:x", "{x}", "a b\n\0é"]
    for number, name in enumerate(names):
        data = Publication(key="k", data=Raw(b"%d" % number))
        change = MapChange(version=number + 1, idempotency_key="same")
        await store.maps.publish(name, data, RECOVERABLE, change)

    for number, name in enumerate(names):
        page = await store.maps.read_state(name, RECOVERABLE, StateFilter(limit=-1))
        assert [bytes(entry.publication.data) for entry in page.entries] == [b"%d" % number]
        assert page.top.offset == 1
