"""
One channel's keys on this node: who tracks them, what they were last, and what an answer changes.

::

    key:   new ──first answer──► known ──version grows──► known
            │                      │
            └──── no trackers, or removed ────► forgotten

*A tracker has a version.* It is pushed a value whose version is higher, which is then its version; so one answer serves those
who are in step, those who come back and those who are new. Where the application gives no versions, a change (another
hash) makes one: from a counter of the whole node, since a client whose channel was forgotten and polled anew must
not wait for a fresh counter to catch up with what it has.

``is_wanted`` marks a key that a tracker is owed although nothing changed. It is asked for without a version, so that a
versioned application answers it, and what is sent is a pair that belongs together: the value is either kept, or came
with the stored version.

Everything here is synchronous.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Raw

from realtime.node.deliveries import Delivery
from realtime.node.polls.figures import PollFigures
from realtime.node.polls.outbox import Outbox
from realtime.node.polls.plan import PollPlan
from realtime.node.rooms import Form
from realtime.protocol import errors
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import Publication, StreamPosition
from realtime.proxies.shared_poll import PolledItem, PollItem, SharedPollRefreshResult


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.protocol.wire import Wire

logger = logging.getLogger(__name__)

_NO_POSITION = StreamPosition()


class PolledKey:
    """
    One key.

    Attributes:
        version: Of the latest value; 0 until there is one.
        value: The latest value, where it is kept.
        digest: Of the latest value, where there are no versions and it is not kept.
        trackers: The version that each has.
        based: Those with deltas who were sent the value of their version, so that a patch can be made for it.
        holds: Track requests in flight that the key must stay for.
        is_new: Nobody has asked for it yet.
        is_wanted: A tracker is owed the latest value.
        is_fresh: It was published since the last cycle, which need not ask for it.
        calls: Immediate calls for it that are under way.
        answered_at: The number of the call whose answer it has.

    """

    __slots__ = (
        "answered_at",
        "based",
        "calls",
        "digest",
        "holds",
        "is_fresh",
        "is_new",
        "is_wanted",
        "trackers",
        "value",
        "version",
    )

    def __init__(self) -> None:
        self.version = 0
        self.value: Raw | None = None
        self.digest: bytes | None = None
        self.trackers: dict[Client, int] = {}
        self.based: set[Client] | None = None
        self.holds = 0
        self.is_new = True
        self.is_wanted = False
        self.is_fresh = False
        self.calls = 0
        self.answered_at = 0


class PolledChannel:
    """
    One channel's keys.

    Args:
        name: The channel.
        namespace: Its namespace, for the log.
        plan: Its options.
        epoch: What clients are told.
        next_version: Makes a version where the application has none.
        outbox: Takes what is to be pushed.
        figures: Counts.

    Attributes:
        deltas: The connections that negotiated deltas.

    """

    def __init__(
        self,
        name: str,
        namespace: str,
        plan: PollPlan,
        epoch: str,
        *,
        next_version: Callable[[], int],
        outbox: Outbox,
        figures: PollFigures,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.plan = plan
        self.epoch = epoch
        self.keys: dict[str, PolledKey] = {}
        self.deltas: set[Client] = set()
        self._next_version = next_version
        self._outbox = outbox
        self._figures = figures
        self._heads: dict[Wire, bytes] = {}
        self._has_warned = False

    # --- trackers --------------------------------------------------------------------------------

    def hold(self, names: Iterable[str]) -> list[str]:
        """Keep keys for a track request; returns those that were not there."""
        created = []
        for name in names:
            key = self.keys.get(name)
            if key is None:
                key = self.keys[name] = PolledKey()
                created.append(name)
            key.holds += 1
        return created

    def let_go(self, names: Iterable[str]) -> list[str]:
        """End ``hold``; returns the keys that nobody wants any more, which are forgotten."""
        forgotten = []
        for name in names:
            key = self.keys.get(name)
            if key is not None and key.holds:
                key.holds -= 1
                if self._forget_unused(name, key):
                    forgotten.append(name)
        return forgotten

    def attach(self, client: Client, versions: Mapping[str, int]) -> list[str]:
        """
        Let a connection track keys that are held; what is kept and newer is pushed.

        Args:
            client: Who.
            versions: By key, what it has.

        Returns:
            The keys to ask for at once.

        """
        asked = []
        for name, version in versions.items():
            key = self.keys.get(name)
            if key is None:
                continue
            before = key.trackers.get(client)
            key.trackers[client] = version
            if key.based is not None and before != version:
                key.based.discard(client)
            if self._is_to_ask(name, key, client, version):
                asked.append(name)
        self._outbox.will_flush()
        return asked

    def _is_to_ask(self, name: str, key: PolledKey, client: Client, version: int) -> bool:
        is_new, key.is_new = key.is_new, False
        if is_new and version:
            return False  # the next cycle is early enough for who has something
        if not is_new and version and version >= key.version:
            return False
        if key.value is not None and key.version > version:
            self._push_to(client, name, key)
            return False
        key.is_wanted = True
        return not key.calls

    def detach(self, client: Client, names: Iterable[str]) -> list[str]:
        """Let a connection track keys no more; returns those that are forgotten with it."""
        forgotten = []
        for name in names:
            key = self.keys.get(name)
            if key is None:
                continue
            key.trackers.pop(client, None)
            if key.based is not None:
                key.based.discard(client)
            if self._forget_unused(name, key):
                forgotten.append(name)
        return forgotten

    def _forget_unused(self, name: str, key: PolledKey) -> bool:
        if key.trackers or key.holds:
            return False
        del self.keys[name]
        return True

    def newer(self, versions: Mapping[str, int]) -> list[Publication]:
        """Return the kept values that are newer than what a track request has."""
        found = []
        for name, version in versions.items():
            key = self.keys.get(name)
            if key is not None and key.value is not None and key.version > version:
                found.append(Publication(data=key.value, key=name, version=key.version))
        return found

    def note_sent(self, client: Client, publications: Sequence[Publication]) -> None:
        """Note that a connection was sent values of keys that it tracks with their versions, by a reply."""
        if client in self.deltas:
            for publication in publications:
                key = self.keys.get(publication.key)
                if key is not None and key.trackers.get(client) == publication.version:
                    self._base(key).add(client)

    # --- what is asked ---------------------------------------------------------------------------

    def due(self) -> list[str]:
        """Return the keys of a cycle, sorted: those that were published since the last one can wait."""
        names = []
        for name, key in self.keys.items():
            if key.is_fresh and not key.is_wanted:
                key.is_fresh = False
            elif key.trackers:
                key.is_fresh = key.is_new = False
                names.append(name)
        names.sort()
        return names

    def items(self, names: Iterable[str]) -> list[PollItem]:
        """Return what to ask of those keys that are still tracked."""
        is_versioned = self.plan.is_versioned
        return [
            PollItem(name, key.version if is_versioned and not key.is_wanted else 0)
            for name in names
            if (key := self.keys.get(name)) is not None and (key.trackers or key.holds)
        ]

    def begin_calls(self, names: Iterable[str]) -> None:
        """Note that keys are asked for at once."""
        for name in names:
            key = self.keys.get(name)
            if key is not None:
                key.calls += 1

    def end_calls(self, names: Iterable[str]) -> None:
        """Note the end of such a call."""
        for name in names:
            key = self.keys.get(name)
            if key is not None and key.calls:
                key.calls -= 1

    # --- what is answered ------------------------------------------------------------------------

    def take_answer(self, result: SharedPollRefreshResult, call: int) -> list[str]:
        """
        Judge an answer and push what it changes; returns the keys that are forgotten.

        Args:
            result: The answer.
            call: The number of the call; they grow in the order in which calls began.

        """
        if self.plan.is_versioned and result.epoch != self.epoch:
            self.reset(result.epoch)
        removed = []
        for item in result.items:
            key = self.keys.get(item.key)
            if key is None:
                continue
            if item.removed:
                if self._remove(item.key, key):
                    removed.append(item.key)
            elif item.version or self.plan.is_versioned:
                self._take_version(item, key)
            elif call >= key.answered_at:
                # Calls may overtake each other, and an older value is no change.
                key.answered_at = call
                self._take_value(item, key)
        self._outbox.will_flush()
        return removed

    def _take_version(self, item: PolledItem, key: PolledKey) -> None:
        if item.version > key.version:
            self._change(item.key, key, item.data, item.version, prev_data=item.prev_data)
            return
        if not item.version and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "a versioned shared poll was answered without a version",
                extra={"channel": self.name},
            )
        self._figures.unchanged += 1
        if not key.is_wanted:
            return
        if key.value is not None:
            self._repeat(item.key, key, key.value)
        elif item.version == key.version:
            self._repeat(item.key, key, item.data)

    def _take_value(self, item: PolledItem, key: PolledKey) -> None:
        if self.plan.keeps_data:
            is_known = key.value is not None and bytes(key.value) == bytes(item.data)
        else:
            digest = hashlib.blake2b(item.data, digest_size=8).digest()
            is_known = digest == key.digest
            key.digest = digest
        if not is_known:
            self._change(item.key, key, item.data, self._next_version(), prev_data=item.prev_data)
            return
        self._figures.unchanged += 1
        if key.is_wanted:
            self._repeat(item.key, key, item.data)

    def take_publish(self, name: str, data: Raw, version: int, epoch: str) -> bool:
        """Take a value that was published directly; say whether it is news."""
        if self.plan.is_versioned and epoch != self.epoch:
            self.reset(epoch)
        key = self.keys.get(name)
        if key is None or version <= key.version:
            return False
        key.is_fresh = True
        self._change(name, key, data, version, epoch=epoch)
        self._outbox.will_flush()
        return True

    def reset(self, epoch: str) -> None:
        """Begin another generation of versions: who tracks something has to subscribe anew."""
        self.epoch = epoch
        trackers: dict[Client, None] = {}
        for key in self.keys.values():
            trackers.update(dict.fromkeys(key.trackers))
            key.version = key.answered_at = 0
            key.value = key.digest = key.based = None
        for client in trackers:
            subscription = client.session.subscriptions.get(self.name)
            if subscription is not None:
                client.unsubscribe(subscription, *errors.UNSUBSCRIBED_INSUFFICIENT)

    # --- pushes ----------------------------------------------------------------------------------

    def _change(
        self,
        name: str,
        key: PolledKey,
        data: Raw,
        version: int,
        *,
        epoch: str = "",
        prev_data: Raw | None = None,
    ) -> None:
        """Store a new value and push it."""
        self._figures.changed += 1
        data = data.copy() if data else data  # it is a view of the whole answer
        base = key.value if key.value is not None else (prev_data or None)
        base_version, key.version = key.version, version
        if self.plan.keeps_data:
            key.value = data
        key.is_wanted = False
        publication = Publication(data=data, key=name, version=version, epoch=epoch)
        self._push(key, publication, base, base_version)

    def _repeat(self, name: str, key: PolledKey, data: Raw) -> None:
        """Push the stored version to those who don't have it."""
        key.is_wanted = False
        self._push(key, Publication(data=data, key=name, version=key.version), None, 0)

    def _push_to(self, client: Client, name: str, key: PolledKey) -> None:
        """Push a kept value to one connection."""
        assert key.value is not None
        publication = Publication(data=key.value, key=name, version=key.version)
        delivery = Delivery(publication, _NO_POSITION, None)
        key.trackers[client] = key.version
        form = Form.PLAIN
        if client in self.deltas:
            form = Form.WHOLE
            self._base(key).add(client)
        try:
            message = delivery.message(client.wire, self._head(client.wire), form)
        except InvalidPayloadError:
            client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)
            return
        self._figures.deliveries += 1
        self._outbox.put(client, message)

    def _push(
        self, key: PolledKey, publication: Publication, base: Raw | None, base_version: int
    ) -> None:
        """Push to every tracker that has an older version; nothing is written before the flush."""
        previous = None if base is None or not self.deltas else Publication(data=base)
        delivery = Delivery(publication, _NO_POSITION, previous)
        if self.deltas:
            refused = self._push_by_form(key, delivery, base_version)
        else:
            refused = self._push_plain(key, delivery)
        for client in refused:
            client.disconnect(*errors.INAPPROPRIATE_PROTOCOL)

    def _push_plain(self, key: PolledKey, delivery: Delivery) -> list[Client]:
        version = delivery.publication.version
        trackers, boxes = key.trackers, self._outbox.boxes
        messages: dict[Wire, bytes | None] = {}
        refused = []
        count = 0
        for client, held in trackers.items():
            if held >= version:
                continue
            trackers[client] = version
            wire = client.wire
            message = messages.get(wire)
            if message is None:
                message = messages[wire] = self._message(delivery, wire, Form.PLAIN)
                if message is None:
                    refused.append(client)
                    continue
            count += 1
            box = boxes.get(client)
            if box is None:
                boxes[client] = [message]
            else:
                box.append(message)
        self._figures.deliveries += count
        return refused

    def _push_by_form(self, key: PolledKey, delivery: Delivery, base_version: int) -> list[Client]:
        version = delivery.publication.version
        trackers, based = key.trackers, self._base(key)
        refused = []
        for client, held in trackers.items():
            if held >= version:
                continue
            trackers[client] = version
            form = Form.PLAIN
            if client in self.deltas:
                is_patchable = held == base_version and client in based
                form = Form.IN_STEP if is_patchable else Form.WHOLE
                based.add(client)
            message = self._message(delivery, client.wire, form)
            if message is None:
                refused.append(client)
                continue
            self._figures.deliveries += 1
            saved = delivery.saved(form)
            if saved:
                self._figures.patched += 1
                self._figures.bytes_saved += saved
            self._outbox.put(client, message)
        return refused

    def _message(self, delivery: Delivery, wire: Wire, form: Form) -> bytes | None:
        try:
            return delivery.message(wire, self._head(wire), form)
        except InvalidPayloadError:
            return None

    def _remove(self, name: str, key: PolledKey) -> bool:
        """Tell the trackers that a key is gone, and forget it; say whether nobody else is about to track it."""
        self._figures.removed += 1
        del self.keys[name]
        if key.holds:
            self.keys[name] = anew = PolledKey()
            anew.holds = key.holds
        delivery = Delivery(Publication(key=name, removed=True), _NO_POSITION, None)
        for client in key.trackers:
            subscription = client.session.subscriptions.get(self.name)
            if subscription is not None and subscription.tracking is not None:
                subscription.tracking.keys.pop(name, None)
            self._outbox.put(
                client, delivery.message(client.wire, self._head(client.wire), Form.PLAIN)
            )
        self._figures.deliveries += len(key.trackers)
        return not key.holds

    def _head(self, wire: Wire) -> bytes:
        head = self._heads.get(wire)
        if head is None:
            head = self._heads[wire] = wire.publication_head(self.name, 0)
        return head

    @staticmethod
    def _base(key: PolledKey) -> set[Client]:
        if key.based is None:
            key.based = set()
        return key.based
