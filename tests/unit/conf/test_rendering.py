"""Options written out, and that they read back."""

from __future__ import annotations

import json
import tomllib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from realtime.conf import schema, sources
from realtime.conf.loader import load
from realtime.conf.options import DisconnectTransform, TransformDisconnect
from realtime.conf.rendering import document, environment_lines, lay_over, print_document
from realtime.namespaces.options import ChannelOptions


TRICKY = 'a "quoted" \\ back\nline \u00e9 \x7f $HOME'
VALUES = {
    "node.name": TRICKY,
    "client.ping_interval": 90.5,
    "client.allowed_origins": ("http://a", "http://b"),
    "client.proxy.refresh.http.static_headers": {"X-Case": TRICKY},
    "client.connect_code_to_unidirectional_disconnect.transforms": (
        DisconnectTransform(code=1, to=TransformDisconnect(code=4000, reason="r")),
    ),
    "http_server.internal_port": "",
    "health.enabled": True,
}
OPTIONS = schema.build(VALUES)
PARSERS = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}


@pytest.mark.parametrize("form", PARSERS)
def test_a_document_reads_back(form, tmp_path):
    """In all formats, with every option in it and nothing unknown."""
    path = tmp_path / f"config.{form}"
    path.write_text(print_document(document(OPTIONS), form), "utf-8")

    loaded = load({}, {"TIDEWIRE_CONFIG": str(path)})

    assert loaded.options == OPTIONS
    assert loaded.unknown == ()


def test_a_document_has_every_option():
    """And the keys of the database, for the file is Centrifugo's, too."""
    content = document(OPTIONS)

    layer = sources.from_mapping("", content)

    assert set(layer.values) == set(schema.leaves())
    assert content["channel"]["namespaces"] == []
    assert set(content["channel"]["without_namespace"]) == set(ChannelOptions.__struct_fields__)
    assert content["channel"]["without_namespace"]["history_ttl"] == "0s"
    assert content["client"]["ping_interval"] == "1m30.5s"


def test_environment_lines_read_back():
    """As a shell or a dotenv file would take them; the quotes are JSON's."""
    lines = environment_lines(OPTIONS)

    environ = {}
    for line in lines:
        name, _, quoted = line.partition("=")
        environ[name] = json.loads(quoted, strict=False)

    assert lines == sorted(lines)
    assert set(environ) == {leaf.env_name for leaf in schema.leaves().values()}
    assert load({}, environ).options == OPTIONS


def test_environment_lines_of_some_options():
    """Only those asked for."""
    assert environment_lines(OPTIONS, iter(["health.enabled", "client.allowed_origins"])) == [
        'TIDEWIRE_CLIENT_ALLOWED_ORIGINS="http://a http://b"',
        'TIDEWIRE_HEALTH_ENABLED="true"',
    ]


def test_rows_of_a_base_are_kept_and_filled_up():
    """A namespace inherits from nothing, so what it leaves out is default; other keys are dropped."""
    content = document(OPTIONS)
    base = {
        "Channel": {
            "without_namespace": {"presence": True},
            "Namespaces": [{"name": "chat", "history_size": 5, "map": {"mode": "ephemeral"}}],
            "typo": 1,
        },
        "rpc": {"namespaces": [{"name": "cart", "proxy_enabled": True}]},
        "proxies": [{"name": "p"}],
        "consumers": None,
        "node": {"name": "not a row"},
    }

    lay_over(content, base)

    channel = content["channel"]
    assert channel["without_namespace"]["presence"] is True
    (chat,) = channel["namespaces"]
    assert (chat["name"], chat["history_size"], chat["presence"]) == ("chat", 5, False)
    assert (chat["map"]["mode"], chat["map"]["key_ttl"]) == ("ephemeral", "0s")
    assert content["rpc"]["namespaces"] == [
        {"name": "cart", "proxy_enabled": True, "proxy_name": "default"}
    ]
    (proxy,) = content["proxies"]
    assert (proxy["name"], proxy["endpoint"], proxy["timeout"]) == ("p", "", "1s")
    assert proxy["http"]["tls"]["enabled"] is False
    assert content["consumers"] == []
    assert content["node"]["name"] == TRICKY
    assert "typo" not in channel


SCALARS = st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
# TOML and YAML have no lone surrogates, and YAML no control characters in plain text.
KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=6)
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, OBJECTS, max_size=4))
def test_toml_of_any_document_reads_back(content):
    """Keys of any text, lists of objects of lists, empty ones too."""
    assert tomllib.loads(print_document(content, "toml")) == content
