"""
The connections and subscriptions of this process, and the fan-out to them.

*The position belongs to the channel, not to the subscriber*: subscribers that are live and in step form one cohort per
wire, and the offset is checked once per publication. What a publication costs is one encoding per wire and one write
per connection and tick: publications of one tick are joined, and the same bytes go to every member. Only who is still
subscribing, ahead, or slow is looked after on its own (``Room.held``).

Subscribers with a delta or a tags filter have cohorts of their own (``Room.variants``), one per wire, filter and stage:
a patch is made once and a filter is asked once per publication, whatever the number of subscribers. One that comes
without the publication before is ``FRESH``, gets the next one whole, and is in step from then on.

In a map the base of a patch is what its *key* had, so whoever loaded all keys is in step at once, and whoever recovered is
``FRESH`` for good: it is sent patches to what changed since (``Room.floor``). It may have come with a position of its own and
nothing else.

Order is kept by three rules. A member that comes finds nothing pending (the room is flushed first); a member that goes
takes what is pending with it; and whatever a connection's own command wrote leaves before it joins a cohort.
Everything here is synchronous and runs on the node's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from realtime.node.rooms import Cohort, CohortKey, Delivery, Form, Room
from realtime.protocol import errors
from realtime.protocol.delta import Patches
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import ClientInfo, Join, Leave, Publication, Push, StreamPosition
from realtime.session.subscription import Subscription, SubscriptionState


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.protocol.wire import Wire
    from realtime.session.tags_filter import TagsFilter

logger = logging.getLogger(__name__)

LIVE, HELD, HOLDING, ENDED = (
    SubscriptionState.LIVE,
    SubscriptionState.HELD,
    SubscriptionState.HOLDING,
    SubscriptionState.ENDED,
)


class Hub:
    """
    All connections and rooms of this process.

    Attributes:
        deliveries: Publications that were written to a subscriber, counted for each.
        patches: Those that recovering clients were sent.
        filtered: Publications that a subscriber's filter kept back, counted for each.
        patched: Those deliveries that were a patch.
        bytes_saved: What the patches were shorter by, framing and escapes left aside.

    """

    def __init__(self, *, write_delay: float = 0) -> None:
        self.clients: dict[str, Client] = {}
        self.users: dict[str, dict[str, Client]] = {}
        self.rooms: dict[str, Room] = {}
        self.deliveries = 0
        self.patches = Patches()
        self.filtered = 0
        self.patched = 0
        self.bytes_saved = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._write_delay = write_delay
        self._dirty: list[Room] = []

    # --- connections -----------------------------------------------------------------------------

    def add_client(self, client: Client) -> None:
        """Register a connected client."""
        session = client.session
        self.clients[session.client_id] = client
        self.users.setdefault(session.user, {})[session.client_id] = client

    def remove_client(self, client: Client) -> None:
        """Forget a client; unknown ones are no error."""
        session = client.session
        if self.clients.pop(session.client_id, None) is None:
            return
        of_user = self.users[session.user]
        del of_user[session.client_id]
        if not of_user:
            del self.users[session.user]

    def clients_of(self, user: str, client_id: str = "", session_id: str = "") -> list[Client]:
        """Return the connections of a user, narrowed where the others are given."""
        return [
            client
            for client in self.users.get(user, {}).values()
            if (not client_id or client.session.client_id == client_id)
            and (not session_id or client.session.session_id == session_id)
        ]

    @property
    def num_clients(self) -> int:
        """Connected clients."""
        return len(self.clients)

    @property
    def num_users(self) -> int:
        """Distinct users, all anonymous ones as one."""
        return len(self.users)

    @property
    def num_channels(self) -> int:
        """Channels with subscribers here."""
        return len(self.rooms)

    @property
    def num_subs(self) -> int:
        """Subscriptions."""
        return sum(room.size for room in self.rooms.values())

    def channels(self) -> dict[str, int]:
        """Return the number of subscribers by channel."""
        return {name: room.size for name, room in self.rooms.items()}

    # --- membership ------------------------------------------------------------------------------

    def hold(self, subscription: Subscription) -> bool:
        """
        Let a subscription in, holding publications back until ``go_live``.

        Returns:
            Whether it is the first one of its channel here.

        """
        room = self.rooms.get(subscription.channel)
        is_first = room is None
        if room is None:
            room = self.rooms[subscription.channel] = Room(subscription.channel)
        subscription.state = HOLDING
        subscription.buffer = subscription.empty_buffer()
        self._keep_held(room, subscription)
        room.size += 1
        if subscription.options.delta:
            room.deltas += 1
        return is_first

    def go_live(self, subscription: Subscription, position: StreamPosition | None) -> None:
        """
        Join the others after the reply is written.

        ``position`` is what the client has, for a positioned subscription. What was held back beyond it (while other
        channels of a connect were being subscribed), and what has no offset, is written first.
        """
        room = self.rooms[subscription.channel]
        client = subscription.client
        held_back, subscription.buffer = subscription.buffer, None
        assert room.held is not None
        subscription.state = HELD
        if position is not None:
            subscription.ahead = position.offset
            if room.epoch is None or (room.offset <= position.offset and not room.positioned):
                room.offset, room.epoch = position.offset, position.epoch
        for delivery in held_back or ():
            if position and delivery.position.offset and delivery.position.epoch != position.epoch:
                client.lose_state(subscription)
            else:
                self._deliver_alone(subscription, delivery)
            if subscription.state is not HELD:
                return  # what was held back can't be continued with
        if subscription.options.push_join_leave:
            room.joiners = room.joiners or {}
            room.joiners[client] = subscription
        if subscription.is_positioned:
            room.positioned = room.positioned or {}
            room.positioned[client] = subscription
        self._step_in(room, subscription)

    def remove(self, subscription: Subscription) -> bool:
        """
        Let a subscription out; what is pending for it is written first.

        Returns:
            Whether it was the last one of its channel here.

        """
        state, subscription.state = subscription.state, ENDED
        subscription.buffer = None
        room = self.rooms.get(subscription.channel)
        if room is None or state in (SubscriptionState.RESERVED, ENDED):
            return False
        client = subscription.client
        if subscription.options.delta:
            room.deltas -= 1
            if not room.deltas:
                room.digest = room.digests = None
        if state is LIVE:
            self._leave_cohort(room, subscription)
        elif room.held is not None:
            room.held.pop(client, None)
        if room.positioned:
            room.positioned.pop(client, None)
        if room.joiners:
            room.joiners.pop(client, None)
        room.size -= 1
        if room.size:
            return False
        del self.rooms[subscription.channel]
        return True

    def pause(self, client: Client) -> None:
        """Look after a slow reader on its own: its transport's buffer is full."""
        for subscription in client.session.subscriptions.values():
            if subscription.state is LIVE:
                room = self.rooms[subscription.channel]
                self._leave_cohort(room, subscription)
                self._keep_alone(room, subscription)

    def resume(self, client: Client) -> None:
        """Take a reader that has caught up back in."""
        for subscription in client.session.subscriptions.values():
            if subscription.state is HELD:
                self._step_in(self.rooms[subscription.channel], subscription)

    def change_filter(self, subscription: Subscription, tags_filter: TagsFilter | None) -> None:
        """Give a subscription another filter, for what is published from now on."""
        room = self.rooms.get(subscription.channel)
        if room is not None and subscription.state is LIVE:
            self._leave_cohort(room, subscription)
            self._keep_alone(room, subscription)
            subscription.tags_filter = tags_filter
            self._step_in(room, subscription)
        else:
            subscription.tags_filter = tags_filter

    def _step_in(self, room: Room, subscription: Subscription) -> None:
        """Move a held subscription to its cohort if it is in step and its reader keeps up."""
        client = subscription.client
        if client.is_paused or (subscription.is_positioned and subscription.ahead > room.offset):
            return
        # What this client was answered in the same tick must leave before the cohort's writes, which
        # go straight to the transport.
        client.uncork()
        if client.is_paused:  # what left just now filled its buffer
            return
        room.flush()
        if subscription.options.delta or subscription.tags_filter is not None:
            cohort = self._variant(room, self._key_of(room, subscription))
        else:
            plain = room.cohorts.get(client.wire)
            if plain is None:
                plain = room.cohorts[client.wire] = Cohort(client.wire, room.channel)
            cohort = plain
        cohort.writes[client] = client.direct_write
        if room.held is not None:
            room.held.pop(client, None)
            if not room.held:
                room.held = None
        subscription.state = LIVE

    @staticmethod
    def _key_of(room: Room, subscription: Subscription) -> CohortKey:
        """Say which variant a subscription that steps in belongs to."""
        form = _form_of(subscription)
        if subscription.is_map:
            room.floor = max(room.floor, subscription.base)
        elif form is Form.IN_STEP and subscription.base != room.offset:
            form = Form.FRESH
        return subscription.client.wire, form, subscription.tags_filter

    @staticmethod
    def _variant(room: Room, key: CohortKey) -> Cohort:
        if room.variants is None:
            room.variants = {}
        cohort = room.variants.get(key)
        if cohort is None:
            wire, form, tags_filter = key
            cohort = room.variants[key] = Cohort(wire, room.channel, form, tags_filter)
        return cohort

    def _leave_cohort(self, room: Room, subscription: Subscription) -> None:
        """Take a live subscription out of its cohort, with what is pending for it."""
        client = subscription.client
        if subscription.options.delta or subscription.tags_filter is not None:
            self._leave_variant(room, subscription)
            return
        cohort = room.cohorts[client.wire]
        self._leave(cohort, client)
        if not cohort.writes:
            del room.cohorts[client.wire]

    def _leave_variant(self, room: Room, subscription: Subscription) -> None:
        client = subscription.client
        assert room.variants is not None
        form = _form_of(subscription)
        key = client.wire, form, subscription.tags_filter
        if form is Form.IN_STEP and not subscription.is_map:
            in_step = room.variants.get(key)
            if in_step is not None and client in in_step.writes:
                subscription.base = room.offset
            else:
                key = client.wire, Form.FRESH, subscription.tags_filter
                subscription.base = 0
        cohort = room.variants[key]
        self._leave(cohort, client)
        if not cohort.writes:
            del room.variants[key]

    @staticmethod
    def _leave(cohort: Cohort, client: Client) -> None:
        if cohort.pending and not client.is_closed:
            client.write(cohort.wire.separator.join(cohort.pending))
        del cohort.writes[client]

    def _keep_alone(self, room: Room, subscription: Subscription) -> None:
        """Hold a subscription that was live until now."""
        subscription.state = HELD
        subscription.ahead = room.offset
        self._keep_held(room, subscription)

    @staticmethod
    def _keep_held(room: Room, subscription: Subscription) -> None:
        if room.held is None:
            room.held = {}
        room.held[subscription.client] = subscription

    # --- delivery --------------------------------------------------------------------------------

    def publish(
        self,
        channel: str,
        publication: Publication,
        position: StreamPosition,
        previous: Publication | None = None,
    ) -> None:
        """Deliver a publication to this process's subscribers; ``previous`` is there where patches are allowed."""
        room = self.rooms.get(channel)
        if room is None:
            return
        offset = position.offset
        if offset:
            if offset == room.offset + 1 and position.epoch == room.epoch:
                room.offset = offset
            elif not self._advance(room, position):
                return
        if room.held or room.variants:
            if publication.key:
                delivery = self._delivery_of_key(room, publication, position, previous)
            else:
                delivery = Delivery(publication, position, self._base(room, previous))
                if room.deltas:
                    self._prepare_deltas(room, delivery)
            if room.held:
                for subscription in tuple(room.held.values()):
                    self._deliver_alone(subscription, delivery)
            if room.variants:
                self._deliver_to_variants(room, delivery)
        if room.cohorts:
            for cohort in tuple(room.cohorts.values()):
                try:
                    cohort.pending.append(cohort.wire.encode_publication(cohort.head, publication))
                except InvalidPayloadError:
                    self._disconnect_all(cohort)
                else:
                    self.deliveries += len(cohort.writes)
        elif not room.variants:
            return
        if not room.is_dirty:
            self._mark_dirty(room)

    @staticmethod
    def _disconnect_all(cohort: Cohort) -> None:
        for client in tuple(cohort.writes):
            client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)

    @staticmethod
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

    @staticmethod
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

    def _prepare_deltas(self, room: Room, delivery: Delivery) -> None:
        if delivery.position.offset:
            room.digest = hash(bytes(delivery.publication.data))
        elif room.variants:
            # An SDK takes what it received last as the base, and what is stored is not that. Before anybody gets it,
            # since a full buffer can move subscribers from one place to another.
            self._turn(room, Form.IN_STEP, Form.FRESH)

    def _deliver_to_variants(self, room: Room, delivery: Delivery) -> None:
        assert room.variants is not None
        for cohort in tuple(room.variants.values()):
            count = len(cohort.writes)
            if cohort.tags_filter is not None and not delivery.passes(cohort.tags_filter):
                self.filtered += count
                continue
            try:
                message = delivery.message(cohort.wire, cohort.head, cohort.form)
            except InvalidPayloadError:
                self._disconnect_all(cohort)
                continue
            cohort.pending.append(message)
            self.deliveries += count
            saved = delivery.savings(cohort.form)
            if saved:
                self.patched += count
                self.bytes_saved += count * saved
        if room.deltas and delivery.position.offset and not delivery.publication.key:
            self._turn(room, Form.FRESH, Form.IN_STEP)

    def _turn(self, room: Room, form: Form, into: Form) -> None:
        """Move all subscribers of one stage to another, those of each wire together."""
        variants = room.variants
        assert variants is not None
        turning = [cohort for cohort in variants.values() if cohort.form is form]
        if any((cohort.wire, into, cohort.tags_filter) in variants for cohort in turning):
            room.flush()  # what is pending differs
        for cohort in turning:
            if not cohort.writes:
                continue  # a flush that met a full buffer moved the last one out
            del variants[cohort.wire, form, cohort.tags_filter]
            key = (cohort.wire, into, cohort.tags_filter)
            there = variants.get(key)
            if there is None:
                cohort.form = into
                variants[key] = cohort
            else:
                there.writes.update(cohort.writes)

    def _advance(self, room: Room, position: StreamPosition) -> bool:
        """
        Move a room to a position that is not the next one; say whether to deliver.

        A repeat is dropped for those who count; a hole, or another epoch, ends every positioned subscription
        with insufficient state, so that the SDK recovers.
        """
        if room.epoch is None or (room.epoch == "" and position.offset == room.offset + 1):
            room.offset, room.epoch = position.offset, position.epoch
            return True
        if position.epoch == room.epoch and position.offset <= room.offset:
            return not room.positioned
        # Where an epoch ends, how far a held one is in it says nothing any more.
        is_new = position.epoch != room.epoch
        room.offset, room.epoch = position.offset, position.epoch
        if is_new:
            room.floor = 0
        for subscription in tuple((room.positioned or {}).values()):
            if is_new or subscription.ahead < position.offset or subscription.state is LIVE:
                subscription.client.lose_state(subscription)
        return True

    def lose_room(self, channel: str) -> None:
        """Tell every positioned subscriber of a channel that its state is insufficient."""
        room = self.rooms.get(channel)
        if room is not None:
            for subscription in tuple((room.positioned or {}).values()):
                subscription.client.lose_state(subscription)

    def lose_loaded(self, channel: str) -> None:
        """Have those load a map again who have no position in it, and may have missed something."""
        room = self.rooms.get(channel)
        if room is not None:
            for subscription in tuple(room.subscriptions()):
                if subscription.is_map and not (
                    subscription.is_positioned or subscription.is_server_side
                ):
                    subscription.client.lose_state(subscription)

    def _deliver_alone(self, subscription: Subscription, delivery: Delivery) -> None:
        if subscription.state is HOLDING:
            assert subscription.buffer is not None
            subscription.buffer.append(delivery)
            return
        position = delivery.position
        if position.offset and subscription.is_positioned:
            if position.offset <= subscription.ahead:
                if position.offset == subscription.ahead:
                    # Stepping in at once would deliver this very publication to it again.
                    asyncio.get_running_loop().call_soon(self._catch_up, subscription)
                return
            if position.offset > subscription.ahead + 1:
                subscription.client.lose_state(subscription)
                return
            subscription.ahead = position.offset
        tags_filter = subscription.tags_filter
        if tags_filter is not None and not delivery.passes(tags_filter):
            self.filtered += 1
            return
        self._write_alone(subscription, delivery)

    def count_patches(self, count: int, saved: int) -> None:
        """Add patches that were sent with a reply, and the bytes that they save."""
        self.patched += count
        self.bytes_saved += saved

    def _catch_up(self, subscription: Subscription) -> None:
        room = self.rooms.get(subscription.channel)
        if subscription.state is HELD and room is not None:
            self._step_in(room, subscription)

    def _write_alone(self, subscription: Subscription, delivery: Delivery) -> None:
        client = subscription.client
        wire = client.wire
        head = wire.publication_head(subscription.channel)
        offset = delivery.position.offset
        form = _form_of(subscription)
        if subscription.is_map:
            if form is Form.FRESH:
                form = Form.IN_STEP if delivery.base_offset > subscription.base else Form.WHOLE
        else:
            if form is Form.IN_STEP and not 0 < subscription.base == offset - 1:
                form = Form.FRESH
            subscription.base = offset
        try:
            message = delivery.message(wire, head, form)
        except InvalidPayloadError:
            client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)
            return
        self.deliveries += 1
        saved = delivery.savings(form)
        if saved:
            self.patched += 1
            self.bytes_saved += saved
        client.write_checked(message)

    def join(self, channel: str, info: ClientInfo) -> None:
        """Tell subscribers that somebody came."""
        self._tell_joiners(channel, Push(channel=channel, join=Join(info=info)))

    def leave(self, channel: str, info: ClientInfo) -> None:
        """Tell subscribers that somebody went."""
        self._tell_joiners(channel, Push(channel=channel, leave=Leave(info=info)))

    def _tell_joiners(self, channel: str, push: Push) -> None:
        room = self.rooms.get(channel)
        if room is None or not room.joiners:
            return
        room.flush()
        encoded: dict[Wire, bytes] = {}
        for client in tuple(room.joiners):
            message = encoded.get(client.wire)
            if message is None:
                message = encoded[client.wire] = client.wire.encode_push(push)
            client.write_checked(message)

    # --- one flush per tick ----------------------------------------------------------------------

    def _mark_dirty(self, room: Room) -> None:
        room.is_dirty = True
        self._dirty.append(room)
        if len(self._dirty) == 1:
            # Python 3.11 asks the system for its process id whenever the running loop is looked up.
            loop = self.loop or asyncio.get_running_loop()
            if self._write_delay:
                loop.call_later(self._write_delay, self.flush)
            else:
                loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write out what the rooms have pending."""
        dirty, self._dirty = self._dirty, []
        for room in dirty:
            room.is_dirty = False
            room.flush()

    def every_room(self, channels: Iterable[str] | None) -> list[Room]:
        """Return the rooms of ``channels`` that are here, or all."""
        if channels is None:
            return list(self.rooms.values())
        return [self.rooms[name] for name in channels if name in self.rooms]


def _form_of(subscription: Subscription) -> Form:
    """Say what a subscription gets once it has a base for patches."""
    if not subscription.options.delta:
        return Form.PLAIN
    if subscription.tags_filter is not None or not subscription.is_positioned:
        # Without positions a publication may come twice, or not at all, and then the base would be another.
        return Form.WHOLE
    return Form.FRESH if subscription.is_map and subscription.base else Form.IN_STEP
