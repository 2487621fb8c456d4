"""
Go's rules of reading JSON, as a rewrite of the text.

The reference decodes with Go's ``encoding/json``, which is laxer than ours about names and nulls: a name matches in
any letter case (an exact match first), unknown names and nulls are skipped, a ``null`` in a list or map of strings
is an empty string, a repeated name counts again. ``normalise`` rewrites a message so that a strict decoder reads
what Go would have read; which types are right stays the strict decoder's business. It is slow, and only for what the
strict decoder has refused.

Payloads keep their text, with two exceptions that make them safe to pass on: bytes that are not UTF-8 and escapes
of half a surrogate pair become U+FFFD, as they do in Go's strings. A text frame with such bytes would make every
subscriber's browser close its connection.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any, cast

import msgspec
from msgspec import inspect


_BLANK = " \t\n\r"
# An escape is taken as a whole, so that the second half of "\\ud800" (an escaped backslash) is not seen as one.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class MalformedJson(ValueError):  # noqa: N818 -- said of the input, not of us
    """The text is not JSON."""


def _refuse(constant: str) -> None:
    raise MalformedJson(constant)


def _skip_number(_digits: str) -> None:
    """Keep Python from computing numbers that nobody will look at (and from its limit on their length)."""


_scanner = json.JSONDecoder(
    parse_int=_skip_number, parse_float=_skip_number, parse_constant=_refuse
)


def mend(text: bytes) -> bytes:
    """Replace what is not UTF-8, and escapes of half a surrogate pair, by U+FFFD."""
    if not text.isascii():
        text = text.decode(errors="replace").encode()
    if b"\\u" not in text:
        return text
    return _ESCAPE.sub(lambda match: b"\\ufffd" if match[1] else match[0], text)


def split_values(text: bytes) -> list[bytes]:
    """
    Cut a stream of JSON values, with or without white space between them, into the values.

    Raises:
        MalformedJson: A value is malformed or the last one is cut short.

    """
    # Latin-1 maps bytes to characters one to one, and everything that structures JSON is ASCII.
    characters = text.decode("latin-1")
    values = []
    position = _skip_blank(characters, 0)
    while position < len(characters):
        end = _end_of_value(characters, position)
        values.append(text[position:end])
        position = _skip_blank(characters, end)
    return values


def normalise(message_type: type[msgspec.Struct], text: bytes) -> bytes:
    """
    Rewrite ``text`` with the fields' exact names, without unknown names and nulls.

    Args:
        message_type: What the caller will decode the result into.
        text: One JSON value; ``null`` gives an empty object.

    Raises:
        MalformedJson: It is not one JSON value, or nested too deeply.

    """
    text = mend(text)
    try:
        values = split_values(text)
        if len(values) != 1:
            raise MalformedJson(f"expected one value, found {len(values)}")
        return _rewrite(_info(message_type), values[0])
    except RecursionError as error:
        raise MalformedJson("nested too deeply") from error


def _skip_blank(characters: str, position: int) -> int:
    while position < len(characters) and characters[position] in _BLANK:
        position += 1
    return position


def _end_of_value(characters: str, position: int) -> int:
    try:
        _value, end = _scanner.raw_decode(characters, position)
    except json.JSONDecodeError as error:
        raise MalformedJson(error.msg) from error
    except StopIteration as error:
        raise MalformedJson("expected a value") from error
    return end


def _members(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield names and values of an object that is known to be well-formed, in the order of the text."""
    characters = text.decode("latin-1")
    position = _skip_blank(characters, 1)
    while characters[position] != "}":
        end = _end_of_value(characters, position)
        name = json.loads(text[position:end])
        position = _skip_blank(characters, _skip_blank(characters, end) + 1)
        end = _end_of_value(characters, position)
        yield name, text[position:end]
        position = _skip_blank(characters, end)
        if characters[position] == ",":
            position = _skip_blank(characters, position + 1)


def _items(text: bytes) -> Iterator[bytes]:
    """Yield the values of an array that is known to be well-formed."""
    characters = text.decode("latin-1")
    position = _skip_blank(characters, 1)
    while characters[position] != "]":
        end = _end_of_value(characters, position)
        yield text[position:end]
        position = _skip_blank(characters, end)
        if characters[position] == ",":
            position = _skip_blank(characters, position + 1)


def _rewrite(info: inspect.Type, text: bytes) -> bytes:
    """Rewrite one value of the given type; one that is of another type is left for the decoder to refuse."""
    if isinstance(info, inspect.UnionType):
        if text == b"null":
            return text
        (info,) = (kind for kind in info.types if not isinstance(kind, inspect.NoneType))
    if text == b"null":
        return _NULLS.get(type(info), text)
    first = text[:1]
    if isinstance(info, inspect.StructType) and first == b"{":
        return _rewrite_struct(info.cls, text)
    if isinstance(info, inspect.DictType) and first == b"{":
        members = (
            msgspec.json.encode(name) + b":" + _rewrite(info.value_type, value)
            for name, value in _members(text)
        )
        return b"{" + b",".join(members) + b"}"
    if isinstance(info, inspect.ListType) and first == b"[":
        return b"[" + b",".join(_rewrite(info.item_type, item) for item in _items(text)) + b"]"
    return text


def _rewrite_struct(struct: type[Any], text: bytes) -> bytes:
    fields = _fields(struct)  # type: ignore[arg-type]  # mypy doesn't see that a metaclass hashes
    members = []
    for name, value in _members(text):
        field = fields.get(name) or fields.get(_fold(name))
        if field is None or (value == b"null" and not isinstance(field.type, inspect.RawType)):
            continue
        members.append(b'"%b":%b' % (field.encode_name.encode(), _rewrite(field.type, value)))
    return b"{" + b",".join(members) + b"}"


@functools.cache
def _info(struct: type[Any]) -> inspect.Type:
    return inspect.type_info(struct)


@functools.cache
def _fields(struct: type[Any]) -> dict[str, inspect.Field]:
    info = cast("inspect.StructType", inspect.type_info(struct))
    return {field.encode_name: field for field in info.fields}


def _fold(name: str) -> str:
    """Fold letter case; besides ASCII, two letters fold to ASCII ones: the long s and the Kelvin sign."""
    return name.replace("\u017f", "s").lower()


# Go leaves a value at its zero when it meets null; a payload is the one kind that keeps it.
_NULLS: dict[type[inspect.Type], bytes] = {
    inspect.StrType: b'""',
    inspect.IntType: b"0",
    inspect.FloatType: b"0",
    inspect.BoolType: b"false",
    inspect.StructType: b"{}",
    inspect.DictType: b"{}",
    inspect.ListType: b"[]",
}
