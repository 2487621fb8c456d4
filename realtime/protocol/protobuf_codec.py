"""
Client protocol messages as Protobuf.

``protobuf_structs`` makes the converters; only frames, and publications, of which there are many more than of
anything else, have code of their own here.

``Publication.time`` is in the schema only: it is neither read nor written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, cast

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

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
from realtime.protocol.protobuf_structs import (
    BYTES,
    LENGTH_DELIMITED,
    Decoder,
    StructCodec,
    delimit,
    message_of,
    read_varint,
    varint,
)


__all__ = [
    "decode_commands",
    "decode_connect_request",
    "decode_emulation_request",
    "decode_message",
    "delimit",
    "encode_message",
    "encode_publication",
    "encode_publication_push",
    "encode_published",
    "encode_push",
    "encode_reply",
    "publication_head",
    "push_head",
    "split_delimited",
]

T = TypeVar("T", bound=msgspec.Struct)

_codec = StructCodec(
    client_pb2,
    messages,
    struct_names={
        "Message": "MessagePush",
        "Disconnect": "DisconnectPush",
        "Connect": "ConnectResult",
    },
    field_names={"dict": "dictionary"},
)


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
            size, position = read_varint(frame, position - 1)
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
    return b"\x22" + (BYTES[size] if size < 0x80 else varint(size)) + data


def encode_published(command_id: int) -> bytes:
    """Encode what ``encode_reply`` would of a publish that succeeded."""
    return b"\x08" + varint(command_id) + _PUBLISHED


def encode_push(push: Push) -> bytes:
    """Encode a push for a unidirectional connection, without its length; it carries one payload."""
    publication = push.pub
    if publication is None or push.id:
        return _encode_push(push)
    channel, data = push.channel.encode(), _encode_publication(publication)
    # 0x12 and 0x22 are the tags of a push's channel and publication.
    return b"".join(
        (b"\x12", varint(len(channel)), channel, b"\x22", varint(len(data)), data)
        if channel
        else (b"\x22", varint(len(data)), data)
    )


def publication_head(channel: str, number: int = 0) -> bytes:
    """
    Return what stands before every publication of a channel; for ``encode_publication``.

    ``number`` stands for the channel's name, if it is not 0.
    """
    # 0x08, 0x12 and 0x22 are the tags of a push's id, channel and publication.
    if number:
        return b"\x08" + varint(number) + b"\x22"
    name = channel.encode()
    return b"\x12" + varint(len(name)) + name + b"\x22"


def encode_publication(head: bytes, publication: Publication) -> bytes:
    """Encode a publication's push: what ``encode_reply`` would, with the channel encoded once."""
    data = _encode_publication(publication)
    data = head + varint(len(data)) + data
    return b"\x22" + varint(len(data)) + data


def push_head(channel: str, number: int = 0) -> bytes:
    """Return what ``publication_head`` does; the same bytes stand in a unidirectional push."""
    return publication_head(channel, number)


def encode_publication_push(head: bytes, publication: Publication) -> bytes:
    """Encode what ``encode_publication`` does, for a unidirectional connection."""
    data = _encode_publication(publication)
    return head + varint(len(data)) + data


def split_delimited(data: bytes) -> Iterator[bytes]:
    """Yield what ``delimit`` was given, from the joined results."""
    position = 0
    while position < len(data):
        size, begin = read_varint(data, position)
        position = begin + size
        yield data[begin:position]


# --- single messages ----------------------------------------------------------------------------------


def encode_message(message: msgspec.Struct) -> bytes:
    """
    Encode any message of the protocol.

    Raises:
        ValueError: An integer is out of its field's range, or a text cannot be UTF-8.

    """
    return _codec.encoder(_DESCRIPTORS[type(message)])(message)


def decode_message(struct: type[T], data: bytes) -> T:
    """
    Decode any message of the protocol; no bytes at all are one with its defaults.

    Raises:
        MalformedFrame: The bytes are no such message.

    """
    descriptor = _DESCRIPTORS[struct]
    try:
        return cast(T, _codec.decoder(descriptor)(_codec.parser(descriptor.name)(data)))
    except DecodeError as error:
        raise MalformedFrame from error


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
    head = b"\x22" + varint(len(data)) + data if data else b""
    offset = publication.offset
    if not offset:
        return head
    if 0 < offset < 2**64:
        return head + b"\x30" + varint(offset)
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
                command_id, at = read_varint(data, 1)
            reader = _REQUEST_READERS.get(data[at]) if at + 1 < len(data) else None
            if reader is not None and command_id < 2**32:
                size, at = data[at + 1], at + 2
                if size >= 0x80:
                    size, at = read_varint(data, at - 1)
                if at + size == len(data):
                    name, parse, convert = reader
                    command = Command(command_id)
                    setattr(command, name, convert(parse(data[at:])))
                    return command
        return cast(Command, _decode_any_command(client_pb2.Command.FromString(data)))
    except DecodeError as error:
        raise MalformedFrame from error


# --- the schema -----------------------------------------------------------------------------------------


def _request_readers() -> dict[int, tuple[str, Callable[[bytes], Message], Decoder]]:
    """By tag (one byte for all of them): a command's field, and what reads a request from bytes."""
    return {
        field.number << 3 | LENGTH_DELIMITED: (
            field.name,
            _codec.parser(message_of(field).name),
            _codec.decoder(message_of(field)),
        )
        for field in _codec.messages["Command"].fields
        if field.type == FieldDescriptor.TYPE_MESSAGE
    }


_DESCRIPTORS: dict[type[msgspec.Struct], Descriptor] = {
    _codec.struct_of(descriptor): descriptor
    for descriptor in _codec.messages.values()
    # Connect is ConnectResult under other numbers, within a push only; Dictionary has no use yet.
    if descriptor.name not in ("Connect", "Dictionary")
}
_encode_reply = _codec.encoder(_codec.messages["Reply"])
_PUBLISHED = _encode_reply(messages.Reply(publish=messages.PublishResult()))
_encode_push = _codec.encoder(_codec.messages["Push"])
_encode_any_publication = _codec.encoder(_codec.messages["Publication"])
_decode_any_command = _codec.decoder(_codec.messages["Command"])
_REQUEST_READERS = _request_readers()
