"""
Proxies as rows, as members of a configuration file, and as options.

Between a file and a row stand *settings*, as for namespaces: a dict from option path (``http.tls.enabled``) to the value
as a file has it. Values of headers and metadata keep ``${TIDEWIRE_VAR_NAME}`` in files, settings and rows alike; it is
filled in where ``ProxyOptions`` are made for the server (``options_of_row``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from realtime.conf import rendering, schema, values
from realtime.conf.durations import parse_duration
from realtime.conf.options import ProxyOptions, StatusToCodeTransform
from realtime.conf.proxy_rules import find_problems
from realtime.models import Proxy
from realtime.protocol.errors import ConfigError


LEAVES: Mapping[str, schema.Leaf] = MappingProxyType(
    {leaf.path: leaf for leaf in schema.fields_of(ProxyOptions)}
)
"""Each option of a proxy, by path."""

COLUMNS: Mapping[str, str] = MappingProxyType({path: path.replace(".", "_") for path in LEAVES})
"""Each option and the column of ``Proxy`` that keeps it (``http_tls_enabled``)."""


class _Kept(dict[str, str]):
    """An environment in which every variable is what refers to it."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"


KEPT: Mapping[str, str] = _Kept()
"""In place of the environment: ``${...}`` stays as it is."""


def options_of_row(row: Proxy, environ: Mapping[str, str] | None = None) -> ProxyOptions:
    """
    Return the options as the server uses them.

    Args:
        row: A proxy.
        environ: For ``${TIDEWIRE_VAR_NAME}``; that of the process by default.

    Raises:
        ConfigError: A value is none of its option's, a variable is missing, or PEM can't be read.

    """
    environ = os.environ if environ is None else environ
    reader = values.Reader(environ)
    found: dict[str, Any] = {}
    for option in LEAVES:
        try:
            found[option] = _option_of_row(row, option, reader)
        # The other two: a column holds what no form or command writes there.
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"proxies[{row.name}].{option}: {error}") from error
    return schema.build_struct(ProxyOptions, found)


def _option_of_row(row: Proxy, option: str, reader: values.Reader) -> Any:
    leaf = LEAVES[option]
    value = reader.convert(leaf, _to_file(option, getattr(row, COLUMNS[option])))
    if leaf.kind == "pem" and value and reader.environ is not KEPT:
        # In sections that are off it may name files not there yet.
        section = COLUMNS[option].rpartition("_tls_")[0]
        if getattr(row, f"{section}_tls_enabled"):
            return values.load_pem(value)
    return value


def settings_of(row: Proxy) -> dict[str, Any]:
    """Return what is not default in a row, and the endpoint."""
    return {
        path: value
        for path, value in all_settings_of(row).items()
        if path == "endpoint" or value != default_of(path)
    }


def all_settings_of(row: Proxy) -> dict[str, Any]:
    """Return all options of a row, default or not."""
    return {path: _to_file(path, getattr(row, column)) for path, column in COLUMNS.items()}


def apply_settings(row: Proxy, settings: Mapping[str, Any]) -> None:
    """Set all options of a row: those in ``settings``, and all others to their defaults."""
    for path, column in COLUMNS.items():
        value = settings[path] if path in settings else default_of(path)
        setattr(row, column, _to_column(path, value))


def default_of(path: str) -> Any:
    """Return an option's default as in a file."""
    return plain(LEAVES[path], LEAVES[path].default)


def read_settings(raw: Mapping[Any, Any], path: str) -> tuple[dict[str, Any], list[str]]:
    """
    Read a proxy object of a configuration file.

    Args:
        raw: The object without its ``name``.
        path: Of the object in the file, for errors.

    Returns:
        Its settings, and the paths of keys that are no options.

    Raises:
        ValueError: A value is of the wrong type or form.

    """
    reader = values.Reader(KEPT)
    options = reader.convert_object(ProxyOptions, raw, path)
    found = {path: plain(leaf, schema.read(options, path)) for path, leaf in LEAVES.items()}
    for option, value in found.items():
        longest = getattr(Proxy.column(COLUMNS[option]), "max_length", None)
        if longest and len(value) > longest:
            raise ValueError(f"expected at most {longest} characters at {path}.{option}")
    return {
        option: value for option, value in found.items() if value != default_of(option)
    }, reader.unknown


def plain(leaf: schema.Leaf, value: Any) -> Any:
    """Return an option's value as a file has it; of transforms only what they have."""
    if leaf.kind == "objects":
        return [_plain_transform(item) for item in value]
    return rendering.plain(leaf.kind, value)


def _plain_transform(item: StatusToCodeTransform) -> dict[str, Any]:
    error, disconnect = item.to_error, item.to_disconnect
    plain: dict[str, Any] = {"status_code": item.status_code}
    if error.code:
        plain["to_error"] = {
            "code": error.code,
            "message": error.message,
            "temporary": error.temporary,
        }
    if disconnect.code:
        plain["to_disconnect"] = {"code": disconnect.code, "reason": disconnect.reason}
    return plain


def _to_file(path: str, value: Any) -> Any:
    kind = LEAVES[path].kind
    return value if kind in ("objects", "strings") else rendering.plain(kind, value)


def _to_column(path: str, value: Any) -> Any:
    match LEAVES[path].kind:
        case "duration":
            return parse_duration(value)
        case "string_map":
            return {item["key"]: item["value"] for item in value}
    return value


# --- what may be told ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hidden:
    """A value that is compared and never shown; ``shown`` stands for it."""

    value: Any
    shown: Any


def told_settings_of(row: Proxy) -> dict[str, Any]:
    """Return all options of a row for a record of changes, those hidden that may hold secrets."""
    return hide(all_settings_of(row))


def hide(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Hide secrets among settings: keys, credentials, and the values of headers and metadata."""
    return {
        path: Hidden(value, _hidden(path, value)) if LEAVES[path].is_secret and value else value
        for path, value in settings.items()
    }


MASK = "********"
"""What stands for a secret in a form or a record; also a value that nobody would choose."""


def _hidden(path: str, value: Any) -> Any:
    if LEAVES[path].kind == "string_map":
        return [f"{item['key']}: {shown_value(item['value'])}" for item in value]
    return MASK


def shown_value(text: str) -> str:
    """Mask a header's value, unless it has a reference in place of a secret."""
    return text if values.VARIABLE.search(text) else MASK


def named_options(rows: Iterable[Proxy]) -> dict[str, ProxyOptions]:
    """
    Return the options of rows by name, valid ones only.

    Raises:
        ConfigError: Some are not; the text names every problem.

    """
    found: dict[str, ProxyOptions] = {}
    problems: list[str] = []
    for row in rows:
        try:
            found[row.name] = options_of_row(row)
        except ConfigError as error:
            problems.append(str(error))
            continue
        problems += [
            f"proxies[{row.name}].{path}: {text}" for path, text in find_problems(found[row.name])
        ]
    if problems:
        raise ConfigError("; ".join(problems))
    return found
