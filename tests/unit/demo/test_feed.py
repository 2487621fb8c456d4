"""The demo's feed: steady, and not impressed by a server that is away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from realtime.demo.feed import Feed
from realtime.demo.system import SystemMeter
from realtime.protocol.errors import ClientError, EngineError


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self.now += seconds


def make_feed(clock: Clock, publish: Callable[[Any], Any]) -> Feed:
    """Make a feed that publishes the time of reading, once a second."""
    return Feed(clock, publish, interval=1.0, monotonic=clock, sleep=clock.sleep)


def test_feed_keeps_its_pace_however_long_publishing_takes() -> None:
    """The work of a second doesn't shift the next one."""
    clock = Clock()
    published: list[float] = []

    def publish(at: float) -> None:
        published.append(at)
        clock.now += 0.3

    make_feed(clock, publish).run(count=4)

    assert published == pytest.approx([101.0, 102.0, 103.0, 104.0])


def test_feed_does_not_catch_up_after_a_stall() -> None:
    """Seconds that passed during one long call are not published in a burst."""
    clock = Clock()
    published: list[float] = []

    def publish(at: float) -> None:
        published.append(at)
        if len(published) == 1:
            clock.now += 10.0

    make_feed(clock, publish).run(count=3)

    assert published == pytest.approx([101.0, 111.0, 112.0])


@pytest.mark.parametrize("failure", [EngineError("no answer"), ClientError(102, "unknown channel")])
def test_feed_outlives_failures_and_logs_their_begin_and_end(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Three failures are one warning; the return is one line with their number; they don't count."""
    clock = Clock()
    failures = [failure] * 3
    published: list[float] = []

    def publish(at: float) -> None:
        if failures:
            raise failures.pop()
        published.append(at)

    with caplog.at_level(logging.INFO, logger="realtime.demo.feed"):
        make_feed(clock, publish).run(count=2)

    assert published == pytest.approx([104.0, 105.0])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "publishing again after 3.0 s; 3 measurements" in caplog.messages[1]


def test_feed_lets_a_mistake_of_ours_through() -> None:
    """Only what a server can do to us is outlived."""

    def publish(_: float) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        make_feed(Clock(), publish).run(count=1)


def test_meter_reads_this_machine() -> None:
    """The numbers are within what they can be, and the time is the clock's."""
    reading = SystemMeter(clock=lambda: 1234.5).read()

    assert reading["at"] == 1_234_500
    assert 0 <= reading["cpu"] <= 100
    assert 0 < reading["memory"]["used"] <= reading["memory"]["total"]
    assert reading["network"]["in"] >= 0
    assert reading["network"]["out"] >= 0
    assert len(reading["load"]) == 3
