"""System checks: each finds its mistake, and a good configuration has none."""

from __future__ import annotations

import pytest
from django.core.checks import Error, Tags, run_checks
from django.core.checks import registry as check_registry

from realtime.conf import checks, loader
from realtime.conf.loader import load


GOOD = {
    "client": {
        "allowed_origins": ["https://example.com"],
        "token": {"hmac_secret_key": "s" * 32},
    },
    "http_api": {"key": "k"},
    "http_server": {"address": "127.0.0.1"},
}


@pytest.fixture(autouse=True)
def _fresh():
    loader.reset()
    yield
    loader.reset()


def ids(found):
    return [message.id for message in found]


def warnings_of(settings, environ=None, *, is_debug=False):
    loaded = load(settings, environ or {})
    return list(checks.find_warnings(loaded, is_debug=is_debug))


def client(**options):
    return {"client": {**GOOD["client"], **options}}


def test_a_good_configuration_passes():
    """Without a word, on deployment too."""
    assert warnings_of(GOOD) == []
    assert list(checks.find_deployment_warnings(load(GOOD, {}).options, is_debug=False)) == []


@pytest.mark.parametrize(
    ("settings", "check_id", "text"),
    [
        (
            client(token={"hmac_secret_key": "s" * 31}),
            "W001",
            "client.token.hmac_secret_key has 31 bytes, fewer than 32: it can be guessed.",
        ),
        (
            client(token={"hmac_previous_secret_key": "s"}),
            "W001",
            "client.token.hmac_previous_secret_key has 1 bytes, fewer than 32: it can be guessed.",
        ),
        (
            client(subscription_token={"enabled": True, "hmac_secret_key": "s"}),
            "W001",
            "client.subscription_token.hmac_secret_key has 1 bytes, "
            "fewer than 32: it can be guessed.",
        ),
        (
            client(allowed_origins=["*"]),
            "W002",
            'client.allowed_origins has "*": any web page may connect with its visitor\'s cookies.',
        ),
        (client(insecure=True), "W003", "client.insecure is on."),
        (
            client(insecure_skip_token_signature_verify=True),
            "W003",
            "client.insecure_skip_token_signature_verify is on.",
        ),
        ({**GOOD, "http_api": {"insecure": True}}, "W003", "http_api.insecure is on."),
        (
            {**GOOD, "grpc_api": {"enabled": True}},
            "W003",
            "grpc_api is enabled and grpc_api.key is empty.",
        ),
        (
            client(allowed_origins=[]),
            "W004",
            "client.allowed_origins is empty: no web page can connect, not even one of this host.",
        ),
        (
            client(allowed_origins=["https://Example.com"]),
            "W005",
            'client.allowed_origins: "https://Example.com" matches no origin: '
            "it has upper-case letters.",
        ),
        (
            client(allowed_origins=["example.com"]),
            "W005",
            'client.allowed_origins: "example.com" matches no origin: it has no scheme.',
        ),
        (
            client(allowed_origins=["https://example.com/"]),
            "W005",
            'client.allowed_origins: "https://example.com/" matches no origin: it has a path.',
        ),
        (
            {**GOOD, "graphite": {"enabled": True}},
            "W007",
            "graphite.enabled is not implemented yet and has no effect.",
        ),
        (
            {**GOOD, "demo": True},
            "W008",
            "demo is on although DEBUG is off: anybody gets a token from the demo page.",
        ),
    ],
)
def test_what_is_legal_and_not_meant_is_a_warning(settings, check_id, text):
    """One, with its id, its words and a hint."""
    (found,) = warnings_of(settings)

    assert (found.id, found.msg) == (f"realtime.{check_id}", text)
    assert found.hint


@pytest.mark.parametrize(
    "origin", ["https://*.example.com", "*.example.com", "null", "http://localhost:3000"]
)
def test_patterns_that_can_match_pass(origin):
    """An opaque origin is the text ``null``."""
    assert warnings_of(client(allowed_origins=[origin])) == []


def test_names_that_do_not_exist_are_warnings(tmp_path):
    """In a file and in the environment; other warnings at start are none of theirs."""
    path = tmp_path / "c.json"
    path.write_text('{"typo": 1, "log": {"level": "loud"}}')
    environ = {"TIDEWIRE_CONFIG": str(path), "TIDEWIRE_TYPO": "1"}

    found = warnings_of(GOOD, environ)

    assert ids(found) == ["realtime.W006", "realtime.W006"]
    assert [each.msg for each in found] == [
        "unknown key in configuration file: typo.",
        "unknown var in environment: TIDEWIRE_TYPO.",
    ]


def test_the_demo_belongs_to_debug():
    """There it is the default."""
    assert warnings_of({**GOOD, "demo": True}, is_debug=True) == []


@pytest.mark.parametrize(
    ("settings", "is_debug", "expected"),
    [
        ({"http_server": GOOD["http_server"]}, False, ["realtime.W009"]),
        ({**GOOD, "http_api": {"disabled": True}}, False, []),
        ({**GOOD, "http_api": {"insecure": True}}, False, []),
        (GOOD, True, []),
        ({**GOOD, "http_server": {"address": "localhost"}}, True, []),
        ({**GOOD, "http_server": {"address": "[::1]"}}, True, []),
        ({**GOOD, "http_server": {"address": "127.9.9.9"}}, True, []),
        ({**GOOD, "http_server": {}}, True, ["realtime.W010"]),
        ({**GOOD, "http_server": {"address": "10.0.0.1"}}, True, ["realtime.W010"]),
        ({**GOOD, "http_server": {"address": "host.example"}}, True, ["realtime.W010"]),
    ],
)
def test_deployment(settings, is_debug, expected):
    """What matters where strangers can reach the server."""
    options = load(settings, {}).options

    assert ids(checks.find_deployment_warnings(options, is_debug=is_debug)) == expected


@pytest.mark.parametrize(
    ("own", "check_id", "start"),
    [
        ({"client": {"ping_interval": 25}}, "E001", "client.ping_interval (settings.REALTIME): "),
        ({"typo": 1}, "E002", "typo (settings.REALTIME): there is no such option"),
        ({"client": {"pong_timeout": "25s"}}, "E003", "client.pong_timeout (settings.REALTIME): "),
        (
            {"map_broker": {"type": "postgres"}},
            "E004",
            "map_broker.type (settings.REALTIME): not implemented",
        ),
        ([], "E001", "settings.REALTIME: expected a dict"),
    ],
)
def test_what_can_not_start_is_an_error(settings, own, check_id, start):
    """With a hint for each kind."""
    settings.REALTIME = own

    (found,) = checks.check_options(None)

    assert isinstance(found, Error)
    assert found.id == f"realtime.{check_id}"
    assert found.msg.startswith(start)
    assert found.hint
    assert checks.check_deployment(None) == []


def test_every_problem_is_an_error_of_its_own(settings):
    """So that all can be mended in one go."""
    settings.REALTIME = {"typo": 1, "client": {"ping_interval": 25}}

    assert ids(checks.check_options(None)) == ["realtime.E001", "realtime.E002"]


def test_they_are_registered(settings):
    """By the app, and run by ``manage.py check``; the deployment ones with ``--deploy`` only."""
    settings.REALTIME = {"http_server": {"address": ""}}
    settings.DEBUG = True

    plain = ids(run_checks(tags=[Tags.security]))
    deploy = ids(run_checks(tags=[Tags.security], include_deployment_checks=True))

    assert "realtime.W004" in plain
    assert "realtime.W010" not in plain
    assert "realtime.W010" in deploy
    assert checks.check_options in check_registry.registry.registered_checks
