"""
The table of the server API: every door is made from it.

A method is a name, the types of its request and result, and the command that carries it out. The DRF views and
their routes, the direct lane, the legacy stream and the OpenAPI document all read this table.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api.codec import request_decoder
from realtime import commands
from realtime.protocol import api_messages as messages


CommandCoroutine = Callable[[commands.CommandNode, Any], Coroutine[Any, Any, msgspec.Struct]]


@dataclass(frozen=True, slots=True)
class Method:
    """
    One method of the API.

    Attributes:
        name: As in the path and in a batch.
        title: As in the schema: the request is ``<title>Request``, the reply's envelope ``<title>Response``.
        tag: The group in the OpenAPI document.
        request_type: What the body decodes into.
        result_type: What stands under ``result``; of ``batch`` the whole reply.
        command: The coroutine in ``realtime.commands``.
        summary: One line for the OpenAPI document.
        decode: From a body to a request; raises ``MalformedRequest``.

    """

    name: str
    title: str
    tag: str
    request_type: type[msgspec.Struct]
    result_type: type[msgspec.Struct]
    command: CommandCoroutine
    summary: str
    decode: Callable[[bytes], msgspec.Struct] = field(init=False)

    def __post_init__(self) -> None:
        """Make the decoder."""
        object.__setattr__(self, "decode", request_decoder(self.request_type))


def _method(
    name: str,
    title: str,
    tag: str,
    command: CommandCoroutine,
    summary: str,
) -> Method:
    request_type = getattr(messages, f"{title}Request")
    result_type = getattr(messages, f"{title}Result")
    return Method(name, title, tag, request_type, result_type, command, summary)


_PUBLICATION = "publication"
_CONNECTIONS = "connection management"
_PRESENCE = "presence"
_HISTORY = "history"
_STATS = "stats"
_MAP = "map"
_POLL = "shared poll"

BATCH = Method(
    "batch",
    "Batch",
    "batch",
    messages.BatchRequest,
    messages.BatchResponse,
    commands.batch,
    "Carry out several commands.",
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _method("publish", "Publish", _PUBLICATION, commands.publish, "Publish into a channel."),
        _method(
            "broadcast",
            "Broadcast",
            _PUBLICATION,
            commands.broadcast,
            "Publish the same data into many channels.",
        ),
        _method(
            "subscribe",
            "Subscribe",
            _CONNECTIONS,
            commands.subscribe,
            "Subscribe a user's connections to a channel.",
        ),
        _method(
            "unsubscribe",
            "Unsubscribe",
            _CONNECTIONS,
            commands.unsubscribe,
            "Unsubscribe a user's connections from a channel.",
        ),
        _method(
            "disconnect",
            "Disconnect",
            _CONNECTIONS,
            commands.disconnect,
            "Close a user's connections.",
        ),
        _method(
            "refresh",
            "Refresh",
            _CONNECTIONS,
            commands.refresh,
            "Give a user's connections a new expiry.",
        ),
        _method("presence", "Presence", _PRESENCE, commands.presence, "Tell who is in a channel."),
        _method(
            "presence_stats",
            "PresenceStats",
            _PRESENCE,
            commands.presence_stats,
            "Count who is in a channel.",
        ),
        _method("history", "History", _HISTORY, commands.history, "Read a channel's history."),
        _method(
            "history_remove",
            "HistoryRemove",
            _HISTORY,
            commands.history_remove,
            "Drop a channel's history.",
        ),
        _method(
            "channels",
            "Channels",
            _STATS,
            commands.channels,
            "List the channels that have subscribers.",
        ),
        _method("info", "Info", _STATS, commands.info, "Describe the nodes."),
        _method("rpc", "RPC", "rpc", commands.rpc, "Call a function of the application."),
        _method("map_publish", "MapPublish", _MAP, commands.map_publish, "Write a key of a map."),
        _method("map_remove", "MapRemove", _MAP, commands.map_remove, "Remove a key of a map."),
        _method(
            "map_read_state",
            "MapReadState",
            _MAP,
            commands.map_read_state,
            "Read the keys of a map, by pages.",
        ),
        _method(
            "map_read_stream",
            "MapReadStream",
            _MAP,
            commands.map_read_stream,
            "Read the changes of a map.",
        ),
        _method("map_stats", "MapStats", _MAP, commands.map_stats, "Count the keys of a map."),
        _method("map_clear", "MapClear", _MAP, commands.map_clear, "Drop a map."),
        _method(
            "shared_poll_publish",
            "SharedPollPublish",
            _POLL,
            commands.shared_poll_publish,
            "Push a key's value to who tracks it.",
        ),
        BATCH,
    )
}

# The legacy stream names methods by these numbers too (13 is unassigned). What is not in METHODS is known
# there and answered 104.
LEGACY_NUMBERS: dict[int, str] = dict(
    enumerate(
        [
            "publish",
            "broadcast",
            "unsubscribe",
            "disconnect",
            "presence",
            "presence_stats",
            "history",
            "history_remove",
            "channels",
            "info",
            "rpc",
            "subscribe",
            "refresh",
        ]
    )
) | dict(
    enumerate(
        [
            "connections",
            "update_user_status",
            "get_user_status",
            "delete_user_status",
            "block_user",
            "unblock_user",
            "revoke_token",
            "invalidate_user_tokens",
            "device_register",
            "device_update",
            "device_remove",
            "device_list",
            "device_topic_list",
            "device_topic_update",
            "user_topic_list",
            "user_topic_update",
            "send_push_notification",
            "update_push_status",
            "cancel_push",
            "map_publish",
            "map_remove",
            "map_read_state",
            "map_read_stream",
            "map_stats",
            "map_clear",
            "shared_poll_publish",
        ],
        start=14,
    )
)
LEGACY_NAMES = frozenset(LEGACY_NUMBERS.values())
