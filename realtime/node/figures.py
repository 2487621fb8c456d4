"""The figures that a node shows in ``info``: gauges as they were, counters as they grew, over one interval at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping


Reading = Callable[[], Mapping[str, float]]


class Figures:
    """
    A snapshot that is taken anew once per interval.

    Args:
        interval: Seconds.
        gauges: Read what is shown as it is.
        counters: Read what only grows; shown is the growth since the snapshot before, 0 in the first one. One that is
            new began at 0.
        now: Seconds of the clock that ``renew`` is given.

    Attributes:
        current: The latest snapshot.

    """

    def __init__(self, interval: float, gauges: Reading, counters: Reading, now: float) -> None:
        self.current: dict[str, float] = {}
        self._interval = interval
        self._gauges = gauges
        self._counters = counters
        self._before = counters()
        self._taken_at = now
        self._take(now)

    def renew(self, now: float) -> bool:
        """Take a new snapshot if it is time; say whether it was."""
        if now - self._taken_at < self._interval:
            return False
        self._take(now)
        return True

    def _take(self, now: float) -> None:
        counters = self._counters()
        growth = {name: value - self._before.get(name, 0.0) for name, value in counters.items()}
        self.current = {**self._gauges(), **growth}
        self._before = counters
        self._taken_at = now
