"""
Acting on the connections of a user, on all nodes.
"""

from __future__ import annotations

from realtime.commands.base import CommandNode, engine_errors, find_channel, read_payload
from realtime.node.control import (
    ControlCommand,
    DisconnectUser,
    RefreshUser,
    SubscribeUser,
    UnsubscribeUser,
)
from realtime.protocol.api_messages import (
    BoolValue,
    DisconnectRequest,
    DisconnectResult,
    RefreshRequest,
    RefreshResult,
    SubscribeOptionOverride,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from realtime.protocol.errors import FORCE_DISCONNECT, BadRequestError
from realtime.protocol.messages import StreamPosition
from realtime.session.grants import Override


MAX_CLOSE_CODE = 0xFFFF  # a close frame has two bytes for it
MAX_CLOSE_REASON = 123  # bytes; what a control frame has room for beside the code


async def subscribe(node: CommandNode, request: SubscribeRequest) -> SubscribeResult:
    """
    Subscribe a user's connections from the server's side.

    Raises:
        ClientError: 100, 102 or 107.

    """
    find_channel(node, request.channel)
    since = request.recover_since
    command = SubscribeUser(
        user=request.user,
        channel=request.channel,
        client=request.client,
        session=request.session,
        info=bytes(read_payload(request.info, request.b64info)),
        data=bytes(read_payload(request.data, request.b64data)),
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
    find_channel(node, request.channel)
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
    with engine_errors():
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
