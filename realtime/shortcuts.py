"""
The server API for Django code: ``from realtime import publish, apublish``.

Where the call runs decides how it goes. In a serving process it runs on the node's loop: ``await apublish(...)`` from a
coroutine, ``publish(...)`` from a thread, such as a synchronous view's. In any other process (a shell, a task queue, a
command) the Redis engine's scripts are run from there. On the memory engine, which such a process has none of, it is
posted to ``REALTIME["API_URL"]`` with ``REALTIME["API_KEY"]`` (by default ``http_api.key``), and so are ``info`` and
``channels``, which only a server can answer.

Data is any JSON-serialisable value; ``bytes`` are JSON text already. Every function raises ``ApiError`` (with ``code`` and
``message``) when the server refuses, and ``EngineError`` when it cannot be asked.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import msgspec
from asgiref.sync import sync_to_async
from django.db import transaction
from msgspec import Raw

from realtime import backends, bootstrap, commands, outside
from realtime.conf.loader import get_options
from realtime.protocol import api_messages as messages
from realtime.protocol.errors import ClientError as ApiError
from realtime.protocol.errors import EngineError


logger = logging.getLogger(__name__)

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
}


_SURVEYS = frozenset({"channels", "info"})


# --- the way there ------------------------------------------------------------------------------


def _call(method: str, request: msgspec.Struct) -> dict[str, Any]:
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


async def _acall(method: str, request: msgspec.Struct) -> dict[str, Any]:
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
        raise ApiError(reply["error"]["code"], reply["error"]["message"])
    return cast("dict[str, Any]", reply.get("result", {}))


def _json(data: Any) -> Raw:
    return Raw(data) if isinstance(data, bytes) else Raw(msgspec.json.encode(data))


def _optional_json(data: Any) -> Raw:
    return Raw(b"") if data is None else _json(data)


def _overrides(override: Mapping[str, bool] | None) -> messages.SubscribeOptionOverride | None:
    if override is None:
        return None
    values = {name: messages.BoolValue(value) for name, value in override.items()}
    return messages.SubscribeOptionOverride(**values)


def _position(since: tuple[int, str] | None) -> messages.StreamPosition | None:
    return None if since is None else messages.StreamPosition(*since)


def _struct(message_type: type[msgspec.Struct], **fields: Any) -> msgspec.Struct:
    """Build a request; a field without a value stays at its default, which keeps it off the wire."""
    given = {
        name: value for name, value in fields.items() if value not in (None, "", (), 0, Raw(b""))
    }
    return message_type(**given)


# --- publishing ---------------------------------------------------------------------------------


def _publish_fields(
    data: Any,
    tags: Mapping[str, str] | None,
    idempotency_key: str,
    skip_history: bool,
    delta: bool,
    version: int,
    version_epoch: str,
) -> dict[str, Any]:
    return {
        "data": _json(data),
        "tags": dict(tags) if tags else None,
        "idempotency_key": idempotency_key,
        "skip_history": skip_history,
        "delta": delta,
        "version": version,
        "version_epoch": version_epoch,
    }


def publish(
    channel: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str = "",
    skip_history: bool = False,
    delta: bool = False,
    version: int = 0,
    version_epoch: str = "",
    on_commit: bool = False,
) -> dict[str, Any]:
    """
    Publish ``data`` into ``channel``.

    Args:
        channel: The channel's name.
        data: Any JSON-serialisable value, or JSON text as ``bytes``.
        tags: Delivered and stored with the publication.
        idempotency_key: Per channel, remembered for 5 minutes: a repeat sends nothing.
        skip_history: Do not store it.
        delta: Allow patches for subscribers that negotiated them.
        version: 0, or a number: a publication that is not newer than the last one is dropped.
        version_epoch: Another one makes any version acceptable.
        on_commit: Publish when the current database transaction commits, and never if it rolls back. The result
            is then empty and a failure is logged, since the data is committed by that time.

    Returns:
        ``{"offset": int, "epoch": str}``, empty in a channel without history.

    Raises:
        ApiError: The server refused.
        EngineError: It could not be asked, or its backend failed.
        RuntimeError: Called on the server's own event loop; use ``apublish`` there.

    """
    fields = _publish_fields(
        data, tags, idempotency_key, skip_history, delta, version, version_epoch
    )
    request = _struct(messages.PublishRequest, channel=channel, **fields)
    if on_commit:
        transaction.on_commit(functools.partial(_publish_after_commit, request))
        return {}
    return _call("publish", request)


def _publish_after_commit(request: msgspec.Struct) -> None:
    try:
        _call("publish", request)
    except (ApiError, EngineError):
        logger.exception("a publication was not published after commit")


async def apublish(
    channel: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str = "",
    skip_history: bool = False,
    delta: bool = False,
    version: int = 0,
    version_epoch: str = "",
) -> dict[str, Any]:
    """Publish from a coroutine; as ``publish``."""
    fields = _publish_fields(
        data, tags, idempotency_key, skip_history, delta, version, version_epoch
    )
    return await _acall("publish", _struct(messages.PublishRequest, channel=channel, **fields))


# --- the rest: one builder of the request, a synchronous and an asynchronous door ---------------


def _broadcast(
    channels: Sequence[str],
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str = "",
    skip_history: bool = False,
    delta: bool = False,
    version: int = 0,
    version_epoch: str = "",
) -> msgspec.Struct:
    """Publish the same data into many channels; ``{"responses": [{"result": {...}} | {"error": {...}}, ...]}``."""
    fields = _publish_fields(
        data, tags, idempotency_key, skip_history, delta, version, version_epoch
    )
    return _struct(messages.BroadcastRequest, channels=list(channels), **fields)


def _subscribe(
    user: str,
    channel: str,
    *,
    client: str = "",
    session: str = "",
    info: Any = None,
    data: Any = None,
    expire_at: int = 0,
    recover_since: tuple[int, str] | None = None,
    override: Mapping[str, bool] | None = None,
) -> msgspec.Struct:
    """Subscribe a user's connections; ``recover_since`` is (offset, epoch), ``override`` option -> bool."""
    return _struct(
        messages.SubscribeRequest,
        user=user,
        channel=channel,
        client=client,
        session=session,
        info=_optional_json(info),
        data=_optional_json(data),
        expire_at=expire_at,
        recover_since=_position(recover_since),
        override=_overrides(override),
    )


def _unsubscribe(user: str, channel: str, *, client: str = "", session: str = "") -> msgspec.Struct:
    """End a user's subscriptions to a channel."""
    return _struct(
        messages.UnsubscribeRequest, user=user, channel=channel, client=client, session=session
    )


def _disconnect(
    user: str,
    *,
    client: str = "",
    session: str = "",
    whitelist: Sequence[str] = (),
    code: int = 0,
    reason: str = "",
) -> msgspec.Struct:
    """End a user's connections but for the client ids in ``whitelist``; by default with 3503."""
    end = messages.Disconnect(code, reason) if code else None
    return _struct(
        messages.DisconnectRequest,
        user=user,
        client=client,
        session=session,
        whitelist=list(whitelist) or None,
        disconnect=end,
    )


def _refresh(
    user: str,
    *,
    client: str = "",
    session: str = "",
    expired: bool = False,
    expire_at: int = 0,
    info: Any = None,
) -> msgspec.Struct:
    """Give a user's connections another expiry (Unix seconds, 0 for none)."""
    return _struct(
        messages.RefreshRequest,
        user=user,
        client=client,
        session=session,
        expired=expired,
        expire_at=expire_at,
        info=_optional_json(info),
    )


def _presence(channel: str) -> msgspec.Struct:
    """Return ``{"presence": {client id: {"user", "client", "conn_info", "chan_info"}}}``."""
    return messages.PresenceRequest(channel)


def _presence_stats(channel: str) -> msgspec.Struct:
    """Return ``{"num_clients": int, "num_users": int}``."""
    return messages.PresenceStatsRequest(channel)


def _history(
    channel: str, *, limit: int = 0, since: tuple[int, str] | None = None, reverse: bool = False
) -> msgspec.Struct:
    """Return ``{"publications", "offset", "epoch"}``; ``limit`` 0 is the position only, -1 everything."""
    return _struct(
        messages.HistoryRequest,
        channel=channel,
        limit=limit,
        since=_position(since),
        reverse=reverse,
    )


def _history_remove(channel: str) -> msgspec.Struct:
    """Drop a channel's publications; its position stays."""
    return messages.HistoryRemoveRequest(channel)


def _channels(pattern: str = "") -> msgspec.Struct:
    """Return ``{"channels": {name: {"num_clients": int}}}`` of the channels that match a glob."""
    return messages.ChannelsRequest(pattern)


def _info() -> msgspec.Struct:
    """Return ``{"nodes": [...]}``."""
    return messages.InfoRequest()


def _doors(
    method: str, build: Callable[..., msgspec.Struct]
) -> tuple[Callable[..., dict[str, Any]], Callable[..., Awaitable[dict[str, Any]]]]:
    """Make ``method`` and ``amethod`` from what builds their request."""

    @functools.wraps(build)
    def synchronous(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return _call(method, build(*args, **kwargs))

    @functools.wraps(build)
    async def asynchronous(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return await _acall(method, build(*args, **kwargs))

    synchronous.__name__ = synchronous.__qualname__ = method
    asynchronous.__name__ = asynchronous.__qualname__ = f"a{method}"
    return synchronous, asynchronous


broadcast, abroadcast = _doors("broadcast", _broadcast)
subscribe, asubscribe = _doors("subscribe", _subscribe)
unsubscribe, aunsubscribe = _doors("unsubscribe", _unsubscribe)
disconnect, adisconnect = _doors("disconnect", _disconnect)
refresh, arefresh = _doors("refresh", _refresh)
presence, apresence = _doors("presence", _presence)
presence_stats, apresence_stats = _doors("presence_stats", _presence_stats)
history, ahistory = _doors("history", _history)
history_remove, ahistory_remove = _doors("history_remove", _history_remove)
channels, achannels = _doors("channels", _channels)
info, ainfo = _doors("info", _info)
