"""What is the memory engine's own: it never suspends, and it lets go of memory."""

from __future__ import annotations

import string
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec import Raw

from realtime.engines.base import NO_OPTIONS, HistoryFilter, PublishOptions
from realtime.engines.memory import MemoryEngine, random_epoch
from realtime.protocol.messages import ClientInfo, Publication
from tests.engines.backends import FakeClock, RecordingNode


T = TypeVar("T")
HISTORY = PublishOptions(history_size=5, history_ttl=60, history_meta_ttl=600)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without a loop."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    value: T = stop.value.value
    return value


def test_nothing_suspends() -> None:
    """Every coroutine ends in one step, so that callers need no task."""
    engine, node = MemoryEngine(), RecordingNode()
    info = ClientInfo("u", "c")

    drive(engine.start(node))
    drive(engine.subscribe("c"))
    drive(engine.publish("c", Publication(), NO_OPTIONS))
    drive(engine.publish("c", Publication(), HISTORY))
    drive(engine.history("c", HistoryFilter(limit=-1), 60))
    drive(engine.remove_history("c"))
    drive(engine.publish_join("c", info))
    drive(engine.publish_leave("c", info))
    drive(engine.add("c", "c", info))
    drive(engine.presence("c"))
    drive(engine.presence_stats("c"))
    drive(engine.remove("c", "c", "u"))
    drive(engine.publish_control(b"x"))
    drive(engine.unsubscribe("c"))
    drive(engine.close())

    assert (len(node.deliveries), node.controls) == (2, [b"x"])


def test_delivery_happens_within_the_publish() -> None:
    """The node has been told when ``publish`` returns, of the very object without history."""
    engine, node = MemoryEngine(), RecordingNode()
    drive(engine.start(node))
    sent = Publication(data=Raw(b"1"))

    drive(engine.publish("c", sent, NO_OPTIONS))

    assert node.deliveries[0].publication is sent


def test_sweeping_frees_what_has_expired() -> None:
    """Lists first, records and results at their own time; nothing is left in the end."""
    clock = FakeClock()
    engine = MemoryEngine(clock)
    with_key = PublishOptions(5, 60, 600, idempotency_key="k", idempotency_ttl=300)
    for number in range(50):
        drive(engine.publish(f"c{number}", Publication(), with_key))
        drive(engine.history(f"read{number}", HistoryFilter(), 600))

    def sizes() -> tuple[int, int, int]:
        stored = sum(len(stream.publications) for stream in engine._streams.values())
        return len(engine._streams), stored, len(engine._results)

    assert sizes() == (100, 50, 50)
    for advance, expected in [
        (59, (100, 50, 50)),
        (2, (100, 0, 50)),
        (240, (100, 0, 0)),
        (300, (0, 0, 0)),
    ]:
        clock.advance(advance)
        engine.sweep(clock.now)
        assert sizes() == expected
    assert (engine._stream_heap, engine._result_heap) == ([], [])


def test_an_active_stream_costs_one_heap_entry() -> None:
    """However often it is published to and read."""
    clock = FakeClock()
    engine = MemoryEngine(clock)

    for _ in range(500):
        drive(engine.publish("c", Publication(), HISTORY))
        drive(engine.history("c", HistoryFilter(), 600))
        clock.advance(1)
        engine.sweep(clock.now)

    assert len(engine._stream_heap) == 1
    assert len(engine._streams["c"].publications) == 5


def test_an_expired_stream_is_not_read_before_the_sweep() -> None:
    """The sweep frees memory; it does not decide what readers see."""
    clock = FakeClock()
    engine = MemoryEngine(clock)
    position = drive(engine.publish("c", Publication(), HISTORY)).position
    clock.advance(60)

    history = drive(engine.history("c", HistoryFilter(limit=-1), 600))
    clock.advance(600)
    later = drive(engine.history("c", HistoryFilter(limit=-1), 600))

    assert (list(history.publications), history.top) == ([], position)
    assert later.top.offset == 0
    assert later.top.epoch != position.epoch


def test_a_second_generation_expires_like_the_first() -> None:
    """An entry left over from the first neither ends the second early nor keeps it for ever."""
    clock = FakeClock()
    engine = MemoryEngine(clock)
    drive(engine.publish("c", Publication(), HISTORY))
    clock.advance(601)
    drive(engine.publish("c", Publication(), HISTORY))

    engine.sweep(clock.now)
    assert len(engine._streams["c"].publications) == 1
    clock.advance(61)
    engine.sweep(clock.now)
    assert len(engine._streams["c"].publications) == 0
    clock.advance(600)
    engine.sweep(clock.now)

    assert engine._streams == {}


def test_the_last_one_out_frees_the_channels_presence() -> None:
    """No empty entry stays behind per channel that ever was."""
    engine = MemoryEngine()
    drive(engine.add("c", "c1", ClientInfo("u", "c1")))

    drive(engine.remove("c", "c1", "u"))

    assert engine._presence == {}


def test_a_stored_payload_lets_go_of_its_frame() -> None:
    """A payload cut from a received message must not keep the whole message alive."""

    class Frame(msgspec.Struct):
        data: Raw

    frame = b'{"data":{"n":1},"padding":"' + b"x" * 60_000 + b'"}'
    holders = sys.getrefcount(frame)
    payload = msgspec.json.decode(frame, type=Frame).data
    engine = MemoryEngine()

    drive(engine.publish("c", Publication(data=payload), HISTORY))

    del payload
    (stored,) = drive(engine.history("c", HistoryFilter(limit=-1), 60)).publications
    assert sys.getrefcount(frame) == holders
    assert bytes(stored.data) == b'{"n":1}'


def test_before_start_and_after_close_nobody_is_told() -> None:
    """Publishing is not an error, and a closed engine has forgotten everything."""
    engine, node = MemoryEngine(), RecordingNode()
    drive(engine.publish("c", Publication(), HISTORY))
    drive(engine.publish_join("c", ClientInfo("u", "c")))
    drive(engine.publish_leave("c", ClientInfo("u", "c")))
    drive(engine.publish_control(b""))
    drive(engine.start(node))
    drive(engine.add("c", "c", ClientInfo("u", "c")))

    drive(engine.close())

    drive(engine.publish("c", Publication(), NO_OPTIONS))
    assert node == RecordingNode(_arrival=node._arrival)
    assert drive(engine.history("c", HistoryFilter(), 60)).top.offset == 0
    assert drive(engine.presence("c")) == {}


def test_random_epochs_are_eight_letters_and_differ() -> None:
    """From a source that nobody can foresee."""
    epochs = {random_epoch() for _ in range(200)}

    assert len(epochs) == 200
    assert {len(epoch) for epoch in epochs} == {8}
    assert set("".join(epochs)) <= set(string.ascii_letters)
