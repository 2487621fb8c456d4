"""Options that are of their type and impossible all the same."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from realtime.conf import schema
from realtime.conf.options import (
    DisconnectTransform,
    HTTPResponse,
    HTTPResponseTransform,
    TransformDisconnect,
)
from realtime.conf.validation import find_problems


def pem_of(private_key):
    return (
        private_key.public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


ED25519 = pem_of(ed25519.Ed25519PrivateKey.generate())
P256 = pem_of(ec.generate_private_key(ec.SECP256R1()))
SECP256K1 = pem_of(ec.generate_private_key(ec.SECP256K1()))

DISCONNECTS = "client.connect_code_to_unidirectional_disconnect.transforms"


def test_the_defaults_are_fine():
    """Or nothing would start."""
    assert find_problems(schema.build({})) == []


def one_of(*choices):
    return "expected one of " + ", ".join(f'"{choice}"' for choice in choices)


@pytest.mark.parametrize(
    ("values", "path", "text"),
    [
        ({"engine.type": "x"}, "engine.type", f'{one_of("memory", "redis")}, got "x"'),
        (
            {"broker.type": ""},
            "broker.type",
            f'{one_of("memory", "redis", "nats", "redisnats", "postgres")}, got ""',
        ),
        (
            {"presence_manager.type": "nats"},
            "presence_manager.type",
            f'{one_of("memory", "redis")}, got "nats"',
        ),
        (
            {"map_broker.type": "nats"},
            "map_broker.type",
            f'{one_of("memory", "redis", "postgres")}, got "nats"',
        ),
        ({"controller.type": "x"}, "controller.type", f'{one_of("", "postgres")}, got "x"'),
        (
            {"channel.publication_data_format": "xml"},
            "channel.publication_data_format",
            f'{one_of("", "json", "json_object", "binary")}, got "xml"',
        ),
        (
            {"http_api.error_mode": "Transport"},
            "http_api.error_mode",
            f'{one_of("", "transport")}, got "Transport"',
        ),
        ({"http_server.port": 65536}, "http_server.port", "expected 65535 or less, got 65536"),
        ({"http_server.port": -1}, "http_server.port", "expected 0 or more, got -1"),
        ({"client.channel_limit": 0}, "client.channel_limit", "expected 1 or more, got 0"),
        ({"client.connection_limit": -1}, "client.connection_limit", "expected 0 or more, got -1"),
        (
            {"websocket.compression_level": 10},
            "websocket.compression_level",
            "expected 9 or less, got 10",
        ),
        (
            {"websocket.compression_level": -2},
            "websocket.compression_level",
            "expected -1 or more, got -2",
        ),
        (
            {"websocket.write_timeout": 0.0},
            "websocket.write_timeout",
            "expected a duration above 0",
        ),
        (
            {"client.presence_update_interval": 0.0},
            "client.presence_update_interval",
            "expected a duration above 0",
        ),
        (
            {"client.pong_timeout": 25.0},
            "client.pong_timeout",
            "must be less than client.ping_interval (25s), got 25s",
        ),
        (
            {"client.token.user_id_claim": "user-id"},
            "client.token.user_id_claim",
            'must match ^[a-zA-Z_]+$, got "user-id"',
        ),
        (
            {"client.token.audience": "a", "client.token.audience_regex": "b"},
            "client.token.audience_regex",
            "can't be used together with audience",
        ),
        (
            {"client.token.issuer": "a", "client.token.issuer_regex": "b"},
            "client.token.issuer_regex",
            "can't be used together with issuer",
        ),
        (
            {"client.token.rsa_public_key": P256},
            "client.token.rsa_public_key",
            "expected the PEM of an RSA public key",
        ),
        (
            {"client.token.ecdsa_public_key": ED25519},
            "client.token.ecdsa_public_key",
            "expected the PEM of an ECDSA public key",
        ),
        (
            {"client.token.ecdsa_public_key": SECP256K1},
            "client.token.ecdsa_public_key",
            "no JWT is signed on the curve secp256k1",
        ),
        (
            {"client.token.eddsa_public_key": "-----BEGIN PUBLIC KEY-----"},
            "client.token.eddsa_public_key",
            "expected the PEM of an Ed25519 public key",
        ),
        (
            {
                "client.subscription_token.enabled": True,
                "client.subscription_token.user_id_claim": "1",
            },
            "client.subscription_token.user_id_claim",
            'must match ^[a-zA-Z_]+$, got "1"',
        ),
        (
            {"client.proxy.refresh.enabled": True},
            "client.proxy.refresh.endpoint",
            "is required where the proxy is enabled",
        ),
        (
            {
                "client.proxy.refresh.enabled": True,
                "client.proxy.refresh.endpoint": "http://x",
                "client.proxy.refresh.timeout": 0.0,
            },
            "client.proxy.refresh.timeout",
            "expected a duration above 0",
        ),
        (
            {"http_server.internal_port": "70000"},
            "http_server.internal_port",
            "expected 65535 or less, got 70000",
        ),
        (
            {"http_server.h2c_external": True},
            "http_server.h2c_external",
            "needs an http_server.internal_port of its own",
        ),
        (
            {
                "http_server.h2c_external": True,
                "http_server.internal_port": "9000",
                "http_server.tls.enabled": True,
            },
            "http_server.h2c_external",
            "can't be used together with http_server.tls",
        ),
    ],
)
def test_what_is_refused(values, path, text):
    """One problem, at its option, in these words."""
    assert find_problems(schema.build(values)) == [(path, text)]


def test_a_wrong_expression_is_told_at_its_option():
    """With the reason of the engine that will run it."""
    ((path, text),) = find_problems(schema.build({"client.token.issuer_regex": "("}))

    assert path == "client.token.issuer_regex"
    assert text.startswith("is no valid regular expression: ")


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (DisconnectTransform(), {"code", "to.code", "to.reason"}),
        (DisconnectTransform(code=1, to=TransformDisconnect(code=4000)), {"to.reason"}),
        (DisconnectTransform(code=1, to=TransformDisconnect(code=4000, reason="é")), {"to.reason"}),
        (DisconnectTransform(code=1, to=TransformDisconnect(code=4000, reason="e")), set()),
    ],
)
def test_code_maps_are_complete(transform, expected):
    """No code is 0, and a reason goes into a close frame."""
    found = find_problems(schema.build({DISCONNECTS: (transform,)}))

    assert {path for path, _ in found} == {f"{DISCONNECTS}.[0].{name}" for name in expected}


@pytest.mark.parametrize("section", ["uni_sse", "uni_http_stream"])
def test_http_code_maps_are_complete(section):
    """The same for responses."""
    path = f"{section}.connect_code_to_http_response.transforms"
    good = HTTPResponseTransform(code=1, to=HTTPResponse(status_code=400))

    found = find_problems(schema.build({path: (good, HTTPResponseTransform())}))

    assert found == [
        (f"{path}.[1].code", "is required"),
        (f"{path}.[1].to.status_code", "is required"),
    ]


def test_keys_of_a_section_that_is_off_do_not_matter():
    """A user moving over may have left them."""
    assert find_problems(schema.build({"client.subscription_token.user_id_claim": "1"})) == []


@pytest.mark.parametrize(
    ("name", "key"), [("ecdsa_public_key", P256), ("eddsa_public_key", ED25519)]
)
def test_right_keys_pass(name, key):
    """Each in its own option."""
    assert find_problems(schema.build({f"client.token.{name}": key})) == []


def test_pings_may_be_off():
    """Negative, if the timeout is more so: the reference's way to say it."""
    values = {"client.ping_interval": -1.0, "client.pong_timeout": -2.0}

    assert find_problems(schema.build(values)) == []
