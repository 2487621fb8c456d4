"""Random messages of the client protocol, made from the structs' own types."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
from google.protobuf.descriptor import FieldDescriptor
from msgspec import inspect

from realtime.protocol import client_pb2, messages
from realtime.protocol.messages import payload


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
PAYLOADS = st.binary(max_size=200).map(payload)
_MESSAGE_NAMES = {"MessagePush": "Message", "DisconnectPush": "Disconnect"}
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
}

MESSAGE_TYPES: list[type[msgspec.Struct]] = [
    value
    for name, value in vars(messages).items()
    if isinstance(value, type)
    and issubclass(value, msgspec.Struct)
    and value.__module__ == messages.__name__
    and not name.startswith("_")
]


def message_class(struct: type[msgspec.Struct]) -> Any:
    """Return the Protobuf library's class for a struct."""
    return getattr(client_pb2, _MESSAGE_NAMES.get(struct.__name__, struct.__name__))


def messages_of(struct: type[msgspec.Struct], depth: int = 3) -> st.SearchStrategy[Any]:
    """
    Draw any message of a type; what nests itself stops at ``depth``.

    Replies and pushes carry one payload, as those of the server do.
    """
    info = inspect.type_info(struct)
    fields = message_class(struct).DESCRIPTOR.fields_by_name
    drawn = {
        field.name: _values(field.type, fields[field.encode_name], depth) for field in info.fields
    }
    if struct not in (messages.Reply, messages.Push):
        return st.builds(struct, **drawn)
    shared = {name: drawn.pop(name) for name in ("id", "channel") if name in drawn}
    return st.builds(struct, **shared) | st.one_of(
        [st.builds(struct, **shared, **{name: values}) for name, values in drawn.items()]
    )


def _values(kind: inspect.Type, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.UnionType(types=types):
            (inner,) = (each for each in types if not isinstance(each, inspect.NoneType))
            if depth == 0 and isinstance(inner, inspect.StructType):
                return st.none()
            values = _values(inner, field, depth)
            if isinstance(inner, inspect.DictType):
                # On the wire an empty map is an absent one.
                values = values.filter(bool)
            return st.none() | values
        case inspect.StructType(cls=cls):
            return messages_of(cls, max(depth - 1, 0))
        case inspect.ListType(item_type=item):
            if depth == 0:
                return st.builds(list)
            return st.lists(_values(item, field, depth), max_size=3)
        case inspect.DictType(value_type=value):
            value_field = field.message_type.fields_by_name["value"]
            return st.dictionaries(TEXT, _values(value, value_field, depth), max_size=3)
        case inspect.IntType():
            low, high = _RANGES[field.type]
            small = st.integers(0, 300)
            return small | st.integers(low, high) | st.sampled_from([low, high])
        case inspect.BoolType():
            return st.booleans()
        case inspect.StrType():
            return TEXT
        case inspect.RawType():
            return PAYLOADS
    raise AssertionError(kind)
