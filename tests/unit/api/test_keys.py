"""Who may call what."""

from __future__ import annotations

import hashlib

import pytest

from api.keys import Credentials, TrustedCaller, Verdict, decide, read_credentials
from realtime.conf.options import HTTPAPIOptions
from realtime.conf.snapshot import ApiKey


ROW = ApiKey("billing", "tw_12", frozenset({"publish"}))
ROWS = {hashlib.sha256(b"row").digest(): ROW}
POLICY = HTTPAPIOptions(key="process")


def shown(key: bytes = b"", parameter: bytes = b"") -> Credentials:
    return Credentials(key, parameter, is_transport=False)


@pytest.mark.parametrize(
    ("headers", "query", "key", "parameter"),
    [
        ([], b"", b"", b""),
        ([(b"x-api-key", b"a"), (b"x-api-key", b"b")], b"", b"a", b""),
        ([(b"x-api-key", b""), (b"authorization", b"apikey b")], b"", b"b", b""),
        ([(b"authorization", b"apikey b"), (b"x-api-key", b"a")], b"", b"a", b""),
        ([(b"authorization", b"bearer b")], b"", b"", b""),
        ([(b"cookie", b"x-api-key=1")], b"a=1&api_key=a+b%26&api_key=c", b"", b"a b&"),
        ([], b"api_key", b"", b""),
        ([], b"&&api_key=%ff", b"", b"\xff"),
    ],
)
def test_credentials_are_found_where_the_reference_looks(
    headers: list[tuple[bytes, bytes]], query: bytes, key: bytes, parameter: bytes
) -> None:
    """Of a name that repeats the first value counts; the Authorization header only if X-API-Key is empty."""
    assert read_credentials(headers, query) == Credentials(key, parameter, is_transport=False)


@pytest.mark.parametrize(
    ("value", "is_transport"), [(b"transport", True), (b"Transport", False), (b"", False)]
)
def test_the_error_mode_must_be_spelt_exactly(value: bytes, is_transport: bool) -> None:
    """Any other value is none."""
    headers = [(b"x-centrifugo-error-mode", value)]

    assert read_credentials(headers, b"").is_transport is is_transport


@pytest.mark.parametrize(
    ("credentials", "method", "verdict"),
    [
        (shown(b"process"), "publish", Verdict.ALLOWED),
        (shown(b"process"), "info", Verdict.ALLOWED),
        (shown(b"wrong", b"process"), "info", Verdict.ALLOWED),
        (shown(b"row"), "publish", Verdict.ALLOWED),
        (shown(b"wrong", b"row"), "publish", Verdict.ALLOWED),
        (shown(b"row"), "batch", Verdict.ALLOWED),
        (shown(b"row"), "", Verdict.ALLOWED),
        (shown(b"row"), "info", Verdict.FORBIDDEN),
        # The first key that is valid at all decides: a caller can't add a second one.
        (shown(b"row", b"process"), "info", Verdict.FORBIDDEN),
        (shown(), "publish", Verdict.UNAUTHORIZED),
        (shown(b"wrong"), "publish", Verdict.UNAUTHORIZED),
        (shown(hashlib.sha256(b"row").digest()), "publish", Verdict.UNAUTHORIZED),
    ],
)
def test_decisions(credentials: Credentials, method: str, verdict: Verdict) -> None:
    """The process's key may do everything, a row what its scopes say, anything else nothing."""
    assert decide(POLICY, ROWS, credentials, method).verdict is verdict


def test_an_empty_key_never_matches() -> None:
    """A server without a key is closed, not open."""
    assert decide(HTTPAPIOptions(), {}, shown(b"", b""), "info").verdict is Verdict.UNAUTHORIZED


def test_rows_work_without_a_process_key() -> None:
    """Rows are enough."""
    assert decide(HTTPAPIOptions(), ROWS, shown(b"row"), "publish").caller is ROW


def test_insecure_lets_everybody_in() -> None:
    """Even one with a wrong key."""
    decision = decide(HTTPAPIOptions(insecure=True), {}, shown(b"wrong"), "info")

    assert decision == (Verdict.ALLOWED, TrustedCaller("insecure"))
