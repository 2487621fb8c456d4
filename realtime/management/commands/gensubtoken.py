"""Make a subscription token to try things with."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime.management.tokens import (
    MakeTokenCommand,
    load_options,
    make_token,
    subscription_keys,
    title_of,
)


class Command(MakeTokenCommand):
    """``manage.py gensubtoken``."""

    help = (
        "Generate a sample subscription JWT for a user and a channel, signed with "
        "client.subscription_token.hmac_secret_key where that section is enabled, else with client.token's."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the channel, too."""
        super().add_arguments(parser)
        parser.add_argument("-s", "--channel", default="", help="The channel; required.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make and print it."""
        user, ttl, channel = options["user"], options["ttl"], options["channel"]
        path, keys = subscription_keys(load_options(options))
        if not channel:
            raise CommandError("channel is required")
        token = make_token(path, keys, user, ttl, {"channel": channel})
        self.write_token(token, title_of(user, ttl, channel), quiet=options["quiet"])
