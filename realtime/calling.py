"""
Carries out a command of the server API from wherever Django code runs.

In a serving process it runs on the node's loop. In any other it runs over Redis, or is posted to a server: ``shortcuts`` says
when.
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import msgspec
from asgiref.sync import sync_to_async

from realtime import backends, bootstrap, commands, outside
from realtime.conf.loader import get_options
from realtime.protocol.errors import ClientError, EngineError


T = TypeVar("T")

TIMEOUT = 10.0  # seconds, for one call from thread to loop or over HTTP

_COMMANDS: dict[str, Callable[..., Awaitable[Any]]] = {
    "publish": commands.publish,
    "broadcast": commands.broadcast,
    "subscribe": commands.subscribe,
    "unsubscribe": commands.unsubscribe,
    "disconnect": commands.disconnect,
    "refresh": commands.refresh,
    "presence": commands.presence,
    "presence_stats": commands.presence_stats,
    "history": commands.history,
    "history_remove": commands.history_remove,
    "channels": commands.channels,
    "info": commands.info,
    "map_publish": commands.map_publish,
    "map_remove": commands.map_remove,
    "map_read_state": commands.map_read_state,
    "map_read_stream": commands.map_read_stream,
    "map_stats": commands.map_stats,
    "map_clear": commands.map_clear,
    "shared_poll_publish": commands.shared_poll_publish,
}

_SURVEYS = frozenset({"channels", "info"})


def call(method: str, request: msgspec.Struct) -> dict[str, Any]:
    """Run a command from synchronous code."""
    node = bootstrap.running_node()
    if node is None or node.loop is None:
        return _call_outside(method, request)
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is node.loop:
        message = (
            f"{method}() would block the event loop that has to carry it out: await a{method}()"
        )
        raise RuntimeError(message)
    return _wait(asyncio.run_coroutine_threadsafe(_run(node, method, request), node.loop), method)


async def acall(method: str, request: msgspec.Struct) -> dict[str, Any]:
    """Run a command from a coroutine."""
    node = bootstrap.running_node()
    if node is None or node.loop is None:
        # Not by sync_to_async where it posts: a request may take seconds, and that has one thread for all.
        if _is_posted(method):
            return await asyncio.to_thread(_post, method, request)
        return await sync_to_async(_call_outside)(method, request)
    if asyncio.get_running_loop() is node.loop:
        return await _run(node, method, request)
    # async_to_sync and the like run coroutines on loops of their own.
    return await asyncio.wrap_future(
        asyncio.run_coroutine_threadsafe(_run(node, method, request), node.loop)
    )


def _is_posted(method: str) -> bool:
    """Whether a process that serves nobody leaves a method to a server."""
    options = get_options()
    if method.startswith("map_"):
        return backends.maps_type(options) != "redis"
    return method in _SURVEYS or not backends.uses_redis(options)


def _call_outside(method: str, request: msgspec.Struct) -> dict[str, Any]:
    """Run a command in a process that serves nobody."""
    if _is_posted(method):
        return _post(method, request)
    future = outside.run_command(get_options(), _COMMANDS[method], request)
    return _plain(_wait(future, method))


def _wait(future: Future[T], method: str) -> T:
    try:
        return future.result(TIMEOUT)
    except TimeoutError as error:
        future.cancel()
        message = f"{method} was not carried out within {TIMEOUT:g} s"
        raise EngineError(message) from error


async def _run(node: Any, method: str, request: msgspec.Struct) -> dict[str, Any]:
    return _plain(await _COMMANDS[method](node, request))


def _plain(result: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(result)))


def _post(method: str, request: msgspec.Struct) -> dict[str, Any]:
    options = get_options()
    if not options.api_url:
        message = (
            f"{method}: no server runs in this process and REALTIME['API_URL'] is not set: "
            "set it to the server's API, such as http://127.0.0.1:8000/api"
        )
        raise EngineError(message)
    url = f"{options.api_url.rstrip('/')}/{method}"
    if not url.startswith(("http://", "https://")):
        message = f"REALTIME['API_URL'] is {options.api_url!r}, expected http:// or https://"
        raise EngineError(message)
    headers = {
        "Content-Type": "application/json",
        "X-API-Key": options.api_key or options.http_api.key,
    }
    http_request = urllib.request.Request(  # noqa: S310 -- the scheme is checked above
        url, data=msgspec.json.encode(request), headers=headers, method="POST"
    )
    try:
        with urllib.request.urlopen(http_request, timeout=TIMEOUT) as response:  # noqa: S310 -- as above
            body = response.read()
    except urllib.error.HTTPError as error:
        message = f"{method}: the server answered {error.code} at {url}"
        raise EngineError(message) from error
    except (OSError, http.client.HTTPException) as error:
        message = f"{method}: no answer from {url}"
        raise EngineError(message) from error
    reply = msgspec.json.decode(body)
    if "error" in reply:
        raise ClientError(reply["error"]["code"], reply["error"]["message"])
    return cast("dict[str, Any]", reply.get("result", {}))
