"""
Read JSON as Go reads it, for messages that the fast decoder refused.

Field names match in any case (an exact match wins), unknown fields are left out, ``null`` is the same as absent
(but for payloads, where it is the four bytes ``null``). What is left is as strict as the fast decoder: a wrong
type is an error.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, inspect


T = TypeVar("T")

_object = msgspec.json.Decoder(dict[str, Raw])
_array = msgspec.json.Decoder(list[Raw])


def decode_leniently(message_type: type[T], text: bytes) -> T:
    """
    Decode one JSON object into a ``msgspec.Struct`` type.

    Raises:
        msgspec.MsgspecError: Malformed JSON, a value of the wrong type, or a required field that is missing.
        UnicodeDecodeError: A string is not UTF-8.

    """
    value: T = _convert(_type_info(message_type), text)
    return value


@functools.cache
def _type_info(message_type: type[Any]) -> inspect.Type:
    return inspect.type_info(message_type)


@functools.cache
def _fields(struct: type[Any]) -> dict[str, inspect.Field]:
    info = _type_info(struct)
    assert isinstance(info, inspect.StructType)
    by_name = {field.encode_name.lower(): field for field in info.fields}
    by_name.update({field.encode_name: field for field in info.fields})
    return by_name


def _convert(info: inspect.Type, text: bytes | Raw) -> Any:
    if isinstance(info, inspect.RawType):
        return Raw(bytes(text))
    if isinstance(info, inspect.UnionType):
        (info,) = (option for option in info.types if not isinstance(option, inspect.NoneType))
        return _convert(info, text)
    if isinstance(info, inspect.StructType):
        return _convert_struct(info.cls, text)
    if isinstance(info, inspect.DictType):
        members = _object.decode(text).items()
        return {name: _convert(info.value_type, member) for name, member in members}
    if isinstance(info, inspect.ListType):
        return [_convert(info.item_type, member) for member in _array.decode(text)]
    return msgspec.json.decode(text, type=_SCALARS[type(info)])


def _convert_struct(struct: type[Any], text: bytes | Raw) -> Any:
    if bytes(text).strip() == b"null":
        return struct()
    fields = _fields(struct)
    found: dict[str, Any] = {}
    exact: set[str] = set()
    for name, member in _object.decode(text).items():
        field = fields.get(name) or fields.get(name.lower())
        if field is None or (field.name in exact and name != field.encode_name):
            continue
        if name == field.encode_name:
            exact.add(field.name)
        if bytes(member) == b"null" and not isinstance(field.type, inspect.RawType):
            continue
        found[field.name] = _convert(field.type, member)
    try:
        return struct(**found)
    except TypeError as error:
        raise msgspec.ValidationError(str(error)) from error


_SCALARS: dict[type[inspect.Type], type[Any]] = {
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
    inspect.BoolType: bool,
}
