"""
Every process option, with its default: the shape of ``settings.REALTIME`` and of a configuration file.

Attribute paths are Centrifugo's option paths, so ``options.client.token.hmac_secret_key`` is
``client.token.hmac_secret_key`` in a file and ``TIDEWIRE_CLIENT_TOKEN_HMAC_SECRET_KEY`` in the environment.
Durations are float seconds here and text such as ``"25s"`` outside. ``ProcessOptions()`` holds the defaults;
vary a copy with ``msgspec.structs.replace``.

Not here, since they are rows in the database: ``channel.namespaces``, ``channel.without_namespace``,
``rpc.namespaces``, ``rpc.without_namespace``, ``proxies``, ``consumers`` (see ``loader.DATABASE_KEYS``).
Which of the options have an effect in this release is said by ``support.NOT_YET``.

This package is plain data: no Django, no reading of files, no validation across options.
"""

from __future__ import annotations

from realtime.conf.options.base import (
    SECRET_FIELDS,
    Addresses,
    Duration,
    Options,
    Pem,
    PortText,
    StringMap,
    TLSOptions,
    UrlPrefix,
    WholeSeconds,
)
from realtime.conf.options.clients import (
    ChannelGlobalOptions,
    ClientOptions,
    DisconnectTransform,
    DisconnectTransformsOptions,
    PersonalChannelOptions,
    RPCGlobalOptions,
    RPCPingOptions,
    SubscriptionTokenOptions,
    TokenOptions,
)
from realtime.conf.options.doors import (
    EmulationOptions,
    GRPCAPIOptions,
    HTTPAPIOptions,
    HTTPResponse,
    HTTPResponseTransform,
    HTTPResponseTransformsOptions,
    HTTPStreamOptions,
    SSEOptions,
    UniGRPCOptions,
    UniHTTPStreamOptions,
    UniSSEOptions,
    UniWebSocketOptions,
    WebSocketOptions,
    WebTransportOptions,
)
from realtime.conf.options.engines import (
    BrokerOptions,
    ControllerOptions,
    EngineOptions,
    MapBrokerOptions,
    NATSBrokerOptions,
    NATSOptions,
    NATSRawModeOptions,
    PollNotificationOptions,
    PostgresBrokerOptions,
    PostgresControllerOptions,
    PostgresMapBrokerOptions,
    PostgresOutboxOptions,
    PresenceManagerOptions,
    RedisBrokerOptions,
    RedisEngineOptions,
    RedisMapBrokerOptions,
    RedisNATSBrokerOptions,
    RedisOptions,
    RedisPresenceOptions,
    RedisReplicaOptions,
    SharedPollGlobalOptions,
)
from realtime.conf.options.proxies import (
    ChannelProxiesOptions,
    ClientEventProxyOptions,
    ClientProxyOptions,
    ProxyGRPCOptions,
    ProxyHTTPOptions,
    ProxyOptions,
    StatusToCodeTransform,
    TransformDisconnect,
    TransformError,
)
from realtime.conf.options.server import (
    AdminOptions,
    DebugOptions,
    GraphiteOptions,
    HealthOptions,
    HTTP3Options,
    HTTPServerOptions,
    InitOptions,
    LogOptions,
    NodeOptions,
    OpenTelemetryOptions,
    PrometheusOptions,
    ShutdownOptions,
    SwaggerOptions,
    TLSAutocertOptions,
    UsageStatsOptions,
)


__all__ = [
    "SECRET_FIELDS",
    "Addresses",
    "AdminOptions",
    "BrokerOptions",
    "ChannelGlobalOptions",
    "ChannelProxiesOptions",
    "ClientEventProxyOptions",
    "ClientOptions",
    "ClientProxyOptions",
    "ControllerOptions",
    "DebugOptions",
    "DisconnectTransform",
    "DisconnectTransformsOptions",
    "Duration",
    "EmulationOptions",
    "EngineOptions",
    "GRPCAPIOptions",
    "GraphiteOptions",
    "HTTP3Options",
    "HTTPAPIOptions",
    "HTTPResponse",
    "HTTPResponseTransform",
    "HTTPResponseTransformsOptions",
    "HTTPServerOptions",
    "HTTPStreamOptions",
    "HealthOptions",
    "InitOptions",
    "LogOptions",
    "MapBrokerOptions",
    "NATSBrokerOptions",
    "NATSOptions",
    "NATSRawModeOptions",
    "NodeOptions",
    "OpenTelemetryOptions",
    "Options",
    "Pem",
    "PersonalChannelOptions",
    "PollNotificationOptions",
    "PortText",
    "PostgresBrokerOptions",
    "PostgresControllerOptions",
    "PostgresMapBrokerOptions",
    "PostgresOutboxOptions",
    "PresenceManagerOptions",
    "ProcessOptions",
    "PrometheusOptions",
    "ProxyGRPCOptions",
    "ProxyHTTPOptions",
    "ProxyOptions",
    "RPCGlobalOptions",
    "RPCPingOptions",
    "RedisBrokerOptions",
    "RedisEngineOptions",
    "RedisMapBrokerOptions",
    "RedisNATSBrokerOptions",
    "RedisOptions",
    "RedisPresenceOptions",
    "RedisReplicaOptions",
    "SSEOptions",
    "SharedPollGlobalOptions",
    "ShutdownOptions",
    "StatusToCodeTransform",
    "StringMap",
    "SubscriptionTokenOptions",
    "SwaggerOptions",
    "TLSAutocertOptions",
    "TLSOptions",
    "TokenOptions",
    "TransformDisconnect",
    "TransformError",
    "UniGRPCOptions",
    "UniHTTPStreamOptions",
    "UniSSEOptions",
    "UniWebSocketOptions",
    "UrlPrefix",
    "UsageStatsOptions",
    "WebSocketOptions",
    "WebTransportOptions",
    "WholeSeconds",
]


class ProcessOptions(Options, frozen=True, kw_only=True):
    """
    All options of one process.

    Attributes:
        demo: Whether the demo page is served (Tidewire's own); without a word, Django's ``DEBUG``.
        api_url: Where ``publish()`` posts to from a process that serves nobody (Tidewire's own).
        api_key: The API key it sends (Tidewire's own).
        pid_file: Written by ``manage.py serve``.
        workers: How many processes ``manage.py serve`` starts on its port (Tidewire's own).

    """

    http_server: HTTPServerOptions = HTTPServerOptions()
    log: LogOptions = LogOptions()
    engine: EngineOptions = EngineOptions()
    broker: BrokerOptions = BrokerOptions()
    presence_manager: PresenceManagerOptions = PresenceManagerOptions()
    map_broker: MapBrokerOptions = MapBrokerOptions()
    controller: ControllerOptions = ControllerOptions()
    shared_poll: SharedPollGlobalOptions = SharedPollGlobalOptions()
    client: ClientOptions = ClientOptions()
    channel: ChannelGlobalOptions = ChannelGlobalOptions()
    rpc: RPCGlobalOptions = RPCGlobalOptions()
    http_api: HTTPAPIOptions = HTTPAPIOptions()
    grpc_api: GRPCAPIOptions = GRPCAPIOptions()
    websocket: WebSocketOptions = WebSocketOptions()
    sse: SSEOptions = SSEOptions()
    http_stream: HTTPStreamOptions = HTTPStreamOptions()
    webtransport: WebTransportOptions = WebTransportOptions()
    uni_sse: UniSSEOptions = UniSSEOptions()
    uni_http_stream: UniHTTPStreamOptions = UniHTTPStreamOptions()
    uni_websocket: UniWebSocketOptions = UniWebSocketOptions()
    uni_grpc: UniGRPCOptions = UniGRPCOptions()
    emulation: EmulationOptions = EmulationOptions()
    admin: AdminOptions = AdminOptions()
    prometheus: PrometheusOptions = PrometheusOptions()
    health: HealthOptions = HealthOptions()
    swagger: SwaggerOptions = SwaggerOptions()
    debug: DebugOptions = DebugOptions()
    init: InitOptions = InitOptions()
    opentelemetry: OpenTelemetryOptions = OpenTelemetryOptions()
    graphite: GraphiteOptions = GraphiteOptions()
    usage_stats: UsageStatsOptions = UsageStatsOptions()
    node: NodeOptions = NodeOptions()
    shutdown: ShutdownOptions = ShutdownOptions()
    pid_file: str = ""
    enable_unreleased_features: bool = False
    demo: bool = False
    api_url: str = ""
    api_key: str = ""
    workers: int = 1
