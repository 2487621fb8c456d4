"""
Subscribe, unsubscribe, refresh a subscription.

The order in ``establish`` is what makes recovery exact: hold live publications back, join the channel, appear in presence,
read the stream, join what was read with what was held back, write the reply, go live. From the last join to going
live nothing awaits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Raw

from realtime.auth.tokens import SubscriptionToken, TokenExpired, TokenInvalid
from realtime.client import map_presence, polling
from realtime.engines.base import HistoryFilter
from realtime.namespaces.options import SHARED_POLL_TYPE
from realtime.protocol import errors
from realtime.protocol.delta import as_chain
from realtime.protocol.errors import (
    BadRequestError,
    ClientError,
    Disconnect,
    EngineError,
    ExpiredError,
    InternalError,
    PermissionDeniedError,
    ProxyError,
    TokenExpiredError,
    UnrecoverablePositionError,
)
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import (
    EMPTY,
    Command,
    FilterNode,
    Publication,
    Reply,
    StreamPosition,
    SubRefreshResult,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeResult,
    payload,
)
from realtime.session.grants import GrantedOptions, grant_options
from realtime.session.permissions import SubscriptionSource, authorize_subscribe, check_subscribe
from realtime.session.recovery import (
    Recovery,
    merge_publications,
    passing,
    recover_cache,
    recover_stream,
)
from realtime.session.subscription import MapSubscription, Subscription
from realtime.session.tags_filter import FilterError, TagsFilter, both, make_filter


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.namespaces.table import Channel

CHANNEL_COMPACTION = 1  # SubscribeRequest.flag
REJECT_UNRECOVERED = 2
YEAR = 365 * 24 * 3600  # a longer ttl is clamped: SDKs keep timers in 32 bits of milliseconds


@dataclass(slots=True)
class Established:
    """A subscription whose reply is ready: write ``result``, then call ``begin``."""

    subscription: Subscription
    result: SubscribeResult
    position: StreamPosition | None

    def begin(self) -> None:
        """Go live and let others know; to be called right after the reply is written."""
        subscription, client = self.subscription, self.subscription.client
        if client.is_closed:
            return
        client.node.hub.go_live(subscription, self.position)
        if not subscription.is_established:
            return
        if subscription.options.map_presence is not None:
            client.node.spawn_next(map_presence.keep((subscription,)))
        if subscription.options.emit_join_leave:
            client.node.spawn(client.node.announce_join(subscription))
        if subscription.ends_with is not None:
            client.unsubscribe(subscription, *subscription.ends_with)


def check_request(client: Client, request: SubscribeRequest) -> Channel:
    """Find the channel of a subscribe; raises what refuses it before anything else is known."""
    session, node = client.session, client.node
    return check_subscribe(
        node.table,
        request.channel,
        requested_type=request.type,
        has_token=bool(request.token),
        delta=request.delta,
        is_subscribed=request.channel in session.subscriptions,
        is_limit_reached=len(session.subscriptions) >= node.options.client.channel_limit,
    )


async def subscribe(client: Client, command: Command) -> Reply | None:
    """Subscribe from the client's side."""
    request = command.subscribe
    assert request is not None
    session = client.session
    channel = check_request(client, request)
    subscription = session.subscriptions[request.channel] = Subscription(request.channel, client)
    try:
        data = await authorize(client, subscription, channel, request)
        if request.type == SHARED_POLL_TYPE:
            result = await polling.establish(client, subscription, channel, data)
            if subscription.expire_at:
                now = client.node.clock()
                result.expires, result.ttl = True, ttl_of(subscription.expire_at, now)
            established = Established(subscription, result, None)
        else:
            established = await establish(client, subscription, request, data=data)
    except BaseException:  # cancelled counts too: nothing may stay behind
        client.drop(subscription)
        raise
    client.send(Reply(id=command.id, subscribe=established.result))
    established.begin()
    return None


async def authorize(
    client: Client, subscription: Subscription, channel: Channel, request: SubscribeRequest
) -> Raw:
    """Fill in a subscription's rights; returns the ``data`` of the reply."""
    session, node = client.session, client.node
    is_insecure = node.options.client.insecure
    token: SubscriptionToken | None = None
    if request.token:
        token = await verify_subscription(client, request.token, request.channel)
        subscription.source = SubscriptionSource.SUBSCRIPTION_TOKEN
        subscription.info = payload(token.info)
        subscription.expire_at = token.expire_at
        subscription.tags_filter = token.tags_filter
    else:
        subscription.source = authorize_subscribe(
            channel, user=session.user, is_insecure=is_insecure
        )
    if 0 < subscription.expire_at <= node.clock():
        raise ExpiredError
    if request.tf is not None:
        wanted = _filter_of(channel, request.tf)
        subscription.own_filter = wanted
        subscription.tags_filter = both(subscription.tags_filter, wanted)
    subscription.options = grant_options(
        channel,
        user=session.user,
        is_insecure=is_insecure,
        positioned=request.positioned,
        recoverable=request.recoverable,
        join_leave=request.join_leave,
        # A publication that a filter kept back can't be a base.
        delta="" if subscription.tags_filter is not None else request.delta,
        override=token.override if token is not None else None,
        compact=bool(request.flag & CHANNEL_COMPACTION) and session.takes_numbers,
    )
    return payload(token.data) if token is not None else EMPTY


def _filter_of(channel: Channel, node: FilterNode) -> TagsFilter:
    """Compile a request's filter; raises ``BadRequestError``."""
    if not channel.options.allow_tags_filter:
        raise BadRequestError
    try:
        return make_filter(node)
    except FilterError as error:
        raise BadRequestError from error


async def verify_subscription(client: Client, text: str, channel: str) -> SubscriptionToken:
    """
    Verify a subscription token against the connection that brings it.

    Raises:
        PermissionDeniedError, TokenExpiredError, UnknownChannelError: The token is no good.
        Disconnect: 3500, it is somebody else's, or for something else.

    """
    node, session = client.node, client.session
    try:
        token = await node.subscription_verifier.verify_subscription(text, node.clock())
    except TokenExpired as error:
        raise TokenExpiredError from error
    except TokenInvalid as error:
        raise PermissionDeniedError from error
    if node.table.resolve(token.channel) is None:
        raise errors.UnknownChannelError
    if (
        token.channel != channel
        or token.user != session.user
        or (token.client and token.client != session.client_id)
    ):
        raise Disconnect(*errors.INVALID_TOKEN)
    return token


async def establish(
    client: Client, subscription: Subscription, request: SubscribeRequest, *, data: Raw = EMPTY
) -> Established:
    """
    Join a channel and work out what the client is told; ``subscription.options`` must be set.

    Raises:
        Disconnect: 3004 when a backend fails, 3010 when publications are missing between what was read and
            what came.
        UnrecoverablePositionError: The request rejects a subscription that does not recover.

    """
    node, options = client.node, subscription.options
    channel = subscription.channel
    try:
        await node.join(subscription)
        if options.presence:
            await node.presence.add(
                channel, client.session.client_id, client.session.client_info(channel)
            )
        is_recovering = options.recoverable and (
            request.recover or (options.is_cache and options.auto_recover)
        )
        result = SubscribeResult(
            data=data,
            was_recovering=request.recover or is_recovering,
            delta=bool(options.delta),
            publish_debounce=options.publish_debounce,
        )
        if options.manner is not None and options.manner.has_number:
            result.id = node.hub.number_of(channel)
        if subscription.expire_at:
            result.expires, result.ttl = True, ttl_of(subscription.expire_at, node.clock())
        if not subscription.is_positioned:
            return Established(subscription, result, None)
        recovery, top = await _read(client, subscription, request, is_recovering)
    except EngineError as error:
        raise Disconnect(*errors.SERVER_ERROR) from error
    if not is_recovering:
        recovery = Recovery(recovered=False)
    elif not recovery.recovered and request.flag & REJECT_UNRECOVERED and not options.is_cache:
        raise UnrecoverablePositionError
    return _merge(subscription, request, result, recovery, top)


async def _read(
    client: Client, subscription: Subscription, request: SubscribeRequest, is_recovering: bool
) -> tuple[Recovery, StreamPosition]:
    node, options = client.node, subscription.options
    asked = StreamPosition(request.offset, request.epoch)
    limit = node.options.client.recovery_max_publication_limit or -1
    if not is_recovering:
        what = HistoryFilter(limit=0)
    elif options.is_cache:
        limit = limit if subscription.tags_filter is not None else 1
        what = HistoryFilter(limit=limit, reverse=True)
    else:
        what = HistoryFilter(limit=limit, since=StreamPosition(request.offset, ""))
    history = await node.broker.history(subscription.channel, what, options.history_meta_ttl)
    if not is_recovering:
        return Recovery(recovered=False), history.top
    asked = history.translated(asked)
    if not options.is_cache:
        return recover_stream(history.publications, history.top, asked), history.top
    wanted = subscription.tags_filter
    recovery = recover_cache(history.publications, history.top, asked, wanted)
    is_empty = not passing(history.publications, wanted)
    # Who recovers nonetheless, being at the top, gets what is published now as what comes next.
    if is_empty and await _was_filled(client, subscription) and not recovery.recovered:
        history = await node.broker.history(subscription.channel, what, options.history_meta_ttl)
        recovery = recover_cache(history.publications, history.top, asked, wanted)
    return recovery, history.top


async def _was_filled(client: Client, subscription: Subscription) -> bool:
    """Have the application fill an empty cache, if its namespace says so; a failure fails the subscribe."""
    channel = client.node.table.resolve(subscription.channel)
    if channel is None or not channel.options.cache_empty_proxy_enabled:
        return False
    try:
        return await client.node.empty_caches.fill(channel)
    except ProxyError as error:
        raise InternalError from error


def _merge(
    subscription: Subscription,
    request: SubscribeRequest,
    result: SubscribeResult,
    recovery: Recovery,
    top: StreamPosition,
) -> Established:
    """Join what was read with what was held back meanwhile, and fill in the positions."""
    options = subscription.options
    positions = [delivery.position for delivery in subscription.buffer or ()]
    if any(position.offset and position.epoch != top.epoch for position in positions):
        raise Disconnect(*errors.INSUFFICIENT_STATE)
    held_back = [
        delivery.publication
        for delivery in subscription.buffer or ()
        if delivery.position.offset > top.offset
    ]
    # In cache mode what was read is one publication, with or without a filter the newest of its kind.
    before = () if options.is_cache else recovery.publications
    merged = merge_publications(before, held_back)
    if merged is None or (held_back and held_back[0].offset != top.offset + 1):
        raise Disconnect(*errors.INSUFFICIENT_STATE)
    latest = max(top.offset, held_back[-1].offset if held_back else 0)
    result.positioned = True
    result.recoverable = options.recoverable
    result.epoch = top.epoch
    result.recovered = recovery.recovered
    result.offset = request.offset if recovery.recovered else latest
    if recovery.recovered:
        missed = (*recovery.publications, *merged) if options.is_cache else merged
        owed = passing(missed, subscription.tags_filter)
        result.publications = _as_sent(subscription, owed[-1:] if options.is_cache else owed)
    return Established(subscription, result, StreamPosition(latest, top.epoch))


def _as_sent(subscription: Subscription, owed: Sequence[Publication]) -> list[Publication]:
    """
    Return recovered publications as the client is to get them; note what it has then.

    A client that recovers nothing keeps what it had, and yet its next publication is sent whole: it may have asked with a
    position of its own and have nothing, or have received something outside the stream since.
    """
    if not subscription.options.delta:
        return list(owed)
    client = subscription.client
    hub = client.node.hub
    try:
        chain, saved = as_chain(owed, hub.patches, is_json=client.wire.is_json)
    except InvalidPayloadError as error:
        raise Disconnect(*errors.INAPPROPRIATE_PROTOCOL) from error
    if chain:
        subscription.base = chain[-1].offset
    hub.count_patches(sum(each.delta for each in chain), saved)
    return chain


async def unsubscribe(client: Client, command: Command) -> Reply:
    """Unsubscribe from the client's side; it always succeeds."""
    assert command.unsubscribe is not None
    channel = command.unsubscribe.channel
    if not channel:
        raise Disconnect(*errors.BAD_REQUEST)
    subscription = client.session.subscriptions.get(channel)
    if subscription is not None:
        client.drop(subscription)
    return Reply(id=command.id, unsubscribe=UnsubscribeResult())


async def sub_refresh(client: Client, command: Command) -> Reply | None:
    """Take a new token for a subscription, or change which keys of a shared poll it tracks."""
    request = command.sub_refresh
    assert request is not None
    if not request.channel:
        raise Disconnect(*errors.BAD_REQUEST)
    subscription = client.session.subscriptions.get(request.channel)
    if subscription is None or not subscription.is_established:
        raise PermissionDeniedError
    if subscription.is_server_side:
        raise Disconnect(*errors.BAD_REQUEST)
    if request.type:
        return await polling.change_tracking(client, subscription, request, command)
    if not request.token:
        raise BadRequestError
    try:
        token = await verify_subscription(client, request.token, request.channel)
    except TokenExpiredError:
        raise
    except ClientError as error:
        raise Disconnect(*errors.INVALID_TOKEN) from error
    now = client.node.clock()
    if token.expire_at and token.expire_at < now:
        raise ExpiredError
    subscription.expire_at = token.expire_at
    if token.info:
        subscription.info = payload(token.info)
    result = SubRefreshResult()
    if token.expire_at:
        result.expires, result.ttl = True, ttl_of(token.expire_at, now)
    client.send(Reply(id=command.id, sub_refresh=result))
    if token.tags_filter is not None:
        _change_filter(subscription, both(token.tags_filter, subscription.own_filter))
    return None


def _change_filter(subscription: Subscription, tags_filter: TagsFilter | None) -> None:
    """Let a stream go on with another filter; a map's client needs other keys, and loads them anew."""
    client = subscription.client
    if not subscription.is_map:
        client.node.hub.change_filter(subscription, tags_filter)
    elif tags_filter is not subscription.tags_filter:
        client.unsubscribe(subscription, *errors.UNSUBSCRIBED_FILTER_CHANGED)


def ttl_of(expire_at: int, now: float) -> int:
    """Return the seconds left, at least 1 since SDKs want the key, at most a year."""
    return min(max(int(expire_at - now), 1), YEAR)


async def subscribe_server_side(
    client: Client,
    channel: str,
    options: GrantedOptions,
    source: SubscriptionSource,
    request: SubscribeRequest,
    *,
    info: Raw = EMPTY,
    data: Raw = EMPTY,
    expire_at: int = 0,
    tags_filter: TagsFilter | None = None,
) -> Established:
    """Reserve and establish a subscription that the client did not ask for itself; of a map it is told what changes."""
    subscription = _server_side(client, channel)
    subscription.options = options
    subscription.source = source
    subscription.info = info
    subscription.expire_at = expire_at
    subscription.tags_filter = tags_filter
    client.session.subscriptions[channel] = subscription
    try:
        return await establish(client, subscription, request, data=data)
    except BaseException:  # cancelled counts too: nothing may stay behind
        client.drop(subscription)
        raise


def _server_side(client: Client, name: str) -> Subscription:
    channel = client.node.table.resolve(name)
    if channel is not None and channel.options.is_map:
        return MapSubscription(name, client, channel.map_rules, is_server_side=True)
    return Subscription(name, client, is_server_side=True)
