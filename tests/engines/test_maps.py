"""What every store of maps does: writes and removals, their checks, and what is told of them."""

from __future__ import annotations

import pytest
from msgspec import Raw

from realtime.engines.base import NO_POSITION, HistoryFilter
from realtime.engines.maps import (
    EVERYTHING,
    IF_EXISTS,
    IF_NEW,
    PLAIN_CHANGE,
    MapChange,
    MapOutcome,
    StateFilter,
)
from realtime.namespaces.options import MapRules
from realtime.protocol.errors import InternalError
from realtime.protocol.messages import EMPTY, ClientInfo, Publication, StreamPosition
from tests.engines.map_backends import MapsUnderTest


CHANNEL = "map:board"
RECOVERABLE = MapRules(key_ttl=60, stream_size=100, stream_ttl=300, meta_ttl=600)
PERSISTENT = MapRules(stream_size=100, stream_ttl=60)
EPHEMERAL = MapRules(key_ttl=60)
ALL = StateFilter(limit=EVERYTHING)
WHOLE_STREAM = HistoryFilter(limit=EVERYTHING)
BIG = 2**63  # more than Lua's numbers can tell apart


def value(
    key: str, data: bytes = b"{}", tags: dict[str, str] | None = None, **more: object
) -> Publication:
    return Publication(key=key, data=Raw(data), tags=tags, **more)


async def put(
    store: MapsUnderTest,
    key: str,
    data: bytes = b"{}",
    rules: MapRules = RECOVERABLE,
    change: MapChange = PLAIN_CHANGE,
    tags: dict[str, str] | None = None,
) -> MapOutcome:
    return await store.maps.publish(CHANNEL, value(key, data, tags), rules, change)


async def take(
    store: MapsUnderTest,
    key: str,
    rules: MapRules = RECOVERABLE,
    change: MapChange = PLAIN_CHANGE,
    tags: dict[str, str] | None = None,
) -> MapOutcome:
    return await store.maps.remove(CHANNEL, Publication(key=key, tags=tags), rules, change)


async def state(store: MapsUnderTest, rules: MapRules = RECOVERABLE) -> dict[str, bytes]:
    page = await store.maps.read_state(CHANNEL, rules, ALL)
    return {entry.publication.key: bytes(entry.publication.data) for entry in page.entries}


async def stream(
    store: MapsUnderTest, rules: MapRules = RECOVERABLE
) -> list[tuple[int, str, bool]]:
    read = await store.maps.read_stream(CHANNEL, rules, WHOLE_STREAM)
    changes = [entry.publication for entry in read.entries]
    return [(change.offset, change.key, change.removed) for change in changes]


async def told(store: MapsUnderTest, count: int) -> list[tuple[int, str, bool]]:
    """Wait for so many changes, and return all that there are: offset, key, whether it was removed."""
    await store.node.payloads(count)
    return [
        (each.position.offset, each.publication.key, each.publication.removed)
        for each in store.node.deliveries
    ]


async def test_a_write_is_stored_appended_and_told_once(store: MapsUnderTest) -> None:
    """All that a publication has is in the state, in the stream and in what subscribers are told."""
    await store.maps.subscribe(CHANNEL)
    info = ClientInfo("user", "client", Raw(b'{"a":1}'), Raw(b"[2]"))
    written = value("k", b'{"x":1}', {"kind": "a"}, info=info, version=7)

    outcome = await store.maps.publish(CHANNEL, written, RECOVERABLE, MapChange(version=7))

    epoch = outcome.position.epoch
    assert outcome == MapOutcome(StreamPosition(1, epoch))
    assert epoch
    page = await store.maps.read_state(CHANNEL, RECOVERABLE, ALL)
    read = await store.maps.read_stream(CHANNEL, RECOVERABLE, WHOLE_STREAM)
    assert await told(store, 1) == [(1, "k", False)]
    (delivery,) = store.node.deliveries
    assert (delivery.channel, delivery.position, delivery.delta, delivery.previous) == (
        CHANNEL,
        StreamPosition(1, epoch),
        False,
        None,
    )
    assert delivery.published_at == store.clock.now
    assert page.top == read.top == StreamPosition(1, epoch)
    assert page.entries[0].time == read.entries[0].time == int(store.clock.now * 1000)
    for got in (
        page.entries[0].publication,
        read.entries[0].publication,
        delivery.publication,
    ):
        assert (bytes(got.data), got.key, got.offset, got.tags, got.version, got.removed) == (
            b'{"x":1}',
            "k",
            1,
            {"kind": "a"},
            7,
            False,
        )
        assert got.epoch == epoch
        assert got.info is not None
        assert (got.info.user, got.info.client, bytes(got.info.conn_info)) == (
            "user",
            "client",
            b'{"a":1}',
        )


async def test_offsets_count_changes_of_all_keys(store: MapsUnderTest) -> None:
    """A key has the offset of its last change; the map's top is that of any."""
    await store.maps.subscribe(CHANNEL)
    await put(store, "a", b"1")
    await put(store, "b", b"2")
    top = (await put(store, "a", b"3")).position

    page = await store.maps.read_state(CHANNEL, RECOVERABLE, ALL)

    assert [(each.publication.key, each.publication.offset) for each in page.entries] == [
        ("a", 3),
        ("b", 2),
    ]
    assert page.top == top
    assert top.offset == 3
    assert await stream(store) == [(1, "a", False), (2, "b", False), (3, "a", False)]
    assert await told(store, 3) == [(1, "a", False), (2, "b", False), (3, "a", False)]
    assert await store.maps.count(CHANNEL) == 2


async def test_a_map_without_a_stream_has_no_positions(store: MapsUnderTest) -> None:
    """Its changes are told and its keys can be read; nothing has an offset or an epoch."""
    await store.maps.subscribe(CHANNEL)

    outcomes = [await put(store, key, rules=EPHEMERAL) for key in ("b", "a")]
    outcomes.append(await take(store, "b", EPHEMERAL))

    assert outcomes == [MapOutcome()] * 3
    page = await store.maps.read_state(CHANNEL, EPHEMERAL, ALL)
    read = await store.maps.read_stream(CHANNEL, EPHEMERAL, WHOLE_STREAM)
    assert [(each.publication.key, each.publication.offset) for each in page.entries] == [("a", 0)]
    assert (page.top, list(read.entries), read.top) == (NO_POSITION, [], NO_POSITION)
    assert await told(store, 3) == [(0, "b", False), (0, "a", False), (0, "b", True)]
    assert {each.publication.epoch for each in store.node.deliveries} == {""}


@pytest.mark.parametrize(
    "change", [MapChange(version=1), MapChange(expected=StreamPosition(1, "e"))]
)
async def test_versions_and_positions_need_a_stream(
    store: MapsUnderTest, change: MapChange
) -> None:
    """Asking for them without one is an error, and nothing is written."""
    with pytest.raises(InternalError):
        await put(store, "k", rules=EPHEMERAL, change=change)

    assert await state(store, EPHEMERAL) == {}


async def test_the_base_of_a_patch_is_what_the_key_had(store: MapsUnderTest) -> None:
    """Other keys' changes between two writes of one don't matter; the first has no base."""
    await store.maps.subscribe(CHANNEL)
    change = MapChange(delta=True)
    await put(store, "a", b"first", change=change, tags={"n": "1"})
    await put(store, "b", b"other", change=change)

    await put(store, "a", b"second", change=change)

    await store.node.payloads(3)
    first, other, second = store.node.deliveries
    assert (first.delta, first.previous, other.delta, other.previous) == (True, None, True, None)
    assert second.delta
    assert second.previous is not None
    assert (bytes(second.previous.data), second.previous.offset, second.previous.key) == (
        b"first",
        1,
        "a",
    )
    assert second.previous.tags == {"n": "1"}


async def test_the_base_of_a_patch_is_there_without_a_stream(store: MapsUnderTest) -> None:
    """Patches need no offsets."""
    await store.maps.subscribe(CHANNEL)
    for data in (b"first", b"second"):
        await put(store, "a", data, EPHEMERAL, MapChange(delta=True))

    await store.node.payloads(2)

    previous = store.node.deliveries[1].previous
    assert previous is not None
    assert bytes(previous.data) == b"first"


async def test_a_value_may_be_empty_or_large(store: MapsUnderTest) -> None:
    """No data at all stays none, and 100 KB under a key of 300 bytes of any letters arrive whole."""
    await store.maps.subscribe(CHANNEL)
    await store.maps.publish(CHANNEL, Publication(key="none"), RECOVERABLE, PLAIN_CHANGE)
    large, key = b"x" * 100_000, "ключ\n:{}" * 25
    await put(store, key, large, change=MapChange(delta=True))
    await put(store, key, large, change=MapChange(delta=True))
    await take(store, key)
    await take(store, "none")

    assert await store.node.payloads(5) == [b"", large, large, b"", b""]
    assert [each.publication.key for each in store.node.deliveries] == [
        "none",
        key,
        key,
        key,
        "none",
    ]
    assert store.node.deliveries[0].publication.data is EMPTY
    assert await stream(store) == [
        (1, "none", False),
        (2, key, False),
        (3, key, False),
        (4, key, True),
        (5, "none", True),
    ]


# --- removal ----------------------------------------------------------------------------------------


async def test_a_removal_is_appended_and_told_without_data(store: MapsUnderTest) -> None:
    """It has the key, its own offset, and no patch."""
    await store.maps.subscribe(CHANNEL)
    await put(store, "k", b"1")

    outcome = await take(store, "k")

    assert outcome.position.offset == 2
    assert await state(store) == {}
    assert await store.maps.count(CHANNEL) == 0
    assert await stream(store) == [(1, "k", False), (2, "k", True)]
    assert await told(store, 2) == [(1, "k", False), (2, "k", True)]
    removal = store.node.deliveries[1]
    assert (bytes(removal.publication.data), removal.delta, removal.previous) == (b"", False, None)
    read = await store.maps.read_stream(CHANNEL, RECOVERABLE, WHOLE_STREAM)
    assert read.entries[1].time == int(store.clock.now * 1000)


@pytest.mark.parametrize("rules", [RECOVERABLE, EPHEMERAL])
@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        ({"a": "1", "b": "2"}, None, {"a": "1", "b": "2"}),
        ({"a": "1"}, {"c": "3"}, {"c": "3"}),
        (None, {"c": "3"}, {"c": "3"}),
        (None, None, None),
    ],
)
async def test_a_removal_has_the_tags_of_what_was_removed(
    store: MapsUnderTest,
    rules: MapRules,
    stored: dict[str, str] | None,
    given: dict[str, str] | None,
    expected: dict[str, str] | None,
) -> None:
    """Unless others are given: who filters by tags must hear of what they have."""
    await store.maps.subscribe(CHANNEL)
    await put(store, "k", rules=rules, tags=stored)

    await take(store, "k", rules, tags=given)

    await store.node.payloads(2)
    assert store.node.deliveries[1].publication.tags == expected
    read = await store.maps.read_stream(CHANNEL, rules, WHOLE_STREAM)
    if rules.has_stream:
        assert read.entries[1].publication.tags == expected


async def test_a_key_that_is_not_there_is_not_removed(store: MapsUnderTest) -> None:
    """Nothing is appended for it."""
    top = (await put(store, "k")).position

    assert await take(store, "other") == MapOutcome(top, "key_not_found")
    assert await stream(store) == [(1, "k", False)]


async def test_a_removed_key_comes_anew(store: MapsUnderTest) -> None:
    """With it went its version and the base of its patches."""
    await store.maps.subscribe(CHANNEL)
    await put(store, "k", b"1", change=MapChange(version=5))
    await take(store, "k")

    outcome = await put(store, "k", b"2", change=MapChange(version=1, delta=True))

    assert outcome.suppressed == ""
    await store.node.payloads(3)
    assert store.node.deliveries[2].previous is None


# --- checks -----------------------------------------------------------------------------------------


async def test_a_repeated_idempotency_key_changes_nothing(store: MapsUnderTest) -> None:
    """The first position is returned, whatever came since; a removal's keys are among the same."""
    first = await put(store, "k", b"1", change=MapChange(idempotency_key="once"))
    await put(store, "k", b"2")

    again = await put(store, "k", b"3", change=MapChange(idempotency_key="once"))
    removal = await take(store, "k", change=MapChange(idempotency_key="once"))

    assert again == removal == MapOutcome(first.position, "idempotency")
    assert await state(store) == {"k": b"2"}
    other = await put(store, "k", b"4", change=MapChange(idempotency_key="twice"))
    assert other.position.offset == 3


@pytest.mark.parametrize("rules", [PERSISTENT, EPHEMERAL])
async def test_an_idempotency_key_is_known_for_its_time(
    store: MapsUnderTest, rules: MapRules
) -> None:
    """Five minutes unless the change says otherwise, counted from the first."""
    short, usual = (
        MapChange(idempotency_key="short", idempotency_ttl=10),
        MapChange(idempotency_key="usual"),
    )
    await put(store, "k", rules=rules, change=short)
    await put(store, "k", rules=rules, change=usual)

    seen = []
    for seconds in (9, 2, 288, 2):
        await store.pass_time(seconds)
        await store.sweep()
        outcomes = [await take(store, "nobody", rules, change) for change in (short, usual)]
        seen.append(tuple(outcome.suppressed for outcome in outcomes))

    assert seen == [
        ("idempotency", "idempotency"),
        ("key_not_found", "idempotency"),
        ("key_not_found", "idempotency"),
        ("key_not_found", "key_not_found"),
    ]


@pytest.mark.parametrize("rules", [RECOVERABLE, EPHEMERAL])
async def test_keys_that_are_due_together_go_in_the_order_of_their_deadlines(
    store: MapsUnderTest, rules: MapRules
) -> None:
    """One whose deadline was moved goes by the new one."""
    await store.maps.subscribe(CHANNEL)
    await put(store, "moved", rules=rules)
    await store.pass_time(10)
    await put(store, "kept", rules=rules)
    await store.pass_time(10)
    await put(store, "moved", rules=rules)

    await store.pass_time(100)
    await store.sweep()

    await store.node.until(lambda: len(store.node.deliveries) == 5)
    assert [each.publication.key for each in store.node.deliveries[-2:]] == ["kept", "moved"]


async def test_versions_guard_each_key_alone(store: MapsUnderTest) -> None:
    """Older and equal ones are suppressed, per key; one without leaves the guard as it is."""
    outcomes = [
        await put(store, key, change=MapChange(version=version, version_epoch=epoch))
        for key, version, epoch in [
            ("a", BIG + 1, "x"),
            ("a", BIG + 1, "x"),
            ("a", BIG, ""),
            ("b", 1, ""),
            ("a", 0, ""),
            ("a", 9, "x"),
            ("a", BIG + 2, ""),
            ("a", 3, "y"),
            ("a", 2, "y"),
        ]
    ]

    # A version without an epoch belongs to whatever epoch there is, and is stored with none.
    assert [outcome.suppressed for outcome in outcomes] == [
        "",
        "version",
        "version",
        "",
        "",
        "version",
        "",
        "",
        "version",
    ]
    assert outcomes[1].position.offset == 1
    assert (await store.maps.read_state(CHANNEL, RECOVERABLE, StateFilter())).top.offset == 5


async def test_key_modes(store: MapsUnderTest) -> None:
    """A key is written only where it is new, or only where it is there."""
    missing = await put(store, "k", b"1", change=MapChange(key_mode=IF_EXISTS))
    new = await put(store, "k", b"2", change=MapChange(key_mode=IF_NEW))
    there = await put(store, "k", b"3", change=MapChange(key_mode=IF_NEW))
    exists = await put(store, "k", b"4", change=MapChange(key_mode=IF_EXISTS))

    assert [each.suppressed for each in (missing, new, there, exists)] == [
        "key_not_found",
        "",
        "key_exists",
        "",
    ]
    assert there.position == new.position
    assert await state(store) == {"k": b"4"}


async def test_a_write_by_position_is_made_where_the_key_stands_there(
    store: MapsUnderTest,
) -> None:
    """Compare and swap: another offset, another epoch or no key at all is a mismatch, which says what is there."""
    first = (await put(store, "k", b"1", tags={"t": "1"})).position
    await put(store, "other")

    swapped = await put(store, "k", b"2", change=MapChange(expected=first))
    stale = await put(store, "k", b"3", change=MapChange(expected=first))
    foreign = await put(
        store, "k", b"4", change=MapChange(expected=StreamPosition(swapped.position.offset, "no"))
    )
    missing = await put(store, "none", change=MapChange(expected=first))

    assert swapped.suppressed == ""
    assert swapped.position.offset == 3
    for outcome in (stale, foreign):
        assert outcome.suppressed == "position_mismatch"
        assert outcome.position == swapped.position
        assert outcome.current is not None
        current = outcome.current.publication
        assert (bytes(current.data), current.offset, current.key) == (b"2", 3, "k")
    assert missing == MapOutcome(swapped.position, "position_mismatch")
    assert await state(store) == {"k": b"2", "other": b"{}"}


async def test_a_removal_by_position(store: MapsUnderTest) -> None:
    """A missing key counts as a mismatch there, too."""
    first = (await put(store, "k", b"1")).position
    second = (await put(store, "k", b"2")).position

    stale = await take(store, "k", change=MapChange(expected=first))
    missing = await take(store, "none", change=MapChange(expected=first))
    removed = await take(store, "k", change=MapChange(expected=second))

    assert stale.suppressed == missing.suppressed == "position_mismatch"
    assert stale.current is not None
    assert stale.current.publication.offset == 2
    assert missing.current is None
    assert removed.suppressed == ""


async def test_the_order_of_the_checks(store: MapsUnderTest) -> None:
    """Idempotency, version, key mode, position: the first that fails is the reason."""
    top = (await put(store, "k", change=MapChange(version=5, idempotency_key="i"))).position
    wrong = StreamPosition(9, top.epoch)

    reasons = [
        (await put(store, "k", change=change)).suppressed
        for change in (
            MapChange(key_mode=IF_NEW, expected=wrong, idempotency_key="i", version=4),
            MapChange(key_mode=IF_NEW, expected=wrong, idempotency_key="j", version=4),
            MapChange(key_mode=IF_NEW, expected=wrong, idempotency_key="j", version=6),
            MapChange(key_mode=IF_EXISTS, expected=wrong, idempotency_key="j", version=6),
            MapChange(key_mode=IF_EXISTS, expected=top, idempotency_key="j", version=6),
        )
    ]

    assert reasons == ["idempotency", "version", "key_exists", "position_mismatch", ""]


async def test_what_is_suppressed_is_not_told(store: MapsUnderTest) -> None:
    """Nobody hears of a change that was not made."""
    await store.maps.subscribe(CHANNEL)
    await put(store, "k", change=MapChange(idempotency_key="i", version=3))
    await put(store, "k", change=MapChange(idempotency_key="i"))
    await put(store, "k", change=MapChange(version=2))
    await put(store, "k", change=MapChange(key_mode=IF_NEW))
    await put(store, "new", change=MapChange(key_mode=IF_EXISTS))
    await take(store, "new")
    await put(store, "end")

    assert await told(store, 2) == [(1, "k", False), (2, "end", False)]
    assert await stream(store) == [(1, "k", False), (2, "end", False)]
