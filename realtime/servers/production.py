"""
uvicorn as ``manage.py serve`` runs it: sockets of our own, a drain before the end, exit status 0.

Three of uvicorn's habits don't fit a server of long connections. It binds without ``SO_REUSEPORT``; it closes every WebSocket
with 1012 before the application hears of the shutdown, so clients would not be told 3001 and would come back all
at once; and after a graceful end it raises the signal again, so that a supervisor sees a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from uvicorn import Config, Server
from uvicorn.server import HANDLED_SIGNALS

from realtime.servers.doorkeeper import doorkeeper_class
from realtime.servers.http_protocol import DrainableState, HTTPSettings
from realtime.servers.limits import BACKLOG


logger = logging.getLogger(__name__)

# Clients are sent away at this pace, so that they don't come back to the other nodes at once (operations, section 10).
DRAIN_PER_SECOND = 1000
MAX_DRAIN_SECONDS = 5.0

Drain = Callable[[float], Awaitable[object]]
Reload = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """
    What ``serve`` runs with, besides the application.

    Attributes:
        http: Settings of our HTTP protocol.
        shutdown_seconds: The limit of the whole shutdown; at its end the process gives up, with status 1.
        keep_alive_seconds: How long an idle HTTP connection is kept.
        has_proxy_headers: Whether ``X-Forwarded-For`` and ``-Proto`` of ``trusted_proxies`` are believed.
        trusted_proxies: Addresses or networks, joined by commas.
        has_access_log: Whether every HTTP request is logged.
        ssl_context: The server's TLS, or ``None``.
        headers: Sent with every answer.

    """

    http: HTTPSettings
    shutdown_seconds: float = 30.0
    keep_alive_seconds: int = 75
    has_proxy_headers: bool = False
    trusted_proxies: str = "127.0.0.1"
    has_access_log: bool = False
    ssl_context: ssl.SSLContext | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Listener(Protocol):
    """A port beside the HTTP server's, with a protocol that ASGI does not know."""

    async def start(self) -> None:
        """Listen."""

    async def stop(self, grace: float) -> None:
        """Take nothing new, end what runs after ``grace`` seconds; may be called twice, or without a start."""


def listen(address: str, port: int, *, is_shared: bool) -> list[socket.socket]:
    """Open listening sockets; arguments and errors are those of ``bind``."""
    sockets = bind(address, port, is_shared=is_shared)
    try:
        for opened in sockets:
            opened.listen(BACKLOG)
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def bind(address: str, port: int, *, is_shared: bool) -> list[socket.socket]:
    """
    Bind sockets that take no connections yet: with ``is_shared`` they only keep the port for processes that do.

    Args:
        address: An address or a host name; empty means every interface, in IPv4 and IPv6.
        port: 0 takes a free one, the same for all.
        is_shared: Let other processes listen on the port too (``SO_REUSEPORT``); the kernel then deals connections out. Not
            for the memory engine, whose processes don't know of each other's channels.

    Raises:
        OSError: The address is in use or isn't ours.

    """
    infos = socket.getaddrinfo(
        address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # IPv4 first; each address once.
    infos = sorted(dict.fromkeys(infos), key=lambda info: info[0] != socket.AF_INET)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, target in infos:
            if sockets and port == 0:
                target = (target[0], sockets[0].getsockname()[1], *target[2:])
            opened = _bind(family, target, is_shared=is_shared, is_optional=bool(sockets))
            if opened is not None:
                sockets.append(opened)
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _bind(family: int, target: Any, *, is_shared: bool, is_optional: bool) -> socket.socket | None:
    """Bind one socket; an optional one is left out where this machine lacks its family."""
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if is_optional:
            return None
        raise
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(target)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        if is_optional and error.errno == errno.EADDRNOTAVAIL:  # IPv6 is there and switched off
            return None
        raise
    return opened


def address_of(listening: socket.socket) -> str:
    """Return where a socket listens, as ``127.0.0.1:8000`` or ``[::]:8000``."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if listening.family == socket.AF_INET6 else f"{host}:{port}"


def allow_open_files() -> int:
    """
    Raise this process's limit of open files to what it may have at most, and return it; each client is one.

    The soft limit is 1,024 on most systems, for the sake of programs that use ``select``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # "unlimited" is more than some kernels take
            return soft
    return hard


class TidewireServer(Server):
    """
    uvicorn's server with a drain.

    Args:
        config: uvicorn's configuration.
        shutdown_seconds: The limit of the whole shutdown.
        drain: Sends all clients away within so many seconds; called once the sockets are closed.
        on_started: Called when the server takes connections.
        reload: Awaited at SIGHUP, whose default would end the process.
        beside: Started after the application and stopped while the clients are sent away.

    Attributes:
        exit_status: For the process: 0, or 1 when the shutdown took too long.

    """

    def __init__(
        self,
        config: Config,
        *,
        shutdown_seconds: float,
        drain: Drain,
        on_started: Callable[[], None],
        reload: Reload | None = None,
        beside: Sequence[Listener] = (),
    ) -> None:
        super().__init__(config)
        self.server_state = DrainableState()
        self.exit_status = 0
        self._shutdown_seconds = shutdown_seconds
        self._drain = drain
        self._on_started = on_started
        self._reload = reload
        self._beside = beside
        self._reloading: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        for listener in self._beside:
            await listener.start()
        _spare_the_collector()
        if self._reload is not None and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        self._on_started()

    def _hang_up(self) -> None:
        assert self._reload is not None
        self._reloading = asyncio.ensure_future(_follow(self._reloading, self._reload))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, send the clients away, then end what is left."""
        logger.info("shutting down ...")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._shutdown_seconds
        for server in self.servers:
            server.close()
        for listening in sockets or ():
            listening.close()
        state = self.server_state
        if isinstance(state, DrainableState):
            state.is_draining = True
        await self._send_clients_away()
        # uvicorn counts in whole seconds.
        self.config.timeout_graceful_shutdown = max(1, round(deadline - loop.time()))
        await super().shutdown(sockets)
        if loop.time() > deadline:
            self._give_up()

    async def _send_clients_away(self) -> None:
        paced = len(self.server_state.connections) / DRAIN_PER_SECOND
        seconds = min(paced, MAX_DRAIN_SECONDS, self._shutdown_seconds / 2)
        drained = asyncio.ensure_future(self._drain_all(seconds))
        done, _ = await asyncio.wait([drained], timeout=self._shutdown_seconds)
        if not done:
            drained.cancel()
            self._give_up()
        elif (error := drained.exception()) is not None:
            logger.error("the drain failed", exc_info=error)

    async def _drain_all(self, seconds: float) -> None:
        await self._drain(seconds)
        for listener in self._beside:
            await listener.stop(1.0)

    def _give_up(self) -> None:
        logger.critical("shutdown timeout reached")
        self.exit_status = 1
        self.force_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals and, unlike uvicorn, keep them: a graceful end is a success."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _spare_the_collector() -> None:
    """
    Have the garbage collector look at connections only.

    What Django and the imports have made stays for good; a full collection walks it for 80 ms, during which nothing is
    delivered. A connection makes some 40 objects that stay and few cycles, so the young may be more before they are
    looked at: 5% of the CPU of a connect storm went there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


async def _follow(before: asyncio.Task[None] | None, reload: Reload) -> None:
    """Reload once the reload before has ended: the last one decides."""
    if before is not None:
        await before
    try:
        await reload()
    except Exception:
        logger.exception("the configuration was not reloaded")


def make_server(
    application: Any,
    settings: ServeSettings,
    *,
    drain: Drain,
    on_started: Callable[[], None],
    reload: Reload | None = None,
    beside: Sequence[Listener] = (),
) -> TidewireServer:
    """Put uvicorn together as we use it."""
    context = settings.ssl_context
    config = Config(
        application,
        loop="uvloop",
        http=doorkeeper_class(settings.http),
        # For WebSocket routes other than ours; no timer per socket there either.
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_max_size=settings.http.frames.max_message_bytes,
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=settings.has_access_log,
        proxy_headers=settings.has_proxy_headers,
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        headers=list(settings.headers),
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
        ssl_context_factory=None if context is None else lambda *_: context,
    )
    return TidewireServer(
        config,
        shutdown_seconds=settings.shutdown_seconds,
        drain=drain,
        on_started=on_started,
        reload=reload,
        beside=beside,
    )


def run(server: TidewireServer, sockets: Sequence[socket.socket], pid_file: str = "") -> int:
    """
    Serve until a signal comes.

    Args:
        server: From ``make_server``.
        sockets: From ``listen``; closed at the end.
        pid_file: Written for the time of the run; empty writes none.

    Returns:
        The process's exit status.

    """
    allow_open_files()
    with pid_in(pid_file):
        try:
            server.run(sockets=list(sockets))
        except SystemExit as stop:  # uvicorn's way to say that the lifespan failed to start
            return stop.code if isinstance(stop.code, int) else 1
        finally:
            for listening in sockets:
                listening.close()
    return server.exit_status


@contextlib.contextmanager
def pid_in(path: str) -> Iterator[None]:
    """Keep this process's id in a file; an empty path keeps it nowhere."""
    if not path:
        yield
        return
    file = Path(path)
    file.write_text(f"{os.getpid()}\n", encoding="ascii")
    try:
        yield
    finally:
        # Another process may have taken the file over meanwhile; then it is no longer ours to remove.
        with contextlib.suppress(OSError, ValueError):
            if int(file.read_text(encoding="ascii")) == os.getpid():
                file.unlink()
