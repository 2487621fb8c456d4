"""Bidirectional sessions by Server-Sent Events: what a browser's ``EventSource`` reads, in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from realtime import bootstrap
from realtime.consumers.emulation import serve_session
from realtime.consumers.streaming import (
    SSE_CONTENT_TYPE,
    SSE_PREAMBLE,
    BodyError,
    Receive,
    Scope,
    cors_headers,
    read_body,
    refuse_method,
    respond,
)
from realtime.protocol.wire import SSE_JSON


if TYPE_CHECKING:
    from realtime.node.node import Node


async def sse(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/sse``: the first commands are the query's ``cf_connect``, or a body."""
    node = await bootstrap.ensure_node()
    cors = cors_headers(node, scope)
    if scope["method"] not in {"GET", "POST"}:
        await refuse_method(send, cors, b"GET", b"POST")
        return
    if not node.admit():
        await respond(send, 503, cors)
        return
    try:
        commands = await _first_commands(node, scope, receive)
    except BodyError as error:
        await respond(send, error.status, cors)
        return
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
        headers=(SSE_CONTENT_TYPE, *cors),
        preamble=SSE_PREAMBLE,
    )


async def _first_commands(node: Node, scope: Scope, receive: Receive) -> bytes | None:
    """Return what ``read_body`` would, of either method."""
    # The body is read with GET too, so that its end isn't taken for the peer's.
    body = await read_body(scope, receive, node.options.sse.max_request_body_size)
    if body is None or scope["method"] == "POST":
        return body
    text: bytes = scope.get("query_string", b"")
    query = parse_qs(text.decode("latin-1"))
    if "cf_connect" not in query:
        raise BodyError(400)
    return query["cf_connect"][0].encode()
