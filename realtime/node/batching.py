"""
Messages that are gathered before they leave: fewer and fuller writes for channels with many of them.

What is gathered waits in its cohort until there are ``max_size`` messages or the first has waited for ``max_delay``; then it is
*released*: it becomes what the cohort has pending, and leaves with the next flush. One timer serves all cohorts of a node.

A subscription that comes, or that is looked after on its own, while the others have something gathered has a cohort of its
own (``Extras.alone``), so that its messages are gathered as well. It joins the others when theirs are released.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from realtime.node.rooms import Cohort, Form, Room


if TYPE_CHECKING:
    from realtime.protocol.wire import Wire
    from realtime.session.manner import Manner
    from realtime.session.tags_filter import TagsFilter

TOGETHER = (
    0.001  # seconds: cohorts that are due so soon are released too, which spares a wake-up for each
)


class BatchCohort(Cohort):
    """
    Subscribers whose messages are gathered.

    Attributes:
        room: Where they are.
        is_shared: Whether it is for all who are owed the same, and not for one who is looked after on its own.
        due: When what is gathered has to leave, by the loop's clock.
        is_queued: Whether the node's timer knows of it.

    ``pending`` has what was released.

    """

    __slots__ = ("_count", "_gathered", "_latest", "_most", "due", "is_queued", "is_shared", "room")

    def __init__(
        self,
        room: Room,
        wire: Wire,
        form: Form,
        tags_filter: TagsFilter | None,
        manner: Manner,
        *,
        most: int,
        is_shared: bool,
    ) -> None:
        super().__init__(wire, room.head(wire, manner), form, tags_filter, manner)
        self.room = room
        self.is_shared = is_shared
        self.due = 0.0
        self.is_queued = False
        self._most = most
        self._count = 0
        self._gathered: list[bytes] = []
        self._latest: dict[str, bytes] = {}

    @property
    def has_gathered(self) -> bool:
        """Say whether something waits to be released."""
        return self._count > 0

    def add(self, message: bytes, key: str | None, *, latest_only: bool) -> int:
        """
        Gather a message.

        Args:
            message: As the unframed wire encodes it.
            key: Of a publication; ``None`` for a join or leave.
            latest_only: Of the publications with one key only the newest stays. A patch has to stay in any case,
                since the next one is made for what it gives.

        Returns:
            How many came since the last release, those that did not stay included.

        """
        self._count += 1
        if key is None or not latest_only or self.form > Form.WHOLE:
            self._gathered.append(message)
        else:
            # Taken out first, so that those that stay are in the order of their last update.
            self._latest.pop(key, None)
            self._latest[key] = message
        return self._count

    def release(self) -> None:
        """Let what is gathered leave with the next flush, the publications of ``latest_only`` last."""
        self.pending += self._gathered
        self.pending += self._latest.values()
        self.forget()

    def forget(self) -> None:
        """Drop what is gathered."""
        self._gathered.clear()
        self._latest.clear()
        self._count = 0

    def take(self) -> bytes:
        """Return what is pending, joined, and forget it."""
        joined = self.wire.seal(self.pending, self._most)
        self.pending = []
        return joined

    def owed(self) -> bytes:
        """Return what a member that leaves must be given, joined; nothing is forgotten."""
        messages = [*self.pending, *self._gathered, *self._latest.values()]
        return self.wire.seal(messages, self._most) if messages else b""


class Batches:
    """
    The one timer of all that is gathered.

    Args:
        release: Called with each cohort that is due.
        messages_per_frame: How many messages may share a frame; -1 is any number.

    Attributes:
        release: As given; lets what a cohort has gathered leave with the next flush.
        clock: Seconds; the loop's by default.

    """

    def __init__(self, release: Callable[[BatchCohort], None], messages_per_frame: int) -> None:
        self.release = release
        self.clock: Callable[[], float] | None = None
        self._messages_per_frame = messages_per_frame
        self._heap: list[tuple[float, int, BatchCohort]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    def cohort(
        self,
        room: Room,
        wire: Wire,
        form: Form,
        tags_filter: TagsFilter | None,
        manner: Manner,
        *,
        is_shared: bool,
    ) -> BatchCohort:
        """Make a cohort for what is gathered in a room; it has no members yet."""
        room.more().has_batches = True
        most = self._messages_per_frame
        return BatchCohort(room, wire, form, tags_filter, manner, most=most, is_shared=is_shared)

    def add(self, cohort: BatchCohort, message: bytes, key: str | None = None) -> None:
        """Gather a message; one that is due by number is released at once."""
        assert cohort.manner is not None
        batching = cohort.manner.batching
        assert batching is not None
        count = cohort.add(message, key, latest_only=batching.latest_only)
        if 0 < batching.max_size <= count:
            self.release(cohort)
        elif count == 1 and batching.max_delay:
            cohort.due = self._now() + batching.max_delay
            if not cohort.is_queued:
                self._push(cohort)
                self._arm()

    def fire(self) -> None:
        """Release what is due, and see to the rest."""
        self._timer = None
        heap, limit = self._heap, self._now() + TOGETHER
        while heap and heap[0][0] <= limit:
            cohort = heapq.heappop(heap)[2]
            cohort.is_queued = False
            if not cohort.has_gathered:
                continue
            if cohort.due <= limit:
                self.release(cohort)
            else:  # what it was queued for has left by number, and there is more
                self._push(cohort)
        self._arm()

    def stop(self) -> None:
        """Release nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heap.clear()

    def _push(self, cohort: BatchCohort) -> None:
        cohort.is_queued = True
        heapq.heappush(self._heap, (cohort.due, next(self._numbers), cohort))

    def _arm(self) -> None:
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_due = due
        self._timer = loop.call_later(max(due - self._now(), 0), self.fire)

    def _now(self) -> float:
        return self.clock() if self.clock is not None else asyncio.get_running_loop().time()
