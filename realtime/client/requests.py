"""Publish, presence, history, rpc and send, from the client's side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.engines.base import HistoryFilter, plain_options
from realtime.engines.maps import PLAIN_CHANGE, MapChange
from realtime.protocol import errors
from realtime.protocol.errors import (
    BadRequestError,
    Disconnect,
    NotAvailableError,
)
from realtime.protocol.messages import (
    EMPTY,
    Command,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    Reply,
)
from realtime.session.map_writes import authorize_map_write, map_key
from realtime.session.permissions import (
    authorize_history,
    authorize_presence,
    authorize_publish,
    check_channel,
)


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.namespaces.table import Channel

MAP_PUBLISH = 1  # PublishRequest.type


async def publish(client: Client, command: Command) -> None:
    """Publish to a channel."""
    request = command.publish
    assert request is not None
    node = client.node
    channel = check_channel(node.table, request.channel)
    if request.type:
        await _write_map(client, channel, request)
    else:
        publication = publication_of(client, channel, request)
        await node.publish(channel, publication, plain_options(channel.publish_options))
    client.write_checked(client.wire.encode_published(command.id))


def publication_of(client: Client, channel: Channel, request: PublishRequest) -> Publication:
    """Make what a client publishes, which it must be allowed to."""
    session = client.session
    authorize_publish(
        channel,
        data=request.data,
        user=session.user,
        is_subscribed=session.is_subscribed(channel.name),
        is_insecure=client.node.options.client.insecure,
    )
    # A copy, since the payload is a view of the whole frame, which history would keep alive.
    return Publication(data=request.data.copy(), info=session.client_info(channel.name))


async def _write_map(client: Client, channel: Channel, request: PublishRequest) -> None:
    """Write or remove a map's key; one that is refused by the map itself, not being there, is no error."""
    session, node = client.session, client.node
    if request.type != MAP_PUBLISH:
        raise BadRequestError
    authorize_map_write(
        channel,
        data=request.data,
        user=session.user,
        is_removal=request.removed,
        is_subscribed=session.is_subscribed(channel.name),
        is_insecure=node.options.client.insecure,
    )
    key = map_key(channel, asked=request.key, client_id=session.client_id, user=session.user)
    if request.removed:
        removal = Publication(key=key, removed=True)
        await node.maps.remove(channel.name, removal, channel.map_rules, PLAIN_CHANGE)
    else:
        data = request.data.copy() if request.data else EMPTY
        publication = Publication(key=key, data=data, info=session.client_info(channel.name))
        change = MapChange(delta=channel.map_rules.delta)
        await node.maps.publish(channel.name, publication, channel.map_rules, change)


async def presence(client: Client, command: Command) -> Reply:
    """Tell who is in a channel."""
    assert command.presence is not None
    channel = _presence_channel(client, command.presence.channel)
    found = await client.node.presence.presence(channel.name)
    return Reply(id=command.id, presence=PresenceResult(presence=dict(found)))


async def presence_stats(client: Client, command: Command) -> Reply:
    """Tell how many are in a channel."""
    assert command.presence_stats is not None
    channel = _presence_channel(client, command.presence_stats.channel)
    stats = await client.node.presence.presence_stats(channel.name)
    result = PresenceStatsResult(num_clients=stats.num_clients, num_users=stats.num_users)
    return Reply(id=command.id, presence_stats=result)


def _presence_channel(client: Client, name: str) -> Channel:
    channel = check_channel(client.node.table, name)
    authorize_presence(
        channel,
        user=client.session.user,
        is_subscribed=client.session.is_subscribed(name),
        is_insecure=client.node.options.client.insecure,
    )
    return channel


async def history(client: Client, command: Command) -> Reply:
    """Read a channel's stream."""
    request = command.history
    assert request is not None
    node, session = client.node, client.session
    channel = check_channel(node.table, request.channel)
    authorize_history(
        channel,
        user=session.user,
        is_subscribed=session.is_subscribed(request.channel),
        is_insecure=node.options.client.insecure,
    )
    if request.reverse and request.since is not None and not request.since.offset:
        raise BadRequestError
    limit, most = request.limit, node.options.client.history_max_publication_limit
    if most and (limit < 0 or limit > most):
        limit = most
    what = HistoryFilter(limit=limit, since=request.since, reverse=request.reverse)
    found = await node.history(channel, what)
    result = HistoryResult(
        publications=list(found.publications), epoch=found.top.epoch, offset=found.top.offset
    )
    return Reply(id=command.id, history=result)


async def rpc(client: Client, command: Command) -> Reply:
    """Refuse: nothing handles a client's RPC until there are RPC proxies."""
    raise NotAvailableError


async def send(client: Client, command: Command) -> Reply:
    """End the connection: a message without an answer has no handler."""
    raise Disconnect(*errors.NOT_AVAILABLE)
