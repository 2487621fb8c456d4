"""Options of engines: where publications, presence, maps and polled values live."""

from __future__ import annotations

from msgspec import field

from realtime.conf.options.base import Addresses, Duration, Options, StringMap, TLSOptions


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
