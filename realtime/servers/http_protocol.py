"""
uvicorn's HTTP protocol with two short cuts: the direct API lane, and WebSocket upgrades by our own protocol.

An ASGI request costs some 45 µs before an application has done anything; a request that the lane answers never becomes
one. Answers keep the order of their requests: a request that comes while another one on its connection is being answered
takes uvicorn's way, which queues it, and a lane answer that waits for its backend blocks that queue as an ASGI
request would (``_LaneCycle`` stands where uvicorn looks for the latter).

uvicorn's classes are no documented contract: its version is pinned, and ``tests/live/test_servers_contracts.py``
holds them to what is used here.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from realtime.consumers.streaming import ABORT
from realtime.node.eager import run_promptly
from realtime.servers.connections import DrainableState, HTTPSettings, hand_over
from realtime.servers.handshake import (
    HandshakeError,
    check_upgrade,
    closing_response,
    header_line,
    status_line,
)
from realtime.servers.lanes import LaneCall, LaneResponse


logger = logging.getLogger(__name__)

# Until a request's head is there, and until a lane request's body is (operations: header read 10 s, read 30 s).
HEAD_TIMEOUT_SECONDS = 10.0
BODY_TIMEOUT_SECONDS = 30.0
# How long a peer may go on sending what was refused before its socket is dropped.
DRAIN_SECONDS = 5.0

# A head that the lane keeps in order not to parse it again: callers' heads have some 250 bytes, and there are few.
_MAX_KNOWN_HEAD_BYTES = 2048
_MAX_KNOWN_HEADS = 256

# A request's line and headers; 431 beyond. The reference's HTTP server takes 1 MB, nginx 32 KB.
_MAX_HEAD_BYTES = 256 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WEBSOCKET = b"websocket"


class _LaneCycle:
    """
    A lane request under way, in the place of uvicorn's ``RequestResponseCycle``.

    uvicorn's protocol looks at these attributes of the newest request to decide whether the next one has to wait,
    and what is to happen on shutdown and when the peer leaves.
    """

    __slots__ = (
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "more_body",
        "request",
        "response_complete",
    )

    def __init__(self, request: _Request) -> None:
        self.request = request
        self.keep_alive = request.keep_alive
        self.response_complete = False
        self.disconnected = False
        self.more_body = False
        self.body = bytearray()
        self.message_event = asyncio.Event()


class _Request:
    """
    A lane request's head, with all that is needed to send it through ASGI after all.

    ``length`` is its content-length, -1 where it has none; ``call`` is there once the lane has taken it.
    """

    __slots__ = (
        "call",
        "expects_continue",
        "headers",
        "http_version",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "url",
    )

    def __init__(self, protocol: TidewireHTTP, method: bytes, path: bytes, query: bytes) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.url = protocol.url
        self.headers = protocol.headers
        self.http_version = protocol.parser.get_http_version()
        self.keep_alive = self.http_version != "1.0" and protocol.parser.should_keep_alive()
        self.length = -1
        self.expects_continue = False
        self.call: LaneCall | None = None
        for name, value in self.headers:
            if name == b"content-length":
                self.length = int(value)  # llhttp has seen that it is a number
            elif name == b"expect":
                self.expects_continue = value.lower() == b"100-continue"


class _RefusedError(Exception):
    """Stops the parser; the response has been sent."""


class TidewireHTTP(HttpToolsProtocol):
    """
    One HTTP connection of ``manage.py serve``.

    What is ours comes from the class: see ``http_class``. ``Doorkeeper`` makes it with the first bytes of a connection.
    """

    settings = HTTPSettings()
    known_heads: dict[bytes, _Request] = {}  # noqa: RUF012 -- http_class makes one per server

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, DrainableState)  # production.py gives it to uvicorn
        self._state = server_state
        self._lane = self.settings.lane
        self._request: _Request | None = None  # the lane's, while it is read
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head = b""  # of the read in hand, if a request began with it
        self._is_reading = False  # a request has begun and isn't complete
        self._reading_since = 0.0
        self._head_bytes = 0
        self._has_head = False
        self._is_draining = False
        self._deadline = math.inf
        self._watchdog: asyncio.TimerHandle | None = None

    # -- the transport's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and expect a request within some seconds."""
        super().connection_made(transport)
        self._expect_within(HEAD_TIMEOUT_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a lane request under way goes on, its answer goes nowhere."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._forget_watchdog()

    def data_received(self, data: bytes) -> None:
        """Parse; requests are answered from within."""
        if self._is_draining:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if not self._is_reading and self._is_answered(data):
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_ours():
                self._hand_over(data[upgrade.args[0] :])
                return
            if self._should_upgrade():
                self._forget_watchdog()
                self.handle_websocket_upgrade()
                return
            self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            if not self._is_draining:
                logger.info("invalid HTTP request", extra={"client": self.client})
                self.send_400_response("Invalid HTTP request received.")
            return
        self._set_deadline(len(data))

    def _is_answered(self, data: bytes) -> bool:
        """
        Answer a request whose head is, byte for byte, one that the lane has answered before.

        A caller repeats its head with every request. Not to parse it again saves 11 of the 19 µs that a publish cost here;
        whether the caller may is still decided by the configuration in force.
        """
        body_at = data.find(b"\r\n\r\n") + 4
        if body_at < 4:
            self._head = b""
            return False
        self._head = head = data[:body_at]
        request = self.known_heads.get(head)
        if request is None or len(data) - body_at != request.length or self._is_busy():
            return False
        self._answer(request, data[body_at:])
        self._set_deadline(len(data))
        return True

    # -- the parser's calls

    def on_message_begin(self) -> None:
        """Begin a request; uvicorn's scope waits until it is known that one is needed."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._request = None
        self._is_reading = True
        self._has_head = False
        self._reading_since = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what uvicorn looks for in each is looked for once they are all there."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide whose the request is."""
        self._has_head = True
        lane = self._lane
        if lane is not None and not self._is_busy():
            path, _, query = self.url.partition(b"?")
            method = self.parser.get_method()
            if lane.matches(method, path) and not self.parser.should_upgrade():
                self._begin_lane(_Request(self, method, path, query))
                return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url, self.headers = url, headers
        self.scope["headers"] = headers
        self.scope["extensions"] = self._extensions()
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Collect a lane request's body."""
        request = self._request
        if request is None:
            super().on_body(body)
            return
        self._body_bytes += len(body)
        self._check_body_size(self._body_bytes)
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer a lane request."""
        self._is_reading = False
        request, self._request = self._request, None
        if request is None:
            super().on_message_complete()
            return
        parts, self._body = self._body, []
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        assert self._lane is not None
        request.call = self._lane.open(request.path, request.query, request.headers)
        if request.call is None:
            self._start_asgi(request, body)
            return
        self._answer(request, body)
        self._remember(request, body)

    def _remember(self, request: _Request, body: bytes) -> None:
        """Keep a head of which the whole read was that and its body, and whose caller's key is good."""
        if (
            request.keep_alive
            and not request.expects_continue
            and request.call is not None
            and request.call.is_trusted
            and 0 < len(self._head) <= _MAX_KNOWN_HEAD_BYTES
            and request.length == len(body)
        ):
            if len(self.known_heads) >= _MAX_KNOWN_HEADS:
                self.known_heads.clear()
            self.known_heads[self._head] = request
        self._head = b""  # what follows in the same read begins elsewhere

    def _is_busy(self) -> bool:
        """Say whether a request's answer is still to be finished."""
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn's annotation says
        return cycle is not None and not cycle.response_complete

    # -- the lane

    def _begin_lane(self, request: _Request) -> None:
        self._request = request
        self._body = []
        self._body_bytes = 0
        self._check_body_size(request.length)
        if request.expects_continue and request.http_version == "1.1":
            self.transport.write(_CONTINUE)

    def _check_body_size(self, size: int) -> None:
        if 0 < self.settings.max_body_bytes < size:
            self._refuse(413)
            raise _RefusedError

    def _answer(self, request: _Request, body: bytes) -> None:
        if self._state.is_draining:
            self._respond(request, _UNAVAILABLE, is_kept=False)
            return
        assert request.call is not None
        try:
            response, driven = run_promptly(request.call.answer(body))
        except Exception:
            logger.exception("the direct lane failed")
            self._respond(request, _FAILURE, is_kept=request.keep_alive)
            return
        if response is not None:
            self._state.total_requests += 1
            self._respond(request, response, is_kept=request.keep_alive)
        elif driven is not None:
            cycle = _LaneCycle(request)
            self.cycle = cycle  # type: ignore[assignment]  # it has what uvicorn looks at
            driven.on_end = functools.partial(self._finish_lane, cycle)

    def _finish_lane(
        self, cycle: _LaneCycle, response: LaneResponse | None, error: BaseException | None
    ) -> None:
        """Send the answer of a lane request that had to wait."""
        if response is None:
            response = _FAILURE
            if isinstance(error, asyncio.CancelledError):
                cycle.keep_alive = False
            else:
                logger.error("the direct lane failed", exc_info=error)
        if cycle.disconnected or self.transport.is_closing():
            return
        cycle.response_complete = True
        self._respond(cycle.request, response, is_kept=cycle.keep_alive)
        if self.pipeline:
            self.on_response_complete()
            return
        # What uvicorn does, but for its timer: the deadline serves for that.
        self._state.total_requests += 1
        self.flow.resume_reading()
        self._set_deadline(0)

    def _respond(self, request: _Request, response: LaneResponse, *, is_kept: bool) -> None:
        body = response.body
        self.transport.write(
            b"%bcontent-length: %d\r\n%b\r\n%b"
            % (
                _head(response.status, response.headers, is_kept),
                len(body),
                self._state.encoded_headers,
                b"" if request.method == b"HEAD" else body,
            )
        )
        if self.access_log:
            self.access_logger.info(
                '%s - "%s %s HTTP/%s" %d',
                self._caller(request),
                request.method.decode("ascii"),
                request.url.decode("latin-1"),
                request.http_version,
                response.status,
            )
        if not is_kept:
            self.transport.close()

    def _caller(self, request: _Request) -> str:
        """Return who sent a request, for the access log, as uvicorn writes it for the others."""
        address, trusted = self.client, self.settings.trusted_proxies
        if address and trusted is not None and address[0] in trusted:
            values = [value for name, value in request.headers if name == b"x-forwarded-for"]
            if values:
                forwarded = trusted.get_trusted_client_address(b", ".join(values).decode("latin-1"))
                address = forwarded if forwarded[0] else address
        return f"{address[0]}:{address[1]}" if address else ""

    def _start_asgi(self, request: _Request, body: bytes) -> None:
        """Send a request that has been read whole through ASGI."""
        cycle = RequestResponseCycle(
            scope=self._http_scope(request),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=request.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += body
        cycle.more_body = False
        cycle.message_event.set()
        self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _http_scope(self, request: _Request) -> Any:
        # uvicorn makes the scope in a parser callback; the parser may be within the next request by now.
        reading = (self.url, self.headers, self.expect_100_continue, self.scope)
        super().on_message_begin()
        scope: dict[str, Any] = dict(self.scope)
        self.url, self.headers, self.expect_100_continue, self.scope = reading
        scope.update(
            method=request.method.decode("ascii"),
            http_version=request.http_version,
            path=self.root_path + urllib.parse.unquote(request.path.decode("latin-1")),
            raw_path=self.root_path.encode("ascii") + request.path,
            query_string=request.query,
            headers=request.headers,
            extensions=self._extensions(),
        )
        return scope

    def _extensions(self) -> dict[str, Any]:
        return {ABORT: self.transport.abort}

    # -- upgrades

    def _is_ours(self) -> bool:
        return self._get_upgrade() == _WEBSOCKET and self.url.startswith(
            self.settings.websocket_prefixes
        )

    def _hand_over(self, tail: bytes) -> None:
        """Give the transport, and the bytes behind the request, to a ``FramesProtocol``."""
        if self._is_busy():
            # Its answer would follow a response that isn't there yet. No client does this.
            self.transport.close()
            return
        if self._state.is_draining:
            self._refuse(503)
            return
        try:
            accept = check_upgrade(
                self.parser.get_method(), self.parser.get_http_version(), self.headers
            )
        except HandshakeError as error:
            self._refuse(int(error.status), error.headers)
            return
        self.connections.discard(self)
        self._forget_watchdog()
        hand_over(
            self.transport,
            self.config,
            self._state,
            self.app_state,
            self.settings,
            url=self.url,
            http_version=self.parser.get_http_version(),
            headers=self.headers,
            accept=accept,
            tail=tail,
        )
        self.parser = None  # type: ignore[assignment]  # it refers back to us: free both at once

    # -- refusals and time limits

    def _refuse(self, status: int, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer with an error, end our side of the stream and throw away what the peer still sends."""
        self._is_draining = True
        self.transport.write(
            closing_response(status, (*self.server_state.default_headers, *headers))
        )
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        # To close a socket with unread data is to reset it, and the peer would lose the response.
        self.transport.write_eof()
        self._expect_within(DRAIN_SECONDS)

    def _set_deadline(self, read_bytes: int) -> None:
        """Say how long the peer has for what it owes now; called after each read."""
        if self._is_draining:
            return
        if self._is_reading:
            self._limit_reading(read_bytes)
        elif not self._is_busy():
            self._expect_within(self.timeout_keep_alive)
        else:
            self._deadline = math.inf

    def _limit_reading(self, read_bytes: int) -> None:
        now = self.loop.time()
        if not self._reading_since:
            self._reading_since = now
            self._head_bytes = 0
        if not self._has_head:
            self._head_bytes += read_bytes
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(431)
            else:
                self._expect_within(self._reading_since + HEAD_TIMEOUT_SECONDS - now)
        elif self._request is not None:
            self._expect_within(self._reading_since + BODY_TIMEOUT_SECONDS - now)
        else:
            self._deadline = math.inf  # an ASGI application takes its time

    def _expect_within(self, seconds: float) -> None:
        """Set the deadline; one timer is kept and looks again, since setting one for each request costs more."""
        self._deadline = self.loop.time() + seconds
        if self._watchdog is not None:
            if self._watchdog.when() <= self._deadline:
                return
            self._watchdog.cancel()
        self._watchdog = self.loop.call_later(seconds, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._watchdog = None
        left = self._deadline - self.loop.time()
        if left <= 0:
            self._close_late()
        elif left < math.inf:
            self._watchdog = self.loop.call_later(left, self._look_at_deadline)

    def _close_late(self) -> None:
        if self._is_draining:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.close()

    def _forget_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None


def http_class(settings: HTTPSettings) -> type[TidewireHTTP]:
    """Return the class of a server's HTTP connections; ``doorkeeper_class`` is what uvicorn gets."""
    return type("TidewireHTTP", (TidewireHTTP,), {"settings": settings, "known_heads": {}})


@dataclass(frozen=True, slots=True)
class _Response:
    """A response of this module's own."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


_PLAIN_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_FAILURE = _Response(500, _PLAIN_TEXT, b"Internal Server Error")
_UNAVAILABLE = _Response(503, _PLAIN_TEXT, b"Service Unavailable")


@functools.lru_cache(maxsize=256)
def _head(status: int, headers: tuple[tuple[bytes, bytes], ...], is_kept: bool) -> bytes:
    """Return status line and headers; most answers have one of a few heads."""
    lines = [status_line(status), *(header_line(name, value) for name, value in headers)]
    if not is_kept:
        lines.append(b"connection: close\r\n")
    return b"".join(lines)
