"""Unidirectional sessions in responses that stay open: what ``uni_sse`` and ``uni_http_stream`` have in common."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from realtime.client.unidirectional import Refusal, UnidirectionalClient
from realtime.consumers.scopes import random_uuid, user_header
from realtime.consumers.streaming import (
    Headers,
    Receive,
    Scope,
    Send,
    StreamTransport,
    cors_headers,
    respond,
)
from realtime.protocol.errors import Disconnect
from realtime.protocol.framing import MalformedFrame
from realtime.session.session import Session


if TYPE_CHECKING:
    from realtime.conf.options import HTTPResponseTransformsOptions
    from realtime.node.node import Node
    from realtime.protocol.wire import Wire

logger = logging.getLogger(__name__)

_PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_WITHOUT_BODY = frozenset({204, 205, 304})


async def serve_listener(
    node: Node,
    scope: Scope,
    receive: Receive,
    send: Send,
    text: bytes,
    responses: HTTPResponseTransformsOptions,
    *,
    wire: Wire,
    name: str,
    headers: Headers = (),
    preamble: bytes = b"",
) -> None:
    """
    Serve a stream until it ends.

    Args:
        node: This process's.
        scope: The HTTP request's.
        receive: The HTTP request's; its body has been read.
        send: The HTTP request's; nothing has been sent.
        text: The connect request, not read yet; one that is malformed is answered with 400.
        responses: Where they are on, a refused connect is answered by an HTTP status in place of a stream.
        wire: How messages look.
        name: The transport's, for logs and metrics.
        headers: Headers of a stream, besides those that all streams have.
        preamble: Sent before any message.

    """
    cors = cors_headers(node, scope)
    try:
        request = wire.decode_connect_request(text)
    except MalformedFrame:
        await respond(send, 400, cors)
        return
    transport = StreamTransport(node, wire, scope, receive, send)
    client = transport.client = UnidirectionalClient(
        node,
        Session(random_uuid(), random_uuid()),
        wire,
        transport,
        transport_name=name,
        user_header=user_header(node, scope),
    )
    try:
        if responses.enabled:
            refusal = await client.let_in(request)
            if refusal is not None:
                status, body = _response_for(refusal, responses)
                logger.info("connect refused", extra={"transport": name, "status": status})
                await respond(send, status, (_PLAIN_TEXT, *cors), body)
                return
        await transport.serve(
            lambda: client.connect(request), headers=(*headers, *cors), preamble=preamble
        )
    finally:
        client.on_close()


def _response_for(refusal: Refusal, responses: HTTPResponseTransformsOptions) -> tuple[int, bytes]:
    """Return status and body."""
    for each in responses.transforms:
        if each.code == refusal.code:
            text = refusal.reason if isinstance(refusal, Disconnect) else refusal.message
            status = each.to.status_code
            return status, b"" if status in _WITHOUT_BODY else (each.to.body or text).encode()
    return 500, b"Internal Server Error"
