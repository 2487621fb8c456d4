"""
What a subscription that was authorized gets: the namespace's options, an override, and what the request may add.

Source: the subscribe algorithm of Centrifugo v6. Every step of it is open to a ``trace``, see ``rules``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from realtime.namespaces.options import STREAM_TYPE, ChannelOptions
from realtime.namespaces.table import Channel
from realtime.session.manner import Batching, Manner
from realtime.session.rules import (
    Access,
    Step,
    Trace,
    has_access,
    history_access,
    presence_access,
)


_LONGEST_TIMER = 2**31 - 1  # milliseconds; JavaScript's timers take no more


class Override(msgspec.Struct, frozen=True, gc=False):
    """What a token, a proxy or the server API sets for one subscription; ``None`` leaves the namespace's value."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None


NO_OVERRIDE = Override()


class MapPresence(msgspec.Struct, frozen=True, gc=False):
    """
    What of a subscription is put down in maps.

    ``clients_prefix`` and ``users_prefix`` stand before the channel's name and make the map's, empty for none.
    ``removes_own_key``: the channel is a map, and the key that is the client's id goes with its subscription.
    """

    clients_prefix: str
    users_prefix: str
    removes_own_key: bool


class GrantedOptions(msgspec.Struct, frozen=True, gc=False):
    """
    How one subscription works; captured at subscribe time, later edits of the namespace don't change it.

    ``recoverable`` implies ``positioned``. ``is_cache`` is the recovery mode (otherwise stream), ``auto_recover`` says that
    the server acts as if the request had asked for recovery. ``delta`` is the negotiated type or empty; with ``keep_latest``
    its base is the publication that this node delivered last. ``publish_debounce`` is in milliseconds. ``map_presence`` and
    ``manner`` are ``None`` for most: who is there is told to no map, and pushes are written as usual.
    """

    positioned: bool
    recoverable: bool
    is_cache: bool
    auto_recover: bool
    presence: bool
    emit_join_leave: bool
    push_join_leave: bool
    delta: str
    history_meta_ttl: float
    map_presence: MapPresence | None = None
    keep_latest: bool = False
    publish_debounce: int = 0
    manner: Manner | None = None


class Asked(NamedTuple):
    """Who asks for a subscription, and what the request would have beyond the namespace's options."""

    is_anonymous: bool
    is_insecure: bool
    positioned: bool
    recoverable: bool
    join_leave: bool
    delta: str
    is_server_side: bool
    compact: bool = False


def grant_options(
    channel: Channel,
    *,
    user: str,
    is_insecure: bool = False,
    positioned: bool = False,
    recoverable: bool = False,
    join_leave: bool = False,
    delta: str = "",
    override: Override | None = None,
    is_server_side: bool = False,
    compact: bool = False,
    trace: Trace = None,
) -> GrantedOptions:
    """
    Work out how a subscription that was authorized will work.

    The base is the namespace, with ``override`` on top of it. A client's own request may add positioning, recovery
    and join/leave pushes where the namespace or the client's access to history or presence permits (it counts
    as subscribed); what isn't permitted is left out, which is never an error. For a server-side
    subscription (and one that a proxy granted) pass ``is_server_side``: its request can add nothing.

    Args:
        channel: From ``check_subscribe`` or the table.
        user: The connection's user, empty for an anonymous one.
        is_insecure: ``client.insecure``.
        positioned: ``SubscribeRequest.positioned``.
        recoverable: ``SubscribeRequest.recoverable``.
        join_leave: ``SubscribeRequest.join_leave``.
        delta: ``SubscribeRequest.delta``; pass none where the request has a tags filter, since filtered
            publications can't be bases.
        override: From the token, proxy or API call.
        is_server_side: Leave the three request flags out.
        compact: The client can take a number for the channel's name.
        trace: Gets a step per option that was asked for or is forced.

    """
    asked = Asked(
        not user, is_insecure, positioned, recoverable, join_leave, delta, is_server_side, compact
    )
    if trace is not None or override is not None:
        return _work_out(channel, asked, override or NO_OVERRIDE, trace)
    # The namespace's options are immutable, and its subscribers ask for one of a few combinations: what was worked out
    # for one serves all, which saves 4 µs and 100 bytes per subscription.
    granted = channel.granted.get(asked)
    if granted is None:
        granted = channel.granted[asked] = _work_out(channel, asked, NO_OVERRIDE, None)
    return granted


def _work_out(channel: Channel, asked: Asked, over: Override, trace: Trace) -> GrantedOptions:
    (
        is_anonymous,
        is_insecure,
        positioned,
        recoverable,
        join_leave,
        delta,
        is_server_side,
        compact,
    ) = asked
    options = channel.options
    may_ask = not is_server_side
    is_stream = options.type_number == STREAM_TYPE  # a poll has no positions
    emit_join_leave = _value(over.join_leave, options.join_leave)
    # A map's mode decides, and only who loads it has a position.
    is_followed = options.is_map and channel.map_rules.has_stream and not is_server_side
    is_recoverable = is_followed or (
        is_stream
        and _is_granted(
            trace,
            "recovery",
            is_forced=_value(over.force_recovery, options.force_recovery),
            is_asked=may_ask and recoverable,
            is_allowed=options.allow_recovery
            or _may_as_subscriber(history_access(options), is_anonymous, is_insecure),
        )
    )
    is_positioned = is_followed or (
        is_stream
        and _is_granted(
            trace,
            "positioning",
            is_forced=is_recoverable or _value(over.force_positioning, options.force_positioning),
            is_asked=may_ask and positioned,
            is_allowed=options.allow_positioning
            or _may_as_subscriber(history_access(options), is_anonymous, is_insecure),
        )
    )
    push_join_leave = _is_granted(
        trace,
        "join_leave_push",
        is_forced=_value(over.force_push_join_leave, options.force_push_join_leave),
        is_asked=may_ask and join_leave,
        is_allowed=emit_join_leave
        and _may_as_subscriber(presence_access(options), is_anonymous, is_insecure),
    )
    is_delta = _is_granted(
        trace,
        "delta",
        is_forced=False,
        is_asked=bool(delta),
        is_allowed=delta in options.allowed_delta_types,
    )
    is_cache = is_stream and options.force_recovery_mode == "cache"
    return GrantedOptions(
        positioned=is_positioned,
        recoverable=is_recoverable,
        is_cache=is_cache,
        auto_recover=options.auto_cache_recover and is_recoverable and is_cache,
        presence=_value(over.presence, options.presence),
        emit_join_leave=emit_join_leave,
        push_join_leave=push_join_leave,
        delta=delta if is_delta else "",
        history_meta_ttl=channel.history_meta_ttl,
        map_presence=_map_presence(options),
        keep_latest=is_delta
        and is_stream
        and options.keep_latest_publication
        and not is_positioned,
        publish_debounce=min(
            math.ceil(options.client_publish_debounce_interval * 1000), _LONGEST_TIMER
        ),
        # An SDK looks numbers up among the subscriptions that it asked for itself.
        manner=_manner(
            options,
            has_number=compact and may_ask and options.allow_channel_compaction,
            has_joins=push_join_leave,
        ),
    )


def _map_presence(options: ChannelOptions) -> MapPresence | None:
    presence = MapPresence(
        options.map_clients_presence_channel_prefix,
        options.map_users_presence_channel_prefix,
        options.is_map and options.map.remove_client_on_unsubscribe,
    )
    return None if presence == _NO_MAP_PRESENCE else presence


_NO_MAP_PRESENCE = MapPresence("", "", removes_own_key=False)


def _manner(options: ChannelOptions, *, has_number: bool, has_joins: bool) -> Manner | None:
    if not options.has_batches:
        return Manner(has_number=True) if has_number else None
    batching = Batching(options.batch_max_size, options.batch_max_delay, options.batch_flush_latest)
    return Manner(has_number, has_joins, batching)


def _value(override: bool | None, base: bool) -> bool:
    return base if override is None else override


def _may_as_subscriber(access: Access, is_anonymous: bool, is_insecure: bool) -> bool:
    return has_access(
        access, None, is_anonymous=is_anonymous, is_subscribed=True, is_insecure=is_insecure
    )


def _is_granted(
    trace: Trace, rule: str, *, is_forced: bool, is_asked: bool, is_allowed: bool
) -> bool:
    is_granted = is_forced or (is_asked and is_allowed)
    if trace is not None and (is_forced or is_asked):
        why = (
            "forced"
            if is_forced
            else "asked for, and permitted"
            if is_allowed
            else "asked for, but not permitted"
        )
        trace.append(Step(rule, "grant" if is_granted else "pass", why))
    return is_granted
