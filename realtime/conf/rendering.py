"""
Process options written out again: as a configuration file, as environment variables.

What is printed reads back as the same options, here and by Centrifugo, which refuses only what is Tidewire's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from realtime.conf import schema
from realtime.conf.durations import format_duration
from realtime.conf.options import Options, ProcessOptions, ProxyOptions
from realtime.conf.sources import DATABASE_KEYS
from realtime.namespaces.options import ChannelOptions


FORMATS = {".json": "json", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
"""File name endings and what is written for them."""

_DURATIONS = ("duration", "whole_seconds")


def document(options: ProcessOptions) -> dict[str, Any]:
    """
    Write all options as nested objects, in the forms of a configuration file.

    Keys of the database (``sources.DATABASE_KEYS``) are there too, empty or with their defaults: a full file
    has them.
    """
    content = struct(options)
    content["channel"]["without_namespace"] = _channel_options(ChannelOptions())
    content["channel"]["namespaces"] = []
    content["rpc"]["without_namespace"] = {"proxy_enabled": False, "proxy_name": "default"}
    content["rpc"]["namespaces"] = []
    content["proxies"] = []
    content["consumers"] = []
    return content


def lay_over(content: dict[str, Any], base: Mapping[Any, Any], prefix: str = "") -> None:
    """
    Put a base file's rows, which are no process options, into a document, in place.

    Channel and RPC namespaces and proxies get the defaults of what they leave out.

    Args:
        content: What ``document`` returned for the base file's options.
        base: The file as parsed.
        prefix: For the recursion.

    """
    for key, value in base.items():
        name = str(key).lower()
        path = f"{prefix}{name}"
        if path in DATABASE_KEYS:
            if path.endswith(".namespaces") and isinstance(value, list):
                content[name] = [_merged(content["without_namespace"], item) for item in value]
            elif path == "proxies" and isinstance(value, list):
                content[name] = [_merged(struct(ProxyOptions()), item) for item in value]
            elif value is not None:
                content[name] = _merged(content[name], value)
        elif isinstance(value, Mapping) and isinstance(content.get(name), dict):
            # Namespaces before without_namespace: nothing is inherited from it.
            lay_over(content[name], dict(sorted(value.items(), key=_rows_first)), f"{path}.")


def _rows_first(item: tuple[Any, Any]) -> bool:
    return str(item[0]).lower() != "namespaces"


def _merged(defaults: Any, value: Any) -> Any:
    if not isinstance(defaults, Mapping) or not isinstance(value, Mapping):
        return value
    merged = dict(defaults)
    for key, each in value.items():
        merged[str(key).lower()] = _merged(merged.get(str(key).lower()), each)
    return merged


def print_document(content: Mapping[str, Any], form: str) -> str:
    """
    Print nested objects.

    Args:
        content: Objects, lists, text, numbers and booleans; no nulls.
        form: ``json``, ``yaml`` or ``toml``.

    """
    if form == "yaml":
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return text
    if form == "toml":
        return "\n".join(_toml_table("", content)).lstrip("\n") + "\n"
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def environment_lines(options: ProcessOptions, paths: Iterator[str] | None = None) -> list[str]:
    """
    Write options as ``NAME="value"``, sorted by name.

    Args:
        options: Where the values come from.
        paths: Which options; without them all.

    """
    chosen = schema.leaves() if paths is None else list(paths)
    lines = []
    for path in chosen:
        leaf = schema.leaves()[path]
        text = _environment_text(leaf.kind, schema.read(options, path))
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines.append(f'{leaf.env_name}="{escaped}"')
    return sorted(lines)


def _environment_text(kind: str, value: Any) -> str:
    if kind in _DURATIONS:
        return format_duration(value)
    if kind == "bool":
        return "true" if value else "false"
    if kind in ("strings", "addresses"):
        return " ".join(value)
    if kind == "objects":
        return json.dumps([struct(item) for item in value], ensure_ascii=False)
    if kind == "string_map":
        return json.dumps(dict(value), ensure_ascii=False)
    return str(value)


def struct(options: Options) -> dict[str, Any]:
    """Write all options of a section as nested objects, in the forms of a configuration file."""
    content: dict[str, Any] = {}
    for leaf in schema.fields_of(type(options)):
        *parents, name = leaf.path.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = plain(leaf.kind, schema.read(options, leaf.path))
    return content


def plain(kind: str, value: Any) -> Any:
    """Write a value of an option of this kind as a file has it."""
    if kind in _DURATIONS:
        return format_duration(value)
    if kind in ("strings", "addresses"):
        return list(value)
    if kind == "objects":
        return [struct(item) for item in value]
    if kind == "string_map":
        # As a list: an object's keys would become lower case when they are read.
        return [{"key": key, "value": text} for key, text in value.items()]
    return value


def _channel_options(options: msgspec.Struct) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for item in msgspec.structs.fields(options):
        value = getattr(options, item.name)
        if isinstance(value, msgspec.Struct):
            content[item.name] = _channel_options(value)
        elif isinstance(value, float):
            content[item.name] = format_duration(value)  # all their floats are seconds
        elif isinstance(value, tuple):
            content[item.name] = list(value)
        else:
            content[item.name] = value
    return content


def _toml_table(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Print plain values first: in TOML a sub-table's header ends the table above it."""
    for key, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{_toml_key(key)} = {toml_value(value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = f"{path}.{_toml_key(key)}" if path else _toml_key(key)
            yield from ("", f"[{inner}]", *_toml_table(inner, value))


def _toml_key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
    return key if is_bare else toml_value(key)


def toml_value(value: Any) -> str:
    """Write one value as TOML; objects stand in one line."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_toml_key(key)} = {toml_value(each)}" for key, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(toml_value(each) for each in value)}]"
    # JSON's scalars are TOML's, but that TOML wants DEL escaped, too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
