"""
One connection: it reads commands, carries them out in order, and writes.

A transport hands in what it read by ``on_message`` and owns the socket; everything about the protocol is here and
below. Commands of one connection run one after the other; one that has to wait holds back those behind it, and the
transport stops reading meanwhile. Only publishes may be on their way together (``realtime.client.ahead``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from msgspec import structs

from realtime.client import connecting, map_presence, maps, requests, subscribing
from realtime.client.ahead import Ahead
from realtime.namespaces.options import MAP_TYPES
from realtime.node.eager import Driven, current_task, run_promptly
from realtime.protocol import errors
from realtime.protocol.errors import ClientError, Disconnect, EngineError, InternalError
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import (
    Command,
    ConnectResult,
    Error,
    Push,
    Refresh,
    Reply,
    Subscribe,
    SubscribeRequest,
    Unsubscribe,
    payload,
)
from realtime.session.grants import grant_options
from realtime.session.permissions import SubscriptionSource
from realtime.session.session import PONG, Session, SessionState
from realtime.session.subscription import MapSubscription, Subscription, SubscriptionState


if TYPE_CHECKING:
    from realtime.node.control import SubscribeUser
    from realtime.node.node import Node
    from realtime.protocol.wire import Wire

logger = logging.getLogger(__name__)


class Transport(Protocol):
    """What carries a connection's bytes; every method is synchronous."""

    def write(self, framed: bytes) -> None:
        """Send; what is written during one ``on_message`` may leave together."""

    def direct_write(self, framed: bytes) -> None:
        """Send without gathering; the hub keeps this one."""

    def uncork(self) -> None:
        """Let what was gathered leave now."""

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then end the connection."""

    def buffer_size(self) -> int:
        """Return the bytes that the peer has not taken yet."""

    def pause_reading(self) -> None:
        """Stop calling ``on_message``."""

    def resume_reading(self) -> None:
        """Go on."""


Handler = Callable[["Client", Any], Coroutine[Any, Any, Reply | None]]


def _subscribe(client: Client, command: Command) -> Coroutine[Any, Any, Reply | None]:
    """Choose by the type that is asked for."""
    assert command.subscribe is not None
    if command.subscribe.type in MAP_TYPES:
        return maps.subscribe(client, command)
    return subscribing.subscribe(client, command)


_HANDLERS: dict[str, Handler] = {
    "connect": connecting.connect,
    "refresh": connecting.refresh,
    "subscribe": _subscribe,
    "unsubscribe": subscribing.unsubscribe,
    "sub_refresh": subscribing.sub_refresh,
    "publish": requests.publish,
    "presence": requests.presence,
    "presence_stats": requests.presence_stats,
    "history": requests.history,
    "rpc": requests.rpc,
    "send": requests.send,
}


class Client:
    """
    One connection and its session.

    Args:
        node: The process that it is connected to.
        session: Its state.
        wire: How its messages look.
        transport: What carries them.
        transport_name: For logs and metrics.
        user_header: The user that a trusted reverse proxy named, or empty.
        frame_ping: A ready-made PING frame where the client asked for those in place of the protocol's.
        is_emulated: Whether commands come by requests of their own, so that the client has to know its node.

    """

    __slots__ = (
        "_ahead",
        "_inbox",
        "_ping_slot",
        "_task",
        "_tick_slot",
        "_timer",
        "buffer_size",
        "direct_write",
        "frame_ping",
        "is_closed",
        "is_emulated",
        "is_paused",
        "node",
        "session",
        "transport",
        "transport_name",
        "uncork",
        "user_header",
        "wire",
        "write",
    )

    is_unidirectional: ClassVar[bool] = False

    def __init__(
        self,
        node: Node,
        session: Session,
        wire: Wire,
        transport: Transport,
        *,
        transport_name: str,
        user_header: str = "",
        frame_ping: bytes = b"",
        is_emulated: bool = False,
    ) -> None:
        self.node = node
        self.session = session
        self.wire = wire
        self.transport = transport
        self.transport_name = transport_name
        self.user_header = user_header
        self.frame_ping = frame_ping
        self.is_emulated = is_emulated
        self.write = transport.write
        self.direct_write = transport.direct_write
        self.uncork = transport.uncork
        self.buffer_size = transport.buffer_size
        self.is_closed = False
        self.is_paused = False
        self._task: asyncio.Task[Any] | Driven[Any] | None = None
        self._ahead: Ahead | None = None
        self._inbox: deque[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ping_slot = self._tick_slot = -1
        node.connections.add(self)
        node.newcomers.add(self, node.loop or asyncio.get_running_loop())

    # --- what the transport reports --------------------------------------------------------------

    def on_message(self, data: bytes, is_text: bool = True) -> None:
        """Carry out a frame's commands, after those that are still being carried out."""
        if self._task is None and not self.is_closed:
            self._start(data)
        elif not self.is_closed:
            if self._inbox is None:
                self._inbox = deque()
            self._inbox.append(data)
            self.transport.pause_reading()

    def on_close(self, code: int = 1006) -> None:
        """The connection is gone."""
        self._tear_down()

    def on_pause(self) -> None:
        """The transport's buffer is full: from now on this reader is looked after on its own."""
        if self.is_closed or self.is_paused:
            return
        self.is_paused = True
        self.node.hub.pause(self)
        if self.buffer_size() > self.node.options.client.queue_max_size:
            self.disconnect(*errors.SLOW)
            return
        self.node.watch_slow(self)

    def on_resume(self) -> None:
        """The reader has caught up."""
        if self.is_closed or not self.is_paused:
            return
        self.is_paused = False
        self.node.unwatch_slow(self)
        self.node.hub.resume(self)

    def on_pong(self) -> None:
        """A PONG frame came, which answers a PING frame of ours."""
        if self.frame_ping:
            self.session.is_pong_due = False

    # --- commands --------------------------------------------------------------------------------

    def _start(self, data: bytes) -> bool:
        """Begin with a frame; say whether it has to wait for something."""
        _, driven = run_promptly(self._carry_out(data))
        if driven is not None:
            self._task = driven
            driven.on_end = self._continue
        return driven is not None

    def _continue(self, _: None, error: BaseException | None) -> None:
        self._task = None
        if isinstance(error, Exception):
            logger.error("a connection's task failed", exc_info=error)
        while self._inbox and not self.is_closed:
            if self._start(self._inbox.popleft()):
                return
        if not self.is_closed and self._inbox is not None:
            self._inbox = None
            self.transport.resume_reading()

    async def _carry_out(self, data: bytes) -> None:
        """Carry out one frame; a disconnect ends it, an error reply does not."""
        session = self.session
        try:
            for command in self.wire.decode_commands(data):
                if session.state >= SessionState.UNUSABLE:
                    return
                method = session.route(command)
                if method is PONG:
                    continue
                try:
                    if method == "publish" and self.node.broker.is_remote:
                        if self._ahead is None:
                            self._ahead = Ahead(self)
                        elif self._ahead.is_full:
                            await self._ahead.ended()
                        if self._ahead.publish(command):
                            continue
                    if self._ahead is not None:
                        await self._ahead.ended()
                    reply = await _HANDLERS[method](self, command)
                except Disconnect:
                    raise
                except Exception as error:  # noqa: BLE001 -- judge logs what is no refusal
                    await self._publishes_ended()
                    self._refuse(command, method, error)
                else:
                    if reply is not None:
                        self.write_checked(self.wire.encode_reply(reply))
                if self.is_closed:
                    return
        except MalformedFrame:
            await self._publishes_ended()
            if session.state is not SessionState.UNUSABLE:
                self.disconnect(*errors.BAD_REQUEST)
        except Disconnect as end:
            await self._publishes_ended()
            self.disconnect(end.code, end.reason)

    async def _publishes_ended(self) -> None:
        if self._ahead is not None:
            await self._ahead.ended()

    def judge(self, failure: Exception, method: str) -> ClientError:
        """Return what the client is told of a failure; one that is no refusal is logged."""
        if isinstance(failure, ClientError):
            return failure
        # The wire gets a code, the log the rest.
        what = "a backend" if isinstance(failure, EngineError) else "a command"
        facts = {"method": method, "client": self.session.client_id}
        logger.error("%s failed", what, exc_info=failure, extra=facts)
        return InternalError()

    def refusal(self, command: Command, method: str, failure: Exception) -> bytes:
        """Encode what the client is told of a failure."""
        error = self.judge(failure, method)
        told = Error(code=error.code, message=error.message, temporary=error.temporary)
        return self.wire.encode_reply(Reply(id=command.id, error=told))

    def _refuse(self, command: Command, method: str, failure: Exception) -> None:
        if method == "connect":
            self.session.state = SessionState.UNUSABLE
        self.write_checked(self.refusal(command, method, failure))

    # --- writing ---------------------------------------------------------------------------------

    def send(self, reply: Reply) -> None:
        """Write a reply or a push."""
        self.write_checked(self.wire.encode_reply(reply))

    def push(self, push: Push) -> None:
        """Write a push."""
        self.write_checked(self.wire.encode_push(push))

    def write_checked(self, message: bytes) -> None:
        """Write to this connection alone; one whose queue is over its limit is ended."""
        if self.is_closed:
            return
        self.write(message)
        if self.is_paused and self.buffer_size() > self.node.options.client.queue_max_size:
            self.disconnect(*errors.SLOW)

    def ping(self) -> None:
        """Send a ping that the client has to answer."""
        if self.is_closed:
            return
        self.session.is_pong_due = True
        self.write(self.frame_ping or self.wire.ping)

    # --- the connection's life -------------------------------------------------------------------

    def answer_connect(self, command: Command, result: ConnectResult) -> None:
        """Tell the client that it is in."""
        self.send(Reply(id=command.id, connect=result))

    @property
    def write_timeout(self) -> float:
        """How many seconds a reader may stay behind."""
        return self.node.options.websocket.write_timeout

    def connected(self) -> None:
        """Begin what a connected client has: pings, maintenance, its expiry."""
        self.session.state = SessionState.CONNECTED
        self.node.newcomers.discard(self)
        self._ping_slot = self.node.pings.add(self)
        self._tick_slot = self.node.ticks.add(self)
        self.schedule_expiry()

    def schedule_expiry(self) -> None:
        """Arm the timer that ends an expired connection; one that is far off is armed by a later ``maintain``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        expire_at = self.session.expire_at
        if expire_at:
            options = self.node.options.client
            delay = expire_at - self.node.clock() + options.expired_close_delay
            if delay < 2 * options.presence_update_interval:
                self._timer = asyncio.get_running_loop().call_later(
                    max(delay, 0), self.disconnect, *errors.CONNECTION_EXPIRED
                )

    def refreshed_by_server(self, expire_at: int) -> None:
        """Take another expiry and tell the client."""
        now = self.node.clock()
        self.session.expire_at = expire_at
        self.schedule_expiry()
        ttl = max(int(expire_at - now), 1) if expire_at else 0
        self.push(Push(refresh=Refresh(expires=bool(expire_at), ttl=ttl)))

    def maintain(self, now: float) -> None:
        """Once per presence interval: see to expiries, refresh presence."""
        if self._timer is None:
            self.schedule_expiry()
        grace = self.node.options.client.expired_sub_close_delay
        refreshed, in_maps = [], []
        for subscription in tuple(self.session.subscriptions.values()):
            if not subscription.is_established:
                if isinstance(subscription, MapSubscription) and self._task is None:
                    maps.hold_no_longer(subscription, now)
                continue
            if subscription.tracking is not None:
                self.node.polls.expire(subscription, now)
            if subscription.expire_at and now > subscription.expire_at + grace:
                if subscription.is_server_side:
                    self.disconnect(*errors.SUBSCRIPTION_EXPIRED)
                    return
                self.unsubscribe(subscription, *errors.UNSUBSCRIBED_EXPIRED)
                continue
            if subscription.options.presence:
                refreshed.append(subscription)
            if subscription.options.map_presence is not None:
                in_maps.append(subscription)
        if refreshed:
            self.node.spawn(self._refresh_presence(refreshed))
        if in_maps:
            self.node.spawn_next(map_presence.keep(in_maps))

    async def _refresh_presence(self, subscriptions: list[Subscription]) -> None:
        for subscription in subscriptions:
            if subscription.is_established:
                info = self.session.client_info(subscription.channel)
                try:
                    await self.node.presence.add(subscription.channel, self.session.client_id, info)
                except EngineError:
                    # The entry lives on for its TTL, and the next tick tries again.
                    logger.warning("presence was not refreshed", exc_info=True)
                    return

    async def restore_presence(self, *, with_joins: bool) -> None:
        """
        Put this connection's presence entries back, which others removed.

        Args:
            with_joins: Tell the joins again too, since the leaves were told.

        Raises:
            EngineError: The backend failed.

        """
        for subscription in tuple(self.session.subscriptions.values()):
            options = subscription.options if subscription.is_established else None
            if options is None or not options.presence:
                continue
            info = self.session.client_info(subscription.channel)
            await self.node.presence.add(subscription.channel, self.session.client_id, info)
            if with_joins and options.emit_join_leave and subscription.is_established:
                await self.node.broker.publish_join(subscription.channel, info)

    async def subscribe_from_server(self, command: SubscribeUser) -> None:
        """Subscribe as the server API asked; a connection that has the channel is left as it is."""
        session = self.session
        channel = self.node.table.resolve(command.channel)
        if channel is None or self.is_closed or command.channel in session.subscriptions:
            return
        if len(session.subscriptions) >= self.node.options.client.channel_limit:
            self.disconnect(*errors.CHANNEL_LIMIT)
            return
        since = command.recover_since
        request = SubscribeRequest(
            recover=since is not None,
            offset=since.offset if since else 0,
            epoch=since.epoch if since else "",
        )
        options = grant_options(
            channel, user=session.user, override=command.override, is_server_side=True
        )
        options = structs.replace(options, is_cache=False, auto_recover=False)
        try:
            established = await subscribing.subscribe_server_side(
                self,
                command.channel,
                options,
                SubscriptionSource.SERVER_API,
                request,
                info=payload(command.info),
                data=payload(command.data),
                expire_at=command.expire_at,
            )
        except Disconnect as end:
            self.disconnect(end.code, end.reason)
            return
        except ClientError:
            self.disconnect(*errors.SERVER_ERROR)
            return
        result = established.result
        self.push(
            Push(
                channel=command.channel,
                subscribe=Subscribe(
                    recoverable=result.recoverable,
                    epoch=result.epoch,
                    # What was recovered is not part of this push: a client that comes back recovers it from here.
                    offset=result.offset,
                    positioned=result.positioned,
                    data=result.data,
                ),
            )
        )
        established.begin()

    def lose_state(self, subscription: Subscription) -> None:
        """Publications of a positioned subscription are lost: let the SDK recover."""
        if subscription.is_server_side:
            self.disconnect(*errors.INSUFFICIENT_STATE)
        else:
            self.unsubscribe(subscription, *errors.UNSUBSCRIBED_INSUFFICIENT)

    def unsubscribe(self, subscription: Subscription, code: int, reason: str) -> None:
        """End a subscription from the server's side; one that is still beginning ends when it has begun."""
        if self.session.subscriptions.get(subscription.channel) is not subscription:
            return
        if not subscription.is_established:
            subscription.ends_with = (code, reason)
            return
        self.drop(subscription)
        self.push(
            Push(channel=subscription.channel, unsubscribe=Unsubscribe(code=code, reason=reason))
        )

    def drop(self, subscription: Subscription) -> None:
        """Forget a subscription; what others must know follows."""
        was_established = subscription.is_established
        had_presence = subscription.state >= SubscriptionState.HOLDING
        info = self.session.client_info(subscription.channel)
        if self.session.subscriptions.get(subscription.channel) is subscription:
            del self.session.subscriptions[subscription.channel]
        if subscription.tracking is not None:
            self.node.polls.drop(subscription)
        self.node.leave(subscription)
        if not had_presence:
            return
        options = subscription.options
        if options.map_presence is not None and was_established:
            self.node.spawn_next(map_presence.forget(subscription, info))
        if options.presence or (options.emit_join_leave and was_established):
            self.node.spawn(self.node.announce_leave(subscription, info, was_established))

    def disconnect(self, code: int, reason: str) -> None:
        """End the connection; may be called twice."""
        if self.is_closed:
            return
        if self._ahead is not None and (due := self._ahead.take()):
            self.write(due)  # it would have been, with the loop's next turn
        self.transport.close(code, reason)
        logger.debug(
            "disconnected",
            extra={"client": self.session.client_id, "user": self.session.user, "code": code},
        )
        self._tear_down()

    def _tear_down(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        node, session = self.node, self.session
        session.state = SessionState.CLOSED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        node.newcomers.discard(self)
        if self._ping_slot >= 0:
            node.pings.discard(self, self._ping_slot)
            node.ticks.discard(self, self._tick_slot)
        if self.is_paused:
            node.unwatch_slow(self)
        node.connections.discard(self)
        node.hub.clients.remove(self)
        for subscription in tuple(session.subscriptions.values()):
            self.drop(subscription)
        self._inbox = None
        if self._task is not None and self._task is not current_task():
            self._task.cancel()
