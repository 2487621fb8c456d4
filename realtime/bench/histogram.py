"""Latencies counted in buckets, so that processes can add theirs up. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping


# A bucket is at most 1/128 of its values wide: finer than any two runs agree.
_BITS = 8


class Histogram:
    """
    Counts of latencies.

    Args:
        counts: How many values by bucket, as ``counts`` of another one has them.

    Attributes:
        counts: How many values by bucket number; add two of these to join two histograms.

    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter(counts or {})

    def add(self, values: Iterable[int]) -> None:
        """Count values: whole nanoseconds, below 0 counts as 0."""
        self.counts.update(map(_bucket, values))

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add another histogram's counts."""
        self.counts.update(counts)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return self.counts.total()

    def percentile(self, percent: float) -> float | None:
        """
        Return the value that so many percent of all values do not exceed (nearest rank).

        Args:
            percent: 0 to 100.

        Returns:
            Nanoseconds, the middle of the value's bucket: within 0.4 % of the value. ``None`` without values.

        """
        total = self.total
        if not total:
            return None
        # 99.9 % of 1,000 is rank 999; floating point says 999.0000000000001.
        rank = max(1, math.ceil(round(total * percent / 100, 6)))
        seen = 0
        for bucket, count in sorted(self.counts.items()):
            seen += count
            if seen >= rank:
                return _middle(bucket)
        raise AssertionError(f"rank {rank} of {total}")


def _bucket(value: int) -> int:
    """Number the buckets in the order of their values: exponent and the leading bits."""
    value = max(value, 0)
    shift = max(0, value.bit_length() - _BITS)
    return (shift << _BITS) + (value >> shift)


def _middle(bucket: int) -> float:
    shift, leading = bucket >> _BITS, bucket & ((1 << _BITS) - 1)
    return float((leading << shift) + ((1 << shift) - 1) / 2)
