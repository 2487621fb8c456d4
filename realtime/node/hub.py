"""
The connections and subscriptions of this process, and the fan-out to them.

*The position belongs to the channel, not to the subscriber*: subscribers that are live and in step form one cohort per
wire, and the offset is checked once per publication. What a publication costs is one encoding per wire and one write
per connection and tick: publications of one tick are joined, and the same bytes go to every member. Only who is still
subscribing, ahead, or slow is looked after on its own (``Room.held``).

Order is kept by three rules. A member that comes finds nothing pending (the room is flushed first); a member that goes
takes what is pending with it; and whatever a connection's own command wrote leaves before it joins a cohort.
Everything here is synchronous and runs on the node's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from realtime.protocol import errors
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import ClientInfo, Join, Leave, Publication, Push, StreamPosition
from realtime.session.subscription import Subscription, SubscriptionState


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.protocol.wire import Wire

logger = logging.getLogger(__name__)

LIVE, HELD, HOLDING, ENDED = (
    SubscriptionState.LIVE,
    SubscriptionState.HELD,
    SubscriptionState.HOLDING,
    SubscriptionState.ENDED,
)


class Cohort:
    """Live subscribers of one channel on one wire; ``writes`` maps each client to its transport's own ``write``."""

    __slots__ = ("head", "pending", "wire", "writes")

    def __init__(self, wire: Wire, channel: str) -> None:
        self.wire = wire
        self.head = wire.publication_head(channel)
        self.writes: dict[Client, Callable[[bytes], None]] = {}
        self.pending: list[bytes] = []

    def take(self) -> bytes:
        """Return what is pending, joined, and forget it."""
        pending = self.pending
        joined = pending[0] if len(pending) == 1 else self.wire.separator.join(pending)
        self.pending = []
        return joined


class Room:
    """
    One channel with subscribers here.

    Attributes:
        offset, epoch: Where its live subscribers are; ``epoch`` is None until it is known.
        positioned: The live subscriptions that count offsets.
        joiners: The live subscriptions that want join and leave pushes.
        held: The subscriptions that are looked after on their own.

    """

    __slots__ = (
        "channel",
        "cohorts",
        "epoch",
        "held",
        "is_dirty",
        "joiners",
        "offset",
        "positioned",
        "size",
    )

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.cohorts: dict[Wire, Cohort] = {}
        self.held: dict[Client, Subscription] | None = None
        self.positioned: dict[Client, Subscription] | None = None
        self.joiners: dict[Client, Subscription] | None = None
        self.offset = 0
        self.epoch: str | None = None
        self.is_dirty = False
        self.size = 0

    def flush(self) -> None:
        """Write what is pending to every member."""
        # Copies, since a write can report a full buffer, which moves that member out, and with the last one its cohort.
        for cohort in tuple(self.cohorts.values()):
            if cohort.pending:
                joined = cohort.take()
                for write in tuple(cohort.writes.values()):
                    write(joined)

    def subscriptions(self) -> Iterator[Subscription]:
        """Yield every subscription, whatever its state."""
        for cohort in self.cohorts.values():
            for client in tuple(cohort.writes):
                subscription = client.session.subscriptions.get(self.channel)
                if subscription is not None:
                    yield subscription
        if self.held:
            yield from tuple(self.held.values())


class Hub:
    """All connections and rooms of this process."""

    def __init__(self, *, write_delay: float = 0) -> None:
        self.clients: dict[str, Client] = {}
        self.users: dict[str, dict[str, Client]] = {}
        self.rooms: dict[str, Room] = {}
        self.deliveries = 0
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
        subscription.buffer = []
        self._keep_held(room, subscription)
        room.size += 1
        return is_first

    def go_live(self, subscription: Subscription, position: StreamPosition | None) -> None:
        """
        Join the others after the reply is written.

        ``position`` is what the client has, for a positioned subscription. What was held back beyond it (and what
        has no offset) is written first.
        """
        room = self.rooms[subscription.channel]
        client = subscription.client
        held_back, subscription.buffer = subscription.buffer, None
        assert room.held is not None
        subscription.state = HELD
        if position is None:
            for publication, _ in held_back or ():
                self._write_alone(subscription, publication)
        else:
            subscription.ahead = position.offset
            for publication, at in held_back or ():
                if not at.offset:
                    self._write_alone(subscription, publication)
            if room.epoch is None or (room.offset <= position.offset and not room.positioned):
                room.offset, room.epoch = position.offset, position.epoch
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
        if state is LIVE:
            self._leave_cohort(room, client)
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
                self._leave_cohort(room, client)
                subscription.state = HELD
                subscription.ahead = room.offset
                self._keep_held(room, subscription)

    def resume(self, client: Client) -> None:
        """Take a reader that has caught up back in."""
        for subscription in client.session.subscriptions.values():
            if subscription.state is HELD:
                self._step_in(self.rooms[subscription.channel], subscription)

    def _step_in(self, room: Room, subscription: Subscription) -> None:
        """Move a held subscription to its cohort if it is in step and its reader keeps up."""
        client = subscription.client
        if client.is_paused or (subscription.is_positioned and subscription.ahead > room.offset):
            return
        # What this client was answered in the same tick must leave before the cohort's writes, which
        # go straight to the transport.
        client.uncork()
        room.flush()
        cohort = room.cohorts.get(client.wire)
        if cohort is None:
            cohort = room.cohorts[client.wire] = Cohort(client.wire, room.channel)
        cohort.writes[client] = client.direct_write
        if room.held is not None:
            room.held.pop(client, None)
            if not room.held:
                room.held = None
        subscription.state = LIVE

    def _leave_cohort(self, room: Room, client: Client) -> None:
        cohort = room.cohorts[client.wire]
        if cohort.pending and not client.is_closed:
            client.write(cohort.wire.separator.join(cohort.pending))
        del cohort.writes[client]
        if not cohort.writes:
            del room.cohorts[client.wire]

    @staticmethod
    def _keep_held(room: Room, subscription: Subscription) -> None:
        if room.held is None:
            room.held = {}
        room.held[subscription.client] = subscription

    # --- delivery --------------------------------------------------------------------------------

    def publish(self, channel: str, publication: Publication, position: StreamPosition) -> None:
        """Deliver a publication to this process's subscribers."""
        room = self.rooms.get(channel)
        if room is None:
            return
        offset = position.offset
        if offset:
            if offset == room.offset + 1 and position.epoch == room.epoch:
                room.offset = offset
            elif not self._advance(room, position):
                return
        if room.held:
            for subscription in tuple(room.held.values()):
                self._deliver_alone(room, subscription, publication, position)
        if not room.cohorts:
            return
        for cohort in tuple(room.cohorts.values()):
            try:
                cohort.pending.append(cohort.wire.encode_publication(cohort.head, publication))
            except InvalidPayloadError:
                for client in tuple(cohort.writes):
                    client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)
            else:
                self.deliveries += len(cohort.writes)
        if not room.is_dirty:
            self._mark_dirty(room)

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
        room.offset, room.epoch = position.offset, position.epoch
        for subscription in tuple((room.positioned or {}).values()):
            if subscription.ahead < position.offset or subscription.state is LIVE:
                subscription.client.lose_state(subscription)
        return True

    def lose_room(self, channel: str) -> None:
        """Tell every positioned subscriber of a channel that its state is insufficient."""
        room = self.rooms.get(channel)
        if room is not None:
            for subscription in tuple((room.positioned or {}).values()):
                subscription.client.lose_state(subscription)

    def _deliver_alone(
        self,
        room: Room,
        subscription: Subscription,
        publication: Publication,
        position: StreamPosition,
    ) -> None:
        if subscription.state is HOLDING:
            assert subscription.buffer is not None
            subscription.buffer.append((publication, position))
            return
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
        self._write_alone(subscription, publication)

    def _catch_up(self, subscription: Subscription) -> None:
        room = self.rooms.get(subscription.channel)
        if subscription.state is HELD and room is not None:
            self._step_in(room, subscription)

    def _write_alone(self, subscription: Subscription, publication: Publication) -> None:
        client = subscription.client
        wire = client.wire
        head = wire.publication_head(subscription.channel)
        try:
            message = wire.encode_publication(head, publication)
        except InvalidPayloadError:
            client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)
            return
        self.deliveries += 1
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
