"""
Verify connection and subscription tokens (JWT).

The algorithm is pinned by the key: a header chooses among the algorithms of the keys that are configured and never how
a key is read, so a public key cannot be turned into an HMAC secret. PyJWT's algorithm objects are used with keys
that were prepared once; its front door takes 58 µs a token, most of it for what isn't wanted here: ``typ`` is ignored, ``iat``
isn't validated, there is no leeway, and the claims have types of their own.

The order is Centrifugo's: form, expressions for issuer and audience, signature, issuer and audience, kind of token, time,
and then what the token says. A token that is not valid *now* is ``TokenExpired``, whichever end of its time it is
outside of: SDKs fetch another.
"""

from __future__ import annotations

import binascii
import functools
import hmac
import math
import re
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, HMACAlgorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError
from msgspec import Raw

from realtime.namespaces.patterns import ChannelPattern, PatternError
from realtime.protocol.errors import ConfigError
from realtime.protocol.messages import EMPTY, FilterNode
from realtime.session.grants import Override
from realtime.session.tags_filter import FilterError, TagsFilter, make_filter


class TokenError(Exception):
    """A token does not do; the text says why, for the log alone."""


class TokenInvalid(TokenError):  # noqa: N818 -- the protocol's word
    """It is malformed, not signed by us, or meant for something else; another try is no use."""


class TokenExpired(TokenError):  # noqa: N818 -- the protocol's word
    """It is past ``exp``, or not yet at ``nbf``; SDKs fetch a new one."""


class TokenOptions(Protocol):
    """The keys and expectations of ``client.token`` (``realtime.conf.options.TokenOptions``)."""

    @property
    def hmac_secret_key(self) -> str: ...
    @property
    def hmac_previous_secret_key(self) -> str: ...
    @property
    def hmac_previous_secret_key_valid_until(self) -> int: ...
    @property
    def rsa_public_key(self) -> str: ...
    @property
    def ecdsa_public_key(self) -> str: ...
    @property
    def eddsa_public_key(self) -> str: ...
    @property
    def jwks_public_endpoint(self) -> str: ...
    @property
    def audience(self) -> str: ...
    @property
    def audience_regex(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def issuer_regex(self) -> str: ...
    @property
    def user_id_claim(self) -> str: ...


class SubscriptionSpec(msgspec.Struct, frozen=True):
    """
    How a connection token wants one server-side subscription.

    ``info`` is channel info, ``data`` goes into the subscription's reply: JSON text or any bytes, empty for none.
    ``tags_filter`` says which publications the subscriber gets, ``None`` all of them.
    """

    info: bytes = b""
    data: bytes = b""
    override: Override | None = None
    tags_filter: TagsFilter | None = None


class ConnectionToken(msgspec.Struct, frozen=True):
    """
    What a connection token says.

    ``user`` is empty for an anonymous one. ``expire_at`` is when the connection ends, in Unix seconds, 0 for never; it
    may be past. ``info`` and ``meta`` are as ``SubscriptionSpec``'s. ``subs`` is by channel; whether the channels
    exist is not looked at.
    """

    user: str
    expire_at: int = 0
    info: bytes = b""
    meta: bytes = b""
    subs: Mapping[str, SubscriptionSpec] = {}
    issued_at: float = 0
    id: str = ""


class SubscriptionToken(msgspec.Struct, frozen=True):
    """
    What a subscription token says; that it is for this channel, user and client is the caller's to compare.

    ``client`` is empty where any connection of the user may have it.
    """

    channel: str
    user: str
    client: str = ""
    info: bytes = b""
    data: bytes = b""
    override: Override | None = None
    tags_filter: TagsFilter | None = None
    expire_at: int = 0
    issued_at: float = 0
    id: str = ""


# --- what stands in a token ---------------------------------------------------------------------------

# Go's zero values: ``null`` is as good as absent, but for JSON payloads, where it is JSON.
NumericDate = int | float | str | None


class _Header(msgspec.Struct):
    alg: str


class _Value(msgspec.Struct):
    value: bool | None = None


class _OverrideClaim(msgspec.Struct):
    presence: _Value | None = None
    join_leave: _Value | None = None
    force_push_join_leave: _Value | None = None
    force_recovery: _Value | None = None
    force_positioning: _Value | None = None


class _Payloads(msgspec.Struct):
    info: Raw = EMPTY
    b64info: str | None = None
    data: Raw = EMPTY
    b64data: str | None = None
    override: _OverrideClaim | None = None
    server_tags_filter: FilterNode | None = None


class _Claims(_Payloads):
    sub: str | None = None
    exp: NumericDate = None
    nbf: NumericDate = None
    iat: NumericDate = None
    jti: str | None = None
    iss: str | None = None
    aud: str | list[str] | None = None
    expire_at: int | None = None
    channel: str | None = None


class _ConnectionClaims(_Claims):
    channels: list[str] | None = None
    subs: dict[str, _Payloads | None] | None = None
    meta: Raw = EMPTY


class _SubscriptionClaims(_Claims):
    client: str | None = None


ClaimsT = TypeVar("ClaimsT", bound=_Claims)

_header_decoder = msgspec.json.Decoder(_Header)
_connection_claims = msgspec.json.Decoder(_ConnectionClaims)
_subscription_claims = msgspec.json.Decoder(_SubscriptionClaims)
_decode_raw_claims = msgspec.json.Decoder(dict[str, Raw]).decode

# URL-safe to plain base64; what is plain and not URL-safe becomes something that is neither.
_FROM_URL_SAFE = bytes.maketrans(b"-_+/=", b"+/!!!")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class _Key:
    """A key with the one algorithm it is used by; ``valid_until`` is Unix seconds, 0 for no end."""

    __slots__ = ("algorithm", "key", "valid_until")

    def __init__(self, algorithm: Algorithm, key: Any, valid_until: float = 0) -> None:
        self.algorithm = algorithm
        self.key = key
        self.valid_until = valid_until

    def has_signed(self, text: bytes, signature: bytes, now: float) -> bool:
        if self.valid_until > 0 and now > self.valid_until:
            return False
        return bool(self.algorithm.verify(text, self.key, signature))


class TokenVerifier:
    """
    Verifies tokens by one set of keys.

    Args:
        options: ``client.token``, or ``client.subscription_token`` where that is enabled.
        skip_signature: ``client.insecure_skip_token_signature_verify``: any signature will do, none too. Claims are
            checked all the same.

    Raises:
        ConfigError: A key cannot be read or is of another kind than its option says, an expression does not
            compile, or the keys are to come from a JWKS endpoint.

    """

    def __init__(self, options: TokenOptions, *, skip_signature: bool = False) -> None:
        if options.jwks_public_endpoint:
            message = "token: jwks_public_endpoint is not supported; give the keys themselves"
            raise ConfigError(message)
        # Algorithm name -> keys, in the order they are tried.
        self._keys: Mapping[str, tuple[_Key, ...]] = _load_keys(options)
        self._skip_signature = skip_signature
        self._audience = options.audience
        self._issuer = options.issuer
        self._audience_pattern = _compile("audience_regex", options.audience_regex)
        self._issuer_pattern = _compile("issuer_regex", options.issuer_regex)
        self._user_id_claim = options.user_id_claim

    async def verify_connection(self, token: str, now: float) -> ConnectionToken:
        """
        Read a connection token; does not suspend.

        Raises:
            TokenInvalid, TokenExpired: It does not do.

        """
        claims, text = self._verify(token, _connection_claims, now)
        if claims.channel:
            message = "channel claim in a connection token"
            raise TokenInvalid(message)
        expire_at = _check_time(claims, now)
        if claims.subs:
            subs = {
                name: _spec(payloads) if payloads is not None else SubscriptionSpec()
                for name, payloads in claims.subs.items()
                if name
            }
        else:
            subs = {name: SubscriptionSpec() for name in claims.channels or () if name}
        return ConnectionToken(
            user=self._user(claims, text),
            expire_at=expire_at,
            info=_payload(claims.info, claims.b64info),
            meta=bytes(claims.meta),
            subs=subs,
            issued_at=_unix_time(claims.iat) or 0,
            id=claims.jti or "",
        )

    async def verify_subscription(self, token: str, now: float) -> SubscriptionToken:
        """
        Read a subscription token; does not suspend.

        Raises:
            TokenInvalid, TokenExpired: It does not do.

        """
        claims, text = self._verify(token, _subscription_claims, now)
        if not claims.channel:
            message = "no channel claim"
            raise TokenInvalid(message)
        expire_at = _check_time(claims, now)
        spec = _spec(claims)
        return SubscriptionToken(
            channel=claims.channel,
            user=self._user(claims, text),
            client=claims.client or "",
            info=spec.info,
            data=spec.data,
            override=spec.override,
            tags_filter=spec.tags_filter,
            expire_at=expire_at,
            issued_at=_unix_time(claims.iat) or 0,
            id=claims.jti or "",
        )

    def _verify(
        self, token: str, decoder: msgspec.json.Decoder[ClaimsT], now: float
    ) -> tuple[ClaimsT, bytes]:
        """Return the claims, and their text, of a token that is ours; its time is not looked at."""
        try:
            parts = token.encode("ascii").split(b".")
            if len(parts) != 3:
                raise TokenInvalid("token format is not valid")
            header_part, claims_part, signature_part = parts
            header = _decode_header(header_part)
            text = _from_base64url(claims_part)
            signature = _from_base64url(signature_part)
            claims = decoder.decode(text)
            if not text.isascii():
                # msgspec does not look into payloads, and these are put before other clients as they are.
                text.decode()
        except (ValueError, RecursionError) as error:
            message = f"malformed: {error}"
            raise TokenInvalid(message) from error
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
        self._check_patterns(claims.iss or "", audiences)
        if not self._skip_signature:
            signed = b"%b.%b" % (header_part, claims_part)
            for key in self._keys.get(header.alg, ()):
                if key.has_signed(signed, signature, now):
                    break
            else:
                message = f"no key of ours for {header.alg[:20]!r} signed it"
                raise TokenInvalid(message)
        if self._audience and self._audience not in audiences:
            message = "another audience"
            raise TokenInvalid(message)
        if self._issuer and self._issuer != claims.iss:
            message = "another issuer"
            raise TokenInvalid(message)
        return claims, text

    def _check_patterns(self, issuer: str, audiences: list[str]) -> None:
        if self._issuer_pattern is not None and not self._issuer_pattern.is_found_in(issuer):
            message = "issuer does not match issuer_regex"
            raise TokenInvalid(message)
        pattern = self._audience_pattern
        if pattern is not None and not any(map(pattern.is_found_in, audiences)):
            message = "no audience matches audience_regex"
            raise TokenInvalid(message)

    def _user(self, claims: _Claims, text: bytes) -> str:
        """Return the user ID: ``sub``, or the claim that replaces it, a scalar as its JSON text."""
        if not self._user_id_claim:
            return claims.sub or ""
        value = bytes(_decode_raw_claims(text).get(self._user_id_claim, EMPTY))
        if value[:1] == b'"':
            try:
                return msgspec.json.decode(value, type=str)
            except ValueError as error:
                message = f"{self._user_id_claim} claim: {error}"
                raise TokenInvalid(message) from error
        if value[:1] in (b"{", b"["):
            message = f"{self._user_id_claim} claim is not a scalar"
            raise TokenInvalid(message)
        return "" if value == b"null" else value.decode()


# --- claims -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _decode_header(part: bytes) -> _Header:
    """Read a header; those of one issuer are all alike."""
    return _header_decoder.decode(_from_base64url(part))


def _from_base64url(part: bytes) -> bytes:
    """Decode URL-safe base64 without padding, strictly: a token has one way to be written."""
    plain = part.translate(_FROM_URL_SAFE)
    return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)


def _check_time(claims: _Claims, now: float) -> int:
    """Return when what the token grants ends (0: never), if the token is good at ``now``; there is no leeway."""
    expires, begins = _unix_time(claims.exp), _unix_time(claims.nbf)
    if expires is not None and expires <= now:
        message = f"expired {now - expires:.0f} s ago"
        raise TokenExpired(message)
    if begins is not None and begins >= now:
        message = f"not valid for another {begins - now:.0f} s"
        raise TokenExpired(message)
    if claims.expire_at is not None:
        return max(claims.expire_at, 0)
    # Upwards: a token that is good for another half second does not grant something that has ended.
    return math.ceil(expires) if expires is not None else 0


def _unix_time(value: NumericDate) -> float | None:
    """Return a date of a claim: a number, or a string that holds one."""
    if isinstance(value, str):
        if not _JSON_NUMBER.fullmatch(value):
            message = f"{value[:20]!r} is no date"
            raise TokenInvalid(message)
        value = float(value)
    if value is None:
        return None
    if not abs(value) < 2**63:
        message = "a date beyond all dates"
        raise TokenInvalid(message)
    return value


def _spec(payloads: _Payloads) -> SubscriptionSpec:
    return SubscriptionSpec(
        info=_payload(payloads.info, payloads.b64info),
        data=_payload(payloads.data, payloads.b64data),
        override=_override(payloads.override),
        tags_filter=_tags_filter(payloads.server_tags_filter),
    )


def _payload(text: Raw, base64: str | None) -> bytes:
    """Return a payload; the binary form wins."""
    if not base64:
        return bytes(text)
    try:
        return binascii.a2b_base64(base64, strict_mode=True)
    except ValueError as error:
        message = f"bad base64: {error}"
        raise TokenInvalid(message) from error


def _override(claim: _OverrideClaim | None) -> Override | None:
    """Return what is set; an object without ``value`` sets false, as Go's zero value does."""
    if claim is None:
        return None
    values = {name: getattr(claim, name) for name in claim.__struct_fields__}
    return Override(
        **{name: bool(given.value) for name, given in values.items() if given is not None}
    )


def _tags_filter(claim: FilterNode | None) -> TagsFilter | None:
    if claim is None:
        return None
    try:
        return make_filter(claim)
    except FilterError as error:
        message = f"server_tags_filter: {error}"
        raise TokenInvalid(message) from error


# --- keys ---------------------------------------------------------------------------------------------


class _KeyedHMAC(HMACAlgorithm):
    """PyJWT's, but that the key is set up once and not for each token, a third of the digest's time."""

    def __init__(self, hash_alg: Any) -> None:
        super().__init__(hash_alg)
        self._keyed: dict[bytes, hmac.HMAC] = {}

    def prepare_key(self, key: str | bytes) -> bytes:
        prepared = super().prepare_key(key)
        self._keyed[prepared] = hmac.new(prepared, digestmod=self.hash_alg)
        return prepared

    def sign(self, msg: bytes, key: bytes) -> bytes:
        signing = self._keyed[key].copy()
        signing.update(msg)
        return signing.digest()


_ALGORITHMS = get_default_algorithms() | {
    name: _KeyedHMAC(algorithm.hash_alg)
    for name, algorithm in get_default_algorithms().items()
    if isinstance(algorithm, HMACAlgorithm)
}
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def _load_keys(options: TokenOptions) -> dict[str, tuple[_Key, ...]]:
    keys: dict[str, tuple[_Key, ...]] = {}
    secrets = (
        ("hmac_secret_key", options.hmac_secret_key, 0),
        (
            "hmac_previous_secret_key",
            options.hmac_previous_secret_key,
            options.hmac_previous_secret_key_valid_until,
        ),
    )
    for option, secret, valid_until in secrets:
        if secret:
            for name in ("HS256", "HS384", "HS512"):
                key = _prepared(option, name, secret, valid_until)
                keys[name] = (*keys.get(name, ()), key)
    if options.rsa_public_key:
        rsa = _public_key("rsa_public_key", options.rsa_public_key)
        if not isinstance(rsa, RSAPublicKey):
            raise _wrong_kind("rsa_public_key", rsa)
        for name in ("RS256", "RS384", "RS512"):
            keys[name] = (_prepared("rsa_public_key", name, rsa),)
    if options.ecdsa_public_key:
        ecdsa = _public_key("ecdsa_public_key", options.ecdsa_public_key)
        if not isinstance(ecdsa, EllipticCurvePublicKey):
            raise _wrong_kind("ecdsa_public_key", ecdsa)
        curve = ecdsa.curve.name
        if curve not in _CURVES:
            message = f"token: ecdsa_public_key is on {curve}, not on {', '.join(_CURVES)}"
            raise ConfigError(message)
        keys[_CURVES[curve]] = (_prepared("ecdsa_public_key", _CURVES[curve], ecdsa),)
    if options.eddsa_public_key:
        eddsa = _public_key("eddsa_public_key", options.eddsa_public_key)
        if not isinstance(eddsa, Ed25519PublicKey):
            raise _wrong_kind("eddsa_public_key", eddsa)
        keys["EdDSA"] = (_prepared("eddsa_public_key", "EdDSA", eddsa),)
    return keys


def _prepared(option: str, name: str, key: Any, valid_until: float = 0) -> _Key:
    """
    Check a key once; PyJWT would do so for each token.

    A short HMAC secret passes: the system checks speak of it, and PyJWT's warning comes from its front door only.
    """
    algorithm = _ALGORITHMS[name]
    try:
        return _Key(algorithm, algorithm.prepare_key(key), valid_until)
    except InvalidKeyError as error:
        message = f"token: {option}: {error}"
        raise ConfigError(message) from error


def _public_key(option: str, pem: str) -> object:
    """Read a public key, which may stand in a certificate."""
    data = pem.encode()
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            return x509.load_pem_x509_certificate(data).public_key()
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"token: {option} is no PEM of a public key or certificate"
        raise ConfigError(message) from error


def _wrong_kind(option: str, key: object) -> ConfigError:
    return ConfigError(f"token: {option} is another kind of key: {type(key).__name__}")


def _compile(option: str, text: str) -> ChannelPattern | None:
    if not text:
        return None
    try:
        return ChannelPattern(text)
    except PatternError as error:
        message = f"token: {option}: {error}"
        raise ConfigError(message) from error
