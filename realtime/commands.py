"""
The server API as plain coroutines: ``await publish(node, PublishRequest(...)) -> PublishResult``.

Every door (HTTP, batch, the legacy stream, gRPC, queue consumers, Django code) ends here. A command checks in the
reference's order, raises a ``ClientError`` with the code that the caller is to see, and knows nothing of HTTP, keys or
JSON replies. On an engine that answers at once none of them suspends, so a door can drive one to its end on the spot.

Where we differ from the reference on purpose: ``broadcast`` answers 107 for a channel that isn't of stream type
(it publishes into it), ``unsubscribe`` needs a channel (it tells the client a nameless one), ``disconnect`` with code 0
uses the default (it closes with an illegal code). The methods of maps and shared polls do not exist yet.

Source: ``server-api`` 4-7, ``streams-and-state`` 2-3 and 11.
"""

from __future__ import annotations

import asyncio
import binascii
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw

from realtime.conf.options import ProcessOptions
from realtime.engines.base import (
    History,
    HistoryFilter,
    PresenceManager,
    PublishOptions,
    PublishOutcome,
    plain_options,
)
from realtime.namespaces.globs import GlobError
from realtime.namespaces.table import Channel, NamespaceTable
from realtime.node.control import (
    ControlCommand,
    DisconnectUser,
    NodeInfo,
    RefreshUser,
    SubscribeUser,
    UnsubscribeUser,
)
from realtime.node.eager import run_eagerly
from realtime.protocol import messages
from realtime.protocol.api_messages import (
    BatchRequest,
    BatchResponse,
    BoolValue,
    BroadcastRequest,
    BroadcastResult,
    ChannelInfo,
    ChannelsRequest,
    ChannelsResult,
    Command,
    DisconnectRequest,
    DisconnectResult,
    Error,
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
    PublishRequest,
    PublishResponse,
    PublishResult,
    RefreshRequest,
    RefreshResult,
    Reply,
    RPCRequest,
    RPCResult,
    SubscribeOptionOverride,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from realtime.protocol.errors import (
    FORCE_DISCONNECT,
    BadRequestError,
    ClientError,
    EngineError,
    InternalError,
    NotAvailableError,
    NotFoundError,
    PermissionDeniedError,
    UnknownChannelError,
)
from realtime.protocol.messages import EMPTY, StreamPosition, payload
from realtime.session.permissions import Override, check_data_format


logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CONCURRENT = 1024  # commands of one batch or channels of one broadcast, as in the reference
MAX_CLOSE_CODE = 0xFFFF  # a close frame has two bytes for it
MAX_CLOSE_REASON = 123  # bytes; what a control frame has room for beside the code

_STREAM_TYPES = ("", "stream")


class CommandNode(Protocol):
    """What commands need of a node; ``realtime.node.node.Node`` has it."""

    @property
    def table(self) -> NamespaceTable:
        """The channel options in force."""

    @property
    def presence(self) -> PresenceManager | None:
        """Who is in which channel, where the engine keeps that."""

    @property
    def options(self) -> ProcessOptions:
        """What the process was started with."""

    def publish(
        self, channel: Channel, publication: messages.Publication, options: PublishOptions
    ) -> Coroutine[Any, Any, PublishOutcome]:
        """Publish; raises ``EngineError``."""

    async def history(self, channel: Channel, what: HistoryFilter) -> History:
        """Read a stream; raises ``EngineError``, or 112 where ``what.since`` belongs to another epoch."""

    async def remove_history(self, channel: Channel) -> None:
        """Drop a stream's publications; raises ``EngineError``."""

    async def control(self, command: ControlCommand) -> None:
        """Carry a command out on all nodes; raises ``EngineError``."""

    async def survey_channels(self, pattern: str = "") -> Mapping[str, int]:
        """Return the number of subscribers on all nodes, by channel that matches; raises ``EngineError``, ``GlobError``."""

    async def survey_nodes(self) -> Sequence[NodeInfo]:
        """Return what the nodes say of themselves; raises ``EngineError``."""


# --- publishing ---------------------------------------------------------------------------------


async def publish(node: CommandNode, request: PublishRequest) -> PublishResult:
    """
    Publish into one channel.

    Returns:
        The position; also of a publication that was suppressed as a repeat or as stale.

    Raises:
        ClientError: 100, 102 or 107.

    """
    # Like in ``node.publish``, no coroutine more than there must be: each costs 0.2 µs per publish.
    if not request.channel:
        raise BadRequestError
    data = _payload(request.data, request.b64data)
    try:
        position = (await _publishing(node, request.channel, data, request)).position
    except EngineError as error:
        raise _internal(error) from error
    return PublishResult(position.offset, position.epoch)


async def broadcast(node: CommandNode, request: BroadcastRequest) -> BroadcastResult:
    """
    Publish the same data into many channels, each on its own: one that fails doesn't concern the others.

    Raises:
        ClientError: 107, there are no channels or the base64 is broken.

    """
    if not request.channels:
        raise BadRequestError
    data = _payload(request.data, request.b64data)
    responses = await _run_together(
        [_publish_response(node, channel, data, request) for channel in request.channels]
    )
    return BroadcastResult(responses)


async def _publish_response(
    node: CommandNode, channel: str, data: Raw, request: BroadcastRequest
) -> PublishResponse:
    try:
        position = (await _publishing(node, channel, data, request)).position
        return PublishResponse(result=PublishResult(position.offset, position.epoch))
    except ClientError as error:
        return PublishResponse(error=Error(error.code, error.message))
    except EngineError as error:
        _internal(error)
    except Exception:
        logger.exception("broadcast failed for a channel", extra={"channel": channel})
    return PublishResponse(error=Error(InternalError.code, InternalError.message))


def _publishing(
    node: CommandNode, name: str, data: Raw, request: PublishRequest | BroadcastRequest
) -> Coroutine[Any, Any, PublishOutcome]:
    channel = _find_channel(node, name)
    if channel.options.subscription_type not in _STREAM_TYPES:
        raise BadRequestError
    check_data_format(channel.data_format, data)
    publication = messages.Publication(data=data, tags=request.tags, version=request.version)
    return node.publish(channel, publication, _publish_options(channel, request))


def _publish_options(
    channel: Channel, request: PublishRequest | BroadcastRequest
) -> PublishOptions:
    stream = channel.publish_options
    if not (request.idempotency_key or request.skip_history or request.delta or request.version):
        return plain_options(stream)
    return PublishOptions(
        history_size=0 if request.skip_history else stream.history_size,
        history_ttl=stream.history_ttl,
        history_meta_ttl=stream.history_meta_ttl,
        idempotency_key=request.idempotency_key,
        delta=request.delta or stream.delta,
        version=request.version,
        version_epoch=request.version_epoch,
    )


# --- acting on connections ----------------------------------------------------------------------


async def subscribe(node: CommandNode, request: SubscribeRequest) -> SubscribeResult:
    """
    Subscribe a user's connections from the server's side.

    Raises:
        ClientError: 100, 102 or 107.

    """
    _find_channel(node, request.channel)
    since = request.recover_since
    command = SubscribeUser(
        user=request.user,
        channel=request.channel,
        client=request.client,
        session=request.session,
        info=bytes(_payload(request.info, request.b64info)),
        data=bytes(_payload(request.data, request.b64data)),
        expire_at=request.expire_at,
        recover_since=None if since is None else StreamPosition(since.offset, since.epoch),
        override=None if request.override is None else _override(request.override),
    )
    await _control(node, command)
    return SubscribeResult()


async def unsubscribe(node: CommandNode, request: UnsubscribeRequest) -> UnsubscribeResult:
    """
    End a user's subscriptions to a channel.

    Raises:
        ClientError: 100, 102 or 107.

    """
    _find_channel(node, request.channel)
    command = UnsubscribeUser(
        user=request.user,
        channel=request.channel,
        client=request.client,
        session=request.session,
    )
    await _control(node, command)
    return UnsubscribeResult()


async def disconnect(node: CommandNode, request: DisconnectRequest) -> DisconnectResult:
    """
    Close a user's connections.

    Raises:
        ClientError: 100, or 107 for a code that no close frame can carry.

    """
    code, reason = FORCE_DISCONNECT
    custom = request.disconnect
    if custom is not None and custom.code:
        code, reason = custom.code, custom.reason
    elif custom is not None and custom.reason:
        reason = custom.reason
    if code > MAX_CLOSE_CODE:
        raise BadRequestError
    command = DisconnectUser(
        user=request.user,
        client=request.client,
        session=request.session,
        whitelist=tuple(request.whitelist),
        code=code,
        reason=reason.encode()[:MAX_CLOSE_REASON].decode(errors="ignore"),
    )
    await _control(node, command)
    return DisconnectResult()


async def refresh(node: CommandNode, request: RefreshRequest) -> RefreshResult:
    """
    Give a user's connections a new expiry, or end them as expired.

    Raises:
        ClientError: 100.

    """
    command = RefreshUser(
        user=request.user,
        client=request.client,
        session=request.session,
        expired=request.expired,
        expire_at=request.expire_at,
        info=bytes(request.info),
    )
    await _control(node, command)
    return RefreshResult()


async def _control(node: CommandNode, command: ControlCommand) -> None:
    with _engine():
        await node.control(command)


def _override(override: SubscribeOptionOverride) -> Override:
    def value(member: BoolValue | None) -> bool | None:
        return None if member is None else member.value

    return Override(
        presence=value(override.presence),
        join_leave=value(override.join_leave),
        force_push_join_leave=value(override.force_push_join_leave),
        force_recovery=value(override.force_recovery),
        force_positioning=value(override.force_positioning),
    )


# --- reading a channel's state ------------------------------------------------------------------


async def presence(node: CommandNode, request: PresenceRequest) -> PresenceResult:
    """
    Return who is in a channel.

    Raises:
        ClientError: 100, 102, 107, or 108 where the namespace has no presence.

    """
    manager = _presence_manager(node, _find_channel(node, request.channel))
    with _engine():
        return PresenceResult(dict(await manager.presence(request.channel)))


async def presence_stats(node: CommandNode, request: PresenceStatsRequest) -> PresenceStatsResult:
    """
    Count who is in a channel.

    Raises:
        ClientError: 100, 102, 107, or 108 where the namespace has no presence.

    """
    manager = _presence_manager(node, _find_channel(node, request.channel))
    with _engine():
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
    with _engine():
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
    with _engine():
        await node.remove_history(channel)
    return HistoryRemoveResult()


async def channels(node: CommandNode, request: ChannelsRequest) -> ChannelsResult:
    """
    Return the channels that have subscribers on any node.

    Raises:
        ClientError: 100, for a malformed pattern too.

    """
    try:
        with _engine():
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
    with _engine():
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


# --- functions of the application ---------------------------------------------------------------


RPCFunction = Callable[[bytes], Any]
ThreadRunner = Callable[[RPCFunction, bytes], Awaitable[Any]]

_functions: dict[str, RPCFunction] = {}
_thread_runner: ThreadRunner = asyncio.to_thread


def register_rpc(name: str, function: RPCFunction) -> None:
    """
    Make a function callable by the API's ``rpc`` method.

    Args:
        name: What callers put into ``method``.
        function: Gets ``params`` as they came: the text of a JSON value, or ``b""``. What it returns is
            the text of a JSON value as ``bytes``, ``None`` for no data, or anything that ``msgspec`` encodes as JSON.
            An async function is awaited, another one runs in a thread. It may raise ``ClientError(code, message)``,
            which the caller gets; any other exception is logged and answered with 100.

    Raises:
        ValueError: The name is empty or taken.

    """
    if not name:
        raise ValueError("an RPC function needs a name")
    if name in _functions:
        raise ValueError(f"there is an RPC function {name!r} already")
    _functions[name] = function


def unregister_rpc(name: str) -> None:
    """Take a function away; an unknown name is no error."""
    _functions.pop(name, None)


def run_threads_with(runner: ThreadRunner) -> None:
    """Set what runs functions that are not async; Django's side has one that looks after database connections."""
    global _thread_runner
    _thread_runner = runner


async def rpc(node: CommandNode, request: RPCRequest) -> RPCResult:
    """
    Call a registered function.

    Raises:
        ClientError: 107 without a method, 104 for an unknown one, what the function raised, or 100.

    """
    if not request.method:
        raise BadRequestError
    function = _functions.get(request.method)
    if function is None:
        raise NotFoundError
    try:
        return RPCResult(_rpc_data(await _call(function, bytes(request.params))))
    except ClientError:
        raise
    except Exception as error:
        logger.exception("an RPC function failed", extra={"method": request.method})
        raise InternalError from error


async def _call(function: RPCFunction, params: bytes) -> Any:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 -- an object whose call is a coroutine function
    ):
        return await function(params)
    return await _thread_runner(function, params)


def _rpc_data(value: Any) -> Raw:
    if value is None:
        return EMPTY
    if isinstance(value, bytes | bytearray | memoryview | Raw):
        return payload(bytes(value))
    return Raw(msgspec.json.encode(value))


# --- batch --------------------------------------------------------------------------------------


BatchCommand = Callable[[CommandNode, Any], Coroutine[Any, Any, Any]]

# In the order of Command's fields: the first that is set is carried out.
_BATCH_COMMANDS: dict[str, BatchCommand] = {
    "publish": publish,
    "broadcast": broadcast,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "disconnect": disconnect,
    "history": history,
    "history_remove": history_remove,
    "presence": presence,
    "presence_stats": presence_stats,
    "info": info,
    "rpc": rpc,
    "refresh": refresh,
    "channels": channels,
}


def _allow_all(_method: str) -> bool:
    return True


async def batch(
    node: CommandNode, request: BatchRequest, *, may_call: Callable[[str], bool] = _allow_all
) -> BatchResponse:
    """
    Carry out several commands, one after the other or, with ``parallel``, at once.

    Args:
        node: The node.
        request: The commands; ``None`` among them is answered 107, an empty one 104.
        may_call: Whether the caller's key covers a method; one that it doesn't is answered 103.

    Returns:
        One reply per command, in their order. A command that fails doesn't stop the rest.

    """
    commands = request.commands
    if request.parallel:
        return BatchResponse(
            await _run_together([_reply(node, command, may_call) for command in commands])
        )
    return BatchResponse([await _reply(node, command, may_call) for command in commands])


async def _reply(
    node: CommandNode, command: Command | None, may_call: Callable[[str], bool]
) -> Reply:
    try:
        name, run, request = _chosen(command, may_call)
        return Reply(**{name: await run(node, request)})
    except ClientError as error:
        return Reply(error=Error(error.code, error.message))
    except Exception:
        logger.exception("a command of a batch failed")
        return Reply(error=Error(InternalError.code, InternalError.message))


def _chosen(
    command: Command | None, may_call: Callable[[str], bool]
) -> tuple[str, BatchCommand, Any]:
    if command is None:
        raise BadRequestError
    for name, run in _BATCH_COMMANDS.items():
        request = getattr(command, name)
        if request is not None:
            if not may_call(name):
                raise PermissionDeniedError
            return name, run, request
    raise NotFoundError


# --- parts --------------------------------------------------------------------------------------


def _find_channel(node: CommandNode, name: str) -> Channel:
    if not name:
        raise BadRequestError
    channel = node.table.resolve(name)
    if channel is None:
        raise UnknownChannelError
    return channel


def _find_stream(node: CommandNode, name: str) -> Channel:
    channel = _find_channel(node, name)
    if not channel.has_history:
        raise NotAvailableError
    return channel


def _payload(raw: Raw, base64: str) -> Raw:
    """Return the payload: base64 wins, and a raw one is cut loose from the request's body, which it would keep alive."""
    if base64:
        try:
            return payload(binascii.a2b_base64(base64.translate(_NO_LINE_BREAKS), strict_mode=True))
        except ValueError as error:  # not ASCII, or not base64
            raise BadRequestError from error
    return raw.copy() if raw else EMPTY


# Go's decoder skips them.
_NO_LINE_BREAKS = {ord("\n"): None, ord("\r"): None}


@contextmanager
def _engine() -> Iterator[None]:
    """Turn a backend's failure into what the caller may know of it."""
    try:
        yield
    except EngineError as error:
        raise _internal(error) from error


def _internal(error: EngineError) -> InternalError:
    logger.error("the engine failed: %s", error)
    return InternalError()


async def _run_together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines that don't raise; those that suspend wait together, at most 1024 at a time."""
    results: list[T | None] = []
    for start in range(0, len(coroutines), MAX_CONCURRENT):
        waiting: dict[int, asyncio.Task[T]] = {}
        for index, coroutine in enumerate(coroutines[start : start + MAX_CONCURRENT], start):
            result, task = run_eagerly(coroutine)
            results.append(result)
            if task is not None:
                waiting[index] = task
        if waiting:
            for index, result in zip(waiting, await asyncio.gather(*waiting.values()), strict=True):
                results[index] = result
    return cast("list[T]", results)
