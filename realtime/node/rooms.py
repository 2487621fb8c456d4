"""Who is in a channel here, grouped by what they get of a publication."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from realtime.protocol.messages import Publication
from realtime.session.subscription import Subscription


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.node.batching import BatchCohort
    from realtime.protocol.wire import Wire
    from realtime.session.manner import Manner
    from realtime.session.tags_filter import TagsFilter


class Form(enum.IntEnum):
    """
    What a subscriber gets of a publication's data.

    ``PLAIN`` is for those without deltas. Of those with, ``WHOLE`` never gets a patch (it counts no offsets, or has a
    filter), ``FRESH`` has nothing yet that a patch could be made for, and ``IN_STEP`` has the publication that was
    delivered last. In a map it is by key: ``IN_STEP`` has loaded all keys, ``FRESH`` is one that recovered, and surely has
    what changed since. ``STARTING`` and ``FOLLOWING`` are ``FRESH`` and ``IN_STEP`` for those who count no offsets where
    the room keeps the last publication for them (``Extras.latest``).
    """

    PLAIN = 0
    WHOLE = 1
    FRESH = 2
    IN_STEP = 3
    STARTING = 4
    FOLLOWING = 5


CohortKey = tuple["Wire", Form, "TagsFilter | None", "Manner | None"]

# Of the forms that are sent patches, the one before there is a base.
FIRST_OF = {Form.IN_STEP: Form.FRESH, Form.FOLLOWING: Form.STARTING}


class Cohort:
    """Live subscribers of one channel who get the same bytes; ``writes`` maps each client to its transport's own ``write``."""

    __slots__ = ("form", "head", "manner", "pending", "tags_filter", "wire", "writes")

    def __init__(
        self,
        wire: Wire,
        head: bytes,
        form: Form = Form.PLAIN,
        tags_filter: TagsFilter | None = None,
        manner: Manner | None = None,
    ) -> None:
        self.wire = wire
        self.head = head
        self.form = form
        self.tags_filter = tags_filter
        self.manner = manner
        self.writes: dict[Client, Callable[[bytes], None]] = {}
        self.pending: list[bytes] = []

    def take(self) -> bytes:
        """Return what is pending, joined, and forget it."""
        pending = self.pending
        joined = pending[0] if len(pending) == 1 else self.wire.separator.join(pending)
        self.pending = []
        return joined

    def owed(self) -> bytes:
        """Return what a member that leaves must be given, joined; nothing is forgotten."""
        return self.wire.separator.join(self.pending)

    def flush(self) -> None:
        """Write what is pending to every member."""
        joined = self.take()
        # A copy, since a write can report a full buffer, which moves that member out.
        for write in tuple(self.writes.values()):
            write(joined)


class Extras:
    """
    What only rooms have whose subscriptions ask for more than the usual.

    Attributes:
        number: Stands for the channel's name in pushes; 0 as long as nobody asked for it.
        followers: How many subscriptions have the last publication as the base of their deltas.
        latest: That publication; ``None`` as long as there is none, or nobody wants it.
        count: Publications that were delivered while there were followers.
        alone: By client, what is gathered for those who are looked after on their own.
        has_batches: Whether anything is or was gathered here.
        is_released: Whether what was gathered for many is on its way out, so that others may join them.

    """

    __slots__ = (
        "alone",
        "count",
        "followers",
        "has_batches",
        "is_released",
        "latest",
        "number",
    )

    def __init__(self) -> None:
        self.number = 0
        self.followers = 0
        self.latest: Publication | None = None
        self.count = 0
        self.alone: dict[Client, BatchCohort] = {}
        self.has_batches = False
        self.is_released = False

    def leave(self, subscription: Subscription) -> None:
        """Forget one that goes; what is pending for it alone is written first."""
        if subscription.options.keep_latest:
            self.followers -= 1
            if not self.followers:
                self.latest = None
        client = subscription.client
        alone = self.alone.pop(client, None)
        if alone is not None:
            owed = alone.owed()
            alone.forget()
            if owed and not client.is_closed:
                client.write(owed)


class Room:
    """
    One channel with subscribers here.

    Attributes:
        cohorts: The live subscriptions that get publications as they are, by wire.
        variants: The live subscriptions with a delta or a filter; most rooms have none.
        deltas: How many subscriptions negotiated deltas.
        digest: Of the payload that was delivered last, where deltas ask for it.
        digests: The same of a map, by key.
        floor: Of a map: the position that all ``FRESH`` subscribers have surely been at or recovered from.
        offset, epoch: Where its live subscribers are; ``epoch`` is None until it is known.
        positioned: The live subscriptions that count offsets.
        joiners: The live subscriptions that want join and leave pushes.
        held: The subscriptions that are looked after on their own.
        extras: What few rooms have.

    """

    __slots__ = (
        "channel",
        "cohorts",
        "deltas",
        "digest",
        "digests",
        "epoch",
        "extras",
        "floor",
        "held",
        "is_dirty",
        "joiners",
        "offset",
        "positioned",
        "size",
        "variants",
    )

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.cohorts: dict[Wire, Cohort] = {}
        self.variants: dict[CohortKey, Cohort] | None = None
        self.deltas = 0
        self.digest: int | None = None
        self.digests: dict[str, int] | None = None
        self.floor = 0
        self.held: dict[Client, Subscription] | None = None
        self.positioned: dict[Client, Subscription] | None = None
        self.joiners: dict[Client, Subscription] | None = None
        self.offset = 0
        self.epoch: str | None = None
        self.extras: Extras | None = None
        self.is_dirty = False
        self.size = 0

    def more(self) -> Extras:
        """Return its extras, which it has from now on."""
        if self.extras is None:
            self.extras = Extras()
        return self.extras

    def hold(self, subscription: Subscription) -> None:
        """Look after a subscription on its own."""
        if self.held is None:
            self.held = {}
        self.held[subscription.client] = subscription

    def head(self, wire: Wire, manner: Manner | None) -> bytes:
        """Return what publications begin with for some subscribers."""
        has_number = manner is not None and manner.has_number
        return wire.publication_head(self.channel, self.more().number if has_number else 0)

    def every_cohort(self) -> Iterator[Cohort]:
        """Yield the cohorts, the plain ones first."""
        yield from self.cohorts.values()
        if self.variants:
            yield from self.variants.values()

    def flush(self) -> None:
        """Write what is pending to every member."""
        # Copies, since a write can report a full buffer, which moves that member out, and its cohort with the last one.
        for cohort in tuple(self.cohorts.values()):
            if cohort.pending:
                cohort.flush()
        if self.variants:
            for cohort in tuple(self.variants.values()):
                if cohort.pending:
                    cohort.flush()

    def subscriptions(self) -> Iterator[Subscription]:
        """Yield every subscription, whatever its state."""
        for cohort in self.every_cohort():
            for client in tuple(cohort.writes):
                subscription = client.session.subscriptions.get(self.channel)
                if subscription is not None:
                    yield subscription
        if self.held:
            yield from tuple(self.held.values())


def is_variant(subscription: Subscription) -> bool:
    """Say whether a subscription gets something else than publications as they are."""
    options = subscription.options
    return bool(options.delta or subscription.tags_filter is not None or options.manner is not None)


def form_of(subscription: Subscription) -> Form:
    """Say what a subscription gets once it has a base for patches."""
    if not subscription.options.delta:
        return Form.PLAIN
    if subscription.tags_filter is not None:
        return Form.WHOLE
    if subscription.is_positioned:
        return Form.FRESH if subscription.is_map and subscription.base else Form.IN_STEP
    # Otherwise a publication may come twice, or not at all, and then the base would be another.
    return Form.FOLLOWING if subscription.options.keep_latest else Form.WHOLE
