"""
The two encodings of the client protocol, as one form: what the JSON one has.

Protobuf goes through the generated classes of the schema and not through the server's own codec, which is what is
tried here.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from realtime.protocol import client_pb2


JSON, PROTOBUF = "json", "protobuf"


def encode(encoding: str, commands: list[Any]) -> str | bytes:
    """Make one frame; a string among the commands of a JSON frame goes as it is."""
    if encoding == JSON:
        return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in commands)
    frame = io.BytesIO()
    for command in commands:
        message = client_pb2.Command()
        _fill(message, command)
        serialize_length_prefixed(message, frame)
    return frame.getvalue()


def decode(encoding: str, frame: str | bytes) -> Iterator[Any]:
    """Yield a frame's replies; payloads are JSON, or bytes in Protobuf."""
    if encoding == JSON:
        assert isinstance(frame, str), frame
        for line in frame.split("\n"):
            yield json.loads(line)
        return
    assert isinstance(frame, bytes), frame
    rest = io.BytesIO(frame)
    while (reply := parse_length_prefixed(client_pb2.Reply, rest)) is not None:
        yield _plain(reply)


def _fill(message: Message, values: dict[str, Any]) -> None:
    message.SetInParent()
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            table = getattr(message, name)
            for key, one in value.items():
                if isinstance(one, dict):
                    _fill(table[key], one)
                else:
                    table[key] = one
        elif field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                inner = getattr(message, name)
                _fill(inner.add() if field.is_repeated else inner, one)
        elif field.is_repeated:
            getattr(message, name).extend(value)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, name, json.dumps(value).encode())
        else:
            setattr(message, name, value)


def _plain(message: Message) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values[field.name] = {
                key: _plain(one) if isinstance(one, Message) else one for key, one in value.items()
            }
        elif field.is_repeated:
            values[field.name] = [_one(field, one) for one in value]
        else:
            values[field.name] = _one(field, value)
    return values


def _one(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return _plain(value)
    return value


def payload(data: bytes) -> Any:
    """Return a Protobuf payload as a transcript has it."""
    try:
        return json.loads(data)
    except ValueError:
        try:
            return {"text": data.decode()}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(data).decode()}
