"""Timers of a loop whose time goes by when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable


class Timer:
    """One that can be cancelled."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeTimers:
    """Timers that move when told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._queue: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        timer = Timer(lambda: callback(*args))
        heapq.heappush(self._queue, (self.now + delay, next(self._numbers), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Let time go by; what is due happens in its order, with what follows from it."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            at, _, timer = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            if timer.callback is not None:
                # As a loop does it: no task is the current one.
                asyncio.get_running_loop().call_soon(timer.callback)
            await settle()
        self.now = end
        await settle()


async def settle() -> None:
    """Let everything that needs no time happen."""
    for _ in range(8):
        await asyncio.sleep(0)
