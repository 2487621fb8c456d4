"""Make a shared poll signature to try things with."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime.auth.poll_signatures import sign_batch
from realtime.management.tokens import (
    NO_EXPIRATION,
    MakeTokenCommand,
    load_options,
    title_of,
)


class Command(MakeTokenCommand):
    """``manage.py gensharedpoll``."""

    help = (
        "Generate a sample signature for keys of a shared poll channel, signed with shared_poll.hmac_secret_key. The client "
        "has to send the keys in the same order."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the channel and the keys, too."""
        super().add_arguments(parser)
        parser.add_argument("-s", "--channel", default="", help="The channel; required.")
        parser.add_argument("keys", nargs="+", metavar="KEY", help="What may be tracked.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make and print it."""
        user, ttl, channel = options["user"], options["ttl"], options["channel"]
        secret = load_options(options).shared_poll.hmac_secret_key
        if not channel:
            raise CommandError("channel is required")
        now = int(time.time())
        try:
            signature = sign_batch(
                secret,
                issued_at=now,
                expire_at=0 if ttl == NO_EXPIRATION else now + ttl,
                user=user,
                channel=channel,
                keys=options["keys"],
            )
        except ValueError as error:
            raise CommandError(str(error)) from error
        if options["quiet"]:
            self.stdout.write(signature, ending="")
            return
        title = title_of(user, ttl, channel)
        keys = ", ".join(options["keys"])
        self.stdout.write(f"signature of the keys {keys} for {title}:\n{signature}")
