"""
HTTP/3: a UDP listener beside the TCP one of ``manage.py serve``.

A connection (``Http3Protocol``) carries WebTransport sessions and plain requests; the latter become ASGI requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import unquote

from aioquic.asyncio.protocol import QuicConnectionProtocol, QuicStreamHandler
from aioquic.asyncio.server import QuicServer
from aioquic.h3.connection import ErrorCode, H3Connection, ProtocolError
from aioquic.h3.events import (
    DataReceived,
    H3Event,
    Headers,
    HeadersReceived,
    WebTransportStreamDataReceived,
)
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from realtime.conf.options import TLSOptions
from realtime.consumers.webtransport import refusal_of
from realtime.servers.application import Application
from realtime.servers.http3_exchange import Exchange
from realtime.servers.quic import BoundedQuic, configuration, use_certificate
from realtime.servers.webtransport import WebTransportSession


logger = logging.getLogger(__name__)

# What a stream may bring without anything coming of it: a request's head that has no end, frames of unknown kinds.
_MAX_SILENT_BYTES = 256 * 1024
# Streams beside the client's own that a connection may open before it is ended.
_MAX_REFUSED_STREAMS = 100
# WEBTRANSPORT_BUFFERED_STREAM_REJECTED: for streams that no session wants.
_STREAM_REJECTED = 0x3994BD84
# Browsers look for it in the answer: the draft that they and aioquic speak.
_DRAFT = (b"sec-webtransport-http3-draft", b"draft02")

_LAST_DATAGRAMS_SECONDS = 0.3  # some round trips of a slow network


class Http3Listener:
    """
    Serves HTTP/3 on UDP sockets.

    Args:
        sockets: Bound; closed at the end.
        application: Gets the plain requests.
        tls: Returns the options in force.

    Raises:
        ConfigError: The certificate can't be used.

    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        application: Application,
        tls: Callable[[], TLSOptions],
    ) -> None:
        self._sockets = sockets
        self._application = application
        self._tls = tls
        self._configuration = configuration(tls())
        self._servers: list[QuicServer] = []
        self._connections: set[Http3Protocol] = set()

    async def start(self) -> None:
        """Take datagrams from now on."""
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            _, server = await loop.create_datagram_endpoint(self._make_server, sock=bound)
            self._servers.append(server)

    def connection_count(self) -> int:
        """Return how many connections there are."""
        return len(self._connections)

    def renew(self) -> None:
        """Take the certificate anew, for connections to come; raises as ``Http3Listener`` does."""
        use_certificate(self._configuration, self._tls())

    async def stop(self, grace: float) -> None:
        """Let the sessions and requests that are left end within ``grace`` seconds, then end every connection; acts once."""
        deadline = asyncio.get_running_loop().time() + grace
        for connection in tuple(self._connections):
            await connection.until_idle(deadline)
        if self._connections:
            # The end of a connection takes back what has not arrived: a lost datagram gets time to be sent again.
            await asyncio.sleep(_LAST_DATAGRAMS_SECONDS)
        for connection in tuple(self._connections):
            connection.end()
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def _make_server(self) -> QuicServer:
        return QuicServer(
            configuration=self._configuration,
            create_protocol=self._make_connection,
            # An address that has not shown to be the sender's own costs no memory here; it takes one more round trip.
            retry=True,
        )

    def _make_connection(
        self, quic: QuicConnection, stream_handler: QuicStreamHandler | None = None
    ) -> Http3Protocol:
        bounded = BoundedQuic.take_over(quic)
        return Http3Protocol(bounded, self._application, self._connections)


class Http3Protocol(QuicConnectionProtocol):
    """
    One connection; the ``Carrier`` of its sessions and exchanges.

    Args:
        quic: Below it.
        application: Gets the plain requests.
        connections: Has this one while it lives.

    """

    _quic: BoundedQuic

    def __init__(
        self, quic: BoundedQuic, application: Application, connections: set[Http3Protocol]
    ) -> None:
        super().__init__(quic)
        self._application = application
        self._connections = connections
        self._http: H3Connection | None = None
        self._is_lost = False
        self._sessions: dict[int, WebTransportSession] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._silent: dict[int, int] = {}
        self._refused_streams = 0
        self._became_idle = asyncio.Event()
        self._became_idle.set()
        connections.add(self)

    # --- what aioquic calls ----------------------------------------------------------------------

    def quic_event_received(self, event: QuicEvent) -> None:
        """Carry an event to whom it concerns."""
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic, enable_webtransport=True)
        elif isinstance(event, ConnectionTerminated):
            self._lose()
        elif self._http is not None:
            happened = self._http.handle_event(event)
            if isinstance(event, StreamDataReceived):
                self._count_silence(event, happened)
            for each in happened:
                self._on_http_event(each)
            if isinstance(event, StreamReset | StopSendingReceived):
                self._on_reset(event.stream_id)

    def transmit(self) -> None:
        """Send what is due, then look who doesn't read."""
        super().transmit()
        for session in tuple(self._sessions.values()):
            session.on_transmitted()
        for exchange in tuple(self._exchanges.values()):
            exchange.on_transmitted()

    # --- Carrier ---------------------------------------------------------------------------------

    def write(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        """Send on a stream as it is; the datagrams of one round leave together."""
        if self._is_lost:
            return
        # The peer may have stopped the stream: the event that says so is still to come.
        with contextlib.suppress(RuntimeError, ValueError):
            self._quic.send_stream_data(stream_id, data, is_last)
        self._transmit_soon()

    def write_head(self, stream_id: int, headers: Headers, *, is_last: bool = False) -> None:
        """Send the head of an answer."""
        if self._is_lost or self._http is None:
            return
        with contextlib.suppress(RuntimeError, ValueError, ProtocolError):
            self._http.send_headers(stream_id, headers, is_last)
        self._transmit_soon()

    def write_body(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        """Send in a DATA frame of a request's stream."""
        if self._is_lost or self._http is None:
            return
        with contextlib.suppress(RuntimeError, ValueError, ProtocolError):
            self._http.send_data(stream_id, data, is_last)
        self._transmit_soon()

    def reset(self, stream_id: int, code: int) -> None:
        """Drop what a stream has not delivered, in both directions."""
        if self._is_lost:
            return
        with contextlib.suppress(ValueError):  # the stream is done with
            self._quic.reset_stream(stream_id, code)
            self._quic.stop_stream(stream_id, code)
        self._quic.paused_streams.discard(stream_id)
        self._transmit_soon()

    def unsent_bytes(self, stream_id: int) -> int:
        """Return what was written to a stream and not sent yet."""
        return self._quic.unsent_bytes(stream_id)

    def pause_reading(self, stream_id: int) -> None:
        """Let the peer send no more on a stream than its window has left."""
        self._quic.paused_streams.add(stream_id)

    def resume_reading(self, stream_id: int) -> None:
        """Widen the window again."""
        self._quic.paused_streams.discard(stream_id)
        self._transmit_soon()

    def forget(self, session: WebTransportSession, *, is_stuck: bool) -> None:
        """Hear that a session is over."""
        self._sessions.pop(session.session_id, None)
        self._look_idle()
        if is_stuck and not self._sessions and not self._exchanges and not self._is_lost:
            # aioquic keeps what was written until the peer has it, which may be never.
            self.transmit()
            self.close(error_code=ErrorCode.H3_NO_ERROR)

    def forget_exchange(self, stream_id: int) -> None:
        """Hear that a request has been answered, or can't be."""
        self._exchanges.pop(stream_id, None)
        self._quic.paused_streams.discard(stream_id)
        self._look_idle()

    # --- life ------------------------------------------------------------------------------------

    async def until_idle(self, deadline: float) -> None:
        """Wait until no session and no request is left, at most to ``deadline`` on the loop's clock."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._became_idle.wait()

    def end(self) -> None:
        """Close the connection with whatever is left on it."""
        self.close(error_code=ErrorCode.H3_NO_ERROR)
        self._lose()

    def _look_idle(self) -> None:
        if self._sessions or self._exchanges:
            self._became_idle.clear()
        else:
            self._became_idle.set()

    def _lose(self) -> None:
        self._is_lost = True
        self._connections.discard(self)
        for session in tuple(self._sessions.values()):
            session.on_lost()
        for exchange in tuple(self._exchanges.values()):
            exchange.on_lost()

    # --- events ----------------------------------------------------------------------------------

    def _count_silence(self, event: StreamDataReceived, happened: list[H3Event]) -> None:
        """End a connection that sends what the HTTP layer keeps and never makes anything of."""
        if happened or event.end_stream:
            self._silent.pop(event.stream_id, None)
            return
        silent = self._silent.get(event.stream_id, 0) + len(event.data)
        self._silent[event.stream_id] = silent
        if silent > _MAX_SILENT_BYTES:
            self.close(error_code=ErrorCode.H3_EXCESSIVE_LOAD)

    def _on_http_event(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self._on_head(event)
        elif isinstance(event, WebTransportStreamDataReceived):
            session = self._sessions.get(event.session_id)
            if session is None or event.stream_id % 4 or not session.take_stream(event.stream_id):
                self._refuse_stream(event.stream_id)
            else:
                session.on_stream_data(event.data, is_last=event.stream_ended)
        elif isinstance(event, DataReceived):
            session = self._sessions.get(event.stream_id)
            exchange = self._exchanges.get(event.stream_id)
            if session is not None:
                session.on_capsules(event.data, is_last=event.stream_ended)
            elif exchange is not None:
                exchange.on_body(event.data, is_last=event.stream_ended)

    def _on_head(self, event: HeadersReceived) -> None:
        stream_id = event.stream_id
        if stream_id in self._sessions:
            self._sessions[stream_id].on_capsules(b"", is_last=True)
            return
        if stream_id in self._exchanges:  # trailers
            self._exchanges[stream_id].on_body(b"", is_last=event.stream_ended)
            return
        pseudo = dict(event.headers)
        if b":method" not in pseudo:  # trailers of a request that has been answered
            return
        scope = self._scope_of(event.headers)
        if pseudo.get(b":method") != b"CONNECT":
            exchange = Exchange(self, stream_id, scope)
            self._exchanges[stream_id] = exchange
            exchange.begin(self._application)
            if event.stream_ended:
                exchange.on_body(b"", is_last=True)
        elif pseudo.get(b":protocol") == b"webtransport":
            self._open_session(stream_id, scope)
        else:
            self._answer(stream_id, 501)
        self._look_idle()

    def _open_session(self, stream_id: int, scope: dict[str, Any]) -> None:
        status = refusal_of(scope)
        if status:
            self._answer(stream_id, status)
            return
        self._sessions[stream_id] = WebTransportSession(self, stream_id, scope)
        self.write_head(stream_id, [(b":status", b"200"), _DRAFT])

    def _answer(self, stream_id: int, status: int) -> None:
        self.write_head(stream_id, [(b":status", b"%d" % status)], is_last=True)

    def _on_reset(self, stream_id: int) -> None:
        self._silent.pop(stream_id, None)
        exchange = self._exchanges.get(stream_id)
        if exchange is not None:
            exchange.on_lost()
            return
        for session in tuple(self._sessions.values()):
            if session.on_stream_reset(stream_id):
                return

    def _refuse_stream(self, stream_id: int) -> None:
        """Refuse a stream that no session is for; the HTTP layer keeps a little of each, so their number is bounded."""
        self._refused_streams += 1
        if self._refused_streams > _MAX_REFUSED_STREAMS:
            self.close(error_code=ErrorCode.H3_EXCESSIVE_LOAD)
            return
        with contextlib.suppress(ValueError):
            self._quic.stop_stream(stream_id, _STREAM_REJECTED)
            if stream_id % 4 == 0:
                self._quic.reset_stream(stream_id, _STREAM_REJECTED)

    def _scope_of(self, headers: Headers) -> dict[str, Any]:
        """Make the scope of a request as ASGI has it."""
        pseudo = {name: value for name, value in headers if name.startswith(b":")}
        raw_path, _, query = pseudo.get(b":path", b"/").partition(b"?")
        plain = [(name, value) for name, value in headers if not name.startswith(b":")]
        if b"host" not in dict(plain):
            plain.insert(0, (b"host", pseudo.get(b":authority", b"")))
        server = cast("asyncio.DatagramTransport", self._transport).get_extra_info("sockname")
        address = self._quic.get_peer_address()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "3",
            "method": pseudo.get(b":method", b"").decode("latin-1"),
            "scheme": "https",
            "path": unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": plain,
            "client": tuple(address[:2]) if address else None,
            "server": tuple(server[:2]) if server else None,
            "extensions": {},
        }
