"""What is written on a wire."""

from __future__ import annotations

import struct

import pytest

from realtime.protocol import wire
from realtime.protocol.messages import PublishResult, Reply
from realtime.protocol.wire import Wire


WIRES = [each for each in vars(wire).values() if isinstance(each, Wire)]


@pytest.mark.parametrize("each", WIRES, ids=lambda each: each.name)
@pytest.mark.parametrize("command_id", [1, 127, 128, 2**32 - 1])
def test_the_reply_to_a_publish_is_what_any_reply_would_be(each: Wire, command_id: int) -> None:
    reply = Reply(id=command_id, publish=PublishResult())
    assert each.encode_published(command_id) == each.encode_reply(reply)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", [wire.TEXT, wire.BINARY, wire.PING_FRAME, 0x40 | wire.TEXT])
def test_a_frame_has_the_shortest_head(size: int, opcode: int) -> None:
    payload = b"x" * size
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    assert wire.frame(payload, opcode) == head + payload
