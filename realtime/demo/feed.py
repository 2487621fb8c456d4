"""Measurements go out at a steady pace, whatever becomes of the server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from realtime.protocol.errors import ClientError, EngineError


logger = logging.getLogger(__name__)


class Feed:
    """
    Publish what ``read`` returns every ``interval`` seconds.

    A measurement that can't be published is gone: the next is newer. The first failure and the return are logged, not
    every attempt between them.
    """

    def __init__(
        self,
        read: Callable[[], Any],
        publish: Callable[[Any], Any],
        *,
        interval: float,
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._read = read
        self._publish = publish
        self._interval = interval
        self._monotonic = monotonic
        self._sleep = sleep
        self._failing_since: float | None = None
        self._lost = 0

    def run(self, count: int = 0) -> None:
        """Go on until ``count`` measurements are published; 0 is for ever."""
        published = 0
        due = self._monotonic()
        while True:
            # From the schedule, not from now: a second's work does not shift every later second. After a stall
            # longer than an interval the schedule starts anew instead of catching up in a burst.
            due = max(due + self._interval, self._monotonic())
            self._sleep(max(0.0, due - self._monotonic()))
            published += self._try_once()
            if count and published >= count:
                return

    def _try_once(self) -> bool:
        try:
            self._publish(self._read())
        except (ClientError, EngineError) as error:
            self._on_failure(error)
            return False
        self._on_success()
        return True

    def _on_failure(self, error: Exception) -> None:
        self._lost += 1
        if self._failing_since is None:
            self._failing_since = self._monotonic()
            logger.warning("cannot publish (%s); trying again every %g s", error, self._interval)

    def _on_success(self) -> None:
        if self._failing_since is None:
            return
        logger.info(
            "publishing again after %.1f s; %d measurements were not published",
            self._monotonic() - self._failing_since,
            self._lost,
        )
        self._failing_since, self._lost = None, 0
