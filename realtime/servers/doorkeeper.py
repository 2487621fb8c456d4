"""
Who meets a new connection: it lets WebSocket upgrades under our paths through, and gives all else to ``TidewireHTTP``.

uvicorn's HTTP protocol has some thirty attributes, a flow control and two addresses to ask the system for, which an
upgrade to our own protocol throws away at once. Here such a connection costs one small object until its upgrade has
been read, which saves 30 of the 250 µs that a client's connect cost.

Only the good case is handled: a whole upgrade request in the first read. Whatever else comes, broken requests included,
is for the HTTP protocol to judge and to answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.config import Config

from realtime.node.ticker import Waitlist
from realtime.servers.connections import DrainableState, HTTPSettings, hand_over
from realtime.servers.handshake import HandshakeError, check_upgrade
from realtime.servers.http_protocol import HEAD_TIMEOUT_SECONDS, TidewireHTTP, http_class


class Doorkeeper(asyncio.Protocol):
    """
    One connection before its first bytes.

    uvicorn makes these itself, so what is ours comes from the class: see ``doorkeeper_class``.
    """

    __slots__ = ("_app_state", "_config", "_early", "_loop", "_state", "_transport")

    settings: HTTPSettings
    http: type[TidewireHTTP]
    waiting: Waitlist[Doorkeeper]
    upgrade_starts: tuple[bytes, ...]

    def __init__(
        self,
        config: Config,
        server_state: DrainableState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made sets it
        self._early: bytes | None = None  # what was read of an upgrade that waits for its turn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request within some seconds."""
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]  # it has what uvicorn calls
        self.waiting.add(self, self._loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget who left without a word."""
        self._step_aside()

    def data_received(self, data: bytes) -> None:
        """Look who it is, or, of an upgrade while many come, whose turn it is."""
        if self._early is not None:
            self._early += data
        elif data.startswith(self.upgrade_starts) and not self.settings.handshakes.take():
            self._early = data
            self.waiting.discard(self)  # from here on it is we who let the peer wait
            self._transport.pause_reading()
            self.settings.handshakes.wait(self._take_turn)
        else:
            self._meet(data)

    def _take_turn(self) -> None:
        early, self._early = self._early, None
        if early is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._meet(early)

    def _meet(self, data: bytes) -> None:
        self._step_aside()
        if self._is_upgraded(data):
            return
        http = self.http(self._config, self._state, self._app_state, self._loop)
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
        http.data_received(data)

    def eof_received(self) -> None:
        """Let the transport close itself: there is nobody to answer."""

    def shutdown(self) -> None:
        """End a connection that has said nothing; uvicorn calls this on every connection."""
        self._transport.close()

    def close_late(self) -> None:
        """End a connection that has said nothing for too long."""
        self._transport.close()

    def _step_aside(self) -> None:
        self.waiting.discard(self)
        self._state.connections.discard(self)

    def _is_upgraded(self, data: bytes) -> bool:
        if not data.startswith(self.upgrade_starts) or self._state.is_draining:
            return False
        head = _Head()
        parser = httptools.HttpRequestParser(head)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            tail = data[upgrade.args[0] :]
        except httptools.HttpParserError:
            return False
        else:
            return False
        version = parser.get_http_version()
        try:
            accept = check_upgrade(parser.get_method(), version, head.headers)
        except HandshakeError:
            return False
        hand_over(
            self._transport,
            self._config,
            self._state,
            self._app_state,
            self.settings,
            url=head.url,
            http_version=version,
            headers=head.headers,
            accept=accept,
            tail=tail,
        )
        return True


class _Head:
    """What the parser tells of a request's head."""

    __slots__ = ("headers", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def doorkeeper_class(settings: HTTPSettings) -> type[Doorkeeper]:
    """Return the class to give to uvicorn as ``http``."""
    return type(
        "Doorkeeper",
        (Doorkeeper,),
        {
            "__slots__": (),
            "settings": settings,
            "http": http_class(settings),
            "upgrade_starts": tuple(b"GET " + prefix for prefix in settings.websocket_prefixes),
            "waiting": Waitlist(HEAD_TIMEOUT_SECONDS, Doorkeeper.close_late),
        },
    )
