"""Say whether a configuration would do, without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime.auth.tokens import TokenVerifier
from realtime.conf.importing import proxy_problems
from realtime.conf.loader import Loaded, read_file
from realtime.conf.snapshot import describe, make_candidate
from realtime.conf.transfer import RowSection, options_of, read_section
from realtime.management.base import ConfigCommand, load_config
from realtime.namespaces.validation import validate
from realtime.protocol.errors import ConfigError


class Command(ConfigCommand):
    """``manage.py checkconfig``."""

    help = (
        "Check the configuration as a start would: settings.REALTIME, the file, the environment. "
        "The file's channel namespaces and proxies are checked too. Says nothing and exits with 0 if all is well."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file."""
        self.add_config_argument(parser)
        parser.add_argument(
            "-s", "--strict", action="store_true", help="Fail on keys of the file that are unknown."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check."""
        loaded = load_config(options["config"])
        section = RowSection()
        try:
            _check_keys(loaded)
            if loaded.path:
                section = read_section(read_file(Path(loaded.path)))
                _check_proxies(section)
                _check_namespaces(loaded, section)
        except ConfigError as error:
            raise CommandError(f"error validating config: {error}") from error
        unknown = [*loaded.unknown, *section.unknown_keys]
        if options["strict"] and unknown:
            raise CommandError(f"unknown keys in config: {', '.join(unknown)}")


def _check_keys(loaded: Loaded) -> None:
    """Let the verifier itself look at the keys."""
    client = loaded.options.client
    TokenVerifier(client.token)
    if client.subscription_token.enabled:
        TokenVerifier(client.subscription_token)


def _check_proxies(section: RowSection) -> None:
    wrong = list(proxy_problems(section.proxies or {}))
    if wrong:
        raise ConfigError("\n".join(wrong))


def _check_namespaces(loaded: Loaded, section: RowSection) -> None:
    if section.namespaces is None and section.without_namespace is None:
        return  # what is in the database rules, and that was checked when it was saved
    settings = {**(section.namespaces or {}), "": section.without_namespace or {}}
    found = {name: options_of(each) for name, each in settings.items()}
    problems = validate(make_candidate(loaded.options, found, section.proxies or ()))
    wrong = [describe(problem) for problem in problems if not problem.is_warning]
    if wrong:
        raise ConfigError("\n".join(wrong))
