"""The table of what is not implemented yet."""

from __future__ import annotations

import pytest

from realtime.conf import schema, support


@pytest.mark.parametrize("key", [*support.NOT_YET, *sorted(support.NOT_APPLICABLE)])
def test_every_key_stands_for_something(key):
    """An option or a section that exists; a feature that arrived leaves nothing behind."""
    if key.endswith("."):
        assert key.removesuffix(".") in schema.sections()
    else:
        assert key in schema.leaves()


@pytest.mark.parametrize("key", sorted(support.NOT_APPLICABLE))
def test_no_option_is_in_both_tables(key):
    """It comes later, or never."""
    assert key not in support.NOT_YET


@pytest.mark.parametrize(
    "path",
    [
        "client.allowed_origins",
        "client.token.hmac_secret_key",
        "client.token.eddsa_public_key",
        "client.subscription_token.enabled",
        "client.connection_limit",
        "client.subscribe_to_user_personal_channel.single_connection",
        "channel.max_length",
        "channel.proxy.shared_poll_refresh.endpoint",
        "channel.proxy.shared_poll_refresh.http.tls.enabled",
        "http_api.key",
        "http_api.error_mode",
        "engine.type",
        "engine.redis.address",
        "engine.redis.history_use_lists",
        "broker.redis.sentinel_master_name",
        "presence_manager.enabled",
        "presence_manager.redis.presence_ttl",
        "map_broker.redis.cleanup_interval",
        "http_server.port",
        "http_server.tls.enabled",
        "http_server.tls_external",
        "http_server.internal_port",
        "http_server.internal_tls.enabled",
        "http_api.external",
        "admin.external",
        "websocket.compression",
        "websocket.write_delay",
        "webtransport.enabled",
        "health.enabled",
        "swagger.enabled",
        "node.name",
        "shutdown.timeout",
        "log.level",
        "log.file",
        "pid_file",
        "demo",
        "api_url",
        "api_key",
    ],
)
def test_what_works_is_in_no_table(path):
    """And asks for itself alone."""
    assert support.missing(path) is None
    assert not support.is_not_applicable(path)


@pytest.mark.parametrize(
    ("path", "is_refused"),
    [
        ("channel.proxy.subscribe_stream.endpoint", False),
        ("channel.proxy.publish.http.static_headers", False),
        ("client.concurrency", False),
        ("client.proxy.refresh.enabled", False),
        ("client.proxy.connect.endpoint", False),
        ("client.proxy.connect.enabled", True),
        ("client.token.jwks_public_endpoint", True),
        ("engine.redis.replica_client.enabled", False),
        ("broker.nats.url", False),
        ("map_broker.type", True),
        ("shared_poll.notification.nats.url", False),
        ("shared_poll.notification.type", True),
        ("http_server.tls_autocert.email", False),
        ("http_server.tls_autocert.enabled", True),
        ("prometheus.enabled", False),
    ],
)
def test_the_longest_key_counts(path, is_refused):
    """A switch may be refused whose neighbours are only logged."""
    entry = support.missing(path)

    assert entry is not None
    assert bool(entry.refusal) is is_refused


def test_what_never_applies_wins_over_its_section():
    """A buffer size is no feature that will arrive."""
    assert support.missing("uni_websocket.write_buffer_size") is None
    assert support.is_not_applicable("uni_websocket.write_buffer_size")


@pytest.mark.parametrize(
    ("values", "path", "asks"),
    [
        ({}, "map_broker.type", False),
        ({"map_broker.type": "redis"}, "map_broker.type", False),
        ({"map_broker.type": "postgres"}, "map_broker.type", True),
        ({}, "broker.enabled", False),
        ({"broker.enabled": True}, "broker.enabled", False),
        ({"broker.enabled": True, "broker.type": "nats"}, "broker.enabled", True),
        ({"broker.enabled": True, "broker.type": "redis"}, "broker.enabled", False),
        (
            {"client.subscription_token.jwks_public_endpoint": "x"},
            "client.subscription_token.jwks_public_endpoint",
            False,
        ),
        (
            {
                "client.subscription_token.enabled": True,
                "client.subscription_token.jwks_public_endpoint": "x",
            },
            "client.subscription_token.jwks_public_endpoint",
            True,
        ),
        ({"sse.enabled": True}, "sse.enabled", True),
    ],
)
def test_a_value_may_ask_for_nothing(values, path, asks):
    """The default does not, nor a switch of what is there anyhow, nor a section that is off."""
    assert support.asks_for(schema.build(values), path) is asks
