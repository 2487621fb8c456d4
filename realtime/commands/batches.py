"""
Several commands in one request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from realtime.commands.base import CommandNode, run_together
from realtime.commands.connections import disconnect, refresh, subscribe, unsubscribe
from realtime.commands.functions import rpc
from realtime.commands.maps import (
    map_clear,
    map_publish,
    map_read_state,
    map_read_stream,
    map_remove,
    map_stats,
)
from realtime.commands.observing import (
    channels,
    history,
    history_remove,
    info,
    presence,
    presence_stats,
)
from realtime.commands.polls import shared_poll_publish
from realtime.commands.publishing import broadcast, publish
from realtime.protocol.api_messages import BatchRequest, BatchResponse, Command, Error, Reply
from realtime.protocol.errors import (
    BadRequestError,
    ClientError,
    InternalError,
    NotFoundError,
    PermissionDeniedError,
)


logger = logging.getLogger(__name__)


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
    "map_publish": map_publish,
    "map_remove": map_remove,
    "map_read_state": map_read_state,
    "map_read_stream": map_read_stream,
    "map_stats": map_stats,
    "map_clear": map_clear,
    "shared_poll_publish": shared_poll_publish,
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
            await run_together([_reply(node, command, may_call) for command in commands])
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
