"""Unidirectional sessions by HTTP streaming: a ``POST`` whose response is a push per line."""

from __future__ import annotations

from typing import Any

from realtime import bootstrap
from realtime.consumers.streaming import (
    BodyError,
    answer_preflight,
    cors_headers,
    read_body,
    refuse_method,
    respond,
)
from realtime.consumers.unidirectional import serve_listener
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.wire import UNI_LINES_JSON


async def uni_http_stream(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/uni_http_stream``: the body is the connect request."""
    node = await bootstrap.ensure_node()
    options = node.options.uni_http_stream
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
        body = await read_body(scope, receive, options.max_request_body_size)
        if body is None:
            return
        request = UNI_LINES_JSON.decode_connect_request(body)
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
        options.connect_code_to_http_response,
        wire=UNI_LINES_JSON,
        name="uni_http_stream",
        cors=cors,
    )
