"""One value at a time: every kind, what is taken, what is refused and in which words."""

from __future__ import annotations

import base64

import pytest

from realtime.conf import schema
from realtime.conf.values import Reader, load_pem


PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
HEADERS = "client.proxy.refresh.http.static_headers"
TRANSFORMS = "client.connect_code_to_unidirectional_disconnect.transforms"


def convert(path, raw, *, is_text=False, environ=None):
    return Reader(environ or {}, is_text=is_text).convert(schema.leaves()[path], raw)


@pytest.mark.parametrize(
    ("path", "raw", "value"),
    [
        ("client.insecure", True, True),
        *((("client.insecure", word, True)) for word in ("1", "t", "T", "TRUE", "true", "True")),
        *(
            (("client.insecure", word, False))
            for word in ("0", "f", "F", "FALSE", "false", "False")
        ),
        ("client.channel_limit", 5, 5),
        ("client.channel_limit", "5", 5),
        ("client.channel_limit", "-5", -5),
        ("node.name", "x y", "x y"),
        ("node.name", "", ""),
        ("client.ping_interval", "1m", 60.0),
        ("client.ping_interval", "-1s", -1.0),
        ("client.expired_close_delay", 0, 0.0),
        ("channel.history_meta_ttl", "24h", 86400.0),
        ("http_server.internal_port", 9000, "9000"),
        ("http_server.internal_port", "9000", "9000"),
        ("http_server.internal_port", "", ""),
        ("health.handler_prefix", "/x/", "/x"),
        ("health.handler_prefix", "/", ""),
        ("client.allowed_origins", ["a", "b"], ("a", "b")),
        ("client.allowed_origins", ("a",), ("a",)),
        ("client.allowed_origins", [], ()),
        ("engine.redis.address", "redis://x:1", ("redis://x:1",)),
        ("engine.redis.address", ["x", "y"], ("x", "y")),
        ("engine.redis.cluster_address", "", ()),
        (HEADERS, {"X-A": "b"}, {"x-a": "b"}),
        (HEADERS, [{"key": "X-A", "value": "b"}], {"X-A": "b"}),
        (HEADERS, {}, {}),
    ],
)
def test_forms_in_a_file(path, raw, value):
    """What JSON, YAML, TOML and Python settings may have."""
    assert convert(path, raw) == value


@pytest.mark.parametrize(
    ("path", "raw", "value"),
    [
        ("client.allowed_origins", "http://a  http://b", ("http://a", "http://b")),
        ("engine.redis.address", "x y", ("x", "y")),
        (HEADERS, '{"X-A": "b"}', {"X-A": "b"}),
        (HEADERS, '[{"key": "X-A", "value": "b"}]', {"X-A": "b"}),
    ],
)
def test_forms_in_the_environment(path, raw, value):
    """Lists by blanks, the rest as JSON, whose keys keep their case."""
    assert convert(path, raw, is_text=True) == value


@pytest.mark.parametrize("is_text", [False, True])
def test_lists_of_objects(is_text):
    """As they are, or as JSON."""
    raw = [{"code": 109, "to": {"code": 4109, "reason": "expired"}}, {}]
    text = '[{"code": 109, "to": {"code": 4109, "reason": "expired"}}, {}]'

    first, second = convert(TRANSFORMS, text if is_text else raw, is_text=is_text)

    assert (first.code, first.to.code, first.to.reason) == (109, 4109, "expired")
    assert (second.code, second.to.code) == (0, 0)


@pytest.mark.parametrize(
    ("path", "raw", "message"),
    [
        ("client.insecure", "yes", 'expected true or false, got "yes"'),
        ("client.insecure", "tRuE", 'expected true or false, got "tRuE"'),
        ("client.insecure", 1, "expected true or false, got the number 1"),
        ("client.insecure", [], "expected true or false, got a list"),
        ("client.channel_limit", True, "expected a whole number, got true"),
        ("client.channel_limit", 1.5, "expected a whole number, got the number 1.5"),
        ("client.channel_limit", 128.0, "expected a whole number, got the number 128.0"),
        ("client.channel_limit", "1e3", 'expected a whole number, got "1e3"'),
        ("client.channel_limit", "1_000", 'expected a whole number, got "1_000"'),
        ("client.channel_limit", " 1", 'expected a whole number, got " 1"'),
        ("client.channel_limit", "\u0661", 'expected a whole number, got "\u0661"'),
        ("client.channel_limit", {}, "expected a whole number, got an object"),
        ("client.channel_limit", "9" * 70, "expected a whole number, got a string"),
        ("node.name", 5, "expected a string, got the number 5: put it in quotes"),
        ("node.name", True, "expected a string, got true: put it in quotes"),
        ("node.name", ["x"], "expected a string, got a list"),
        ("http_api.key", 5, "expected a string, got a number: put it in quotes"),
        ("http_api.key", True, "expected a string, got a boolean: put it in quotes"),
        ("client.token.rsa_public_key", 5, "expected a string, got the number 5: put it in quotes"),
        ("client.ping_interval", 25, 'a duration needs a unit, as in "25s", got the number 25'),
        ("client.ping_interval", "25", 'a duration needs a unit, as in "25s", got "25"'),
        ("client.ping_interval", True, 'expected a duration such as "25s", got bool'),
        ("websocket.write_timeout", "-1s", 'expected a duration of 0 or more, got "-1s"'),
        ("channel.history_meta_ttl", "1.5s", 'expected whole seconds, got "1.5s"'),
        ("http_server.internal_port", "http", 'expected a port number, got "http"'),
        ("http_server.internal_port", True, "expected a port number, got true"),
        ("health.handler_prefix", "x", 'expected a path that begins with /, got "x"'),
        ("client.allowed_origins", "http://a", 'expected a list of strings, got "http://a"'),
        ("client.allowed_origins", [1], "expected a list of strings, got a list"),
        ("engine.redis.address", 5, "expected a list of strings, got a number"),
        (HEADERS, "x", "expected an object of strings, or a list of {key, value}"),
        (HEADERS, {"a": 1}, 'expected a string for the key "a"'),
        (HEADERS, {"a": "1", "A": "2"}, 'the key "a" is there twice'),
        (HEADERS, ["x"], "expected {key, value} at element 0"),
        (HEADERS, [{"key": "a"}], 'expected a string for the key "a"'),
        (HEADERS, [{"key": "a", "value": "1"}] * 2, 'the key "a" is there twice'),
        (TRANSFORMS, {}, "expected a list of objects, got an object"),
        (TRANSFORMS, "[]", 'expected a list of objects, got "[]"'),
        (TRANSFORMS, [5], f"expected an object at {TRANSFORMS}.[0], got a number"),
        (
            TRANSFORMS,
            [{}, {"to": {"code": "x"}}],
            f'expected a whole number, got "x" at {TRANSFORMS}.[1].to.code',
        ),
    ],
)
def test_wrong_forms_in_a_file(path, raw, message):
    """Each with what was expected and, unless it is a secret, what was given."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the text is compared below
        convert(path, raw)

    assert str(caught.value) == message


@pytest.mark.parametrize("path", [HEADERS, TRANSFORMS])
@pytest.mark.parametrize("raw", ["{", "x=y"])
def test_text_that_is_no_json(path, raw):
    """In the environment."""
    with pytest.raises(ValueError, match=r"^expected JSON, got text that is not$"):
        convert(path, raw, is_text=True)


def test_a_number_in_json_of_the_environment_is_no_duration():
    """What is inside of the JSON has the types of a file."""
    raw = '[{"code": "109", "to": {"code": 4109, "reason": 5}}]'

    with pytest.raises(ValueError, match=r"^expected a string, got the number 5: put it in quotes"):
        convert(TRANSFORMS, raw, is_text=True)


@pytest.mark.parametrize("name", ["TIDEWIRE_VAR_TOKEN", "CENTRIFUGO_VAR_TOKEN"])
def test_variables_in_maps_are_filled_in(name):
    """Also the other server's, whose files come as they are; once, not in what was filled in."""
    raw = {"authorization": f"Bearer ${{{name}}}!", "x": "${OTHER} $TIDEWIRE_VAR_TOKEN"}

    value = convert(HEADERS, raw, environ={name: f"a${{{name}}}"})

    assert value == {
        "authorization": f"Bearer a${{{name}}}!",
        "x": "${OTHER} $TIDEWIRE_VAR_TOKEN",
    }


def test_a_variable_that_is_missing_is_an_error():
    """By its name."""
    with pytest.raises(ValueError, match=r"^the environment variable TIDEWIRE_VAR_X is not set$"):
        convert(HEADERS, {"a": "${TIDEWIRE_VAR_X}"})


# --- PEM ----------------------------------------------------------------------------------------


def test_pem_in_its_three_forms(tmp_path):
    """Text, base64 of it, a file."""
    path = tmp_path / "key.pem"
    path.write_text(PEM)

    assert load_pem(PEM) == PEM
    assert load_pem(base64.b64encode(PEM.encode()).decode()) == PEM
    assert load_pem(str(path)) == PEM


@pytest.mark.parametrize(
    "value",
    ["x", "AAAA", "/nowhere/key.pem", "a\0b", "x" * 5000, base64.b64encode(b"\xff").decode()],
)
def test_what_is_no_pem(value):
    """The value is not repeated: it may be half of a key."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the text is compared below
        load_pem(value)

    assert str(caught.value) == "expected PEM text, base64 of PEM or the path of a readable file"


def test_a_file_without_pem(tmp_path):
    """Is named; its content is not shown."""
    path = tmp_path / "key.pem"
    path.write_text("hidden")

    with pytest.raises(ValueError, match=r"key\.pem has no PEM in it$") as caught:
        load_pem(str(path))

    assert "hidden" not in str(caught.value)
