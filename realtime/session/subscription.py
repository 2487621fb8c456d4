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
from typing import TYPE_CHECKING, Any

from realtime.protocol.messages import EMPTY


if TYPE_CHECKING:
    from msgspec import Raw

    from realtime.session.permissions import GrantedOptions, SubscriptionSource
    from realtime.session.tags_filter import TagsFilter


class SubscriptionState(enum.IntEnum):
    """Where a subscription is in its life."""

    RESERVED = 0
    HOLDING = 1
    LIVE = 2
    HELD = 3
    ENDED = 4


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
        base: While ``HELD``: the offset of the publication that a patch may be made for, 0 if there is none.
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
        self.buffer: list[Any] | None = None  # of realtime.node.rooms.Delivery
        self.ends_with: tuple[int, str] | None = None

    @property
    def is_established(self) -> bool:
        """Say whether the client was told that it is subscribed."""
        return self.state in (SubscriptionState.LIVE, SubscriptionState.HELD)

    @property
    def is_positioned(self) -> bool:
        """Say whether the client counts offsets."""
        return self.options.positioned or self.options.recoverable
