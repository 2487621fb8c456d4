"""
One process of Tidewire: it binds the hub to a broker, carries out what nodes ask of each other, and keeps time.

It knows no Django: options, configuration, engines and verifiers come in by the constructor.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from realtime.engines.base import HistoryFilter
from realtime.engines.memory import random_epoch
from realtime.namespaces.globs import compile_glob
from realtime.node.control import (
    Announcement,
    Buried,
    ControlBody,
    ControlCommand,
    NodeInfo,
    Shutdown,
    SurveyRequest,
    SurveyResponse,
    decode_control,
    encode_control,
)
from realtime.node.eager import run_eagerly
from realtime.node.empty_caches import EmptyCaches
from realtime.node.emulation import Emulation
from realtime.node.figures import Figures
from realtime.node.flushes import Flushes
from realtime.node.hub import Hub
from realtime.node.locks import ChannelLocks
from realtime.node.membership import Membership
from realtime.node.orders import carry_out
from realtime.node.polls.feeds import KeyPublish, publish_key
from realtime.node.polls.notices import NoticeSource
from realtime.node.polls.polls import Polls
from realtime.node.positions import Positions
from realtime.node.surveys import Surveys
from realtime.node.ticker import Waitlist, Wheel
from realtime.protocol import errors
from realtime.protocol.errors import (
    EngineError,
    UnrecoverablePositionError,
)
from realtime.protocol.messages import (
    ClientInfo,
    Publication,
    StreamPosition,
)
from realtime.proxies.figures import ProxyFigures


if TYPE_CHECKING:
    from realtime.auth.tokens import TokenVerifier
    from realtime.client.client import Client
    from realtime.conf.options import ProcessOptions
    from realtime.conf.snapshot import Configuration
    from realtime.engines.base import (
        Answer,
        Broker,
        ControlBus,
        History,
        PresenceManager,
        PublishOptions,
        PublishOutcome,
    )
    from realtime.engines.maps import MapBroker
    from realtime.namespaces.table import Channel, NamespaceTable
    from realtime.session.subscription import Subscription

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds between two rounds of housekeeping
LEAVE_DELAY = 1.0  # a channel left and joined again within it costs the broker nothing


class Node:
    """
    A process with connections.

    Args:
        options: Process options; ``take_options`` replaces those that are read again and again.
        configuration: The rows' snapshot; ``reload`` replaces it in one step.
        broker: Streams and PUB/SUB.
        presence: Who is in a channel.
        control_bus: How nodes reach each other.
        maps: Maps and the delivery of their changes.
        connection_verifier: For connection tokens.
        subscription_verifier: For subscription tokens.
        version: The product's version, which clients are told.
        reload: Loads the configuration anew; awaited on ``ReloadConfiguration``.
        proxy_figures: Shown in ``info``; whoever asks the application counts in it.
        name: Shown in ``info``.
        node_id: Unique; what the engine knows this node by. Made up where it is empty.
        clock: Unix time in seconds.
        monotonic: Seconds that never jump; the life and death of nodes is measured by them.
        notices: Where an application says which keys of shared polls have changed.

    """

    def __init__(
        self,
        *,
        options: ProcessOptions,
        configuration: Configuration,
        broker: Broker,
        presence: PresenceManager,
        control_bus: ControlBus,
        maps: MapBroker,
        connection_verifier: TokenVerifier,
        subscription_verifier: TokenVerifier,
        version: str,
        reload: Callable[[], Awaitable[Configuration]] | None = None,
        proxy_figures: ProxyFigures | None = None,
        name: str = "",
        node_id: str = "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        notices: NoticeSource | None = None,
    ) -> None:
        self.id = node_id or str(uuid.uuid4())
        self.name = name or options.node.name or self.id
        self.version = version
        self.options = options
        self.configuration = configuration
        self.table: NamespaceTable = configuration.table
        self.broker = broker
        self.presence = presence
        self.maps = maps
        self.connection_verifier = connection_verifier
        self.subscription_verifier = subscription_verifier
        self.clock = clock
        self.started_at = clock()
        self.hub = Hub(
            Flushes(
                write_delay=options.client.write_delay,
                websocket_write_delay=options.websocket.write_delay,
                messages_per_frame=options.client.messages_per_frame,
            )
        )
        self.connections: set[Client] = set()
        self.is_draining = False
        self.publications = 0
        self.pings: Wheel[Client] = Wheel(options.client.ping_interval, self._ping, random.random)
        self.ticks: Wheel[Client] = Wheel(
            options.client.presence_update_interval, self._maintain, random.random
        )
        self.newcomers: Waitlist[Client] = Waitlist(
            options.client.stale_close_delay, lambda client: client.disconnect(*errors.STALE)
        )
        self.loop: asyncio.AbstractEventLoop | None = None
        self._control_bus = control_bus
        self._reload = reload
        self._tasks: set[asyncio.Task[Any]] = set()
        self._slow: dict[Client, asyncio.TimerHandle] = {}
        self._joined: set[str] = set()
        # Channels that are joined as maps, and whether for joins and leaves too, which are the broker's.
        self._joined_maps: dict[str, bool] = {}
        self._leaving: dict[str, float] = {}
        self._locks = ChannelLocks()
        self._admitted = (0, 0)
        self.members = Membership(self, monotonic)
        self.positions = Positions(self)
        self.polls = Polls(lambda: self.options.shared_poll, broker, random_epoch)
        self.empty_caches = EmptyCaches()
        self._notices = notices
        self.emulation = Emulation(self)
        self.surveys = Surveys(
            self, {"channels": self._answer_channels, "emulation": self.emulation.answer}
        )
        self._proxy_figures = proxy_figures or ProxyFigures()
        self._figures = Figures(
            options.node.info_metrics_aggregate_interval,
            self._gauges,
            self._counters,
            self.started_at,
        )
        self._ticker: asyncio.TimerHandle | None = None
        self._housekeeping: asyncio.Task[None] | None = None

    # --- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect the broker and begin to tick."""
        self.loop = self.hub.flushes.loop = asyncio.get_running_loop()
        await self.broker.start(self)
        await self.maps.start(self)
        if self._notices is not None:
            await self._notices.start(self.polls.on_notice)
        self.members.start()
        self.pings.start()
        self.ticks.start()
        self._ticker = self.loop.call_later(TICK, self._tick)

    async def drain(self, seconds: float) -> None:
        """Send every client away with 3001, spread over ``seconds`` so that they do not come back at once."""
        self.is_draining = True
        self.members.leave()
        connections = list(self.connections)
        rounds = max(1, min(len(connections), int(seconds * 20)))
        for number in range(rounds):
            for client in connections[number::rounds]:
                client.disconnect(*errors.SHUTDOWN)
            if number + 1 < rounds:
                await asyncio.sleep(seconds / rounds)

    async def stop(self) -> None:
        """End what is left and let go of the backends; may be called twice."""
        self.members.leave()
        for client in list(self.connections):
            client.disconnect(*errors.SHUTDOWN)
        self.hub.flush()
        self.hub.batches.stop()
        self.polls.close()
        self.pings.stop()
        self.ticks.stop()
        self.newcomers.stop()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        tasks = [*self._tasks, *filter(None, (self._housekeeping,))]
        if tasks:
            await asyncio.wait(tasks, timeout=5)
            for task in tasks:
                task.cancel()
        await self.maps.close()
        if self._notices is not None:
            await self._notices.close()
        await self.broker.close()

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[object] | None:
        """Run something that nobody has to wait for; this node owns it. Returns the task if it is not done at once."""
        try:
            _, task = run_eagerly(coroutine)
        except Exception:
            logger.exception("background work failed")
            return None
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._done)
        return task

    def spawn_next(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """
        Do as ``spawn``, but begin with the loop's next turn, in the order of these calls.

        For what may publish to the very channel whose publication is being delivered: a subscription can end by that.
        """
        task = (self.loop or asyncio.get_running_loop()).create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work failed", exc_info=task.exception())

    def admit(self) -> bool:
        """Say whether one more connection may come, by the node's limits."""
        limits = self.options.client
        if limits.connection_limit and len(self.connections) >= limits.connection_limit:
            logger.warning("connection limit reached")
            return False
        if limits.connection_rate_limit:
            second = int(self.clock())
            if self._admitted[0] != second:
                self._admitted = (second, 0)
            if self._admitted[1] >= limits.connection_rate_limit:
                logger.warning("connection rate limit reached")
                return False
            self._admitted = (second, self._admitted[1] + 1)
        return True

    # --- channels at the broker ------------------------------------------------------------------

    async def join(self, subscription: Subscription) -> None:
        """Let a subscription into the hub; its channel's first one brings the node's own at the broker."""
        self.hub.hold(subscription)
        channel = subscription.channel
        self._leaving.pop(channel, None)
        if subscription.is_map:
            await self._join_map(subscription)
            return
        if channel in self._joined:
            return
        async with self._locks.of(channel):
            if channel not in self._joined:
                await self.broker.subscribe(channel)
                self._joined.add(channel)

    async def _join_map(self, subscription: Subscription) -> None:
        channel = subscription.channel
        async with self._locks.of(channel):
            if channel not in self._joined_maps:
                await self.maps.subscribe(channel)
                self._joined_maps[channel] = False
            if subscription.options.push_join_leave and not self._joined_maps[channel]:
                await self.broker.subscribe(channel)
                self._joined_maps[channel] = True

    def leave(self, subscription: Subscription) -> None:
        """Let a subscription out of the hub."""
        if self.hub.remove(subscription):
            self._leaving[subscription.channel] = self.clock() + LEAVE_DELAY
            self.positions.forget(subscription.channel)

    async def _leave_broker(self, channel: str) -> None:
        async with self._locks.of(channel):
            if channel in self.hub.rooms:
                return
            if channel in self._joined_maps:
                await self._leave_map(channel)
                if channel not in self._joined:
                    return
            # Before the wait: who comes meanwhile must not take the channel for joined, but wait for its turn.
            self._joined.discard(channel)
            await self.broker.unsubscribe(channel)

    async def _leave_map(self, channel: str) -> None:
        if self._joined_maps[channel]:
            await self.broker.unsubscribe(channel)
            self._joined_maps[channel] = False
        await self.maps.unsubscribe(channel)
        del self._joined_maps[channel]

    async def announce_join(self, subscription: Subscription) -> None:
        """Tell a channel that a client came."""
        info = subscription.client.session.client_info(subscription.channel)
        try:
            await self.broker.publish_join(subscription.channel, info)
        except EngineError:
            logger.warning("a join was not published", exc_info=True)

    async def announce_leave(
        self, subscription: Subscription, info: ClientInfo, was_established: bool
    ) -> None:
        """Take a client out of presence and tell the channel that it went."""
        options = subscription.options
        try:
            if options.presence:
                await self.presence.remove(subscription.channel, info.client, info.user)
            if options.emit_join_leave and was_established:
                await self.broker.publish_leave(subscription.channel, info)
        except EngineError:
            # Presence entries end with their TTL where the backend has one.
            logger.warning("a leave was not published", exc_info=True)

    # --- what commands need ----------------------------------------------------------------------

    def publish(
        self, channel: Channel, publication: Publication, options: PublishOptions
    ) -> Coroutine[Any, Any, PublishOutcome]:
        """Publish once, when awaited; raises ``EngineError``."""
        self.publications += 1
        return self.broker.publish(channel.name, publication, options)

    def publish_ahead(
        self, channel: Channel, publication: Publication, options: PublishOptions, answer: Answer
    ) -> bool:
        """Publish once where nothing that follows can overtake it; see ``Broker.publish_ahead``."""
        is_begun = self.broker.publish_ahead(channel.name, publication, options, answer)
        self.publications += is_begun
        return is_begun

    async def publish_polled(self, value: KeyPublish) -> None:
        """Tell all nodes that track a key of a shared poll its value; raises ``EngineError``."""
        await publish_key(self.broker, value)

    async def history(self, channel: Channel, what: HistoryFilter) -> History:
        """
        Read a channel's stream.

        Raises:
            UnrecoverablePositionError: ``what.since`` belongs to another epoch.
            EngineError: The backend failed.

        """
        history = await self.broker.history(channel.name, what, channel.history_meta_ttl)
        if what.since is not None and not history.has(what.since):
            raise UnrecoverablePositionError
        return history

    async def remove_history(self, channel: Channel) -> None:
        """Drop a channel's publications; raises ``EngineError``."""
        await self.broker.remove_history(channel.name)

    async def control(self, command: ControlCommand) -> None:
        """
        Have every node carry out a command, and return when this one has.

        Raises:
            EngineError: It can't be known to have left for the others. Then nothing is done here either.

        """
        await self.tell(command)
        await carry_out(self, command)

    async def tell(self, body: ControlBody, node_id: str = "") -> None:
        """Say something to one node, or to all; raises ``EngineError``."""
        await self._control_bus.publish_control(encode_control(self.id, body), node_id)

    async def survey_channels(self, pattern: str = "") -> dict[str, int]:
        """
        Return the subscribers by channel, of all nodes.

        Args:
            pattern: A glob that the channels match; empty for all of them.

        Raises:
            GlobError: The pattern is malformed.
            EngineError: A node failed, or gave no answer in time.

        """
        counts: Counter[str] = Counter()
        for answer in await self.surveys.ask("channels", pattern):
            counts.update(msgspec.json.decode(answer, type=dict[str, int]))
        return counts

    def _answer_channels(self, question: Raw) -> dict[str, int]:
        pattern = msgspec.json.decode(question, type=str)
        channels = self.hub.channels()
        if not pattern:
            return channels
        is_match = compile_glob(pattern)
        return {name: count for name, count in channels.items() if is_match(name)}

    async def survey_nodes(self) -> list[NodeInfo]:
        """Return what all nodes say of themselves, this one first; nobody is asked for it."""
        return [self.info(), *self.members.others()]

    def info(self, *, has_metrics: bool = True) -> NodeInfo:
        """Describe this node."""
        hub = self.hub
        return NodeInfo(
            uid=self.id,
            name=self.name,
            version=self.version,
            num_clients=len(hub.clients),
            num_users=hub.clients.num_users,
            num_channels=hub.num_channels,
            num_subs=hub.num_subs,
            uptime=int(self.clock() - self.started_at),
            metrics=self._figures.current if has_metrics else {},
        )

    def _gauges(self) -> dict[str, float]:
        hub = self.hub
        return {
            "centrifugo.node.num_clients": float(len(hub.clients)),
            "centrifugo.node.num_users": float(hub.clients.num_users),
            "centrifugo.node.num_channels": float(hub.num_channels),
            "centrifugo.node.num_subscriptions": float(hub.num_subs),
            **self.polls.gauges(),
            **{
                f"centrifugo.client.connections_inflight.transport.{name}": float(count)
                for name, count in Counter(each.transport_name for each in self.connections).items()
            },
            **self._proxy_figures.gauges(),
        }

    def _counters(self) -> dict[str, float]:
        hub, polled = self.hub, self.polls.figures
        return {
            **polled.counters(),
            "centrifugo.node.messages_sent_count.type.publication": float(self.publications),
            "centrifugo.broadcast.publications_delivered": float(
                hub.deliveries + polled.deliveries
            ),
            "centrifugo.broadcast.delta_publications_delivered": float(
                hub.patched + polled.patched
            ),
            "centrifugo.broadcast.delta_bytes_saved": float(hub.bytes_saved + polled.bytes_saved),
            "centrifugo.broadcast.tags_filter_dropped_publications": float(hub.filtered),
            **self._proxy_figures.counters(),
        }

    # --- what the broker tells (BrokerEvents) ----------------------------------------------------

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        position: StreamPosition,
        *,
        delta: bool = False,
        previous: Publication | None = None,
        published_at: float = 0,
    ) -> None:
        """Deliver to this node's subscribers; one that came too late ends positioned ones."""
        if self.polls.feeds.joined and channel in self.polls.feeds.joined:
            self.polls.on_publication(publication)
            return
        if position.offset and published_at:
            lag = self.options.client.channel_position_max_time_lag
            if lag and self.clock() - published_at > lag:
                self.hub.lose_room(channel)
        self.hub.publish(channel, publication, position, previous, delta)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Tell subscribers that somebody came."""
        self.hub.join(channel, info)

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell subscribers that somebody went."""
        self.hub.leave(channel, info)

    def on_lost(self, channels: Sequence[str] | None) -> None:
        """Check positions at once."""
        # What was lost of some channels' shard are control messages of other nodes, too.
        self.members.on_lost()
        for channel in self._joined_maps if channels is None else channels:
            if channel in self._joined_maps:
                self.hub.lose_loaded(channel)
        self.spawn(self.positions.check(channels))

    def on_control(self, data: bytes) -> None:
        """Take what a node says to this one, or to all."""
        try:
            envelope = decode_control(data)
        except msgspec.MsgspecError:
            logger.warning("a control message was not understood", exc_info=True)
            return
        sender, body = envelope.sender, envelope.body
        if sender == self.id:
            # A command was carried out when it was sent.
            if isinstance(body, Announcement | Shutdown):
                self.members.on_own_message()
            return
        match body:
            case Announcement():
                self.members.on_announcement(body.node)
            case Shutdown():
                self.members.on_shutdown(sender)
            case Buried():
                self.members.on_buried()
            case SurveyRequest():
                if not self.is_draining:
                    self.spawn(self.surveys.answer(sender, body))
            case SurveyResponse():
                self.surveys.on_response(sender, body)
            case _:
                self.spawn(carry_out(self, body))

    # --- time ------------------------------------------------------------------------------------

    def _ping(self, clients: tuple[Client, ...]) -> None:
        timeout = self.options.client.pong_timeout
        for client in clients:
            client.ping()
        if timeout > 0:
            asyncio.get_running_loop().call_later(timeout, self._check_pongs, clients)

    @staticmethod
    def _check_pongs(clients: tuple[Client, ...]) -> None:
        for client in clients:
            if client.session.is_pong_due and not client.is_closed:
                client.disconnect(*errors.NO_PONG)

    def _maintain(self, clients: tuple[Client, ...]) -> None:
        now = self.clock()
        for client in clients:
            if not client.is_closed:
                client.maintain(now)

    def watch_slow(self, client: Client) -> None:
        """End a reader that stays behind for longer than its ``write_timeout``."""
        self._slow[client] = asyncio.get_running_loop().call_later(
            client.write_timeout, client.disconnect, *errors.WRITE_ERROR
        )

    def unwatch_slow(self, client: Client) -> None:
        """Let it off."""
        timer = self._slow.pop(client, None)
        if timer is not None:
            timer.cancel()

    def _tick(self) -> None:
        assert self.loop is not None
        self._ticker = self.loop.call_later(TICK, self._tick)
        self.broker.sweep(self.clock())
        self.maps.sweep(self.clock())
        if self._figures.renew(self.clock()):
            self.members.tell_metrics()
        self.members.tick()
        if self._housekeeping is None:
            try:
                _, task = run_eagerly(self._keep_house())
            except Exception:
                logger.exception("housekeeping failed")
                return
            if task is not None:
                self._housekeeping = task
                task.add_done_callback(self._kept_house)

    def _kept_house(self, task: asyncio.Task[None]) -> None:
        self._housekeeping = None
        if not task.cancelled() and task.exception() is not None:
            logger.error("housekeeping failed", exc_info=task.exception())

    async def _keep_house(self) -> None:
        await self.polls.tidy()
        now = self.clock()
        due = [channel for channel, at in self._leaving.items() if at <= now]
        for channel in due:
            try:
                await self._leave_broker(channel)
            except EngineError:
                logger.warning("a channel was not left", exc_info=True)
                continue  # the next round tries again
            self._leaving.pop(channel, None)
        # A map may be cleared, or lose its record, without a message; where that is in this process, asking costs nothing.
        await self.positions.check_due(
            self._joined_maps if self.broker.is_reliable else self.hub.rooms, now
        )

    # --- configuration ---------------------------------------------------------------------------

    def take_options(
        self,
        options: ProcessOptions,
        connection_verifier: TokenVerifier,
        subscription_verifier: TokenVerifier,
    ) -> None:
        """Go on with other options; intervals that timers run on stay until the next start."""
        before = self.options.client
        client = replace(
            options.client,
            ping_interval=before.ping_interval,
            pong_timeout=before.pong_timeout,
            presence_update_interval=before.presence_update_interval,
        )
        self.options = replace(options, client=client)
        self.connection_verifier = connection_verifier
        self.subscription_verifier = subscription_verifier

    async def reload(self) -> bool:
        """Take the configuration's rows anew; False means that they do not validate, and the old ones stay in force."""
        if self._reload is None:
            return True
        try:
            configuration = await self._reload()
        except errors.ConfigError:
            logger.exception("the new configuration is refused, the one before stays in force")
            return False
        self.configuration = configuration
        self.table = configuration.table
        logger.info("configuration reloaded", extra={"revision": configuration.revision})
        return True
