"""Bidirectional sessions by HTTP streaming: a ``POST`` whose response stays open, JSON or Protobuf."""

from __future__ import annotations

from typing import Any

from realtime import bootstrap
from realtime.consumers.emulation import is_protobuf, serve_session
from realtime.consumers.streaming import (
    BodyError,
    answer_preflight,
    cors_headers,
    read_body,
    refuse_method,
    respond,
)
from realtime.protocol.wire import STREAM_JSON, STREAM_PROTOBUF


async def http_stream(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/http_stream``: the body has the first commands, the response all that the server says."""
    node = await bootstrap.ensure_node()
    cors = cors_headers(node, scope)
    if scope["method"] == "OPTIONS":
        await answer_preflight(send, cors)
        return
    if scope["method"] != "POST":
        await refuse_method(send, cors, b"POST", b"OPTIONS")
        return
    if not node.admit():
        await respond(send, 503, cors)
        return
    try:
        body = await read_body(scope, receive, node.options.http_stream.max_request_body_size)
    except BodyError as error:
        await respond(send, error.status, cors)
        return
    if body is None:
        return
    await serve_session(
        node,
        scope,
        receive,
        send,
        wire=STREAM_PROTOBUF if is_protobuf(scope) else STREAM_JSON,
        name="http_stream",
        commands=body,
        headers=cors,
    )
