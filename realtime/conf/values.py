"""
One value of one option: from what a source holds to what ``ProcessOptions`` holds.

Text is understood everywhere in the forms that the environment has (``"8000"``, ``"true"``, ``"25s"``), since
Centrifugo's files may have it so; what only the environment has (lists by blanks, JSON) is asked for by
``is_text``. Errors are ``ValueError`` with a sentence; the caller adds the path and the source. A secret's value is
never part of the sentence.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realtime.conf import schema
from realtime.conf.durations import parse_duration
from realtime.conf.options import Options


TRUE_WORDS = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE_WORDS = frozenset({"0", "f", "F", "FALSE", "false", "False"})

VARIABLE = re.compile(r"\$\{((?:TIDEWIRE|CENTRIFUGO)_VAR_[^}]+)\}")
_PEM_MARK = "-----BEGIN "


@dataclass(slots=True)
class Reader:
    """
    Converts values; remembers unknown keys inside of lists of objects.

    Attributes:
        environ: For ``${TIDEWIRE_VAR_NAME}`` in maps.
        is_text: The value comes from the environment or a flag.
        unknown: Dotted paths found, such as ``client.x.transforms.[0].zz``.

    """

    environ: Mapping[str, str]
    is_text: bool = False
    unknown: list[str] = field(default_factory=list)

    def convert(self, leaf: schema.Leaf, raw: object) -> Any:
        """
        Convert one value.

        Raises:
            ValueError: It is of the wrong type or form.

        """
        if leaf.kind == "string_map":
            return self._string_map(raw)
        if leaf.kind == "objects":
            return self._objects(leaf, raw)
        if leaf.kind in ("strings", "addresses"):
            return self._strings(leaf, raw)
        return _SCALARS[leaf.kind](leaf, raw)

    def _strings(self, leaf: schema.Leaf, raw: object) -> tuple[str, ...]:
        if self.is_text and isinstance(raw, str):
            return tuple(raw.split())
        if isinstance(raw, str) and leaf.kind == "addresses":
            return (raw,) if raw else ()
        if not isinstance(raw, list | tuple) or not all(isinstance(item, str) for item in raw):
            raise ValueError(f"expected a list of strings, got {_shown(leaf, raw)}")
        return tuple(raw)

    def _string_map(self, raw: object) -> dict[str, str]:
        found: dict[str, str] = {}
        is_json = self.is_text and isinstance(raw, str)
        value = _from_json(raw) if is_json else raw
        if isinstance(value, Mapping):
            # A file's keys are not case-sensitive, a JSON text's are: so the other server has it.
            pairs = [
                (str(key) if is_json else str(key).lower(), each) for key, each in value.items()
            ]
        elif isinstance(value, list | tuple):
            pairs = [_key_and_value(number, item) for number, item in enumerate(value)]
        else:
            raise ValueError("expected an object of strings, or a list of {key, value}")
        for key, each in pairs:
            if key in found:
                raise ValueError(f'the key "{key}" is there twice')
            if not isinstance(each, str):
                raise ValueError(f'expected a string for the key "{key}"')
            found[key] = self._expand(each)
        return found

    def _expand(self, text: str) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[1] not in self.environ:
                raise ValueError(f"the environment variable {match[1]} is not set")
            return self.environ[match[1]]

        return VARIABLE.sub(replace, text)

    def _objects(self, leaf: schema.Leaf, raw: object) -> tuple[Options, ...]:
        value = _from_json(raw) if self.is_text and isinstance(raw, str) else raw
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list of objects, got {_shown(leaf, value)}")
        assert leaf.item is not None
        # What is inside of the JSON is typed as in a file.
        inner = Reader(self.environ, is_text=False, unknown=self.unknown)
        return tuple(
            inner.convert_object(leaf.item, item, f"{leaf.path}.[{number}]")
            for number, item in enumerate(value)
        )

    def convert_object(
        self, struct: type[schema.OptionsT], raw: object, path: str
    ) -> schema.OptionsT:
        """
        Convert an object that is not a section, such as an element of a list.

        Args:
            struct: What to make.
            raw: What the source holds.
            path: For unknown keys and errors.

        """
        if not isinstance(raw, Mapping):
            raise ValueError(f"expected an object at {path}, got {_type_name(raw)}")
        known = {leaf.path: leaf for leaf in schema.fields_of(struct)}
        values: dict[str, Any] = {}
        for key, each in flatten(raw, known):
            leaf = known.get(key)
            if leaf is None:
                self.unknown.append(f"{path}.{key}")
            elif each is not None:
                try:
                    values[key] = self.convert(leaf, each)
                except ValueError as error:
                    raise ValueError(f"{error} at {path}.{key}") from None
        return schema.build_struct(struct, values)


def flatten(
    raw: Mapping[Any, object],
    known: Iterable[str],
    *,
    fold: Callable[[str], str] = str.lower,
) -> list[tuple[str, object]]:
    """
    List the values of nested objects by dotted path; goes no deeper than the known paths do.

    Args:
        raw: Nested objects.
        known: The paths of leaves; an object at a path above one of them is walked into.
        fold: Makes keys alike; the keys of files are not case-sensitive.

    """
    sections = {path[:end] for path in known for end, letter in enumerate(path) if letter == "."}

    def walk(inner: Mapping[Any, object], prefix: str) -> Iterator[tuple[str, object]]:
        for key, value in inner.items():
            path = f"{prefix}{fold(str(key))}"
            if path in sections and isinstance(value, Mapping):
                yield from walk(value, f"{path}.")
            else:
                yield path, value

    return list(walk(raw, ""))


def load_pem(value: str) -> str:
    """
    Find the PEM text that a value means.

    Args:
        value: PEM text, base64 of PEM text, or the path of a file, tried in this order.

    Raises:
        ValueError: It is none of them.

    """
    if _PEM_MARK in value:
        return value
    try:
        decoded = base64.b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        decoded = ""
    if _PEM_MARK in decoded:
        return decoded
    try:
        content = Path(value).read_text("ascii")
    except (OSError, ValueError):
        # The value is not repeated: it may be a key that lost its first line.
        raise ValueError(
            "expected PEM text, base64 of PEM or the path of a readable file"
        ) from None
    if _PEM_MARK not in content:
        raise ValueError(f"the file {value} has no PEM in it")
    return content


def _bool(leaf: schema.Leaf, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw in TRUE_WORDS:
        return True
    if isinstance(raw, str) and raw in FALSE_WORDS:
        return False
    raise ValueError(f"expected true or false, got {_shown(leaf, raw)}")


def _int(leaf: schema.Leaf, raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", raw):
        return int(raw)
    raise ValueError(f"expected a whole number, got {_shown(leaf, raw)}")


def _str(leaf: schema.Leaf, raw: object) -> str:
    if isinstance(raw, str):
        return raw
    hint = ": put it in quotes" if isinstance(raw, int | float) else ""
    raise ValueError(f"expected a string, got {_shown(leaf, raw)}{hint}")


def _duration(leaf: schema.Leaf, raw: object) -> float:
    seconds = parse_duration(raw)
    may_be_off = leaf.path.endswith(("cleanup_interval", "ping_interval", "pong_timeout"))
    if seconds < 0 and not may_be_off:
        raise ValueError(f"expected a duration of 0 or more, got {_shown(leaf, raw)}")
    return seconds


def _whole_seconds(leaf: schema.Leaf, raw: object) -> float:
    seconds = _duration(leaf, raw)
    if seconds % 1:
        raise ValueError(f"expected whole seconds, got {_shown(leaf, raw)}")
    return seconds


def _port_text(leaf: schema.Leaf, raw: object) -> str:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    if isinstance(raw, str) and re.fullmatch(r"[0-9]{0,5}", raw):
        return raw
    raise ValueError(f"expected a port number, got {_shown(leaf, raw)}")


def _url_prefix(leaf: schema.Leaf, raw: object) -> str:
    prefix = _str(leaf, raw)
    if prefix and not prefix.startswith("/"):
        raise ValueError(f"expected a path that begins with /, got {_shown(leaf, raw)}")
    return prefix.rstrip("/")


_SCALARS: Mapping[str, Callable[[schema.Leaf, object], Any]] = {
    "bool": _bool,
    "int": _int,
    "str": _str,
    "pem": _str,  # resolved once it is known whether the section is on
    "duration": _duration,
    "whole_seconds": _whole_seconds,
    "port_text": _port_text,
    "url_prefix": _url_prefix,
}


def _from_json(raw: object) -> object:
    try:
        return json.loads(str(raw))
    except ValueError:
        raise ValueError("expected JSON, got text that is not") from None


def _key_and_value(number: int, item: object) -> tuple[str, object]:
    if not isinstance(item, Mapping) or not isinstance(item.get("key"), str):
        raise ValueError(f"expected {{key, value}} at element {number}")
    return item["key"], item.get("value")


def _shown(leaf: schema.Leaf, raw: object) -> str:
    """Name what was given; the value itself only where it is short and no secret."""
    if leaf.is_secret or not isinstance(raw, str | int | float) or len(str(raw)) > 60:
        return _type_name(raw)
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, str):
        return f'"{raw}"'
    return f"the number {raw}"


def _type_name(raw: object) -> str:
    if raw is None:
        return "nothing"
    if isinstance(raw, bool):
        return "a boolean"
    if isinstance(raw, int | float):
        return "a number"
    if isinstance(raw, str):
        return "a string"
    if isinstance(raw, Mapping):
        return "an object"
    if isinstance(raw, list | tuple):
        return "a list"
    return f"a {type(raw).__name__}"
