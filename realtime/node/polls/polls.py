"""
The shared polls of one node.

A channel's polling begins with its first subscriber and ends a while after its last key. Versionless epochs are made
anew each time; of versioned ones the node remembers which the application named last, so that clients who come back to a channel
that was forgotten are not sent to subscribe twice.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from realtime.node.polls.channel import PolledChannel
from realtime.node.polls.feeds import Feeds, read_publish
from realtime.node.polls.figures import PollFigures
from realtime.node.polls.notices import NoticeQueue, read_notice
from realtime.node.polls.outbox import Outbox
from realtime.node.polls.plan import plan_of
from realtime.node.polls.worker import Handle, Timers, Worker
from realtime.protocol import errors
from realtime.protocol.messages import Publication
from realtime.session.subscription import Tracking


if TYPE_CHECKING:
    from realtime.conf.options import SharedPollGlobalOptions
    from realtime.engines.base import Broker
    from realtime.namespaces.table import Channel
    from realtime.proxies.shared_poll import FindBackend
    from realtime.session.subscription import Subscription

logger = logging.getLogger(__name__)

CONCURRENCY = 64  # calls under way at a time, the reference's number
SUBSCRIBE_GRACE = (
    5.0  # seconds that a subscriber has to track something before its channel is forgotten
)
REMEMBERED_EPOCHS = 4096  # some 200 bytes each


class _Polling:
    """A channel that is polled."""

    __slots__ = ("channel", "ending", "notices", "worker")

    def __init__(self, channel: PolledChannel, worker: Worker, notices: NoticeQueue) -> None:
        self.channel = channel
        self.worker = worker
        self.notices = notices
        self.ending: Handle | None = None


class Polls:
    """
    The polled channels of a node.

    Args:
        options: Reads the process options in force.
        broker: Brings direct publishes from other nodes.
        new_epoch: Names a channel's generation.

    Attributes:
        find_backend: Says who is asked; replaced by who has proxies.
        figures: What was counted.
        outbox: What is on its way to connections.

    """

    def __init__(
        self,
        options: Callable[[], SharedPollGlobalOptions],
        broker: Broker,
        new_epoch: Callable[[], str],
    ) -> None:
        self.find_backend: FindBackend = lambda _name: None
        self.figures = PollFigures()
        self.feeds = Feeds(broker)
        self.outbox = Outbox(lambda flush: asyncio.get_running_loop().call_soon(flush))
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()
        self._new_epoch = new_epoch
        self._timers: Timers | None = None
        self._polled: dict[str, _Polling] = {}
        self._epochs: dict[str, str] = {}
        self._versions = itertools.count(1)
        self._calls = itertools.count(1)
        self._slots: tuple[int, asyncio.Semaphore] | None = None

    # --- what workers share ----------------------------------------------------------------------

    @property
    def timers(self) -> Timers:
        """What waits."""
        return self._timers or asyncio.get_running_loop()

    def run_on(self, timers: Timers) -> None:
        """Take other timers than the running loop's."""
        self._timers = timers

    @property
    def slots(self) -> asyncio.Semaphore:
        """The calls that may be under way at a time; another limit is another semaphore."""
        limit = self._options().concurrency_limit or CONCURRENCY
        if self._slots is None or self._slots[0] != limit:
            self._slots = (limit, asyncio.Semaphore(limit))
        return self._slots[1]

    def next_call(self) -> int:
        """Number a call that begins."""
        return next(self._calls)

    def run(self, call: Coroutine[Any, Any, None]) -> None:
        """Run a call as a task of this object: timeouts, the application's client's too, work in tasks alone."""
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a shared poll failed", exc_info=task.exception())

    def forget(self, channel: PolledChannel, names: Sequence[str]) -> None:
        """Clean up after keys that are gone."""
        if names and channel.plan.has_publish:
            self.feeds.leave(channel.name, names)
        if not channel.keys:
            self._end_later(channel, max(channel.plan.shutdown_delay, 0))

    # --- channels --------------------------------------------------------------------------------

    def open(self, found: Channel) -> Tracking:
        """Have a channel polled once something is tracked; returns what a subscription keeps about it."""
        polling = self._polling(found)
        channel = polling.channel
        if not channel.keys and polling.ending is None:
            self._end_later(channel, max(channel.plan.shutdown_delay, SUBSCRIBE_GRACE))
        return Tracking(channel.epoch)

    def _polling(self, found: Channel) -> _Polling:
        polling = self._polled.get(found.name)
        if polling is not None:
            return polling
        notification = self._options().notification
        plan = plan_of(
            found.options.shared_poll, notification.batch_max_size, notification.batch_max_delay
        )
        channel = PolledChannel(
            found.name,
            found.namespace,
            plan,
            self._epochs.get(found.name, "") if plan.is_versioned else self._new_epoch(),
            next_version=lambda: next(self._versions),
            outbox=self.outbox,
            figures=self.figures,
        )
        worker = Worker(channel, self)
        notices = NoticeQueue(
            plan, self.timers, self.figures, lambda keys: self._ask_noticed(found.name, keys)
        )
        polling = self._polled[found.name] = _Polling(channel, worker, notices)
        return polling

    def _end_later(self, channel: PolledChannel, delay: float) -> None:
        polling = self._polled.get(channel.name)
        if polling is None or polling.channel is not channel:
            return
        if polling.ending is not None:
            polling.ending.cancel()
        if delay:
            polling.ending = self.timers.call_later(delay, self._end, polling)
        else:
            self._end(polling)

    def _end(self, polling: _Polling) -> None:
        polling.ending = None
        channel = polling.channel
        if channel.keys:
            return
        if channel.plan.is_versioned and channel.epoch:
            self._epochs.pop(channel.name, None)
            self._epochs[channel.name] = channel.epoch
            if len(self._epochs) > REMEMBERED_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
        polling.worker.stop()
        polling.notices.stop()
        del self._polled[channel.name]

    @property
    def num_channels(self) -> int:
        """Channels that are polled here."""
        return len(self._polled)

    @property
    def num_keys(self) -> int:
        """Keys that are tracked here."""
        return sum(len(polling.channel.keys) for polling in self._polled.values())

    def close(self) -> None:
        """Ask no more, and wait for no answer; may be called twice."""
        self.outbox.flush()
        for polling in self._polled.values():
            polling.worker.stop()
            polling.notices.stop()
            if polling.ending is not None:
                polling.ending.cancel()
        self._polled.clear()
        for task in self._tasks:
            task.cancel()

    async def tidy(self) -> None:
        """Do what is due once a second."""
        await self.feeds.tidy()

    # --- tracking --------------------------------------------------------------------------------

    async def hold(self, found: Channel, names: Sequence[str]) -> PolledChannel:
        """
        Keep keys for a track request, which ends with ``attach`` or ``let_go``.

        Raises:
            EngineError: Direct publishes can't be heard; nothing is kept then.

        """
        channel = self._polling(found).channel
        channel.hold(names)
        if channel.plan.has_publish:
            try:
                await self.feeds.join(found.name, names)
            except BaseException:  # cancelled counts too: nothing may stay behind
                self.let_go(channel, names)
                raise
        return channel

    def let_go(self, channel: PolledChannel, names: Iterable[str]) -> None:
        """End ``hold``."""
        self.forget(channel, channel.let_go(names))

    def attach(
        self, subscription: Subscription, channel: PolledChannel, versions: Mapping[str, int]
    ) -> None:
        """Let a subscription track keys that are held, with the versions that it has; its reply is written."""
        client = subscription.client
        if subscription.options.delta:
            channel.deltas.add(client)
        polling = self._polled.get(channel.name)
        if polling is not None and polling.channel is channel:
            polling.worker.start()
            if polling.ending is not None:
                polling.ending.cancel()
                polling.ending = None
            asked = channel.attach(client, versions)
            if asked:
                polling.worker.ask(asked, "cold")
        self.let_go(channel, versions)

    def untrack(self, subscription: Subscription, names: Iterable[str]) -> None:
        """Let a subscription track keys no more; unknown ones are no error."""
        assert subscription.tracking is not None
        self.outbox.hurry(subscription.client)
        tracked = subscription.tracking.keys
        gone = [name for name in names if tracked.pop(name, None) is not None]
        self._detach(subscription, gone)

    def _detach(self, subscription: Subscription, names: Sequence[str]) -> None:
        polling = self._polled.get(subscription.channel)
        if polling is not None and names:
            self.forget(polling.channel, polling.channel.detach(subscription.client, names))

    def drop(self, subscription: Subscription) -> None:
        """A subscription ends."""
        assert subscription.tracking is not None
        polling = self._polled.get(subscription.channel)
        if not subscription.client.is_closed:
            self.outbox.hurry(subscription.client)
        else:
            self.outbox.boxes.pop(subscription.client, None)
        self.untrack_all(subscription)
        if polling is not None:
            polling.channel.deltas.discard(subscription.client)

    def untrack_all(self, subscription: Subscription) -> None:
        """Let a subscription track nothing any more."""
        assert subscription.tracking is not None
        names = list(subscription.tracking.keys)
        subscription.tracking.keys.clear()
        self._detach(subscription, names)

    def expire(self, subscription: Subscription, now: float) -> None:
        """Drop the keys whose signature has expired, in silence."""
        assert subscription.tracking is not None
        polling = self._polled.get(subscription.channel)
        if polling is None:
            return
        delay = polling.channel.plan.expiry_delay
        keys = subscription.tracking.keys
        late = [name for name, until in keys.items() if until and until + delay < now]
        if late:
            self.untrack(subscription, late)

    # --- what comes from elsewhere ---------------------------------------------------------------

    def on_publication(self, publication: Publication) -> None:
        """Take what a feed brought."""
        try:
            value = read_publish(publication)
        except msgspec.MsgspecError:
            logger.warning("a value of a shared poll was not understood", exc_info=True)
            return
        polling = self._polled.get(value.channel)
        if polling is None:
            return
        data = msgspec.Raw(value.data)
        if polling.channel.take_publish(value.key, data, value.version, value.epoch):
            self.figures.published += 1
        else:
            self.figures.stale_publishes += 1

    def on_notice(self, data: bytes) -> None:
        """Take an application's notification."""
        for item in read_notice(data):
            polling = self._polled.get(item.channel)
            if polling is not None and item.key in polling.channel.keys:
                polling.notices.add(item.key)

    def _ask_noticed(self, name: str, keys: Sequence[str]) -> None:
        polling = self._polled.get(name)
        if polling is not None:
            polling.worker.ask(keys, "notification")

    # --- figures ---------------------------------------------------------------------------------

    def gauges(self) -> Mapping[str, float]:
        """Return what ``info`` shows as it is; nothing where nothing is polled."""
        if not self._polled:
            return {}
        return {
            "centrifugo.shared_poll.num_channels": float(self.num_channels),
            "centrifugo.shared_poll.num_keys": float(self.num_keys),
        }


def lose(subscription: Subscription) -> None:
    """Send a subscription to begin anew, since it has versions of another generation."""
    subscription.client.unsubscribe(subscription, *errors.UNSUBSCRIBED_INSUFFICIENT)
