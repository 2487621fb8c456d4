"""
Every process option, with its default: the shape of ``settings.REALTIME`` and of a configuration file.

Attribute paths are Centrifugo's option paths, so ``options.client.token.hmac_secret_key`` is
``client.token.hmac_secret_key`` in a file and ``TIDEWIRE_CLIENT_TOKEN_HMAC_SECRET_KEY`` in the environment.
Durations are float seconds here and text such as ``"25s"`` outside. ``ProcessOptions()`` holds the defaults;
vary a copy with ``msgspec.structs.replace``.

Not here, since they are rows in the database: ``channel.namespaces``, ``channel.without_namespace``,
``rpc.namespaces``, ``rpc.without_namespace``, ``proxies``, ``consumers`` (see ``loader.DATABASE_KEYS``).
Which of the options have an effect in this release is said by ``loader.NOT_YET``.

This module is plain data: no Django, no reading of files, no validation across options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import NODEFAULT, Meta, Struct, field
from msgspec.structs import fields


Duration = Annotated[float, Meta(extra={"kind": "duration"})]
"""Seconds as a float; ``"1h30m"`` in every source."""

WholeSeconds = Annotated[float, Meta(extra={"kind": "whole_seconds"})]
"""A duration that must have no fraction of a second, for engines keep these TTLs in seconds."""

Pem = Annotated[str, Meta(extra={"kind": "pem"})]
"""PEM text; a source may also give it as base64 of PEM or as a path to a file."""

PortText = Annotated[str, Meta(extra={"kind": "port_text"})]
"""A port that may be left empty; a source may give a number."""

UrlPrefix = Annotated[str, Meta(extra={"kind": "url_prefix"})]
"""The path an endpoint is served under; begins with ``/``, a trailing one is dropped."""

Addresses = Annotated[tuple[str, ...], Meta(extra={"kind": "addresses"})]
"""A list of addresses; a source may give a single one as a string."""

StringMap = Annotated[Mapping[str, str], Meta(extra={"kind": "string_map"})]
"""Text by text; a source may give an object (keys become lower case) or a list of ``{key, value}``."""


SECRET_FIELDS = frozenset(
    {
        "address",  # of Redis: may carry a password
        "api_key",
        "cluster_address",
        "credentials_value",
        "dsn",
        "hmac_previous_secret_key",
        "hmac_secret_key",
        "key",
        "key_pem",
        "notify_dsn",
        "password",
        "secret",
        "sentinel_address",
        "sentinel_password",
        "static_headers",
        "static_metadata",
        "url",
    }
)
"""Fields whose values are never shown in a log, an error or a ``repr``."""


class Options(Struct, frozen=True, kw_only=True):
    """Base of every section; its ``repr`` shows what is not default, and no secret."""

    def __repr__(self) -> str:
        """Name the fields that were changed, with secrets hidden."""
        shown = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.default_factory is not NODEFAULT:
                default = item.default_factory()
            else:
                default = item.default
            if value != default:
                is_secret = item.name in SECRET_FIELDS
                shown.append(f"{item.name}={'***' if is_secret else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


class TLSOptions(Options, frozen=True, kw_only=True):
    """
    One TLS object; TLS 1.2 is the minimum.

    Attributes:
        client_ca_pem: On a server, turns on mandatory client certificates (mTLS).
        server_ca_pem: On a client, what the server's certificate is verified against.
        server_name: The host name to verify, where it differs from the address.

    """

    enabled: bool = False
    cert_pem: Pem = ""
    key_pem: Pem = ""
    server_ca_pem: Pem = ""
    client_ca_pem: Pem = ""
    insecure_skip_verify: bool = False
    server_name: str = ""


class TLSAutocertOptions(Options, frozen=True, kw_only=True):
    """Certificates by ACME, which here is the reverse proxy's work."""

    enabled: bool = False
    host_whitelist: tuple[str, ...] = ()
    cache_dir: str = ""
    email: str = ""
    server_name: str = ""
    http: bool = False
    http_addr: str = ":80"


class HTTP3Options(Options, frozen=True, kw_only=True):
    """HTTP/3 beside HTTP/1.1, on UDP and the same port; only in ``manage.py serve``, with TLS and one worker."""

    enabled: bool = False


class HTTPServerOptions(Options, frozen=True, kw_only=True):
    """
    Where ``manage.py serve`` listens.

    Attributes:
        address: Empty means all interfaces.
        internal_port: A second listener for the API, health and metrics; empty means one for all.
        h2c_external: HTTP/2 without TLS on the external port.

    """

    address: str = ""
    port: int = 8000
    internal_address: str = ""
    internal_port: PortText = ""
    tls: TLSOptions = TLSOptions()
    tls_autocert: TLSAutocertOptions = TLSAutocertOptions()
    tls_external: bool = False
    internal_tls: TLSOptions = TLSOptions()
    http3: HTTP3Options = HTTP3Options()
    h2c_external: bool = False


class LogOptions(Options, frozen=True, kw_only=True):
    """
    Where the log goes and how much of it.

    Attributes:
        level: ``none``, ``trace``, ``debug``, ``info``, ``warn``, ``error`` or ``fatal``.
        file: Appended to; empty means the terminal.

    """

    level: str = "info"
    file: str = ""


class NodeOptions(Options, frozen=True, kw_only=True):
    """
    This process as the others see it.

    Attributes:
        name: Unique; empty means ``hostname_port``.
        info_metrics_aggregate_interval: How often ``info`` carries a fresh metrics snapshot.

    """

    name: str = ""
    info_metrics_aggregate_interval: Duration = 60.0


class ShutdownOptions(Options, frozen=True, kw_only=True):
    """How long a stopping server may take to send its clients away."""

    timeout: Duration = 30.0


class UsageStatsOptions(Options, frozen=True, kw_only=True):
    """Accepted from Centrifugo's files; nothing is ever sent anywhere."""

    disabled: bool = False


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


class TokenOptions(Options, frozen=True, kw_only=True):
    """
    Which JWTs are believed.

    Attributes:
        hmac_secret_key: For HS256, HS384, HS512; at least 32 bytes.
        hmac_previous_secret_key: Also accepted while keys are rotated.
        hmac_previous_secret_key_valid_until: Unix seconds after which it is not; 0 means no end.
        rsa_public_key: PEM key or certificate for RS256, RS384, RS512.
        ecdsa_public_key: PEM for ES256, ES384, ES512; the curve decides which.
        eddsa_public_key: PEM of an Ed25519 key for EdDSA (Tidewire's own; Centrifugo has it by JWKS only).
        audience: Must equal one of the token's ``aud``; not together with ``audience_regex``.
        issuer: Must equal the token's ``iss``; not together with ``issuer_regex``.
        user_id_claim: The claim that is the user ID in place of ``sub``.

    """

    hmac_secret_key: str = ""
    hmac_previous_secret_key: str = ""
    hmac_previous_secret_key_valid_until: int = 0
    rsa_public_key: Pem = ""
    ecdsa_public_key: Pem = ""
    eddsa_public_key: Pem = ""
    jwks_public_endpoint: str = ""
    audience: str = ""
    audience_regex: str = ""
    issuer: str = ""
    issuer_regex: str = ""
    user_id_claim: str = ""
    insecure_skip_jwks_endpoint_safety_check: bool = False


class SubscriptionTokenOptions(TokenOptions, frozen=True, kw_only=True):
    """Keys of their own for subscription tokens; when enabled nothing is inherited from ``client.token``."""

    enabled: bool = False


class PersonalChannelOptions(Options, frozen=True, kw_only=True):
    """
    A server-side subscription of every user to a channel of their own.

    Attributes:
        single_connection: A user's new connection closes the older ones; needs presence in that namespace.

    """

    enabled: bool = False
    personal_channel_namespace: str = ""
    single_connection: bool = False


class DisconnectTransform(Options, frozen=True, kw_only=True):
    """A connect error's code, and the disconnect that unidirectional clients see instead."""

    code: int = 0
    to: TransformDisconnect = TransformDisconnect()


class DisconnectTransformsOptions(Options, frozen=True, kw_only=True):
    """How connect errors are told to unidirectional clients."""

    enabled: bool = False
    transforms: tuple[DisconnectTransform, ...] = ()


class ClientOptions(Options, frozen=True, kw_only=True):
    """
    Connections: who may connect, how long they live, how much they may do.

    Attributes:
        allowed_origins: Patterns with ``*``; a request without ``Origin`` passes, an empty list refuses all others.
        pong_timeout: Must be less than ``ping_interval``.
        expired_close_delay: Grace for a refresh after the connection expired.
        stale_close_delay: How long a socket may stay silent before its connect command.
        channel_limit: Subscriptions of one connection, client-side and server-side together.
        queue_max_size: Bytes waiting for a slow reader before it is disconnected (3008).
        write_delay: How long publications are gathered before they are written, on every transport; what a connection
            gets of all its channels is then one write. Replies, pings and other pushes don't wait.
        max_messages_in_frame: How many of the messages that a namespace gathers may share a WebSocket frame, or, under an
            ASGI server that makes the frames itself, how many writes; -1 means no limit, 0 the default.
        reply_without_queue: Accepted; replies never wait for ``write_delay``.
        write_with_timer: Accepted; ``write_delay`` is one timer of the process.
        queue_shrink_delay: Accepted; there are no queues to shrink.
        presence_update_interval: The connection's tick: presence, expiry of subscriptions, positions.
        connection_limit: Per process; over it the upgrade is refused with 503. 0 means no limit.
        connection_rate_limit: New connections per second and process; 0 means no limit.
        user_connection_limit: Per process and user; 0 means no limit.
        user_id_http_header: A header, set by a trusted proxy, that is the user ID.
        insecure: Permissions are bypassed; for development.
        insecure_skip_token_signature_verify: Any signature will do; for development.

    """

    allowed_origins: tuple[str, ...] = ()
    token: TokenOptions = TokenOptions()
    subscription_token: SubscriptionTokenOptions = SubscriptionTokenOptions()
    proxy: ClientProxyOptions = ClientProxyOptions()
    allow_anonymous_connect_without_token: bool = False
    disallow_anonymous_connection_tokens: bool = False
    ping_interval: Duration = 25.0
    pong_timeout: Duration = 8.0
    expired_close_delay: Duration = 25.0
    expired_sub_close_delay: Duration = 25.0
    stale_close_delay: Duration = 10.0
    channel_limit: int = 128
    queue_max_size: int = 1048576
    queue_shrink_delay: Duration = 0.0
    write_delay: Duration = 0.0
    write_with_timer: bool = False
    max_messages_in_frame: int = 16
    reply_without_queue: bool = False
    presence_update_interval: Duration = 27.0
    concurrency: int = 0
    channel_position_check_delay: Duration = 40.0
    channel_position_max_time_lag: Duration = 0.0
    connection_limit: int = 0
    user_connection_limit: int = 0
    connection_rate_limit: int = 0
    connect_include_server_time: bool = False
    history_max_publication_limit: int = 300
    recovery_max_publication_limit: int = 300
    user_id_http_header: str = ""
    insecure: bool = False
    insecure_skip_token_signature_verify: bool = False
    subscribe_to_user_personal_channel: PersonalChannelOptions = PersonalChannelOptions()
    connect_code_to_unidirectional_disconnect: DisconnectTransformsOptions = (
        DisconnectTransformsOptions()
    )

    @property
    def messages_per_frame(self) -> int:
        """How many messages may share a frame, -1 for any number."""
        return self.max_messages_in_frame or 16


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


class ChannelGlobalOptions(Options, frozen=True, kw_only=True):
    """
    Rules for all channels; those of one namespace are rows in the database.

    Attributes:
        history_meta_ttl: How long a stream's epoch and offset outlive its publications.
        publication_data_format: ``json``, ``json_object``, ``binary`` or empty (JSON is not enforced).
        max_length: Characters of a channel's name.

    """

    proxy: ChannelProxiesOptions = ChannelProxiesOptions()
    history_meta_ttl: WholeSeconds = 2592000.0  # 720h: a client away for a month still recovers
    publication_data_format: str = ""
    max_length: int = 255
    private_prefix: str = "$"
    namespace_boundary: str = ":"
    user_boundary: str = "#"
    user_separator: str = ","


class RPCPingOptions(Options, frozen=True, kw_only=True):
    """A built-in RPC method that answers at once."""

    enabled: bool = False
    method: str = "ping"


class RPCGlobalOptions(Options, frozen=True, kw_only=True):
    """Rules for all RPC calls; those of one namespace are rows in the database."""

    proxy: ProxyOptions = ProxyOptions()
    ping: RPCPingOptions = RPCPingOptions()
    namespace_boundary: str = ":"


class HTTPAPIOptions(Options, frozen=True, kw_only=True):
    """
    The server API over HTTP.

    Attributes:
        key: The key of the configuration; further ones are rows in the admin.
        error_mode: Empty (errors in a 200) or ``transport`` (errors as HTTP statuses).
        external: With an internal port, whether the external one has the API too.
        insecure: No key is asked for; for development.

    """

    disabled: bool = False
    handler_prefix: UrlPrefix = "/api"
    key: str = ""
    error_mode: str = ""
    external: bool = False
    insecure: bool = False


class GRPCAPIOptions(Options, frozen=True, kw_only=True):
    """
    The server API over GRPC, on a port of its own.

    Attributes:
        error_mode: Empty (errors in responses) or ``transport`` (errors as GRPC statuses).
        address: Empty means every interface.
        key: With an empty one no key is asked for.
        reflection: Whether clients may ask for the schema, as grpcurl does.
        max_receive_message_size: Bytes; 0 means 4 MiB.

    """

    enabled: bool = False
    error_mode: str = ""
    address: str = ""
    port: int = 10000
    key: str = ""
    tls: TLSOptions = TLSOptions()
    reflection: bool = False
    max_receive_message_size: int = 0


class WebSocketOptions(Options, frozen=True, kw_only=True):
    """
    The WebSocket transport.

    Attributes:
        compression: Offer permessage-deflate. A message is compressed once for all who take it: some 10 us for 800
            bytes, nothing per delivery, 0.9 KB per socket. Messages from clients are unpacked one by one.
        compression_min_size: Bytes up to which messages stay as they are.
        write_timeout: How long a reader may stay paused before it is disconnected (3009).
        write_delay: In place of ``client.write_delay`` on this transport; 0 means that one (Tidewire's own).
        message_size_limit: Bytes of a client's message; over it the close code is 1009.
        decompressed_message_size_limit: The same after decompression; 0 means ten times that.
        read_buffer_size: Accepted; means nothing here, as do ``write_buffer_size`` and the pool.

    """

    disabled: bool = False
    handler_prefix: UrlPrefix = "/connection/websocket"
    compression: bool = False
    compression_min_size: int = 0
    compression_level: int = 1
    read_buffer_size: int = 0
    write_buffer_size: int = 0
    use_write_buffer_pool: bool = False
    write_timeout: Duration = 1.0
    write_delay: Duration = 0.0
    message_size_limit: int = 65536
    decompressed_message_size_limit: int = 0


class SSEOptions(Options, frozen=True, kw_only=True):
    """The SSE transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/sse"
    max_request_body_size: int = 65536


class HTTPStreamOptions(Options, frozen=True, kw_only=True):
    """The HTTP streaming transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/http_stream"
    max_request_body_size: int = 65536


class EmulationOptions(Options, frozen=True, kw_only=True):
    """Where clients of SSE and HTTP streaming send their commands."""

    handler_prefix: UrlPrefix = "/emulation"
    max_request_body_size: int = 65536


class WebTransportOptions(Options, frozen=True, kw_only=True):
    """
    The WebTransport transport, which needs ``http_server.http3``.

    Attributes:
        message_size_limit: Bytes of a client's message; over it the connection ends with 3501.

    """

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/webtransport"
    message_size_limit: int = 65536


class UniWebSocketOptions(Options, frozen=True, kw_only=True):
    """The unidirectional WebSocket transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/uni_websocket"
    compression: bool = False
    compression_min_size: int = 0
    compression_level: int = 1
    read_buffer_size: int = 0
    write_buffer_size: int = 0
    use_write_buffer_pool: bool = False
    write_timeout: Duration = 1.0
    message_size_limit: int = 65536
    decompressed_message_size_limit: int = 0
    disable_closing_handshake: bool = False
    disable_disconnect_push: bool = False
    join_push_messages: bool = False


class HTTPResponse(Options, frozen=True, kw_only=True):
    """What an HTTP client sees instead of a connect error."""

    status_code: int = 0
    body: str = ""


class HTTPResponseTransform(Options, frozen=True, kw_only=True):
    """A connect error's code and the HTTP response for it."""

    code: int = 0
    to: HTTPResponse = HTTPResponse()


class HTTPResponseTransformsOptions(Options, frozen=True, kw_only=True):
    """How connect errors are told over HTTP."""

    enabled: bool = False
    transforms: tuple[HTTPResponseTransform, ...] = ()


class UniSSEOptions(Options, frozen=True, kw_only=True):
    """The unidirectional SSE transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/uni_sse"
    max_request_body_size: int = 65536
    connect_code_to_http_response: HTTPResponseTransformsOptions = HTTPResponseTransformsOptions()


class UniHTTPStreamOptions(Options, frozen=True, kw_only=True):
    """The unidirectional HTTP streaming transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/uni_http_stream"
    max_request_body_size: int = 65536
    connect_code_to_http_response: HTTPResponseTransformsOptions = HTTPResponseTransformsOptions()


class UniGRPCOptions(Options, frozen=True, kw_only=True):
    """
    The unidirectional GRPC transport, on a port of its own.

    Attributes:
        address: Empty means every interface.
        max_receive_message_size: Bytes; 0 means 4 MiB.

    """

    enabled: bool = False
    address: str = ""
    port: int = 11000
    max_receive_message_size: int = 0
    tls: TLSOptions = TLSOptions()


class AdminOptions(Options, frozen=True, kw_only=True):
    """Centrifugo's admin page; accepted from its files, since Django's admin has its place here."""

    enabled: bool = False
    handler_prefix: UrlPrefix = ""
    password: str = ""
    secret: str = ""
    insecure: bool = False
    web_path: str = ""
    web_proxy_address: str = ""
    external: bool = False


class PrometheusOptions(Options, frozen=True, kw_only=True):
    """Metrics for Prometheus."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/metrics"
    instrument_http_handlers: bool = False
    recovered_publications_histogram: bool = False
    native_histograms: bool = False


class HealthOptions(Options, frozen=True, kw_only=True):
    """The endpoint a load balancer asks."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/health"


class SwaggerOptions(Options, frozen=True, kw_only=True):
    """The server API's description for humans."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/swagger"


class DebugOptions(Options, frozen=True, kw_only=True):
    """Pages that look inside the process."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/debug/pprof"


class InitOptions(Options, frozen=True, kw_only=True):
    """An endpoint that clients may warm a connection with."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/init"


class GraphiteOptions(Options, frozen=True, kw_only=True):
    """Metrics for Graphite."""

    enabled: bool = False
    host: str = "localhost"
    port: int = 2003
    prefix: str = "centrifugo"
    interval: Duration = 10.0
    tags: bool = False


class OpenTelemetryOptions(Options, frozen=True, kw_only=True):
    """Traces."""

    enabled: bool = False
    api: bool = False
    consuming: bool = False
    google_cloud_adc_auth: bool = False


class RedisReplicaOptions(Options, frozen=True, kw_only=True):
    """Reads from Redis replicas."""

    enabled: bool = False


class RedisOptions(Options, frozen=True, kw_only=True):
    """
    One Redis deployment.

    Attributes:
        address: Several are client-side shards.
        prefix: Of all keys and PUB/SUB channels.
        io_timeout: Of one request.

    """

    address: Addresses = ("redis://127.0.0.1:6379",)
    prefix: str = "centrifugo"
    connect_timeout: Duration = 1.0
    io_timeout: Duration = 4.0
    db: int = 0
    user: str = ""
    password: str = ""
    client_name: str = ""
    force_resp2: bool = False
    cluster_address: Addresses = ()
    tls: TLSOptions = TLSOptions()
    sentinel_address: Addresses = ()
    sentinel_user: str = ""
    sentinel_password: str = ""
    sentinel_master_name: str = ""
    sentinel_client_name: str = ""
    sentinel_tls: TLSOptions = TLSOptions()
    replica_client: RedisReplicaOptions = RedisReplicaOptions()


class RedisBrokerOptions(RedisOptions, frozen=True, kw_only=True):
    """Redis as the broker alone."""

    history_use_lists: bool = False


class RedisPresenceOptions(RedisOptions, frozen=True, kw_only=True):
    """Redis as the presence manager alone."""

    presence_ttl: Duration = 60.0
    presence_hash_field_ttl: bool = False
    presence_user_mapping: bool = False


class RedisEngineOptions(RedisOptions, frozen=True, kw_only=True):
    """Redis as broker and presence manager."""

    history_use_lists: bool = False
    presence_ttl: Duration = 60.0
    presence_hash_field_ttl: bool = False
    presence_user_mapping: bool = False


class RedisMapBrokerOptions(RedisOptions, frozen=True, kw_only=True):
    """Redis as the map broker."""

    cleanup_interval: Duration = 1.0
    cleanup_batch_size: int = 100
    idempotent_result_ttl: Duration = 300.0
    skip_pub_sub: bool = False


class NATSRawModeOptions(Options, frozen=True, kw_only=True):
    """NATS subjects and payloads as other NATS programs write them."""

    enabled: bool = False
    channel_replacements: StringMap = field(default_factory=dict)
    prefix: str = ""


class NATSBrokerOptions(Options, frozen=True, kw_only=True):
    """NATS as the broker."""

    prefix: str = "centrifugo"
    url: str = "nats://localhost:4222"
    dial_timeout: Duration = 1.0
    write_timeout: Duration = 1.0
    tls: TLSOptions = TLSOptions()
    allow_wildcards: bool = False
    raw_mode: NATSRawModeOptions = NATSRawModeOptions()


class NATSOptions(Options, frozen=True, kw_only=True):
    """How a NATS server is reached."""

    url: str = "nats://localhost:4222"
    dial_timeout: Duration = 1.0
    write_timeout: Duration = 1.0
    tls: TLSOptions = TLSOptions()


class PollNotificationOptions(Options, frozen=True, kw_only=True):
    """
    Where an application says which keys of shared polls have changed.

    Attributes:
        type: Only ``redis`` is there yet.
        channel: The PUB/SUB channel; messages are ``{"items": [{"channel": ..., "key": ...}]}``.
        batch_max_size: Poll as soon as so many keys of a channel are named; 0 for no limit.
        batch_max_delay: Poll so late after the first; with 0 and no size at once.

    """

    enabled: bool = False
    type: str = "redis"
    redis: RedisOptions = RedisOptions()
    nats: NATSOptions = NATSOptions()
    channel: str = "shared_poll_notify"
    batch_max_size: int = 0
    batch_max_delay: Duration = 0.0


class SharedPollGlobalOptions(Options, frozen=True, kw_only=True):
    """
    Keys and limits of shared poll subscriptions.

    Attributes:
        hmac_secret_key: Signs which keys a user may track.
        hmac_previous_secret_key: Taken too, while keys are changed.
        hmac_previous_secret_key_valid_until: Unix seconds; with the previous key only what was signed until then. 0: no limit.
        concurrency_limit: Calls to the backend at a time; 0 means 64.

    """

    hmac_secret_key: str = ""
    hmac_previous_secret_key: str = ""
    hmac_previous_secret_key_valid_until: int = 0
    concurrency_limit: int = 0
    notification: PollNotificationOptions = PollNotificationOptions()


class PostgresOutboxOptions(Options, frozen=True, kw_only=True):
    """How the outbox table is read."""

    poll_interval: Duration = 0.1
    batch_size: int = 1000


class PostgresBrokerOptions(Options, frozen=True, kw_only=True):
    """PostgreSQL as the broker."""

    dsn: str = ""
    tls: TLSOptions = TLSOptions()
    pool_size: int = 16
    num_shards: int = 8
    cleanup_interval: Duration = 60.0
    idempotent_result_ttl: Duration = 300.0
    binary_data: bool = False
    stream_retention: Duration = 86400.0
    use_notify: bool = False
    notify_dsn: str = ""
    table_prefix: str = "cf"
    skip_schema_init: bool = False
    outbox: PostgresOutboxOptions = PostgresOutboxOptions()
    partition_lookahead_days: int = 2
    partition_retention_days: int = 7


class PostgresMapBrokerOptions(PostgresBrokerOptions, frozen=True, kw_only=True):
    """PostgreSQL as the map broker."""

    ttl_check_interval: Duration = 1.0


class PostgresControllerOptions(Options, frozen=True, kw_only=True):
    """PostgreSQL as the nodes' way to talk to each other."""

    dsn: str = ""
    tls: TLSOptions = TLSOptions()
    pool_size: int = 8
    num_shards: int = 1
    table_prefix: str = "cf"
    poll_interval: Duration = 0.05
    use_notify: bool = False
    notify_dsn: str = ""
    partition_retention_days: int = 1
    partition_lookahead_days: int = 2
    partition_cleanup_interval: Duration = 60.0
    batch_size: int = 1000
    skip_schema_init: bool = False


class EngineOptions(Options, frozen=True, kw_only=True):
    """
    Where publications, streams and presence live.

    Attributes:
        type: ``memory`` (one process) or ``redis``.

    """

    type: str = "memory"
    redis: RedisEngineOptions = RedisEngineOptions()


class RedisNATSBrokerOptions(Options, frozen=True, kw_only=True):
    """Redis for streams, NATS for delivery."""

    redis: RedisBrokerOptions = RedisBrokerOptions()
    nats: NATSBrokerOptions = NATSBrokerOptions()


class BrokerOptions(Options, frozen=True, kw_only=True):
    """A broker other than the engine's."""

    enabled: bool = False
    type: str = "memory"
    redis: RedisBrokerOptions = RedisBrokerOptions()
    nats: NATSBrokerOptions = NATSBrokerOptions()
    postgres: PostgresBrokerOptions = PostgresBrokerOptions()
    redisnats: RedisNATSBrokerOptions = RedisNATSBrokerOptions()


class PresenceManagerOptions(Options, frozen=True, kw_only=True):
    """A presence manager other than the engine's."""

    enabled: bool = False
    type: str = "memory"
    redis: RedisPresenceOptions = RedisPresenceOptions()


class MapBrokerOptions(Options, frozen=True, kw_only=True):
    """Where map channels live."""

    type: str = "memory"
    redis: RedisMapBrokerOptions = RedisMapBrokerOptions()
    postgres: PostgresMapBrokerOptions = PostgresMapBrokerOptions()


class ControllerOptions(Options, frozen=True, kw_only=True):
    """The nodes' way to talk to each other, other than the engine's."""

    enabled: bool = False
    type: str = ""
    postgres: PostgresControllerOptions = PostgresControllerOptions()


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
