"""Write a small configuration file with fresh secrets."""

from __future__ import annotations

import secrets
from typing import Any

from django.core.management.base import CommandParser

from realtime.conf.rendering import print_document
from realtime.management.base import ConfigCommand, format_of, write_new_file


class Command(ConfigCommand):
    """``manage.py genconfig``."""

    help = "Generate a minimal configuration file to start with; its secrets are new."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file."""
        parser.add_argument(
            "-c",
            "--config",
            default="config.json",
            help="Path of the new file: .json, .toml, .yaml or .yml (config.json).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Generate."""
        path = options["config"]
        content = {
            "client": {
                "token": {"hmac_secret_key": secrets.token_urlsafe(64)},
                "allowed_origins": [],
            },
            # Means nothing here; the file does for Centrifugo as it is.
            "admin": {
                "enabled": False,
                "password": secrets.token_urlsafe(16),
                "secret": secrets.token_urlsafe(64),
            },
            "http_api": {"key": secrets.token_urlsafe(64)},
        }
        text = print_document(content, format_of(path))
        write_new_file(path, text, f"output config file already exists: {path}")
