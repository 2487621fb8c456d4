"""Say whether a subscription token would do, and what it says."""

from __future__ import annotations

from typing import Any

from realtime.auth.tokens import TokenVerifier
from realtime.management.tokens import (
    CheckTokenCommand,
    check,
    load_options,
    subscription_keys,
)


class Command(CheckTokenCommand):
    """``manage.py checksubtoken``."""

    help = (
        "Check a subscription JWT by the keys of client.subscription_token where that section is enabled, "
        "else of client.token. Whether its channel's namespace exists is not looked at."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check and print."""
        process = load_options(options)
        _, keys = subscription_keys(process)
        found, payload = check(
            keys,
            options["token"],
            TokenVerifier.verify_subscription,
            skip_signature=process.client.insecure_skip_token_signature_verify,
        )
        whom = f'user "{found.user}"' if found.user else "anonymous user"
        self.stdout.write(
            f'valid subscription token for {whom} and channel "{found.channel}"\npayload: {payload}'
        )
