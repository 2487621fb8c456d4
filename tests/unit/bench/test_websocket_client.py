"""The client counts exactly, however its input is cut."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.bench.websocket_client import Socket, SocketError, Tally, client_frame
from realtime.protocol.wire import frame
from realtime.servers.frame_codec import PING, PONG, FrameDecoder, encode_close
from tests.unit.servers.frames import split_at


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
CONNECTED = frame(b'{"id":1,"connect":{"client":"c","ping":25,"pong":true}}')


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written.append(data)

    def abort(self) -> None:
        """Remember it."""
        self.is_aborted = True

    def messages(self) -> list[tuple[int, bytes]]:
        """Return opcode and payload of all frames after the upgrade request, as a server reads them."""
        found: list[tuple[int, bytes]] = []
        FrameDecoder(65536).feed(
            b"".join(self.written[1:]),
            lambda payload, _: found.append((1, payload)),
            lambda opcode, payload: found.append((opcode, payload)),
        )
        return found


def push(number: int, pad: int = 10) -> bytes:
    return b'{"push":{"channel":"bench:%d","pub":{"data":{"ts":%d,"p":"%b"}}}}' % (
        number,
        1000 + number,
        b"x" * pad,
    )


def make(*channels: str, is_sampled: bool = True) -> tuple[Socket, Transport, Tally]:
    tally, transport = Tally(), Transport()
    socket = Socket(b"GET /", "a.b.c", channels, tally, is_sampled=is_sampled)
    socket.connection_made(transport)
    return socket, transport, tally


def subscribed_reply(number: int) -> bytes:
    return frame(b'{"id":%d,"subscribe":{}}' % number)


async def test_it_connects_with_its_token_then_subscribes():
    """As SDKs do: one after the other; all channels at once."""
    socket, transport, _ = make("bench:1", "bench:2")

    socket.data_received(UPGRADED + CONNECTED)
    assert not socket.subscribed.done()
    socket.data_received(subscribed_reply(2) + subscribed_reply(3))

    assert socket.subscribed.done()
    (_, connect), (_, subscribe) = transport.messages()
    assert json.loads(connect) == {"id": 1, "connect": {"token": "a.b.c"}}
    assert [json.loads(line) for line in subscribe.split(b"\n")] == [
        {"id": 2, "subscribe": {"channel": "bench:1"}},
        {"id": 3, "subscribe": {"channel": "bench:2"}},
    ]


async def test_a_thousand_channels_do_not_make_a_frame_too_large():
    """A message may have 64 KiB."""
    socket, transport, _ = make(*(f"bench:{number}" for number in range(1000)))

    socket.data_received(UPGRADED + CONNECTED)

    frames = [payload for _, payload in transport.messages()][1:]
    assert max(map(len, frames)) < 65536
    ids = [json.loads(line)["id"] for payload in frames for line in payload.split(b"\n")]
    assert ids == list(range(2, 1002))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([10, 100, 200, 70000]), min_size=1, max_size=8),
    st.booleans(),
    st.lists(st.integers(0, 200_000), max_size=10),
)
def test_every_publication_counts_once_however_the_bytes_are_cut(pads, is_joined, cuts):
    """One in a frame or several, with a ping between, in pieces of any size."""

    async def count() -> tuple[Socket, Transport, Tally]:
        socket, transport, tally = make("bench:1")
        pushes = [push(number, pad) for number, pad in enumerate(pads)]
        bodies = [b"\n".join(pushes)] if is_joined else pushes
        data = b"".join(
            [UPGRADED, CONNECTED, subscribed_reply(2), frame(b"{}"), *map(frame, bodies)]
        )
        for piece in split_at(data, cuts):
            socket.data_received(piece)
        return socket, transport, tally

    socket, transport, tally = asyncio.run(count())

    assert socket.delivered == tally.delivered == len(pads)
    assert len(tally.latencies_ns) == len(pads)
    assert tally.errors == []
    assert tally.pings == 1
    assert transport.messages()[-1] == (1, b"{}")


async def test_only_a_sampled_socket_takes_latencies():
    """The time is that of the payload."""
    socket, _, tally = make("bench:1", is_sampled=False)
    other, _, sampled = make("bench:1")

    for each in (socket, other):
        each.data_received(UPGRADED + CONNECTED + subscribed_reply(2) + frame(push(7)))

    assert len(tally.latencies_ns) == 0
    assert [sampled.last_ns - taken for taken in sampled.latencies_ns] == [1007]


async def test_replies_to_later_commands_are_counted():
    """Beside the publications that come with them."""
    socket, _, tally = make("bench:1")
    seen: list[int] = []
    socket.on_reply = lambda: seen.append(tally.replies)

    socket.data_received(UPGRADED + CONNECTED + subscribed_reply(2))
    socket.data_received(
        frame(b'{"id":3,"publish":{}}\n' + push(1)) + frame(b'{"id":4,"publish":{}}')
    )

    assert seen == [1, 2]
    assert socket.delivered == 1


async def test_a_ping_frame_is_answered():
    """With its payload."""
    socket, transport, _ = make()

    socket.data_received(UPGRADED + frame(b"abc", PING))

    assert transport.messages()[-1] == (PONG, b"abc")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "answered 'HTTP/1.1 403 Forbidden'"),
        (b"HTTP/1.1 101 x\r\nsec-websocket-accept: no\r\n\r\n", "wrong Sec-WebSocket-Accept"),
        (UPGRADED + encode_close(3500, "invalid token"), "closed with 3500 invalid token"),
        (
            UPGRADED
            + CONNECTED
            + frame(b'{"id":2,"error":{"code":103,"message":"permission denied"}}'),
            "refused: 103 permission denied",
        ),
        (UPGRADED + b"\x01\x01a", "a frame that is not expected here"),
        (b"x" * 20000, "no end of the answer"),
    ],
)
async def test_what_ends_a_connection_is_told(data, text):
    """By the one who waits and in the tally, once."""
    socket, transport, tally = make("bench:1")

    socket.data_received(data)
    socket.connection_lost(None)

    with pytest.raises(SocketError, match=text):
        await socket.subscribed
    assert len(tally.errors) == 1
    assert transport.is_aborted


async def test_an_end_that_nobody_asked_for_is_an_error():
    """One that was asked for is none."""
    socket, _, tally = make()
    other, _, others = make()
    socket.data_received(UPGRADED + CONNECTED)

    socket.connection_lost(ConnectionResetError("reset"))
    other.close()
    other.connection_lost(None)

    assert tally.errors == ["the connection ended: reset"]
    assert others.errors == []


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_client_frame_is_one_that_servers_read(size):
    """Masked, in the shortest form."""
    found = []

    FrameDecoder(100_000).feed(
        client_frame(b"x" * size), lambda payload, _: found.append(payload), found.append
    )

    assert found == [b"x" * size]


async def test_it_asks_for_what_it_is_told_to():
    """Beside the channel."""
    transport = Transport()
    request = {"tf": {"key": "kind"}}
    socket = Socket(b"GET /", "", ["bench:1"], Tally(), is_sampled=False, request=request)
    socket.connection_made(transport)

    socket.data_received(UPGRADED + CONNECTED)

    (_, subscribe) = transport.messages()[-1]
    assert json.loads(subscribe)["subscribe"] == {"channel": "bench:1", "tf": {"key": "kind"}}


@pytest.mark.parametrize("is_granted", [True, False])
async def test_a_server_without_deltas_is_not_measured_as_if_it_had_them(is_granted):
    """It would answer well, and send everything whole."""
    socket = Socket(
        b"GET /", "", ["bench:1"], Tally(), is_sampled=False, request={"delta": "fossil"}
    )
    socket.connection_made(Transport())
    reply = b'{"id":2,"subscribe":{"delta":true}}' if is_granted else b'{"id":2,"subscribe":{}}'

    socket.data_received(UPGRADED + CONNECTED + frame(reply))

    if is_granted:
        assert socket.subscribed.result() is None
    else:
        with pytest.raises(SocketError, match="makes no deltas"):
            socket.subscribed.result()
