"""
The application's hints that keys have changed: ``{"items": [{"channel": ..., "key": ...}]}``.

They are hints: each node asks for those keys that it has trackers of, at once or in batches, and the cycle is the safety net for
what is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from realtime.node.polls.figures import PollFigures
from realtime.node.polls.plan import PollPlan


if TYPE_CHECKING:
    from realtime.node.polls.worker import Handle, Timers

logger = logging.getLogger(__name__)

QUEUE_SIZE = 4096  # keys per channel that wait for their batch, the reference's number


class NoticeItem(msgspec.Struct, frozen=True):
    """A key that has changed."""

    channel: str = ""
    key: str = ""


class Notice(msgspec.Struct, frozen=True):
    """What an application publishes."""

    items: list[NoticeItem] = []


_decoder = msgspec.json.Decoder(Notice)


def read_notice(data: bytes) -> Sequence[NoticeItem]:
    """Read a notification; one that is none is logged and empty."""
    try:
        return _decoder.decode(data).items
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        logger.warning("a shared poll notification was not understood: %.200r", data)
        return ()


class NoticeSource(Protocol):
    """Where notifications come from."""

    async def start(self, hear: Callable[[bytes], None]) -> None:
        """Connect; from now on ``hear`` is called with each message, synchronously and on the node's loop."""

    async def close(self) -> None:
        """Disconnect; may be called twice."""


class NoticeQueue:
    """
    The keys of one channel that are to be asked for.

    Args:
        plan: Says when.
        timers: Of the node.
        figures: Counts.
        ask: Called with the keys.

    """

    def __init__(
        self,
        plan: PollPlan,
        timers: Timers,
        figures: PollFigures,
        ask: Callable[[Sequence[str]], None],
    ) -> None:
        self._size = plan.notice_size
        self._delay = plan.notice_delay
        if self._size and not self._delay:
            self._delay = plan.interval  # a batch that never fills must not wait for ever
        self._timers = timers
        self._figures = figures
        self._ask = ask
        self._keys: dict[str, None] = {}
        self._timer: Handle | None = None

    def add(self, key: str) -> None:
        """Take a hint; one that repeats a key that waits is no other."""
        self._figures.notices += 1
        if key in self._keys:
            return
        if len(self._keys) >= QUEUE_SIZE:
            self._figures.dropped_notices += 1
            return
        self._keys[key] = None
        if self._size and len(self._keys) >= self._size:
            self.fire()
        elif self._timer is None:
            self._timer = self._timers.call_later(self._delay, self.fire)

    def fire(self) -> None:
        """Ask for what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        keys, self._keys = list(self._keys), {}
        if keys:
            self._ask(keys)

    def stop(self) -> None:
        """Forget what waits; may be called twice."""
        self._keys.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
