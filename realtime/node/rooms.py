"""Who is in a channel here, grouped by what they get of a publication, and one publication on its way to them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from realtime.protocol import delta
from realtime.protocol.messages import Publication, StreamPosition
from realtime.session.subscription import Subscription


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.protocol.wire import Wire
    from realtime.session.tags_filter import TagsFilter


class Form(enum.IntEnum):
    """
    What a subscriber gets of a publication's data.

    ``PLAIN`` is for those without deltas. Of those with, ``WHOLE`` never gets a patch (it counts no offsets, or has a
    filter), ``FRESH`` has nothing yet that a patch could be made for, and ``IN_STEP`` has the publication that was
    delivered last. In a map it is by key: ``IN_STEP`` has loaded all keys, ``FRESH`` is one that recovered, and surely has
    what changed since.
    """

    PLAIN = 0
    WHOLE = 1
    FRESH = 2
    IN_STEP = 3


CohortKey = tuple["Wire", Form, "TagsFilter | None"]


class Cohort:
    """Live subscribers of one channel who get the same bytes; ``writes`` maps each client to its transport's own ``write``."""

    __slots__ = ("form", "head", "pending", "tags_filter", "wire", "writes")

    def __init__(
        self,
        wire: Wire,
        channel: str,
        form: Form = Form.PLAIN,
        tags_filter: TagsFilter | None = None,
    ) -> None:
        self.wire = wire
        self.head = wire.publication_head(channel)
        self.form = form
        self.tags_filter = tags_filter
        self.writes: dict[Client, Callable[[bytes], None]] = {}
        self.pending: list[bytes] = []

    def take(self) -> bytes:
        """Return what is pending, joined, and forget it."""
        pending = self.pending
        joined = pending[0] if len(pending) == 1 else self.wire.separator.join(pending)
        self.pending = []
        return joined

    def flush(self) -> None:
        """Write what is pending to every member."""
        joined = self.take()
        # A copy, since a write can report a full buffer, which moves that member out.
        for write in tuple(self.writes.values()):
            write(joined)


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

    """

    __slots__ = (
        "channel",
        "cohorts",
        "deltas",
        "digest",
        "digests",
        "epoch",
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
        self.is_dirty = False
        self.size = 0

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


class Delivery:
    """
    One publication on its way; what is made for one subscriber serves all others who are owed the same.

    Args:
        publication: What is delivered.
        position: Where it stands in the stream; empty outside of it.
        base: The publication before it, if patches are allowed and subscribers in step surely have it.
        fresh_form: What those get who are ``FRESH``: ``IN_STEP`` where they surely have the base, too.

    Attributes:
        publication, position: What is delivered and where it stands; the offset is 0 outside the stream.
        base_offset: Where the base stands, 0 without one.
        saved: The bytes that one delivery of the patch saves; 0 until there is one.

    """

    __slots__ = (
        "_base",
        "_documents",
        "_messages",
        "_patch",
        "_verdicts",
        "base_offset",
        "fresh_form",
        "position",
        "publication",
        "saved",
    )

    def __init__(
        self,
        publication: Publication,
        position: StreamPosition,
        base: Publication | None,
        fresh_form: Form = Form.WHOLE,
    ) -> None:
        self.publication = publication
        self.position = position
        self.base_offset = base.offset if base is not None else 0
        self.fresh_form = fresh_form
        self._base = base
        self.saved = 0
        self._patch: bytes | None = None
        self._documents: dict[tuple[bool, bool], Publication] = {}
        self._messages: dict[tuple[Wire, Form], bytes] = {}
        self._verdicts: dict[TagsFilter, bool] = {}

    def passes(self, tags_filter: TagsFilter) -> bool:
        """Say whether a filter lets it through."""
        verdict = self._verdicts.get(tags_filter)
        if verdict is None:
            verdict = self._verdicts[tags_filter] = tags_filter.passes_tags(self.publication.tags)
        return verdict

    @property
    def patch(self) -> bytes | None:
        """What a subscriber in step gets; ``None`` if that is the document."""
        if self._base is not None:
            self._patch = delta.patch_between(self._base, self.publication)
            self._base = None
            if self._patch is not None:
                self.saved = len(self.publication.data) - len(self._patch)
        return self._patch

    def savings(self, form: Form) -> int:
        """Return the bytes that one delivery in this form is shorter by for being a patch."""
        if form is Form.FRESH:
            form = self.fresh_form
        return self.saved if form is Form.IN_STEP else 0

    def message(self, wire: Wire, head: bytes, form: Form) -> bytes:
        """
        Return it as one kind of subscriber gets it.

        Raises:
            InvalidPayloadError: The wire is JSON and the publication's data is not.

        """
        if form is Form.FRESH:
            form = self.fresh_form
        if form is Form.IN_STEP and self.patch is None:
            form = Form.WHOLE
        key = (wire, form)
        message = self._messages.get(key)
        if message is None:
            document = self._document(form, is_json=wire.is_json)
            message = self._messages[key] = wire.encode_publication(head, document)
        return message

    def _document(self, form: Form, *, is_json: bool) -> Publication:
        if form is Form.PLAIN:
            return self.publication
        key = (form is Form.IN_STEP, is_json)
        document = self._documents.get(key)
        if document is None:
            patch = self.patch if form is Form.IN_STEP else None
            document = self._documents[key] = (
                delta.as_document(self.publication, is_json=is_json)
                if patch is None
                else delta.as_patch(self.publication, patch, is_json=is_json)
            )
        return document
