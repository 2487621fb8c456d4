"""
Client protocol messages as Protobuf.

One converter per pair of struct and message type is made at import from the descriptors of ``client.proto``: a field
added there and to the struct needs no code here. Reading goes through the Protobuf library, which knows what
the format allows (any order, repeats, unknown fields, limits of depth). Writing goes straight from a struct to
bytes in the order of field numbers, which are the bytes that the library would write; only publications, of which there
are many more than of anything else, have code of their own.

Fields of the schema that a struct doesn't have (``Publication.time``) are neither read nor written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import compress
from operator import attrgetter
from typing import Any, TypeVar, cast

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from msgspec import Raw

from realtime.protocol import client_pb2, messages
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import (
    Command,
    ConnectRequest,
    EmulationRequest,
    Publication,
    Push,
    Reply,
)


T = TypeVar("T", bound=msgspec.Struct)

# Where a struct is named otherwise than its message.
_STRUCT_NAMES = {
    "Message": "MessagePush",
    "Disconnect": "DisconnectPush",
    "Connect": "ConnectResult",
}
_FIELD_NAMES = {"dict": "dictionary"}

_LENGTH_DELIMITED = 2
_INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63),
    FieldDescriptor.TYPE_UINT32: (0, 2**32),
    FieldDescriptor.TYPE_UINT64: (0, 2**64),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63),
}
# A varint has at most ten bytes: 64 bits, seven a byte.
_LONGEST_VARINT = 10
_BYTES = tuple(bytes((value,)) for value in range(256))


# --- frames -------------------------------------------------------------------------------------------


def decode_commands(frame: bytes) -> Iterator[Command]:
    """
    Yield the commands of a frame of length-delimited messages.

    They come one by one, so that those before a malformed one are carried out.

    Raises:
        MalformedFrame: The frame is empty or ends within a message, or a message cannot be read.

    """
    if not frame:
        message = "empty frame"
        raise MalformedFrame(message)
    position, end = 0, len(frame)
    while position < end:
        size = frame[position]
        position += 1
        if size >= 0x80:
            size, position = _read_varint(frame, position - 1)
        begin, position = position, position + size
        if position > end:
            message = f"message of {size} bytes, {end - begin} left"
            raise MalformedFrame(message)
        yield _decode_command(frame[begin:position])


def decode_connect_request(data: bytes) -> ConnectRequest:
    """Read what a unidirectional client sends first; raises ``MalformedFrame``."""
    return decode_message(ConnectRequest, data)


def decode_emulation_request(data: bytes) -> EmulationRequest:
    """Read the envelope of client-to-server commands; raises ``MalformedFrame``."""
    return decode_message(EmulationRequest, data)


def encode_reply(reply: Reply) -> bytes:
    """Encode a reply, or a push in its reply, without its length; an empty one, no bytes at all, is a ping."""
    push = reply.push
    if push is None or reply.id:
        return _encode_reply(reply)
    data = encode_push(push)
    size = len(data)
    # 0x22 is the tag of a reply's push.
    return b"\x22" + (_BYTES[size] if size < 0x80 else _varint(size)) + data


def encode_push(push: Push) -> bytes:
    """Encode a push for a unidirectional connection, without its length; it carries one payload."""
    publication = push.pub
    if publication is None or push.id:
        return _encode_push(push)
    channel, data = push.channel.encode(), _encode_publication(publication)
    # 0x12 and 0x22 are the tags of a push's channel and publication.
    return b"".join(
        (b"\x12", _varint(len(channel)), channel, b"\x22", _varint(len(data)), data)
        if channel
        else (b"\x22", _varint(len(data)), data)
    )


def publication_head(channel: str) -> bytes:
    """Return what stands before every publication of a channel; for ``encode_publication``."""
    name = channel.encode()
    return b"\x12" + _varint(len(name)) + name + b"\x22"


def encode_publication(head: bytes, publication: Publication) -> bytes:
    """Encode a publication's push: what ``encode_reply`` would, with the channel encoded once."""
    data = _encode_publication(publication)
    data = head + _varint(len(data)) + data
    return b"\x22" + _varint(len(data)) + data


def push_head(channel: str) -> bytes:
    """Return what ``publication_head`` does; the same bytes stand in a unidirectional push."""
    return publication_head(channel)


def encode_publication_push(head: bytes, publication: Publication) -> bytes:
    """Encode what ``encode_publication`` does, for a unidirectional connection."""
    data = _encode_publication(publication)
    return head + _varint(len(data)) + data


def delimit(message: bytes) -> bytes:
    """Put a message's length before it; the results of several may simply be joined."""
    return _varint(len(message)) + message


def split_delimited(data: bytes) -> Iterator[bytes]:
    """Yield what ``delimit`` was given, from the joined results."""
    position = 0
    while position < len(data):
        size, begin = _read_varint(data, position)
        position = begin + size
        yield data[begin:position]


# --- single messages ----------------------------------------------------------------------------------


def encode_message(message: msgspec.Struct) -> bytes:
    """
    Encode any message of the protocol.

    Raises:
        ValueError: An integer is out of its field's range, or a text cannot be UTF-8.

    """
    return _encoder(_descriptor_of(type(message)))(message)


def decode_message(struct: type[T], data: bytes) -> T:
    """
    Decode any message of the protocol; no bytes at all are one with its defaults.

    Raises:
        MalformedFrame: The bytes are no such message.

    """
    descriptor = _descriptor_of(struct)
    parse = getattr(client_pb2, descriptor.name).FromString
    try:
        return cast(T, _decoder(descriptor)(parse(data)))
    except DecodeError as error:
        raise MalformedFrame from error


def _descriptor_of(struct: type[msgspec.Struct]) -> Descriptor:
    return _DESCRIPTORS[struct]


def _encode_publication(publication: Publication) -> bytes:
    """Encode a publication; the usual one has a payload, perhaps an offset, and nothing else."""
    if (
        publication.info is not None
        or publication.tags
        or publication.delta
        or publication.channel
        or publication.key
        or publication.removed
        or publication.score
        or publication.epoch
        or publication.version
    ):
        return _encode_any_publication(publication)
    data = bytes(publication.data)
    # 0x22 and 0x30 are the tags of a publication's data and offset.
    head = b"\x22" + _varint(len(data)) + data if data else b""
    offset = publication.offset
    if not offset:
        return head
    if 0 < offset < 2**64:
        return head + b"\x30" + _varint(offset)
    return _encode_any_publication(publication)


def _decode_command(data: bytes) -> Command:
    """
    Decode a command; no bytes at all are a pong.

    Nearly all are an id and one request, which ends where the command ends. Then the request's bytes are read
    on their own, which saves looking for the request among the command's twelve.
    """
    if not data:
        return Command()
    try:
        # 0x08 is the tag of the id.
        if len(data) > 3 and data[0] == 0x08:
            command_id, at = data[1], 2
            if command_id >= 0x80:
                command_id, at = _read_varint(data, 1)
            reader = _REQUEST_READERS.get(data[at]) if at + 1 < len(data) else None
            if reader is not None and command_id < 2**32:
                size, at = data[at + 1], at + 2
                if size >= 0x80:
                    size, at = _read_varint(data, at - 1)
                if at + size == len(data):
                    name, parse, convert = reader
                    command = Command(command_id)
                    setattr(command, name, convert(parse(data[at:])))
                    return command
        return cast(Command, _decode_any_command(client_pb2.Command.FromString(data)))
    except DecodeError as error:
        raise MalformedFrame from error


# --- varints ------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _BYTES[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a varint, which may exceed 64 bits, and where it ends."""
    value = 0
    for index, byte in enumerate(data[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    message = "bad varint"
    raise MalformedFrame(message)


# --- writing ------------------------------------------------------------------------------------------

Encoder = Callable[[Any], bytes]
_encoders: dict[str, Encoder] = {}


def _encoder(descriptor: Descriptor) -> Encoder:
    """Return (making it once) what turns a struct into this message's bytes."""
    encoder = _encoders.get(descriptor.name)
    if encoder is not None:
        return encoder
    names = set(_struct_of(descriptor).__struct_fields__)
    fields = sorted(
        (field for field in descriptor.fields if _name_of(field) in names),
        key=lambda field: field.number,
    )
    get_values = _getter([_name_of(field) for field in fields])
    writers: tuple[Encoder, ...] = ()

    def encode(message: msgspec.Struct) -> bytes:
        # What is false is the field's default: zero, empty, absent.
        values = get_values(message)
        return b"".join(
            [write(value) for write, value in compress(zip(writers, values, strict=True), values)]
        )

    # Known before its fields' encoders are made: a filter node holds filter nodes.
    _encoders[descriptor.name] = encode
    writers = tuple(_field_writer(field) for field in fields)
    return encode


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads these attributes at once (``attrgetter`` does, for two and more)."""
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _: ()
    get = attrgetter(names[0])
    return lambda message: (get(message),)


def _field_writer(field: FieldDescriptor) -> Encoder:
    """Return what writes a field's value, its tag included; it is not called for defaults."""
    if field.is_repeated:
        if _is_map(field):
            return _map_writer(field)
        write_item = _value_writer(field)
        return lambda items: b"".join([write_item(item) for item in items])
    return _value_writer(field)


def _value_writer(field: FieldDescriptor) -> Encoder:
    """Return what writes one value, be it the default or not."""
    kind = field.type
    if kind in (
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_MESSAGE,
    ):
        tag = _varint(field.number << 3 | _LENGTH_DELIMITED)
        to_bytes: Encoder = bytes
        if kind == FieldDescriptor.TYPE_STRING:
            to_bytes = str.encode
        elif kind == FieldDescriptor.TYPE_MESSAGE:
            to_bytes = _encoder(_message_of(field))

        def write_delimited(value: Any) -> bytes:
            data = to_bytes(value)
            size = len(data)
            return tag + (_BYTES[size] if size < 0x80 else _varint(size)) + data

        return write_delimited
    tag = _varint(field.number << 3)
    if kind == FieldDescriptor.TYPE_BOOL:
        yes, no = tag + b"\x01", tag + b"\x00"
        return lambda value: yes if value else no
    return _integer_writer(tag, field)


def _integer_writer(tag: bytes, field: FieldDescriptor) -> Encoder:
    low, high = _INTEGER_RANGES[field.type]
    is_zigzag = field.type == FieldDescriptor.TYPE_SINT64

    def write_integer(value: int) -> bytes:
        if not low <= value < high:
            message = f"{field.full_name}: {value} is not in [{low}, {high})"
            raise ValueError(message)
        if is_zigzag:
            return tag + _varint(value << 1 if value >= 0 else ~(value << 1))
        return tag + _varint(value if value >= 0 else value + 2**64)

    return write_integer


def _map_writer(field: FieldDescriptor) -> Encoder:
    """Return what writes a map: one message per entry, key and value written even when empty."""
    tag = _varint(field.number << 3 | _LENGTH_DELIMITED)
    write_key = _value_writer(_message_of(field).fields_by_name["key"])
    write_value = _value_writer(_message_of(field).fields_by_name["value"])

    def write_map(entries: dict[str, Any]) -> bytes:
        return b"".join(
            [tag + delimit(write_key(key) + write_value(value)) for key, value in entries.items()]
        )

    return write_map


# --- reading ------------------------------------------------------------------------------------------

# From the library's message, and what its attribute holds, to the struct's value.
Reader = Callable[[Any, Any], Any]
Decoder = Callable[[Any], msgspec.Struct]
_decoders: dict[str, Decoder] = {}


def _decoder(descriptor: Descriptor) -> Decoder:
    """Return (making it once) what turns the library's message into a struct."""
    decoder = _decoders.get(descriptor.name)
    if decoder is not None:
        return decoder
    struct = _struct_of(descriptor)
    fields = {_name_of(field): field for field in descriptor.fields}
    names = struct.__struct_fields__
    get_values = _getter([fields[name].name for name in names])
    readers: list[tuple[int, Reader]] = []

    def decode(message: Message) -> msgspec.Struct:
        values = [*get_values(message)]
        for index, read in readers:
            values[index] = read(message, values[index])
        return struct(*values)

    _decoders[descriptor.name] = decode
    nothing_is_none = {
        field.name for field in msgspec.structs.fields(struct) if field.default is None
    }
    for index, name in enumerate(names):
        reader = _field_reader(fields[name], nothing_is_none=name in nothing_is_none)
        if reader is not None:
            readers.append((index, reader))
    return decode


def _field_reader(field: FieldDescriptor, *, nothing_is_none: bool) -> Reader | None:
    """Return what turns a field's value into the struct's, or ``None`` where it already is."""
    if field.is_repeated:
        read = _map_reader(field) if _is_map(field) else _list_reader(field)
        if nothing_is_none:
            return lambda _, values: read(values) if values else None
        return lambda _, values: read(values)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        name, decode = field.name, _decoder(_message_of(field))
        return lambda message, value: decode(value) if message.HasField(name) else None
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda _, value: Raw(value) if value else messages.EMPTY
    return None


def _list_reader(field: FieldDescriptor) -> Callable[[Any], list[Any]]:
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        return list
    decode = _decoder(_message_of(field))
    return lambda values: [decode(value) for value in values]


def _map_reader(field: FieldDescriptor) -> Callable[[Any], dict[str, Any]]:
    value_field = _message_of(field).fields_by_name["value"]
    if value_field.type != FieldDescriptor.TYPE_MESSAGE:
        return dict
    decode = _decoder(_message_of(value_field))
    return lambda values: {key: decode(value) for key, value in values.items()}


# --- the schema -----------------------------------------------------------------------------------------


_SCHEMA = client_pb2.DESCRIPTOR.message_types_by_name


def _struct_of(descriptor: Descriptor) -> type[msgspec.Struct]:
    name = _STRUCT_NAMES.get(descriptor.name, descriptor.name)
    return cast("type[msgspec.Struct]", getattr(messages, name))


def _name_of(field: FieldDescriptor) -> str:
    """Return what the struct calls a field."""
    return _FIELD_NAMES.get(field.name, field.name)


def _message_of(field: FieldDescriptor) -> Descriptor:
    """Return the message type of a field that has one."""
    return cast(Descriptor, field.message_type)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _request_readers() -> dict[int, tuple[str, Callable[[bytes], Message], Decoder]]:
    """By tag (one byte for all of them): a command's field, and what reads a request from bytes."""
    return {
        field.number << 3 | _LENGTH_DELIMITED: (
            field.name,
            getattr(client_pb2, _message_of(field).name).FromString,
            _decoder(_message_of(field)),
        )
        for field in _SCHEMA["Command"].fields
        if field.type == FieldDescriptor.TYPE_MESSAGE
    }


_DESCRIPTORS: dict[type[msgspec.Struct], Descriptor] = {
    _struct_of(descriptor): descriptor
    for descriptor in _SCHEMA.values()
    # Connect is ConnectResult under other numbers, within a push only; Dictionary has no use yet.
    if descriptor.name not in ("Connect", "Dictionary")
}
_encode_reply = _encoder(_SCHEMA["Reply"])
_encode_push = _encoder(_SCHEMA["Push"])
_encode_any_publication = _encoder(_SCHEMA["Publication"])
_decode_any_command = _decoder(_SCHEMA["Command"])
_REQUEST_READERS = _request_readers()
