"""Unidirectional sessions by Server-Sent Events: any ``EventSource`` reads them, without an SDK."""

from __future__ import annotations

from typing import Any

from realtime import bootstrap
from realtime.consumers.streaming import SSE_CONTENT_TYPE, SSE_PREAMBLE, take_event_source
from realtime.consumers.unidirectional import serve_listener
from realtime.protocol.wire import UNI_SSE_JSON


async def uni_sse(scope: Any, receive: Any, send: Any) -> None:
    """``/connection/uni_sse``: the connect request is the query's ``cf_connect``, or a body; without either it is empty."""
    node = await bootstrap.ensure_node()
    options = node.options.uni_sse
    limit = options.max_request_body_size
    text = await take_event_source(node, scope, receive, send, limit, default=b"{}")
    if text is None:
        return
    await serve_listener(
        node,
        scope,
        receive,
        send,
        text,
        options.connect_code_to_http_response,
        wire=UNI_SSE_JSON,
        name="uni_sse",
        headers=(SSE_CONTENT_TYPE,),
        preamble=SSE_PREAMBLE,
    )
