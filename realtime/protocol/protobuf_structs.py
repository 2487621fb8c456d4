"""
Structs as Protobuf, by the descriptors that ``generate.sh`` makes of a schema.

A ``StructCodec`` joins a generated module and the module of structs that stand for its messages: one converter per pair
is made, when it is first asked for, from the descriptors, so that a field added to both needs no code here. Reading
goes through the Protobuf library, which knows what the format allows (any order, repeats, unknown fields, limits of depth).
Writing goes straight from a struct to bytes in the order of field numbers, which are the bytes that the library would write.

Fields of the schema that a struct doesn't have are neither read nor written.
"""

from __future__ import annotations

import struct as binary
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from itertools import compress
from operator import attrgetter
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar, cast

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from msgspec import Raw

from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import EMPTY


T = TypeVar("T", bound=msgspec.Struct)

Encoder = Callable[[Any], bytes]
Decoder = Callable[[Any], msgspec.Struct]
# From the library's message, and what its attribute holds, to the struct's value.
Reader = Callable[[Any, Any], Any]

FIXED64 = 1
LENGTH_DELIMITED = 2

_INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63),
    FieldDescriptor.TYPE_UINT32: (0, 2**32),
    FieldDescriptor.TYPE_UINT64: (0, 2**64),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63),
}
# A varint has at most ten bytes: 64 bits, seven a byte.
_LONGEST_VARINT = 10
BYTES = tuple(bytes((value,)) for value in range(256))


class StructCodec:
    """
    Converts between structs and the messages of one schema.

    Args:
        schema: The generated module.
        structs: The module that has the structs, by the names of their messages.
        struct_names: Where a struct is named otherwise, by the message's name.
        field_names: Where a struct's field is named otherwise, by the field's name.

    """

    def __init__(
        self,
        schema: ModuleType,
        structs: ModuleType,
        *,
        struct_names: Mapping[str, str] = MappingProxyType({}),
        field_names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._schema = schema
        self._structs = structs
        self._struct_names = struct_names
        self._field_names = field_names
        self._encoders: dict[str, Encoder] = {}
        self._decoders: dict[str, Decoder] = {}

    @property
    def messages(self) -> Mapping[str, Descriptor]:
        """The schema's messages by name."""
        return cast("Mapping[str, Descriptor]", self._schema.DESCRIPTOR.message_types_by_name)

    def struct_of(self, descriptor: Descriptor) -> type[msgspec.Struct]:
        """Return the struct that stands for a message."""
        name = self._struct_names.get(descriptor.name, descriptor.name)
        return cast("type[msgspec.Struct]", getattr(self._structs, name))

    def parser(self, name: str) -> Callable[[bytes], Message]:
        """Return what reads bytes into the library's message; it raises ``DecodeError``."""
        return cast("Callable[[bytes], Message]", getattr(self._schema, name).FromString)

    def bytes_decoder(self, name: str) -> Callable[[bytes], msgspec.Struct]:
        """Return what turns a message's bytes into a struct; it raises ``MalformedFrame``."""
        parse, convert = self.parser(name), self.decoder(self.messages[name])

        def decode(data: bytes) -> msgspec.Struct:
            try:
                return convert(parse(data))
            except DecodeError as error:
                raise MalformedFrame from error

        return decode

    def encoder(self, descriptor: Descriptor) -> Encoder:
        """
        Return (making it once) what turns a struct into this message's bytes.

        It raises ``ValueError`` for an integer out of its field's range and for a text that cannot be UTF-8.
        """
        encoder = self._encoders.get(descriptor.name)
        if encoder is not None:
            return encoder
        names = set(self.struct_of(descriptor).__struct_fields__)
        fields = sorted(
            (field for field in descriptor.fields if self._name_of(field) in names),
            key=lambda field: field.number,
        )
        get_values = _getter([self._name_of(field) for field in fields])
        writers: tuple[Encoder, ...] = ()

        def encode(message: msgspec.Struct) -> bytes:
            # What is false is the field's default: zero, empty, absent.
            values = get_values(message)
            return b"".join(
                [
                    write(value)
                    for write, value in compress(zip(writers, values, strict=True), values)
                ]
            )

        # Known before its fields' encoders are made: a filter node holds filter nodes.
        self._encoders[descriptor.name] = encode
        writers = tuple(self._field_writer(field) for field in fields)
        return encode

    def decoder(self, descriptor: Descriptor) -> Decoder:
        """Return (making it once) what turns the library's message into a struct."""
        decoder = self._decoders.get(descriptor.name)
        if decoder is not None:
            return decoder
        struct = self.struct_of(descriptor)
        fields = {self._name_of(field): field for field in descriptor.fields}
        names = struct.__struct_fields__
        get_values = _getter([fields[name].name for name in names])
        make = _maker(struct)
        readers: list[tuple[int, Reader]] = []

        def decode(message: Message) -> msgspec.Struct:
            values = [*get_values(message)]
            for index, read in readers:
                values[index] = read(message, values[index])
            return make(*values)

        self._decoders[descriptor.name] = decode
        nothing_is_none = {
            field.name for field in msgspec.structs.fields(struct) if field.default is None
        }
        for index, name in enumerate(names):
            reader = self._field_reader(fields[name], nothing_is_none=name in nothing_is_none)
            if reader is not None:
                readers.append((index, reader))
        return decode

    def _name_of(self, field: FieldDescriptor) -> str:
        """Return what the struct calls a field."""
        return self._field_names.get(field.name, field.name)

    # --- writing ------------------------------------------------------------------------------

    def _field_writer(self, field: FieldDescriptor) -> Encoder:
        """Return what writes a field's value, its tag included; it is not called for defaults."""
        if field.is_repeated:
            if is_map(field):
                return self._map_writer(field)
            write_item = self._value_writer(field)
            return lambda items: b"".join([write_item(item) for item in items])
        return self._value_writer(field)

    def _value_writer(self, field: FieldDescriptor) -> Encoder:
        """Return what writes one value, be it the default or not."""
        kind = field.type
        if kind == FieldDescriptor.TYPE_STRING:
            return _delimited_writer(field.number, str.encode)
        if kind == FieldDescriptor.TYPE_BYTES:
            return _delimited_writer(field.number, bytes)
        if kind == FieldDescriptor.TYPE_MESSAGE:
            return _delimited_writer(field.number, self.encoder(message_of(field)))
        if kind == FieldDescriptor.TYPE_DOUBLE:
            tag = varint(field.number << 3 | FIXED64)
            return lambda value: tag + binary.pack("<d", value)
        tag = varint(field.number << 3)
        if kind == FieldDescriptor.TYPE_BOOL:
            yes, no = tag + b"\x01", tag + b"\x00"
            return lambda value: yes if value else no
        return _integer_writer(tag, field)

    def _map_writer(self, field: FieldDescriptor) -> Encoder:
        """Return what writes a map: one message per entry, key and value written even when empty."""
        tag = varint(field.number << 3 | LENGTH_DELIMITED)
        write_key = self._value_writer(message_of(field).fields_by_name["key"])
        write_value = self._value_writer(message_of(field).fields_by_name["value"])

        def write_map(entries: dict[str, Any]) -> bytes:
            return b"".join(
                [
                    tag + delimit(write_key(key) + write_value(value))
                    for key, value in entries.items()
                ]
            )

        return write_map

    # --- reading ------------------------------------------------------------------------------

    def _field_reader(self, field: FieldDescriptor, *, nothing_is_none: bool) -> Reader | None:
        """Return what turns a field's value into the struct's, or ``None`` where it already is."""
        if field.is_repeated:
            read = self._map_reader(field) if is_map(field) else self._list_reader(field)
            if nothing_is_none:
                return lambda _, values: read(values) if values else None
            return lambda _, values: read(values)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            name, decode = field.name, self.decoder(message_of(field))
            return lambda message, value: decode(value) if message.HasField(name) else None
        if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda _, value: Raw(value) if value else EMPTY
        return None

    def _list_reader(self, field: FieldDescriptor) -> Callable[[Any], list[Any]]:
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            return list
        decode = self.decoder(message_of(field))
        return lambda values: [decode(value) for value in values]

    def _map_reader(self, field: FieldDescriptor) -> Callable[[Any], dict[str, Any]]:
        value_field = message_of(field).fields_by_name["value"]
        if value_field.type != FieldDescriptor.TYPE_MESSAGE:
            return dict
        decode = self.decoder(message_of(value_field))
        return lambda values: {key: decode(value) for key, value in values.items()}


# --- parts ----------------------------------------------------------------------------------------


def message_of(field: FieldDescriptor) -> Descriptor:
    """Return the message type of a field that has one."""
    return cast(Descriptor, field.message_type)


def is_map(field: FieldDescriptor) -> bool:
    """Say whether a repeated field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def delimit(message: bytes) -> bytes:
    """Put a message's length before it; the results of several may simply be joined."""
    return varint(len(message)) + message


def varint(value: int) -> bytes:
    """Encode a number of up to 64 bits, seven a byte."""
    if value < 0x80:
        return BYTES[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a varint, which may exceed 64 bits, and where it ends; raises ``MalformedFrame``."""
    value = 0
    for index, byte in enumerate(data[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    message = "bad varint"
    raise MalformedFrame(message)


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads these attributes at once (``attrgetter`` does, for two and more)."""
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _: ()
    get = attrgetter(names[0])
    return lambda message: (get(message),)


def _maker(struct: type[msgspec.Struct]) -> Callable[..., msgspec.Struct]:
    """Return what makes a struct of its fields' values in their order."""
    parameters = signature(struct).parameters
    if all(parameter.kind is not Parameter.KEYWORD_ONLY for parameter in parameters.values()):
        return struct
    names = struct.__struct_fields__
    return lambda *values: struct(**dict(zip(names, values, strict=True)))


def _delimited_writer(number: int, to_bytes: Encoder) -> Encoder:
    tag = varint(number << 3 | LENGTH_DELIMITED)

    def write_delimited(value: Any) -> bytes:
        data = to_bytes(value)
        size = len(data)
        return tag + (BYTES[size] if size < 0x80 else varint(size)) + data

    return write_delimited


def _integer_writer(tag: bytes, field: FieldDescriptor) -> Encoder:
    low, high = _INTEGER_RANGES[field.type]
    is_zigzag = field.type == FieldDescriptor.TYPE_SINT64

    def write_integer(value: int) -> bytes:
        if not low <= value < high:
            message = f"{field.full_name}: {value} is not in [{low}, {high})"
            raise ValueError(message)
        if is_zigzag:
            return tag + varint(value << 1 if value >= 0 else ~(value << 1))
        return tag + varint(value if value >= 0 else value + 2**64)

    return write_integer
