"""
Which options have an effect in this release: the table to shrink as features arrive.

An option of ``NOT_YET`` that is set to something else than its default is named in the log at ERROR, and the server
starts. Where the server would be *less safe* without it (nobody asks the application's backend, nothing is
encrypted, the API is open to the outside, publications stay in one process) the configuration is refused instead.
An option of ``NOT_APPLICABLE`` will never mean anything here; all that are set are named in one line at INFO.
Everything else works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from realtime.conf import schema
from realtime.conf.options import ProcessOptions


@dataclass(frozen=True, slots=True)
class Missing:
    """
    What happens to an option that has no effect yet.

    Attributes:
        refusal: Why starting without it would be unsafe, and what to do; empty means log and start.
        applies: Whether the value asks for anything, where "not the default" does not say it.

    """

    refusal: str = ""
    applies: Callable[[ProcessOptions], bool] | None = None


def _has_type(section: str, *types: str) -> Callable[[ProcessOptions], bool]:
    """Whether a part of the engine is to be of a type that is not there yet."""
    return lambda options: schema.read(options, f"{section}.type") in types


_LOGGED = Missing()
_REVERSE_PROXY = (
    "the listener would not be encrypted as asked; give http_server.tls or a reverse proxy"
)
_NO_BROKER = "only memory and redis are there yet, and other processes would see nothing"
_NO_CONTROLLER = "nodes talk by Redis only, as yet, and would not hear of each other"
_NO_MAP_BROKER = "only memory and redis are there yet, and other processes would have other maps"

# A key that ends in "." stands for all options below it; a longer match wins over a shorter one.
NOT_YET: Mapping[str, Missing] = MappingProxyType(
    {
        "broker.enabled": Missing(_NO_BROKER, _has_type("broker", "nats", "redisnats", "postgres")),
        "broker.nats.": _LOGGED,
        "broker.postgres.": _LOGGED,
        "broker.redis.replica_client.": _LOGGED,
        "broker.redisnats.": _LOGGED,
        "channel.proxy.map_publish.": _LOGGED,
        "channel.proxy.map_remove.": _LOGGED,
        "channel.proxy.publish.": _LOGGED,
        "channel.proxy.sub_refresh.": _LOGGED,
        "channel.proxy.subscribe.": _LOGGED,
        "channel.proxy.subscribe_stream.": _LOGGED,
        "client.concurrency": _LOGGED,
        "client.proxy.": _LOGGED,
        "client.proxy.connect.enabled": Missing(
            "connections would be let in without asking the application"
        ),
        "client.subscription_token.insecure_skip_jwks_endpoint_safety_check": _LOGGED,
        "client.subscription_token.jwks_public_endpoint": Missing(
            "subscription tokens can't be checked by JWKS yet; give the public key itself",
            lambda options: options.client.subscription_token.enabled,
        ),
        "client.token.insecure_skip_jwks_endpoint_safety_check": _LOGGED,
        "client.token.jwks_public_endpoint": Missing(
            "tokens can't be checked by JWKS yet; give the public key itself"
        ),
        "controller.": _LOGGED,
        "controller.enabled": Missing(_NO_CONTROLLER),
        "debug.": _LOGGED,
        "engine.redis.replica_client.": _LOGGED,
        "graphite.": _LOGGED,
        "http_server.h2c_external": _LOGGED,
        "http_server.tls_autocert.": _LOGGED,
        "http_server.tls_autocert.enabled": Missing(_REVERSE_PROXY),
        "map_broker.postgres.": _LOGGED,
        "map_broker.redis.replica_client.": _LOGGED,
        "map_broker.type": Missing(_NO_MAP_BROKER, _has_type("map_broker", "postgres")),
        "opentelemetry.": _LOGGED,
        "presence_manager.redis.replica_client.": _LOGGED,
        "prometheus.": _LOGGED,
        "rpc.": _LOGGED,
        "shared_poll.notification.nats.": _LOGGED,
        "shared_poll.notification.type": Missing(
            "notifications come by Redis only, as yet, and would not be heard",
            lambda options: (
                options.shared_poll.notification.enabled
                and options.shared_poll.notification.type == "nats"
            ),
        ),
        "shared_poll.notification.redis.replica_client.": _LOGGED,
    }
)

NOT_APPLICABLE = frozenset(
    {
        # Django's admin has its place; only where it is reachable is an option
        "admin.enabled",
        "admin.handler_prefix",
        "admin.insecure",
        "admin.password",
        "admin.secret",
        "admin.web_path",
        "admin.web_proxy_address",
        # Replies never wait for client.write_delay, which is one timer of the process, and there are no queues to shrink.
        "client.queue_shrink_delay",
        "client.reply_without_queue",
        "client.write_with_timer",
        "enable_unreleased_features",
        "uni_websocket.read_buffer_size",
        "uni_websocket.use_write_buffer_pool",
        "uni_websocket.write_buffer_size",
        "usage_stats.disabled",  # nothing is ever sent
        "websocket.read_buffer_size",
        "websocket.use_write_buffer_pool",
        "websocket.write_buffer_size",
    }
)


def missing(path: str) -> Missing | None:
    """Find what happens to an option; ``None`` means that it works or will never apply."""
    if is_not_applicable(path):
        return None
    return next((NOT_YET[key] for key in _keys(path) if key in NOT_YET), None)


def is_not_applicable(path: str) -> bool:
    """Say whether an option is accepted and means nothing here."""
    return any(key in NOT_APPLICABLE for key in _keys(path))


def asks_for(options: ProcessOptions, path: str) -> bool:
    """Say whether the value asks for anything: it is not the default, or the table knows better."""
    if schema.read(options, path) == schema.leaves()[path].default:
        return False
    entry = missing(path)
    return entry is None or entry.applies is None or entry.applies(options)


def _keys(path: str) -> Iterable[str]:
    """List the keys that may stand for a path, the longest first."""
    yield path
    parts = path.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:depth]) + "."
