"""Bidirectional sessions by HTTP streaming: a ``POST`` whose response stays open, JSON or Protobuf."""

from __future__ import annotations

from typing import Any

from realtime import bootstrap
from realtime.consumers.emulation import is_protobuf, serve_session
from realtime.consumers.streaming import cors_headers, take_post
from realtime.protocol.wire import STREAM_JSON, STREAM_PROTOBUF


async def http_stream(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/http_stream``: the body has the first commands, the response all that the server says."""
    node = await bootstrap.ensure_node()
    limit = node.options.http_stream.max_request_body_size
    commands = await take_post(node, scope, receive, send, limit)
    if commands is None:
        return
    await serve_session(
        node,
        scope,
        receive,
        send,
        wire=STREAM_PROTOBUF if is_protobuf(scope) else STREAM_JSON,
        name="http_stream",
        commands=commands,
        headers=cors_headers(node, scope),
    )
