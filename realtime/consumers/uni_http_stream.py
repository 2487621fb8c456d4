"""Unidirectional sessions by HTTP streaming: a ``POST`` whose response is a push per line."""

from __future__ import annotations

from typing import Any

from realtime import bootstrap
from realtime.consumers.streaming import take_post
from realtime.consumers.unidirectional import serve_listener
from realtime.protocol.wire import UNI_LINES_JSON


async def uni_http_stream(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/uni_http_stream``: the body is the connect request."""
    node = await bootstrap.ensure_node()
    options = node.options.uni_http_stream
    text = await take_post(node, scope, receive, send, options.max_request_body_size)
    if text is None:
        return
    await serve_listener(
        node,
        scope,
        receive,
        send,
        text,
        options.connect_code_to_http_response,
        wire=UNI_LINES_JSON,
        name="uni_http_stream",
    )
