"""
Run a coroutine on the spot, and make a task only of one that waits.

Most of what the server does on the memory engine never suspends. Such a coroutine is driven to its end by one
``send``; a task costs some 10 µs and a trip round the loop. While it is driven ``asyncio.current_task()`` is not
its own, so the code in it must not use ``asyncio.timeout`` or ``asyncio.wait_for`` before its first real wait: engines
bound their waits with ``loop.call_later`` on the future.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar


T = TypeVar("T")


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that has already yielded ``waited``."""
    while True:
        try:
            value = yield waited
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 -- it belongs to the coroutine, cancellation too
            try:
                waited = coroutine.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
        else:
            try:
                waited = coroutine.send(value)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]


async def _as_coroutine(coroutine: Coroutine[Any, Any, T], waited: Any) -> T:
    return await _resume(coroutine, waited)


def run_eagerly(coroutine: Coroutine[Any, Any, T]) -> tuple[T | None, asyncio.Task[T] | None]:
    """
    Drive ``coroutine`` until it ends or waits.

    Returns:
        ``(result, None)`` when it ended, ``(None, task)`` when it waits; the caller owns the task.

    Raises:
        Whatever the coroutine raises before its first wait.

    """
    try:
        waited = coroutine.send(None)
    except StopIteration as stop:
        return stop.value, None
    return None, asyncio.get_running_loop().create_task(_as_coroutine(coroutine, waited))
