"""The table: what is known of a channel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.namespaces import table as table_module
from realtime.namespaces.options import (
    ChannelOptions,
    ChannelRules,
    MapOptions,
    MapRules,
    StreamOptions,
)
from realtime.namespaces.table import NamespaceTable
from realtime.protocol.errors import ConfigError


TABLE = NamespaceTable(
    namespaces={
        "chat": ChannelOptions(),
        "reg": ChannelOptions(channel_regex="^[a-z\u00e9]+$"),
        "lim": ChannelOptions(allow_user_limited_channels=True),
    }
)


@pytest.mark.parametrize(
    ("name", "namespace", "rest"),
    [
        ("news", "", "news"),
        ("chat:a", "chat", "a"),
        ("chat:a:b", "chat", "a:b"),
        ("$chat:a", "chat", "a"),
        ("$a", "", "$a"),
        (":a", "", "a"),
        ("chat:", "chat", ""),
        ("chat:a#42", "chat", "a#42"),
    ],
)
def test_a_channel_has_its_namespaces_options(name, namespace, rest):
    """The empty namespace is that of the channels without one."""
    channel = TABLE.resolve(name)

    assert channel is not None
    assert (channel.name, channel.namespace, channel.rest) == (name, namespace, rest)
    expected = TABLE.namespaces[namespace] if namespace else TABLE.without_namespace
    assert channel.options is expected


@pytest.mark.parametrize("name", ["zzz:a", "$zzz:a", "$$chat:a", "Chat:a", " chat:a"])
def test_an_unknown_namespace_has_no_channels(name):
    """It isn't remembered either: a namespace that is unknown costs no memory."""
    assert TABLE.resolve(name) is None
    assert TABLE.resolve(name) is None


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        ("chat:a", True),
        ("chat:\u00e9", False),
        ("chat:\x7f\n", True),
        ("\u00e9", False),
        ("reg:\u00e9", True),
        ("reg:abc", True),
        ("reg:ABC", False),
        ("reg:", False),
        ("$reg:a", True),
        ("reg:a\ud800", False),
    ],
)
def test_names_are_judged_by_the_expression_or_the_ascii_rule(name, is_valid):
    """Where there is an expression the ASCII rule does not apply."""
    channel = TABLE.resolve(name)

    assert channel is not None
    assert channel.is_valid is is_valid


def test_an_expression_without_namespace_sees_the_private_prefix():
    """The rest is then the whole name."""
    table = NamespaceTable(ChannelOptions(channel_regex=r"^\$"))

    assert table.resolve("$a").is_valid
    assert not table.resolve("a").is_valid


@pytest.mark.parametrize(
    ("name", "is_limited", "users"),
    [
        ("lim:a#u,v", True, ("u", "v")),
        ("lim:a#x#u", True, ("u",)),
        ("lim:#u", True, ("u",)),
        ("lim:a", False, ()),
        ("chat:a#u", False, ()),
        ("$lim:#u", True, ("u",)),
    ],
)
def test_user_limited_channels(name, is_limited, users):
    """Both the option and the boundary are needed."""
    channel = TABLE.resolve(name)

    assert channel.is_user_limited is is_limited
    assert channel.allowed_users == users
    assert all(channel.is_for_user(user) for user in users)


@pytest.mark.parametrize(
    ("name", "user"),
    [("lim:#", ""), ("lim:#u", ""), ("lim:#u,", ""), ("lim:#u", "U"), ("lim:#u", " u")],
)
def test_who_is_not_for_a_user_limited_channel(name, user):
    """Nobody without a name, and no other spelling."""
    assert not TABLE.resolve(name).is_for_user(user)


def test_what_is_inherited_is_filled_in():
    """Only the meta TTL and the data format come from the rules."""
    table = NamespaceTable(
        namespaces={
            "own": ChannelOptions(
                history_size=10,
                history_ttl=60,
                history_meta_ttl=120,
                publication_data_format="binary",
                delta_publish=True,
            ),
            "inherits": ChannelOptions(history_size=10, history_ttl=60),
        },
        rules=ChannelRules(history_meta_ttl=999, publication_data_format="json"),
    )

    own, inherits, bare = (table.resolve(name) for name in ("own:a", "inherits:a", "a"))

    assert (own.history_meta_ttl, own.data_format, own.has_history) == (120, "binary", True)
    assert own.publish_options == StreamOptions(10, 60, 120, delta=True)
    assert (inherits.history_meta_ttl, inherits.data_format) == (999, "json")
    assert inherits.publish_options == StreamOptions(10, 60, 999)
    assert inherits.publish_options.has_history
    assert (bare.has_history, bare.publish_options.has_history) == (False, False)


@pytest.mark.parametrize(("size", "ttl"), [(0, 0), (0, 60), (10, 0), (-1, 60)])
def test_history_needs_size_and_ttl(size, ttl):
    """Both positive."""
    table = NamespaceTable(ChannelOptions(history_size=size, history_ttl=ttl))

    assert not table.resolve("a").has_history


def test_a_bad_expression_is_no_table():
    """The text names the namespace and the expression."""
    with pytest.raises(ConfigError, match=r"namespace 'bad': channel_regex '\(\?=a\)'"):
        NamespaceTable(namespaces={"bad": ChannelOptions(channel_regex="(?=a)")})
    with pytest.raises(ConfigError, match="channels without namespace"):
        NamespaceTable(ChannelOptions(channel_regex="("))


def test_a_table_is_a_copy_and_read_only():
    """What it was made of may change afterwards."""
    namespaces = {"chat": ChannelOptions()}
    table = NamespaceTable(namespaces=namespaces, revision=7)

    namespaces["late"] = ChannelOptions()

    assert table.revision == 7
    assert table.resolve("late:a") is None
    with pytest.raises(TypeError):
        table.namespaces["late"] = ChannelOptions()


def test_a_channel_is_remembered():
    """The second look-up finds the same object; another table has its own."""
    table = NamespaceTable()

    assert table.resolve("a") is table.resolve("a")
    assert table.resolve("a") is not NamespaceTable().resolve("a")
    assert table.resolve("a") != NamespaceTable().resolve("a")
    assert len({table.resolve("a"), table.resolve("a")}) == 1


def test_memory_is_bounded_and_names_in_use_survive(monkeypatch):
    """Clients choose names, so they can't be allowed to fill the process."""
    monkeypatch.setattr(table_module, "_GENERATION_SIZE", 10)
    table = NamespaceTable()
    in_use = table.resolve("in use")

    for number in range(1000):
        table.resolve(f"other {number}")
        assert table.resolve("in use") is in_use

    assert len(table._known) + len(table._known_before) <= 20


def test_long_names_and_unknown_ones_are_not_remembered():
    """Only publishes and the server API meet them; subscribing has a limit."""
    table = NamespaceTable()

    assert table.resolve("x" * 513).name == "x" * 513
    assert table.resolve("unknown:a") is None

    assert not table._known


@given(name=st.text(st.characters(exclude_categories=())) | st.text("$:#,lima\u00e9\ud800"))
def test_any_text_can_be_resolved(name):
    """
    Nothing raises; what comes back is about that name, twice alike.
    """
    channel = TABLE.resolve(name)

    if channel is not None:
        assert channel.name == name
        assert channel.is_private is name.startswith("$")
        assert channel is TABLE.resolve(name)
        assert isinstance(channel.allowed_users, tuple)
        assert isinstance(channel.is_valid, bool)


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        (MapOptions(mode="ephemeral", key_ttl=5.0), MapRules(key_ttl=5.0)),
        (
            MapOptions(mode="recoverable", key_ttl=5.0),
            MapRules(key_ttl=5.0, stream_size=100, stream_ttl=60.0, meta_ttl=600.0),
        ),
        (
            MapOptions(mode="recoverable", key_ttl=900.0, stream_size=7),
            MapRules(key_ttl=900.0, stream_size=7, stream_ttl=60.0, meta_ttl=900.0),
        ),
        (
            MapOptions(mode="persistent", stream_ttl=9.0),
            MapRules(stream_size=100, stream_ttl=9.0),
        ),
    ],
)
def test_what_a_map_leaves_to_us_is_filled_in(options: MapOptions, rules: MapRules) -> None:
    table = NamespaceTable(ChannelOptions(subscription_type="map", map=options))
    channel = table.resolve("board")
    assert channel is not None
    assert channel.map_rules == rules
    assert channel.map_rules.has_stream is (options.mode != "ephemeral")
