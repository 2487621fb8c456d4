"""One publication, or one push, on its way to a room's subscribers; what is made for one serves all who are owed the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from realtime.node.rooms import FIRST_OF, Extras, Form, Room
from realtime.protocol.delta import as_document, as_patch, patch_between
from realtime.protocol.messages import Publication, Push, StreamPosition


if TYPE_CHECKING:
    from realtime.protocol.wire import Wire
    from realtime.session.manner import Manner
    from realtime.session.tags_filter import TagsFilter


class Delivery:
    """
    One publication on its way; what is made for one subscriber serves all others who are owed the same.

    Args:
        publication: What is delivered.
        position: Where it stands in the stream; empty outside of it.
        base: The publication before it, if patches are allowed and subscribers in step surely have it.
        fresh_form: What those get who are ``FRESH``: ``IN_STEP`` where they surely have the base, too.
        latest: The publication that the room delivered before it, if patches are allowed.
        count: Its number among those that were delivered while the room had followers.

    Attributes:
        publication, position: What is delivered and where it stands; the offset is 0 outside the stream.
        base_offset: Where the base stands, 0 without one.
        count: As given.

    """

    __slots__ = (
        "_base",
        "_documents",
        "_latest",
        "_messages",
        "_patches",
        "_verdicts",
        "base_offset",
        "count",
        "fresh_form",
        "position",
        "publication",
    )

    def __init__(
        self,
        publication: Publication,
        position: StreamPosition,
        base: Publication | None,
        fresh_form: Form = Form.WHOLE,
        *,
        latest: Publication | None = None,
        count: int = 0,
    ) -> None:
        self.publication = publication
        self.position = position
        self.base_offset = base.offset if base is not None else 0
        self.fresh_form = fresh_form
        self.count = count
        self._base = base
        self._latest = latest
        self._messages: dict[tuple[Wire, Form, bytes], bytes] = {}
        # Made when they are needed: most deliveries have neither deltas nor filters.
        self._patches: dict[Form, bytes | None] | None = None
        self._documents: dict[tuple[Form, bool], Publication] | None = None
        self._verdicts: dict[TagsFilter, bool] | None = None

    def passes(self, tags_filter: TagsFilter) -> bool:
        """Say whether a filter lets it through."""
        if self._verdicts is None:
            self._verdicts = {}
        verdict = self._verdicts.get(tags_filter)
        if verdict is None:
            verdict = self._verdicts[tags_filter] = tags_filter.passes_tags(self.publication.tags)
        return verdict

    def saved(self, form: Form) -> int:
        """Return the bytes that one delivery in this form is shorter by for being a patch; 0 where none was made."""
        if form is Form.FRESH:
            form = self.fresh_form
        patch = self._patches.get(form) if self._patches else None
        return 0 if patch is None else len(self.publication.data) - len(patch)

    def _patch(self, form: Form) -> bytes | None:
        """Return what a subscriber with a base gets; ``None`` if that is the document."""
        if self._patches is None:
            self._patches = {}
        if form not in self._patches:
            self._patches[form] = self._make_patch(form)
        return self._patches[form]

    def _make_patch(self, form: Form) -> bytes | None:
        base = self._latest if form is Form.FOLLOWING else self._base
        if base is None:
            return None
        if form is Form.FOLLOWING and self._base is not None and self._base.data == base.data:
            return self._patch(Form.IN_STEP)
        return patch_between(base, self.publication)

    def message(self, wire: Wire, head: bytes, form: Form) -> bytes:
        """
        Return it as one kind of subscriber gets it.

        Raises:
            InvalidPayloadError: The wire is JSON and the publication's data is not.

        """
        if form is Form.FRESH:
            form = self.fresh_form
        if form > Form.WHOLE and (form not in FIRST_OF or self._patch(form) is None):
            form = Form.WHOLE
        key = (wire, form, head)
        message = self._messages.get(key)
        if message is None:
            document = self.publication if form is Form.PLAIN else self._document(form, wire)
            message = self._messages[key] = wire.encode_publication(head, document)
        return message

    def _document(self, form: Form, wire: Wire) -> Publication:
        if self._documents is None:
            self._documents = {}
        is_json = wire.is_json
        key = (form, is_json)
        document = self._documents.get(key)
        if document is None:
            patch = None if form is Form.WHOLE else self._patch(form)
            document = self._documents[key] = (
                as_document(self.publication, is_json=is_json)
                if patch is None
                else as_patch(self.publication, patch, is_json=is_json)
            )
        return document


class Pushes:
    """One push for a room's subscribers, encoded once for all who get the same."""

    def __init__(self, room: Room, push: Push) -> None:
        self._room = room
        self._push = push
        self._encoded: dict[tuple[Wire, bool], bytes] = {}

    def encoded(self, wire: Wire, manner: Manner | None) -> bytes:
        """Return it as subscribers of one kind get it."""
        key = (wire, manner is not None and manner.has_number)
        message = self._encoded.get(key)
        if message is None:
            push = self._push
            if key[1]:
                push = structs.replace(push, channel="", id=self._room.more().number)
            message = self._encoded[key] = wire.encode_push(push)
        return message


def delivery_in(
    room: Room,
    publication: Publication,
    position: StreamPosition,
    previous: Publication | None,
    *,
    delta: bool,
) -> Delivery:
    """Make the delivery of a publication, with what a room's subscribers surely have of the one before as its base."""
    if publication.key:
        return _delivery_of_key(room, publication, position, previous)
    base = _base(room, previous)
    if room.extras is not None and room.extras.followers:
        return _follow(room.extras, publication, position, base, delta)
    return Delivery(publication, position, base)


def _follow(
    extras: Extras,
    publication: Publication,
    position: StreamPosition,
    base: Publication | None,
    delta: bool,
) -> Delivery:
    """Make a delivery that followers can be sent as a patch; it is the next one's base, whatever becomes of it."""
    latest, extras.latest = extras.latest, publication
    extras.count += 1
    return Delivery(
        publication, position, base, latest=latest if delta else None, count=extras.count
    )


def _base(room: Room, previous: Publication | None) -> Publication | None:
    """
    Return the publication before if it is the one that was delivered.

    It is not where a master died before its replica had everything: what is stored under an offset may then be
    something else than what subscribers have under it.
    """
    if previous is None or not room.deltas:
        return None
    if room.digest is not None and room.digest != hash(bytes(previous.data)):
        return None
    return previous


def _delivery_of_key(
    room: Room, publication: Publication, position: StreamPosition, previous: Publication | None
) -> Delivery:
    """Make the delivery of a map's change; its base is what the key had, if it is what was delivered."""
    if not room.deltas:
        return Delivery(publication, position, None)
    if room.digests is None:
        room.digests = {}
    digest = room.digests.pop(publication.key, None)
    if publication.removed:
        return Delivery(publication, position, None)
    room.digests[publication.key] = hash(bytes(publication.data))
    if previous is None or (digest is not None and digest != hash(bytes(previous.data))):
        return Delivery(publication, position, None)
    form = Form.IN_STEP if previous.offset > room.floor else Form.WHOLE
    return Delivery(publication, position, previous, form)
