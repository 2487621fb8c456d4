"""
Client protocol messages as JSON.

Several messages of one frame are joined by a line break, and a payload stands in its message as it came. A line
break inside a payload can only be white space between tokens, so it is taken out where the message is encoded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from realtime.protocol.framing import MalformedFrame
from realtime.protocol.go_json import MalformedJson, normalise
from realtime.protocol.messages import (
    Command,
    ConnectRequest,
    EmulationRequest,
    Publication,
    Push,
    Reply,
)


T = TypeVar("T", bound=msgspec.Struct)


_raw = msgspec.json.Decoder(Raw)
_decode_command = msgspec.json.Decoder(Command).decode
_encode = msgspec.json.Encoder().encode


class InvalidPayloadError(ValueError):
    """A payload is not JSON, so that it cannot be part of a JSON message."""


def decode_commands(frame: bytes) -> Iterable[Command]:
    """
    Give the commands of a frame, several one by one, so that those before a malformed one are carried out.

    Raises:
        MalformedFrame: The frame is empty or no UTF-8 (a binary frame may be anything), or a line is not one JSON
            object of the right types, or is nested deeper than can be read.

    """
    if not frame.isascii():
        _check_utf8(frame)
    if b"\n" in frame:
        return _several(frame)
    # Nearly every frame has one command, which decodes; a generator for it would cost 0.4 µs.
    try:
        return (_decode_command(frame),)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return (_decode(Command, frame),)


def _several(frame: bytes) -> Iterator[Command]:
    lines = frame.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        yield _decode(Command, line)


def decode_connect_request(text: bytes) -> ConnectRequest:
    """Read what a unidirectional client sends first; ``null`` is an empty request."""
    _check_utf8(text)
    return _decode(ConnectRequest, text)


def decode_emulation_request(text: bytes) -> EmulationRequest:
    """Read the envelope of client-to-server commands; its ``data`` is a JSON string."""
    return _decode(EmulationRequest, text)


def encode_reply(reply: Reply) -> bytes:
    """Encode a reply, or a push in its reply; an empty one, ``{}``, is a ping."""
    return _one_line(_encode(reply))


def encode_published(command_id: int) -> bytes:
    """Encode what ``encode_reply`` would of a publish that succeeded."""
    return b'{"id":%d,"publish":{}}' % command_id


def encode_push(push: Push) -> bytes:
    """Encode a push for a unidirectional connection."""
    return _one_line(_encode(push))


def publication_head(channel: str, number: int = 0) -> bytes:
    """
    Return what stands before every publication of a channel; for ``encode_publication``.

    ``number`` stands for the channel's name, if it is not 0.
    """
    if number:
        return b'{"push":{"id":%d,"pub":' % number
    return b'{"push":{"channel":%b,"pub":' % _encode(channel)


def encode_publication(head: bytes, publication: Publication) -> bytes:
    """
    Encode a publication's push: what ``encode_reply`` would, in half the time.

    Raises:
        InvalidPayloadError: Its data is not JSON.

    """
    if publication.data:
        check_payload(publication.data)
    return _one_line(head + _encode(publication) + b"}}")


def push_head(channel: str, number: int = 0) -> bytes:
    """Return what ``publication_head`` does, for a unidirectional connection."""
    if number:
        return b'{"id":%d,"pub":' % number
    return b'{"channel":%b,"pub":' % _encode(channel)


def encode_publication_push(head: bytes, publication: Publication) -> bytes:
    """Encode what ``encode_publication`` does, for a unidirectional connection."""
    if publication.data:
        check_payload(publication.data)
    return _one_line(b"%b%b}" % (head, _encode(publication)))


def check_payload(data: Raw) -> None:
    """
    See to it that a payload can stand in a JSON message.

    Raises:
        InvalidPayloadError: It is no JSON value, or no UTF-8.

    """
    text = bytes(data)
    try:
        _raw.decode(text)
        if not text.isascii():
            text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPayloadError from error


def _check_utf8(text: bytes) -> None:
    """Look into payloads too, which the decoder leaves as they are."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise MalformedFrame from error


def _decode(message_type: type[T], text: bytes) -> T:
    decode: Callable[[bytes], T] = _decoder(message_type).decode
    try:
        return decode(text)
    except RecursionError as error:  # some 1,000 levels
        raise MalformedFrame from error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # An unknown field, a name in another case or a null: read it again as the reference would.
        try:
            return decode(normalise(message_type, text))
        except (msgspec.MsgspecError, MalformedJson) as error:
            raise MalformedFrame from error


@functools.cache
def _decoder(message_type: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(message_type)


def _one_line(message: bytes) -> bytes:
    if 10 in message or 13 in message:  # a number is found by memchr: 0.2 µs less per message
        return message.translate(None, b"\r\n")
    return message
