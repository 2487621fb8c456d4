"""What a publish does to the stream, to subscribers and to its caller."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw
from msgspec.structs import replace

from realtime.engines.base import (
    NO_OPTIONS,
    NO_POSITION,
    HistoryFilter,
    PublishOptions,
    PublishOutcome,
)
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition
from tests.engines.backends import EngineUnderTest


META_TTL = 3600.0
HISTORY = PublishOptions(history_size=10, history_ttl=60, history_meta_ttl=META_TTL)
EVERYTHING = HistoryFilter(limit=-1)


def publication(number: int) -> Publication:
    return Publication(data=Raw(b'{"n":%d}' % number))


def with_options(**changes: object) -> PublishOptions:
    """Vary ``HISTORY``."""
    values = {name: getattr(HISTORY, name) for name in PublishOptions.__slots__} | changes
    return PublishOptions(**values)


async def publish_many(
    engine: EngineUnderTest, count: int, options: PublishOptions = HISTORY, channel: str = "c"
) -> list[PublishOutcome]:
    return [
        await engine.broker.publish(channel, publication(n), options) for n in range(1, count + 1)
    ]


async def offsets(engine: EngineUnderTest, channel: str = "c") -> list[int]:
    history = await engine.broker.history(channel, EVERYTHING, META_TTL)
    return [stored.offset for stored in history.publications]


async def top(engine: EngineUnderTest, channel: str = "c") -> StreamPosition:
    return (await engine.broker.history(channel, HistoryFilter(), META_TTL)).top


# --- without history --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        NO_OPTIONS,
        PublishOptions(history_size=10, history_ttl=0, history_meta_ttl=META_TTL),
        PublishOptions(history_size=0, history_ttl=60, history_meta_ttl=META_TTL),
    ],
)
async def test_history_is_off_unless_both_size_and_ttl_are_set(
    engine: EngineUnderTest, options: PublishOptions
) -> None:
    """Without one of them nothing is stored, and outcome and delivery have no position."""
    await engine.broker.subscribe("c")

    outcome = await engine.broker.publish("c", publication(1), options)

    assert outcome == PublishOutcome(NO_POSITION, "")
    assert await engine.node.payloads(1) == [b'{"n":1}']
    delivery = engine.node.deliveries[0]
    assert (delivery.position, delivery.publication.offset) == (NO_POSITION, 0)
    assert await offsets(engine) == []


async def test_a_publish_past_the_history_leaves_the_stream_alone(engine: EngineUnderTest) -> None:
    """It reaches subscribers without offset, in order, and the next stored one has no gap before it."""
    await engine.broker.subscribe("c")
    first = await engine.broker.publish("c", publication(1), HISTORY)

    await engine.broker.publish("c", publication(2), NO_OPTIONS)
    last = await engine.broker.publish("c", publication(3), HISTORY)

    assert last.position == StreamPosition(2, first.position.epoch)
    await engine.node.payloads(3)
    assert [d.publication.offset for d in engine.node.deliveries] == [1, 0, 2]
    assert await offsets(engine) == [1, 2]


async def test_a_publish_past_the_history_does_not_prolong_it(engine: EngineUnderTest) -> None:
    """The list's clock runs from the last publication that was stored."""
    await engine.broker.publish("c", publication(1), HISTORY)
    await engine.pass_time(50)
    await engine.broker.publish("c", publication(2), NO_OPTIONS)

    await engine.pass_time(11)

    assert await offsets(engine) == []


class Tally:
    """Counts what was begun ahead and has ended."""

    ended = 0

    def settle(self, _: object) -> None:
        self.ended += 1

    def fail(self, error: Exception) -> None:
        raise AssertionError(error)


async def test_nothing_overtakes_a_publish_that_is_begun_ahead(engine: EngineUnderTest) -> None:
    """Neither another of its kind nor an awaited one; an engine that can't promise that begins none."""
    broker, tally, begun = engine.broker, Tally(), 0
    await broker.subscribe("c")

    for number in range(40):
        if number % 10 != 9:
            begun += broker.publish_ahead("c", publication(number), NO_OPTIONS, tally)
        else:
            await broker.publish("c", publication(number), NO_OPTIONS)

    numbers = range(40) if begun else range(9, 40, 10)
    assert await engine.node.payloads(len(numbers)) == [b'{"n":%d}' % n for n in numbers]
    assert (begun, tally.ended) in ((36, 36), (0, 0))
    assert begun == 0 or broker.is_remote


async def test_a_publish_with_history_is_not_begun_ahead(engine: EngineUnderTest) -> None:
    """Its script may be sent again, or its position is wanted."""
    assert not engine.broker.publish_ahead("c", publication(1), HISTORY, Tally())
    assert await offsets(engine) == []


async def test_an_offset_of_the_publisher_is_not_believed(engine: EngineUnderTest) -> None:
    """The broker sets offsets: whatever came in is replaced."""
    await engine.broker.subscribe("c")
    forged = replace(publication(1), offset=77, epoch="forged")

    await engine.broker.publish("c", forged, NO_OPTIONS)
    await engine.broker.publish("c", forged, HISTORY)

    await engine.node.payloads(2)
    assert [d.publication.offset for d in engine.node.deliveries] == [0, 1]
    assert "forged" not in [d.publication.epoch for d in engine.node.deliveries]


# --- with history -----------------------------------------------------------------------------------


async def test_offsets_rise_by_one_from_one(engine: EngineUnderTest) -> None:
    """Callers, subscribers and history agree on them."""
    await engine.broker.subscribe("c")

    outcomes = await publish_many(engine, 3)

    assert [outcome.position.offset for outcome in outcomes] == [1, 2, 3]
    assert len({outcome.position.epoch for outcome in outcomes}) == 1
    await engine.node.payloads(3)
    assert [d.position for d in engine.node.deliveries] == [o.position for o in outcomes]
    assert [d.publication.offset for d in engine.node.deliveries] == [1, 2, 3]
    assert await offsets(engine) == [1, 2, 3]


async def test_a_publication_keeps_all_it_came_with(engine: EngineUnderTest) -> None:
    """Payload, info, tags and version come back, and binary payloads too."""
    await engine.broker.subscribe("c")
    info = ClientInfo("u", "id", conn_info=Raw(b'{"a":1}'), chan_info=Raw(b"\x00\xff"))
    sent = Publication(data=Raw(b"\x00\n__p1:\xfe"), info=info, tags={"k": "v", "é": ""}, version=5)

    await engine.broker.publish("c", sent, with_options(version=5))

    await engine.node.payloads(1)
    stored = (await engine.broker.history("c", EVERYTHING, META_TTL)).publications[0]
    for got in (engine.node.deliveries[0].publication, stored):
        assert replace(got, epoch="") == replace(sent, offset=1)


async def test_only_the_first_offset_is_stamped_with_the_epoch(engine: EngineUnderTest) -> None:
    """The live publication with offset 1 carries it, the others don't."""
    await engine.broker.subscribe("c")

    outcomes = await publish_many(engine, 3)

    await engine.node.payloads(3)
    epoch = outcomes[0].position.epoch
    assert [d.publication.epoch for d in engine.node.deliveries] == [epoch, "", ""]


async def test_the_publish_time_is_told(engine: EngineUnderTest) -> None:
    """Later publications have later times; it is Unix time."""
    await engine.broker.subscribe("c")
    await engine.broker.publish("c", publication(1), HISTORY)
    await engine.pass_time(1)
    await engine.broker.publish("c", publication(2), NO_OPTIONS)

    await engine.node.payloads(2)

    first, second = (d.published_at for d in engine.node.deliveries)
    assert second - first >= 0.9
    assert first > 1_600_000_000


async def test_channels_are_strangers(engine: EngineUnderTest) -> None:
    """Each has its own offsets, its own epoch and its own publications."""
    await publish_many(engine, 2, channel="a")

    (outcome,) = await publish_many(engine, 1, channel="b")

    assert outcome.position.offset == 1
    assert outcome.position.epoch != (await top(engine, "a")).epoch
    assert await offsets(engine, "a") == [1, 2]


@pytest.mark.parametrize(
    "name", ["x" * 255, "канал:é#1,2", "$a b", "{tag}", "a*?[b]", "a\nb", "%s"]
)
async def test_any_name_is_a_channel(engine: EngineUnderTest, name: str) -> None:
    """Length, letters and the special characters of backends do not matter."""
    await engine.broker.subscribe(name)

    await publish_many(engine, 1, channel=name)

    await engine.node.payloads(1)
    assert engine.node.deliveries[0].channel == name
    assert await offsets(engine, name) == [1]


async def test_a_stream_never_holds_more_than_its_size(engine: EngineUnderTest) -> None:
    """The oldest leave within the publish."""
    await publish_many(engine, 5, with_options(history_size=3))

    assert await offsets(engine) == [3, 4, 5]


async def test_a_smaller_size_takes_effect_with_the_next_publish(engine: EngineUnderTest) -> None:
    """A stream has no settings of its own: the publish brings them."""
    await publish_many(engine, 5)
    assert await offsets(engine) == [1, 2, 3, 4, 5]

    await engine.broker.publish("c", publication(6), with_options(history_size=2))

    assert await offsets(engine) == [5, 6]


# --- delta --------------------------------------------------------------------------------------------


async def test_with_delta_the_publication_before_comes_along(engine: EngineUnderTest) -> None:
    """The base is the newest stored one; the first publication has none."""
    await engine.broker.subscribe("c")

    await publish_many(engine, 2, with_options(delta=True))

    await engine.node.payloads(2)
    first, second = engine.node.deliveries
    assert (first.delta, first.previous) == (True, None)
    assert second.delta
    assert second.previous is not None
    assert (second.previous.offset, bytes(second.previous.data)) == (1, b'{"n":1}')


async def test_without_delta_no_publication_before_is_told(engine: EngineUnderTest) -> None:
    """What nobody asked for is not carried."""
    await engine.broker.subscribe("c")

    await publish_many(engine, 2)

    await engine.node.payloads(2)
    assert [(d.delta, d.previous) for d in engine.node.deliveries] == [(False, None)] * 2


async def test_a_publication_past_the_history_is_no_base(engine: EngineUnderTest) -> None:
    """It has no base itself, and the next stored one is told the stored one before it."""
    await engine.broker.subscribe("c")
    await engine.broker.publish("c", publication(1), with_options(delta=True))
    await engine.broker.publish("c", publication(2), PublishOptions(delta=True))
    await engine.broker.publish("c", publication(3), with_options(delta=True))

    await engine.node.payloads(3)

    _, outside, last = engine.node.deliveries
    assert (outside.delta, outside.previous) == (True, None)
    assert last.previous is not None
    assert last.previous.offset == 1


async def test_the_base_is_read_before_the_stream_is_trimmed(engine: EngineUnderTest) -> None:
    """A stream of one publication still gives each its base."""
    await engine.broker.subscribe("c")

    await publish_many(engine, 2, with_options(history_size=1, delta=True))

    await engine.node.payloads(2)
    previous = engine.node.deliveries[1].previous
    assert previous is not None
    assert previous.offset == 1


async def test_an_expired_or_removed_publication_is_no_base(engine: EngineUnderTest) -> None:
    """What is not in history any more is not a previous publication."""
    await engine.broker.subscribe("c")
    await publish_many(engine, 1, with_options(delta=True))
    await engine.broker.remove_history("c")
    await publish_many(engine, 1, with_options(delta=True))
    await engine.pass_time(61)
    await publish_many(engine, 1, with_options(delta=True))

    await engine.node.payloads(3)

    assert [d.previous for d in engine.node.deliveries] == [None, None, None]
    assert [d.publication.offset for d in engine.node.deliveries] == [1, 2, 3]


# --- idempotency ------------------------------------------------------------------------------------


async def test_a_repeated_key_stores_and_delivers_nothing(engine: EngineUnderTest) -> None:
    """The first publish's position comes back, though the stream has gone on."""
    await engine.broker.subscribe("c")
    options = with_options(idempotency_key="k")
    first = await engine.broker.publish("c", publication(1), options)
    await engine.broker.publish("c", publication(2), HISTORY)

    again = await engine.broker.publish("c", publication(3), options)

    assert again == PublishOutcome(first.position, "idempotency")
    await engine.broker.publish("c", publication(4), HISTORY)
    assert await engine.node.payloads(3) == [b'{"n":1}', b'{"n":2}', b'{"n":4}']
    assert await offsets(engine) == [1, 2, 3]


async def test_a_key_works_without_history(engine: EngineUnderTest) -> None:
    """The remembered position is empty, and still nothing is delivered twice."""
    await engine.broker.subscribe("c")
    options = PublishOptions(idempotency_key="k")

    outcomes = [await engine.broker.publish("c", publication(n), options) for n in (1, 2)]
    await engine.broker.publish("c", publication(3), NO_OPTIONS)

    assert outcomes == [PublishOutcome(), PublishOutcome(NO_POSITION, "idempotency")]
    assert await engine.node.payloads(2) == [b'{"n":1}', b'{"n":3}']


async def test_a_key_belongs_to_its_channel(engine: EngineUnderTest) -> None:
    """Both channels of a broadcast get their publication."""
    options = with_options(idempotency_key="k")

    outcomes = [await engine.broker.publish(name, publication(1), options) for name in ("a", "b")]

    assert [outcome.suppressed for outcome in outcomes] == ["", ""]


async def test_a_key_and_a_channel_do_not_run_together(engine: EngineUnderTest) -> None:
    """Channel ``a`` with key ``b.c`` is not channel ``a.b`` with key ``c``."""
    await engine.broker.publish("a", publication(1), with_options(idempotency_key="b.c"))

    outcome = await engine.broker.publish("a.b", publication(2), with_options(idempotency_key="c"))

    assert outcome.suppressed == ""


async def test_a_key_is_kept_from_the_first_publish_and_hits_do_not_prolong_it(
    engine: EngineUnderTest,
) -> None:
    """Just before its end it still counts, just after it the publish runs again."""
    options = with_options(idempotency_key="k", idempotency_ttl=30, history_ttl=600)
    await engine.broker.publish("c", publication(1), options)
    await engine.pass_time(28)

    hit = await engine.broker.publish("c", publication(2), options)
    await engine.pass_time(4)
    after = await engine.broker.publish("c", publication(3), options)

    assert (hit.suppressed, hit.position.offset) == ("idempotency", 1)
    assert (after.suppressed, after.position.offset) == ("", 2)


async def test_a_suppressed_publish_does_not_prolong_the_history(engine: EngineUnderTest) -> None:
    """A repeated key touches neither list nor clock."""
    options = with_options(idempotency_key="k")
    await engine.broker.publish("c", publication(1), options)
    await engine.pass_time(50)
    await engine.broker.publish("c", publication(1), options)

    await engine.pass_time(11)

    assert await offsets(engine) == []


async def test_the_key_is_looked_at_before_the_version(engine: EngineUnderTest) -> None:
    """A repeated key is answered from memory even when its version has become stale."""
    options = with_options(idempotency_key="k", version=1)
    first = await engine.broker.publish("c", publication(1), options)
    await engine.broker.publish("c", publication(2), with_options(version=2))

    again = await engine.broker.publish("c", publication(3), options)

    assert again == PublishOutcome(first.position, "idempotency")


async def test_a_stale_version_is_not_remembered_under_its_key(engine: EngineUnderTest) -> None:
    """It stops before the result is stored, so a retry is judged by its version again."""
    await engine.broker.publish("c", publication(1), with_options(version=2))
    stale = with_options(idempotency_key="k", version=1)
    assert (await engine.broker.publish("c", publication(2), stale)).suppressed == "version"

    retry = await engine.broker.publish(
        "c", publication(2), with_options(idempotency_key="k", version=3)
    )

    assert (retry.suppressed, retry.position.offset) == ("", 2)


# --- versions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "incoming", "accepted"),
    [
        (None, (1, ""), True),
        (None, (7, "e"), True),
        ((5, "e"), (6, ""), True),
        ((5, "e"), (5, ""), False),
        ((5, "e"), (4, ""), False),
        ((5, "e"), (6, "e"), True),
        ((5, "e"), (5, "e"), False),
        ((5, "e"), (4, "e"), False),
        ((5, "e"), (4, "f"), True),
        ((5, "e"), (5, "f"), True),
        ((5, ""), (4, "f"), True),
        ((5, ""), (5, ""), False),
        ((5, "e"), (0, ""), True),
        ((5, "e"), (0, "e"), True),
        ((2**53, ""), (2**53 + 1, ""), True),
        ((2**53 + 1, ""), (2**53, ""), False),
        ((9, ""), (10, ""), True),
        ((10, ""), (9, ""), False),
        ((2**64 - 2, ""), (2**64 - 1, ""), True),
    ],
)
async def test_the_version_guard(
    engine: EngineUnderTest,
    stored: tuple[int, str] | None,
    incoming: tuple[int, str],
    accepted: bool,
) -> None:
    """Every row of the table, and integers that a float or a string comparison gets wrong."""
    await engine.broker.subscribe("c")
    await engine.broker.publish("c", publication(1), HISTORY)
    if stored is not None:
        options = with_options(version=stored[0], version_epoch=stored[1])
        await engine.broker.publish("c", publication(2), options)
    before = await top(engine)

    outcome = await engine.broker.publish(
        "c", publication(3), with_options(version=incoming[0], version_epoch=incoming[1])
    )

    if accepted:
        assert outcome == PublishOutcome(StreamPosition(before.offset + 1, before.epoch))
    else:
        assert outcome == PublishOutcome(before, "version")
        assert (await offsets(engine))[-1] == before.offset
        await engine.broker.publish("c", publication(4), HISTORY)
        assert (await engine.node.payloads(before.offset + 1))[-1] == b'{"n":4}'


async def test_a_publish_without_version_leaves_the_guard(engine: EngineUnderTest) -> None:
    """What was stale before it is stale after it."""
    await engine.broker.publish("c", publication(1), with_options(version=5))
    await engine.broker.publish("c", publication(2), HISTORY)

    outcome = await engine.broker.publish("c", publication(3), with_options(version=4))

    assert outcome.suppressed == "version"


async def test_an_accepted_version_without_epoch_forgets_the_stored_epoch(
    engine: EngineUnderTest,
) -> None:
    """The pair is stored as it came: afterwards any named epoch is a new one."""
    await engine.broker.publish("c", publication(1), with_options(version=5, version_epoch="e"))
    await engine.broker.publish("c", publication(2), with_options(version=6))

    outcome = await engine.broker.publish(
        "c", publication(3), with_options(version=1, version_epoch="e")
    )

    assert outcome.suppressed == ""


async def test_a_version_without_history_means_nothing(engine: EngineUnderTest) -> None:
    """Channels without history have no guard."""
    options = PublishOptions(version=5)

    outcomes = [await engine.broker.publish("c", publication(n), options) for n in (1, 2)]

    assert [outcome.suppressed for outcome in outcomes] == ["", ""]


async def test_the_guard_outlives_the_publications(engine: EngineUnderTest) -> None:
    """It is part of the stream's record: neither expiry nor removal of the list resets it."""
    await engine.broker.publish("c", publication(1), with_options(version=5))
    await engine.pass_time(61)
    await engine.broker.remove_history("c")

    outcome = await engine.broker.publish("c", publication(2), with_options(version=5))

    assert (outcome.suppressed, outcome.position.offset) == ("version", 1)


async def test_the_guard_ends_with_the_streams_record(engine: EngineUnderTest) -> None:
    """A new generation begins without a version."""
    await engine.broker.publish("c", publication(1), with_options(version=5))
    await engine.pass_time(META_TTL + 1)

    outcome = await engine.broker.publish("c", publication(2), with_options(version=1))

    assert (outcome.suppressed, outcome.position.offset) == ("", 1)


async def test_a_stale_version_does_not_prolong_the_history(engine: EngineUnderTest) -> None:
    """A suppressed publish touches no clock."""
    await engine.broker.publish("c", publication(1), with_options(version=5))
    await engine.pass_time(50)
    await engine.broker.publish("c", publication(2), with_options(version=5))

    await engine.pass_time(11)

    assert await offsets(engine) == []


# --- order and atomicity ----------------------------------------------------------------------------


async def test_concurrent_publishes_get_one_offset_each_and_arrive_in_order(
    engine: EngineUnderTest,
) -> None:
    """However many tasks publish at once, every subscriber sees 1..n and history agrees."""
    await engine.broker.subscribe("c")
    options = with_options(history_size=100)

    outcomes = await asyncio.gather(
        *(engine.broker.publish("c", publication(n), options) for n in range(60))
    )

    assert sorted(o.position.offset for o in outcomes) == list(range(1, 61))
    payloads = await engine.node.payloads(60)
    assert [d.publication.offset for d in engine.node.deliveries] == list(range(1, 61))
    by_offset = {o.position.offset: b'{"n":%d}' % n for n, o in enumerate(outcomes)}
    assert payloads == [by_offset[offset] for offset in range(1, 61)]
    history = await engine.broker.history("c", EVERYTHING, META_TTL)
    assert [bytes(stored.data) for stored in history.publications] == payloads


async def test_of_concurrent_publishes_with_one_key_one_runs(engine: EngineUnderTest) -> None:
    """The others get its position."""
    options = with_options(idempotency_key="k")

    outcomes = await asyncio.gather(
        *(engine.broker.publish("c", publication(n), options) for n in range(20))
    )

    assert {o.position.offset for o in outcomes} == {1}
    assert sorted(o.suppressed for o in outcomes) == [""] + ["idempotency"] * 19
    assert await offsets(engine) == [1]


async def test_concurrent_versions_leave_a_rising_stream(engine: EngineUnderTest) -> None:
    """Whatever order they run in, stored versions only rise and the highest is there."""
    versions = [7, 3, 9, 1, 8, 2, 10, 5, 4, 6]

    await asyncio.gather(
        *(
            engine.broker.publish(
                "c", Publication(data=Raw(b"1"), version=v), with_options(version=v)
            )
            for v in versions
        )
    )

    history = await engine.broker.history("c", EVERYTHING, META_TTL)
    stored = [entry.version for entry in history.publications]
    assert stored == sorted(set(stored))
    assert stored[-1] == 10


async def test_what_is_delivered_is_already_stored(engine: EngineUnderTest) -> None:
    """Who hears of an offset and reads history at once finds it there."""
    await engine.broker.subscribe("c")
    await engine.broker.publish("c", publication(1), HISTORY)
    await engine.node.payloads(1)

    assert await offsets(engine) == [engine.node.deliveries[0].publication.offset]
