"""
WebTransport: the client protocol on one bidirectional stream of an HTTP/3 session.

ASGI has no such scope, so this is no ASGI application: the server asks ``refusal_of`` about a session's request and calls
``open_client`` when the peer has opened its stream.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from realtime import bootstrap
from realtime.client.client import Client, Transport
from realtime.consumers.scopes import random_uuid, user_header
from realtime.consumers.websocket import refusal
from realtime.protocol.streams import LengthSplitter, LineSplitter, Splitter
from realtime.protocol.wire import STREAM_JSON, STREAM_PROTOBUF, Wire
from realtime.session.session import Session


Scope = dict[str, Any]
"""As of an ASGI request: ``path``, ``query_string`` and ``headers``."""


def refusal_of(scope: Scope) -> int:
    """Return the HTTP status that refuses a session, or 0."""
    node = bootstrap.running_node()
    if node is None or node.is_draining:
        return 503
    options = node.options.webtransport
    if not options.enabled or scope["path"] != options.handler_prefix:
        return 404
    return refusal(node, scope)


def wire_of(scope: Scope) -> Wire:
    """Return the wire that a session asked for."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return STREAM_PROTOBUF if query.get("cf_protocol") == ["protobuf"] else STREAM_JSON


def splitter_of(wire: Wire) -> Splitter:
    """Return what cuts a stream's bytes into messages; each stream needs its own."""
    limit = bootstrap.get_node().options.webtransport.message_size_limit
    return LineSplitter(limit) if wire.is_json else LengthSplitter(limit)


def open_client(scope: Scope, wire: Wire, transport: Transport) -> Client:
    """Begin a client on a session's stream."""
    node = bootstrap.get_node()
    return Client(
        node,
        Session(random_uuid()),
        wire,
        transport,
        transport_name="webtransport",
        user_header=user_header(node, scope),
    )
