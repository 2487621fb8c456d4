"""
Functions of the application that callers of the API can call.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw

from realtime.commands.base import CommandNode
from realtime.protocol.api_messages import RPCRequest, RPCResult
from realtime.protocol.errors import (
    BadRequestError,
    ClientError,
    InternalError,
    NotFoundError,
)
from realtime.protocol.messages import EMPTY, payload


logger = logging.getLogger(__name__)


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
