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

Subscribers whose pushes are written in a ``Manner`` of their own have such cohorts too. Where messages are gathered
(``realtime.node.batching``) they wait in the cohort before they are pending, joins and leaves among them.

Order is kept by three rules. A member that comes finds nothing pending (the room is flushed first), and nothing gathered;
a member that goes takes both with it; and whatever a connection's own command wrote leaves before it joins a cohort.
Everything here is synchronous and runs on the node's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from realtime.node.batching import BatchCohort, Batches
from realtime.node.rooms import (
    FIRST_OF,
    Cohort,
    CohortKey,
    Delivery,
    Extras,
    Form,
    Pushes,
    Room,
    form_of,
    is_variant,
    write_together,
)
from realtime.protocol import errors
from realtime.protocol.delta import Patches
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import ClientInfo, Join, Leave, Publication, Push, StreamPosition
from realtime.session.subscription import Subscription, SubscriptionState


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.protocol.wire import Wire
    from realtime.session.manner import Manner
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

    Args:
        write_delay: Seconds that publications wait for others before they are written; 0 is the current tick.
        websocket_write_delay: The same on bidirectional WebSockets; 0 is as on all others.
        messages_per_frame: How many of those that were gathered may share one; -1 is any number.

    Attributes:
        batches: The timer of what is gathered.
        deliveries: Publications that were written to a subscriber, counted for each.
        patches: Those that recovering clients were sent.
        filtered: Publications that a subscriber's filter kept back, counted for each.
        patched: Those deliveries that were a patch.
        bytes_saved: What the patches were shorter by, framing and escapes left aside.

    """

    def __init__(
        self,
        *,
        write_delay: float = 0,
        websocket_write_delay: float = 0,
        messages_per_frame: int = 16,
    ) -> None:
        self.clients: dict[str, Client] = {}
        self.users: dict[str, dict[str, Client]] = {}
        self.rooms: dict[str, Room] = {}
        self.deliveries = 0
        self.patches = Patches()
        self.filtered = 0
        self.patched = 0
        self.bytes_saved = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.batches = Batches(self._release)
        delays = (write_delay, websocket_write_delay or write_delay)
        self._write_delay = min(delays)
        self._late_by = max(delays) - self._write_delay
        self._is_websocket_late = delays[1] > delays[0]
        self._late: dict[Room, None] = {}
        self._on_tick = self._flush_early if self._late_by else self.flush
        self._messages_per_frame = messages_per_frame
        self._dirty: list[Room] = []
        self._last_number = 0

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
        options = subscription.options
        if options.delta:
            room.deltas += 1
            if options.keep_latest:
                room.more().followers += 1
        return is_first

    def number_of(self, channel: str) -> int:
        """Return what stands for the name of a channel with subscribers here, as long as it has any."""
        extras = self.rooms[channel].more()
        if not extras.number:
            self._last_number += 1
            extras.number = self._last_number
        return extras.number

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
        if room.extras is not None:
            self._leave_extras(room.extras, subscription)
        if room.positioned:
            room.positioned.pop(client, None)
        if room.joiners:
            room.joiners.pop(client, None)
        room.size -= 1
        if room.size:
            return False
        del self.rooms[subscription.channel]
        return True

    @staticmethod
    def _leave_extras(extras: Extras, subscription: Subscription) -> None:
        if subscription.options.keep_latest:
            extras.followers -= 1
            if not extras.followers:
                extras.latest = None
        client = subscription.client
        alone = extras.alone.pop(client, None)
        if alone is not None:
            owed = alone.owed()
            alone.forget()
            if owed and not client.is_closed:
                client.write(owed)

    def pause(self, client: Client) -> None:
        """Look after a slow reader on its own: its transport's buffer is full."""
        for subscription in client.session.subscriptions.values():
            if subscription.state is LIVE:
                room = self.rooms[subscription.channel]
                self._leave_cohort(room, subscription)
                self._keep_alone(room, subscription)

    def resume(self, client: Client) -> None:
        """Take a reader that has caught up back in."""
        # A copy, since what was gathered leaves now, and may be more than the connection is allowed to owe.
        for subscription in tuple(client.session.subscriptions.values()):
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

    def _step_in(
        self, room: Room, subscription: Subscription, *, can_release: bool = False
    ) -> None:
        """
        Move a held subscription to its cohort if it is in step and its reader keeps up.

        It stays where it is while something is gathered for the others, unless that may be released.
        """
        client = subscription.client
        if client.is_paused or (subscription.is_positioned and subscription.ahead > room.offset):
            return
        if room.extras is not None and not self._can_gather(room, subscription, can_release):
            return
        # What this client was answered in the same tick must leave before the cohort's writes, which
        # go straight to the transport.
        client.uncork()
        if client.is_paused:  # what left just now filled its buffer
            return
        room.flush()
        if is_variant(subscription):
            cohort = self._variant(room, self._key_of(room, subscription))
        else:
            plain = room.cohorts.get(client.wire)
            if plain is None:
                plain = room.cohorts[client.wire] = Cohort(
                    client.wire, room.head(client.wire, None)
                )
            cohort = plain
        cohort.writes[client] = client.direct_write
        if room.held is not None:
            room.held.pop(client, None)
            if not room.held:
                room.held = None
        subscription.state = LIVE

    def _can_gather(self, room: Room, subscription: Subscription, can_release: bool) -> bool:
        """Say whether a cohort has nothing gathered that isn't a newcomer's; what is gathered for that one leaves now."""
        extras = room.extras
        assert extras is not None
        if not extras.has_batches:
            return True
        key = self._key_of(room, subscription)
        there = room.variants.get(key) if room.variants else None
        if isinstance(there, BatchCohort) and there.has_gathered:
            if not can_release:
                return False
            self._release(there)
        alone = extras.alone.get(subscription.client)
        if alone is not None:
            alone.release()
            if alone.pending:
                alone.flush()  # before it is forgotten: a full buffer would leave the subscription held
            if subscription.client.is_paused or subscription.state is not HELD:
                return False
            del extras.alone[subscription.client]
        return True

    @staticmethod
    def _key_of(room: Room, subscription: Subscription) -> CohortKey:
        """Say which variant a subscription that steps in belongs to."""
        form = form_of(subscription)
        if subscription.is_map:
            room.floor = max(room.floor, subscription.base)
        elif form is Form.IN_STEP and subscription.base != room.offset:
            form = Form.FRESH
        elif form is Form.FOLLOWING and not 0 < subscription.base == room.more().count:
            form = Form.STARTING
        return subscription.client.wire, form, subscription.tags_filter, subscription.options.manner

    def _variant(self, room: Room, key: CohortKey) -> Cohort:
        if room.variants is None:
            room.variants = {}
        cohort = room.variants.get(key)
        if cohort is None:
            wire, form, tags_filter, manner = key
            if manner is not None and manner.batching is not None:
                cohort = self._batch(room, wire, form, tags_filter, manner, is_shared=True)
            else:
                cohort = Cohort(wire, room.head(wire, manner), form, tags_filter, manner)
            room.variants[key] = cohort
        return cohort

    def _batch(
        self,
        room: Room,
        wire: Wire,
        form: Form,
        tags_filter: TagsFilter | None,
        manner: Manner,
        *,
        is_shared: bool,
    ) -> BatchCohort:
        room.more().has_batches = True
        most = self._messages_per_frame
        return BatchCohort(room, wire, form, tags_filter, manner, most=most, is_shared=is_shared)

    def _leave_cohort(self, room: Room, subscription: Subscription) -> None:
        """Take a live subscription out of its cohort, with what is pending for it."""
        client = subscription.client
        if is_variant(subscription):
            self._leave_variant(room, subscription)
            return
        cohort = room.cohorts[client.wire]
        self._leave(cohort, client)
        if not cohort.writes:
            del room.cohorts[client.wire]

    def _leave_variant(self, room: Room, subscription: Subscription) -> None:
        client = subscription.client
        assert room.variants is not None
        form = form_of(subscription)
        tags_filter, manner = subscription.tags_filter, subscription.options.manner
        key = client.wire, form, tags_filter, manner
        if form in FIRST_OF and not subscription.is_map:
            with_base = room.variants.get(key)
            if with_base is not None and client in with_base.writes:
                subscription.base = room.offset if form is Form.IN_STEP else room.more().count
            else:
                key = client.wire, FIRST_OF[form], tags_filter, manner
                subscription.base = 0
        cohort = room.variants[key]
        self._leave(cohort, client)
        if not cohort.writes:
            del room.variants[key]
            if isinstance(cohort, BatchCohort) and cohort.has_gathered:
                # Those who wait for it to leave have nobody to wait for any more.
                self._release(cohort)

    @staticmethod
    def _leave(cohort: Cohort, client: Client) -> None:
        if not client.is_closed:
            owed = cohort.owed()
            if owed:
                client.write(owed)
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
        delta: bool = False,
    ) -> None:
        """
        Deliver a publication to this process's subscribers.

        Args:
            channel: Where it was published.
            publication: What is delivered.
            position: Where it stands in the stream; empty outside of it.
            previous: The one before it in the stream, where patches are allowed.
            delta: Whether patches are allowed.

        """
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
                base = self._base(room, previous)
                if room.extras is not None and room.extras.followers:
                    delivery = self._follow(room.extras, publication, position, base, delta)
                else:
                    delivery = Delivery(publication, position, base)
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
            if not room.is_dirty:
                self._mark_dirty(room)

    @staticmethod
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
            form = cohort.form
            try:
                if isinstance(cohort, BatchCohort):
                    message = delivery.message(cohort.wire.unframed, cohort.head, form)
                    self.batches.add(cohort, message, delivery.publication.key)
                else:
                    cohort.pending.append(delivery.message(cohort.wire, cohort.head, form))
                    if not room.is_dirty:
                        self._mark_dirty(room)
            except InvalidPayloadError:
                self._disconnect_all(cohort)
                continue
            self.deliveries += count
            if form > Form.WHOLE:
                self._count_saved(delivery.saved(form), count)
        if room.deltas and not delivery.publication.key:
            if delivery.position.offset:
                self._turn(room, Form.FRESH, Form.IN_STEP)
            if delivery.count:
                self._turn(room, Form.STARTING, Form.FOLLOWING)

    def _count_saved(self, saved: int, count: int) -> None:
        if saved:
            self.patched += count
            self.bytes_saved += count * saved

    def _turn(self, room: Room, form: Form, into: Form) -> None:
        """Move all subscribers of one stage to another, those of each wire together."""
        variants = room.variants
        assert variants is not None
        turning = [cohort for cohort in variants.values() if cohort.form is form]
        if any(
            (each.wire, into, each.tags_filter, each.manner) in variants for each in turning
        ):  # what is pending differs
            for each in variants.values():
                if isinstance(each, BatchCohort) and each.form in (form, into):
                    each.release()
            room.flush()
        for cohort in turning:
            if not cohort.writes:
                continue  # a flush that met a full buffer moved the last one out
            del variants[cohort.wire, form, cohort.tags_filter, cohort.manner]
            key = (cohort.wire, into, cohort.tags_filter, cohort.manner)
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
        room = self.rooms[subscription.channel]
        manner = subscription.options.manner
        is_gathered = manner is not None and manner.batching is not None
        wire = client.wire.unframed if is_gathered else client.wire
        form = form_of(subscription)
        if subscription.is_map:
            if form is Form.FRESH:
                form = Form.IN_STEP if delivery.base_offset > subscription.base else Form.WHOLE
        else:
            place = delivery.count if form is Form.FOLLOWING else delivery.position.offset
            has_base = 0 < subscription.base == place - 1
            subscription.base = place
            if form in FIRST_OF and not has_base:
                form = FIRST_OF[form]
        try:
            message = delivery.message(wire, room.head(wire, manner), form)
        except InvalidPayloadError:
            client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)
            return
        self.deliveries += 1
        if form in FIRST_OF:
            self._count_saved(delivery.saved(form), 1)
        if is_gathered:
            self.batches.add(self._alone(room, subscription), message, delivery.publication.key)
        else:
            client.write_checked(message)

    def _alone(self, room: Room, subscription: Subscription) -> BatchCohort:
        """Return what gathers for one subscription."""
        alone = room.more().alone
        client = subscription.client
        cohort = alone.get(client)
        if cohort is None:
            manner = subscription.options.manner
            assert manner is not None
            form = form_of(subscription)
            cohort = self._batch(room, client.wire, form, None, manner, is_shared=False)
            cohort.writes[client] = client.write_checked
            alone[client] = cohort
        return cohort

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
        pushes = Pushes(room, push)
        for cohort in tuple((room.variants or {}).values()):
            if isinstance(cohort, BatchCohort) and cohort.manner and cohort.manner.has_joins:
                message = pushes.encoded(cohort.wire.unframed, cohort.manner)
                self.batches.add(cohort, message)
        for client, subscription in tuple(room.joiners.items()):
            manner = subscription.options.manner
            if manner is None or manner.batching is None:
                client.write_checked(pushes.encoded(client.wire, manner))
            elif subscription.state is HELD:
                message = pushes.encoded(client.wire.unframed, manner)
                self.batches.add(self._alone(room, subscription), message)

    # --- one flush per tick ----------------------------------------------------------------------

    def _mark_dirty(self, room: Room) -> None:
        room.is_dirty = True
        self._dirty.append(room)
        if len(self._dirty) == 1:
            # Python 3.11 asks the system for its process id whenever the running loop is looked up.
            loop = self.loop or asyncio.get_running_loop()
            if self._write_delay:
                loop.call_later(self._write_delay, self._on_tick)
            else:
                loop.call_soon(self._on_tick)

    def flush(self) -> None:
        """Write out what the rooms have pending."""
        dirty, self._dirty = self._dirty, []
        if self._write_delay or self._late_by:
            late, self._late = self._late, {}
            dirty += [room for room in late if not room.is_dirty]
            if len(dirty) > 1:
                write_together(dirty)
        for room in dirty:
            room.is_dirty = False
            room.flush()
            if room.extras is not None:
                self._flush_extras(room, room.extras)

    def _flush_early(self) -> None:
        """Write out what is pending on those transports that wait less than others."""
        dirty, self._dirty = self._dirty, []
        if dirty and not self._late:
            asyncio.get_running_loop().call_later(self._late_by, self.flush)
        for room in dirty:
            room.is_dirty = False
            self._late[room] = None
        write_together(dirty, is_websocket=not self._is_websocket_late)

    def _release(self, cohort: BatchCohort) -> None:
        """Let what a cohort has gathered leave with the next flush."""
        cohort.release()
        room = cohort.room
        if cohort.is_shared:
            room.more().is_released = True
        if not room.is_dirty:
            self._mark_dirty(room)

    def _flush_extras(self, room: Room, extras: Extras) -> None:
        """Write out what single subscribers have pending, and let those join the others who had to wait for these."""
        if extras.alone:
            for alone in tuple(extras.alone.values()):
                if alone.pending:
                    alone.flush()
        if not extras.is_released:
            return
        extras.is_released = False
        for subscription in tuple((room.held or {}).values()):
            if subscription.state is HELD:
                # What came since is a little of the next batch; waiting on, some would never get in.
                self._step_in(room, subscription, can_release=True)

    def every_room(self, channels: Iterable[str] | None) -> list[Room]:
        """Return the rooms of ``channels`` that are here, or all."""
        if channels is None:
            return list(self.rooms.values())
        return [self.rooms[name] for name in channels if name in self.rooms]
