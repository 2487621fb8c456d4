"""
The server API as plain coroutines: ``await publish(node, PublishRequest(...)) -> PublishResult``.

Every door (HTTP, batch, the legacy stream, gRPC, queue consumers, Django code) ends here. A command checks in the
reference's order, raises a ``ClientError`` with the code that the caller is to see, and knows nothing of HTTP, keys or
JSON replies. On an engine that answers at once none of them suspends, so a door can drive one to its end on the spot.

Where we differ from the reference on purpose: ``broadcast`` answers 107 for a channel that isn't of stream type
(it publishes into it), ``unsubscribe`` needs a channel (it tells the client a nameless one), ``disconnect`` with code 0
uses the default (it closes with an illegal code).

Source: ``server-api`` 4-8, ``streams-and-state`` 2-3, 11 and 12.
"""

from __future__ import annotations

from realtime.commands.base import MAX_CONCURRENT, CommandNode
from realtime.commands.batches import batch
from realtime.commands.connections import disconnect, refresh, subscribe, unsubscribe
from realtime.commands.functions import (
    RPCFunction,
    ThreadRunner,
    register_rpc,
    rpc,
    run_threads_with,
    unregister_rpc,
)
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


__all__ = [
    "MAX_CONCURRENT",
    "CommandNode",
    "RPCFunction",
    "ThreadRunner",
    "batch",
    "broadcast",
    "channels",
    "disconnect",
    "history",
    "history_remove",
    "info",
    "map_clear",
    "map_publish",
    "map_read_state",
    "map_read_stream",
    "map_remove",
    "map_stats",
    "presence",
    "presence_stats",
    "publish",
    "refresh",
    "register_rpc",
    "rpc",
    "run_threads_with",
    "shared_poll_publish",
    "subscribe",
    "unregister_rpc",
    "unsubscribe",
]
