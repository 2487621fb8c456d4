"""
What the commands about configuration and tokens share.

They run on a configuration that may be broken, so system checks are off; and they answer in the words of
Centrifugo's commands, for scripts read them: a failure is its bare text on standard error and exit status 1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.conf import loader
from realtime.conf.rendering import FORMATS
from realtime.conf.sources import CONFIG_VARIABLE
from realtime.protocol.errors import ConfigError


class ConfigCommand(BaseCommand):
    """A command that reads or writes configuration."""

    _called_from_command_line: bool  # BaseCommand's; its stubs leave it out
    requires_system_checks = []  # noqa: RUF012 -- Django's declaration

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run; on the command line a failure is told without Django's class name before it."""
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            if not self._called_from_command_line or options.get("traceback"):
                raise
            self.stderr.write(str(error))
            sys.exit(error.returncode)

    @staticmethod
    def add_config_argument(parser: CommandParser) -> None:
        """Offer ``-c``, the file in place of the one that ``TIDEWIRE_CONFIG`` names."""
        parser.add_argument(
            "-c", "--config", help="Path of a configuration file (default: TIDEWIRE_CONFIG's)."
        )


def load_config(path: str | None) -> loader.Loaded:
    """
    Load the options as a server would that is started with this file.

    Args:
        path: Of the file; ``None`` is the one that ``TIDEWIRE_CONFIG`` names, if any.

    Raises:
        CommandError: They can't be used.

    """
    environ = dict(os.environ)
    path = path or environ.get(CONFIG_VARIABLE)
    if path:
        environ[CONFIG_VARIABLE] = path
        if not Path(path).exists():
            raise CommandError("config file not found")
    try:
        own = getattr(settings, "REALTIME", {})
        return loader.load(own, environ, is_debug=bool(settings.DEBUG))
    except ConfigError as error:
        raise CommandError(f"error validating config: {error}") from error


def load_base(path: str | None) -> tuple[loader.Loaded, dict[Any, Any]]:
    """
    Load the defaults with one file over them, and nothing else.

    Returns:
        The options, and the file as parsed (empty without one).

    """
    if not path:
        return loader.load({}, {}), {}
    # Only what the file may refer to; the environment's options are no part of a base.
    environ = {name: value for name, value in os.environ.items() if "_VAR_" in name}
    try:
        content = loader.read_file(Path(path))
        return loader.load({}, {**environ, CONFIG_VARIABLE: path}), content
    except ConfigError as error:
        raise CommandError(f"error: {error}") from error


def format_of(path: str) -> str:
    """Choose what to write by the file's ending."""
    form = FORMATS.get(Path(path).suffix.lower())
    if form is None:
        raise CommandError(
            "error: output config file must have one of supported extensions: "
            f"{', '.join(ending.removeprefix('.') for ending in FORMATS)}"
        )
    return form


def write_new_file(path: str, text: str, if_exists: str) -> None:
    """
    Write a file that is readable by its owner only, for it has secrets.

    Args:
        path: Where.
        text: What.
        if_exists: What to say if there is such a file; it is left alone.

    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise CommandError(f"error: {if_exists}") from error
    except OSError as error:
        raise CommandError(f"error: {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
