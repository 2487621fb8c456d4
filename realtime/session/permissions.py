"""
May this client do this with this channel? Every decision, with its reasons.

Pure: a decision depends on the channel (one look-up in a ``NamespaceTable``) and on the few facts about the client that
are arguments. The order of the rules is observable and is Centrifugo's. A refusal is an exception, as the client gets it.

Each function takes a ``trace``: given a list, it appends a ``Step`` per rule in the order in which rules are tried, up to
the one that decides. That is all there is to the admin's explanation of a decision: it is made by the code that decides.

Namespaces whose decision lies with a proxy are refused with 108, as where that proxy is not configured.

Source: the subscribe, publish, history and presence algorithms of Centrifugo v6. Stricter on purpose: an anonymous
client is never the listed user of ``ns:#``, length is checked for shared-poll channels too, ``subs`` of a connect
request don't reach namespaces with a stream proxy or of another type than stream, a publish without a key is no way into a
map (it goes past its keys), and a namespace's data format holds for maps too.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Literal, NamedTuple, NoReturn

import msgspec
from msgspec import Raw

from realtime.namespaces.names import is_too_long
from realtime.namespaces.options import (
    SHARED_POLL_TYPE,
    STREAM_TYPE,
    ChannelOptions,
    MapOptions,
)
from realtime.namespaces.table import Channel, NamespaceTable
from realtime.protocol.errors import (
    BAD_REQUEST,
    AlreadySubscribedError,
    BadRequestError,
    ClientError,
    Disconnect,
    LimitExceededError,
    NotAvailableError,
    PermissionDeniedError,
    UnknownChannelError,
)


Outcome = Literal["pass", "grant", "refuse"]
FOSSIL = "fossil"
INSECURE_RULE = "client.insecure"
_MAX_TYPE = SHARED_POLL_TYPE
_PROXIES_COME_LATER = "that proxy can't be asked: proxies come with a later version"


class Step(NamedTuple):
    """
    One rule, tried.

    ``pass``: the rule lets the request go on to the next one, ``grant``: it is allowed by this rule, ``refuse``: it is
    refused by this rule. ``rule`` is a stable short name, ``text`` a sentence for an operator.
    """

    rule: str
    outcome: Outcome
    text: str


Trace = list[Step] | None


class SubscriptionSource(IntEnum):
    """By what right a subscription exists. 11 and 12 are taken by Centrifugo's commercial edition."""

    UNKNOWN = 0
    CONNECTION_TOKEN = 1
    CONNECT_PROXY = 2
    SUBSCRIPTION_TOKEN = 3
    SUBSCRIBE_PROXY = 4
    USER_LIMITED = 5
    CLIENT_ALLOWED = 6
    INSECURE = 7
    CONNECT_REQUEST = 8
    USER_PERSONAL = 9
    SERVER_API = 10
    STREAM_PROXY = 13


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
    the server acts as if the request had asked for recovery. ``delta`` is the negotiated type or empty.
    ``map_presence`` is ``None`` for most.
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


class Asked(NamedTuple):
    """Who asks for a subscription, and what the request would have beyond the namespace's options."""

    is_anonymous: bool
    is_insecure: bool
    positioned: bool
    recoverable: bool
    join_leave: bool
    delta: str
    is_server_side: bool


class _Access(NamedTuple):
    """The three flags that govern an operation, and the names of the two that grant."""

    client_rule: str
    subscriber_rule: str
    for_client: bool
    for_subscriber: bool
    for_anonymous: bool


def _refuse(trace: Trace, rule: str, error: ClientError | Disconnect, text: str) -> NoReturn:
    if trace is not None:
        trace.append(Step(rule, "refuse", text))
    raise error


# --- names --------------------------------------------------------------------------------------


def check_channel(table: NamespaceTable, name: str, trace: Trace = None) -> Channel:
    """
    Find the channel of a publish, history or presence command.

    Raises:
        Disconnect: 3501, the name is empty.
        UnknownChannelError: No such namespace.
        BadRequestError: The namespace's expression, or the ASCII rule where it has none, forbids the name.

    """
    channel = table.resolve(name)
    if trace is None and channel is not None and channel.is_valid and name:
        return channel  # what the steps below come to: a publish over a socket is spared 1 µs
    _check_not_empty(name, trace)
    return _check_name(_check_namespace(table, channel, trace), trace)


def _check_not_empty(name: str, trace: Trace) -> None:
    if not name:
        _refuse(trace, "channel", Disconnect(*BAD_REQUEST), "the channel's name is empty")
    if trace is not None:
        trace.append(Step("channel", "pass", "the channel has a name"))


def _check_namespace(table: NamespaceTable, channel: Channel | None, trace: Trace) -> Channel:
    if channel is None:
        known = ", ".join(sorted(table.namespaces)) or "none"
        _refuse(trace, "namespace", UnknownChannelError(), f"no such namespace; there are: {known}")
    if trace is not None:
        found = (
            f"the namespace is {channel.namespace}"
            if channel.namespace
            else "the channel has no namespace"
        )
        trace.append(Step("namespace", "pass", found))
    return channel


def _check_name(channel: Channel, trace: Trace) -> Channel:
    if not channel.is_valid:
        expression = channel.options.channel_regex
        reason = (
            f"{channel.rest!r} does not match channel_regex {expression!r}"
            if expression
            else "the name is not ASCII and the namespace has no channel_regex"
        )
        _refuse(trace, "name", BadRequestError(), reason)
    if trace is not None:
        matched = "matches channel_regex" if channel.options.channel_regex else "is ASCII"
        trace.append(Step("name", "pass", f"the name {matched}"))
    return channel


# --- subscribe ----------------------------------------------------------------------------------


def check_subscribe(
    table: NamespaceTable,
    channel: str,
    *,
    requested_type: int = STREAM_TYPE,
    has_token: bool = False,
    delta: str = "",
    is_subscribed: bool = False,
    is_limit_reached: bool = False,
    trace: Trace = None,
) -> Channel:
    """
    Find the channel of a subscribe command and check all that needs no credentials.

    The result has the type that was requested. If that isn't ``STREAM_TYPE``, the caller has to have an
    implementation of it, or to answer ``NotAvailableError``.

    Args:
        table: The configuration in force.
        channel: The name in the request.
        requested_type: ``SubscribeRequest.type``.
        has_token: Whether the request carries a subscription token, which is verified elsewhere.
        delta: ``SubscribeRequest.delta``.
        is_subscribed: The connection has the channel already, or a subscribe to it is in flight.
        is_limit_reached: The connection has, with those in flight, ``client.channel_limit`` channels.
        trace: Gets a step per rule.

    Raises:
        Disconnect: 3501, the name is empty or the delta type unknown.
        ClientError: 102, 103, 105, 106, 107 or 108.

    """
    found = table.resolve(channel)
    if (
        trace is None
        and found is not None
        and found.is_plain
        and requested_type == STREAM_TYPE
        and not (delta or is_subscribed or is_limit_reached)
    ):
        return found  # what the steps below come to, 5 µs sooner
    _check_not_empty(channel, trace)
    _check_shared_poll(table, found, requested_type, trace)
    _check_delta(delta, trace)
    _check_length(table, channel, trace)
    _check_room(trace, is_subscribed=is_subscribed, is_limit_reached=is_limit_reached)
    found = _check_name(_check_namespace(table, found, trace), trace)
    _check_type(found, requested_type, trace)
    _check_private(found, trace, has_token=has_token)
    return found


def _check_shared_poll(
    table: NamespaceTable, channel: Channel | None, requested_type: int, trace: Trace
) -> None:
    if not STREAM_TYPE <= requested_type <= _MAX_TYPE:
        _refuse(trace, "type", BadRequestError(), f"there is no subscription type {requested_type}")
    asks_for_poll = requested_type == SHARED_POLL_TYPE
    if channel is None:
        if asks_for_poll:
            _check_namespace(table, channel, trace)
        return  # refused after the length, as for any type
    is_poll = channel.options.type_number == SHARED_POLL_TYPE
    if asks_for_poll and not is_poll:
        text = "the client asks for a shared poll, which the namespace is not"
        _refuse(trace, "type", NotAvailableError(), text)
    if is_poll and not asks_for_poll:
        text = "the namespace is a shared poll, and the client asks for something else"
        _refuse(trace, "type", BadRequestError(), text)


def _check_delta(delta: str, trace: Trace) -> None:
    if delta and delta != FOSSIL:
        _refuse(trace, "delta", Disconnect(*BAD_REQUEST), f"unknown delta type {delta!r}")
    if trace is not None:
        trace.append(
            Step(
                "delta",
                "pass",
                f"the delta type {delta} is known" if delta else "no delta asked for",
            )
        )


def _check_length(table: NamespaceTable, name: str, trace: Trace) -> None:
    limit = table.rules.max_length
    if is_too_long(name, table.rules):
        _refuse(trace, "length", BadRequestError(), f"the name is longer than {limit} bytes")
    if trace is not None:
        text = f"the name has at most {limit} bytes" if limit > 0 else "names may have any length"
        trace.append(Step("length", "pass", text))


def _check_room(trace: Trace, *, is_subscribed: bool, is_limit_reached: bool) -> None:
    if is_subscribed:
        text = "the connection is subscribed already, or about to be"
        _refuse(trace, "duplicate", AlreadySubscribedError(), text)
    if trace is not None:
        trace.append(Step("duplicate", "pass", "the connection is not subscribed yet"))
    if is_limit_reached:
        text = "the connection has as many channels as client.channel_limit allows"
        _refuse(trace, "channel_limit", LimitExceededError(), text)
    if trace is not None:
        trace.append(Step("channel_limit", "pass", "the connection may have another channel"))


def _check_type(channel: Channel, requested_type: int, trace: Trace) -> None:
    kind = channel.options.subscription_type or "stream"
    if requested_type != channel.options.type_number:
        text = f"the client asks for type {requested_type}, the namespace is of type {kind}"
        _refuse(trace, "type", PermissionDeniedError(), text)
    if trace is not None:
        trace.append(Step("type", "pass", f"the client asks for the namespace's type, {kind}"))


def _check_private(channel: Channel, trace: Trace, *, has_token: bool) -> None:
    if channel.is_private and not has_token:
        text = "the channel is private, and the request has no token"
        _refuse(trace, "private", PermissionDeniedError(), text)
    if trace is not None:
        text = (
            "the channel is private, and the request has a token"
            if channel.is_private
            else "not private"
        )
        trace.append(Step("private", "pass", text))


def authorize_subscribe(
    channel: Channel, *, user: str, is_insecure: bool = False, trace: Trace = None
) -> SubscriptionSource:
    """
    Decide on a subscribe without a token (one with a token is decided by the token alone).

    Returns:
        The rule that granted it: ``USER_LIMITED``, ``CLIENT_ALLOWED`` or ``INSECURE``.

    Raises:
        NotAvailableError: The decision lies with a proxy.
        PermissionDeniedError: No rule grants it.

    """
    if channel.is_user_limited:
        if channel.is_for_user(user):
            if trace is not None:
                trace.append(Step("user_limited", "grant", f"the channel's name lists {user!r}"))
            return SubscriptionSource.USER_LIMITED
        if trace is not None:
            who = f"{user!r} is not listed" if user else "the client is anonymous"
            text = (
                f"the channel is for the users in its name, and {who}: only client.insecure helps"
            )
            trace.append(Step("user_limited", "pass", text))
    else:
        if trace is not None:
            trace.append(Step("user_limited", "pass", "the channel is not user-limited"))
        _check_subscribe_proxies(channel.options, trace)
        options = channel.options
        anonymous = (
            ""
            if user or options.allow_subscribe_for_anonymous
            else "on, but not for anonymous clients"
        )
        obstacle = anonymous if options.allow_subscribe_for_client else "off"
        if _grants(trace, "allow_subscribe_for_client", obstacle):
            return SubscriptionSource.CLIENT_ALLOWED
    if _grants(trace, INSECURE_RULE, "" if is_insecure else "off"):
        return SubscriptionSource.INSECURE
    _refuse(trace, "denied", PermissionDeniedError(), "no rule grants it")


def _check_subscribe_proxies(options: ChannelOptions, trace: Trace) -> None:
    if options.subscribe_proxy_enabled:
        text = f"subscribe_proxy_enabled is on; {_PROXIES_COME_LATER}"
        _refuse(trace, "subscribe_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step("subscribe_proxy", "pass", "subscribe_proxy_enabled is off"))
    if options.subscribe_stream_proxy_enabled:
        text = f"subscribe_stream_proxy_enabled is on; {_PROXIES_COME_LATER}"
        _refuse(trace, "subscribe_stream_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(
            Step("subscribe_stream_proxy", "pass", "subscribe_stream_proxy_enabled is off")
        )


def may_connect_sub(
    channel: Channel, user: str, is_insecure: bool = False, trace: Trace = None
) -> bool:
    """
    Decide on one entry of a connect request's ``subs``; one that is refused is left out in silence.

    The rules are those of a subscribe without a token, but a namespace with a subscribe or stream proxy, or
    of another type than stream, is left out whatever its other options say.
    """
    options = channel.options
    try:
        _check_private(channel, trace, has_token=False)
        _check_subscribe_proxies(options, trace)
        _check_name(channel, trace)
        _check_type(channel, STREAM_TYPE, trace)
        authorize_subscribe(channel, user=user, is_insecure=is_insecure, trace=trace)
    except ClientError:
        return False
    return True


# --- publish, history, presence -----------------------------------------------------------------


def authorize_publish(
    channel: Channel,
    *,
    data: bytes | Raw,
    user: str,
    is_subscribed: bool,
    is_insecure: bool = False,
    trace: Trace = None,
) -> None:
    """
    Decide on a client's publish; ``channel`` comes from ``check_channel``.

    A server-side subscription counts as subscribed.

    Raises:
        BadRequestError: ``data`` is not of the channel's format; this is checked before permissions.
        NotAvailableError: The decision lies with a proxy.
        PermissionDeniedError: No rule grants it.

    """
    options = channel.options
    _check_payload(channel.data_format, data, trace)
    # As for ``grant_options``: a namespace's answer is the same for all who are alike.
    alike = ("publish", not user, is_subscribed, is_insecure)
    if trace is None and alike in channel.granted:
        return
    if options.is_map:
        text = "the channel is a map: what is published to it needs a key"
        _refuse(trace, "type", BadRequestError(), text)
    if options.publish_proxy_enabled:
        text = f"publish_proxy_enabled is on; {_PROXIES_COME_LATER}"
        _refuse(trace, "publish_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step("publish_proxy", "pass", "publish_proxy_enabled is off"))
    if options.subscribe_stream_proxy_enabled:
        text = f"subscribe_stream_proxy_enabled is on; {_PROXIES_COME_LATER}"
        _refuse(trace, "subscribe_stream_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(
            Step("subscribe_stream_proxy", "pass", "subscribe_stream_proxy_enabled is off")
        )
    access = _Access(
        "allow_publish_for_client",
        "allow_publish_for_subscriber",
        options.allow_publish_for_client,
        options.allow_publish_for_subscriber,
        options.allow_publish_for_anonymous,
    )
    _authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)
    channel.granted[alike] = None


def authorize_map_write(
    channel: Channel,
    *,
    data: bytes | Raw,
    user: str,
    is_removal: bool,
    is_subscribed: bool,
    is_insecure: bool = False,
    trace: Trace = None,
) -> None:
    """
    Decide on a client's write or removal of a map's key; which key, ``map_key`` says.

    Raises:
        BadRequestError: The channel is no map, or ``data`` is not of its format; this is checked before permissions.
        NotAvailableError: The decision lies with a proxy.
        PermissionDeniedError: No rule grants it.

    """
    maps = channel.options.map
    if not channel.options.is_map:
        _refuse(trace, "type", BadRequestError(), "the channel is not a map")
    if trace is not None:
        trace.append(Step("type", "pass", "the channel is a map"))
    # Where there is no format a key may stand for itself, without data.
    if not is_removal and channel.data_format:
        _check_payload(channel.data_format, data, trace)
    verb = "remove" if is_removal else "publish"
    proxy = f"map.{verb}_proxy_enabled"
    if maps.remove_proxy_enabled if is_removal else maps.publish_proxy_enabled:
        text = f"{proxy} is on; {_PROXIES_COME_LATER}"
        _refuse(trace, f"map.{verb}_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step(f"map.{verb}_proxy", "pass", f"{proxy} is off"))
    access = _map_access(maps, verb, is_removal=is_removal)
    _authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)


def _map_access(maps: MapOptions, verb: str, *, is_removal: bool) -> _Access:
    flags = (
        (
            maps.allow_remove_for_client,
            maps.allow_remove_for_subscriber,
            maps.allow_remove_for_anonymous,
        )
        if is_removal
        else (
            maps.allow_publish_for_client,
            maps.allow_publish_for_subscriber,
            maps.allow_publish_for_anonymous,
        )
    )
    return _Access(f"map.allow_{verb}_for_client", f"map.allow_{verb}_for_subscriber", *flags)


def map_key(channel: Channel, *, asked: str, client_id: str, user: str, trace: Trace = None) -> str:
    """
    Return the key that a client's write is for: its own choice, or the one that the namespace sets.

    Raises:
        PermissionDeniedError: It is to be the user's, and the client is anonymous.
        BadRequestError: It is empty.

    """
    rule = channel.options.map.client_key
    if rule == "user_id" and not user:
        text = "the key is the user's id, and the client is anonymous"
        _refuse(trace, "map.client_key", PermissionDeniedError(), text)
    key = {"client_id": client_id, "user_id": user}.get(rule, asked)
    if not key:
        _refuse(trace, "map.client_key", BadRequestError(), "the key is empty")
    if trace is not None:
        whose = {"client_id": "the connection's id", "user_id": "the user's id"}
        text = f"the key is {whose.get(rule, 'the one in the request')}"
        trace.append(Step("map.client_key", "grant", text))
    return key


def authorize_history(
    channel: Channel,
    *,
    user: str,
    is_subscribed: bool,
    is_insecure: bool = False,
    trace: Trace = None,
) -> None:
    """
    Decide on a client's history call.

    Raises:
        NotAvailableError: The channel keeps no history; this is checked before permissions.
        PermissionDeniedError: No rule grants it.

    """
    if not channel.has_history:
        text = "history is off: history_size and history_ttl must both be positive"
        _refuse(trace, "history", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step("history", "pass", "the channel keeps history"))
    access = _history_access(channel.options)
    _authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)


def authorize_presence(
    channel: Channel,
    *,
    user: str,
    is_subscribed: bool,
    is_insecure: bool = False,
    trace: Trace = None,
) -> None:
    """
    Decide on a client's presence or presence stats call.

    Raises:
        NotAvailableError: The channel has no presence; this is checked before permissions.
        PermissionDeniedError: No rule grants it.

    """
    if not channel.options.presence:
        _refuse(trace, "presence", NotAvailableError(), "presence is off")
    if trace is not None:
        trace.append(Step("presence", "pass", "presence is on"))
    access = _presence_access(channel.options)
    _authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)


def _history_access(options: ChannelOptions) -> _Access:
    return _Access(
        "allow_history_for_client",
        "allow_history_for_subscriber",
        options.allow_history_for_client,
        options.allow_history_for_subscriber,
        options.allow_history_for_anonymous,
    )


def _presence_access(options: ChannelOptions) -> _Access:
    return _Access(
        "allow_presence_for_client",
        "allow_presence_for_subscriber",
        options.allow_presence_for_client,
        options.allow_presence_for_subscriber,
        options.allow_presence_for_anonymous,
    )


def _authorize(
    access: _Access, trace: Trace, *, user: str, is_subscribed: bool, is_insecure: bool
) -> None:
    if not _has_access(
        access, trace, is_anonymous=not user, is_subscribed=is_subscribed, is_insecure=is_insecure
    ):
        _refuse(trace, "denied", PermissionDeniedError(), "no rule grants it")


def _has_access(
    access: _Access, trace: Trace, *, is_anonymous: bool, is_subscribed: bool, is_insecure: bool
) -> bool:
    """Try the rules that may grant, each by what stands in its way."""
    anonymous = (
        "" if not is_anonymous or access.for_anonymous else "on, but not for anonymous clients"
    )
    not_subscribed = "" if is_subscribed else "on, but the client is not subscribed"
    return (
        _grants(trace, access.client_rule, anonymous if access.for_client else "off")
        or _grants(
            trace,
            access.subscriber_rule,
            not_subscribed or anonymous if access.for_subscriber else "off",
        )
        or _grants(trace, INSECURE_RULE, "" if is_insecure else "off")
    )


def _grants(trace: Trace, rule: str, obstacle: str) -> bool:
    """Try one rule that may grant; ``obstacle`` says why it doesn't."""
    if trace is not None:
        trace.append(Step(rule, "pass", obstacle) if obstacle else Step(rule, "grant", "on"))
    return not obstacle


# --- payloads -----------------------------------------------------------------------------------


# What Go's JSON accepts and the fast decoder does not: escapes of half a surrogate pair. Any other escape
# of the same length in their place leaves the syntax as it was.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_json = msgspec.json.Decoder(Raw)


def check_data_format(data_format: str, data: bytes | Raw) -> None:
    """
    Check a payload against ``publication_data_format``; ``data`` is what the client sent, unchanged.

    ``""`` takes anything but nothing, ``json`` any JSON value, ``json_object`` a JSON object, ``binary`` anything.

    Raises:
        BadRequestError: The payload isn't of that format.

    """
    _check_payload(data_format, data, None)


def _check_payload(data_format: str, data: bytes | Raw, trace: Trace) -> None:
    obstacle = _payload_obstacle(data_format, data)
    if obstacle:
        _refuse(trace, "data_format", BadRequestError(), obstacle)
    if trace is not None:
        trace.append(Step("data_format", "pass", f"the data is {data_format or 'not empty'}"))


def _payload_obstacle(data_format: str, data: bytes | Raw) -> str:
    if data_format == "binary":
        return ""
    if not data:
        return "the data is empty"
    if not data_format:
        return ""
    payload = bytes(data)
    if not _is_json(payload):
        return "the data is not JSON"
    if data_format == "json_object" and payload.lstrip(b" \t\r\n")[:1] != b"{":
        return "the data is not a JSON object"
    return ""


def _is_json(text: bytes) -> bool:
    """Check syntax only; what is nested deeper than the decoder goes (some 1,000 levels) is refused."""
    try:
        _json.decode(text)
    except RecursionError:
        return False
    except msgspec.MsgspecError:
        mended, count = _SURROGATE_ESCAPE.subn(rb"\\u0000", text)
        if not count:
            return False
    else:
        return True
    try:
        _json.decode(mended)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


# --- what a subscription gets -------------------------------------------------------------------


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
        trace: Gets a step per option that was asked for or is forced.

    """
    asked = Asked(not user, is_insecure, positioned, recoverable, join_leave, delta, is_server_side)
    if trace is not None or override is not None:
        return _work_out(channel, asked, override or NO_OVERRIDE, trace)
    # The namespace's options are immutable, and its subscribers ask for one of a few combinations: what was worked out
    # for one serves all, which saves 4 µs and 100 bytes per subscription.
    granted = channel.granted.get(asked)
    if granted is None:
        granted = channel.granted[asked] = _work_out(channel, asked, NO_OVERRIDE, None)
    return granted


def _work_out(channel: Channel, asked: Asked, over: Override, trace: Trace) -> GrantedOptions:
    is_anonymous, is_insecure, positioned, recoverable, join_leave, delta, is_server_side = asked
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
            or _may_as_subscriber(_history_access(options), is_anonymous, is_insecure),
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
            or _may_as_subscriber(_history_access(options), is_anonymous, is_insecure),
        )
    )
    push_join_leave = _is_granted(
        trace,
        "join_leave_push",
        is_forced=_value(over.force_push_join_leave, options.force_push_join_leave),
        is_asked=may_ask and join_leave,
        is_allowed=emit_join_leave
        and _may_as_subscriber(_presence_access(options), is_anonymous, is_insecure),
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
    )


def _map_presence(options: ChannelOptions) -> MapPresence | None:
    presence = MapPresence(
        options.map_clients_presence_channel_prefix,
        options.map_users_presence_channel_prefix,
        options.is_map and options.map.remove_client_on_unsubscribe,
    )
    return None if presence == _NO_MAP_PRESENCE else presence


_NO_MAP_PRESENCE = MapPresence("", "", removes_own_key=False)


def _value(override: bool | None, base: bool) -> bool:
    return base if override is None else override


def _may_as_subscriber(access: _Access, is_anonymous: bool, is_insecure: bool) -> bool:
    return _has_access(
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
