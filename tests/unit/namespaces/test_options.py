"""The options: names and defaults are a contract with configuration files."""

from __future__ import annotations

import msgspec
import pytest

from realtime.namespaces.options import ChannelOptions, ChannelRules, MapOptions, SharedPollOptions


def test_by_default_nothing_is_on():
    """A new namespace lets nobody do anything."""
    values = msgspec.structs.asdict(ChannelOptions())

    unusual = {name for name, value in values.items() if value not in (False, "", 0, ())}
    assert unusual == {
        "subscribe_proxy_name",
        "publish_proxy_name",
        "sub_refresh_proxy_name",
        "subscribe_stream_proxy_name",
        "cache_empty_proxy_name",
        "map",
        "shared_poll",
    }
    assert values["map"] == MapOptions()
    assert values["shared_poll"] == SharedPollOptions()


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("refresh_interval", 10),
        ("refresh_batch_size", 1000),
        ("max_keys_per_connection", 5000),
        ("channel_shutdown_delay", 1),
        ("track_expired_extra_delay", 25),
        ("publish_enabled", False),
        ("mode", ""),
        ("proxy_name", ""),
    ],
)
def test_shared_poll_defaults(option, default):
    """Those of the reference."""
    assert getattr(SharedPollOptions(), option) == default


def test_rules_defaults():
    """Those of the reference."""
    assert ChannelRules() == ChannelRules(255, "$", ":", "#", ",", 720 * 3600, "")


def test_options_are_frozen():
    """They are shared by every channel of a table."""
    with pytest.raises(AttributeError):
        ChannelOptions().presence = True


@pytest.mark.parametrize(
    ("kind", "number", "is_map"),
    [
        ("", 0, False),
        ("stream", 0, False),
        ("map", 1, True),
        ("map_clients", 2, True),
        ("map_users", 3, True),
        ("shared_poll", 4, False),
        ("nonsense", -1, False),
    ],
)
def test_subscription_types_have_numbers(kind, number, is_map):
    """The protocol's; nobody can ask for a type that does not exist."""
    options = ChannelOptions(subscription_type=kind)

    assert (options.type_number, options.is_map) == (number, is_map)
