"""
The frames extension on Daphne, for ``runserver`` and ``daphne project.asgi:application``.

Daphne keeps its WebSocket implementation (autobahn's) and gains what it lacks: the extension, close reasons, 1009 for
messages that are too large, the headers that an application accepts with, and an end that sends clients away with 3001.

``install`` replaces classes where Daphne looks them up, so it must run before the server is built: when ``project.asgi``
is imported. Several names are Daphne's, autobahn's or Twisted's private ones; ``tests/live/test_servers_contracts.py`` holds
the pinned versions to them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import daphne.http_protocol
import daphne.server
from autobahn.websocket.types import ConnectionDeny
from daphne.http_protocol import WebRequest
from daphne.server import Server
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer  # type: ignore[attr-defined]  # it marks no exports

from realtime.consumers.streaming import ABORT
from realtime.protocol.errors import SERVER_ERROR
from realtime.protocol.wire import frame
from realtime.servers.access_log import without_secrets
from realtime.servers.extension import (
    CLOSE_TIMEOUT_SECONDS,
    EXTENSION,
    FramesHandler,
    FramesSettings,
)
from realtime.servers.frame_codec import ABNORMAL, TEXT
from realtime.servers.limits import BACKLOG
from realtime.servers.pacing import Turns


logger = logging.getLogger(__name__)

# How long sockets that were sent away may take to close before the process goes on to end.
_FAREWELL_SECONDS = CLOSE_TIMEOUT_SECONDS + 1
# How long a response may take to its end: a stream's last message waits no longer than its write timeout.
_RESPONSE_SECONDS = 2.0
_DRAIN_PER_SECOND = 1000
_MAX_DRAIN_SECONDS = 5.0
# A handshake costs some 2 ms here, and one API request takes several rounds. With 1,000 clients at once a subscriber who had
# stayed waited 3.5 s at the median without turns, 0.8-1.6 s with 32 a round, 0.01-0.8 s with 2; all were back as soon.
_HANDSHAKES_PER_ROUND = 2


async def _nothing(*_: object) -> None:
    """Stand where no application has been installed."""


@dataclass(frozen=True, slots=True)
class DaphneHooks:
    """
    What our classes call.

    Attributes:
        frames: Limits of a connection; compression is not offered here.
        frames_by_path: Limits of those under paths that have their own.
        start: Called when Daphne serves, which has no lifespan: the first request starts the node, unless it must be there
            before, since it listens on ports of its own.
        drain: Sends all clients away within so many seconds.
        stop: Stops the node.
        ignored: What is asked for and has no effect here, for the log.

    """

    frames: FramesSettings = field(default_factory=FramesSettings)
    frames_by_path: Mapping[str, FramesSettings] = field(default_factory=dict)
    start: Callable[[], Awaitable[object]] = _nothing
    drain: Callable[[float], Awaitable[object]] = _nothing
    stop: Callable[[], Awaitable[object]] = _nothing
    ignored: Sequence[str] = ()


def _ignore(*_: object) -> None:
    """Drop what can't be delivered any more."""


@implementer(IPushProducer)
class TwistedFrames:
    """
    One connection's extension object and, after ``attach``, its ``FramesConnection``.

    To Twisted it is the producer whose bytes fill the transport's buffer: that is how a pause is announced.
    """

    negotiated_compression = False

    def __init__(self, protocol: FramesWebSocketProtocol) -> None:
        self._protocol = protocol
        self._handler: FramesHandler | None = None
        self._write: Callable[[bytes], object] = _ignore
        self._cork: list[bytes] | None = None
        self._inbox: deque[tuple[bytes, bool]] = deque()
        self._is_held = True  # messages wait in the inbox
        self._wants_input = True
        self.is_attached = False

    @property
    def _transport(self) -> Any:
        return self._protocol.transport  # None once the connection is lost

    # -- the extension

    def attach(self, handler: FramesHandler) -> TwistedFrames:
        """Hand the connection over; see ``FramesExtension``."""
        protocol = self._protocol
        if self.is_attached or protocol.state == protocol.STATE_CONNECTING:
            raise RuntimeError("attach() comes once, after websocket.accept")
        self.is_attached = True
        loop = asyncio.get_running_loop()
        if protocol.state != protocol.STATE_OPEN:
            loop.call_soon(self._tell_close, handler, protocol.remoteCloseCode or ABNORMAL)
            return self
        self._handler = handler
        self._write = self._transport.write
        self._inbox.extend(protocol.take_messages())
        # The HTTP channel that the connection began as is still registered after the upgrade.
        self._transport.unregisterProducer()
        self._transport.registerProducer(self, True)
        loop.call_soon(self._go_on)
        return self

    def write(self, framed: bytes) -> None:
        """Send ready-made frames; collected while messages are being handed in."""
        if self._cork is None:
            self._write(framed)
        else:
            self._cork.append(framed)

    def direct_write(self, framed: bytes) -> None:
        """Send without collecting."""
        self._write(framed)

    def write_message(self, payload: bytes, opcode: int = TEXT) -> None:
        """Frame and send one message."""
        self.write(frame(payload, opcode))

    def compress_frame(self, payload: bytes, opcode: int = TEXT) -> bytes:
        """Return a plain frame: there is no compression here."""
        return frame(payload, opcode)

    def uncork(self) -> None:
        """Send what has been collected."""
        if self._cork:
            collected = b"".join(self._cork)
            self._cork.clear()
            self._write(collected)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a handshake of at most 5 s."""
        self._protocol.close(code, reason)

    def drop(self) -> None:
        """End without a close frame."""
        if self._handler is None:
            return
        self.uncork()
        # Twisted closes a connection only once no producer is registered.
        self._transport.unregisterProducer()
        self._protocol.dropConnection()
        loop = asyncio.get_running_loop()
        loop.call_later(CLOSE_TIMEOUT_SECONDS, self._abort)
        loop.call_soon(self.finish, ABNORMAL)

    def _abort(self) -> None:
        """Have an end even with a peer that doesn't read."""
        if self._transport is not None:
            self._transport.abortConnection()

    def buffer_size(self) -> int:
        """Return how many bytes wait for the peer to read."""
        transport = self._transport
        # TLS wraps the transport that has the buffer.
        transport = getattr(transport, "transport", transport)
        # Twisted keeps it in two parts and has no name for their sum.
        return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)  # noqa: SLF001

    def pause_reading(self) -> None:
        """Take no more messages for now."""
        if self._handler is not None:
            self._wants_input = False
            self._is_held = True
            self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """Take messages again, by ``call_soon``."""
        if self._handler is not None and not self._wants_input:
            self._wants_input = True
            asyncio.get_running_loop().call_soon(self._go_on)

    # -- what the protocol tells

    def begin_read(self) -> None:
        """Collect what is written from here on."""
        self._cork = []

    def end_read(self) -> None:
        """Send what was collected in one write."""
        self.uncork()
        self._cork = None

    def on_message(self, payload: bytes, is_text: bool) -> None:
        """Hand a message in, or keep it while reading is paused."""
        if self._is_held:
            self._inbox.append((payload, is_text))
        elif self._handler is not None:
            self._deliver(self._handler, payload, is_text)

    def on_close_frame_sent(self, code: int | None) -> None:
        """Learn that nothing may follow: our close frame is in the buffer."""
        self._write = _ignore
        self._cork = None
        if self.is_attached:
            # Twisted closes a connection only once no producer is registered.
            self._transport.unregisterProducer()
            if not self._wants_input:
                self._transport.resumeProducing()
            asyncio.get_running_loop().call_soon(self.finish, code or 1005)

    def on_pong(self) -> None:
        """Tell the handler of a PONG frame."""
        if self._handler is not None:
            self._call(self._handler.on_pong)

    def finish(self, code: int) -> None:
        """Tell the handler, once, that the connection is over."""
        handler, self._handler = self._handler, None
        self._write = _ignore
        self._inbox.clear()
        if handler is not None:
            self._tell_close(handler, code)

    # -- IPushProducer

    def pauseProducing(self) -> None:  # noqa: N802 -- Twisted's name
        """Pass on that the peer doesn't read."""
        if self._handler is not None:
            self._call(self._handler.on_pause)

    def resumeProducing(self) -> None:  # noqa: N802 -- Twisted's name
        """Pass on that the peer reads again."""
        if self._handler is not None:
            self._call(self._handler.on_resume)

    def stopProducing(self) -> None:  # noqa: N802 -- Twisted's name
        """Hear that the connection is lost; ``onClose`` says it too."""

    # -- inside

    def _go_on(self) -> None:
        """Hand in what waits, then what comes; if it was paused again meanwhile, or is gone, do nothing."""
        if not self._wants_input or self._handler is None:
            return
        self._is_held = False
        self.begin_read()
        while self._inbox and (handler := self._ready_handler()) is not None:
            self._deliver(handler, *self._inbox.popleft())
        self.end_read()
        if self._ready_handler() is not None:
            self._transport.resumeProducing()

    def _ready_handler(self) -> FramesHandler | None:
        """Return who takes messages now."""
        return None if self._is_held else self._handler

    def _deliver(self, handler: FramesHandler, payload: bytes, is_text: bool) -> None:
        try:
            handler.on_message(payload, is_text)
        except Exception:
            logger.exception("a connection's handler failed")
            self.close(*SERVER_ERROR)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            logger.exception("a connection's handler failed")
            self.close(*SERVER_ERROR)

    @staticmethod
    def _tell_close(handler: FramesHandler, code: int) -> None:
        try:
            handler.on_close(code)
        except Exception:
            logger.exception("a connection's on_close failed")


class FramesWebSocketProtocol(WebSocketProtocol):
    """Daphne's WebSocket connection with the extension."""

    frames: TwistedFrames | None = None
    _accept_headers: dict[str, list[str]] | None = None
    _response: Any = None

    def take_messages(self) -> list[tuple[bytes, bool]]:
        """Take out what came before the consumer attached."""
        messages = []
        while not self.application_queue.empty():
            event = self.application_queue.get_nowait()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                messages.append((event["bytes"], False) if text is None else (text.encode(), True))
        return messages

    def close(self, code: int, reason: str) -> None:
        """Send what is collected and a close frame, also with codes that autobahn keeps for itself."""
        if self.state != self.STATE_OPEN:
            return
        if self.frames is not None:
            self.frames.uncork()
        text = reason.encode()[:123].decode(errors="ignore").encode()
        self.sendCloseFrame(code=code, reasonUtf8=text or None)

    # -- autobahn's calls

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 -- Twisted's name
        """Read; all replies leave in one write."""
        frames = self.frames
        if frames is None or not frames.is_attached:
            super().dataReceived(data)
            return
        frames.begin_read()
        super().dataReceived(data)
        frames.end_read()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803 -- autobahn's names
        """Give a message to whoever has the connection."""
        frames = self.frames
        if frames is None or not frames.is_attached:
            super().onMessage(payload, isBinary)
            return
        if self.state == self.STATE_OPEN:
            frames.on_message(payload, not isBinary)

    def onPong(self, payload: bytes) -> None:  # noqa: N802 -- autobahn's name
        """Tell whoever has the connection."""
        if self.frames is not None:
            self.frames.on_pong()

    def sendCloseFrame(  # noqa: N802 -- autobahn's name
        self,
        code: int | None = None,
        reasonUtf8: bytes | None = None,  # noqa: N803
        isReply: bool = False,  # noqa: N803
    ) -> None:
        """Send a close frame, the first time, and have it be the last thing that is sent."""
        if self.state == self.STATE_OPEN:
            super().sendCloseFrame(code, reasonUtf8, isReply)
            if self.frames is not None:
                self.frames.on_close_frame_sent(self.remoteCloseCode if isReply else code)

    def _fail_connection(self, code: int = 1001, reason: str = "") -> None:
        """Keep autobahn's explanations of 1002, 1007 and 1009 at home: the reference sends none."""
        logger.debug("failing a connection with %d: %s", code, reason)
        super()._fail_connection(code, "")

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N802, N803
        """Tell both sides that the socket is gone."""
        if self.frames is not None:
            self.frames.finish(code or ABNORMAL)
        super().onClose(wasClean, code, reason)

    # -- Daphne's calls

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Carry out what the application sends."""
        kind = message["type"]
        if kind == "websocket.accept":
            headers: dict[str, list[str]] = {}
            for name, value in message.get("headers", ()):
                headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
            self._accept_headers = headers
        elif kind == "websocket.close" and self.state != self.STATE_CONNECTING:
            self.close(message.get("code", 1000), message.get("reason") or "")
            return
        elif kind == "websocket.send" and self.state == self.STATE_OPEN:
            # Daphne's own code drops empty messages.
            payload = message.get("bytes")
            if payload is None:
                self.sendMessage(message["text"].encode(), False)
            else:
                self.sendMessage(payload, True)
            return
        elif kind.startswith("websocket.http.response"):
            self._answer_http(kind, message)
            return
        super().handle_reply(message)

    def serverAccept(self, subprotocol: str | None = None) -> None:  # noqa: N802 -- Daphne's name
        """Accept with the application's headers too."""
        handshake = self.handshake_deferred
        del self.handshake_deferred
        handshake.callback((subprotocol, self._accept_headers or {}))

    def _answer_http(self, kind: str, message: dict[str, Any]) -> None:
        """Refuse the handshake with a status of the application's choice; its body is left out."""
        if kind == "websocket.http.response.start":
            self._response = message["status"]
        elif not message.get("more_body", False) and self.state == self.STATE_CONNECTING:
            handshake = self.handshake_deferred
            del self.handshake_deferred
            handshake.errback(ConnectionDeny(code=self._response, reason=""))
            self.server.protocol_disconnected(self)


class FramesFactory(WebSocketFactory):
    """Daphne's factory with our protocol and the limits that it has no option for."""

    protocol = FramesWebSocketProtocol

    def setProtocolOptions(self, *args: Any, **options: Any) -> None:  # noqa: N802 -- autobahn's name
        """Set Daphne's options and ours."""
        limit = FramesServer.hooks.frames.max_message_bytes
        options.update(
            # Or it drops the socket in place of closing with a code.
            failByDrop=False,
            closeHandshakeTimeout=CLOSE_TIMEOUT_SECONDS,
            maxMessagePayloadSize=limit,
            maxFramePayloadSize=limit,
        )
        super().setProtocolOptions(*args, **options)


@implementer(IPushProducer)
class FramesRequest(WebRequest):
    """
    Daphne's HTTP request; one that asks for an upgrade waits for its turn when many do.

    Its response is written no faster than the peer reads: Daphne's own would keep all of it in memory.
    """

    producer: Any
    _writable: asyncio.Event | None = None

    def process(self) -> Any:
        """Begin to answer."""
        if self.requestHeaders.hasHeader(b"upgrade") and not FramesServer.handshakes.take():
            FramesServer.handshakes.wait(self._process_in_turn)
            return None
        return super().process()

    def _process_in_turn(self) -> None:
        if self.channel is not None:  # the peer is still there
            super().process()

    async def until_writable(self) -> None:
        """Wait while more than Twisted's buffer (64 KiB) is under way; return at once when the peer is gone."""
        if self._writable is not None:
            await self._writable.wait()

    def abort(self) -> None:
        """Drop the connection with what it holds."""
        if self.channel is not None:
            transport: Any = self.channel.transport
            transport.abortConnection()

    # -- Daphne's and Twisted's calls

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Carry out what the application sends."""
        is_start = message.get("type") == "http.response.start"
        if is_start and self._writable is None and self.channel is not None:
            self._writable = asyncio.Event()
            self._writable.set()
            self.registerProducer(self, True)
        super().handle_reply(message)

    def finish(self) -> None:
        """End the response."""
        self.resumeProducing()
        if self.producer is not None and self.channel is not None:
            self.unregisterProducer()
        super().finish()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802 -- Twisted's name
        """Hear that the peer is gone."""
        self.resumeProducing()
        super().connectionLost(reason)

    def pauseProducing(self) -> None:  # noqa: N802 -- Twisted's name
        """Hear that the peer doesn't read."""
        if self._writable is not None:
            self._writable.clear()

    def resumeProducing(self) -> None:  # noqa: N802 -- Twisted's name
        """Hear that there is room again."""
        if self._writable is not None:
            self._writable.set()

    def stopProducing(self) -> None:  # noqa: N802 -- Twisted's name
        """Hear that the connection is lost; ``connectionLost`` says it too."""


class FramesServer(Server):
    """Daphne's server with the extension in its scopes and a drain at its end."""

    hooks = DaphneHooks()
    handshakes = Turns(_HANDSHAKES_PER_ROUND)
    _starting: asyncio.Future[None] | None = None

    def run(self) -> None:
        """Serve, with room for everybody who comes at once."""
        for text in self.hooks.ignored:
            logger.warning("no effect under Daphne: %s", text)
        self.endpoints = [_with_backlog(endpoint) for endpoint in self.endpoints]
        reactor.callWhenRunning(self._start)
        super().run()

    def _start(self) -> None:
        self._starting = asyncio.ensure_future(self._start_hooked())

    async def _start_hooked(self) -> None:
        try:
            await self.hooks.start()
        except Exception:  # the first request tries again
            logger.exception("the node could not start")

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Offer the extension and start the application."""
        if scope["type"] == "websocket":
            protocol.frames = TwistedFrames(protocol)
            limits = self.hooks.frames_by_path.get(scope["path"])
            if limits is not None:
                protocol.maxMessagePayloadSize = limits.max_message_bytes
                protocol.maxFramePayloadSize = limits.max_message_bytes
            scope["extensions"] = {"websocket.http.response": {}, EXTENSION: protocol.frames}
        elif isinstance(protocol, FramesRequest):
            scope["extensions"] = {ABORT: protocol.abort}
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Pass on what an application sends, once there is room for it."""
        if isinstance(protocol, FramesRequest):
            await protocol.until_writable()
        await super().handle_reply(protocol, message)

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Keep what is secret out of Daphne's access log."""
        if "path" in details:
            details = {**details, "path": without_secrets(details["path"])}
        super().log_action(protocol, action, details)

    def kill_all_applications(self) -> Any:
        """Send the clients away, then end the applications; Twisted waits for the result."""
        return Deferred.fromFuture(asyncio.ensure_future(self._end()))

    async def _end(self) -> None:
        try:
            await self._send_clients_away()
            applications = self._running_applications()
            if (
                applications
            ):  # responses that stay open are written to their end, as are others under way
                await asyncio.wait(applications, timeout=_RESPONSE_SECONDS)
                applications = self._running_applications()
            for application in applications:
                application.cancel()
            if applications:
                await asyncio.wait(applications, timeout=_FAREWELL_SECONDS)
            await self.hooks.stop()
        except Exception:
            logger.exception("the shutdown failed")

    def _running_applications(self) -> list[asyncio.Future[Any]]:
        # A connection that was handed over has no application any more.
        running = (details.get("application_instance") for details in self.connections.values())
        return [application for application in running if application and not application.done()]

    async def _send_clients_away(self) -> None:
        for listener in self.listeners:
            listener.addCallback(lambda port: port.stopListening())
        seconds = min(len(self.connections) / _DRAIN_PER_SECOND, _MAX_DRAIN_SECONDS)
        await self.hooks.drain(seconds)
        loop = asyncio.get_running_loop()
        closed = [
            protocol.is_closed.asFuture(loop)
            for protocol, details in self.connections.items()
            if isinstance(protocol, FramesWebSocketProtocol)
            and protocol.frames is not None
            and protocol.frames.is_attached
            and "disconnected" not in details
        ]
        if closed:
            await asyncio.wait(closed, timeout=_FAREWELL_SECONDS)


def _with_backlog(endpoint: str) -> str:
    """
    Let more peers wait for a listening endpoint than Twisted's 50, unless the endpoint says how many.

    The kernel drops whoever finds the queue full, who then tries again after 1, 3, 7 and 15 s: a thousand clients that came back
    at once took 28 s, and 2 s with this.
    """
    kind = endpoint.partition(":")[0]
    if kind in {"tcp", "ssl", "unix"} and ":backlog=" not in endpoint:
        return f"{endpoint}:backlog={BACKLOG}"
    return endpoint


def install(hooks: DaphneHooks) -> None:
    """
    Have Daphne build our classes from now on.

    ``runserver`` looks up the server's class first and imports the application after that, so it is too late to
    put another class in the first one's place: it is the first one that makes instances of ours.
    """
    FramesServer.hooks = hooks
    Server.__new__ = _make_frames_server  # type: ignore[method-assign, assignment]  # on purpose
    # Server.run() looks the factory up by this name, and Daphne's HTTP factory its requests by that one.
    vars(daphne.server)["WebSocketFactory"] = FramesFactory
    vars(daphne.http_protocol)["WebRequest"] = FramesRequest


def _make_frames_server(cls: type[Server], *_: Any, **__: Any) -> Server:
    made: Server = object.__new__(FramesServer if cls is Server else cls)
    return made
