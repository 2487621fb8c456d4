"""Say whether a connection token would do, and what it says."""

from __future__ import annotations

from typing import Any

from realtime.auth.tokens import TokenVerifier
from realtime.management.tokens import CheckTokenCommand, check, load_options


class Command(CheckTokenCommand):
    """``manage.py checktoken``."""

    help = "Check a connection JWT by the keys of client.token."

    def handle(self, *args: Any, **options: Any) -> None:
        """Check and print."""
        client = load_options(options).client
        found, payload = check(
            client.token,
            options["token"],
            TokenVerifier.verify_connection,
            skip_signature=client.insecure_skip_token_signature_verify,
        )
        whom = f"user {found.user}" if found.user else "anonymous user"
        self.stdout.write(f"valid token for {whom}\npayload: {payload}")
