"""
What the node needs of a backend.

An engine is one object per interface, or one object for several. Everything that crosses these lines is a
message of ``realtime.protocol.messages`` or a value below; seconds are floats. A backend that fails raises
``EngineError`` within its own timeout; it never hangs and never reports success that it doesn't know of.

What is made once per publish or read is a ``msgspec.Struct``: a frozen dataclass takes 0.44 µs to make, a struct 0.05.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from realtime.namespaces.options import StreamOptions
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """
    How to publish, read from the channel's namespace at publish time.

    History is kept when both ``history_size`` and ``history_ttl`` are positive. ``version`` 0 means no version
    logic. ``idempotency_ttl`` counts from the first publish with ``idempotency_key``.
    """

    history_size: int = 0
    history_ttl: float = 0
    history_meta_ttl: float = 0
    idempotency_key: str = ""
    idempotency_ttl: float = 300
    delta: bool = False
    version: int = 0
    version_epoch: str = ""

    @property
    def has_history(self) -> bool:
        """Say whether the publication enters the stream."""
        return self.history_size > 0 and self.history_ttl > 0


NO_OPTIONS = PublishOptions()


@functools.lru_cache(maxsize=1024)
def plain_options(stream: StreamOptions) -> PublishOptions:
    """Make the options of a publish that asks for nothing special; there is one per namespace."""
    return PublishOptions(
        history_size=stream.history_size,
        history_ttl=stream.history_ttl,
        history_meta_ttl=stream.history_meta_ttl,
        delta=stream.delta,
    )


NO_POSITION = StreamPosition()


class PublishOutcome(msgspec.Struct, frozen=True, gc=False):
    """``position`` is empty without history; ``suppressed`` is ``""``, ``"idempotency"`` or ``"version"``."""

    position: StreamPosition = NO_POSITION
    suppressed: str = ""


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """
    Which publications to read.

    ``limit`` 0 asks for the position only, a negative one for everything. ``since`` is exclusive. ``reverse``
    reads downwards, newest first.
    """

    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


def translated(
    position: StreamPosition, before: Sequence[StreamPosition], top: StreamPosition
) -> StreamPosition:
    """Return a position as one of ``top``'s epoch, if it is of one of those ``before``, and not beyond its end; else as it is."""
    if any(position.epoch == end.epoch and position.offset <= end.offset for end in before):
        return StreamPosition(position.offset, top.epoch)
    return position


class History(msgspec.Struct, frozen=True):
    """
    One consistent read of a stream.

    ``publications`` are in the order that was asked for; ``top`` is the position of the newest publication ever
    appended, whatever was read. An epoch in ``since`` that is not ``top.epoch`` is the *caller's* to notice.

    ``before`` is where epochs before this one ended whose stream it goes on with: their positions up to there are good,
    and what was delivered beyond may be lost.
    """

    publications: Sequence[Publication]
    top: StreamPosition
    before: Sequence[StreamPosition] = ()

    def translated(self, position: StreamPosition) -> StreamPosition:
        """Return a position of an epoch before as one of this epoch, if it is good; any other as it is."""
        return translated(position, self.before, self.top)

    def has(self, position: StreamPosition) -> bool:
        """Say whether a position is of this stream; one without an epoch is of any."""
        return not position.epoch or self.translated(position).epoch == self.top.epoch


@dataclass(frozen=True, slots=True)
class PresenceStats:
    """Connections and distinct users (all anonymous connections are one user)."""

    num_clients: int = 0
    num_users: int = 0


class BrokerEvents(Protocol):
    """What a broker tells the node, synchronously and on the node's loop, per channel in the order of publication."""

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        position: StreamPosition,
        *,
        delta: bool = False,
        previous: Publication | None = None,
        published_at: float = 0,
    ) -> None:
        """
        Deliver a publication to this node's subscribers of ``channel``.

        ``position`` is empty for a publication outside the stream. ``delta`` and ``previous`` (the publication
        before it in the stream) are there when the publisher allowed patches. ``published_at`` is Unix time.
        """

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Tell subscribers that somebody came."""

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell subscribers that somebody went."""

    def on_control(self, data: bytes) -> None:
        """Carry out what another node (or this one) asked all nodes to do."""

    def on_lost(self, channels: Sequence[str] | None) -> None:
        """Check positions at once: messages of ``channels`` (``None``: of any channel) may be lost."""


class NobodyListens:
    """The events where there is no node: what is published is stored and reaches nobody here."""

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        position: StreamPosition,
        *,
        delta: bool = False,
        previous: Publication | None = None,
        published_at: float = 0,
    ) -> None:
        pass

    def on_join(self, channel: str, info: ClientInfo) -> None:
        pass

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        pass

    def on_control(self, data: bytes) -> None:
        pass

    def on_lost(self, channels: Sequence[str] | None) -> None:
        pass


class Answer(Protocol):
    """Who is told the outcome of what was begun; neither may raise."""

    def settle(self, result: Any, /) -> None:
        """Take the backend's reply."""

    def fail(self, error: Exception, /) -> None:
        """Take the error."""


class Broker(Protocol):
    """
    PUB/SUB between nodes, and the streams.

    Append and fan-out of one publish are one atomic step per channel. ``is_reliable`` means that a subscribed
    node sees every publication, so that positions need no periodic check; ``is_remote``, that a publish has to wait.
    """

    is_reliable: bool
    is_remote: bool

    async def start(self, events: BrokerEvents) -> None:
        """Connect; from now on ``events`` is called."""

    async def close(self) -> None:
        """Let go of everything; may be called twice."""

    def sweep(self, now: float) -> None:
        """Free what expired; called about once a second."""

    async def check(self) -> None:
        """Raise ``EngineError`` unless publishing works now and what is published arrives."""

    async def subscribe(self, channel: str) -> None:
        """Return when this node surely gets what is published from now on."""

    async def unsubscribe(self, channel: str) -> None:
        """Stop getting the channel's messages."""

    async def publish(
        self, channel: str, publication: Publication, options: PublishOptions
    ) -> PublishOutcome:
        """
        Append (where the options keep history) and fan out, once.

        The order is normative: idempotency, history off, previous for delta, version guard, append and trim,
        remember the result, fan out (``streams-and-state`` 2.2). ``publication.offset`` is set by the broker.
        """

    def publish_ahead(
        self, channel: str, publication: Publication, options: PublishOptions, answer: Answer
    ) -> bool:
        """
        Begin a publish that none can overtake that is begun later, if there is such a way and there is room.

        Returns:
            Whether it is begun, and ``answer`` will be told, once and not before this returns.

        Raises:
            EngineError: The backend is away.

        """

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Fan out a join."""

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Fan out a leave."""

    async def history(self, channel: str, what: HistoryFilter, meta_ttl: float) -> History:
        """Read; the first touch of a channel gives it its epoch. ``meta_ttl`` re-arms the stream's record."""

    async def remove_history(self, channel: str) -> None:
        """Drop the publications; top and epoch stay."""

    async def renew(self, channel: str, epoch: str) -> None:
        """
        End a stream that fell back behind what was delivered of it; nothing happens unless ``epoch`` is its own.

        Its offsets will be given away again, so nobody may recover over them: the next touch makes a new epoch.
        """


class PresenceManager(Protocol):
    """Who is in a channel."""

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        """Record or refresh an entry."""

    async def remove(self, channel: str, client_id: str, user: str) -> None:
        """Forget an entry; unknown ones are no error."""

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Return the entries by client id."""

    async def presence_stats(self, channel: str) -> PresenceStats:
        """Count them."""

    async def remove_node(self, node_id: str) -> Sequence[tuple[str, ClientInfo]]:
        """
        Forget the entries that a dead node added.

        Returns:
            Channel and info of each. Every survivor may ask: each entry is given to one of them, once. What
            the node adds again afterwards (it was not dead) stays.

        Raises:
            EngineError: Some may still be there; who asked asks again.

        """


class ControlBus(Protocol):
    """Messages from node to node."""

    async def publish_control(self, data: bytes, node_id: str = "") -> None:
        """
        Hand ``data`` to one node, or with an empty ``node_id`` to all.

        This node's own ``on_control`` is called too when it is among them. Raises ``EngineError`` when it cannot
        be known to have left.
        """
