"""Options of proxies, by which the application is asked."""

from __future__ import annotations

from msgspec import field

from realtime.conf.options.base import Duration, Options, StringMap, TLSOptions


class TransformError(Options, frozen=True, kw_only=True):
    """An error given to the client in place of a status of the application's backend."""

    code: int = 0
    message: str = ""
    temporary: bool = False


class TransformDisconnect(Options, frozen=True, kw_only=True):
    """A close code and reason given to the client in place of something else."""

    code: int = 0
    reason: str = ""


class StatusToCodeTransform(Options, frozen=True, kw_only=True):
    """What an HTTP status of the application's backend becomes: an error or a disconnect."""

    status_code: int = 0
    to_error: TransformError = TransformError()
    to_disconnect: TransformDisconnect = TransformDisconnect()


class ProxyHTTPOptions(Options, frozen=True, kw_only=True):
    """What only HTTP proxies know."""

    tls: TLSOptions = TLSOptions()
    static_headers: StringMap = field(default_factory=dict)
    status_to_code_transforms: tuple[StatusToCodeTransform, ...] = ()


class ProxyGRPCOptions(Options, frozen=True, kw_only=True):
    """What only GRPC proxies know."""

    tls: TLSOptions = TLSOptions()
    credentials_key: str = ""
    credentials_value: str = ""
    compression: bool = False
    static_metadata: StringMap = field(default_factory=dict)


class ProxyOptions(Options, frozen=True, kw_only=True):
    """
    One call to the application's backend.

    Attributes:
        endpoint: ``http://`` or ``https://`` for HTTP, ``grpc://host:port`` for GRPC.
        timeout: For the whole call; of a subscribe stream, for its first message.
        http_headers: Names of the client request's headers to forward.
        emulated_headers: Names of headers to forward that the client made up.

    """

    endpoint: str = ""
    timeout: Duration = 1.0
    http_headers: tuple[str, ...] = ()
    grpc_metadata: tuple[str, ...] = ()
    emulated_headers: tuple[str, ...] = ()
    binary_encoding: bool = False
    include_connection_meta: bool = False
    http: ProxyHTTPOptions = ProxyHTTPOptions()
    grpc: ProxyGRPCOptions = ProxyGRPCOptions()


class ClientEventProxyOptions(ProxyOptions, frozen=True, kw_only=True):
    """A proxy with a switch of its own: connect and refresh."""

    enabled: bool = False


class ClientProxyOptions(Options, frozen=True, kw_only=True):
    """The proxies of a connection."""

    connect: ClientEventProxyOptions = ClientEventProxyOptions()
    refresh: ClientEventProxyOptions = ClientEventProxyOptions()


class ChannelProxiesOptions(Options, frozen=True, kw_only=True):
    """The proxies that namespaces call ``default``."""

    subscribe: ProxyOptions = ProxyOptions()
    publish: ProxyOptions = ProxyOptions()
    sub_refresh: ProxyOptions = ProxyOptions()
    subscribe_stream: ProxyOptions = ProxyOptions()
    map_publish: ProxyOptions = ProxyOptions()
    map_remove: ProxyOptions = ProxyOptions()
    shared_poll_refresh: ProxyOptions = ProxyOptions()
    cache_empty: ProxyOptions = ProxyOptions()
