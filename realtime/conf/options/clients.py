"""Options of clients and channels: tokens, limits, what holds for all channels."""

from __future__ import annotations

from realtime.conf.options.base import Duration, Options, Pem, WholeSeconds
from realtime.conf.options.proxies import (
    ChannelProxiesOptions,
    ClientProxyOptions,
    ProxyOptions,
    TransformDisconnect,
)


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
