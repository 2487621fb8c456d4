"""
One connection's subscription to one channel.

::

    RESERVED ──join──► HOLDING ──go live──► LIVE ◄──► HELD
        │                 │                  │          │
        └─────────────────┴──── ENDED ◄──────┴──────────┘

``RESERVED`` keeps the channel's place while the decision is made, ``HOLDING`` keeps live publications back until the
reply is written, ``LIVE`` shares the channel's position with all others that are in step, and ``HELD`` is looked
after on its own: its reader is slow, or it is ahead of what this node has seen. The object itself is the generation: a late
answer for an ended subscription finds ``ENDED`` and does nothing.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar

from realtime.protocol.messages import EMPTY
from realtime.session.map_loading import HeldByKey


if TYPE_CHECKING:
    from msgspec import Raw

    from realtime.namespaces.options import MapRules
    from realtime.session.grants import GrantedOptions
    from realtime.session.map_loading import MapLoad
    from realtime.session.permissions import SubscriptionSource
    from realtime.session.tags_filter import TagsFilter


class SubscriptionState(enum.IntEnum):
    """Where a subscription is in its life."""

    RESERVED = 0
    HOLDING = 1
    LIVE = 2
    HELD = 3
    ENDED = 4


_ESTABLISHED = (SubscriptionState.LIVE, SubscriptionState.HELD)


class Tracking:
    """
    The keys of a shared poll that a subscription tracks.

    Attributes:
        keys: Until when each, in Unix seconds; 0 for ever.
        epoch: The generation of versions that the client was told of.

    """

    __slots__ = ("epoch", "keys")

    def __init__(self, epoch: str) -> None:
        self.keys: dict[str, int] = {}
        self.epoch = epoch


class Subscription:
    """
    One channel of one connection.

    Attributes:
        channel: Its name.
        client: The connection that it belongs to.
        options: What was granted at subscribe time; later changes of the namespace do not touch it.
        info: ``chan_info`` of this subscription.
        expire_at: Unix seconds, 0 for never.
        tags_filter: Which publications it gets; ``None`` is all of them.
        own_filter: The client's part of it.
        base: While ``HELD``: the offset of the publication that a patch may be made for, 0 if there is none. Of a map, always:
            the position it recovered from; values of keys that did not change since may be unknown to it. 0 if it has all.
        ahead: While ``HELD``: publications up to this offset have been sent already.
        buffer: While ``HOLDING``: what arrived, in order.
        tracking: Of a shared poll: which keys.
        ends_with: Set by who wants to end it while it is still beginning: unsubscribe code and reason.

    """

    __slots__ = (
        "ahead",
        "base",
        "buffer",
        "channel",
        "checked_at",
        "client",
        "ends_with",
        "expire_at",
        "info",
        "is_server_side",
        "options",
        "own_filter",
        "source",
        "state",
        "tags_filter",
        "tracking",
    )

    is_map: ClassVar[bool] = False
    options: GrantedOptions
    source: SubscriptionSource

    def __init__(self, channel: str, client: Any, *, is_server_side: bool = False) -> None:
        self.channel = channel
        self.client = client
        self.is_server_side = is_server_side
        self.state = SubscriptionState.RESERVED
        self.info: Raw = EMPTY
        self.expire_at = 0
        self.ahead = 0
        self.base = 0
        self.tags_filter: TagsFilter | None = None
        self.own_filter: TagsFilter | None = None
        self.checked_at = 0.0
        self.tracking: Tracking | None = None
        self.buffer: list[Any] | HeldByKey | None = None  # of realtime.node.deliveries.Delivery
        self.ends_with: tuple[int, str] | None = None

    @property
    def is_established(self) -> bool:
        """Say whether the client was told that it is subscribed."""
        return self.state in _ESTABLISHED

    @property
    def is_positioned(self) -> bool:
        """Say whether the client counts offsets."""
        return self.options.positioned or self.options.recoverable

    def empty_buffer(self) -> list[Any] | HeldByKey:
        """Return what publications can be held back in."""
        return []


class MapSubscription(Subscription):
    """
    A subscription to a map.

    A client that asked for it loads the map first and follows it from there; one that the server made is only told what
    changes.

    Attributes:
        rules: How the map was kept when the client came.
        load: Until it is live: how far it is, while it is asked for page by page; ``RESERVED`` until then.

    """

    __slots__ = ("load", "rules")

    is_map: ClassVar[bool] = True

    def __init__(
        self, channel: str, client: Any, rules: MapRules, *, is_server_side: bool = False
    ) -> None:
        super().__init__(channel, client, is_server_side=is_server_side)
        self.rules = rules
        self.load: MapLoad | None = None

    def empty_buffer(self) -> list[Any] | HeldByKey:
        """Return what publications can be held back in; without positions, for as long as it takes to load the map."""
        return [] if self.is_positioned else HeldByKey()
