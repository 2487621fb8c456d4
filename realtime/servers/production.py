"""
uvicorn as ``manage.py serve`` runs it: sockets of our own, a drain before the end, exit status 0.

Some of uvicorn's habits don't fit a server of long connections. It binds without ``SO_REUSEPORT``; it closes every WebSocket
with 1012 before the application hears of the shutdown, so clients would not be told 3001 and would come back all
at once; after a graceful end it raises the signal again, so that a supervisor sees a crash; and it serves the same with the
same certificate on all its sockets for as long as it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from uvicorn import Config, Server
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import HANDLED_SIGNALS

from realtime.protocol.errors import ConfigError
from realtime.servers.access_log import redact
from realtime.servers.connections import DrainableState, HTTPSettings
from realtime.servers.doorkeeper import doorkeeper_class
from realtime.servers.limits import BACKLOG


logger = logging.getLogger(__name__)

# Clients are sent away at this pace, so that they don't come back to the other nodes at once (operations, section 10).
DRAIN_PER_SECOND = 1000
MAX_DRAIN_SECONDS = 5.0
# How long a companion may take once its clients have been told: they are closed a second later.
_COMPANION_GRACE = 2.0

Drain = Callable[[float], Awaitable[object]]
Reload = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """
    What ``serve`` runs with, whatever it listens to.

    Attributes:
        shutdown_seconds: The limit of the whole shutdown; at its end the process gives up, with status 1.
        keep_alive_seconds: How long an idle HTTP connection is kept.
        has_proxy_headers: Whether ``X-Forwarded-For`` and ``-Proto`` of ``trusted_proxies`` are believed.
        trusted_proxies: Addresses or networks, joined by commas.
        has_access_log: Whether every HTTP request is logged.
        root_path: What the reverse proxy cuts off the paths of requests.

    """

    shutdown_seconds: float = 30.0
    keep_alive_seconds: int = 75
    has_proxy_headers: bool = False
    trusted_proxies: str = "127.0.0.1"
    has_access_log: bool = False
    root_path: str = ""


class Companion(Protocol):
    """A listener beside a door's sockets, with a protocol that uvicorn does not know."""

    async def start(self) -> None:
        """Listen."""

    def connection_count(self) -> int:
        """Return how many connections there are."""

    def renew(self) -> None:
        """Take the certificate anew, for connections to come; raises ``ConfigError`` where it can't be used."""

    async def stop(self, grace: float) -> None:
        """Let what runs end within ``grace`` seconds and close; may be called twice, or without a start."""


@dataclass(frozen=True, slots=True)
class Door:
    """
    What is served on some sockets.

    Attributes:
        application: For ASGI scopes; the first door's gets the lifespan too.
        http: Settings of our HTTP protocol.
        sockets: From ``listen``; closed at the end.
        tls: Makes the context of new connections, at the start and at each reload; ``None`` is no TLS. It may raise
            ``ConfigError``.
        headers: Sent with every answer.
        companion: Started with the door and stopped when its clients have been sent away.

    """

    application: Any
    http: HTTPSettings
    sockets: Sequence[socket.socket]
    tls: Callable[[], ssl.SSLContext] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    companion: Companion | None = None


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


class _OpenDoor:
    """
    A door while it is served.

    Args:
        door: What it is.
        config: uvicorn's configuration of it.

    Raises:
        ConfigError: Its certificate can't be used.

    """

    def __init__(self, door: Door, config: Config) -> None:
        self.config = config
        self.sockets = list(door.sockets)
        self.servers: list[asyncio.Server] = []
        self.companion = door.companion
        self._make_context = door.tls
        self._context = None if door.tls is None else door.tls()

    async def open(self, state: DrainableState, app_state: dict[str, Any]) -> None:
        """Take connections."""
        if not self.config.loaded:
            self.config.load()
        make: Any = self.config.http_protocol_class
        self._factory = functools.partial(
            make, config=self.config, server_state=state, app_state=app_state
        )
        self.servers = [await self._serve(listening) for listening in self.sockets]
        if self.companion is not None:
            await self.companion.start()

    async def renew(self) -> None:
        """
        Make the TLS context anew, for connections to come.

        uvloop keeps the context of a server for good, and to change the certificate within a context would keep the
        sessions, and so the clients, of an authority that is no longer trusted. So a server takes over from the one before on
        the same socket: it has a file descriptor of its own, and what waits in the kernel stays there.
        """
        if self._make_context is None:
            return
        self._context = self._make_context()
        for number, listening in enumerate(self.sockets):
            successor = listening.dup()
            try:
                server = await self._serve(successor)
            except BaseException:
                successor.close()
                raise
            self.servers[number].close()
            self.servers[number], self.sockets[number] = server, successor
        if self.companion is not None:
            self.companion.renew()

    def close(self) -> None:
        """Take no more connections; those that there are stay."""
        for server in self.servers:
            server.close()
        for listening in self.sockets:
            listening.close()

    async def _serve(self, listening: socket.socket) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            self._factory, sock=listening, ssl=self._context, backlog=BACKLOG
        )


class TidewireServer(Server):
    """
    uvicorn's server with a drain, and with doors that may differ.

    Args:
        doors: What is served where.
        settings: For all of them.
        drain: Sends all clients away within so many seconds; called once the sockets are closed.
        on_started: Called when the server takes connections.
        reload: Awaited at SIGHUP, whose default would end the process; then TLS contexts are made anew.

    Raises:
        ConfigError: A certificate can't be used.

    Attributes:
        exit_status: For the process: 0, or 1 when the shutdown took too long.

    """

    def __init__(
        self,
        doors: Sequence[Door],
        settings: ServeSettings,
        *,
        drain: Drain,
        on_started: Callable[[], None],
        reload: Reload | None = None,
    ) -> None:
        self._doors = [_OpenDoor(door, _config(door, settings)) for door in doors]
        super().__init__(self._doors[0].config)
        logging.getLogger("uvicorn.access").addFilter(redact)
        self.server_state: DrainableState = DrainableState()
        self.exit_status = 0
        self._shutdown_seconds = settings.shutdown_seconds
        self._drain = drain
        self._on_started = on_started
        self._reload = reload
        self._reloading: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=[])  # the doors have them
        for door in self._doors:
            await door.open(self.server_state, self.lifespan.state)
        _spare_the_collector()
        if self._reload is not None and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        self._on_started()

    def close_sockets(self) -> None:
        """Close what is listened to; may be called twice."""
        for door in self._doors:
            door.close()

    def _hang_up(self) -> None:
        self._reloading = asyncio.ensure_future(_follow(self._reloading, self._renew))

    async def _renew(self) -> None:
        assert self._reload is not None
        await self._reload()
        for door in self._doors:
            if self.server_state.is_draining:
                return
            try:
                await door.renew()
            except ConfigError as error:
                logger.error("the new certificate is refused, the one before stays: %s", error)  # noqa: TRY400

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, send the clients away, then end what is left."""
        logger.info("shutting down ...")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._shutdown_seconds
        self.server_state.is_draining = True
        self.servers = [server for door in self._doors for server in door.servers]
        self.close_sockets()
        await self._send_clients_away()
        # uvicorn counts in whole seconds.
        self.config.timeout_graceful_shutdown = max(1, round(deadline - loop.time()))
        await super().shutdown()
        if loop.time() > deadline:
            self._give_up()

    async def _send_clients_away(self) -> None:
        companions = [door.companion for door in self._doors if door.companion is not None]
        count = sum(companion.connection_count() for companion in companions)
        paced = (len(self.server_state.connections) + count) / DRAIN_PER_SECOND
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
        for door in self._doors:
            if door.companion is not None:
                await door.companion.stop(_COMPANION_GRACE)

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


def behind_proxies(http: HTTPSettings, trusted: str) -> HTTPSettings:
    """Have the lane's access log believe the proxies that uvicorn believes."""
    believing: Any = ProxyHeadersMiddleware(None, trusted)  # type: ignore[arg-type]  # for what it reads
    return replace(http, trusted_proxies=believing.trusted_hosts)


def _config(door: Door, settings: ServeSettings) -> Config:
    """Put uvicorn's configuration together as we use it."""
    http = door.http
    if settings.has_proxy_headers:
        http = behind_proxies(http, settings.trusted_proxies)
    return Config(
        door.application,
        loop="uvloop",
        http=doorkeeper_class(http),
        root_path=settings.root_path,
        # For WebSocket routes other than ours; no timer per socket there either.
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_max_size=door.http.frames.max_message_bytes,
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=settings.has_access_log,
        proxy_headers=settings.has_proxy_headers,
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        headers=list(door.headers),
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
    )


def run(server: TidewireServer, pid_file: str = "") -> int:
    """
    Serve until a signal comes.

    Args:
        server: What is served; its sockets are closed at the end.
        pid_file: Written for the time of the run; empty writes none.

    Returns:
        The process's exit status.

    """
    allow_open_files()
    with pid_in(pid_file):
        try:
            server.run()
        except SystemExit as stop:  # uvicorn's way to say that the lifespan failed to start
            return stop.code if isinstance(stop.code, int) else 1
        finally:
            server.close_sockets()
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
