"""
The clients and subscriptions of this process, and the fan-out to them.

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

How subscriptions move between cohorts is in ``realtime.node.placement``, what a publication is made into in
``realtime.node.deliveries``, and when it is written in ``realtime.node.flushes``. Everything is synchronous and runs on
the node's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from realtime.node.batching import BatchCohort
from realtime.node.clients import Clients
from realtime.node.deliveries import Delivery, Pushes, delivery_in
from realtime.node.placement import alone_of, leave_cohort, step_in, step_out, turn
from realtime.node.rooms import FIRST_OF, Cohort, Form, Room, form_of
from realtime.protocol import errors
from realtime.protocol.delta import Patches
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import ClientInfo, Join, Leave, Publication, Push, StreamPosition
from realtime.session.subscription import Subscription, SubscriptionState


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.node.flushes import Flushes
    from realtime.session.tags_filter import TagsFilter

LIVE, HELD, HOLDING, ENDED = (
    SubscriptionState.LIVE,
    SubscriptionState.HELD,
    SubscriptionState.HOLDING,
    SubscriptionState.ENDED,
)


class Hub:
    """
    All clients and rooms of this process.

    Args:
        flushes: Writes what the rooms have pending.

    Attributes:
        clients: Who is connected.
        rooms: By channel, those with subscribers here.
        flushes: As given.
        batches: The timer of what is gathered, which is that of ``flushes``.
        deliveries: Publications that were written to a subscriber, counted for each.
        patches: Those that recovering clients were sent.
        filtered: Publications that a subscriber's filter kept back, counted for each.
        patched: Those deliveries that were a patch.
        bytes_saved: What the patches were shorter by, framing and escapes left aside.

    """

    def __init__(self, flushes: Flushes) -> None:
        self.clients = Clients()
        self.rooms: dict[str, Room] = {}
        self.deliveries = 0
        self.patches = Patches()
        self.filtered = 0
        self.patched = 0
        self.bytes_saved = 0
        self.flushes = flushes
        self.batches = flushes.batches
        self._last_number = 0

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
        room.hold(subscription)
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
            is_behind = room.epoch != position.epoch or room.offset <= position.offset
            if room.epoch is None or (is_behind and not room.positioned):
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
        step_in(room, subscription, self.batches)

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
            leave_cohort(room, subscription, self.batches)
        elif room.held is not None:
            room.held.pop(client, None)
        if room.extras is not None:
            room.extras.leave(subscription)
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
                step_out(self.rooms[subscription.channel], subscription, self.batches)

    def resume(self, client: Client) -> None:
        """Take a reader that has caught up back in."""
        # A copy, since what was gathered leaves now, and may be more than the connection is allowed to owe.
        for subscription in tuple(client.session.subscriptions.values()):
            if subscription.state is HELD:
                step_in(self.rooms[subscription.channel], subscription, self.batches)

    def change_filter(self, subscription: Subscription, tags_filter: TagsFilter | None) -> None:
        """Give a subscription another filter, for what is published from now on."""
        room = self.rooms.get(subscription.channel)
        if room is not None and subscription.state is LIVE:
            step_out(room, subscription, self.batches)
            subscription.tags_filter = tags_filter
            step_in(room, subscription, self.batches)
        else:
            subscription.tags_filter = tags_filter

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
            delivery = delivery_in(room, publication, position, previous, delta=delta)
            if room.deltas and not publication.key:
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
                self.flushes.mark(room)

    @staticmethod
    def _disconnect_all(cohort: Cohort) -> None:
        for client in tuple(cohort.writes):
            client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)

    def _prepare_deltas(self, room: Room, delivery: Delivery) -> None:
        if delivery.position.offset:
            room.digest = hash(bytes(delivery.publication.data))
        elif room.variants:
            # An SDK takes what it received last as the base, and what is stored is not that. Before anybody gets it,
            # since a full buffer can move subscribers from one place to another.
            turn(room, Form.IN_STEP, Form.FRESH)

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
                        self.flushes.mark(room)
            except InvalidPayloadError:
                self._disconnect_all(cohort)
                continue
            self.deliveries += count
            if form > Form.WHOLE:
                self._count_saved(delivery.saved(form), count)
        if room.deltas and not delivery.publication.key:
            if delivery.position.offset:
                turn(room, Form.FRESH, Form.IN_STEP)
            if delivery.count:
                turn(room, Form.STARTING, Form.FOLLOWING)

    def _count_saved(self, saved: int, count: int) -> None:
        if saved:
            self.patched += count
            self.bytes_saved += count * saved

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
            step_in(room, subscription, self.batches)

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
            self.batches.add(
                alone_of(room, subscription, self.batches), message, delivery.publication.key
            )
        else:
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
                self.batches.add(alone_of(room, subscription, self.batches), message)

    def flush(self) -> None:
        """Write out what the rooms have pending."""
        self.flushes.flush()

    def every_room(self, channels: Iterable[str] | None) -> list[Room]:
        """Return the rooms of ``channels`` that are here, or all."""
        if channels is None:
            return list(self.rooms.values())
        return [self.rooms[name] for name in channels if name in self.rooms]
