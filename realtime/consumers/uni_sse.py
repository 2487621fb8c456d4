"""Unidirectional sessions by Server-Sent Events: any ``EventSource`` reads them, without an SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from realtime import bootstrap
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
from realtime.consumers.unidirectional import serve_listener
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.wire import UNI_SSE_JSON


if TYPE_CHECKING:
    from realtime.node.node import Node


async def uni_sse(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/uni_sse``: the connect request is the query's ``cf_connect``, or a body; without either it is empty."""
    node = await bootstrap.ensure_node()
    cors = cors_headers(node, scope)
    if scope["method"] not in {"GET", "POST"}:
        await refuse_method(send, cors, b"GET", b"POST")
        return
    if not node.admit():
        await respond(send, 503, cors)
        return
    try:
        text = await _request_text(node, scope, receive)
        if text is None:
            return
        request = UNI_SSE_JSON.decode_connect_request(text)
    except BodyError as error:
        await respond(send, error.status, cors)
        return
    except MalformedFrame:
        await respond(send, 400, cors)
        return
    await serve_listener(
        node,
        scope,
        receive,
        send,
        request,
        node.options.uni_sse.connect_code_to_http_response,
        wire=UNI_SSE_JSON,
        name="uni_sse",
        cors=cors,
        headers=(SSE_CONTENT_TYPE,),
        preamble=SSE_PREAMBLE,
    )


async def _request_text(node: Node, scope: Scope, receive: Receive) -> bytes | None:
    """Return what ``read_body`` would, of either method."""
    # The body is read with GET too, so that its end isn't taken for the peer's.
    body = await read_body(scope, receive, node.options.uni_sse.max_request_body_size)
    if body is None or scope["method"] == "POST":
        return body
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("cf_connect", ["{}"])[0].encode()
