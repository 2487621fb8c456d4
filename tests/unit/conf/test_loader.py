"""Merging the sources: who wins, what is refused and in which words, what is said in the log."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import pytest

from realtime.conf import loader
from realtime.conf.loader import Fault, InvalidConfigError, load
from realtime.protocol.errors import ConfigError


SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def write(tmp_path):
    """Write a file and return the environment that names it."""

    def write_file(content, name="config.json"):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, "utf-8")
        return {"TIDEWIRE_CONFIG": str(path)}

    return write_file


def problems(*args, **kwargs):
    with pytest.raises(InvalidConfigError) as caught:
        load(*args, **kwargs)
    return [str(problem) for problem in caught.value.problems]


def messages(loaded, level):
    return [notice.message for notice in loaded.notices if notice.level == level]


# --- precedence ---------------------------------------------------------------------------------

# Path, and the same option in each source with a value of its own; the last column is the default.
MATRIX = [
    ("client.channel_limit", 1, 2, "3", "4", [1, 2, 3, 4], 128),
    ("client.ping_interval", "11s", "12s", "13s", "14s", [11.0, 12.0, 13.0, 14.0], 25.0),
    ("node.name", "a", "b", "c", "d", ["a", "b", "c", "d"], ""),
    (
        "client.allowed_origins",
        ["http://a"],
        ["http://b"],
        "http://c http://d",
        "http://e",
        [("http://a",), ("http://b",), ("http://c", "http://d"), ("http://e",)],
        (),
    ),
]


@pytest.mark.parametrize(("path", "own", "file", "env", "flag", "results", "default"), MATRIX)
@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_later_sources_win(write, present, path, own, file, env, flag, results, default):
    """Settings, file, environment, flags, in all combinations; a list is replaced as a whole."""
    section, name = path.split(".")
    has_settings, has_file, has_env, has_flag = present
    environ = write({section: {name: file}}) if has_file else {}
    if has_env:
        environ[f"TIDEWIRE_{section}_{name}".upper()] = env

    options = load(
        {section: {name: own}} if has_settings else {},
        environ,
        {path: flag} if has_flag else {},
    ).options

    given = [result for result, is_there in zip(results, present, strict=True) if is_there]
    assert getattr(getattr(options, section), name) == (given[-1] if given else default)


def test_sources_are_merged_key_by_key(write):
    """A section in a later source does not hide its neighbours in an earlier one."""
    environ = {
        **write({"client": {"token": {"issuer": "file"}}}),
        "TIDEWIRE_CLIENT_TOKEN_USER_ID_CLAIM": "uid",
    }

    token = load({"client": {"token": {"audience": "settings"}}}, environ).options.client.token

    assert (token.audience, token.issuer, token.user_id_claim) == ("settings", "file", "uid")


def test_a_map_is_replaced_as_a_whole(write):
    """As a list is."""
    proxy = {"http": {"static_headers": {"X-A": "1", "X-B": "2"}}}
    name = "TIDEWIRE_CLIENT_PROXY_REFRESH_HTTP_STATIC_HEADERS"
    environ = {**write({"client": {"proxy": {"refresh": proxy}}}), name: '{"X-C": "3"}'}

    refresh = load({}, environ).options.client.proxy.refresh

    assert refresh.http.static_headers == {"X-C": "3"}


def test_a_default_can_be_put_back():
    """A later source may say what the default says anyhow."""
    options = load({"health": {"enabled": True}}, {"TIDEWIRE_HEALTH_ENABLED": "false"}).options

    assert options.health.enabled is False


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "config.toml"])
def test_samples_of_all_formats_say_the_same(name):
    """A Centrifugo file is a Tidewire file."""
    loaded = load({}, {"TIDEWIRE_CONFIG": str(SAMPLES / name)})

    client = loaded.options.client
    assert client.allowed_origins == ("https://shop.example", "https://*.shop.example")
    assert client.token.hmac_secret_key == "a secret of the shop, long enough for SHA-256"
    assert client.token.hmac_previous_secret_key_valid_until == 1900000000
    assert (client.ping_interval, client.pong_timeout) == (90.0, 0.5)
    assert client.subscription_token.enabled
    assert loaded.options.http_server.port == 8001
    assert loaded.options.log.level == "debug"
    assert loaded.options.channel.history_meta_ttl == 864000.0
    assert loaded.options.health.handler_prefix == "/healthz"
    assert loaded.options.shutdown.timeout == 0.0
    assert loaded.unknown == ()
    assert messages(loaded, logging.WARNING) == []
    assert messages(loaded, logging.ERROR) == [
        "graphite.enabled is not implemented yet and has no effect"
    ]
    reference = load({}, {"TIDEWIRE_CONFIG": str(SAMPLES / "config.json")})
    assert loaded.options == reference.options


# --- settings.REALTIME --------------------------------------------------------------------------


def test_settings_may_be_written_as_django_writes_them():
    """The three options of Django code, at the top only."""
    options = load({"DEMO": True, "API_URL": "http://x/api", "API_KEY": "k"}, {}).options

    assert (options.demo, options.api_url, options.api_key) == (True, "http://x/api", "k")


def test_an_option_under_both_names_is_refused():
    """Nobody could tell which one counts."""
    with pytest.raises(ConfigError, match=r"^settings\.REALTIME: api_url is there twice"):
        load({"API_URL": "a", "api_url": "b"}, {})


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"typo": 1}, "typo"),
        ({"client": {"typo": 1}}, "client.typo"),
        ({"client": {"token": {"typo": {"x": 1}}}}, "client.token.typo"),
        ({"typo": None}, "typo"),
        ({"Client": {}}, "Client"),
        ({"client": {"DEMO": True}}, "client.DEMO"),
        ({5: 1}, "5"),
    ],
)
def test_an_unknown_key_in_settings_is_an_error(settings, path):
    """Settings are code: a typing error there is a bug."""
    assert problems(settings, {}) == [f"{path} (settings.REALTIME): there is no such option"]


def test_an_unknown_key_in_a_list_of_settings_is_an_error():
    """Also inside of objects in lists."""
    path = "client.connect_code_to_unidirectional_disconnect"
    transforms = [{"code": 1, "to": {"code": 4000, "reason": "r", "typo": 1}}]
    settings = {"client": {"connect_code_to_unidirectional_disconnect": {"transforms": transforms}}}

    assert problems(settings, {}) == [
        f"{path}.transforms.[0].to.typo (settings.REALTIME): there is no such option"
    ]


@pytest.mark.parametrize(("settings", "name"), [([], "list"), (None, "NoneType"), ("x", "str")])
def test_settings_must_be_a_dict(settings, name):
    """Everything else is told so."""
    with pytest.raises(ConfigError) as caught:
        load(settings, {})

    assert str(caught.value) == f"settings.REALTIME: expected a dict, got {name}"


def test_none_in_settings_is_as_if_not_there():
    """So that ``os.environ.get`` may stand there."""
    assert load({"http_api": {"key": None}, "client": None}, {}).options.http_api.key == ""


@pytest.mark.parametrize("is_debug", [True, False])
def test_the_demo_follows_debug_unless_told(is_debug):
    """In any source."""
    assert load({}, {}, is_debug=is_debug).options.demo is is_debug
    assert load({"demo": not is_debug}, {}, is_debug=is_debug).options.demo is not is_debug
    environ = {"TIDEWIRE_DEMO": str(not is_debug)}
    assert load({}, environ, is_debug=is_debug).options.demo is not is_debug


# --- the file -----------------------------------------------------------------------------------


def test_a_missing_file_is_a_warning(tmp_path):
    """The server starts, as the reference does."""
    path = tmp_path / "none.json"

    loaded = load({}, {"TIDEWIRE_CONFIG": str(path)})

    assert messages(loaded, logging.WARNING) == [
        f"config file not found, continue using environment and flag options: {path}"
    ]
    assert loaded.path == ""


def test_unknown_keys_of_a_file_are_warnings(write):
    """One a key, by its dotted path; in lists by number."""
    transforms = [{"code": 1, "to": {"code": 4000, "reason": "r"}, "zz": 1}]
    content = {
        "foo": {"bar": 1},
        "client": {
            "zzz": 1,
            "connect_code_to_unidirectional_disconnect": {"transforms": transforms},
        },
    }

    loaded = load({}, write(content))

    keys = (
        "foo",
        "client.zzz",
        "client.connect_code_to_unidirectional_disconnect.transforms.[0].zz",
    )
    assert loaded.unknown == keys
    assert messages(loaded, logging.WARNING) == [
        f"unknown key in configuration file: {key}" for key in keys
    ]


def test_a_files_keys_are_not_case_sensitive(write):
    """As the reference's are not."""
    assert load({}, write({"Client": {"CHANNEL_LIMIT": 5}})).options.client.channel_limit == 5


def test_rows_in_a_file_are_one_line(write):
    """Whatever is in them: they are no process options, and importconfig is named."""
    content = {
        "channel": {
            "namespaces": [{"name": "x", "typo": 1}],
            "without_namespace": {"presence": True},
            "max_length": 9,
        },
        "rpc": {"namespaces": [{"name": "r"}], "without_namespace": {}},
        "proxies": [{"name": "p"}],
        "consumers": [],
    }

    environ = write(content)

    loaded = load({}, environ)

    notices = [text for text in messages(loaded, logging.INFO) if "importconfig" in text]
    assert notices == [
        "channel.namespaces, channel.without_namespace, rpc.namespaces, proxies "
        f"(file {environ['TIDEWIRE_CONFIG']}): kept in the database, ignored here; "
        "manage.py importconfig brings a file's namespaces there"
    ]
    assert messages(loaded, logging.WARNING) == []
    assert loaded.options.channel.max_length == 9


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{", "can't be parsed: Expecting property name"),
        ("x.json", '{"a": hmac}', "can't be parsed: Expecting value at line 1 column 7"),
        ("x.json", "[" * 100_000, "can't be parsed: nested too deeply"),
        ("x.json", "[1]", "expected an object at the top"),
        ("x.json", "", "can't be parsed"),
        ("x.yaml", "a: [", "can't be parsed"),
        ("x.yaml", "text", "expected an object at the top"),
        ("x.yml", "a: !!python/object:os.system {}", "can't be parsed: could not determine"),
        ("x.toml", "a = ", "can't be parsed: Invalid value"),
        ("x.ini", "", "the name must end in .json, .toml, .yaml or .yml"),
        ("x", "", "the name must end in .json, .toml, .yaml or .yml"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(write, name, text, message):
    """With the place, and without what stands there: it may be a secret."""
    environ = write(text, name)

    with pytest.raises(ConfigError) as caught:
        load({}, environ)

    assert str(caught.value).startswith(f"file {environ['TIDEWIRE_CONFIG']}: {message}")
    assert "hmac" not in str(caught.value).partition("x.json")[2]


def test_a_file_that_is_no_text_is_named(tmp_path):
    """Bytes that are no UTF-8, or a folder."""
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe{")
    (tmp_path / "folder.json").mkdir()

    for each in (path, tmp_path / "folder.json"):
        with pytest.raises(ConfigError, match=r"can't be read: "):
            load({}, {"TIDEWIRE_CONFIG": str(each)})


def test_an_empty_yaml_file_is_no_error(write):
    """Nor is one of comments, or a byte order mark."""
    assert load({}, write("# nothing\n", "x.yaml")).options == load({}, {}).options
    assert load({}, write("\ufeff{}")).options == load({}, {}).options


def test_a_section_that_is_no_object_is_named(write):
    """By its own path."""
    environ = write({"client": {"token": "secret"}})

    assert problems({}, environ) == [
        f"client.token (file {environ['TIDEWIRE_CONFIG']}): expected an object of options"
    ]


# --- the environment ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["TIDEWIRE_TYPO", "TIDEWIRE_CLIENT", "TIDEWIRE_client_insecure", "TIDEWIRE_PROXIESX"]
)
def test_unknown_variables_are_warnings(name):
    """By name; a section or lower case is unknown, too."""
    loaded = load({}, {name: "1"})

    assert messages(loaded, logging.WARNING) == [f"unknown var in environment: {name}"]


@pytest.mark.parametrize(
    "name",
    [
        "TIDEWIRE_VAR_TOKEN",
        "TIDEWIRE_SERVICE_HOST",
        "TIDEWIRE_PORT_8000_TCP",
        "TIDEWIRE_WEB_SERVICE_PORT",
        "OTHER",
        "CENTRIFUGO_CLIENT_INSECURE",
    ],
)
def test_what_is_not_ours_is_ignored(name):
    """Values for maps, what Kubernetes sets, other programs'."""
    assert load({}, {name: "1"}) == load({}, {})


def test_ports_are_options_although_kubernetes_has_such_names():
    """A known name wins over the pattern."""
    assert load({}, {"TIDEWIRE_HTTP_SERVER_PORT": "9000"}).options.http_server.port == 9000


def test_an_empty_variable_is_as_if_unset():
    """For any type."""
    environ = {"TIDEWIRE_HTTP_SERVER_PORT": "", "TIDEWIRE_CONFIG": "", "TIDEWIRE_PROXIES": ""}

    assert load({"http_server": {"port": 1}}, environ).options.http_server.port == 1
    assert load({}, environ) == load({}, {})


def test_rows_in_the_environment_are_one_line():
    """Lists, and the variables of one namespace."""
    environ = {
        "TIDEWIRE_CHANNEL_NAMESPACES": "chat",
        "TIDEWIRE_CHANNEL_NAMESPACES_CHAT_PRESENCE": "true",
        "TIDEWIRE_CHANNEL_WITHOUT_NAMESPACE_PRESENCE": "true",
    }

    loaded = load({}, environ)

    (text,) = messages(loaded, logging.INFO)
    assert text.startswith(f"{', '.join(environ)} (environment): kept in the database")
    assert "manage.py importconfig" in text


# --- flags --------------------------------------------------------------------------------------


def test_a_flag_that_was_not_given_changes_nothing():
    """``None`` is what argparse has for it."""
    assert load({"pid_file": "x"}, {}, {"pid_file": None}).options.pid_file == "x"


def test_an_unknown_flag_is_an_error():
    """Told as it was typed."""
    with pytest.raises(ConfigError, match=r"^--typo: there is no such option$"):
        load({}, {}, {"typo": "1"})


# --- errors -------------------------------------------------------------------------------------


def test_the_source_of_a_wrong_value_is_named(write):
    """The one whose value counts, of all those that have the option."""
    environ = write({"client": {"channel_limit": "x"}})
    path = environ["TIDEWIRE_CONFIG"]
    text = "expected a whole number, got"

    assert problems({"client": {"channel_limit": "x"}}, {}) == [
        f'client.channel_limit (settings.REALTIME): {text} "x"'
    ]
    assert problems({}, environ) == [f'client.channel_limit (file {path}): {text} "x"']
    variable = {"TIDEWIRE_CLIENT_CHANNEL_LIMIT": "y"}
    assert problems({}, variable) == [
        f'client.channel_limit (environment variable TIDEWIRE_CLIENT_CHANNEL_LIMIT): {text} "y"'
    ]
    assert problems({}, {}, {"client.channel_limit": "z"}) == [
        f'client.channel_limit (flag --client.channel_limit): {text} "z"'
    ]


def test_all_problems_are_told_at_once(write):
    """One a line."""
    environ = {**write({"client": {"ping_interval": 25}}), "TIDEWIRE_DEMO": "perhaps"}

    with pytest.raises(InvalidConfigError) as caught:
        load({"typo": 1}, environ)

    assert [problem.path for problem in caught.value.problems] == [
        "typo",
        "client.ping_interval",
        "demo",
    ]
    assert str(caught.value).splitlines() == [str(each) for each in caught.value.problems]


def test_a_broken_rule_names_its_source():
    """And a default where the value is one."""
    text = "must be less than client.ping_interval"

    assert problems({"client": {"pong_timeout": "30s"}}, {}) == [
        f"client.pong_timeout (settings.REALTIME): {text} (25s), got 30s"
    ]
    assert problems({"client": {"ping_interval": "8s"}}, {}) == [
        f"client.pong_timeout (default): {text} (8s), got 8s"
    ]


def test_a_secret_is_never_repeated(write):
    """Not in any error about it."""
    environ = {
        **write({"client": {"token": {"hmac_secret_key": 12345}}, "http_api": {"key": ["12345"]}}),
        "TIDEWIRE_CLIENT_PROXY_REFRESH_HTTP_STATIC_HEADERS": "12345",
        "TIDEWIRE_CLIENT_TOKEN_RSA_PUBLIC_KEY": "12345",
    }

    told = problems({}, environ)

    assert len(told) == 4
    assert not [text for text in told if "12345" in text]


# --- what is not implemented --------------------------------------------------------------------


def test_what_is_not_implemented_is_an_error_in_the_log():
    """By name, one line each, and the server starts."""
    loaded = load({"graphite": {"enabled": True}, "client": {"concurrency": 4}}, {})

    assert messages(loaded, logging.ERROR) == [
        "graphite.enabled is not implemented yet and has no effect",
        "client.concurrency is not implemented yet and has no effect",
    ]


def test_a_default_of_something_not_implemented_is_no_matter():
    """A file of all defaults starts in silence."""
    assert messages(load({"sse": {"enabled": False}}, {}), logging.ERROR) == []


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"map_broker": {"type": "postgres"}}, "map_broker.type"),
        ({"controller": {"enabled": True, "type": "postgres"}}, "controller.enabled"),
        ({"broker": {"enabled": True, "type": "nats"}}, "broker.enabled"),
        ({"client": {"token": {"jwks_public_endpoint": "https://x/jwks"}}}, None),
        ({"client": {"proxy": {"connect": {"enabled": True, "endpoint": "http://x"}}}}, None),
        (
            {"http_server": {"tls_autocert": {"enabled": True}}},
            "http_server.tls_autocert.enabled",
        ),
    ],
)
def test_what_would_be_less_safe_is_refused(settings, path):
    """With the reason."""
    (text,) = problems(settings, {})

    assert "(settings.REALTIME): not implemented yet: " in text
    assert path is None or text.startswith(path)


def test_refusals_are_told_apart():
    """So that the system check can give another hint."""
    with pytest.raises(InvalidConfigError) as caught:
        load({"map_broker": {"type": "postgres"}}, {})

    assert [problem.fault for problem in caught.value.problems] == [Fault.UNAVAILABLE]


def test_what_never_applies_is_one_line():
    """All of it together."""
    settings = {"websocket": {"read_buffer_size": 1}, "admin": {"enabled": True, "password": "x"}}

    loaded = load(settings, {})

    assert messages(loaded, logging.INFO) == [
        "accepted and without a meaning here: websocket.read_buffer_size, admin.enabled, "
        "admin.password"
    ]
    assert messages(loaded, logging.ERROR) == []


# --- shouting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"client": {"insecure": True}}, "INSECURE client mode enabled"),
        (
            {"client": {"insecure_skip_token_signature_verify": True}},
            "INSECURE skip token signature verify enabled",
        ),
        ({"http_api": {"insecure": True}}, "INSECURE HTTP API mode enabled"),
        ({"grpc_api": {"enabled": True}}, "INSECURE GRPC API: grpc_api.key is empty"),
        ({"client": {"allowed_origins": ["*"]}}, "client.allowed_origins * "),
    ],
)
def test_insecure_modes_are_shouted(settings, start):
    """At every start."""
    (text,) = messages(load(settings, {}), logging.WARNING)

    assert text.startswith(start)


def test_an_unknown_log_level_becomes_info():
    """With a warning, as in the reference; known ones in any case."""
    loaded = load({"log": {"level": "loud"}}, {})

    assert loaded.options.log.level == "info"
    assert messages(loaded, logging.WARNING) == ['unknown log.level "loud", using info']
    assert load({"log": {"level": "WARN"}}, {}).options.log.level == "warn"


# --- PEM ----------------------------------------------------------------------------------------


def test_files_of_tls_that_is_off_are_not_read():
    """They may not be there yet."""
    tls = {"cert_pem": "/nowhere.pem"}

    assert load({"grpc_api": {"tls": tls}}, {}).options.grpc_api.tls.cert_pem == "/nowhere.pem"
    (text,) = problems({"grpc_api": {"tls": {**tls, "enabled": True}}}, {})
    assert text == (
        "grpc_api.tls.cert_pem (settings.REALTIME): "
        "expected PEM text, base64 of PEM or the path of a readable file"
    )


# --- this process -------------------------------------------------------------------------------


@pytest.fixture
def _fresh():
    loader.reset()
    yield
    loader.reset()


@pytest.mark.usefixtures("_fresh")
def test_options_are_loaded_once(settings):
    """A change of the settings shows after ``reset``."""
    settings.REALTIME = {"client": {"channel_limit": 1}}
    first = loader.get_options()

    settings.REALTIME = {"client": {"channel_limit": 2}}

    assert loader.get_options() is first
    loader.reset()
    assert loader.get_options().client.channel_limit == 2


@pytest.mark.usefixtures("_fresh")
def test_a_failure_is_not_kept(settings):
    """The next call tries again."""
    settings.REALTIME = {"typo": 1}
    with pytest.raises(ConfigError):
        loader.get_options()

    settings.REALTIME = {}

    assert loader.get_options().client.channel_limit == 128


@pytest.mark.usefixtures("_fresh")
def test_a_project_without_the_setting_has_the_defaults(settings):
    """``REALTIME`` may be left out."""
    del settings.REALTIME

    assert loader.get_options().http_server.port == 8000


@pytest.mark.usefixtures("_fresh")
def test_notices_are_logged_once(settings, monkeypatch, caplog):
    """Although both the command and the node's start ask for it."""
    settings.REALTIME = {"graphite": {"enabled": True}}
    monkeypatch.setenv("TIDEWIRE_TYPO", "1")

    with caplog.at_level(logging.INFO, "realtime.conf.loader"):
        loader.log_notices()
        loader.log_notices()

    records = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert records == [
        ("WARNING", "unknown var in environment: TIDEWIRE_TYPO"),
        ("ERROR", "graphite.enabled is not implemented yet and has no effect"),
    ]
    assert caplog.records[0].var == "TIDEWIRE_TYPO"
    assert caplog.records[1].key == "graphite.enabled"


@pytest.mark.usefixtures("_fresh")
def test_options_that_are_read_again_take_the_place_of_those_before(settings):
    """Unless they make no sense: then those before stay in force."""
    settings.REALTIME = {"client": {"channel_limit": 1}}
    loader.get_options()
    settings.REALTIME = {"client": {"channel_limit": 2}}

    again = loader.reload()

    assert again.client.channel_limit == 2
    assert loader.get_options() is again
    settings.REALTIME = {"typo": 1}
    with pytest.raises(ConfigError):
        loader.reload()
    assert loader.get_options() is again
