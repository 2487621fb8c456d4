"""
Turns: work that comes in a flood is spread over rounds of the loop, so that what is due in between is not kept waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


# WebSocket handshakes begun in one round of the loop by `serve`. When everybody comes back at once, the requests of thousands
# are read in one round, and publications for those who are connected would leave only after all of them: with 5,000 at once
# a subscriber who had stayed waited 1.2-1.7 s (p99) for them, with this 0.05-0.2 s, and all were back as soon (2 cores that
# others used too, two runs each in turn, `make bench`; on quiet ones 0.4-0.7 and 0.07-0.3 s). 8 a round gave no less.
HANDSHAKES_PER_ROUND = 32


class Turns:
    """
    Gives out a number of turns in each round of the loop; who gets none waits in a queue, first come, first served.

    Without a flood a turn costs a comparison and, once a round, a ``call_soon``.
    """

    __slots__ = ("_is_counting", "_left", "_per_round", "_waiting")

    def __init__(self, per_round: int) -> None:
        self._per_round = per_round
        self._left = per_round
        self._is_counting = False
        self._waiting: deque[Callable[[], object]] = deque()

    def take(self) -> bool:
        """Take a turn now; say whether there was one."""
        if not self._left or self._waiting:
            return False
        self._left -= 1
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._begin_round)
        return True

    def wait(self, work: Callable[[], object]) -> None:
        """Have ``work`` called in a later round; to be used after ``take`` said no."""
        self._waiting.append(work)

    def _begin_round(self) -> None:
        self._left = self._per_round
        waiting = self._waiting
        self._is_counting = bool(waiting)
        if waiting:
            # Before the work: an exception must not end the turns of the others.
            asyncio.get_running_loop().call_soon(self._begin_round)
        while waiting and self._left:
            self._left -= 1
            waiting.popleft()()
