"""Write a configuration file with every option in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime.conf import rendering
from realtime.management.base import ConfigCommand, format_of, load_base, write_new_file


class Command(ConfigCommand):
    """``manage.py defaultconfig``."""

    help = (
        "Generate a full configuration file: every option, with its default or a base file's value."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the files."""
        parser.add_argument(
            "-c",
            "--config",
            default="config.json",
            help="Path of the new file: .json, .toml, .yaml or .yml (config.json).",
        )
        parser.add_argument("-b", "--base", help="A configuration file to start from.")
        parser.add_argument(
            "-d", "--dry-run", action="store_true", help="Print it, and write no file."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Generate."""
        path = options["config"]
        form = format_of(path)
        exists = "target file already exists"
        if not options["dry_run"] and Path(path).exists():
            raise CommandError(f"error: {exists}")
        loaded, base = load_base(options["base"])
        content = rendering.document(loaded.options)
        rendering.lay_over(content, base)
        text = rendering.print_document(content, form)
        if options["dry_run"]:
            self.stdout.write(text, ending="")
        else:
            write_new_file(path, text, exists)
