"""What the HTTP connections of a server share, and how one of them becomes a WebSocket."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from realtime.servers.extension import FramesSettings
from realtime.servers.frames_protocol import FramesProtocol, Upgrade
from realtime.servers.handshake import (
    subprotocols_of,
)
from realtime.servers.lanes import Lane
from realtime.servers.pacing import HANDSHAKES_PER_ROUND, Turns


@dataclass(frozen=True, slots=True)
class HTTPSettings:
    """
    What ``TidewireHTTP`` needs besides uvicorn's own configuration.

    Attributes:
        lane: The direct lane, or ``None``.
        max_body_bytes: A lane request with a larger body gets 413. 0 sets no limit; by default there is one, since a body
            is in memory before its API key is known.
        websocket_prefixes: Raw path prefixes whose upgrades ``FramesProtocol`` takes.
        direct_websockets: Consumers that need no ASGI, by path; see ``NodeApplication``.
        frames: Limits of those connections.
        frames_by_path: Limits of those under paths that have their own.
        handshakes: Their turns; all connections of a server share them.
        trusted_proxies: Whose ``X-Forwarded-For`` counts, as uvicorn keeps it, or ``None``.

    """

    lane: Lane | None = None
    max_body_bytes: int = 32 * 1024 * 1024
    websocket_prefixes: tuple[bytes, ...] = (b"/connection/",)
    direct_websockets: Mapping[str, Callable[[Upgrade], object]] = field(default_factory=dict)
    frames: FramesSettings = field(default_factory=FramesSettings)
    frames_by_path: Mapping[str, FramesSettings] = field(default_factory=dict)
    handshakes: Turns = field(default_factory=lambda: Turns(HANDSHAKES_PER_ROUND))
    trusted_proxies: Any = None


class DrainableState(ServerState):
    """uvicorn's state that all connections share, with one more fact."""

    is_draining = False
    """Whether the server is on its way out: upgrades and lane requests get 503."""

    def __init__(self) -> None:
        super().__init__()
        self._encoded: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    @property
    def encoded_headers(self) -> bytes:
        """``default_headers`` as they are written; uvicorn makes a new list each second, for the date."""
        headers, text = self._encoded
        if headers is not self.default_headers:
            headers = self.default_headers
            text = b"".join(b"%b: %b\r\n" % header for header in headers)
            self._encoded = (headers, text)
        return text


def hand_over(
    transport: asyncio.Transport,
    config: Config,
    state: DrainableState,
    app_state: dict[str, Any],
    settings: HTTPSettings,
    *,
    url: bytes,
    http_version: str,
    headers: list[tuple[bytes, bytes]],
    accept: bytes,
    tail: bytes,
) -> None:
    """
    Give a transport, whose peer asked for an upgrade, to a ``FramesProtocol`` and to the application.

    Args:
        transport: Its protocol is set.
        config: uvicorn's.
        state: Where live connections and tasks are kept.
        app_state: The lifespan's state; the scope gets a copy.
        settings: Limits, and what is run on the spot.
        url: Raw, with the query.
        http_version: ``"1.1"``.
        headers: Names in lower case.
        accept: The value of ``Sec-WebSocket-Accept``.
        tail: What was read behind the request's head.

    """
    raw_path, _, query = url.partition(b"?")
    path = raw_path.decode("latin-1")
    connections: set[Any] = state.connections
    connection = FramesProtocol(settings.frames_by_path.get(path, settings.frames), connections)
    consume = settings.direct_websockets.get(path)
    if consume is not None:
        connection.start_directly(
            transport, tail, Upgrade(connection, headers, query, accept), consume
        )
        return
    scope: MutableMapping[str, Any] = {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": http_version,
        "scheme": "wss" if is_ssl(transport) else "ws",
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "root_path": config.root_path,
        "path": config.root_path + (urllib.parse.unquote(path) if "%" in path else path),
        "raw_path": config.root_path.encode("ascii") + raw_path,
        "query_string": query,
        "headers": headers,
        "subprotocols": subprotocols_of(headers),
        "state": app_state.copy(),
    }
    task = connection.start(transport, scope, accept, tail, config.loaded_app)
    state.tasks.add(task)
    task.add_done_callback(state.tasks.discard)
