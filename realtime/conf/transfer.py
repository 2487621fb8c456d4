"""
Namespaces and proxies between configuration files and rows, and what is different between two states of a row.

A file holds options as Centrifugo names and writes them (durations as text, ``map`` and ``shared_poll`` as objects), a row
holds columns. Between the two stands one form, *settings*: a dict from option path (``presence``, ``map.key_ttl``) to the
value as a file has it, with the options that are not default. Equal settings mean equal rows.
Those of proxies are the business of ``proxy_rows``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from django.db import models

from realtime.conf import proxy_rows
from realtime.conf.durations import format_duration, parse_duration
from realtime.conf.proxy_rows import MASK, Hidden
from realtime.conf.rendering import toml_value
from realtime.models import (
    MAX_NUMBER,
    OPTION_COLUMNS,
    WITHOUT_NAMESPACE,
    ApiKey,
    ConfigurationChange,
    Namespace,
    Proxy,
    SecondsField,
    nested,
)
from realtime.namespaces.options import ChannelOptions
from realtime.protocol.errors import ConfigError


Settings = dict[str, Any]
"""Option path -> value as in a file; only what is not default."""

Change = tuple[str, Any, Any]
"""(option path, value before, value after), values as in a file."""

_OTHER_VALUES = "(changed)"
_GROUPS = {path[:at] for path in OPTION_COLUMNS for at, letter in enumerate(path) if letter == "."}


# --- rows and settings --------------------------------------------------------------------------


def settings_of(row: Namespace) -> Settings:
    """Return what is not default in a row."""
    return {
        path: value for path, value in all_settings_of(row).items() if value != default_of(path)
    }


def all_settings_of(row: Namespace) -> Settings:
    """Return all options of a row, default or not."""
    return {path: to_file(path, getattr(row, column)) for path, column in OPTION_COLUMNS.items()}


def default_of(path: str) -> Any:
    """Return an option's default as in a file."""
    return to_file(path, _field(path).get_default())


def to_file(path: str, value: Any) -> Any:
    """Return a column's value as a file has it."""
    return format_duration(value) if isinstance(_field(path), SecondsField) else value


def apply_settings(row: Namespace, settings: Settings) -> None:
    """Set all options of a row: those in ``settings``, and all others to their defaults."""
    for path, column in OPTION_COLUMNS.items():
        value = settings[path] if path in settings else default_of(path)
        setattr(row, column, from_file(path, value))


def options_of(settings: Settings) -> ChannelOptions:
    """Return the options that a row with these settings stands for."""
    row = Namespace()
    apply_settings(row, settings)
    return row.to_options()


def from_file(path: str, value: Any) -> Any:
    """
    Return a file's value as its column holds it.

    Raises:
        ValueError: It is of the wrong type, or no duration.

    """
    column = _field(path)
    if value is None:  # as in the reference, null leaves the default
        return column.get_default()
    if isinstance(column, SecondsField):
        return parse_duration(value)
    if isinstance(column, models.BooleanField):
        return _expect(value, bool, "true or false")
    if isinstance(column, models.JSONField):
        strings = _expect(value, list, "a list of strings")
        return [_expect(item, str, "a list of strings") for item in strings]
    if isinstance(column, models.IntegerField):
        number = _expect(value, int, "a whole number")
        if abs(number) > MAX_NUMBER:
            message = f"expected a number of at most {MAX_NUMBER}, got {number}"
            raise ValueError(message)
        return number
    text = _expect(value, str, "a string")
    longest = column.max_length or 0
    if len(text) > longest:
        message = f"expected at most {longest} characters, got {len(text)}"
        raise ValueError(message)
    return text


def _expect(value: Any, kind: type, words: str) -> Any:
    # True is an int in Python, and no number in a file.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        message = f"expected {words}, got {_name_of(value)}"
        raise ValueError(message)
    return value


def _name_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else repr(value)


def _field(path: str) -> models.Field[Any, Any]:
    return Namespace.column(OPTION_COLUMNS[path])


# --- changes ------------------------------------------------------------------------------------


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what differs, without what is ``Hidden``; an option that is missing on one side is ``None`` there."""
    paths = [*before, *(path for path in after if path not in before)]
    return [
        (path, *_told(before.get(path), after.get(path)))
        for path in paths
        if before.get(path) != after.get(path)
    ]


def _told(before: Any, after: Any) -> tuple[Any, Any]:
    """Return what may be shown of two values that differ."""
    old, new = (each.shown if isinstance(each, Hidden) else each for each in (before, after))
    if old != new:
        return old, new
    return old, [*new, _OTHER_VALUES] if isinstance(new, list) else f"{MASK} {_OTHER_VALUES}"


def state_of(row: models.Model) -> dict[str, Any]:
    """Return what the record of changes compares; of an API key nothing that is secret, of a proxy that is hidden."""
    if isinstance(row, Namespace):
        return {"name": row.name, **all_settings_of(row)}
    if isinstance(row, Proxy):
        return {"name": row.name, **proxy_rows.told_settings_of(row)}
    if isinstance(row, ApiKey):
        revoked_at = row.revoked_at.isoformat(timespec="seconds") if row.revoked_at else None
        return {
            "name": row.name,
            "prefix": row.prefix,
            "scopes": sorted(row.scopes),
            "revoked_at": revoked_at,
        }
    message = f"no configuration row: {row!r}"
    raise TypeError(message)


def default_state_of(row: models.Model) -> dict[str, Any]:
    """Return the state that a row is compared with when it appears or goes: what need not be told."""
    return state_of(type(row)())


def show(value: Any) -> str:
    """Return a value in the words of a diff."""
    if value is None or value == "" or value == []:
        return "(empty)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def record_change(
    row: models.Model,
    action: ConfigurationChange.Action,
    changes: list[Change],
    *,
    actor: str,
    source: str,
    name: str = "",
) -> ConfigurationChange | None:
    """
    Remember who changed what; call it in the transaction of the change.

    Args:
        row: A namespace, proxy or API key; before it is deleted, since it has no id afterwards.
        action: What happened to it.
        changes: From ``compare``.
        actor: A user's name, or the system account.
        source: ``admin``, or the command's name.
        name: What to call the row, where not what it is called now.

    Returns:
        The record, or ``None`` where an edit changed nothing.

    """
    if action == ConfigurationChange.Action.CHANGED and not changes:
        return None
    return ConfigurationChange.objects.create(
        actor=actor,
        source=source,
        action=action,
        kind=str(row._meta.verbose_name),  # noqa: SLF001 -- Django's documented API
        row_id=str(row.pk),
        row_name=(name or str(row))[:255],
        changes=[list(change) for change in changes],
    )


# --- reading files ------------------------------------------------------------------------------


@dataclass(slots=True)
class RowSection:
    """
    What a configuration file says about rows.

    Attributes:
        without_namespace: ``None`` where the file doesn't have the key.
        namespaces: Settings by name, in the file's order; ``None`` where the file doesn't have the key.
        proxies: The same of proxies.
        unknown_keys: Paths that are no options here.

    """

    without_namespace: Settings | None = None
    namespaces: dict[str, Settings] | None = None
    proxies: dict[str, Settings] | None = None
    unknown_keys: list[str] = field(default_factory=list)


def read_section(document: Any) -> RowSection:
    """
    Read ``channel.without_namespace``, ``channel.namespaces`` and ``proxies`` of a parsed configuration file.

    Raises:
        ConfigError: Something has the wrong form; the text has the path of each.

    """
    reader = _Reader()
    section = reader.read(document)
    if reader.problems:
        raise ConfigError("\n".join(reader.problems))
    return section


class _Reader:
    """Collects all problems of one file."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.section = RowSection()

    def read(self, document: Any) -> RowSection:
        document = self._object(document, "the file")
        channel = self._object(document.get("channel") or {}, "channel")
        if channel.get("without_namespace") is not None:
            path = "channel.without_namespace"
            options = self._object(channel["without_namespace"], path)
            self.section.without_namespace = self._settings(options, path)
        if channel.get("namespaces") is not None:
            self.section.namespaces = self._named(
                "channel.namespaces", "namespace", channel["namespaces"], self._settings
            )
        if document.get("proxies") is not None:
            self.section.proxies = self._named(
                "proxies", "proxy", document["proxies"], self._proxy_settings
            )
        return self.section

    def _named(
        self,
        path: str,
        kind: str,
        items: Any,
        read: Callable[[Mapping[str, Any], str], Settings],
    ) -> dict[str, Settings]:
        found: dict[str, Settings] = {}
        if not isinstance(items, list):
            self.problems.append(f"{path}: expected a list of objects, got {_name_of(items)}")
            return found
        for position, item in enumerate(items):
            place = f"{path}[{position}]"
            options = dict(self._object(item, place))
            name = options.pop("name", None)
            if not isinstance(name, str) or not name:
                self.problems.append(f"{place}.name: expected a name, got {_name_of(name)}")
                continue
            place = f"{path}[{name}]"
            if name in found:
                self.problems.append(f"{place}.name: there is another {kind} of this name")
            found[name] = read(options, place)
        return found

    def _proxy_settings(self, options: Mapping[str, Any], path: str) -> Settings:
        try:
            settings, unknown = proxy_rows.read_settings(options, path)
        except ValueError as error:
            self.problems.append(str(error))
            return {}
        self.section.unknown_keys += unknown
        return settings

    def _settings(self, options: Mapping[str, Any], path: str) -> Settings:
        settings: Settings = {}
        for key, value in self._flat(options, path):
            if key not in OPTION_COLUMNS:
                self.section.unknown_keys.append(f"{path}.{key}")
                continue
            try:
                settings[key] = to_file(key, from_file(key, value))
            except ValueError as error:
                self.problems.append(f"{path}.{key}: {error}")
        return {key: value for key, value in settings.items() if value != default_of(key)}

    def _flat(
        self, options: Mapping[str, Any], path: str, group: str = ""
    ) -> Iterator[tuple[str, Any]]:
        for name, value in options.items():
            key = f"{group}{name}"
            if key in _GROUPS:
                inner = self._object({} if value is None else value, f"{path}.{key}")
                yield from self._flat(inner, path, f"{key}.")
            else:
                yield key, value

    def _object(self, value: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self.problems.append(f"{path}: expected an object, got {_name_of(value)}")
            return {}
        return value


# --- exporting ----------------------------------------------------------------------------------


def export_document() -> dict[str, Any]:
    """Return namespaces and proxies in the form of a Centrifugo configuration file, with what is not default."""
    rows = {row.name: row for row in Namespace.objects.all()}
    without = rows.pop(WITHOUT_NAMESPACE, None)
    # The keys are there even if empty: importing the file then resets what is default here.
    return {
        "channel": {
            "without_namespace": nested(settings_of(without)) if without else {},
            "namespaces": [
                {"name": name, **nested(settings_of(row))} for name, row in sorted(rows.items())
            ],
        },
        "proxies": [
            {"name": row.name, **nested(proxy_rows.settings_of(row))} for row in Proxy.objects.all()
        ],
    }


def print_document(document: dict[str, Any], form: str) -> str:
    """
    Print what ``export_document`` returned.

    Args:
        document: With the keys ``channel`` and ``proxies``.
        form: ``json``, ``yaml`` or ``toml``.

    """
    if form == "yaml":
        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        return text
    if form == "toml":
        return _print_toml(document["channel"], document["proxies"])
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _print_toml(channel: dict[str, Any], proxies: list[dict[str, Any]]) -> str:
    # In TOML a plain key can't follow a table: those of the top come first.
    lines = [] if proxies else ["proxies = []", ""]
    lines += ["[channel]"]
    if not channel["namespaces"]:
        lines.append("namespaces = []")
    lines += ["", "[channel.without_namespace]"]
    lines += _toml_table("channel.without_namespace", channel["without_namespace"])
    for namespace in channel["namespaces"]:
        lines += ["", "[[channel.namespaces]]", *_toml_table("channel.namespaces", namespace)]
    for proxy in proxies:
        lines += ["", "[[proxies]]", *_toml_table("proxies", proxy)]
    return "\n".join(lines) + "\n"


def _toml_table(path: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Print the plain values first: in TOML a sub-table's header ends the table above it."""
    for key, value in options.items():
        if not isinstance(value, dict):
            yield f"{key} = {toml_value(value)}"
    for key, value in options.items():
        if isinstance(value, dict):
            yield from ("", f"[{path}.{key}]", *_toml_table(f"{path}.{key}", value))
