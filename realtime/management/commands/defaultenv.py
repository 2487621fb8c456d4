"""Write every option as an environment variable."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime.conf import schema
from realtime.conf.rendering import environment_lines
from realtime.conf.sources import from_mapping
from realtime.management.base import ConfigCommand, load_base


class Command(ConfigCommand):
    """``manage.py defaultenv``."""

    help = (
        "Print every option as an environment variable, with its default or a base file's value. "
        "Namespaces are rows in the database and no variables."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the base file."""
        parser.add_argument("-b", "--base", help="A configuration file to start from.")
        parser.add_argument(
            "--base-non-zero-only",
            action="store_true",
            help="Only what the base file sets to something (not to 0, false or nothing).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print."""
        if options["base_non_zero_only"] and not options["base"]:
            raise CommandError("error: --base-non-zero-only needs --base")
        loaded, base = load_base(options["base"])
        paths = None
        if options["base_non_zero_only"]:
            given = from_mapping("base", base).values
            paths = (path for path in given if schema.read(loaded.options, path))
        for line in environment_lines(loaded.options, paths):
            self.stdout.write(line)
