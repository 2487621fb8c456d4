"""
Who may call what: one pure function on the immutable snapshot, which every door calls.

The API key of the process (``http_api.key``) may call everything, a key that is a row what its scopes say; of those the
snapshot has digests only. Nothing here reads the database, and no rate is configured for a key, so nothing is throttled.

The order in which a request's places are looked at is the reference's and can be observed: ``X-API-Key``; only if that
is empty ``Authorization: apikey KEY``; and whenever that did not match, the query's ``api_key``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes


class KeyPolicy(Protocol):
    """What ``http_api`` says of authentication."""

    @property
    def key(self) -> str:
        """The process's API key; an empty one never matches."""

    @property
    def insecure(self) -> bool:
        """Whether everybody may call everything."""


class ScopedKey(Protocol):
    """An API key that is a row."""

    @property
    def name(self) -> str:
        """Who uses it."""

    def may_call(self, method: str) -> bool:
        """Say whether its scopes have the method."""


class Caller(Protocol):
    """Who calls."""

    @property
    def name(self) -> str:
        """For the log."""

    def may_call(self, method: str) -> bool:
        """Say whether the caller may use a method; a batch is judged command by command."""


@dataclass(frozen=True, slots=True)
class TrustedCaller:
    """One who may call everything."""

    name: str

    def may_call(self, method: str) -> bool:
        """Agree."""
        return True


class Verdict(Enum):
    """What becomes of a request."""

    ALLOWED = 200
    UNAUTHORIZED = 401
    FORBIDDEN = 403


class Decision(NamedTuple):
    """``caller`` is there unless the verdict is ``UNAUTHORIZED``."""

    verdict: Verdict
    caller: Caller | None = None


class Credentials(NamedTuple):
    """
    What a request shows.

    ``key`` comes from the headers, ``parameter`` from the query; ``is_transport`` says that the request asks for the
    transport error mode.
    """

    key: bytes
    parameter: bytes
    is_transport: bool

    @property
    def has_key(self) -> bool:
        """Say whether the request shows a key at all, right or wrong."""
        return bool(self.key or self.parameter)


# These have no scope of their own: what they carry is judged command by command.
CONTAINERS: Collection[str] = frozenset({"batch", ""})

_INSECURE = Decision(Verdict.ALLOWED, TrustedCaller("insecure"))
_PROCESS_KEY = Decision(Verdict.ALLOWED, TrustedCaller("http_api.key"))
_UNAUTHORIZED = Decision(Verdict.UNAUTHORIZED)

_HEADERS = frozenset({b"x-api-key", b"authorization", b"x-centrifugo-error-mode"})


def decide(
    policy: KeyPolicy,
    api_keys: Mapping[bytes, ScopedKey],
    credentials: Credentials,
    method: str,
) -> Decision:
    """
    Decide on a request.

    Args:
        policy: ``options.http_api``.
        api_keys: ``configuration.api_keys``: by SHA-256 of the key.
        credentials: What the request shows.
        method: Name of the API method; ``batch``, and ``""`` for the legacy stream, need any valid key.

    """
    if policy.insecure:
        return _INSECURE
    for key in (credentials.key, credentials.parameter):
        if not key:
            continue
        if policy.key and hmac.compare_digest(key, policy.key.encode()):
            return _PROCESS_KEY
        # Found by digest: what the look-up's time tells is of a digest that nobody can choose.
        row = api_keys.get(hashlib.sha256(key).digest()) if api_keys else None
        if row is not None:
            is_allowed = method in CONTAINERS or row.may_call(method)
            return Decision(Verdict.ALLOWED if is_allowed else Verdict.FORBIDDEN, row)
    return _UNAUTHORIZED


def read_credentials(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> Credentials:
    """
    Find a request's credentials.

    Args:
        headers: Names in lower case; of a name that repeats the first value counts.
        query: The raw query string.

    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _HEADERS:
            found.setdefault(name, value)
    key = found.get(b"x-api-key", b"")
    if not key and b"authorization" in found:
        key = _key_of_authorization(found[b"authorization"])
    return Credentials(
        key,
        _key_of_query(query) if query else b"",
        found.get(b"x-centrifugo-error-mode") == b"transport",
    )


def read_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Credentials:
    """
    Find the credentials of a gRPC call: ``authorization: apikey KEY``, where a key may have blanks, unlike over HTTP.

    Args:
        metadata: Names in lower case; of a name that repeats the first value counts.

    """
    found: dict[str, bytes] = {}
    for name, value in metadata:
        if name in ("authorization", "x-centrifugo-error-mode"):
            found.setdefault(name, value.encode() if isinstance(value, str) else value)
    scheme, _blank, key = found.get("authorization", b"").partition(b" ")
    return Credentials(
        key.strip() if scheme.lower() == b"apikey" else b"",
        b"",
        found.get("x-centrifugo-error-mode") == b"transport",
    )


def _key_of_authorization(value: bytes) -> bytes:
    fields = value.split()
    return fields[1] if len(fields) == 2 and fields[0].lower() == b"apikey" else b""


def _key_of_query(query: bytes) -> bytes:
    for pair in query.split(b"&"):
        name, _equals, value = pair.partition(b"=")
        if unquote_to_bytes(name.replace(b"+", b" ")) == b"api_key":
            return unquote_to_bytes(value.replace(b"+", b" "))
    return b""
