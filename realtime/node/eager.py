"""
Run a coroutine on the spot, and make a task only of one that waits.

Most of what the server does on the memory engine never suspends. Such a coroutine is driven to its end by one
``send``; a task costs some 10 µs and a trip round the loop. While it is driven ``asyncio.current_task()`` is not
its own, so the code in it must not use ``asyncio.timeout`` or ``asyncio.wait_for`` before its first real wait (under
``run_promptly``: before its first wait for something else than a ``PromptFuture``): engines bound their waits themselves.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from realtime.engines.prompt import PromptFuture


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


class Driven(Generic[T]):
    """
    A coroutine that waits, and that goes on with what it waits for.

    Attributes:
        on_end: To be set at once by who started it. Called with the result and ``None``, or with ``None`` and the error,
            from within whatever settles the future that the coroutine waits for, so it must not raise.

    """

    __slots__ = ("_coroutine", "_waited", "on_end")

    on_end: Callable[[T | None, BaseException | None], object]

    def __init__(self, coroutine: Coroutine[Any, Any, T], waited: Any) -> None:
        self._coroutine = coroutine
        self._wait(waited)

    def _wait(self, waited: Any) -> None:
        if type(waited) is PromptFuture and not waited.done():
            # What a task does with a future that it is given to wait for.
            waited._asyncio_future_blocking = False  # noqa: SLF001 -- the protocol of awaitables
            waited.resume = self._go_on
            self._waited: PromptFuture[Any] | asyncio.Task[T] = waited
            return
        task = asyncio.get_running_loop().create_task(_as_coroutine(self._coroutine, waited))
        task.add_done_callback(self._end_with_task)
        self._waited = task

    def cancel(self) -> None:
        """Have ``CancelledError`` raised where it waits, with the loop's next turn; who cancels itself is left alone."""
        waited = self._waited
        if isinstance(waited, asyncio.Task):
            if waited is not current_task():
                waited.cancel()
        elif waited.cancel():
            waited.resume = None
            waited.get_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        try:
            waited = self._coroutine.send(None)
        except StopIteration as stop:
            self.on_end(stop.value, None)
        except BaseException as error:  # noqa: BLE001 -- it belongs to the coroutine
            self.on_end(None, error)
        else:
            self._wait(waited)

    def _end_with_task(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.on_end(None, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.on_end(None, error)
        else:
            self.on_end(task.result(), None)


def current_task() -> asyncio.Task[Any] | None:
    """Return the running task; ``None`` where there is none."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def run_promptly(coroutine: Coroutine[Any, Any, T]) -> tuple[T | None, Driven[T] | None]:
    """
    Drive ``coroutine`` as ``run_eagerly`` does, with a task only where it waits for something else than a ``PromptFuture``.

    Returns:
        ``(result, None)`` when it ended, ``(None, driven)`` when it waits.

    Raises:
        Whatever the coroutine raises before its first wait.

    """
    try:
        waited = coroutine.send(None)
    except StopIteration as stop:
        return stop.value, None
    return None, Driven(coroutine, waited)
