"""Sample JWTs made and checked on the command line, by the keys of the configuration."""

from __future__ import annotations

import asyncio
import base64
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import jwt
from django.core.management.base import CommandError, CommandParser
from jwt.exceptions import InvalidKeyError
from jwt.warnings import InsecureKeyLengthWarning

from realtime.auth.tokens import TokenError, TokenVerifier
from realtime.conf.durations import format_duration
from realtime.conf.options import ProcessOptions, TokenOptions
from realtime.management.base import ConfigCommand, load_config
from realtime.protocol.errors import ConfigError


TokenT = TypeVar("TokenT")

WEEK_SECONDS = 604800
NO_EXPIRATION = -1


class MakeTokenCommand(ConfigCommand):
    """What ``gentoken`` and ``gensubtoken`` share."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Take user and expiration."""
        self.add_config_argument(parser)
        parser.add_argument("-u", "--user", default="", help="User ID; by default anonymous.")
        parser.add_argument(
            "-t",
            "--ttl",
            type=int,
            default=WEEK_SECONDS,
            help=f"Seconds until it expires ({WEEK_SECONDS}); {NO_EXPIRATION} for never.",
        )
        parser.add_argument(
            "-q", "--quiet", action="store_true", help="Print the token and nothing else."
        )

    def write_token(self, token: str, title: str, *, quiet: bool) -> None:
        """Print a token, under its title unless quiet."""
        if quiet:
            self.stdout.write(token, ending="")
        else:
            self.stdout.write(f"HMAC SHA-256 JWT for {title}:\n{token}")


class CheckTokenCommand(ConfigCommand):
    """What ``checktoken`` and ``checksubtoken`` share."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the token."""
        self.add_config_argument(parser)
        parser.add_argument("token", metavar="TOKEN", help="A JWT.")


def subscription_keys(options: ProcessOptions) -> tuple[str, TokenOptions]:
    """Choose the section that subscription tokens are verified by: its path and its values."""
    client = options.client
    if client.subscription_token.enabled:
        return "client.subscription_token", client.subscription_token
    return "client.token", client.token


def load_options(arguments: dict[str, Any]) -> ProcessOptions:
    """Load the options by the command's arguments."""
    return load_config(arguments["config"]).options


def make_token(
    path: str, keys: TokenOptions, user: str, ttl: int, claims: dict[str, Any] | None = None
) -> str:
    """
    Sign a token.

    Args:
        path: Of the section that the keys are from, for the error.
        keys: Must have an HMAC secret.
        user: Empty is anonymous.
        ttl: Seconds, or ``NO_EXPIRATION``.
        claims: Further claims.

    Raises:
        CommandError: There is no HMAC secret, or the TTL is out of range.

    """
    if not keys.hmac_secret_key:
        raise CommandError(
            f"error: {path}.hmac_secret_key is not set; tokens for public keys are made by whoever has the "
            "private key"
        )
    if ttl < 1 and ttl != NO_EXPIRATION:
        raise CommandError(f"error: the TTL must be above 0, or {NO_EXPIRATION} for no expiration")
    now = int(time.time())
    payload: dict[str, Any] = {"iat": now, **(claims or {})}
    if user:
        payload["sub"] = user
    if keys.user_id_claim:
        payload[keys.user_id_claim] = user
    if ttl != NO_EXPIRATION:
        payload["exp"] = now + ttl
    try:
        with warnings.catch_warnings():
            # The system checks speak of short secrets, in our words.
            warnings.simplefilter("ignore", InsecureKeyLengthWarning)
            return jwt.encode(payload, keys.hmac_secret_key, algorithm="HS256")
    except InvalidKeyError as error:
        raise CommandError(f"error: {path}.hmac_secret_key: {error}") from error


def title_of(user: str, ttl: int, channel: str = "") -> str:
    """Say what a new token is for."""
    whom = f'user "{user}"' if user else "anonymous user"
    where = f' and channel "{channel}"' if channel else ""
    if ttl == NO_EXPIRATION:
        return f"{whom}{where} without expiration"
    return f"{whom}{where} with expiration TTL {format_duration(ttl)}"


def check(
    keys: TokenOptions,
    token: str,
    verify: Callable[[TokenVerifier, str, float], Coroutine[Any, Any, TokenT]],
    *,
    skip_signature: bool,
) -> tuple[TokenT, str]:
    """
    Verify a token as the server would.

    Returns:
        What it says, and its claims as they stand in it.

    Raises:
        CommandError: It would be refused.

    """
    try:
        verifier = TokenVerifier(keys, skip_signature=skip_signature)
    except ConfigError as error:
        raise CommandError(f"error: {error}") from error
    try:
        found = asyncio.run(verify(verifier, token, time.time()))
    except TokenError as error:
        raise CommandError(f"error: {error}") from error
    part = token.split(".")[1]
    return found, base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()
