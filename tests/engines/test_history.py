"""Reading a stream, its epoch, and the end of its clocks."""

from __future__ import annotations

import pytest

from realtime.engines.base import HistoryFilter, PublishOptions
from realtime.protocol.messages import StreamPosition
from tests.engines.backends import EngineUnderTest
from tests.engines.test_publish import (
    EVERYTHING,
    HISTORY,
    META_TTL,
    offsets,
    publication,
    publish_many,
    top,
    with_options,
)


def since(offset: int, limit: int = -1, *, epoch: str = "", reverse: bool = False) -> HistoryFilter:
    return HistoryFilter(limit=limit, since=StreamPosition(offset, epoch), reverse=reverse)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        # Position only.
        (HistoryFilter(), []),
        (HistoryFilter(reverse=True), []),
        (since(5, 0), []),
        (since(7, 0, reverse=True), []),
        # From the oldest, from the newest.
        (HistoryFilter(limit=-1), [4, 5, 6, 7, 8]),
        (HistoryFilter(limit=-1, reverse=True), [8, 7, 6, 5, 4]),
        (HistoryFilter(limit=2), [4, 5]),
        (HistoryFilter(limit=2, reverse=True), [8, 7]),
        (HistoryFilter(limit=5), [4, 5, 6, 7, 8]),
        (HistoryFilter(limit=100), [4, 5, 6, 7, 8]),
        (HistoryFilter(limit=100, reverse=True), [8, 7, 6, 5, 4]),
        # After a position.
        (since(5), [6, 7, 8]),
        (since(5, 2), [6, 7]),
        (since(4, 1), [5]),
        (since(7), [8]),
        (since(7, 5), [8]),
        (since(8), []),
        (since(8, 3), []),
        (since(9), []),
        (since(10_000), []),
        # After one that isn't stored any more: from the oldest that is.
        (since(0), [4, 5, 6, 7, 8]),
        (since(1, 2), [4, 5]),
        (since(3), [4, 5, 6, 7, 8]),
        # Before a position, downwards.
        (since(7, reverse=True), [6, 5, 4]),
        (since(7, 2, reverse=True), [6, 5]),
        (since(8, 1, reverse=True), [7]),
        (since(9, reverse=True), [8, 7, 6, 5, 4]),
        (since(9, 2, reverse=True), [8, 7]),
        (since(5, reverse=True), [4]),
        (since(4, reverse=True), []),
        (since(1, reverse=True), []),
        (since(0, reverse=True), []),
    ],
)
async def test_reading(engine: EngineUnderTest, what: HistoryFilter, expected: list[int]) -> None:
    """Offsets 4 to 8 are stored of 8 that were published; the top is 8 whatever is read."""
    outcomes = await publish_many(engine, 8, with_options(history_size=5))

    history = await engine.broker.history("c", what, META_TTL)

    assert [stored.offset for stored in history.publications] == expected
    assert [bytes(p.data) for p in history.publications] == [b'{"n":%d}' % n for n in expected]
    assert history.top == outcomes[-1].position


@pytest.mark.parametrize("offset", [10, 10_000])
async def test_reading_down_from_above_the_top(engine: EngineUnderTest, offset: int) -> None:
    """Engines differ, each in its own way."""
    await publish_many(engine, 8, with_options(history_size=5))

    history = await engine.broker.history("c", since(offset, 2, reverse=True), META_TTL)

    expected = [8, 7] if engine.reads_down_from_above else []
    assert [stored.offset for stored in history.publications] == expected


@pytest.mark.parametrize("limit", [1, 7, 40, 99, 100, 101, -1])
@pytest.mark.parametrize("offset", [0, 1, 30, 60, 95, 98, 99, 100])
@pytest.mark.parametrize("reverse", [False, True])
async def test_reading_a_longer_stream(
    engine: EngineUnderTest, offset: int, limit: int, reverse: bool
) -> None:
    """Begin near either end, with any limit: the same as slicing a list."""
    await publish_many(engine, 100, with_options(history_size=100))
    stored = list(range(1, 101))

    history = await engine.broker.history("c", since(offset, limit, reverse=reverse), META_TTL)

    wanted = (
        [n for n in stored if n < offset][::-1] if reverse else [n for n in stored if n > offset]
    )
    expected = wanted if limit < 0 else wanted[:limit]
    assert [entry.offset for entry in history.publications] == expected


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [0, 3, -1])
async def test_an_unknown_channel_has_an_empty_stream(
    engine: EngineUnderTest, limit: int, reverse: bool
) -> None:
    """Offset 0 and an epoch."""
    history = await engine.broker.history("c", HistoryFilter(limit, None, reverse), META_TTL)

    assert list(history.publications) == []
    assert history.top.offset == 0
    assert engine.expects_epoch(history.top.epoch)


async def test_a_read_gives_the_epoch_that_the_first_publication_carries(
    engine: EngineUnderTest,
) -> None:
    """A subscriber that came before the first publication can recover it."""
    epoch = (await top(engine)).epoch

    outcome = await engine.broker.publish("c", publication(1), HISTORY)

    assert outcome.position == StreamPosition(1, epoch)


async def test_another_epoch_in_since_is_the_callers_to_notice(engine: EngineUnderTest) -> None:
    """The read does not fail, and says the stream's epoch."""
    outcomes = await publish_many(engine, 3)

    history = await engine.broker.history("c", since(1, epoch="another"), META_TTL)

    assert history.top == outcomes[-1].position


async def test_a_history_is_a_copy(engine: EngineUnderTest) -> None:
    """What is published afterwards does not creep into it."""
    await publish_many(engine, 2)
    history = await engine.broker.history("c", EVERYTHING, META_TTL)

    await publish_many(engine, 2)

    assert [stored.offset for stored in history.publications] == [1, 2]


# --- removal ------------------------------------------------------------------------------------------


async def test_removal_keeps_top_and_epoch(engine: EngineUnderTest) -> None:
    """Publications go, the next offset follows."""
    outcomes = await publish_many(engine, 3)

    await engine.broker.remove_history("c")

    assert await offsets(engine) == []
    assert await top(engine) == outcomes[-1].position
    assert (await engine.broker.publish("c", publication(4), HISTORY)).position.offset == 4
    assert await offsets(engine) == [4]


async def test_reads_of_a_removed_history_return_nothing(engine: EngineUnderTest) -> None:
    """From any position, in both directions."""
    await publish_many(engine, 3)
    await engine.broker.remove_history("c")

    for what in (since(0), since(1), since(3), since(2, reverse=True), since(4, reverse=True)):
        history = await engine.broker.history("c", what, META_TTL)
        assert (list(history.publications), history.top.offset) == ([], 3)


async def test_removing_nothing_is_no_error(engine: EngineUnderTest) -> None:
    """Unknown channels and empty streams are fine, twice too."""
    await engine.broker.remove_history("unknown")
    await publish_many(engine, 1)

    await engine.broker.remove_history("c")
    await engine.broker.remove_history("c")

    assert await offsets(engine) == []


async def test_removal_touches_one_channel(engine: EngineUnderTest) -> None:
    """Others keep theirs."""
    await publish_many(engine, 1, channel="a")
    await publish_many(engine, 1, channel="b")

    await engine.broker.remove_history("a")

    assert await offsets(engine, "b") == [1]


# --- expiry -------------------------------------------------------------------------------------------


async def test_the_whole_list_expires_at_once_and_top_and_epoch_stay(
    engine: EngineUnderTest,
) -> None:
    """Old and new items alike go when the last publish is a TTL old."""
    await engine.broker.publish("c", publication(1), HISTORY)
    await engine.pass_time(50)
    last = await engine.broker.publish("c", publication(2), HISTORY)
    await engine.pass_time(50)
    assert await offsets(engine) == [1, 2]

    await engine.pass_time(11)

    assert await offsets(engine) == []
    assert await top(engine) == last.position
    following = await engine.broker.publish("c", publication(3), HISTORY)
    assert following.position == StreamPosition(3, last.position.epoch)
    assert await offsets(engine) == [3]


async def test_reads_do_not_prolong_the_list(engine: EngineUnderTest) -> None:
    """Only publishes re-arm it."""
    await publish_many(engine, 1)
    await engine.pass_time(50)
    assert await offsets(engine) == [1]

    await engine.pass_time(11)

    assert await offsets(engine) == []


async def test_the_ttl_of_the_last_publish_counts(engine: EngineUnderTest) -> None:
    """A shorter TTL ends the list earlier, and a longer one later, than was planned before."""
    await publish_many(engine, 1, with_options(history_ttl=600), channel="shorter")
    await publish_many(engine, 1, with_options(history_ttl=10), channel="shorter")
    await publish_many(engine, 1, with_options(history_ttl=10), channel="longer")
    await publish_many(engine, 1, with_options(history_ttl=600), channel="longer")

    await engine.pass_time(12)

    assert await offsets(engine, "shorter") == []
    assert await offsets(engine, "longer") == [1, 2]


async def test_a_stream_without_use_begins_a_new_generation(engine: EngineUnderTest) -> None:
    """After the record's TTL offsets begin at 1 under another epoch."""
    outcomes = await publish_many(engine, 3)

    await engine.pass_time(META_TTL + 1)

    after = await top(engine)
    assert after.offset == 0
    assert after.epoch != outcomes[-1].position.epoch
    outcome = await engine.broker.publish("c", publication(4), HISTORY)
    assert outcome.position == StreamPosition(1, after.epoch)
    assert await offsets(engine) == [1]


async def test_a_publish_prolongs_the_record(engine: EngineUnderTest) -> None:
    """Each re-arms the record's clock."""
    first = await engine.broker.publish("c", publication(1), HISTORY)
    await engine.pass_time(META_TTL - 10)
    await engine.broker.publish("c", publication(2), HISTORY)
    await engine.pass_time(META_TTL - 10)

    assert await top(engine) == StreamPosition(2, first.position.epoch)


async def test_a_read_prolongs_the_record(engine: EngineUnderTest) -> None:
    """So does each position check."""
    first = await engine.broker.publish("c", publication(1), HISTORY)
    await engine.pass_time(META_TTL - 10)
    await top(engine)
    await engine.pass_time(META_TTL - 10)

    assert await top(engine) == first.position


async def test_a_suppressed_publish_does_not_prolong_the_record(engine: EngineUnderTest) -> None:
    """Neither a repeated key nor a stale version touches it."""
    await engine.broker.publish("c", publication(1), with_options(version=5))
    await engine.pass_time(META_TTL - 10)
    assert (await engine.broker.publish("c", publication(2), with_options(version=5))).suppressed
    await engine.pass_time(11)

    assert (await top(engine)).offset == 0


async def test_an_epoch_given_by_a_read_expires_too(engine: EngineUnderTest) -> None:
    """A channel that was only looked at does not stay for ever."""
    before = await top(engine)

    await engine.pass_time(META_TTL + 1)

    assert (await top(engine)).epoch != before.epoch


async def test_without_a_record_ttl_the_record_stays(engine: EngineUnderTest) -> None:
    """0 means no expiry."""
    options = PublishOptions(history_size=5, history_ttl=60, history_meta_ttl=0)
    outcome = await engine.broker.publish("c", publication(1), options)

    await engine.pass_time(365 * 86_400)

    assert (await engine.broker.history("c", HistoryFilter(), 0)).top == outcome.position


async def test_lost_streams_come_back_under_another_epoch(engine: EngineUnderTest) -> None:
    """After a restart or an eviction nobody takes the new stream for the old one."""
    outcomes = await publish_many(engine, 3)

    await engine.lose_streams()

    outcome = await engine.broker.publish("c", publication(1), HISTORY)
    assert outcome.position.offset == 1
    assert outcome.position.epoch != outcomes[0].position.epoch
    assert await offsets(engine) == [1]


async def test_a_stream_that_is_renewed_begins_again_in_a_new_epoch(
    engine: EngineUnderTest,
) -> None:
    """Nothing of it is left; one of another epoch is not touched."""
    first = await top(engine)
    await publish_many(engine, 3)

    await engine.broker.renew("c", "other")
    kept = await engine.broker.history("c", EVERYTHING, META_TTL)
    await engine.broker.renew("c", first.epoch)
    (outcome,) = await publish_many(engine, 1)
    renewed = await engine.broker.history("c", EVERYTHING, META_TTL)

    assert [stored.offset for stored in kept.publications] == [1, 2, 3]
    assert kept.top.epoch == first.epoch
    assert outcome.position == renewed.top
    assert renewed.top.epoch != first.epoch
    assert [stored.offset for stored in renewed.publications] == [1]


async def test_renewing_what_is_not_there_is_no_error(engine: EngineUnderTest) -> None:
    """A channel that nobody touched has no stream to end."""
    await engine.broker.renew("unknown", "epoch")
