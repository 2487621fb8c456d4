"""
How a message looks on each kind of connection.

A ``Wire`` is one encoding in one framing; all connections of one wire that are owed the same message get the same
``bytes`` object. The hub keeps its subscribers by wire for that reason.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from realtime.protocol import json_codec, protobuf_codec
from realtime.protocol.messages import Command, ConnectRequest, Publication, Push, Reply


TEXT, BINARY, PING_FRAME = 1, 2, 9

_SHARED_BYTES = 65536  # of messages in one frame; clients have limits of their own, from 1 MiB on


# 0.06 µs for a head that is looked up, 0.25 for one that is formatted.
_OPCODES = [opcode | rsv1 for opcode in (0, TEXT, BINARY, 8, PING_FRAME, 10) for rsv1 in (0, 0x40)]
_SHORT_HEADS = {
    opcode: [bytes((0x80 | opcode, size)) for size in range(126)] for opcode in _OPCODES
}
_medium_head = struct.Struct(">BBH").pack


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Put a payload into one WebSocket frame from the server: final, without mask."""
    size = len(payload)
    if size < 126:
        return _SHORT_HEADS[opcode][size] + payload
    if size < 65536:
        return _medium_head(0x80 | opcode, 126, size) + payload
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


class Wire:
    """
    One encoding in one framing.

    Attributes:
        name: For logs and metrics.
        protocol: ``"json"`` or ``"protobuf"``, the word that proxies are told.
        is_json: Whether payloads must be JSON.
        is_websocket: Whether it is for the bidirectional WebSocket.
        separator: What stands between two encoded messages that leave in one write.
        unframed: The wire of messages that are to share frames (``seal``); itself where they can't.
        publication_head: From a channel, or a number that stands for it, to the ``head`` of its publications.
        decode_commands: Gives the commands of one frame or body; raises ``MalformedFrame`` after the last good one.
        decode_connect_request: Gives what a unidirectional client sends; raises ``MalformedFrame``.
        ping: The encoded ping.

    A unidirectional wire has bare pushes in place of replies.

    """

    __slots__ = (
        "_encode_publication",
        "_encode_published",
        "_encode_push",
        "_encode_reply",
        "_frame",
        "_frame_shared",
        "decode_commands",
        "decode_connect_request",
        "is_json",
        "is_websocket",
        "name",
        "ping",
        "protocol",
        "publication_head",
        "separator",
        "unframed",
    )

    def __init__(
        self,
        name: str,
        *,
        protocol: str,
        framing: Callable[[bytes], bytes],
        separator: bytes = b"",
        is_unidirectional: bool = False,
        is_websocket: bool = False,
        unframed: Wire | None = None,
        shared_framing: Callable[[bytes], bytes] | None = None,
    ) -> None:
        codec: Any = json_codec if protocol == "json" else protobuf_codec
        self.name = name
        self.protocol = protocol
        self.is_json = protocol == "json"
        self.is_websocket = is_websocket
        self.separator = separator
        self.unframed = self if unframed is None else unframed
        self.decode_commands: Callable[[bytes], Iterable[Command]] = codec.decode_commands
        self.decode_connect_request: Callable[[bytes], ConnectRequest] = (
            codec.decode_connect_request
        )
        self._encode_reply: Callable[[Reply], bytes] = codec.encode_reply
        self._encode_published: Callable[[int], bytes] = codec.encode_published
        self._encode_push: Callable[[Push], bytes]
        self.publication_head: Callable[[str, int], bytes]
        self._encode_publication: Callable[[bytes, Publication], bytes]
        if is_unidirectional:
            self._encode_push = codec.encode_push
            self.publication_head = codec.push_head
            self._encode_publication = codec.encode_publication_push
        else:
            self._encode_push = lambda push: self._encode_reply(Reply(push=push))
            self.publication_head = codec.publication_head
            self._encode_publication = codec.encode_publication
        self._frame = framing
        self._frame_shared = framing if shared_framing is None else shared_framing
        self.ping = framing(self._encode_reply(Reply()))  # empty in both directions

    def __repr__(self) -> str:
        return f"<Wire {self.name}>"

    def encode_reply(self, reply: Reply) -> bytes:
        """Encode a reply to a command, ready to be written."""
        return self._frame(self._encode_reply(reply))

    def encode_published(self, command_id: int) -> bytes:
        """Encode the reply to a publish, which says nothing but its id; as a ``Reply`` it would take 1 µs more."""
        return self._frame(self._encode_published(command_id))

    def encode_publication(self, head: bytes, publication: Publication) -> bytes:
        """
        Encode a publication's push, ready to be written.

        Raises:
            InvalidPayloadError: The wire is JSON and the publication's data is not.

        """
        return self._frame(self._encode_publication(head, publication))

    def encode_push(self, push: Push) -> bytes:
        """Encode a push that is no publication, ready to be written."""
        return self._frame(self._encode_push(push))

    def seal(self, messages: Sequence[bytes], most: int) -> bytes:
        """
        Make one write of messages that ``unframed`` encoded.

        Args:
            messages: In their order; at least one.
            most: How many may share a frame; -1 is any number. Frames also end at 64 KiB.

        """
        if self.unframed is self:
            return self.separator.join(messages)
        if len(messages) == 1:
            return self._frame_shared(messages[0])
        separator = self.unframed.separator
        frames = []
        group: list[bytes] = []
        size = 0
        for message in messages:
            if group and (len(group) == most or size + len(message) > _SHARED_BYTES):
                frames.append(self._frame_shared(separator.join(group)))
                group, size = [], 0
            group.append(message)
            size += len(message)
        frames.append(self._frame_shared(separator.join(group)))
        return b"".join(frames)


def _binary_frame(message: bytes) -> bytes:
    return frame(protobuf_codec.delimit(message), BINARY)


def _bare(message: bytes) -> bytes:
    return message


def line(message: bytes) -> bytes:
    """Put a message on a line of its own."""
    return message + b"\n"


def event(message: bytes) -> bytes:
    """Make a message, which has no line breaks, an event of ``text/event-stream``."""
    return b"data: %b\n\n" % message


# Frames are made by the ASGI server: several messages share one, each on a line of its own ...
ASGI_JSON = Wire("asgi_json", protocol="json", framing=_bare, separator=b"\n", is_websocket=True)
ASGI_PROTOBUF = Wire(
    "asgi_protobuf", protocol="protobuf", framing=protobuf_codec.delimit, is_websocket=True
)
# ... but here where the server takes them as they are ("tidewire.frames").
FRAMES_JSON = Wire(
    "frames_json", protocol="json", framing=frame, is_websocket=True, unframed=ASGI_JSON
)
FRAMES_PROTOBUF = Wire(
    "frames_protobuf",
    protocol="protobuf",
    framing=_binary_frame,
    is_websocket=True,
    unframed=ASGI_PROTOBUF,
    shared_framing=lambda messages: frame(messages, BINARY),
)
# In a response that stays open each message says itself where it ends.
STREAM_JSON = Wire("stream_json", protocol="json", framing=line)
STREAM_PROTOBUF = Wire("stream_protobuf", protocol="protobuf", framing=protobuf_codec.delimit)
SSE_JSON = Wire("sse_json", protocol="json", framing=event)

UNI_FRAMES_JSON = Wire("uni_frames_json", protocol="json", framing=frame, is_unidirectional=True)
UNI_ASGI_JSON = Wire(
    "uni_asgi_json", protocol="json", framing=_bare, separator=b"\n", is_unidirectional=True
)
UNI_LINES_JSON = Wire("uni_lines_json", protocol="json", framing=line, is_unidirectional=True)
UNI_SSE_JSON = Wire("uni_sse_json", protocol="json", framing=event, is_unidirectional=True)
# For gRPC, which frames each message on its own: protobuf_codec.split_delimited takes joined ones apart.
UNI_PROTOBUF = Wire(
    "uni_protobuf", protocol="protobuf", framing=protobuf_codec.delimit, is_unidirectional=True
)


@functools.lru_cache(maxsize=8)
def deflated_wire(
    compress_frame: Callable[[bytes, int], bytes],
    *,
    is_protobuf: bool = False,
    is_unidirectional: bool = False,
) -> Wire:
    """
    Return the wire of connections with compression: a message is compressed once for all of them.

    ``compress_frame`` takes a payload and an opcode; equal ones (same server settings) give the same wire.
    """
    if is_unidirectional:
        return Wire(
            "uni_deflated_json",
            protocol="json",
            framing=lambda message: compress_frame(message, TEXT),
            is_unidirectional=True,
        )
    if is_protobuf:
        return Wire(
            "deflated_protobuf",
            protocol="protobuf",
            framing=lambda message: compress_frame(protobuf_codec.delimit(message), BINARY),
            is_websocket=True,
            unframed=ASGI_PROTOBUF,
            shared_framing=lambda messages: compress_frame(messages, BINARY),
        )
    return Wire(
        "deflated_json",
        protocol="json",
        framing=lambda message: compress_frame(message, TEXT),
        is_websocket=True,
        unframed=ASGI_JSON,
    )
