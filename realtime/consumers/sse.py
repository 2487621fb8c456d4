"""Bidirectional sessions by Server-Sent Events: what a browser's ``EventSource`` reads, in JSON."""

from __future__ import annotations

from typing import Any

from realtime import bootstrap
from realtime.consumers.emulation import serve_session
from realtime.consumers.streaming import (
    SSE_CONTENT_TYPE,
    SSE_PREAMBLE,
    cors_headers,
    take_event_source,
)
from realtime.protocol.wire import SSE_JSON


async def sse(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/sse``: the first commands are the query's ``cf_connect``, or a body."""
    node = await bootstrap.ensure_node()
    limit = node.options.sse.max_request_body_size
    commands = await take_event_source(node, scope, receive, send, limit)
    if commands is None:
        return
    await serve_session(
        node,
        scope,
        receive,
        send,
        wire=SSE_JSON,
        name="sse",
        commands=commands,
        headers=(SSE_CONTENT_TYPE, *cors_headers(node, scope)),
        preamble=SSE_PREAMBLE,
    )
