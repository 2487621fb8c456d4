"""
Which Redis the options name: from addresses in every form to values that connections are made of.

``cluster_address`` wins over ``sentinel_address``, and that over ``address``. Each of several elements of ``address`` and
``cluster_address`` is a shard of its own (client-side sharding); all of ``sentinel_address`` are sentinels of one. What
a URL says wins over the options beside it. No text of an error repeats an address, since it may hold a password.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from realtime.engines.tls import client_context
from realtime.protocol.errors import ConfigError


if TYPE_CHECKING:
    from realtime.conf.options import RedisOptions, TLSOptions

Kind = Literal["single", "sentinel", "cluster"]

REDIS_PORT = 6379
SENTINEL_PORT = 26379

# Scheme -> kind of deployment, and whether it is TLS.
_SCHEMES: Mapping[str, tuple[Kind, bool]] = MappingProxyType(
    {
        "tcp": ("single", False),
        "redis": ("single", False),
        "rediss": ("single", True),
        "unix": ("single", False),
        "redis+sentinel": ("sentinel", False),
        "rediss+sentinel": ("sentinel", True),
        "redis+cluster": ("cluster", False),
        "rediss+cluster": ("cluster", True),
    }
)
# As the other server's language reads a bool.
_BOOLS: Mapping[str, bool] = MappingProxyType(
    {
        **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
        **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
    }
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    One socket of a Redis and how to greet it.

    Attributes:
        path: Of a unix socket; then ``host`` and ``port`` mean nothing.
        server_name: The name in its certificate; empty: ``host``.

    """

    host: str = "127.0.0.1"
    port: int = REDIS_PORT
    path: str = ""
    ssl_context: ssl.SSLContext | None = None
    server_name: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    client_name: str = ""

    @property
    def label(self) -> str:
        """Where it is, for logs."""
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def at(self, host: str, port: int) -> Endpoint:
        """Return the same greeting for another address."""
        return replace(self, host=host, port=port, path="")


@dataclass(frozen=True, slots=True)
class Deployment:
    """
    One shard of the engine.

    Attributes:
        seeds: The server itself, the sentinels, or some nodes of a cluster.
        master_name: Under which the sentinels know the master.
        data: How to greet a data server; its address counts only where ``kind`` is ``single``.
        connect_timeout: Seconds.
        io_timeout: Seconds a request may take.
        force_resp2: Do not ask for RESP3.

    """

    kind: Kind
    seeds: tuple[Endpoint, ...]
    master_name: str = ""
    data: Endpoint = Endpoint()
    connect_timeout: float = 1.0
    io_timeout: float = 4.0
    force_resp2: bool = False


def deployments(
    options: RedisOptions, *, parse_duration: Callable[[object], float], path: str = "engine.redis"
) -> tuple[Deployment, ...]:
    """
    Find the shards that the options name, in the order that decides which channels live where.

    Args:
        options: One section.
        parse_duration: Reads ``2s`` in a URL's query; raises ``ValueError``.
        path: The section's, for errors.

    Raises:
        ConfigError: An address is malformed, or what it needs beside it is missing.

    """
    if options.sentinel_address and not options.cluster_address:
        return (_sentinel(options.sentinel_address, options, path),)
    name = "cluster_address" if options.cluster_address else "address"
    elements: tuple[str, ...] = getattr(options, name)
    if not elements:
        raise ConfigError(f"{path}.address is empty")
    found = []
    for number, element in enumerate(elements):
        try:
            if options.cluster_address:
                found.append(_cluster(element, options, path))
            else:
                found.append(_from_address(element.strip(), options, path, parse_duration))
        except ValueError as error:
            raise ConfigError(f"{path}.{name}[{number}]: {error}") from error
    return tuple(found)


# --- one element; a ValueError says what is wrong with it ----------------------------------------------


def _cluster(element: str, options: RedisOptions, path: str) -> Deployment:
    seeds = [seed.strip() for seed in element.split(",")]
    return _deployment("cluster", [_host_and_port(seed) for seed in seeds], options, path)


def _sentinel(addresses: Sequence[str], options: RedisOptions, path: str) -> Deployment:
    sockets = []
    for number, address in enumerate(addresses):
        try:
            # An element may hold several, as those of cluster_address do.
            sockets += [_host_and_port(one.strip()) for one in address.split(",")]
        except ValueError as error:
            raise ConfigError(f"{path}.sentinel_address[{number}]: {error}") from error
    try:
        return _deployment("sentinel", sockets, options, path)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _from_address(
    address: str, options: RedisOptions, path: str, parse_duration: Callable[[object], float]
) -> Deployment:
    if "://" not in address:
        return _deployment(_kind_of("single", options), [_host_and_port(address)], options, path)
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:
        # Its text would show parts of the address.
        raise ValueError("not a valid URL") from None
    if url.scheme not in _SCHEMES:
        raise ValueError(f"must be host:port or a URL with one of {', '.join(_SCHEMES)}")
    if url.fragment:
        raise ValueError("has a # that must be written as %23")
    query = parse_qsl(url.query, keep_blank_values=True)
    options = _with_query(_with_url(options, url), query, parse_duration)
    kind = _kind_of(_SCHEMES[url.scheme][0], options)
    more = [_host_and_port(value) for name, value in query if name == "addr"]
    if url.scheme == "unix":
        if url.hostname or not url.path:
            raise ValueError("a unix socket needs an absolute path, as in unix:///run/redis.sock")
        if kind != "single" or more:
            raise ValueError("a unix socket is neither a sentinel nor one of several")
        return _deployment(kind, [], options, path, socket_path=unquote(url.path))
    if not url.hostname:
        raise ValueError("has no host")
    if kind == "single" and more:
        raise ValueError("addr is for seeds of a cluster and for sentinels")
    default_port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    sockets = [(url.hostname, default_port if port is None else port), *more]
    return _deployment(kind, sockets, options, path)


def _kind_of(kind: Kind, options: RedisOptions) -> Kind:
    """Make an ordinary address one of a sentinel where a master's name was given."""
    return "sentinel" if kind == "single" and options.sentinel_master_name else kind


def _with_url(options: RedisOptions, url: SplitResult) -> RedisOptions:
    changes: dict[str, Any] = {}
    if url.username:
        changes["user"] = unquote(url.username)
    if url.password is not None:
        changes["password"] = unquote(url.password)
    database = url.path.removeprefix("/")
    if url.scheme != "unix" and database:
        if not (database.isascii() and database.isdecimal()):
            raise ValueError("the database after the / must be a number")
        changes["db"] = int(database)
    if _SCHEMES[url.scheme][1]:
        changes["tls"] = _enabled(options.tls)
        changes["sentinel_tls"] = _enabled(options.sentinel_tls)
    return msgspec.structs.replace(options, **changes)


def _with_query(
    options: RedisOptions,
    query: Sequence[tuple[str, str]],
    parse_duration: Callable[[object], float],
) -> RedisOptions:
    changes: dict[str, Any] = {}
    for name, value in query:
        match name:
            case "addr":
                continue
            case "connect_timeout" | "io_timeout":
                try:
                    changes[name] = parse_duration(value)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
            case "sentinel_master_name" | "sentinel_user" | "sentinel_password":
                changes[name] = value
            case "force_resp2":
                changes[name] = _bool(name, value)
            case "tls_enabled" | "sentinel_tls_enabled":
                section = name.removesuffix("_enabled")
                before = getattr(options, section)
                changes[section] = msgspec.structs.replace(before, enabled=_bool(name, value))
            case "replica_client_enabled":
                _bool(name, value)  # nothing is read from replicas
            case _:
                raise ValueError(f"unknown parameter {name!r}")
    return msgspec.structs.replace(options, **changes)


def _bool(name: str, value: str) -> bool:
    if value not in _BOOLS:
        raise ValueError(f"{name} must be true or false")
    return _BOOLS[value]


def _enabled(options: TLSOptions) -> TLSOptions:
    return msgspec.structs.replace(options, enabled=True)


def _host_and_port(text: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "@" in host or "/" in host:
        raise ValueError("must be host:port or a URL")
    if not colon or not host or not (port.isascii() and port.isdecimal()):
        raise ValueError("must be host:port or a URL")
    if not 0 < int(port) < 65536:
        raise ValueError(f"there is no port {int(port)}")
    return host, int(port)


def _deployment(
    kind: Kind,
    sockets: Sequence[tuple[str, int]],
    options: RedisOptions,
    path: str,
    *,
    socket_path: str = "",
) -> Deployment:
    if kind == "cluster" and options.db:
        raise ValueError(f"a cluster has no database {options.db}, only 0")
    if kind == "sentinel" and not options.sentinel_master_name:
        raise ValueError("Sentinel needs sentinel_master_name")
    if any(character.isspace() for character in options.client_name + options.sentinel_client_name):
        raise ValueError("a client_name can't have spaces")
    data = Endpoint(
        path=socket_path,
        ssl_context=client_context(options.tls, f"{path}.tls") if options.tls.enabled else None,
        server_name=options.tls.server_name,
        username=options.user,
        password=options.password,
        db=options.db,
        client_name=options.client_name,
    )
    greeting = _sentinel_greeting(options, path) if kind == "sentinel" else data
    seeds = tuple(greeting.at(host, port) for host, port in sockets) or (data,)
    return Deployment(
        kind=kind,
        seeds=seeds,
        master_name=options.sentinel_master_name if kind == "sentinel" else "",
        data=seeds[0] if kind == "single" else data,
        connect_timeout=options.connect_timeout,
        io_timeout=options.io_timeout,
        force_resp2=options.force_resp2,
    )


def _sentinel_greeting(options: RedisOptions, path: str) -> Endpoint:
    tls = options.sentinel_tls
    return Endpoint(
        ssl_context=client_context(tls, f"{path}.sentinel_tls") if tls.enabled else None,
        server_name=tls.server_name,
        username=options.sentinel_user,
        password=options.sentinel_password,
        client_name=options.sentinel_client_name,
    )
