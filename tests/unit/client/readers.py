"""What an SDK does with publications: one client that keeps its position and its base, on either encoding."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from realtime.node.node import Node
from realtime.protocol import client_pb2, fossil
from realtime.protocol.messages import Command
from realtime.protocol.protobuf_codec import delimit, encode_message
from realtime.protocol.wire import ASGI_JSON, ASGI_PROTOBUF
from tests.unit.client.conftest import Connection


class Reader:
    """
    One subscriber of one channel that drops, comes back and recovers.

    Attributes:
        documents: The payloads, in their order.
        patches: How many of them came as patches.
        offset, epoch: Where it is.
        results: The subscribe results.

    """

    def __init__(self, node: Node, channel: str, *, is_json: bool = True, **request: Any) -> None:
        self.node = node
        self.channel = channel
        self.is_json = is_json
        self.request = request
        self.documents: list[bytes] = []
        self.tags: list[dict[str, str]] = []
        self.patches = 0
        self.offset, self.epoch = 0, ""
        self.results: list[dict[str, Any]] = []
        self.unsubscribed: list[int] = []
        self.connection: Connection
        self._base: bytes | None = None
        self._has_delta = False
        self._count = 0

    def connect(self) -> None:
        """Connect without subscribing."""
        self._count += 1
        wire = ASGI_JSON if self.is_json else ASGI_PROTOBUF
        self.connection = Connection(self.node, f"reader-{id(self)}-{self._count}", wire)
        self._command({"id": 1, "connect": {}})

    def come(self) -> dict[str, Any]:
        """Connect and subscribe, recovering if it was there before; return the result."""
        self.connect()
        return self.subscribe()

    def subscribe(self) -> dict[str, Any]:
        """Subscribe and return the result."""
        request = {"channel": self.channel, **self.request}
        if self.epoch:
            request |= {"recover": True, "offset": self.offset, "epoch": self.epoch}
        count = len(self.results)
        self._command({"id": 2, "subscribe": request})
        self.read()
        assert len(self.results) == count + 1
        return self.results[-1]

    def unsubscribe(self) -> None:
        """Leave the channel; what the SDK remembers stays."""
        self._command({"id": 3, "unsubscribe": {"channel": self.channel}})
        self.read()

    def drop(self) -> None:
        """Lose the connection, with what was not read yet."""
        self.connection.client.on_close()

    def pause(self) -> None:
        """Have the transport report a full buffer."""
        self.connection.client.on_pause()

    def resume(self) -> None:
        """Have it report that there is room again."""
        self.connection.client.on_resume()

    def read(self) -> None:
        """Take what was written."""
        self.node.hub.flush()
        written, self.connection.transport.written = self.connection.transport.written, []
        for reply in replies_of(written, is_json=self.is_json):
            if "subscribe" in reply:
                self._subscribed(reply["subscribe"])
            elif "push" in reply:
                push = reply["push"]
                assert push["channel"] == self.channel
                if "pub" in push:
                    self._take(push["pub"])
                elif "unsubscribe" in push:
                    self.unsubscribed.append(push["unsubscribe"]["code"])

    def _command(self, command: dict[str, Any]) -> None:
        if self.is_json:
            self.connection.send_raw(json.dumps(command).encode())
        else:
            message = msgspec.convert(command, Command)
            self.connection.client.on_message(delimit(encode_message(message)), False)

    def _subscribed(self, result: dict[str, Any]) -> None:
        self.results.append(result)
        self._has_delta = result.get("delta", False)
        self.epoch = result.get("epoch", "")
        if not result.get("recovered"):
            self.offset = result.get("offset", 0)
        for publication in result.get("publications", ()):
            self._take(publication)

    def _take(self, publication: dict[str, Any]) -> None:
        offset = publication.get("offset", 0)
        if offset and self.epoch:
            has_holes = "tf" in self.request or "cache" in self.channel
            assert offset > self.offset if has_holes else offset == self.offset + 1
            self.offset = offset
        data = publication["data"]
        if not self._has_delta:
            assert not publication.get("delta")
            document = json.dumps(data).encode() if self.is_json else data
        else:
            text = data.encode() if self.is_json else data
            if publication.get("delta"):
                assert self._base is not None
                self.patches += 1
                document = fossil.apply(self._base, text)
            else:
                document = text
            self._base = document
        self.documents.append(document)
        self.tags.append(publication.get("tags", {}))


def replies_of(written: list[bytes], *, is_json: bool) -> list[dict[str, Any]]:
    """Decode what a transport was given."""
    if is_json:
        return [json.loads(line) for each in written for line in each.split(b"\n")]
    return [_as_dict(message) for message in _messages(b"".join(written))]


def _messages(data: bytes) -> list[client_pb2.Reply]:
    messages, at = [], 0
    while at < len(data):
        size, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        messages.append(client_pb2.Reply.FromString(data[at : at + size]))
        at += size
    return messages


def _as_dict(message: Any) -> dict[str, Any]:
    """Return what is set of a message, as JSON would have it."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
            found[field.name] = dict(value)
        elif field.is_repeated:
            found[field.name] = [_as_dict(each) if field.message_type else each for each in value]
        else:
            found[field.name] = _as_dict(value) if field.message_type else value
    return found
