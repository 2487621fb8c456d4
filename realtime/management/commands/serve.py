"""``manage.py serve``: the production server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import socket
import ssl
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils.autoreload import get_child_arguments
from django.utils.module_loading import import_string

from realtime import backends, bootstrap
from realtime.conf import loader
from realtime.conf.options import GRPCAPIOptions, ProcessOptions, UniGRPCOptions
from realtime.conf.schema import env_name, leaves
from realtime.protocol.errors import ConfigError
from realtime.servers import production
from realtime.servers.application import OnSide
from realtime.servers.connections import HTTPSettings
from realtime.servers.limits import (
    endpoint_names,
    frames_by_path,
    frames_settings,
    unsupported_options,
    websocket_paths,
)
from realtime.servers.ports import Listener, Side, is_on, listeners
from realtime.servers.supervisor import Lifeline, Supervisor, SupervisorSettings
from realtime.servers.tls import server_context


logger = logging.getLogger(__name__)

_ALIASES = {
    "http_server.address": ("-a", "--host"),
    "http_server.port": ("-p", "--port"),
}
# The reference's server flags (operations, section 3.2).
_FLAGS = (
    "http_server.address",
    "http_server.port",
    "http_server.internal_address",
    "http_server.internal_port",
    "log.level",
    "log.file",
    "pid_file",
    "workers",
    "engine.type",
    "broker.enabled",
    "broker.type",
    "presence_manager.enabled",
    "presence_manager.type",
    "map_broker.type",
    "client.insecure",
    "admin.enabled",
    "admin.external",
    "admin.insecure",
    "http_api.external",
    "http_api.insecure",
    "grpc_api.enabled",
    "grpc_api.port",
    "debug.enabled",
    "health.enabled",
    "prometheus.enabled",
    "swagger.enabled",
    "init.enabled",
    "http_stream.enabled",
    "sse.enabled",
    "uni_websocket.enabled",
    "uni_http_stream.enabled",
    "uni_sse.enabled",
    "uni_grpc.enabled",
    "uni_grpc.port",
)
_LEVELS = {
    "none": logging.CRITICAL + 10,
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_LOGGERS = ("realtime", "api", "admin_ui")


class Command(BaseCommand):
    """Serve WebSockets, the API and Django over uvicorn and uvloop."""

    help = "Run the production server: WebSockets, the server API and Django on one port."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Offer the options of the process as flags, and the server's own."""
        parser.add_argument(
            "-c", "--config", help="configuration file, as TIDEWIRE_CONFIG names it"
        )
        for path in _FLAGS:
            names = (*_ALIASES.get(path, ()), f"--{path}")
            if leaves()[path].kind == "bool":
                parser.add_argument(
                    *names, dest=path, nargs="?", const="true", metavar="true|false"
                )
            else:
                parser.add_argument(*names, dest=path, metavar=path.rpartition(".")[2].upper())
        # What a worker's supervisor tells it.
        parser.add_argument("--worker", type=int, default=0, help=SUPPRESS)
        parser.add_argument("--lifeline", type=int, default=-1, help=SUPPRESS)
        parser.add_argument(
            "--proxy-headers",
            action="store_true",
            help="believe X-Forwarded-For and X-Forwarded-Proto of the trusted proxies",
        )
        parser.add_argument(
            "--forwarded-allow-ips",
            default="127.0.0.1",
            help="addresses and networks of trusted proxies, joined by commas (127.0.0.1)",
        )
        parser.add_argument("--access-log", action="store_true", help="log every HTTP request")

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Put the flags in force before anything, system checks included, reads an option."""
        if options.get("config"):
            os.environ["TIDEWIRE_CONFIG"] = options["config"]
        for path in _FLAGS:
            value = options.get(path)
            if value is not None:
                os.environ[env_name(path)] = str(value)
        if options.get("worker"):
            _name_worker(options["worker"])
        loader.reset()
        try:
            loader.get_options()
        except ConfigError as error:
            raise CommandError(str(error)) from error
        return super().execute(*args, **options)

    def handle(self, *_: Any, **arguments: Any) -> None:
        """Serve until SIGTERM or SIGINT."""
        # Held back until somebody listens: one that comes before would end the process, or be late for what is read now.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            options = loader.get_options()
            _check(options)
            worker = arguments["worker"]
            if options.workers > 1 and not worker:
                _set_up_logging(options)
                loader.log_notices()
                status = _supervise(options)
            else:
                application = import_string(settings.ASGI_APPLICATION)
                # After it, since an ASGI application sets Django up once more, and the logging with it.
                _set_up_logging(options, f"worker {worker}" if worker else "")
                if arguments["access_log"]:
                    # The project's settings keep it quiet, for servers that write it unasked.
                    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
                loader.log_notices()
                status = _serve(application, options, arguments)
        except ConfigError as error:
            raise CommandError(str(error)) from error
        if status:
            raise SystemExit(status)


def _name_worker(number: int) -> None:
    """Give a worker a name of its own: the nodes of one machine are told apart by it."""
    loader.reset()
    try:
        name = bootstrap.node_name(loader.get_options())
    except ConfigError as error:
        raise CommandError(str(error)) from error
    os.environ[env_name("node.name")] = f"{name}_{number}"


def _check(options: ProcessOptions) -> None:
    """Refuse what this server can't do."""
    backends.check_options(options, getattr(settings, "CHANNEL_LAYERS", {}))
    is_whole = backends.uses_redis(options) and backends.presence_type(options) != "memory"
    if options.workers > 1 and not is_whole:
        raise CommandError(
            f"--workers {options.workers}: the memory engine lives in one process, so the clients of one worker "
            "would not get what is published through another, nor see who is there. Set engine.type to redis."
        )
    if problems := unsupported_options(options):
        raise CommandError("\n".join(problems))


class _Labelled(logging.Formatter):
    """Puts a label in front of what another formatter makes of a record."""

    def __init__(self, label: str, inner: logging.Formatter) -> None:
        super().__init__()
        self._label = label
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return f"[{self._label}] {self._inner.format(record)}"


def _set_up_logging(options: ProcessOptions, label: str = "") -> None:
    """
    Apply ``log.level`` and ``log.file`` where they were set.

    A label goes in front of plain lines; records of a formatter of the project's own have it as ``processName``.
    """
    level = _LEVELS.get(options.log.level.lower())
    if level is None:
        logger.warning("unknown log.level %r, using info", options.log.level)
        level = logging.INFO
    if options.log.level != "info":
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(level)
    root = logging.getLogger()
    if options.log.file:
        handler: logging.Handler = logging.FileHandler(options.log.file, encoding="utf-8")
        handler.setFormatter(root.handlers[0].formatter if root.handlers else None)
        root.handlers[:] = [handler]
    if label:
        multiprocessing.current_process().name = label
        for handler in root.handlers:
            inner = handler.formatter or logging.Formatter()
            if type(inner) is logging.Formatter:
                handler.setFormatter(_Labelled(label, inner))


def _serve(application: Any, options: ProcessOptions, arguments: dict[str, Any]) -> int:
    where = listeners(options)
    if len(where) > 1 and getattr(application, "ports", None) is None:
        raise CommandError(
            "http_server.internal_port: ASGI_APPLICATION has no `ports`, so the API would be on the external port too"
        )
    with contextlib.ExitStack() as opened:
        doors = []
        for listener in where:
            doors.append(_open_door(application, options, listener))
            opened.callback(_close, doors[-1].sockets)
        # Their listeners are opened with the node: what is wrong with a port is better said before anything starts.
        for kept in _bind_others(options, is_shared=backends.uses_redis(options)).values():
            _close(kept)
        drain = getattr(application, "drain", _drain)
        return _serve_doors(doors, options, arguments, drain)


def _serve_doors(
    doors: Sequence[production.Door],
    options: ProcessOptions,
    arguments: dict[str, Any],
    drain: production.Drain,
) -> int:
    lifeline = None
    if arguments["lifeline"] >= 0:
        lifeline = Lifeline(arguments["lifeline"], options.shutdown.timeout)
        lifeline.watch()

    def announce() -> None:
        for listener, door in zip(listeners(options), doors, strict=True):
            logger.info(
                "serving %s endpoints on %s%s",
                ", ".join(endpoint_names(options, listener.side)),
                ", ".join(production.address_of(listening) for listening in door.sockets),
                " with HTTP/3 (experimental)" if door.companion is not None else "",
            )
        if lifeline is not None:
            lifeline.say_serving()

    server = production.TidewireServer(
        doors,
        production.ServeSettings(
            shutdown_seconds=options.shutdown.timeout,
            has_proxy_headers=arguments["proxy_headers"],
            trusted_proxies=arguments["forwarded_allow_ips"],
            has_access_log=arguments["access_log"],
            root_path=settings.FORCE_SCRIPT_NAME or "",
        ),
        drain=drain,
        on_started=announce,
        reload=bootstrap.reload_options,
    )
    # The workers' supervisor has the file.
    return production.run(server, "" if lifeline is not None else options.pid_file)


def _http_settings(application: Any, options: ProcessOptions, side: Side) -> HTTPSettings:
    """Return what is answered before ASGI on a side."""
    prefixes = (b"/connection/", *(path.encode() for path in websocket_paths(options)))
    has_transports = is_on(side, "websocket", options)
    return HTTPSettings(
        lane=getattr(application, "direct_lane", None) if is_on(side, "api", options) else None,
        websocket_prefixes=prefixes,
        direct_websockets=getattr(application, "direct_websockets", {}) if has_transports else {},
        frames=frames_settings(options),
        frames_by_path=frames_by_path(options),
    )


def _open_door(application: Any, options: ProcessOptions, listener: Listener) -> production.Door:
    with _bind_errors(listener):
        sockets = production.listen(
            listener.address,
            listener.port,
            # Two processes on the memory engine would each have half of the clients.
            is_shared=backends.uses_redis(options),
        )
    side = listener.side
    served = application if side is Side.ALL else OnSide(application, side)
    has_http3 = options.http_server.http3.enabled and side is not Side.INTERNAL
    return production.Door(
        application=served,
        http=_http_settings(application, options, side),
        sockets=sockets,
        tls=functools.partial(_context, listener.tls_path) if listener.tls.enabled else None,
        headers=_alternatives(sockets) if has_http3 else (),
        companion=_http3(served, sockets, listener) if has_http3 else None,
    )


def _alternatives(sockets: Sequence[socket.socket]) -> tuple[tuple[str, str], ...]:
    """Return the header by which browsers learn of HTTP/3."""
    port = sockets[0].getsockname()[1]
    return (("alt-svc", f'h3=":{port}"; ma=2592000'),)  # 30 days, the reference's


def _http3(
    application: Any, sockets: Sequence[socket.socket], listener: Listener
) -> production.Companion:
    # They need aioquic, an extra; _check has seen that it is there.
    from realtime.servers import quic
    from realtime.servers.http3 import Http3Listener

    with _bind_errors(listener):
        bound = quic.bind(sockets)
    return Http3Listener(bound, application, lambda: loader.get_options().http_server.tls)


def _context(path: str) -> ssl.SSLContext:
    """Make a TLS context from an option, as it is now."""
    return server_context(getattr(loader.get_options().http_server, path.rpartition(".")[2]), path)


def _supervise(options: ProcessOptions) -> int:
    """Keep workers, each of which is this very command with a number."""
    with contextlib.ExitStack() as kept:
        arguments = [*get_child_arguments()]
        for listener in listeners(options):
            # Bound and not listening: whether the port is free shows before anything starts, and port 0 is one for all.
            with _bind_errors(listener):
                sockets = production.bind(listener.address, listener.port, is_shared=True)
            kept.callback(_close, sockets)
            option = "internal_port" if listener.side is Side.INTERNAL else "port"
            arguments.append(f"--http_server.{option}={sockets[0].getsockname()[1]}")
        for section, sockets in _bind_others(options, is_shared=True).items():
            kept.callback(_close, sockets)
            arguments.append(f"--{section}.port={sockets[0].getsockname()[1]}")
        return _keep_workers(arguments, options)


def _keep_workers(arguments: Sequence[str], options: ProcessOptions) -> int:
    def command(number: int, lifeline: int) -> list[str]:
        # Skip the checks: they have passed here, and one warning is enough.
        return [*arguments, "--skip-checks", f"--worker={number}", f"--lifeline={lifeline}"]

    async def supervise() -> int:
        settings = SupervisorSettings(
            workers=options.workers, shutdown_seconds=options.shutdown.timeout
        )
        return await Supervisor(command, settings).run()

    connections.close_all()  # what the system checks opened
    with production.pid_in(options.pid_file):
        return asyncio.run(supervise())


def _bind_others(options: ProcessOptions, *, is_shared: bool) -> dict[str, list[socket.socket]]:
    """Bind, without listening, the ports beside the one of HTTP; by section of the options."""
    sections: dict[str, GRPCAPIOptions | UniGRPCOptions] = {
        "grpc_api": options.grpc_api,
        "uni_grpc": options.uni_grpc,
    }
    bound: dict[str, list[socket.socket]] = {}
    for name, section in sections.items():
        if section.enabled:
            with _bind_errors(section):
                bound[name] = production.bind(section.address, section.port, is_shared=is_shared)
    return bound


def _close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


class _Place(Protocol):
    """A section of the options that says where to listen."""

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...


@contextlib.contextmanager
def _bind_errors(place: _Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{place.address}:{place.port}"
        raise CommandError(f"can't listen on {where}: {error.strerror or error}") from error


async def _drain(seconds: float) -> None:
    node = bootstrap.running_node()
    if node is not None:
        await node.drain(seconds)
