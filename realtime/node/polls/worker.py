"""
When one channel's application is asked.

A cycle begins once per interval, at once if the one before ended late, and spreads its batches evenly. Between cycles keys
are asked for at once: those that somebody came for (*cold*), all of one tick together, and those that notifications name.
An answer that fails or is late costs its batch this cycle and nothing else.

Timers and the node's clock come in from outside; calls are tasks of the node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from realtime.node.polls.channel import PolledChannel
from realtime.node.polls.figures import PollFigures
from realtime.node.polls.plan import next_interval
from realtime.protocol.errors import ProxyError
from realtime.proxies.shared_poll import SharedPollBackend, SharedPollRefreshRequest


if TYPE_CHECKING:
    from realtime.proxies.shared_poll import FindBackend

logger = logging.getLogger(__name__)

CALL_TIMEOUT = 30.0  # seconds; a proxy's own may be shorter


class Handle(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Call nothing any more."""


class Timers(Protocol):
    """What a worker needs of a loop."""

    def time(self) -> float:
        """Return seconds that never jump."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Handle:
        """Call something in ``delay`` seconds."""


class Room(Protocol):
    """What the workers of a node share; ``Polls`` is it."""

    figures: PollFigures
    find_backend: FindBackend

    @property
    def timers(self) -> Timers:
        """What waits."""

    @property
    def slots(self) -> asyncio.Semaphore:
        """The calls that may be under way at a time."""

    def next_call(self) -> int:
        """Number a call that begins."""

    def run(self, call: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that nobody waits for."""

    def forget(self, channel: PolledChannel, names: Sequence[str]) -> None:
        """Clean up after keys that are gone."""


class Worker:
    """
    Asks for one channel's keys.

    Args:
        channel: Its keys, which take the answers.
        room: Of the node.

    """

    def __init__(self, channel: PolledChannel, room: Room) -> None:
        self.channel = channel
        self._room = room
        self._interval = channel.plan.interval
        self._timers: set[Handle] = set()
        self._is_running = False
        self._is_failing = False
        self._started_at = 0.0
        self._open_batches = 0
        self._busy = 0
        self._busy_since = 0.0
        self._work = 0.0
        self._waiting: dict[str, None] = {}

    @property
    def interval(self) -> float:
        """Seconds between two cycles at present."""
        return self._interval

    def start(self) -> None:
        """Begin with cycles; the first one comes after an interval, since new keys are asked for at once."""
        if not self._is_running:
            self._is_running = True
            self._started_at = self._room.timers.time()
            self._later(self._interval, self._begin)

    def stop(self) -> None:
        """Ask no more; what is under way finds nobody. May be called twice."""
        self._is_running = False
        self._waiting.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def ask(self, names: Sequence[str], trigger: str) -> None:
        """Ask for keys at once."""
        if trigger == "cold":
            self.channel.begin_calls(names)
            if not self._waiting:
                self._later(0, self._ask_waiting)
            self._waiting.update(dict.fromkeys(names))
            return
        for batch in self._batches(names):
            self._room.run(self._call(batch, trigger))

    def _ask_waiting(self) -> None:
        names, self._waiting = sorted(self._waiting), {}
        for batch in self._batches(names):
            self._room.run(self._ask_cold(batch))

    async def _ask_cold(self, names: Sequence[str]) -> None:
        try:
            await self._call(names, "cold")
        finally:
            self.channel.end_calls(names)

    # --- cycles ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._started_at = self._room.timers.time()
        self._work = 0.0
        batches = self._batches(self.channel.due())
        if not batches:
            self._later(self._interval, self._begin)
            return
        self._open_batches = len(batches)
        gap = self._interval / len(batches)
        for number, batch in enumerate(batches):
            if number:
                self._later(number * gap, self._dispatch, batch)
            else:
                self._dispatch(batch)

    def _dispatch(self, batch: Sequence[str]) -> None:
        self._room.run(self._ask_batch(batch))

    async def _ask_batch(self, batch: Sequence[str]) -> None:
        if not self._busy:
            self._busy_since = self._room.timers.time()
        self._busy += 1
        try:
            await self._call(batch, "timer")
        finally:
            self._busy -= 1
            if not self._busy:
                self._work += self._room.timers.time() - self._busy_since
            self._open_batches -= 1
            if not self._open_batches and self._is_running:
                self._end()

    def _end(self) -> None:
        """Plan the next cycle by what this one took."""
        now = self._room.timers.time()
        figures = self._room.figures
        figures.cycles += 1
        figures.cycle_seconds += now - self._started_at
        figures.work_seconds += self._work
        self._interval = next_interval(self.channel.plan, self._interval, self._work)
        self._later(max(self._started_at + self._interval - now, 0), self._begin)

    def _batches(self, names: Sequence[str]) -> list[Sequence[str]]:
        size = self.channel.plan.batch_size
        return [names[begin : begin + size] for begin in range(0, len(names), size)]

    # --- one call --------------------------------------------------------------------------------

    async def _call(self, names: Sequence[str], trigger: str) -> None:
        """Ask, and have the answer taken; a failure is logged and counted."""
        room, timers = self._room, self._room.timers
        figures = room.figures
        queued_at = timers.time()
        async with room.slots:
            began_at = timers.time()
            figures.wait_seconds += began_at - queued_at
            items = self.channel.items(names)
            if not items or not self._is_running:
                return
            number = room.next_call()
            figures.calls[trigger] += 1
            figures.asked += len(items)
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    result = await self._backend().refresh(
                        SharedPollRefreshRequest(self.channel.name, items)
                    )
            except (ProxyError, TimeoutError) as error:
                figures.failures[trigger] += 1
                self._complain(error)
                return
            finally:
                figures.handler_seconds += timers.time() - began_at
        if self._is_failing:
            self._is_failing = False
            logger.info("a shared poll is answered again", extra={"channel": self.channel.name})
        if self._is_running:
            room.forget(self.channel, self.channel.take_answer(result, number))

    def _backend(self) -> SharedPollBackend:
        name = self.channel.plan.proxy_name
        backend = self._room.find_backend(name)
        if backend is None:
            message = f"there is no proxy {name!r} for shared polls"
            raise ProxyError(message)
        return backend

    def _complain(self, error: Exception) -> None:
        """Log a failure: one line for an outage, not one per cycle."""
        level = logging.DEBUG if self._is_failing else logging.WARNING
        self._is_failing = True
        what = str(error) or f"no answer within {CALL_TIMEOUT:g} s"
        facts = {"channel": self.channel.name}
        logger.log(level, "a shared poll failed: %s", what, extra=facts)

    def _later(self, delay: float, callback: Callable[..., object], *args: object) -> None:
        handle: Handle | None = None

        def call() -> None:
            if handle is not None:
                self._timers.discard(handle)
            callback(*args)

        handle = self._room.timers.call_later(delay, call)
        self._timers.add(handle)
