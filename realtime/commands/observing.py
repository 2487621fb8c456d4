"""
Who is in a channel, what went through it, and which channels and nodes there are.
"""

from __future__ import annotations

from realtime.commands.base import CommandNode, engine_errors, find_channel
from realtime.engines.base import HistoryFilter, PresenceManager
from realtime.namespaces.globs import GlobError
from realtime.namespaces.table import Channel
from realtime.node.control import NodeInfo
from realtime.protocol.api_messages import (
    ChannelInfo,
    ChannelsRequest,
    ChannelsResult,
    HistoryRemoveRequest,
    HistoryRemoveResult,
    HistoryRequest,
    HistoryResult,
    InfoRequest,
    InfoResult,
    Metrics,
    NodeResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    Publication,
)
from realtime.protocol.errors import InternalError, NotAvailableError
from realtime.protocol.messages import StreamPosition


async def presence(node: CommandNode, request: PresenceRequest) -> PresenceResult:
    """
    Return who is in a channel.

    Raises:
        ClientError: 100, 102, 107, or 108 where the namespace has no presence.

    """
    manager = _presence_manager(node, find_channel(node, request.channel))
    with engine_errors():
        return PresenceResult(dict(await manager.presence(request.channel)))


async def presence_stats(node: CommandNode, request: PresenceStatsRequest) -> PresenceStatsResult:
    """
    Count who is in a channel.

    Raises:
        ClientError: 100, 102, 107, or 108 where the namespace has no presence.

    """
    manager = _presence_manager(node, find_channel(node, request.channel))
    with engine_errors():
        stats = await manager.presence_stats(request.channel)
    return PresenceStatsResult(stats.num_clients, stats.num_users)


def _presence_manager(node: CommandNode, channel: Channel) -> PresenceManager:
    manager = node.presence
    if manager is None or not channel.options.presence:
        raise NotAvailableError
    return manager


async def history(node: CommandNode, request: HistoryRequest) -> HistoryResult:
    """
    Read a channel's stream.

    Raises:
        ClientError: 100 (also for ``reverse`` from offset 0, as the reference has it), 102, 107, 108 where the
            namespace keeps no history, 112 where ``since`` belongs to another epoch.

    """
    channel = _find_stream(node, request.channel)
    since = request.since
    if request.reverse and since is not None and not since.offset:
        raise InternalError
    what = HistoryFilter(
        limit=request.limit,
        since=None if since is None else StreamPosition(since.offset, since.epoch),
        reverse=request.reverse,
    )
    with engine_errors():
        read = await node.history(channel, what)
    publications = [
        Publication(data=pub.data, info=pub.info, offset=pub.offset, tags=pub.tags)
        for pub in read.publications
    ]
    return HistoryResult(publications, epoch=read.top.epoch, offset=read.top.offset)


async def history_remove(node: CommandNode, request: HistoryRemoveRequest) -> HistoryRemoveResult:
    """
    Drop a channel's publications; its top and epoch stay.

    Raises:
        ClientError: 100, 102, 107, or 108 where the namespace keeps no history.

    """
    channel = _find_stream(node, request.channel)
    with engine_errors():
        await node.remove_history(channel)
    return HistoryRemoveResult()


def _find_stream(node: CommandNode, name: str) -> Channel:
    channel = find_channel(node, name)
    if not channel.has_history:
        raise NotAvailableError
    return channel


async def channels(node: CommandNode, request: ChannelsRequest) -> ChannelsResult:
    """
    Return the channels that have subscribers on any node.

    Raises:
        ClientError: 100, for a malformed pattern too.

    """
    try:
        with engine_errors():
            counts = await node.survey_channels(request.pattern)
    except GlobError as error:
        raise InternalError from error
    return ChannelsResult({name: ChannelInfo(count) for name, count in counts.items()})


async def info(node: CommandNode, request: InfoRequest) -> InfoResult:
    """
    Return the nodes.

    Raises:
        ClientError: 100.

    """
    with engine_errors():
        nodes = await node.survey_nodes()
    interval = node.options.node.info_metrics_aggregate_interval
    return InfoResult([_node_result(each, interval) for each in nodes])


def _node_result(node: NodeInfo, interval: float) -> NodeResult:
    items = {name: _as_number(value) for name, value in node.metrics.items()}
    return NodeResult(
        uid=node.uid,
        name=node.name,
        version=node.version,
        num_clients=node.num_clients,
        num_users=node.num_users,
        num_channels=node.num_channels,
        uptime=node.uptime,
        metrics=Metrics(_as_number(interval), items) if items else None,
        num_subs=node.num_subs,
    )


def _as_number(value: float) -> float:
    """Go writes a whole float without a point: so does an int."""
    return int(value) if value == int(value) else value
