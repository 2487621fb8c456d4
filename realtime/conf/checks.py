"""System checks: what an operator can get wrong, with a hint for each."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.checks import register as register_check

from realtime.conf.loader import get_options
from realtime.protocol.errors import ConfigError


MIN_SECRET_BYTES = 32  # RFC 7518: as long as the hash of HS256


def register() -> None:
    """Register the checks; called by the app's ``ready``."""
    register_check(check_options)


def check_options(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Check the process options."""
    try:
        options = get_options()
    except ConfigError as error:
        return [
            Error(
                str(error), hint="Mend the option at the source that is named.", id="realtime.E001"
            )
        ]
    client = options.client
    found: list[CheckMessage] = []
    secret = client.token.hmac_secret_key
    if secret and len(secret.encode()) < MIN_SECRET_BYTES:
        found.append(
            Warning(
                f"client.token.hmac_secret_key has fewer than {MIN_SECRET_BYTES} bytes.",
                hint="manage.py shell -c 'import secrets; print(secrets.token_urlsafe(48))' makes a good one.",
                id="realtime.W001",
            )
        )
    if client.allowed_origins == ("*",):
        found.append(
            Warning(
                "client.allowed_origins is '*': any web page may connect with its visitor's cookies.",
                hint="List the origins of your pages.",
                id="realtime.W002",
            )
        )
    for path, is_on in (
        ("client.insecure", client.insecure),
        (
            "client.insecure_skip_token_signature_verify",
            client.insecure_skip_token_signature_verify,
        ),
        ("http_api.insecure", options.http_api.insecure),
    ):
        if is_on:
            found.append(
                Warning(f"{path} is on.", hint="For development only.", id="realtime.W003")
            )
    return found
