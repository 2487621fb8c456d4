"""Bring the namespaces and proxies of a Centrifugo configuration file into the database."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.conf.importing import Plan, Step, import_section
from realtime.conf.loader import get_options, read_file
from realtime.conf.snapshot import describe
from realtime.conf.transfer import read_section, show
from realtime.models import ConfigurationChange
from realtime.protocol.errors import ConfigError


_SIGNS = {
    ConfigurationChange.Action.ADDED: "+",
    ConfigurationChange.Action.CHANGED: "~",
    ConfigurationChange.Action.DELETED: "-",
}


def system_user() -> str:
    """Name the system account that runs the command, for the record of changes."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        return ""


class Command(BaseCommand):
    """``manage.py importconfig FILE``."""

    help = (
        "Import channel.namespaces, channel.without_namespace and proxies of a Centrifugo v6 configuration "
        "file (JSON, YAML or TOML). A namespace or proxy of the file replaces the one of its name as a whole; "
        "others stay. Running it again changes nothing. All or nothing: a configuration that would "
        "not be valid is refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file and what to do with it."""
        parser.add_argument("file", help="A .json, .yaml, .yml or .toml file.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Show what would change, and change nothing."
        )
        parser.add_argument(
            "--prune",
            action="store_true",
            help="Delete namespaces and proxies that the file does not have.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Import."""
        dry_run, prune = options["dry_run"], options["prune"]
        try:
            section = read_section(read_file(Path(options["file"])))
        except ConfigError as error:
            raise CommandError(str(error)) from error
        if prune and section.namespaces is None and section.proxies is None:
            # Nobody means "delete all" by a file that is about something else.
            raise CommandError(
                "--prune needs channel.namespaces or proxies in the file, if only an empty one"
            )
        for key in section.unknown_keys:
            self.stderr.write(f"unknown option, left out: {key}")
        try:
            plan = import_section(
                section,
                get_options(),
                actor=system_user(),
                source="importconfig",
                prune=prune,
                dry_run=dry_run,
            )
        except ConfigError as error:
            raise CommandError(str(error)) from error
        self._report(plan, dry_run=dry_run)

    def _report(self, plan: Plan, *, dry_run: bool) -> None:
        for step in plan.steps:
            self._show(step)
        for problem in plan.warnings:
            self.stderr.write(self.style.WARNING(f"warning: {describe(problem)}"))
        action = ConfigurationChange.Action
        counts = {kind: sum(step.action == kind for step in plan.steps) for kind in action}
        summary = ", ".join(f"{counts[kind]} {kind.label}" for kind in action)
        closing = "; dry run, nothing was changed" if dry_run else ""
        self.stdout.write(f"{summary}, {plan.unchanged} unchanged{closing}")

    def _show(self, step: Step) -> None:
        name = f"{step.kind} {step.name}" if step.name else "without_namespace"
        self.stdout.write(f"{_SIGNS[step.action]} {name}")
        if step.action == ConfigurationChange.Action.DELETED:
            return
        for path, before, after in step.changes:
            is_new = step.action == ConfigurationChange.Action.ADDED
            told = show(after) if is_new else f"{show(before)} -> {show(after)}"
            self.stdout.write(f"    {path}: {told}")
