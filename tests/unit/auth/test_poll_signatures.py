"""Who may track which keys."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.auth.poll_signatures import PollSecrets, sign_batch, verify_batch
from realtime.auth.tokens import TokenExpired, TokenInvalid


NOW = 1_700_000_000
SECRETS = PollSecrets("s3cret")


def signed(secret="s3cret", **changes):
    facts = {
        "issued_at": NOW,
        "expire_at": NOW + 60,
        "user": "42",
        "channel": "prices:eu",
        "keys": ["btc", "eth"],
    }
    return sign_batch(secret, **facts | changes)


def verified(signature, secrets=SECRETS, *, now=NOW, **changes):
    facts = {"user": "42", "channel": "prices:eu", "keys": ["btc", "eth"]}
    return verify_batch(signature, secrets, now=now, **facts | changes)


def test_the_form_is_the_reference_s():
    """Written down from its description, field by field; accepted by Centrifugo 6.9.1."""
    digest = hashlib.sha256(b"btc\0eth").hexdigest()
    fields = f"{NOW}\0{NOW + 60}\x0042\0prices:eu\0{digest}"
    mac = hmac.new(b"s3cret", fields.encode(), hashlib.sha256).hexdigest()

    assert signed() == f"{NOW}:{NOW + 60}:{mac}"


@given(
    user=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    keys=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
        min_size=1,
        max_size=5,
    ),
    ttl=st.sampled_from([0, 5, 1000]),
)
def test_what_is_signed_is_verified(user, keys, ttl):
    """Whatever the names; 0 is for ever."""
    until = NOW + ttl if ttl else 0
    signature = signed(user=user, keys=keys, expire_at=until)

    assert verified(signature, user=user, keys=keys) == until


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "43"},
        {"user": ""},
        {"channel": "prices:us"},
        {"keys": ["eth", "btc"]},
        {"keys": ["btc"]},
        {"keys": ["btc\0eth"]},
        {"keys": ["btc", "eth", ""]},
    ],
)
def test_a_signature_is_good_for_what_it_names_alone(changes):
    """Another user, channel, order or number of keys; a NUL does not make one key of two."""
    with pytest.raises(TokenInvalid):
        verified(signed(), **changes)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "::",
        "1:2",
        "a:b:c",
        f"-1:0:{'0' * 64}",
        f"1:0:{'0' * 63}",
        f"1:0:{'0' * 64}:",
        f"{'9' * 400}:0:{'0' * 64}",
        f"\u0661:0:{'0' * 64}",
    ],
)
def test_what_is_no_signature_is_refused(signature):
    """Without an exception of another kind."""
    with pytest.raises(TokenInvalid):
        verified(signature)


def test_times_and_case_are_part_of_it():
    """Nobody lengthens a signature, and hexadecimal is lower-case."""
    issued_at, expire_at, mac = signed().split(":")

    for changed in (
        f"{issued_at}:{int(expire_at) + 1}:{mac}",
        f"{issued_at}:0:{mac}",
        f"{int(issued_at) - 1}:{expire_at}:{mac}",
        f"{issued_at}:{expire_at}:{mac.upper()}",
        f"0{issued_at}:{expire_at}:{mac}",
    ):
        with pytest.raises(TokenInvalid):
            verified(changed)


def test_an_expired_one_is_taken_for_five_seconds_more():
    """So that a refresh may be under way."""
    signature = signed()

    assert verified(signature, now=NOW + 65) == NOW + 60
    with pytest.raises(TokenExpired):
        verified(signature, now=NOW + 65.5)


def test_the_previous_key_is_taken_for_what_was_signed_until_its_end():
    """Keys are changed without a moment at which clients are refused."""
    old = signed("old")

    assert verified(old, PollSecrets("s3cret", "old")) == NOW + 60
    assert verified(old, PollSecrets("s3cret", "old", NOW)) == NOW + 60
    assert verified(signed(), PollSecrets("s3cret", "old", NOW - 1)) == NOW + 60
    for secrets in (
        PollSecrets("s3cret", "old", NOW - 1),
        PollSecrets("s3cret"),
        PollSecrets("s3cret", "x"),
    ):
        with pytest.raises(TokenInvalid):
            verified(old, secrets)


@pytest.mark.parametrize(
    ("secret", "changes"),
    [
        ("", {}),
        ("s", {"keys": ["a\0b"]}),
        ("s", {"keys": [""]}),
        ("s", {"user": "\0"}),
        ("s", {"channel": "a\0"}),
    ],
)
def test_what_could_mean_something_else_is_not_signed(secret, changes):
    """No secret, or a NUL."""
    with pytest.raises(ValueError, match=r"NUL|hmac_secret_key"):
        signed(secret, **changes)
