"""
Subscribe to a map: its state page by page, what changed meanwhile, then live.

Each request runs to its end before the connection's next one begins, so a load is never in two hands, and nothing here
answers 113. The last step keeps the order that makes it exact: hold live changes back, read what the stream has
after the client's position, join the two, write the reply, go live. A map without a stream can't be read after a position:
there changes are held back from before the first page.

Where we differ from the reference on purpose: the last reply has ``positioned``, ``expires``, ``ttl`` and ``data`` (an
expiring token would otherwise give the client no time, and lose its data), a stream that has nothing left of what is
missing is told (112), and so is a recovery of a map that can't be recovered.

Source: ``streams-and-state`` 12.10.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from realtime.client.subscribing import Established, authorize, check_request, ttl_of
from realtime.engines.base import HistoryFilter
from realtime.engines.maps import MapBroker, MapEntry, MapStream, StateFilter
from realtime.namespaces.options import map_paging
from realtime.protocol import errors
from realtime.protocol.delta import as_document, as_keyed_chains
from realtime.protocol.errors import (
    Disconnect,
    PermissionDeniedError,
    UnrecoverablePositionError,
)
from realtime.protocol.json_codec import InvalidPayloadError, check_payload
from realtime.protocol.messages import (
    Command,
    Publication,
    Reply,
    StreamPosition,
    SubscribeRequest,
    SubscribeResult,
)
from realtime.session.map_loading import (
    MAP_RESULT_TYPE,
    MapLoad,
    Phase,
    check_epoch,
    continues,
    first_step,
    follow,
    is_near,
    next_step,
    visible,
)
from realtime.session.recovery import merge_publications, passing
from realtime.session.subscription import MapSubscription


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.namespaces.table import Channel

logger = logging.getLogger(__name__)

Outcome = SubscribeResult | Established
"""A page of a load, or its end."""


async def subscribe(client: Client, command: Command) -> Reply | None:
    """Carry out one step of a map subscription; whatever refuses it ends the load."""
    request = command.subscribe
    assert request is not None
    _forget_abandoned(client, request.channel)
    subscription, channel = _loading(client, request), None
    if subscription is None:
        channel = _check(client, request)
        subscription = _reserve(client, channel)
    try:
        if channel is not None:
            await _begin(subscription, channel, request)
        _check_rules(subscription)
        step = next_step(request, has_stream=subscription.rules.has_stream)
        outcome = await _STEPS[step](subscription, request)
    except BaseException:  # cancelled counts too: nothing may stay behind
        client.drop(subscription)
        raise
    if isinstance(outcome, SubscribeResult):
        return Reply(id=command.id, subscribe=outcome)
    subscription.load = None
    client.send(Reply(id=command.id, subscribe=outcome.result))
    outcome.begin()
    return None


def _forget_abandoned(client: Client, channel: str) -> None:
    """Drop the loads of other channels that took too long: nobody goes on with them."""
    now = client.node.clock()
    for subscription in tuple(client.session.subscriptions.values()):
        if (
            isinstance(subscription, MapSubscription)
            and subscription.load is not None
            and subscription.channel != channel
            and subscription.load.is_late(now)
        ):
            client.drop(subscription)


def hold_no_longer(subscription: MapSubscription, now: float) -> None:
    """Hold nothing back any more for a load that took too long; it is remembered, so that its client is told."""
    if subscription.load is not None and subscription.load.is_late(now):
        subscription.client.node.leave(subscription)


def _loading(client: Client, request: SubscribeRequest) -> MapSubscription | None:
    """
    Return the subscription whose load a request goes on with, if it does.

    Raises:
        Disconnect: 3008, it took too long.

    """
    found = client.session.subscriptions.get(request.channel)
    if not isinstance(found, MapSubscription) or found.load is None:
        return None
    goes_on = continues(request, is_loading=True)
    if found.load.is_late(client.node.clock()):
        client.drop(found)
        if goes_on:
            facts = {"client": client.session.client_id, "channel": request.channel}
            logger.info("a map was not loaded in time", extra=facts)
            raise Disconnect(*errors.SLOW)
        return None
    return found if goes_on else None


def _check(client: Client, request: SubscribeRequest) -> Channel:
    channel = check_request(client, request)
    if request.cursor:
        raise PermissionDeniedError  # there is no load to go on with
    return channel


def _reserve(client: Client, channel: Channel) -> MapSubscription:
    subscription = MapSubscription(channel.name, client, channel.map_rules)
    subscription.load = MapLoad(client.node.clock(), map_paging(channel.options.map))
    client.session.subscriptions[channel.name] = subscription
    return subscription


async def _begin(
    subscription: MapSubscription, channel: Channel, request: SubscribeRequest
) -> None:
    """Authorize a load: what is granted now holds for all its steps."""
    load = subscription.load
    assert load is not None
    load.data = await authorize(subscription.client, subscription, channel, request)
    step = first_step(request, has_stream=subscription.rules.has_stream)
    if step is not Phase.STATE:
        load.recovers_from = StreamPosition(request.offset, request.epoch)
        if request.recover and not subscription.rules.has_stream:
            raise UnrecoverablePositionError


def _check_rules(subscription: MapSubscription) -> None:
    """Have a load begin anew where the namespace keeps its maps otherwise now: a store takes over what it is told."""
    known = subscription.client.node.table.resolve(subscription.channel)
    if known is None or not known.options.is_map or known.map_rules != subscription.rules:
        raise UnrecoverablePositionError


# --- the steps ----------------------------------------------------------------------------------------


async def _state(subscription: MapSubscription, request: SubscribeRequest) -> Outcome:
    """Give a page of keys, the last one together with what changed meanwhile if that isn't much."""
    maps, load, rules = subscription.client.node.maps, subscription.load, subscription.rules
    assert load is not None
    if load.start is None and not rules.has_stream:
        await subscription.client.node.join(subscription)
    size = load.paging.size(request.limit)
    what = StateFilter(limit=size, cursor=request.cursor)
    page = await maps.read_state(subscription.channel, rules, what)
    if load.start is None:
        load.start = page.top
    if request.epoch:
        check_epoch(request.epoch, load.start.epoch)
    check_epoch(load.start.epoch, page.top.epoch)
    state = passing(visible(_changes(page.entries), load.start), subscription.tags_filter)
    is_last = not page.cursor
    if is_last and (not rules.has_stream or is_near(load.start.offset, size, page.top.offset)):
        return await _go_live(subscription, load, request, load.start, state)
    return SubscribeResult(
        type=MAP_RESULT_TYPE,
        phase=Phase.STATE,
        cursor=page.cursor,
        epoch=load.start.epoch,
        offset=load.start.offset,
        state=_documents(subscription, state),
    )


async def _stream(subscription: MapSubscription, request: SubscribeRequest) -> Outcome:
    """Give a page of changes, or go live where the client is near enough."""
    load = subscription.load
    assert load is not None
    since = _position(load, request)
    if load.goal is None:
        load.goal = (await _read_stream(subscription, HistoryFilter(limit=0))).top.offset
    size = load.paging.size(request.limit)
    if is_near(since.offset, size, load.goal):
        return await _go_live(subscription, load, request, since)
    read = await _read_stream(subscription, HistoryFilter(limit=size, since=since))
    changes = follow(_changes(read.entries), read.translated(since), read.top)
    return SubscribeResult(
        type=MAP_RESULT_TYPE,
        phase=Phase.STREAM,
        epoch=read.top.epoch,
        offset=changes[-1].offset if changes else since.offset,
        publications=_documents(subscription, passing(changes, subscription.tags_filter)),
    )


async def _live(subscription: MapSubscription, request: SubscribeRequest) -> Outcome:
    """Go live from the client's position, wherever it got that."""
    load = subscription.load
    assert load is not None
    return await _go_live(subscription, load, request, _position(load, request))


_STEPS: Mapping[Phase, Callable[[MapSubscription, SubscribeRequest], Awaitable[Outcome]]] = {
    Phase.STATE: _state,
    Phase.STREAM: _stream,
    Phase.LIVE: _live,
}


def _position(load: MapLoad, request: SubscribeRequest) -> StreamPosition:
    """Return where the client is; its load must be in the same epoch."""
    start = load.start or load.recovers_from
    if start is not None:
        check_epoch(start.epoch, request.epoch)
    return StreamPosition(request.offset, request.epoch)


async def _read_stream(subscription: MapSubscription, what: HistoryFilter) -> MapStream:
    maps: MapBroker = subscription.client.node.maps
    return await maps.read_stream(subscription.channel, subscription.rules, what)


def _changes(entries: Sequence[MapEntry]) -> list[Publication]:
    return [entry.publication for entry in entries]


# --- going live ---------------------------------------------------------------------------------------


async def _go_live(
    subscription: MapSubscription,
    load: MapLoad,
    request: SubscribeRequest,
    since: StreamPosition,
    state: Sequence[Publication] = (),
) -> Established:
    """
    Join the channel and work out what the client is told.

    Raises:
        UnrecoverablePositionError: The stream can't be followed from ``since``, or only over too much.
        Disconnect: 3010, changes are missing between what was read and what came.

    """
    client, options = subscription.client, subscription.options
    node, channel = client.node, subscription.channel
    if subscription.buffer is None:
        await node.join(subscription)
    if options.presence:
        await node.presence.add(
            channel, client.session.client_id, client.session.client_info(channel)
        )
    position = None
    if subscription.rules.has_stream:
        changes, position = await _catch_up(subscription, since, load.paging.live_limit)
    else:
        changes = [delivery.publication for delivery in subscription.buffer or ()]
        subscription.buffer = subscription.empty_buffer()
    subscription.base = 0 if load.recovers_from is None else load.recovers_from.offset
    result = SubscribeResult(
        type=MAP_RESULT_TYPE,
        recoverable=options.recoverable,
        epoch=position.epoch if position is not None else "",
        offset=position.offset if position is not None else 0,
        state=_documents(subscription, state),
        publications=_owed(subscription, passing(changes, subscription.tags_filter)),
        was_recovering=request.recover,
        recovered=request.recover,
        delta=bool(options.delta),
        data=load.data,
    )
    if subscription.expire_at:
        result.expires, result.ttl = True, ttl_of(subscription.expire_at, node.clock())
    return Established(subscription, result, position)


async def _catch_up(
    subscription: MapSubscription, since: StreamPosition, limit: int
) -> tuple[Sequence[Publication], StreamPosition]:
    """Return what changed after ``since``, from the stream and from what was held back, and where that ends."""
    read = await _read_stream(subscription, HistoryFilter(limit=limit + 1, since=since))
    top = read.top
    changes = follow(_changes(read.entries), read.translated(since), top)
    if len(changes) > limit:
        raise UnrecoverablePositionError
    held_back = tuple(subscription.buffer or ())
    if any(delivery.position.epoch != top.epoch for delivery in held_back):
        raise Disconnect(*errors.INSUFFICIENT_STATE)
    newer = [each.publication for each in held_back if each.position.offset > top.offset]
    merged = merge_publications(changes, newer)
    if merged is None or (newer and newer[0].offset != top.offset + 1):
        raise Disconnect(*errors.INSUFFICIENT_STATE)
    return merged, StreamPosition(merged[-1].offset if merged else top.offset, top.epoch)


def _documents(
    subscription: MapSubscription, publications: Sequence[Publication]
) -> list[Publication]:
    """Return publications as the client is to get them, each whole."""
    is_json = subscription.client.wire.is_json
    try:
        if subscription.options.delta:
            return [as_document(each, is_json=is_json) for each in publications]
        if is_json:
            for each in publications:
                if each.data:
                    check_payload(each.data)
    except InvalidPayloadError as error:
        raise Disconnect(*errors.INAPPROPRIATE_PROTOCOL) from error
    return list(publications)


def _owed(subscription: MapSubscription, publications: Sequence[Publication]) -> list[Publication]:
    """Return what changed as the client is to get it; the first of each key is whole."""
    if not subscription.options.delta or not subscription.is_positioned:
        return _documents(subscription, publications)
    hub, is_json = subscription.client.node.hub, subscription.client.wire.is_json
    try:
        chains, saved = as_keyed_chains(publications, hub.patches, is_json=is_json)
    except InvalidPayloadError as error:
        raise Disconnect(*errors.INAPPROPRIATE_PROTOCOL) from error
    hub.count_patches(sum(each.delta for each in chains), saved)
    return chains
