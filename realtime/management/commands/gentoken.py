"""Make a connection token to try things with."""

from __future__ import annotations

from typing import Any

from realtime.management.tokens import MakeTokenCommand, load_options, make_token, title_of


class Command(MakeTokenCommand):
    """``manage.py gentoken``."""

    help = "Generate a sample connection JWT for a user, signed with client.token.hmac_secret_key."

    def handle(self, *args: Any, **options: Any) -> None:
        """Make and print it."""
        user, ttl = options["user"], options["ttl"]
        keys = load_options(options).client.token
        token = make_token("client.token", keys, user, ttl)
        self.write_token(token, title_of(user, ttl), quiet=options["quiet"])
