"""
The sources of process options, each read into a flat layer: dotted path to raw value.

A layer also says what it found that is no process option: unknown keys, and keys that belong to rows in the
database. Nothing is converted here and nothing is merged.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from realtime.conf import schema, values
from realtime.protocol.errors import ConfigError


DATABASE_KEYS = (
    "channel.namespaces",
    "channel.without_namespace",
    "rpc.namespaces",
    "rpc.without_namespace",
    "proxies",
    "consumers",
)
"""Keys of Centrifugo's files that are rows in the database here."""

CONFIG_VARIABLE = "TIDEWIRE_CONFIG"

# settings.REALTIME may have these as Django writes its settings.
DJANGO_KEYS = {
    "DEMO": "demo",
    "API_URL": "api_url",
    "API_KEY": "api_key",
    "WORKERS": "workers",
}

_VALUE_PREFIX = "TIDEWIRE_VAR_"
# Kubernetes puts variables about every service into the environment; one called "tidewire" is likely.
_KUBERNETES = re.compile(r"^TIDEWIRE(?:_[A-Z0-9_]+)?_(PORT|SERVICE_)")


@dataclass(frozen=True, slots=True)
class Layer:
    """
    One source.

    Attributes:
        values: Raw values by dotted path; no ``None``.
        origins: Where a path's value comes from, in words, where ``source`` is not exact enough.
        source: In words: ``settings.REALTIME``, ``file config.json``.
        is_text: The values are text as the environment has it.
        unknown: Keys or variables that mean nothing.
        database: Which of ``DATABASE_KEYS`` were there.
        malformed: Paths that should be objects and are not.

    """

    source: str
    values: Mapping[str, object]
    origins: Mapping[str, str] = field(default_factory=dict)
    is_text: bool = False
    unknown: tuple[str, ...] = ()
    database: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()

    def origin(self, path: str) -> str:
        """Say where the value of a path comes from."""
        return self.origins.get(path, self.source)


def from_mapping(
    source: str, raw: Mapping[Any, object], *, fold: Callable[[str], str] = str.lower
) -> Layer:
    """Read nested objects: a parsed file, or ``settings.REALTIME``; ``fold`` makes keys alike."""
    known, sections = schema.leaves(), schema.sections()
    paths = (*known, *DATABASE_KEYS)
    found: dict[str, object] = {}
    unknown, database, malformed = [], [], []
    for path, value in values.flatten(raw, paths, fold=fold):
        if path in DATABASE_KEYS:
            # An empty list, as defaultconfig writes it, asks for nothing.
            if value:
                database.append(path)
        elif value is None:
            # "key:" with nothing after it in YAML, or None in settings: as if not there.
            if path not in known and path not in sections:
                unknown.append(path)
        elif path in known:
            found[path] = value
        elif path in sections:
            malformed.append(path)
        else:
            unknown.append(path)
    return Layer(
        source=source,
        values=found,
        unknown=tuple(unknown),
        database=tuple(database),
        malformed=tuple(malformed),
    )


def from_settings(raw: object) -> Layer:
    """
    Read ``settings.REALTIME``.

    Raises:
        ConfigError: It is no dict, or has one option under two names.

    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"settings.REALTIME: expected a dict, got {type(raw).__name__}")
    renamed: dict[Any, object] = {}
    for key, value in raw.items():
        name = DJANGO_KEYS.get(key, key)
        if name in renamed:
            raise ConfigError(f"settings.REALTIME: {name} is there twice, in lower and upper case")
        renamed[name] = value
    return from_mapping("settings.REALTIME", renamed, fold=str)


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Read the ``TIDEWIRE_`` variables; an empty one counts as not set."""
    by_name = {leaf.env_name: path for path, leaf in schema.leaves().items()}
    found: dict[str, object] = {}
    origins: dict[str, str] = {}
    unknown: list[str] = []
    database: list[str] = []
    for name in sorted(environ):
        if not name.startswith(schema.ENVIRONMENT_PREFIX):
            continue
        path = by_name.get(name)
        row = next((key for key in DATABASE_KEYS if _is_row_variable(name, key)), None)
        if path is not None and environ[name] != "":
            found[path] = environ[name]
            origins[path] = f"environment variable {name}"
        elif row is not None and environ[name] != "":
            database.append(name)
        elif path is None and row is None and not _means_something_else(name):
            unknown.append(name)
    return Layer(
        source="environment",
        values=found,
        origins=origins,
        is_text=True,
        unknown=tuple(unknown),
        database=tuple(database),
    )


def _is_row_variable(name: str, key: str) -> bool:
    variable = schema.env_name(key)
    return name == variable or name.startswith(f"{variable}_")


def _means_something_else(name: str) -> bool:
    return (
        name == CONFIG_VARIABLE
        or name.startswith(_VALUE_PREFIX)
        or _KUBERNETES.match(name) is not None
    )


def from_flags(flags: Mapping[str, object]) -> Layer:
    """
    Read command-line flags.

    Args:
        flags: Values by dotted path, without ``--``; ``None`` is a flag that was not given.

    Raises:
        ConfigError: There is no such option.

    """
    given = {path: value for path, value in flags.items() if value is not None}
    for path in given:
        if path not in schema.leaves():
            raise ConfigError(f"--{path}: there is no such option")
    return Layer(
        source="command line",
        values=given,
        origins={path: f"flag --{path}" for path in given},
        is_text=True,
    )


class ConfigFileMissingError(ConfigError):
    """There is no file of that name."""


def read_file(path: Path) -> dict[Any, Any]:
    """
    Parse a configuration file by its extension: ``.json``, ``.toml``, ``.yaml`` or ``.yml``.

    Returns:
        Nested objects as the file has them; an empty file is an empty object.

    Raises:
        ConfigFileMissingError: There is no such file.
        ConfigError: It can't be read or parsed, or is no object.

    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"file {path}: the name must end in .json, .toml, .yaml or .yml")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigFileMissingError(f"file {path}: not found") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"file {path}: can't be read: {_reason(error)}") from error
    try:
        content = parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"file {path}: can't be parsed: {_reason(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"file {path}: expected an object at the top")
    return content


def _reason(error: Exception) -> str:
    """Say where the parser stopped; not what it read there, which may be a secret."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} at line {mark.line + 1} column {mark.column + 1}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


_PARSERS: Mapping[str, Callable[[str], object]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}
