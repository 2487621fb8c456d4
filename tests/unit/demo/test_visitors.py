"""The demo's tokens are ones that the server takes."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from realtime.auth.tokens import TokenExpired, TokenVerifier
from realtime.conf.options import TokenOptions
from realtime.demo.namespace import DEMO_NAMESPACE
from realtime.demo.visitors import TOKEN_SECONDS, mint_token, new_visitor
from realtime.namespaces.options import ChannelOptions


SECRET = "a secret of at least thirty-two bytes"


@pytest.mark.parametrize(
    "options",
    [
        TokenOptions(hmac_secret_key=SECRET),
        TokenOptions(hmac_secret_key=SECRET, audience="demo", issuer="us", user_id_claim="uid"),
    ],
)
def test_token_is_accepted_until_it_expires(options: TokenOptions) -> None:
    """Whatever claims are asked for, the server's verifier reads user, name and expiry."""
    visitor = new_visitor()
    now = time.time()
    verifier = TokenVerifier(options)

    token = mint_token(visitor, options, now)

    verified = asyncio.run(verifier.verify_connection(token, now))
    assert verified.user == visitor.user
    assert verified.expire_at == int(now) + TOKEN_SECONDS
    assert msgspec.json.decode(bytes(verified.info)) == {"name": visitor.name}
    with pytest.raises(TokenExpired):
        asyncio.run(verifier.verify_connection(token, now + TOKEN_SECONDS + 1))


def test_no_key_means_no_token() -> None:
    """The page then says what is missing."""
    assert mint_token(new_visitor(), TokenOptions(), time.time()) == ""


def test_visitors_are_told_apart() -> None:
    """Two newcomers are two users."""
    assert new_visitor().user != new_visitor().user


def test_namespace_names_options_that_exist() -> None:
    """A name that is no channel option would fail only when a database is made."""
    assert set(DEMO_NAMESPACE) - {"name"} <= set(ChannelOptions.__struct_fields__)
