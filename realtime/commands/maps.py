"""
Maps: keys that are written, removed and read one by one, and the stream of their changes.

A namespace's data format holds for maps too (the reference does not look at it), but where there is none the data may be
empty. A position that the stream doesn't reach any more is always told: the reference keeps silent when nothing is left.

Source: ``server-api`` 8, ``streams-and-state`` 12.4-12.8.
"""

from __future__ import annotations

from collections.abc import Sequence

from realtime.commands.base import CommandNode, engine_errors, find_channel, read_payload
from realtime.engines.base import HistoryFilter
from realtime.engines.maps import (
    IF_EXISTS,
    IF_NEW,
    MapChange,
    MapEntry,
    MapStream,
    StateFilter,
)
from realtime.namespaces.table import Channel
from realtime.protocol import api_messages
from realtime.protocol.api_messages import (
    MapClearRequest,
    MapClearResult,
    MapPublishRequest,
    MapPublishResult,
    MapReadStateRequest,
    MapReadStateResult,
    MapReadStreamRequest,
    MapReadStreamResult,
    MapRemoveRequest,
    MapRemoveResult,
    MapStatsRequest,
    MapStatsResult,
)
from realtime.protocol.errors import BadRequestError, UnrecoverablePositionError
from realtime.protocol.messages import Publication, StreamPosition
from realtime.session.payloads import check_data_format


_KEY_MODES = ("", IF_NEW, IF_EXISTS)


async def map_publish(node: CommandNode, request: MapPublishRequest) -> MapPublishResult:
    """
    Write one key of a map.

    Raises:
        ClientError: 100 (also for a version where the map has no stream), 102 or 107.

    """
    if not request.channel or not request.key:
        raise BadRequestError
    data = read_payload(request.data, request.b64data)
    channel = _find_map(node, request.channel)
    if request.key_mode not in _KEY_MODES:
        raise BadRequestError
    if channel.data_format:
        check_data_format(channel.data_format, data)
    publication = Publication(
        data=data, tags=request.tags, key=request.key, version=request.version
    )
    change = MapChange(
        key_mode=request.key_mode,
        idempotency_key=request.idempotency_key,
        delta=request.delta or channel.map_rules.delta,
        version=request.version,
        version_epoch=request.version_epoch,
    )
    with engine_errors():
        outcome = await node.maps.publish(channel.name, publication, channel.map_rules, change)
    top, reason = outcome.position, outcome.suppressed
    return MapPublishResult(top.offset, top.epoch, bool(reason), reason)


async def map_remove(node: CommandNode, request: MapRemoveRequest) -> MapRemoveResult:
    """
    Remove one key of a map.

    Raises:
        ClientError: 100, 102 or 107.

    """
    if not request.channel or not request.key:
        raise BadRequestError
    channel = _find_map(node, request.channel)
    publication = Publication(key=request.key, removed=True)
    change = MapChange(idempotency_key=request.idempotency_key)
    with engine_errors():
        outcome = await node.maps.remove(channel.name, publication, channel.map_rules, change)
    top, reason = outcome.position, outcome.suppressed
    return MapRemoveResult(top.offset, top.epoch, bool(reason), reason)


async def map_read_state(node: CommandNode, request: MapReadStateRequest) -> MapReadStateResult:
    """
    Read a page of a map's keys, or one key.

    Raises:
        ClientError: 100, 102, 107, or 112 where the map isn't in ``revision_epoch`` any more.

    """
    channel = _find_map(node, request.channel)
    what = StateFilter(limit=request.limit, cursor=request.cursor, key=request.key)
    with engine_errors():
        state = await node.maps.read_state(channel.name, channel.map_rules, what)
    _check_epoch(request.revision_epoch, state.top)
    return MapReadStateResult(
        _entries(state.entries), state.top.offset, state.top.epoch, state.cursor
    )


async def map_read_stream(node: CommandNode, request: MapReadStreamRequest) -> MapReadStreamResult:
    """
    Read a map's changes.

    Raises:
        ClientError: 100, 102, 107, or 112 where the stream can't be followed from ``since_offset`` and ``since_epoch``.

    """
    channel = _find_map(node, request.channel)
    offset = request.since_offset
    what = HistoryFilter(
        limit=request.limit,
        since=StreamPosition(offset, request.since_epoch) if offset else None,
        reverse=request.reverse,
    )
    with engine_errors():
        stream = await node.maps.read_stream(channel.name, channel.map_rules, what)
    _check_epoch(stream.translated(StreamPosition(offset, request.since_epoch)).epoch, stream.top)
    if offset and request.limit and not request.reverse:
        _check_continuity(offset, stream)
    return MapReadStreamResult(_entries(stream.entries), stream.top.offset, stream.top.epoch)


async def map_stats(node: CommandNode, request: MapStatsRequest) -> MapStatsResult:
    """
    Count a map's keys.

    Raises:
        ClientError: 100, 102 or 107.

    """
    channel = _find_map(node, request.channel)
    with engine_errors():
        return MapStatsResult(await node.maps.count(channel.name))


async def map_clear(node: CommandNode, request: MapClearRequest) -> MapClearResult:
    """
    Drop a map; its subscribers load what comes after it anew.

    Raises:
        ClientError: 100, 102 or 107.

    """
    channel = _find_map(node, request.channel)
    with engine_errors():
        await node.maps.clear(channel.name)
    return MapClearResult()


def _find_map(node: CommandNode, name: str) -> Channel:
    channel = find_channel(node, name)
    if not channel.options.is_map:
        raise BadRequestError
    return channel


def _check_epoch(epoch: str, top: StreamPosition) -> None:
    if epoch and epoch != top.epoch:
        raise UnrecoverablePositionError


def _check_continuity(offset: int, stream: MapStream) -> None:
    """Refuse to leave out changes that the caller has no other way to notice."""
    if stream.entries:
        is_next = stream.entries[0].publication.offset == offset + 1
    else:
        is_next = stream.top.offset == offset
    if not is_next:
        raise UnrecoverablePositionError


def _entries(entries: Sequence[MapEntry]) -> list[api_messages.MapEntry]:
    return [
        api_messages.MapEntry(
            key=publication.key,
            data=publication.data,
            tags=publication.tags,
            offset=publication.offset,
            score=publication.score,
            removed=publication.removed,
            time=entry.time,
        )
        for entry in entries
        for publication in (entry.publication,)
    ]
