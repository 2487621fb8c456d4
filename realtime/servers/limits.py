"""What the servers take from the process options."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from realtime.conf.options import ProcessOptions, UniWebSocketOptions, WebSocketOptions
from realtime.servers.extension import FramesSettings
from realtime.servers.ports import Side, is_on, listeners


# What waits in the kernel while the loop is busy. A restart brings all clients back at once.
BACKLOG = 4096


def frames_settings(options: ProcessOptions) -> FramesSettings:
    """Return the limits of WebSocket connections."""
    return _frames_settings(options.websocket)


def frames_by_path(options: ProcessOptions) -> dict[str, FramesSettings]:
    """Return the limits of WebSocket connections under paths that have their own."""
    if not options.uni_websocket.enabled:
        return {}
    return {options.uni_websocket.handler_prefix: _frames_settings(options.uni_websocket)}


def _frames_settings(websocket: WebSocketOptions | UniWebSocketOptions) -> FramesSettings:
    return FramesSettings(
        max_message_bytes=websocket.message_size_limit,
        max_decompressed_bytes=websocket.decompressed_message_size_limit,
        has_compression=websocket.compression,
        compression_level=websocket.compression_level,
        compression_min_bytes=websocket.compression_min_size,
    )


def websocket_paths(options: ProcessOptions) -> tuple[str, ...]:
    """Return the paths that take WebSocket upgrades and nothing else."""
    paths = []
    if not options.websocket.disabled:
        paths.append(options.websocket.handler_prefix)
    if options.uni_websocket.enabled:
        paths.append(options.uni_websocket.handler_prefix)
    return tuple(paths)


def endpoint_names(options: ProcessOptions, side: Side = Side.ALL) -> list[str]:
    """Name what a listener serves, for the start-up line, in the reference's order."""
    served = {
        "websocket": not options.websocket.disabled,
        "webtransport": options.webtransport.enabled,
        "http_stream": options.http_stream.enabled,
        "sse": options.sse.enabled,
        "emulation": options.http_stream.enabled or options.sse.enabled,
        "api": not options.http_api.disabled,
        "admin": True,  # Django's own
        "health": options.health.enabled,
        "uni_websocket": options.uni_websocket.enabled,
        "uni_sse": options.uni_sse.enabled,
        "uni_http_stream": options.uni_http_stream.enabled,
        "swagger": options.swagger.enabled,
        "init": options.init.enabled,
    }
    return [name for name, is_served in served.items() if is_served and is_on(side, name, options)]


def missing_packages(options: ProcessOptions) -> list[str]:
    """Name the options that are on and whose packages are not installed, each with what to do."""
    needed = ("grpc", "grpc_health", "grpc_reflection")
    if all(find_spec(name) for name in needed):
        return []
    return [
        f"{path} needs grpcio, which is not installed: pip install -r requirements-grpc.txt"
        for path, is_on in (
            ("grpc_api.enabled", options.grpc_api.enabled),
            ("uni_grpc.enabled", options.uni_grpc.enabled),
        )
        if is_on
    ]


def unsupported_options(options: ProcessOptions) -> list[str]:
    """Name the options that are on and that ``manage.py serve`` can't honour, each with what to do instead."""
    http = options.http_server
    problems = []
    if http.tls_autocert.enabled:
        problems.append("http_server.tls_autocert: let the reverse proxy in front get certificates")
    problems.extend(_http3_problems(options))
    if http.h2c_external:
        problems.append("http_server.h2c_external: let the reverse proxy in front speak HTTP/2")
    if http.internal_tls.enabled and len(listeners(options)) == 1:
        problems.append(
            "http_server.internal_tls: there is no internal listener; give it an internal_port"
        )
    return problems + missing_packages(options)


def ignored_by_daphne(options: ProcessOptions) -> list[str]:
    """Name the options that are on and have an effect under ``manage.py serve`` only, each with what to do instead."""
    http = options.http_server
    ignored = {
        "http_server.tls: give Daphne an endpoint with TLS (-e ssl:443:privateKey=...:certKey=...)": http.tls.enabled,
        "http_server.http3: use manage.py serve": http.http3.enabled,
        "webtransport: use manage.py serve": options.webtransport.enabled,
        "websocket.compression: use manage.py serve": options.websocket.compression,
        "workers: start Daphne once for each": options.workers > 1,
    }
    return [text for text, is_on in ignored.items() if is_on]


def _http3_problems(options: ProcessOptions) -> Iterator[str]:
    """Name what is in the way of HTTP/3."""
    http = options.http_server
    if not http.http3.enabled:
        if options.webtransport.enabled:
            yield "webtransport: it is carried by HTTP/3; set http_server.http3.enabled, and http_server.tls"
        return
    if find_spec("aioquic") is None:
        yield "http_server.http3: needs the package aioquic: pip install -r requirements-http3.txt"
    if not http.tls.enabled:
        yield "http_server.http3: there is no QUIC without TLS; set http_server.tls"
    if http.tls.client_ca_pem:
        yield (
            "http_server.http3: aioquic can't ask clients for certificates, as http_server.tls.client_ca_pem wants; "
            "clients would come in without one"
        )
    if options.workers > 1:
        yield (
            f"http_server.http3: set workers to 1, it is {options.workers}. The kernel deals datagrams out by address, and a "
            "QUIC client keeps its connection when its address changes: its datagrams would reach another worker. "
            "Run one process per port, or let a proxy in front that routes QUIC by connection id"
        )
