"""Write the namespaces and proxies in the database as a Centrifugo configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.conf.transfer import export_document, print_document


_FORMS = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Command(BaseCommand):
    """``manage.py exportconfig [FILE]``."""

    help = (
        "Export namespaces and proxies as channel.namespaces, channel.without_namespace and proxies of a "
        "Centrifugo v6 configuration file, with the options that are not default. importconfig reads it back. "
        "What proxies send as secrets is in it, so a new file is for its owner only; API keys and process "
        "options are not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file and its format."""
        parser.add_argument(
            "file",
            nargs="?",
            help="A .json, .yaml, .yml or .toml file; without one the text goes to standard output.",
        )
        parser.add_argument(
            "--format",
            choices=("json", "yaml", "toml"),
            help="Instead of what the file's ending says; json on standard output.",
        )
        parser.add_argument("--overwrite", action="store_true", help="Replace a file that exists.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Export."""
        if options["file"] is None:
            text = print_document(export_document(), options["format"] or "json")
            self.stdout.write(text, ending="")
            return
        target = Path(options["file"])
        form = options["format"] or _FORMS.get(target.suffix.lower())
        if form is None:
            message = (
                f"{target}: expected a name that ends in .json, .yaml, .yml or .toml, or --format"
            )
            raise CommandError(message)
        text = print_document(export_document(), form)
        try:
            mode = "w" if options["overwrite"] else "x"
            with open(target, mode, encoding="utf-8", opener=_for_owner) as file:
                file.write(text)
        except FileExistsError as error:
            message = f"{target} exists; --overwrite replaces it"
            raise CommandError(message) from error
        except OSError as error:
            message = f"{target}: {error.strerror}"
            raise CommandError(message) from error
