"""Percentiles out of buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.bench.histogram import Histogram


def exact(values: list[int], percent: float) -> int:
    """Nearest rank, from the definition."""
    ranked = sorted(values)
    return ranked[max(1, math.ceil(round(len(ranked) * percent / 100, 6))) - 1]


values = st.lists(st.integers(0, 2**50), min_size=1, max_size=200)


@given(values, st.sampled_from([0, 1, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_within_half_a_percent_of_the_exact_one(some, percent):
    """Small values are exact, large ones as exact as their bucket is narrow."""
    histogram = Histogram()

    histogram.add(some)

    assert histogram.percentile(percent) == pytest.approx(exact(some, percent), rel=0.005, abs=0)


@given(values, values)
def test_joined_histograms_are_one_of_all_values(some, more):
    """It does not matter which process counted a value."""
    together, joined = Histogram(), Histogram()

    together.add(some + more)
    joined.add(some)
    other = Histogram()
    other.add(more)
    joined.merge(other.counts)

    assert joined.counts == together.counts
    assert joined.total == len(some) + len(more)


def test_the_rank_of_a_percentile_is_not_off_by_floating_point():
    """99.9 % of 1,000 values is the 999th."""
    histogram = Histogram()

    histogram.add(range(1, 101))
    histogram.add([120] * 899)
    histogram.add([200])

    assert histogram.percentile(99.9) == 120
    assert histogram.percentile(100) == 200


def test_nothing_has_no_percentile():
    """And a clock that seems to go backwards counts as no time at all."""
    histogram = Histogram()

    assert histogram.percentile(50) is None
    histogram.add([-5])
    assert histogram.percentile(50) == 0
