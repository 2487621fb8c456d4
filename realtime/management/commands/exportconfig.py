"""Write the namespaces in the database as a Centrifugo configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.conf.transfer import export_document, print_document


_FORMS = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


class Command(BaseCommand):
    """``manage.py exportconfig [FILE]``."""

    help = (
        "Export the namespaces as channel.namespaces and channel.without_namespace of a Centrifugo v6 "
        "configuration file, with the options that are not default. importconfig reads it back; API keys "
        "and process options are not in it."
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
            with target.open("w" if options["overwrite"] else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            message = f"{target} exists; --overwrite replaces it"
            raise CommandError(message) from error
        except OSError as error:
            message = f"{target}: {error.strerror}"
            raise CommandError(message) from error
