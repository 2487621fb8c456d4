"""Tokens: every row of the tables of keys, claims and outcomes, with tokens that PyJWT made."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from realtime.auth.tokens import (
    ConnectionToken,
    SubscriptionSpec,
    SubscriptionToken,
    TokenExpired,
    TokenInvalid,
    TokenVerifier,
)
from realtime.conf.options import TokenOptions
from realtime.protocol.errors import ConfigError
from realtime.session.grants import Override


T = TypeVar("T")
NOW = 1_700_000_000.0
SECRET = "a secret of at least thirty-two bytes, and more for sha512: 64 is it"
OLD_SECRET = "another secret of at least sixty-four bytes, since that is for sha512"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem_of(key: Any) -> str:
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return str(public.decode())


def certificate_of(key: Any) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    day = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(day).not_valid_after(day + dt.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def options(**changes: Any) -> TokenOptions:
    return TokenOptions(**({"hmac_secret_key": SECRET} | changes))


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that must not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: Any, secret: str = SECRET, algorithm: str = "HS256") -> str:
    """Make a token; claims may be the text of them."""
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyJWT's about short keys
        return jwt.api_jws.encode(text, secret, algorithm)


def connection(claims: Any, *, now: float = NOW, **changes: Any) -> ConnectionToken:
    """Verify an HS256 connection token with these claims."""
    return drive(TokenVerifier(options(**changes)).verify_connection(signed(claims), now))


def subscription(claims: Any, *, now: float = NOW, **changes: Any) -> SubscriptionToken:
    """Verify an HS256 subscription token with these claims."""
    return drive(TokenVerifier(options(**changes)).verify_subscription(signed(claims), now))


def read(verifier: TokenVerifier, token: str, now: float = NOW) -> ConnectionToken:
    return drive(verifier.verify_connection(token, now))


# --- keys and algorithms ----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_is_for_three_algorithms(algorithm: str) -> None:
    """The token's header says which."""
    token = jwt.encode({"sub": "u"}, SECRET, algorithm)

    assert read(TokenVerifier(options()), token).user == "u"


@pytest.mark.parametrize("secret", ["x", "secret", "é", "0" * 31])
def test_a_short_secret_works_without_a_warning(secret: str) -> None:
    """To speak of it is the system checks' business."""
    token = signed({"sub": "u"}, secret)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(TokenVerifier(options(hmac_secret_key=secret)), token).user == "u"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512"])
@pytest.mark.parametrize("write", [pem_of, certificate_of])
def test_an_rsa_key_or_certificate(algorithm: str, write: Any) -> None:
    """Both forms of the public key serve all three."""
    verifier = TokenVerifier(options(hmac_secret_key="", rsa_public_key=write(RSA_KEY)))

    assert read(verifier, jwt.encode({"sub": "u"}, RSA_KEY, algorithm)).user == "u"


def test_an_rsa_key_in_pkcs1_form() -> None:
    """The older PEM form is read too."""
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    verifier = TokenVerifier(options(rsa_public_key=pem))

    assert read(verifier, jwt.encode({"sub": "u"}, RSA_KEY, "RS256")).user == "u"


@pytest.mark.parametrize("curve", EC_KEYS)
@pytest.mark.parametrize("algorithm", EC_KEYS)
def test_the_curve_decides_the_algorithm(curve: str, algorithm: str) -> None:
    """A token of another curve is invalid."""
    verifier = TokenVerifier(options(hmac_secret_key="", ecdsa_public_key=pem_of(EC_KEYS[curve])))
    token = jwt.encode({"sub": "u"}, EC_KEYS[algorithm], algorithm)

    if curve == algorithm:
        assert read(verifier, token).user == "u"
    else:
        with pytest.raises(TokenInvalid):
            read(verifier, token)


def test_an_ed25519_key() -> None:
    """A static EdDSA key."""
    verifier = TokenVerifier(options(hmac_secret_key="", eddsa_public_key=pem_of(ED_KEY)))

    assert read(verifier, jwt.encode({"sub": "u"}, ED_KEY, "EdDSA")).user == "u"


def test_all_kinds_of_keys_at_once() -> None:
    """Each header finds its own."""
    verifier = TokenVerifier(
        options(
            rsa_public_key=pem_of(RSA_KEY),
            ecdsa_public_key=pem_of(EC_KEYS["ES384"]),
            eddsa_public_key=pem_of(ED_KEY),
        )
    )

    for key, algorithm in [
        (SECRET, "HS256"),
        (RSA_KEY, "RS256"),
        (EC_KEYS["ES384"], "ES384"),
        (ED_KEY, "EdDSA"),
    ]:
        assert read(verifier, jwt.encode({"sub": algorithm}, key, algorithm)).user == algorithm


def test_another_key_of_the_same_kind_is_invalid() -> None:
    """For every family."""
    others: list[tuple[Any, str]] = [
        (OLD_SECRET, "HS256"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ]
    verifier = TokenVerifier(
        options(
            rsa_public_key=pem_of(RSA_KEY),
            ecdsa_public_key=pem_of(EC_KEYS["ES256"]),
            eddsa_public_key=pem_of(ED_KEY),
        )
    )

    for key, algorithm in others:
        with pytest.raises(TokenInvalid, match="signed"):
            read(verifier, jwt.encode({"sub": "u"}, key, algorithm))


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_without_a_key_every_token_is_invalid(algorithm: str) -> None:
    """Also one with an empty secret."""
    key: Any = {"HS256": SECRET, "RS256": RSA_KEY, "ES256": EC_KEYS["ES256"], "EdDSA": ED_KEY}
    verifier = TokenVerifier(options(hmac_secret_key=""))

    with pytest.raises(TokenInvalid):
        read(verifier, jwt.encode({"sub": "u"}, key[algorithm], algorithm))


def forged(algorithm: str, key: bytes | None) -> str:
    """Make a token whose header says ``algorithm``, signed as HS256 by ``key``, or not at all."""
    head = base64url(json.dumps({"alg": algorithm}).encode())
    text = f"{head}.{base64url(b'{}')}"
    mac = hmac.digest(key, text.encode(), hashlib.sha256) if key is not None else b""
    return f"{text}.{base64url(mac)}"


def test_a_public_key_is_no_secret() -> None:
    """Whoever has the public key and signs with it as an HMAC secret gets nowhere."""
    pem = pem_of(RSA_KEY)
    for configured in (
        options(hmac_secret_key="", rsa_public_key=pem),
        options(rsa_public_key=pem),
    ):
        for text in (pem, pem.strip()):
            with pytest.raises(TokenInvalid):
                read(TokenVerifier(configured), forged("HS256", text.encode()))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS1", "hs256", "PS256", "ES256K", "RS256", "Ed25519"]
)
@pytest.mark.parametrize("key", [None, SECRET.encode()])
def test_other_algorithms_are_invalid(algorithm: str, key: bytes | None) -> None:
    """None, unknown, those without a key, and names in other letters."""
    with pytest.raises(TokenInvalid):
        read(TokenVerifier(options()), forged(algorithm, key))


def test_an_empty_signature_is_invalid() -> None:
    """For a good algorithm too."""
    with pytest.raises(TokenInvalid):
        read(TokenVerifier(options()), forged("HS256", None))


@pytest.mark.parametrize(
    ("valid_until", "outcome"),
    [(0, "valid"), (int(NOW) + 1, "valid"), (int(NOW), "valid"), (int(NOW) - 1, "invalid")],
)
def test_the_previous_secret_until_its_end(valid_until: int, outcome: str) -> None:
    """No end when 0; the current secret works all the same."""
    verifier = TokenVerifier(
        options(
            hmac_previous_secret_key=OLD_SECRET, hmac_previous_secret_key_valid_until=valid_until
        )
    )

    assert read(verifier, signed({"sub": "new"})).user == "new"
    if outcome == "valid":
        for algorithm in ("HS256", "HS384", "HS512"):
            assert read(verifier, jwt.encode({"sub": "old"}, OLD_SECRET, algorithm)).user == "old"
    else:
        with pytest.raises(TokenInvalid):
            read(verifier, signed({"sub": "old"}, OLD_SECRET))


def test_the_header_is_read_for_its_algorithm_only() -> None:
    """``typ`` may be anything, and unknown members too."""
    for headers in ({"typ": "nonsense"}, {"typ": None}, {"typ": 5}, {"kid": "k", "x": [1]}):
        text = f"{base64url(json.dumps({'alg': 'HS256'} | headers).encode())}.{base64url(b'{}')}"
        mac = hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256)
        assert read(TokenVerifier(options()), f"{text}.{base64url(mac)}").user == ""


def private_pem(key: Any) -> str:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return str(pem.decode())


@pytest.mark.parametrize(
    "changes",
    [
        {"rsa_public_key": "nonsense"},
        {"rsa_public_key": pem_of(ED_KEY)},
        {"rsa_public_key": private_pem(RSA_KEY)},
        {"rsa_public_key": certificate_of(EC_KEYS["ES256"])},
        {"rsa_public_key": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"},
        {"ecdsa_public_key": pem_of(RSA_KEY)},
        {"ecdsa_public_key": pem_of(ec.generate_private_key(ec.SECP256K1()))},
        {"eddsa_public_key": pem_of(EC_KEYS["ES256"])},
        {"eddsa_public_key": pem_of(ed448.Ed448PrivateKey.generate())},
        {"hmac_secret_key": pem_of(RSA_KEY)},
        {"hmac_previous_secret_key": pem_of(RSA_KEY)},
        {"issuer_regex": "("},
        {"audience_regex": "(?=x)"},
        {"jwks_public_endpoint": "https://example.com/keys"},
    ],
)
def test_what_cannot_be_a_key_is_the_operators_error(changes: dict[str, str]) -> None:
    """It is told at start, and names the option."""
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TokenVerifier(options(**changes))


@pytest.mark.parametrize("token", [forged("none", None), forged("nonsense", b"x"), signed({}, "x")])
def test_signatures_can_be_skipped(token: str) -> None:
    """None at all passes then, without any key."""
    verifier = TokenVerifier(options(hmac_secret_key=""), skip_signature=True)

    assert read(verifier, token).user == ""


def test_claims_are_checked_without_signatures() -> None:
    """Only the signature is skipped."""
    verifier = TokenVerifier(options(audience="a"), skip_signature=True)

    assert read(verifier, signed({"aud": "a", "sub": "u"}, "x")).user == "u"
    with pytest.raises(TokenInvalid):
        read(verifier, signed({"aud": "b"}, "x"))
    with pytest.raises(TokenExpired):
        read(verifier, signed({"aud": "a", "exp": 1}, "x"))
    with pytest.raises(TokenInvalid):
        read(verifier, signed({"aud": "a", "sub": 5}, "x"))


# --- form -----------------------------------------------------------------------------------------------


GOOD = signed({"sub": "u"})
HEAD, CLAIMS, MAC = GOOD.split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "x",
        HEAD,
        f"{HEAD}.{CLAIMS}",
        f"{HEAD}.{CLAIMS}.",
        f".{CLAIMS}.{MAC}",
        f"{HEAD}..{MAC}",
        f"{GOOD}.",
        f"{GOOD}.x",
        f".{GOOD}",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{GOOD}=",
        f"{HEAD}.{CLAIMS}={MAC}",
        f"{HEAD}.{CLAIMS}.{MAC[:-4]}",
        f"{HEAD}.{CLAIMS}.{MAC[:8]}!!!!{MAC[8:]}",
        f"{HEAD}.{CLAIMS}.{MAC[:8]}\n\n\n\n{MAC[8:]}",
        f"{HEAD}.{CLAIMS}.{MAC}====",
        f"{HEAD}.{CLAIMS}.é{MAC}",
        f"é{GOOD}",
        "\ud800",
        f"{base64url(b'nonsense')}.{CLAIMS}.{MAC}",
        f"{base64url(b'[]')}.{CLAIMS}.{MAC}",
        f"{base64url(b'{}')}.{CLAIMS}.{MAC}",
        f"{base64url(b'null')}.{CLAIMS}.{MAC}",
    ],
)
def test_what_is_no_token(token: str) -> None:
    """Parts, base64 and JSON must be right, and are strict."""
    with pytest.raises(TokenInvalid):
        read(TokenVerifier(options()), token)


@pytest.mark.parametrize(
    "claims",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b'{"sub":"\xff"}',
        b'{"info":"\xff"}',
        b'{"sub":5}',
        b'{"sub":true}',
        b'{"sub":["u"]}',
        b'{"exp":"soon"}',
        b'{"exp":""}',
        b'{"exp":" 5"}',
        b'{"exp":"0x10"}',
        b'{"exp":"nan"}',
        b'{"exp":"inf"}',
        b'{"exp":"1e999"}',
        b'{"exp":1e999}',
        b'{"exp":true}',
        b'{"exp":[]}',
        b'{"exp":' + b"9" * 400 + b"}",
        b'{"exp":' + b"9" * 5000 + b"}",
        b'{"nbf":"soon"}',
        b'{"iat":"soon"}',
        b'{"jti":5}',
        b'{"iss":5}',
        b'{"aud":5}',
        b'{"aud":[5]}',
        b'{"expire_at":"5"}',
        b'{"expire_at":1.5}',
        b'{"b64info":5}',
        b'{"channels":"a"}',
        b'{"channels":[5]}',
        b'{"subs":[]}',
        b'{"subs":{"a":5}}',
        b'{"subs":{"a":{"b64info":5}}}',
        b'{"subs":{"a":{"override":5}}}',
        b'{"subs":{"a":{"override":{"presence":true}}}}',
        b'{"subs":{"a":{"override":{"presence":{"value":1}}}}}',
        b'{"channel":5}',
        b'{"info":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"info":{}',
    ],
)
def test_claims_of_the_wrong_type_make_it_invalid(claims: bytes) -> None:
    """Though the signature is good."""
    with pytest.raises(TokenInvalid):
        connection(claims)


@given(
    st.text(max_size=60)
    | st.binary(max_size=60).map(lambda data: f"{HEAD}.{base64url(data)}.{MAC}")
)
def test_any_text_is_invalid_and_raises_nothing_else(token: str) -> None:
    """Whatever a client sends as a token."""
    with pytest.raises(TokenInvalid):
        read(TokenVerifier(options()), token)


@pytest.mark.parametrize("at", range(0, len(GOOD), 7))
def test_a_changed_letter_makes_it_invalid(at: int) -> None:
    """Wherever it stands (the last one's spare bits apart, which at 7 steps is not met)."""
    changed = GOOD[:at] + ("A" if GOOD[at] != "A" else "B") + GOOD[at + 1 :]

    with pytest.raises(TokenInvalid):
        read(TokenVerifier(options()), changed)


# --- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, 0),
        ({"exp": None, "nbf": None, "iat": None, "expire_at": None}, 0),
        ({"exp": NOW + 1}, int(NOW) + 1),
        ({"exp": int(NOW) + 60}, int(NOW) + 60),
        ({"exp": NOW + 60.25}, int(NOW) + 61),
        ({"exp": NOW + 0.5}, int(NOW) + 1),
        ({"exp": str(int(NOW) + 60)}, int(NOW) + 60),
        ({"exp": f"{NOW + 60.25}"}, int(NOW) + 61),
        ({"exp": "1.7e10"}, 17_000_000_000),
        ({"exp": int(NOW) + 60, "nbf": NOW - 0.5, "iat": 5}, int(NOW) + 60),
        ({"nbf": int(NOW) - 1}, 0),
        ({"nbf": str(int(NOW) - 1)}, 0),
        ({"nbf": 0}, 0),
        ({"iat": int(NOW) + 9999}, 0),
        # expire_at is the connection's own.
        ({"exp": int(NOW) + 60, "expire_at": int(NOW) + 5}, int(NOW) + 5),
        ({"exp": int(NOW) + 60, "expire_at": int(NOW) - 5}, int(NOW) - 5),
        ({"exp": int(NOW) + 60, "expire_at": 0}, 0),
        ({"exp": int(NOW) + 60, "expire_at": -1}, 0),
        ({"expire_at": int(NOW) + 5}, int(NOW) + 5),
    ],
)
def test_when_what_is_granted_ends(claims: dict[str, Any], expected: int) -> None:
    """By ``expire_at``, else by ``exp``, else never; the same in both kinds of token."""
    assert connection(claims).expire_at == expected
    assert subscription({"channel": "c", **claims}).expire_at == expected


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(NOW)},
        {"exp": int(NOW) - 1},
        {"exp": NOW - 0.5},
        {"exp": 0},
        {"exp": -1},
        {"exp": str(int(NOW))},
        {"exp": "-5.5"},
        {"nbf": int(NOW)},
        {"nbf": int(NOW) + 1},
        {"nbf": NOW + 0.5},
        {"nbf": str(int(NOW) + 1)},
        {"exp": int(NOW) + 60, "nbf": int(NOW) + 30},
        {"exp": int(NOW) - 60, "nbf": int(NOW) + 30},
        {"exp": int(NOW) - 1, "expire_at": int(NOW) + 100},
        {"exp": int(NOW) - 1, "expire_at": 0},
    ],
)
def test_outside_of_its_time_a_token_is_expired(claims: dict[str, Any]) -> None:
    """Whichever end, without leeway, and whatever ``expire_at`` says."""
    with pytest.raises(TokenExpired):
        connection(claims)
    with pytest.raises(TokenExpired):
        subscription({"channel": "c", **claims})


def test_what_is_invalid_is_invalid_though_expired() -> None:
    """Signature, audience, issuer and kind come before the time."""
    old = {"exp": 1}

    with pytest.raises(TokenInvalid):
        read(TokenVerifier(options()), signed(old, OLD_SECRET))
    with pytest.raises(TokenInvalid):
        connection(old, audience="a")
    with pytest.raises(TokenInvalid):
        connection(old, issuer="i")
    with pytest.raises(TokenInvalid):
        connection({**old, "channel": "c"})
    with pytest.raises(TokenInvalid):
        subscription(old)
    with pytest.raises(TokenExpired):
        connection({**old, "b64info": "!"})


def test_when_it_was_issued_and_its_id() -> None:
    """For those who revoke tokens."""
    claims = {"iat": "1699999999.5", "jti": "id-1"}

    token = connection(claims)
    other = subscription({**claims, "channel": "c"})

    assert (token.issued_at, token.id) == (1699999999.5, "id-1")
    assert (other.issued_at, other.id) == (1699999999.5, "id-1")
    assert (connection({}).issued_at, connection({}).id) == (0, "")


# --- issuer and audience ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "claims", "is_valid"),
    [
        ({}, {"aud": "any", "iss": "any"}, True),
        ({"audience": "a"}, {"aud": "a"}, True),
        ({"audience": "a"}, {"aud": ["x", "a"]}, True),
        ({"audience": "a"}, {"aud": "ab"}, False),
        ({"audience": "a"}, {"aud": "A"}, False),
        ({"audience": "a"}, {"aud": []}, False),
        ({"audience": "a"}, {"aud": ""}, False),
        ({"audience": "a"}, {"aud": None}, False),
        ({"audience": "a"}, {}, False),
        ({"audience_regex": "^a+$"}, {"aud": "aa"}, True),
        ({"audience_regex": "^a+$"}, {"aud": ["b", "aa"]}, True),
        ({"audience_regex": "a"}, {"aud": "bab"}, True),
        ({"audience_regex": "^a+$"}, {"aud": "ab"}, False),
        ({"audience_regex": "^a+$"}, {"aud": "a\n"}, False),
        ({"audience_regex": "a"}, {"aud": []}, False),
        ({"audience_regex": "a"}, {}, False),
        ({"issuer": "i"}, {"iss": "i"}, True),
        ({"issuer": "i"}, {"iss": "ii"}, False),
        ({"issuer": "i"}, {"iss": ""}, False),
        ({"issuer": "i"}, {}, False),
        ({"issuer_regex": "^(?P<tenant>[a-z]+)$"}, {"iss": "acme"}, True),
        ({"issuer_regex": "cm"}, {"iss": "acme"}, True),
        ({"issuer_regex": "^cm"}, {"iss": "acme"}, False),
        ({"issuer_regex": "^i"}, {}, False),
        ({"issuer": "i", "audience": "a"}, {"iss": "i", "aud": "a"}, True),
        ({"issuer": "i", "audience": "a"}, {"iss": "i", "aud": "b"}, False),
    ],
)
def test_issuer_and_audience(
    changes: dict[str, str], claims: dict[str, Any], is_valid: bool
) -> None:
    """Equal, or found by the expression, where one is configured."""
    if is_valid:
        assert connection({"sub": "u", **claims}, **changes).user == "u"
        assert subscription({"channel": "c", **claims}, **changes).channel == "c"
    else:
        with pytest.raises(TokenInvalid):
            connection({"sub": "u", **claims}, **changes)
        with pytest.raises(TokenInvalid):
            subscription({"channel": "c", **claims}, **changes)


# --- user -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        (b"{}", ""),
        (b'{"sub":""}', ""),
        (b'{"sub":null}', ""),
        (b'{"sub":"42"}', "42"),
        (b'{"sub":"\\u00e9\xc3\xa9,#:"}', "éé,#:"),
    ],
)
def test_the_user_is_sub(claims: bytes, user: str) -> None:
    """Absent and empty are anonymous."""
    assert connection(claims).user == user


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        (b'{"uid":"42"}', "42"),
        (b'{"uid":"42","sub":"other"}', "42"),
        (b'{"sub":"other"}', ""),
        (b'{"uid":5}', "5"),
        (b'{"uid":123456789012345678}', "123456789012345678"),
        (b'{"uid":1.50}', "1.50"),
        (b'{"uid":true}', "true"),
        (b'{"uid":false}', "false"),
        (b'{"uid":null,"sub":"other"}', ""),
        (b'{"uid": "a\\nb" }', "a\nb"),
        (b'{"uid":"\\u00e9"}', "é"),
    ],
)
def test_another_claim_replaces_sub(claims: bytes, user: str) -> None:
    """Completely: there is no way back to ``sub``; scalars are their text."""
    assert connection(claims, user_id_claim="uid").user == user
    assert subscription(b'{"channel":"c",' + claims[1:], user_id_claim="uid").user == user


@pytest.mark.parametrize("value", [b"{}", b"[]", b'{"a":1}', b'["u"]', b'"\\ud800"'])
def test_a_user_is_a_scalar(value: bytes) -> None:
    """An object's text is nobody's name, and a text must be one."""
    with pytest.raises(TokenInvalid):
        connection(b'{"uid":' + value + b"}", user_id_claim="uid")


# --- what a connection token says -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "info"),
    [
        (b"{}", b""),
        (b'{"info":{"a": 1.0, "b":"\\u00e9"}}', b'{"a": 1.0, "b":"\\u00e9"}'),
        (b'{"info":"text"}', b'"text"'),
        (b'{"info":[1]}', b"[1]"),
        (b'{"info":null}', b"null"),
        (b'{"b64info":"AP8="}', b"\x00\xff"),
        (b'{"b64info":"+/8="}', b"\xfb\xff"),
        (b'{"info":{},"b64info":"AP8="}', b"\x00\xff"),
        (b'{"info":{},"b64info":""}', b"{}"),
        (b'{"info":{},"b64info":null}', b"{}"),
    ],
)
def test_info(claims: bytes, info: bytes) -> None:
    """JSON stays as it was written; the binary form wins."""
    assert connection(claims).info == info
    assert (
        subscription(claims.replace(b"{", b'{"channel":"c",', 1).replace(b",}", b"}")).info == info
    )


@pytest.mark.parametrize("text", ["!", "AP8", "AP8=A", "A", "-_8=", "AP8=\n", "é"])
def test_bad_base64_makes_a_token_invalid(text: str) -> None:
    """Wherever it stands: it must be standard and padded."""
    with pytest.raises(TokenInvalid):
        connection({"b64info": text})
    with pytest.raises(TokenInvalid):
        connection({"subs": {"a": {"b64info": text}}})
    with pytest.raises(TokenInvalid):
        connection({"subs": {"a": {"b64data": text}}})
    with pytest.raises(TokenInvalid):
        subscription({"channel": "c", "b64info": text})
    with pytest.raises(TokenInvalid):
        subscription({"channel": "c", "b64data": text})


@pytest.mark.parametrize("meta", [b"", b'{"a": 1}', b"[1]", b"5", b"null"])
def test_meta_is_any_json(meta: bytes) -> None:
    """Not only objects."""
    claims = b'{"meta":' + meta + b"}" if meta else b"{}"

    assert connection(claims).meta == meta


DEFAULT = SubscriptionSpec()


@pytest.mark.parametrize(
    ("claims", "subs"),
    [
        ({}, {}),
        ({"channels": None, "subs": None}, {}),
        ({"channels": ["a", "b", "a"]}, {"a": DEFAULT, "b": DEFAULT}),
        ({"channels": ["", "a"]}, {"a": DEFAULT}),
        (
            {"channels": ["$x", "ns:é", "ns:#other"]},
            dict.fromkeys(["$x", "ns:é", "ns:#other"], DEFAULT),
        ),
        ({"channels": []}, {}),
        ({"channels": ["a"], "subs": {}}, {"a": DEFAULT}),
        ({"channels": ["a"], "subs": {"b": {}}}, {"b": DEFAULT}),
        ({"subs": {"a": None, "b": {}, "": {}}}, {"a": DEFAULT, "b": DEFAULT}),
        ({"subs": {"a": {"info": {"x": 1}}}}, {"a": SubscriptionSpec(info=b'{"x": 1}')}),
        (
            {"subs": {"a": {"info": 1, "b64info": "AA==", "data": 2, "b64data": "/w=="}}},
            {"a": SubscriptionSpec(info=b"\x00", data=b"\xff")},
        ),
        ({"subs": {"a": {"data": [2]}}}, {"a": SubscriptionSpec(data=b"[2]")}),
        ({"subs": {"a": {"unknown": 5}}}, {"a": DEFAULT}),
    ],
)
def test_server_side_subscriptions(
    claims: dict[str, Any], subs: dict[str, SubscriptionSpec]
) -> None:
    """``subs`` with options, or ``channels`` where it is empty; an empty name is skipped."""
    assert connection(claims).subs == subs


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (None, None),
        ({}, Override()),
        ({"presence": {"value": True}}, Override(presence=True)),
        ({"presence": {"value": False}}, Override(presence=False)),
        ({"presence": {}}, Override(presence=False)),
        ({"presence": {"value": None}}, Override(presence=False)),
        ({"presence": None}, Override()),
        (
            {
                "join_leave": {"value": True},
                "force_push_join_leave": {"value": False},
                "force_recovery": {"value": True},
                "force_positioning": {"value": False},
            },
            Override(
                join_leave=True,
                force_push_join_leave=False,
                force_recovery=True,
                force_positioning=False,
            ),
        ),
        ({"unknown": {"value": True}}, Override()),
    ],
)
def test_overrides(override: Any, expected: Override | None) -> None:
    """What is named is set; in both kinds of token."""
    assert connection({"subs": {"a": {"override": override}}}).subs["a"].override == expected
    assert subscription({"channel": "c", "override": override}).override == expected


def test_a_subscription_token_is_no_connection_token() -> None:
    """A ``channel`` claim makes it invalid; an empty one is none."""
    with pytest.raises(TokenInvalid):
        connection({"channel": "c"})

    assert connection({"channel": ""}).user == ""
    assert connection({"channel": None}).user == ""


# --- what a subscription token says -----------------------------------------------------------------


def test_a_subscription_token_with_everything() -> None:
    """Channel, user and client are the caller's to compare."""
    token = subscription(
        {
            "channel": "$ns:é",
            "sub": "u",
            "client": "id",
            "info": {"i": 1},
            "data": {"d": 1},
            "exp": int(NOW) + 60,
            "override": {"force_recovery": {"value": True}},
        }
    )

    assert token == SubscriptionToken(
        channel="$ns:é",
        user="u",
        client="id",
        info=b'{"i": 1}',
        data=b'{"d": 1}',
        override=Override(force_recovery=True),
        expire_at=int(NOW) + 60,
    )


def test_a_subscription_token_with_next_to_nothing() -> None:
    """Anonymous, any client, for ever."""
    assert subscription({"channel": "c"}) == SubscriptionToken(channel="c", user="")


@pytest.mark.parametrize("claims", [{}, {"channel": ""}, {"channel": None}, {"sub": "u"}])
def test_a_subscription_token_names_its_channel(claims: dict[str, Any]) -> None:
    """A connection token does not do."""
    with pytest.raises(TokenInvalid):
        subscription(claims)


def test_the_binary_data_of_a_subscription_token() -> None:
    """It wins over the JSON."""
    assert subscription({"channel": "c", "data": 1, "b64data": "AP8="}).data == b"\x00\xff"


def test_pro_claims_are_ignored() -> None:
    """They don't harm."""
    claims = {"caps": [{"channels": ["a"], "allow": ["pub"]}], "labels": {"a": "b"}}

    assert connection(claims).user == ""
    assert subscription({"channel": "c", "allow": ["pub"], "server_tags_filter": None}).user == ""


def test_a_tags_filter_is_read_or_makes_the_token_invalid() -> None:
    """In a subscription token and in a connection token's subs; a mistake in it must not open the channel."""
    wanted = {"key": "kind", "cmp": "eq", "val": "a"}

    found = subscription({"channel": "c", "server_tags_filter": wanted}).tags_filter
    of_subs = connection({"subs": {"c": {"server_tags_filter": wanted}}}).subs["c"].tags_filter

    assert found is not None
    assert found is of_subs
    assert found.passes_tags({"kind": "a"})
    for malformed in ({}, {"op": "and"}, "kind", {"key": "kind", "cmp": "eq", "val": 1}):
        with pytest.raises(TokenInvalid):
            subscription({"channel": "c", "server_tags_filter": malformed})
