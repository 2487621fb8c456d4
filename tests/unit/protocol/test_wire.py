"""What is written on a wire: heads with numbers, messages that share frames, replies and frames."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from realtime.protocol import wire as wires
from realtime.protocol.messages import Publication, PublishResult, Push, Reply
from realtime.protocol.wire import (
    ASGI_JSON,
    ASGI_PROTOBUF,
    FRAMES_JSON,
    FRAMES_PROTOBUF,
    SSE_JSON,
    UNI_ASGI_JSON,
    UNI_FRAMES_JSON,
    UNI_PROTOBUF,
    Wire,
    deflated_wire,
    frame,
)


@pytest.mark.parametrize(
    "wire",
    [ASGI_JSON, ASGI_PROTOBUF, FRAMES_JSON, FRAMES_PROTOBUF, SSE_JSON, UNI_ASGI_JSON, UNI_PROTOBUF],
)
@given(number=st.integers(1, 2**63 - 1), offset=st.integers(0, 2**40))
def test_a_head_with_a_number_gives_what_the_push_as_a_whole_gives(
    wire: Wire, number: int, offset: int
):
    """In half the time, which is why there are heads."""
    publication = Publication(data=Raw(b"[1]"), offset=offset)

    message = wire.encode_publication(wire.publication_head("a:b", number), publication)

    assert message == wire.encode_push(Push(id=number, pub=publication))


@given(sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=40), most=st.integers(1, 20))
def test_frames_are_shared_by_messages_in_their_order(sizes: list[int], most: int):
    """At most so many and at most 64 KiB, unless one alone is larger; as few frames as these bounds allow one by one."""
    messages = [b"%d" % number * size for number, size in enumerate(sizes)]

    frames = list(_frames(FRAMES_JSON.seal(messages, most)))

    groups = [payload.split(b"\n") for payload in frames]
    assert [message for group in groups for message in group] == messages
    for group, following in zip(groups, [*groups[1:], [b""]], strict=True):
        size = sum(map(len, group))
        assert len(group) <= most
        assert size <= 65536 or len(group) == 1
        # The next one did not fit.
        assert not following[0] or len(group) == most or size + len(following[0]) > 65536


def _frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        found.append(data[at : at + size])
        data = data[at + size :]
    return found


def test_a_batch_is_compressed_as_one():
    """Once, and better than its messages one by one."""
    payloads: list[tuple[bytes, int]] = []

    def compress(payload: bytes, opcode: int) -> bytes:
        payloads.append((payload, opcode))
        return payload

    for is_protobuf, opcode in ((False, 1), (True, 2)):
        wire = deflated_wire(compress, is_protobuf=is_protobuf)
        payloads.clear()  # of its ping
        publication = Publication(data=Raw(b"[1]"))
        message = wire.unframed.encode_publication(wire.publication_head("a", 0), publication)

        sealed = wire.seal([message, message], 16)

        assert payloads == [(sealed, opcode)]
        assert sealed.count(b"[1]") == 2


def test_wires_without_shared_frames_join_what_they_have():
    """Events, and pushes that have a frame each."""
    for wire in (SSE_JSON, UNI_FRAMES_JSON):
        message = wire.encode_push(Push(channel="a"))

        assert wire.unframed is wire
        assert wire.seal([message] * 3, 1) == message * 3


def test_a_sealed_protobuf_batch_is_one_binary_frame():
    """Each message says itself where it ends."""
    message = ASGI_PROTOBUF.encode_push(Push(channel="a"))

    assert FRAMES_PROTOBUF.seal([message, message], 16) == frame(message * 2, 2)
    assert json.loads(ASGI_JSON.encode_push(Push(channel="a"))) == {"push": {"channel": "a"}}


WIRES = [each for each in vars(wires).values() if isinstance(each, Wire)]


@pytest.mark.parametrize("each", WIRES, ids=lambda each: each.name)
@pytest.mark.parametrize("command_id", [1, 127, 128, 2**32 - 1])
def test_the_reply_to_a_publish_is_what_any_reply_would_be(each: Wire, command_id: int) -> None:
    reply = Reply(id=command_id, publish=PublishResult())
    assert each.encode_published(command_id) == each.encode_reply(reply)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", [wires.TEXT, wires.BINARY, wires.PING_FRAME, 0x40 | wires.TEXT])
def test_a_frame_has_the_shortest_head(size: int, opcode: int) -> None:
    payload = b"x" * size
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    assert wires.frame(payload, opcode) == head + payload
