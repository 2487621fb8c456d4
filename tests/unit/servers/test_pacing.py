"""Turns: how many in a round, in which order, and what an exception does."""

from __future__ import annotations

import asyncio
from typing import Any

from realtime.servers.pacing import Turns


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_round_has_so_many_turns() -> None:
    """The next ones are for the next round."""
    turns = Turns(2)

    assert [turns.take() for _ in range(3)] == [True, True, False]
    await _rounds(1)

    assert [turns.take() for _ in range(3)] == [True, True, False]


async def test_who_waits_goes_first_and_in_order() -> None:
    """Two a round, nobody passes those who wait, and when they are through there is room again."""
    turns, done = Turns(2), []
    while turns.take():
        pass
    for number in range(5):
        turns.wait(lambda number=number: done.append(number))
    after_round: list[tuple[list[int], bool]] = []

    for _ in range(4):
        await _rounds(1)
        after_round.append((list(done), turns.take()))

    assert after_round == [
        ([0, 1], False),
        ([0, 1, 2, 3], False),
        ([0, 1, 2, 3, 4], True),
        ([0, 1, 2, 3, 4], True),
    ]


async def test_one_that_fails_does_not_hold_up_the_others() -> None:
    """The loop hears of the exception, the rest have their turns."""
    turns, done = Turns(2), []
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    while turns.take():
        pass
    turns.wait(lambda: 1 // 0)
    turns.wait(lambda: done.append("second"))

    await _rounds(3)

    assert done == ["second"]
    assert [type(error["exception"]) for error in errors] == [ZeroDivisionError]
