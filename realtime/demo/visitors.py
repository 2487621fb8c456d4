"""Who looks at the demo, and the token that says so to the server."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from django.http import HttpRequest, HttpResponse

from realtime.conf.options import TokenOptions


# Short enough that a visitor sees it renewed, and well over what a refresh takes.
TOKEN_SECONDS = 30

_COOKIE = "demo_visitor"
_SALT = "realtime.demo"
_MANNERS = (
    "Brisk",
    "Calm",
    "Clear",
    "Early",
    "Gentle",
    "Keen",
    "Merry",
    "Patient",
    "Quiet",
    "Swift",
)
_BIRDS = (
    "Avocet",
    "Curlew",
    "Dunlin",
    "Fulmar",
    "Gannet",
    "Heron",
    "Osprey",
    "Petrel",
    "Plover",
    "Tern",
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """``user`` is the user id on the wire, ``name`` is for people to read, a guest has no account here."""

    user: str
    name: str
    is_guest: bool = True


def visitor_of(request: HttpRequest) -> Visitor | None:
    """Return the signed-in user, or who the cookie says that it is; ``None`` for a newcomer."""
    account = getattr(request, "user", None)
    if account is not None and account.is_authenticated:
        return Visitor(str(account.pk), account.get_username(), is_guest=False)
    user = request.get_signed_cookie(_COOKIE, default="", salt=_SALT)
    return Visitor(user, _name_of(user)) if user else None


def new_visitor() -> Visitor:
    """Make up somebody. The prefix keeps them apart from the application's own user ids."""
    user = f"demo-{secrets.token_hex(6)}"
    return Visitor(user, _name_of(user))


def remember(visitor: Visitor, request: HttpRequest, response: HttpResponse) -> None:
    """Let the browser say next time who it was: all its tabs are one user."""
    response.set_signed_cookie(
        _COOKIE, visitor.user, salt=_SALT, httponly=True, samesite="Lax", secure=request.is_secure()
    )


def mint_token(visitor: Visitor, options: TokenOptions, now: float) -> str:
    """
    Sign a connection token, as an application's backend would.

    Returns:
        A JWT good for ``TOKEN_SECONDS``, or ``""`` where ``client.token.hmac_secret_key`` is not set: the demo has
        no private key of another kind.

    """
    if not options.hmac_secret_key:
        return ""
    claims: dict[str, Any] = {
        options.user_id_claim or "sub": visitor.user,
        "iat": int(now),
        "exp": int(now) + TOKEN_SECONDS,
        "info": {"name": visitor.name},
    }
    expected: Mapping[str, str] = {"aud": options.audience, "iss": options.issuer}
    claims.update({name: value for name, value in expected.items() if value})
    return jwt.encode(claims, options.hmac_secret_key, algorithm="HS256")


def _name_of(user: str) -> str:
    digest = hashlib.blake2b(user.encode(), digest_size=2).digest()
    return f"{_MANNERS[digest[0] % len(_MANNERS)]} {_BIRDS[digest[1] % len(_BIRDS)]}"
