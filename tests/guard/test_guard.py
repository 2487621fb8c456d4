"""The guard itself: its verdict, and that every path does its work."""

from __future__ import annotations

from tests.guard.__main__ import LIMIT, LIMIT_OF_ANOTHER_VERSION, expected, slower, table
from tests.guard.measure import measure


BASELINE = {"3.11": {"publish": 2.0, "connect": 3.0}, "3.13": {"publish": 1.5, "connect": 2.5}}


def test_a_path_over_the_limit_is_named() -> None:
    """And only that one; the table says so, and what has become faster."""
    before, limit = expected(BASELINE, "3.11")
    figures = {"publish": 2.7, "connect": 2.0}

    assert slower(figures, before, limit) == ["publish"]
    assert [line.split()[-1] for line in table(figures, before, limit).splitlines()[1:]] == [
        "SLOWER",
        "guard-baseline",
    ]


def test_a_version_without_figures_is_held_to_the_nearest_with_a_wider_limit() -> None:
    """Python 3.14 to those of 3.13."""
    assert expected(BASELINE, "3.11") == (BASELINE["3.11"], LIMIT)
    assert expected(BASELINE, "3.14") == (BASELINE["3.13"], LIMIT_OF_ANOTHER_VERSION)


async def test_every_path_is_measured() -> None:
    """Each checks by itself that it did what it is named for."""
    figures = await measure(rounds=1)

    assert sorted(figures) == [
        "api_publish",
        "connect",
        "fan_out",
        "inbound_publish",
        "redis_delivery",
        "redis_publish",
    ]
    assert all(0.1 < figure < 100 for figure in figures.values())
