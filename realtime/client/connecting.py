"""Connect and refresh: who is it, until when, and which channels does the server put it into."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from realtime.auth.tokens import ConnectionToken, SubscriptionSpec, TokenExpired, TokenInvalid
from realtime.client.subscribing import YEAR, Established, subscribe_server_side, ttl_of
from realtime.namespaces.names import personal_channel
from realtime.node.control import DisconnectUser
from realtime.protocol import errors
from realtime.protocol.errors import (
    Disconnect,
    EngineError,
    ExpiredError,
    TokenExpiredError,
    UnknownChannelError,
)
from realtime.protocol.messages import (
    Command,
    ConnectRequest,
    ConnectResult,
    RefreshResult,
    Reply,
    SubscribeRequest,
    payload,
)
from realtime.session.grants import Override, grant_options
from realtime.session.permissions import SubscriptionSource, may_connect_sub
from realtime.session.tags_filter import TagsFilter


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.namespaces.table import Channel

NO_SUBS: Mapping[str, SubscriptionSpec] = {}
_NO_REQUEST = SubscribeRequest()


BLIND_TO_NUMBERS = "js"
"""
What centrifuge-js calls itself. Over Protobuf (5.8.0, where long.js is installed, as under Node) it compares a push's number as
an object, finds no subscription, and drops all of them in silence.
"""


@dataclass(slots=True)
class Credentials:
    """Who connects."""

    user: str
    expire_at: int = 0
    info: bytes = b""
    meta: bytes = b""
    subs: Mapping[str, SubscriptionSpec] = field(default_factory=dict)


@dataclass(slots=True)
class ServerSide:
    """A subscription that the connect brings."""

    channel: Channel
    source: SubscriptionSource
    info: bytes = b""
    data: bytes = b""
    override: Override | None = None
    tags_filter: TagsFilter | None = None


async def connect(client: Client, command: Command) -> Reply | None:
    """Let a client in, or raise what refuses it; everything of a refused connect is rolled back."""
    request = command.connect
    assert request is not None
    session, node = client.session, client.node
    options = node.options.client
    credentials = await _authenticate(client, request)
    wanted = await _server_side(client, request, credentials)
    if len(wanted) > options.channel_limit:
        raise Disconnect(*errors.CHANNEL_LIMIT)
    limit = options.user_connection_limit
    if limit and credentials.user and node.hub.clients.count_of(credentials.user) >= limit:
        raise Disconnect(*errors.CONNECTION_LIMIT)
    now = node.clock()
    if credentials.expire_at:
        if credentials.expire_at <= now:
            raise ExpiredError
        credentials.expire_at = min(credentials.expire_at, int(now) + YEAR)
    session.takes_numbers = client.wire.is_json or request.name != BLIND_TO_NUMBERS
    session.user = credentials.user
    session.info = payload(credentials.info)
    session.meta = credentials.meta
    session.expire_at = credentials.expire_at
    node.hub.clients.add(client)
    try:
        established = await _subscribe_all(client, request, wanted)
    except BaseException:  # cancelled counts too: nothing may stay behind
        for subscription in tuple(session.subscriptions.values()):
            client.drop(subscription)
        node.hub.clients.remove(client)
        raise
    client.connected()
    client.answer_connect(command, _result(client, established))
    for each in established:
        each.begin()
    return None


def _result(client: Client, established: list[Established]) -> ConnectResult:
    session, node = client.session, client.node
    options = node.options.client
    is_unidirectional = client.is_unidirectional
    has_pings = options.ping_interval > 0 and (is_unidirectional or not client.frame_ping)
    result = ConnectResult(
        client=session.client_id,
        version=node.version,
        ping=int(options.ping_interval) if has_pings else 0,
        pong=has_pings and options.pong_timeout > 0 and not is_unidirectional,
        subs={each.subscription.channel: each.result for each in established} or None,
        session=session.session_id,
        node=node.id if client.is_emulated else "",
    )
    if session.expire_at:
        result.expires, result.ttl = True, ttl_of(session.expire_at, node.clock())
    if options.connect_include_server_time:
        result.time = int(node.clock() * 1000)
    return result


async def _authenticate(client: Client, request: ConnectRequest) -> Credentials:
    """Take the first source of credentials that there is: token, trusted header, anonymous."""
    node = client.node
    options = node.options.client
    if request.token:
        try:
            token = await node.connection_verifier.verify_connection(request.token, node.clock())
        except TokenExpired as error:
            raise TokenExpiredError from error
        except TokenInvalid as error:
            raise Disconnect(*errors.INVALID_TOKEN) from error
        return _credentials_of(client, token)
    if client.user_header:
        return Credentials(client.user_header)
    if options.allow_anonymous_connect_without_token or options.insecure:
        return Credentials("")
    raise Disconnect(*errors.BAD_REQUEST)


def _credentials_of(client: Client, token: ConnectionToken) -> Credentials:
    options = client.node.options.client
    if any(name and client.node.table.resolve(name) is None for name in token.subs):
        raise UnknownChannelError
    if not token.user and options.disallow_anonymous_connection_tokens:
        raise Disconnect(*errors.PERMISSION_DENIED)
    expire_at = 0 if options.insecure else token.expire_at
    return Credentials(token.user, expire_at, token.info, token.meta, token.subs)


# --- server-side subscriptions ------------------------------------------------------------------


async def _server_side(
    client: Client, request: ConnectRequest, credentials: Credentials
) -> dict[str, ServerSide]:
    """Collect the channels: the token's, the user's own, then the client's wishes, which replace nothing."""
    node = client.node
    wanted: dict[str, ServerSide] = {}
    for name, spec in credentials.subs.items():
        if name:  # an empty name in a token is skipped, as the reference does
            wanted[name] = ServerSide(
                _resolve(client, name),
                SubscriptionSource.CONNECTION_TOKEN,
                spec.info,
                spec.data,
                spec.override,
                spec.tags_filter,
            )
    personal = node.options.client.subscribe_to_user_personal_channel
    if personal.enabled and credentials.user:
        name = personal_channel(
            credentials.user, personal.personal_channel_namespace, node.table.rules
        )
        channel = _resolve(client, name)
        if personal.single_connection:
            await _end_other_connections(client, channel, credentials.user)
        wanted[channel.name] = ServerSide(channel, SubscriptionSource.USER_PERSONAL)
    for name in request.subs or ():
        if not name or name in wanted:
            continue
        found = node.table.resolve(name)
        if found is None:
            raise Disconnect(*errors.BAD_REQUEST)
        if may_connect_sub(found, credentials.user, node.options.client.insecure):
            wanted[name] = ServerSide(found, SubscriptionSource.CONNECT_REQUEST)
    return wanted


async def _end_other_connections(client: Client, channel: Channel, user: str) -> None:
    try:
        stats = await client.node.presence.presence_stats(channel.name)
        if stats.num_clients:
            code, reason = errors.CONNECTION_LIMIT
            whitelist = (client.session.client_id,)
            await client.node.control(
                DisconnectUser(user=user, whitelist=whitelist, code=code, reason=reason)
            )
    except EngineError as error:
        raise Disconnect(*errors.SERVER_ERROR) from error


def _resolve(client: Client, name: str) -> Channel:
    channel = client.node.table.resolve(name)
    if channel is None:
        raise UnknownChannelError
    return channel


async def _subscribe_all(
    client: Client, request: ConnectRequest, wanted: Mapping[str, ServerSide]
) -> list[Established]:
    if not wanted:
        return []
    asked = request.subs or {}
    starting = [
        subscribe_server_side(
            client,
            name,
            grant_options(
                one.channel,
                user=client.session.user,
                delta="" if one.tags_filter is not None else asked.get(name, _NO_REQUEST).delta,
                override=one.override,
                is_server_side=True,
            ),
            one.source,
            asked.get(name, _NO_REQUEST),
            info=payload(one.info),
            data=payload(one.data),
            tags_filter=one.tags_filter,
        )
        for name, one in wanted.items()
    ]
    if len(starting) > 1 and not client.node.broker.is_reliable:
        # One round trip for all of them; all have ended before a failure is rolled back.
        outcomes = await asyncio.gather(*starting, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [each for each in outcomes if isinstance(each, Established)]
    established = []
    for position, each in enumerate(starting):
        try:
            established.append(await each)
        except BaseException:
            for unused in starting[position + 1 :]:
                unused.close()
            raise
    return established


# --- refresh ------------------------------------------------------------------------------------


async def refresh(client: Client, command: Command) -> Reply:
    """Take a new connection token."""
    assert command.refresh is not None
    node, session = client.node, client.session
    if not command.refresh.token:
        raise Disconnect(*errors.BAD_REQUEST)
    try:
        token = await node.connection_verifier.verify_connection(
            command.refresh.token, node.clock()
        )
    except TokenExpired as error:
        raise Disconnect(*errors.CONNECTION_EXPIRED) from error
    except TokenInvalid as error:
        raise Disconnect(*errors.INVALID_TOKEN) from error
    credentials = _credentials_of(client, token)
    if credentials.user != session.user:
        raise Disconnect(*errors.INVALID_TOKEN)
    now = node.clock()
    if 0 < credentials.expire_at <= now:
        raise ExpiredError
    if _changes_subscriptions(client, credentials.subs):
        raise Disconnect(*errors.INSUFFICIENT_STATE)
    session.expire_at = credentials.expire_at
    if credentials.info:
        session.info = payload(credentials.info)
    if credentials.meta:
        session.meta = credentials.meta
    client.schedule_expiry()
    result = RefreshResult()
    if session.expire_at:
        result.expires, result.ttl = True, ttl_of(session.expire_at, now)
    return Reply(id=command.id, refresh=result)


def _changes_subscriptions(client: Client, listed: Mapping[str, SubscriptionSpec]) -> bool:
    """Say whether the token's channels are no longer those that the connection has."""
    subscriptions = client.session.subscriptions
    if any(name and name not in subscriptions for name in listed):
        return True
    return any(
        subscription.source is SubscriptionSource.CONNECTION_TOKEN and name not in listed
        for name, subscription in subscriptions.items()
        if subscription.is_established
    )
