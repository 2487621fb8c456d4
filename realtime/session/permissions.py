"""
May this client do this with this channel? Every decision, with its reasons.

Pure: a decision depends on the channel (one look-up in a ``NamespaceTable``) and on the few facts about the client that
are arguments. The order of the rules is observable and is Centrifugo's. A refusal is an exception, as the client gets it.

Each function takes a ``trace``, see ``rules``. What a subscription gets is the matter of ``grants``, maps are written by
``map_writes``.

Namespaces whose decision lies with a proxy are refused with 108, as where that proxy is not configured.

Source: the subscribe, publish, history and presence algorithms of Centrifugo v6. Stricter on purpose: an anonymous
client is never the listed user of ``ns:#``, length is checked for shared-poll channels too, ``subs`` of a connect
request don't reach namespaces with a stream proxy or of another type than stream, and a publish without a key is no way
into a map (it goes past its keys).
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Raw

from realtime.namespaces.names import is_too_long
from realtime.namespaces.options import SHARED_POLL_TYPE, STREAM_TYPE, ChannelOptions
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
from realtime.session.payloads import check_data_format
from realtime.session.rules import (
    INSECURE_RULE,
    PROXIES_COME_LATER,
    Access,
    Step,
    Trace,
    authorize,
    does_grant,
    history_access,
    presence_access,
    refuse,
)


FOSSIL = "fossil"
_MAX_TYPE = SHARED_POLL_TYPE


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
        refuse(trace, "channel", Disconnect(*BAD_REQUEST), "the channel's name is empty")
    if trace is not None:
        trace.append(Step("channel", "pass", "the channel has a name"))


def _check_namespace(table: NamespaceTable, channel: Channel | None, trace: Trace) -> Channel:
    if channel is None:
        known = ", ".join(sorted(table.namespaces)) or "none"
        refuse(trace, "namespace", UnknownChannelError(), f"no such namespace; there are: {known}")
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
        refuse(trace, "name", BadRequestError(), reason)
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
        refuse(trace, "type", BadRequestError(), f"there is no subscription type {requested_type}")
    asks_for_poll = requested_type == SHARED_POLL_TYPE
    if channel is None:
        if asks_for_poll:
            _check_namespace(table, channel, trace)
        return  # refused after the length, as for any type
    is_poll = channel.options.type_number == SHARED_POLL_TYPE
    if asks_for_poll and not is_poll:
        text = "the client asks for a shared poll, which the namespace is not"
        refuse(trace, "type", NotAvailableError(), text)
    if is_poll and not asks_for_poll:
        text = "the namespace is a shared poll, and the client asks for something else"
        refuse(trace, "type", BadRequestError(), text)


def _check_delta(delta: str, trace: Trace) -> None:
    if delta and delta != FOSSIL:
        refuse(trace, "delta", Disconnect(*BAD_REQUEST), f"unknown delta type {delta!r}")
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
        refuse(trace, "length", BadRequestError(), f"the name is longer than {limit} bytes")
    if trace is not None:
        text = f"the name has at most {limit} bytes" if limit > 0 else "names may have any length"
        trace.append(Step("length", "pass", text))


def _check_room(trace: Trace, *, is_subscribed: bool, is_limit_reached: bool) -> None:
    if is_subscribed:
        text = "the connection is subscribed already, or about to be"
        refuse(trace, "duplicate", AlreadySubscribedError(), text)
    if trace is not None:
        trace.append(Step("duplicate", "pass", "the connection is not subscribed yet"))
    if is_limit_reached:
        text = "the connection has as many channels as client.channel_limit allows"
        refuse(trace, "channel_limit", LimitExceededError(), text)
    if trace is not None:
        trace.append(Step("channel_limit", "pass", "the connection may have another channel"))


def _check_type(channel: Channel, requested_type: int, trace: Trace) -> None:
    kind = channel.options.subscription_type or "stream"
    if requested_type != channel.options.type_number:
        text = f"the client asks for type {requested_type}, the namespace is of type {kind}"
        refuse(trace, "type", PermissionDeniedError(), text)
    if trace is not None:
        trace.append(Step("type", "pass", f"the client asks for the namespace's type, {kind}"))


def _check_private(channel: Channel, trace: Trace, *, has_token: bool) -> None:
    if channel.is_private and not has_token:
        text = "the channel is private, and the request has no token"
        refuse(trace, "private", PermissionDeniedError(), text)
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
        if does_grant(trace, "allow_subscribe_for_client", obstacle):
            return SubscriptionSource.CLIENT_ALLOWED
    if not does_grant(trace, INSECURE_RULE, "" if is_insecure else "off"):
        refuse(trace, "denied", PermissionDeniedError(), "no rule grants it")
    return SubscriptionSource.INSECURE


def _check_subscribe_proxies(options: ChannelOptions, trace: Trace) -> None:
    if options.subscribe_proxy_enabled:
        text = f"subscribe_proxy_enabled is on; {PROXIES_COME_LATER}"
        refuse(trace, "subscribe_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step("subscribe_proxy", "pass", "subscribe_proxy_enabled is off"))
    if options.subscribe_stream_proxy_enabled:
        text = f"subscribe_stream_proxy_enabled is on; {PROXIES_COME_LATER}"
        refuse(trace, "subscribe_stream_proxy", NotAvailableError(), text)
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
    if channel.data_format or not data or trace is not None:
        check_data_format(channel.data_format, data, trace)
    # As for ``grant_options``: a namespace's answer is the same for all who are alike.
    alike = ("publish", not user, is_subscribed, is_insecure)
    if trace is None and alike in channel.granted:
        return
    if options.is_map:
        text = "the channel is a map: what is published to it needs a key"
        refuse(trace, "type", BadRequestError(), text)
    if options.publish_proxy_enabled:
        text = f"publish_proxy_enabled is on; {PROXIES_COME_LATER}"
        refuse(trace, "publish_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step("publish_proxy", "pass", "publish_proxy_enabled is off"))
    if options.subscribe_stream_proxy_enabled:
        text = f"subscribe_stream_proxy_enabled is on; {PROXIES_COME_LATER}"
        refuse(trace, "subscribe_stream_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(
            Step("subscribe_stream_proxy", "pass", "subscribe_stream_proxy_enabled is off")
        )
    access = Access(
        "allow_publish_for_client",
        "allow_publish_for_subscriber",
        options.allow_publish_for_client,
        options.allow_publish_for_subscriber,
        options.allow_publish_for_anonymous,
    )
    authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)
    channel.granted[alike] = None


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
        refuse(trace, "history", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step("history", "pass", "the channel keeps history"))
    access = history_access(channel.options)
    authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)


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
        refuse(trace, "presence", NotAvailableError(), "presence is off")
    if trace is not None:
        trace.append(Step("presence", "pass", "presence is on"))
    access = presence_access(channel.options)
    authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)
