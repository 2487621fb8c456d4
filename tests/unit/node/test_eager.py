"""Coroutines that are driven without a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from realtime.engines.prompt import PromptFuture
from realtime.node.eager import run_eagerly, run_promptly


async def test_what_does_not_wait_ends_at_once() -> None:
    """With its result or its error."""

    async def answer(value: int) -> int:
        if not value:
            raise ValueError("none")
        return value

    assert run_promptly(answer(3)) == (3, None)
    assert run_eagerly(answer(4)) == (4, None)
    with pytest.raises(ValueError, match="none"):
        run_promptly(answer(0))


@pytest.mark.parametrize("fails", [False, True])
async def test_a_prompt_answer_goes_on_within_the_call_that_settles_it(fails: bool) -> None:
    """Through several waits, and with errors thrown where the coroutine stands."""
    loop, ends, seen = asyncio.get_running_loop(), [], []
    first: PromptFuture[int] = PromptFuture(loop)
    second: PromptFuture[int] = PromptFuture(loop)

    async def ask() -> int:
        seen.append(await first)
        try:
            seen.append(await second)
        except ConnectionError:
            seen.append(-1)
        return sum(seen)

    result, driven = run_promptly(ask())
    assert result is None
    assert driven is not None
    driven.on_end = lambda *end: ends.append(end)
    first.settle(1)
    assert seen == [1]
    assert ends == []
    if fails:
        second.fail(ConnectionError())
    else:
        second.settle(2)
    assert ends == [(0 if fails else 3, None)]
    second.settle(9)
    assert len(ends) == 1


async def test_an_error_after_the_wait_is_told_and_not_raised() -> None:
    """Whoever settles the future has nothing to do with it."""
    future: PromptFuture[int] = PromptFuture(asyncio.get_running_loop())
    ends: list[Any] = []

    async def ask() -> int:
        return 1 // await future

    _, driven = run_promptly(ask())
    assert driven is not None
    driven.on_end = lambda *end: ends.append(end)
    future.settle(0)

    assert ends[0][0] is None
    assert isinstance(ends[0][1], ZeroDivisionError)


async def test_any_other_wait_gets_a_task() -> None:
    """Also after prompt ones, and cancelling the task's future is told as that."""
    loop = asyncio.get_running_loop()
    prompt: PromptFuture[int] = PromptFuture(loop)
    usual: asyncio.Future[int] = loop.create_future()
    ends: list[Any] = []

    async def ask() -> tuple[int, int]:
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            return await prompt, await usual

    _, driven = run_promptly(ask())
    assert driven is not None
    ended = asyncio.Event()
    driven.on_end = lambda *end: (ends.append(end), ended.set())
    await asyncio.sleep(0)
    prompt.settle(1)
    usual.set_result(2)
    await ended.wait()
    assert ends == [((1, 2), None)]


async def test_tasks_wait_for_prompt_futures_like_for_any() -> None:
    """Alone, together and cancelled."""
    loop = asyncio.get_running_loop()
    futures: list[PromptFuture[int]] = [PromptFuture(loop) for _ in range(3)]
    gathered = asyncio.gather(*futures[:2])

    async def ask() -> int:
        return await futures[2]

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    futures[0].settle(1)
    futures[1].settle(2)
    assert await gathered == [1, 2]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    futures[2].settle(3)
    assert futures[2].cancelled()
