"""
The server API for Django code: ``from realtime import publish, apublish``.

Where the call runs decides how it goes. In a serving process it runs on the node's loop: ``await apublish(...)`` from a
coroutine, ``publish(...)`` from a thread, such as a synchronous view's. In any other process (a shell, a task queue, a
command) the Redis engine's scripts are run from there. On the memory engine, which such a process has none of, it is
posted to ``REALTIME["API_URL"]`` with ``REALTIME["API_KEY"]`` (by default ``http_api.key``), and so are ``info`` and
``channels``, which only a server can answer. For the functions of maps it is ``map_broker.type`` that decides.

Data is any JSON-serialisable value; ``bytes`` are JSON text already. Every function raises ``ApiError`` (with ``code`` and
``message``) when the server refuses, and ``EngineError`` when it cannot be asked.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from django.db import transaction
from msgspec import Raw

from realtime.auth.poll_signatures import sign_batch
from realtime.calling import acall, call
from realtime.conf.loader import get_options
from realtime.protocol import api_messages as messages
from realtime.protocol.errors import ClientError as ApiError
from realtime.protocol.errors import EngineError


logger = logging.getLogger(__name__)


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
    return _call_now_or_after_commit("publish", request, on_commit)


def _call_now_or_after_commit(
    method: str, request: msgspec.Struct, on_commit: bool
) -> dict[str, Any]:
    if not on_commit:
        return call(method, request)
    transaction.on_commit(functools.partial(_call_after_commit, method, request))
    return {}


def _call_after_commit(method: str, request: msgspec.Struct) -> None:
    try:
        call(method, request)
    except (ApiError, EngineError):
        logger.exception("not carried out after commit", extra={"method": method})


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
    return await acall("publish", _struct(messages.PublishRequest, channel=channel, **fields))


# --- writing maps -------------------------------------------------------------------------------


def _map_fields(
    data: Any,
    tags: Mapping[str, str] | None,
    idempotency_key: str,
    key_mode: str,
    delta: bool,
    version: int,
    version_epoch: str,
) -> dict[str, Any]:
    return {
        "data": _json(data),
        "tags": dict(tags) if tags else None,
        "idempotency_key": idempotency_key,
        "key_mode": key_mode,
        "delta": delta,
        "version": version,
        "version_epoch": version_epoch,
    }


def map_publish(
    channel: str,
    key: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str = "",
    key_mode: str = "",
    delta: bool = False,
    version: int = 0,
    version_epoch: str = "",
    on_commit: bool = False,
) -> dict[str, Any]:
    """
    Write ``key`` of the map ``channel``.

    Args:
        channel: The channel's name, in a namespace of a map type.
        key: What is written; whatever was there is replaced.
        data: As in ``publish``; ``b""`` is no data.
        tags: As in ``publish``.
        idempotency_key: As in ``publish``.
        key_mode: ``"if_new"`` writes only a key that is not there, ``"if_exists"`` only one that is.
        delta: As in ``publish``; patches are of what the key had before.
        version: As in ``publish``, for each key; not in mode ``ephemeral``.
        version_epoch: As in ``publish``.
        on_commit: As in ``publish``.

    Returns:
        ``{"offset": int, "epoch": str}``, empty where the map has no stream; with ``"suppressed": True`` and
        ``"suppress_reason"`` where nothing was written.

    Raises:
        ApiError: The server refused.
        EngineError: It could not be asked, or its backend failed.
        RuntimeError: Called on the server's own event loop; use ``amap_publish`` there.

    """
    fields = _map_fields(data, tags, idempotency_key, key_mode, delta, version, version_epoch)
    request = _struct(messages.MapPublishRequest, channel=channel, key=key, **fields)
    return _call_now_or_after_commit("map_publish", request, on_commit)


async def amap_publish(
    channel: str,
    key: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str = "",
    key_mode: str = "",
    delta: bool = False,
    version: int = 0,
    version_epoch: str = "",
) -> dict[str, Any]:
    """Write a key from a coroutine; as ``map_publish``."""
    fields = _map_fields(data, tags, idempotency_key, key_mode, delta, version, version_epoch)
    request = _struct(messages.MapPublishRequest, channel=channel, key=key, **fields)
    return await acall("map_publish", request)


def map_remove(
    channel: str, key: str, *, idempotency_key: str = "", on_commit: bool = False
) -> dict[str, Any]:
    """Remove ``key`` of the map ``channel``; a key that is not there is ``"suppressed"``. The rest as ``map_publish``."""
    request = messages.MapRemoveRequest(channel, key, idempotency_key)
    return _call_now_or_after_commit("map_remove", request, on_commit)


async def amap_remove(channel: str, key: str, *, idempotency_key: str = "") -> dict[str, Any]:
    """Remove a key from a coroutine; as ``map_remove``."""
    return await acall("map_remove", messages.MapRemoveRequest(channel, key, idempotency_key))


# --- shared polls -------------------------------------------------------------------------------


def _polled_value(
    channel: str, key: str, data: Any, *, version: int, epoch: str = ""
) -> msgspec.Struct:
    return _struct(
        messages.SharedPollPublishRequest,
        channel=channel,
        key=key,
        data=_json(data),
        version=version,
        epoch=epoch,
    )


def shared_poll_publish(
    channel: str, key: str, data: Any, *, version: int, epoch: str = "", on_commit: bool = False
) -> dict[str, Any]:
    """
    Push the value of ``key`` to everybody who tracks it in ``channel``, without waiting for the next poll.

    Args:
        channel: The channel's name, in a namespace of type ``shared_poll`` with ``publish_enabled``.
        key: Whose value.
        data: As in ``publish``.
        version: At least 1; one that is not newer than what a server has is dropped there.
        epoch: The generation of the versions, as the backend answers it.
        on_commit: As in ``publish``.

    Returns:
        Nothing: an empty dict.

    Raises:
        ApiError: The server refused.
        EngineError: It could not be asked, or its backend failed.
        RuntimeError: Called on the server's own event loop; use ``ashared_poll_publish`` there.

    """
    request = _polled_value(channel, key, data, version=version, epoch=epoch)
    return _call_now_or_after_commit("shared_poll_publish", request, on_commit)


async def ashared_poll_publish(
    channel: str, key: str, data: Any, *, version: int, epoch: str = ""
) -> dict[str, Any]:
    """Push a value from a coroutine; as ``shared_poll_publish``."""
    request = _polled_value(channel, key, data, version=version, epoch=epoch)
    return await acall("shared_poll_publish", request)


def sign_shared_poll(
    channel: str, keys: Iterable[str], *, user: str = "", ttl: float | None = 3600
) -> str:
    """
    Sign that a user may track some keys of a channel; what ``getSignature`` of the SDK is to return.

    Args:
        channel: The channel's name.
        keys: In the order in which the client asked for them.
        user: The user's id; empty for anonymous clients.
        ttl: How many seconds it is good for; ``None`` for ever. The SDK asks for another one in time.

    Returns:
        ``iat:exp:mac``.

    Raises:
        ValueError: There is no ``shared_poll.hmac_secret_key``, or a key is empty or has a NUL in it.

    """
    now = int(time.time())
    return sign_batch(
        get_options().shared_poll.hmac_secret_key,
        issued_at=now,
        expire_at=0 if ttl is None else now + max(int(ttl), 1),
        user=user,
        channel=channel,
        keys=list(keys),
    )


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


def _map_read_state(
    channel: str, *, limit: int = 0, cursor: str = "", key: str = "", epoch: str = ""
) -> msgspec.Struct:
    """
    Return ``{"entries": [{"key", "data", "tags", "offset", "time"}], "offset", "epoch", "cursor"}``.

    ``limit`` 0 is the position only, -1 everything; a ``"cursor"`` leads to the next page, which gets it and ``epoch``, so that
    a map that was cleared meanwhile is told (112). ``key`` asks for one key.
    """
    return _struct(
        messages.MapReadStateRequest,
        channel=channel,
        limit=limit,
        cursor=cursor,
        key=key,
        revision_epoch=epoch,
    )


def _map_read_stream(
    channel: str, *, limit: int = 0, since: tuple[int, str] | None = None, reverse: bool = False
) -> msgspec.Struct:
    """Return ``{"entries", "offset", "epoch"}``, changes of keys; a removal has ``"removed": True``."""
    offset, epoch = since or (0, "")
    return _struct(
        messages.MapReadStreamRequest,
        channel=channel,
        since_offset=offset,
        since_epoch=epoch,
        limit=limit,
        reverse=reverse,
    )


def _map_stats(channel: str) -> msgspec.Struct:
    """Return ``{"num_keys": int}``, empty for an empty map."""
    return messages.MapStatsRequest(channel)


def _map_clear(channel: str) -> msgspec.Struct:
    """Drop a map's keys, stream and position; its subscribers load it anew."""
    return messages.MapClearRequest(channel)


def _doors(
    method: str, build: Callable[..., msgspec.Struct]
) -> tuple[Callable[..., dict[str, Any]], Callable[..., Awaitable[dict[str, Any]]]]:
    """Make ``method`` and ``amethod`` from what builds their request."""

    @functools.wraps(build)
    def synchronous(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return call(method, build(*args, **kwargs))

    @functools.wraps(build)
    async def asynchronous(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return await acall(method, build(*args, **kwargs))

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
map_read_state, amap_read_state = _doors("map_read_state", _map_read_state)
map_read_stream, amap_read_stream = _doors("map_read_stream", _map_read_stream)
map_stats, amap_stats = _doors("map_stats", _map_stats)
map_clear, amap_clear = _doors("map_clear", _map_clear)
