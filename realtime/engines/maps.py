"""
What the node needs of a store of maps: the state by key, and the stream of its changes.

One channel is one map. What is told in ``realtime.engines.base`` of errors and times holds here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from realtime.engines.base import NO_POSITION, BrokerEvents, HistoryFilter, translated
from realtime.namespaces.options import MapRules
from realtime.protocol.errors import InternalError
from realtime.protocol.messages import Publication, StreamPosition


IF_NEW, IF_EXISTS = "if_new", "if_exists"
EVERYTHING = -1  # StateFilter.limit, HistoryFilter.limit


class MapChange(msgspec.Struct, frozen=True, gc=False):
    """
    How to write or remove a key.

    Attributes:
        key_mode: ``""``, ``"if_new"`` or ``"if_exists"``; a removal ignores it.
        refresh_ttl: A write that ``key_mode`` suppresses still re-arms the key's expiry and the map's record.
        expected: Write only where the key was changed last at this position (compare and swap).
        idempotency_ttl: Counts from the first change with ``idempotency_key``; 0 is the store's own, 5 minutes by default.
        delta: Subscribers may be sent patches against what the key had before.
        version: Greater than 0: a write that is not newer than the key's stored version is suppressed.

    """

    key_mode: str = ""
    refresh_ttl: bool = False
    expected: StreamPosition | None = None
    idempotency_key: str = ""
    idempotency_ttl: float = 0
    delta: bool = False
    version: int = 0
    version_epoch: str = ""


PLAIN_CHANGE = MapChange()


def check_change(rules: MapRules, change: MapChange) -> None:
    """Raise ``InternalError`` where a change asks for versions or positions of a map that has none."""
    if not rules.has_stream and (change.version > 0 or change.expected is not None):
        message = "a map without a stream has no versions and no positions"
        raise InternalError from ValueError(message)


class MapEntry(msgspec.Struct, frozen=True):
    """A key as it stands, or a change of it: ``publication`` has key, offset and tags; ``time`` is Unix milliseconds."""

    publication: Publication
    time: int = 0


class MapOutcome(msgspec.Struct, frozen=True):
    """
    ``position`` is the map's top, empty without a stream.

    ``suppressed`` is ``""``, ``"idempotency"``, ``"version"``, ``"key_exists"``, ``"key_not_found"`` or
    ``"position_mismatch"``; ``current`` is the key's entry where it is the latter and there is one.
    """

    position: StreamPosition = NO_POSITION
    suppressed: str = ""
    current: MapEntry | None = None


@dataclass(frozen=True, slots=True)
class StateFilter:
    """
    Which keys to read.

    ``limit`` 0 asks for the position only, a negative one for everything. ``cursor`` is the one of the page before;
    ``key`` asks for one key alone and wins over both.
    """

    limit: int = 0
    cursor: str = ""
    key: str = ""


class MapState(msgspec.Struct, frozen=True):
    """
    One page of a map.

    ``top`` is the map's position when the page was read; an empty ``cursor`` says that this was the last one. A store may
    give a little more or less than a page's limit. A key that is there all the time while pages are read is on one of them;
    one that changes meanwhile may be on two, or on none and in the stream after the first page's ``top``.
    """

    entries: Sequence[MapEntry]
    top: StreamPosition
    cursor: str = ""


class MapStream(msgspec.Struct, frozen=True):
    """One consistent read of a map's changes, as ``History`` is of a stream."""

    entries: Sequence[MapEntry]
    top: StreamPosition
    before: Sequence[StreamPosition] = ()

    def translated(self, position: StreamPosition) -> StreamPosition:
        """Return a position of an epoch before as one of this epoch, if it is good; any other as it is."""
        return translated(position, self.before, self.top)


class MapBroker(Protocol):
    """
    Maps, and the delivery of their changes.

    A write or removal is one atomic step per channel: checks, stream, state, fan-out; the order of the checks is normative
    (``streams-and-state`` 12.4 and 12.5). ``BrokerEvents.on_publication`` is called for it, with ``previous`` being what
    the *key* had before, where ``delta`` allows patches. A removal carries the tags of what was removed, unless others are
    given. An expired key is removed, appended and told in one step too, and stays visible until then.

    While a map has keys its record (epoch and top) is kept; ``meta_ttl`` counts from when it has none. A map that gets a
    stream begins anew, and one that loses it keeps its keys. A result of an idempotency key counts in its epoch alone.
    """

    async def start(self, events: BrokerEvents) -> None:
        """Connect; from now on ``events`` is called."""

    async def close(self) -> None:
        """Let go of everything; may be called twice."""

    def sweep(self, now: float) -> None:
        """Remove the keys that are due; called about once a second."""

    async def check(self) -> None:
        """Raise ``EngineError`` unless maps can be written now and changes of them arrive."""

    async def subscribe(self, channel: str) -> None:
        """Return when this node surely gets the channel's changes from now on."""

    async def unsubscribe(self, channel: str) -> None:
        """Stop getting them."""

    async def publish(
        self, channel: str, publication: Publication, rules: MapRules, change: MapChange
    ) -> MapOutcome:
        """
        Write ``publication.key``; its offset is set here.

        Raises:
            InternalError: ``change`` asks for versions or positions of a map without a stream.

        """

    async def remove(
        self, channel: str, publication: Publication, rules: MapRules, change: MapChange
    ) -> MapOutcome:
        """Remove ``publication.key``; its tags, where there are some, are the removal's."""

    async def read_state(self, channel: str, rules: MapRules, what: StateFilter) -> MapState:
        """Read keys; the first touch of a map with a stream gives it its epoch."""

    async def read_stream(self, channel: str, rules: MapRules, what: HistoryFilter) -> MapStream:
        """Read changes. An epoch in ``what.since`` that is not ``top.epoch`` is the *caller's* to notice."""

    async def count(self, channel: str) -> int:
        """Return the number of keys."""

    async def clear(self, channel: str) -> None:
        """Delete state, stream and record; the next touch makes a new epoch."""

    async def renew(self, channel: str, epoch: str) -> None:
        """Do as ``Broker.renew`` does, with the state dropped as well."""
