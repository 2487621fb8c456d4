"""
The process options in force, merged from their sources.

Later wins: defaults, ``settings.REALTIME``, the file that ``TIDEWIRE_CONFIG`` names, ``TIDEWIRE_*`` variables, command-line
flags. All that is wrong is told at once, each with the option's dotted path and the source of its value. What is
worth a line in the log and no reason to stop comes back as data (``Notice``); ``log_notices`` writes it.

``load`` is pure but for reading the files it is pointed to. The rest of the module is about *this* process: Django's
settings and ``os.environ``, read on first use and kept.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realtime.conf import schema, sources, support, validation, values
from realtime.conf.options import ProcessOptions
from realtime.conf.sources import (
    CONFIG_VARIABLE,
    DATABASE_KEYS,
    ConfigFileMissingError,
    Layer,
    read_file,
)
from realtime.protocol.errors import ConfigError


__all__ = [
    "DATABASE_KEYS",
    "ConfigFileMissingError",
    "Fault",
    "InvalidConfigError",
    "Loaded",
    "Notice",
    "Problem",
    "get_loaded",
    "get_options",
    "load",
    "log_notices",
    "read_file",
    "reset",
]

logger = logging.getLogger(__name__)

LOG_LEVELS = ("none", "trace", "debug", "info", "warn", "error", "fatal")

UNKNOWN_KEY = "unknown key in configuration file"
UNKNOWN_VARIABLE = "unknown var in environment"
FILE_MISSING = "config file not found, continue using environment and flag options"

_INSECURE = {
    "client.insecure": "INSECURE client mode enabled: any client may connect, subscribe and publish",
    "client.insecure_skip_token_signature_verify": (
        "INSECURE skip token signature verify enabled: anybody can be any user"
    ),
    "http_api.insecure": "INSECURE HTTP API mode enabled: no API key is asked for",
}
_NO_GRPC_KEY = (
    "INSECURE GRPC API: grpc_api.key is empty, so whoever reaches the port may call everything"
)
_ANY_ORIGIN = (
    "client.allowed_origins * lets any web page connect with its visitor's cookies; "
    "list the origins of your pages"
)


class Fault(enum.Enum):
    """What kind of problem it is."""

    VALUE = "value"  # of the wrong type or form
    UNKNOWN = "unknown"  # no such option
    RULE = "rule"  # of the right type, and still impossible
    UNAVAILABLE = "unavailable"  # known, not implemented, and not safe to ignore


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing that is wrong.

    Attributes:
        path: The option's dotted path.
        source: Where the value comes from, in words.
        text: What is wrong with it.

    """

    path: str
    source: str
    text: str
    fault: Fault

    def __str__(self) -> str:
        """Say all of it in one line."""
        return f"{self.path} ({self.source}): {self.text}"


class InvalidConfigError(ConfigError):
    """
    The options can't be used.

    Attributes:
        problems: All of them; the exception's text has one a line.

    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Notice:
    """
    One line for the log.

    Attributes:
        level: Of ``logging``.
        message: Complete, for a person.
        facts: The same for a machine; become the record's attributes.

    """

    level: int
    message: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_unknown_name(self) -> bool:
        """Whether it names an option that does not exist."""
        return self.message.startswith((UNKNOWN_KEY, UNKNOWN_VARIABLE))


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    The options and what there is to say about them.

    Attributes:
        unknown: Keys of the file that are no options, as ``checkconfig --strict`` lists them.
        path: Of the file that was read; empty without one.

    """

    options: ProcessOptions
    notices: tuple[Notice, ...] = ()
    unknown: tuple[str, ...] = ()
    path: str = ""


def load(
    settings: object,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    *,
    is_debug: bool = False,
) -> Loaded:
    """
    Merge the sources.

    Args:
        settings: ``settings.REALTIME``: nested dicts with lower-case keys, at the top also ``DEMO``,
            ``API_URL`` and ``API_KEY``.
        environ: ``TIDEWIRE_*``, ``TIDEWIRE_CONFIG`` and what ``${TIDEWIRE_VAR_...}`` refers to.
        flags: Text by dotted path; ``None`` is a flag that was not given.
        is_debug: What ``demo`` is where no source speaks of it.

    Raises:
        InvalidConfigError: Some options are unknown (in ``settings``), malformed, impossible or not safe to ignore.
        ConfigError: A source can't be read at all.

    """
    loading = _Loading(environ)
    loading.add_settings(sources.from_settings(settings))
    if environ.get(CONFIG_VARIABLE):
        loading.add_file(Path(environ[CONFIG_VARIABLE]))
    loading.add_environment(sources.from_environment(environ))
    loading.add(sources.from_flags(flags or {}))
    return loading.finish(is_debug=is_debug)


class _Loading:
    """One run of ``load``: layers go in one after the other, then they are judged together."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.notices: list[Notice] = []
        self.unknown: list[str] = []
        self.path = ""

    def add_settings(self, layer: Layer) -> None:
        unknown = [*layer.unknown, *self.add(layer)]
        self.problems += [
            Problem(path, layer.source, "there is no such option", Fault.UNKNOWN)
            for path in unknown
        ]

    def add_file(self, path: Path) -> None:
        try:
            content = read_file(path)
        except ConfigFileMissingError:
            self.notices.append(
                Notice(logging.WARNING, f"{FILE_MISSING}: {path}", {"path": str(path)})
            )
            return
        self.path = str(path)
        self.notices.append(Notice(logging.INFO, f"using config file {path}", {"path": str(path)}))
        layer = sources.from_mapping(f"file {path}", content)
        self.unknown = [*layer.unknown, *self.add(layer)]
        self.notices += [
            Notice(logging.WARNING, f"{UNKNOWN_KEY}: {key}", {"key": key}) for key in self.unknown
        ]

    def add_environment(self, layer: Layer) -> None:
        unknown = [*layer.unknown, *self.add(layer)]
        self.notices += [
            Notice(logging.WARNING, f"{UNKNOWN_VARIABLE}: {name}", {"var": name})
            for name in unknown
        ]

    def add(self, layer: Layer) -> list[str]:
        """Lay a layer over what is there; returns unknown keys found inside of values."""
        reader = values.Reader(self.environ, is_text=layer.is_text)
        for path, raw in layer.values.items():
            self.origins[path] = layer.origin(path)
            try:
                self.values[path] = reader.convert(schema.leaves()[path], raw)
            except ValueError as error:
                self._blame(path, str(error), Fault.VALUE)
        self.problems += [
            Problem(path, layer.source, "expected an object of options", Fault.VALUE)
            for path in layer.malformed
        ]
        if layer.database:
            names = ", ".join(layer.database)
            text = (
                f"{names} ({layer.source}): kept in the database, ignored here; "
                "manage.py importconfig brings a file's namespaces there"
            )
            self.notices.append(Notice(logging.INFO, text, {"keys": names}))
        return reader.unknown

    def finish(self, *, is_debug: bool) -> Loaded:
        self.values.setdefault("demo", is_debug)
        self._resolve_pem()
        self._lower_log_level()
        if not self.problems:
            # Rules look at several options at once; on a value that did not convert they would add noise.
            options = schema.build(self.values)
            for path, text in validation.find_problems(options):
                self._blame(path, text, Fault.RULE)
            self._judge_support(options)
            self._shout(options)
        if self.problems:
            raise InvalidConfigError(self.problems)
        return Loaded(options, tuple(self.notices), tuple(self.unknown), self.path)

    def _blame(self, path: str, text: str, fault: Fault) -> None:
        # A path may lead into a list: the source is that of the list.
        whole = path.partition(".[")[0]
        self.problems.append(Problem(path, self.origins.get(whole, "default"), text, fault))

    def _resolve_pem(self) -> None:
        """Read PEM from where it is, in sections that are on: the others may name files not there yet."""
        for path, value in self.values.items():
            if schema.leaves()[path].kind != "pem" or not value:
                continue
            switch = path.rpartition(".")[0] + ".enabled"
            if switch in schema.leaves() and not self.values.get(switch, False):
                continue
            try:
                self.values[path] = values.load_pem(value)
            except ValueError as error:
                self._blame(path, str(error), Fault.VALUE)

    def _lower_log_level(self) -> None:
        level = self.values.get("log.level", "info")
        self.values["log.level"] = level.lower()
        if level.lower() not in LOG_LEVELS:
            self.values["log.level"] = "info"
            self.notices.append(
                Notice(
                    logging.WARNING, f'unknown log.level "{level}", using info', {"level": level}
                )
            )

    def _judge_support(self, options: ProcessOptions) -> None:
        wanted = [path for path in self.origins if support.asks_for(options, path)]
        ignored = [path for path in wanted if support.is_not_applicable(path)]
        if ignored:
            names = ", ".join(ignored)
            text = f"accepted and without a meaning here: {names}"
            self.notices.append(Notice(logging.INFO, text, {"keys": names}))
        for path in wanted:
            entry = support.missing(path)
            if entry is None:
                continue
            if entry.refusal:
                self._blame(path, f"not implemented yet: {entry.refusal}", Fault.UNAVAILABLE)
            else:
                text = f"{path} is not implemented yet and has no effect"
                self.notices.append(Notice(logging.ERROR, text, {"key": path}))

    def _shout(self, options: ProcessOptions) -> None:
        for path, text in _INSECURE.items():
            if schema.read(options, path):
                self.notices.append(Notice(logging.WARNING, text, {"key": path}))
        if options.grpc_api.enabled and not options.grpc_api.key:
            self.notices.append(Notice(logging.WARNING, _NO_GRPC_KEY, {"key": "grpc_api.key"}))
        if "*" in options.client.allowed_origins:
            self.notices.append(
                Notice(logging.WARNING, _ANY_ORIGIN, {"key": "client.allowed_origins"})
            )


# --- this process -------------------------------------------------------------------------------


class _Process:
    """What this process has loaded, and whether its notices are in the log."""

    loaded: Loaded | None = None
    is_logged: bool = False


def get_loaded() -> Loaded:
    """
    Load from Django's settings and the environment, once per process.

    Raises:
        ConfigError: As ``load``; the next call tries again.

    """
    if _Process.loaded is None:
        _Process.loaded = _load_for_process()
    return _Process.loaded


def _load_for_process() -> Loaded:
    # Here and not at the top: the settings may not be configured when this module is imported.
    from django.conf import settings

    return load(getattr(settings, "REALTIME", {}), os.environ, is_debug=bool(settings.DEBUG))


def get_options() -> ProcessOptions:
    """Return this process's options; raises ``ConfigError`` as ``get_loaded`` does."""
    return get_loaded().options


def reload() -> ProcessOptions:
    """Read the sources again; raises ``ConfigError``, and what was loaded before stays in force then."""
    _Process.loaded = _load_for_process()
    return _Process.loaded.options


def reset() -> None:
    """Forget what is loaded: for tests, and for a command that puts its flags in force."""
    _Process.loaded = None
    _Process.is_logged = False


def log_notices(notices: Iterable[Notice] | None = None) -> None:
    """
    Write notices into the log.

    Args:
        notices: Those to write; without them this process's own, which are written once however often
            this is called.

    """
    if notices is None:
        if _Process.is_logged:
            return
        _Process.is_logged = True
        notices = get_loaded().notices
    for notice in notices:
        logger.log(notice.level, "%s", notice.message, extra=dict(notice.facts))
