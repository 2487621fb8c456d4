"""Options as a flat table, and structs made from it."""

from __future__ import annotations

import msgspec
import pytest

from realtime.conf import schema
from realtime.conf.options import ClientOptions, ProcessOptions, TokenOptions


def test_defaults_are_the_references():
    """Spot checks of each kind."""
    options = ProcessOptions()

    assert (options.client.ping_interval, options.client.pong_timeout) == (25.0, 8.0)
    assert options.client.queue_max_size == 1048576
    assert options.channel.history_meta_ttl == 720 * 3600
    assert options.websocket.handler_prefix == "/connection/websocket"
    assert options.http_server.port == 8000
    assert options.engine.redis.address == ("redis://127.0.0.1:6379",)
    assert options.client.allowed_origins == ()


def test_building_from_nothing_is_the_defaults():
    """And from every default by its path, too."""
    every = {path: leaf.default for path, leaf in schema.leaves().items()}

    assert schema.build({}) == ProcessOptions()
    assert schema.build(every) == ProcessOptions()


def test_building_sets_what_is_named_and_nothing_else():
    """At any depth."""
    options = schema.build({"client.token.audience": "a", "pid_file": "/run/x"})

    assert options.client == ClientOptions(token=TokenOptions(audience="a"))
    assert options == ProcessOptions(client=options.client, pid_file="/run/x")


def test_environment_names_are_unique():
    """Dots and underscores both become underscores; no two options may meet there."""
    names = [leaf.env_name for leaf in schema.leaves().values()]

    assert len(set(names)) == len(names)
    assert "TIDEWIRE_CLIENT_TOKEN_HMAC_SECRET_KEY" in names


def test_sections_and_leaves_are_apart():
    """A path is an object or a value, never both."""
    assert not schema.sections() & set(schema.leaves())
    assert "client.token" in schema.sections()


@pytest.mark.parametrize(
    ("path", "is_secret"),
    [
        ("client.token.hmac_secret_key", True),
        ("http_api.key", True),
        ("engine.redis.address", True),
        ("http_server.address", False),
        ("client.ping_interval", False),
    ],
)
def test_secrets_are_known(path, is_secret):
    """A listener's address hides nothing, a Redis address may have a password."""
    assert schema.leaves()[path].is_secret is is_secret


def test_a_repr_shows_what_was_changed_and_no_secret():
    """At any depth: options end up in tracebacks and logs."""
    options = schema.build(
        {"client.token.hmac_secret_key": "hidden", "client.channel_limit": 7, "api_key": "hidden"}
    )

    assert "hidden" not in repr(options)
    assert "hmac_secret_key=***" in repr(options)
    assert "channel_limit=7" in repr(options)
    assert "ping_interval" not in repr(options)


def test_options_are_frozen():
    """They are shared by all connections."""
    with pytest.raises(AttributeError):
        ProcessOptions().client.channel_limit = 1


def test_a_copy_can_differ():
    """As unit tests do it."""
    options = msgspec.structs.replace(ProcessOptions(), demo=True)

    assert options.demo
    assert not ProcessOptions().demo
