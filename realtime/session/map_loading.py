"""
How a client comes to have a map: which request is which step, and what each step may answer.

::

    (state) ──first page──► LOADING ──last page, near the top──► live
                               │ └──last page, far behind──► (stream) ──pages──► live
    (stream, recover) ─────────┴──────────────────────────────────────────────► live

A load begins at a position, the one of its first page, and keeps it: what changed later is left out of later pages and comes
through the stream, so that a key is never seen before the change that is behind it. A map without a stream can't do
that; what changes while it is read is held back by key, and sent last.

A load that the map can't be followed over (another epoch, a stream that doesn't begin where the client ends) is dropped
with 112, and the SDK starts from nothing. The reference keeps silent where the stream has *nothing* left of what is missing.

Source: ``streams-and-state`` 12.10, and 12.7 for the rule on gaps.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from msgspec import Raw

from realtime.namespaces.options import MapPaging
from realtime.protocol.errors import (
    BadRequestError,
    PermissionDeniedError,
    UnrecoverablePositionError,
)
from realtime.protocol.messages import EMPTY, Publication, StreamPosition


MAP_RESULT_TYPE = 1  # SubscribeResult.type of all three map types


class Phase(enum.IntEnum):
    """``SubscribeRequest.phase`` and ``SubscribeResult.phase``."""

    LIVE = 0
    STREAM = 1
    STATE = 2


class MapRequest(Protocol):
    """What of a ``SubscribeRequest`` is looked at here."""

    @property
    def phase(self) -> int: ...
    @property
    def cursor(self) -> str: ...
    @property
    def recover(self) -> bool: ...
    @property
    def offset(self) -> int: ...
    @property
    def epoch(self) -> str: ...


class MapLoad:
    """
    A client on its way to a map.

    Attributes:
        started_at: Unix seconds of its first request.
        paging: The namespace's, as they were then.
        data: What the token gives the client, for the last reply.
        start: The position of the first page; ``None`` until there is one.
        recovers_from: The position that a client began with that was there before, and has what it loaded then.
        goal: The stream's top at the first request for changes; ``None`` until then.

    """

    __slots__ = (
        "data",
        "goal",
        "paging",
        "recovers_from",
        "start",
        "started_at",
    )

    def __init__(self, started_at: float, paging: MapPaging) -> None:
        self.started_at = started_at
        self.paging = paging
        self.data: Raw = EMPTY
        self.start: StreamPosition | None = None
        self.recovers_from: StreamPosition | None = None
        self.goal: int | None = None

    def is_late(self, now: float) -> bool:
        """Say whether it takes longer than it may."""
        timeout = self.paging.catch_up_timeout
        return timeout >= 0 and now - self.started_at > timeout


def continues(request: MapRequest, *, is_loading: bool) -> bool:
    """Say whether a request goes on with a load, so that nothing of it is decided again."""
    return is_loading and (bool(request.cursor) or request.phase != Phase.STATE)


def first_step(request: MapRequest, *, has_stream: bool) -> Phase:
    """
    Say where a load begins that was authorized.

    Raises:
        PermissionDeniedError: The request goes on with a load that there isn't.
        BadRequestError: There is no such phase, or no stream.

    """
    step = next_step(request, has_stream=has_stream)
    if step is Phase.STREAM and not request.recover:
        raise PermissionDeniedError
    return step


def next_step(request: MapRequest, *, has_stream: bool) -> Phase:
    """Say what a request asks for; raises ``BadRequestError`` where there is no such phase, or no stream."""
    try:
        step = Phase(request.phase)
    except ValueError:
        raise BadRequestError from None
    if step is Phase.STREAM and not has_stream:
        raise BadRequestError
    return step


def visible(page: Sequence[Publication], start: StreamPosition) -> list[Publication]:
    """Leave out what changed after the first page was read."""
    return [each for each in page if each.offset <= start.offset]


def is_near(offset: int, size: int, top: int) -> bool:
    """Say whether what is missing after ``offset`` is one page at most, so that the client may go live."""
    return offset + size >= top


def check_epoch(known: str, epoch: str) -> None:
    """Raise ``UnrecoverablePositionError`` where a map was cleared or lost since."""
    if known != epoch:
        raise UnrecoverablePositionError


def follow(
    changes: Sequence[Publication], since: StreamPosition, top: StreamPosition
) -> Sequence[Publication]:
    """
    Return changes as they are, if they follow ``since`` without a hole.

    Args:
        changes: What the stream has after ``since.offset``, ascending, up to a limit.
        since: What the client has.
        top: The map's position at the same moment.

    Raises:
        UnrecoverablePositionError: They don't, or ``since`` belongs to another epoch.

    """
    check_epoch(since.epoch, top.epoch)
    if changes[0].offset != since.offset + 1 if changes else top.offset != since.offset:
        raise UnrecoverablePositionError
    return changes


class HeldByKey:
    """
    What changed of a map without a stream while it was read: the newest of each key, in the order in which they came.

    It stands where others have a list (of ``realtime.node.rooms.Delivery``), and is as large as the map at most: a load may take as long as its timeout, and a map
    of moving things changes a thousand times a second.
    """

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        self._newest: dict[str, Any] = {}

    def append(self, delivery: Any) -> None:
        """Hold one back."""
        key = delivery.publication.key
        self._newest.pop(key, None)
        self._newest[key] = delivery

    def __iter__(self) -> Iterator[Any]:
        return iter(self._newest.values())
