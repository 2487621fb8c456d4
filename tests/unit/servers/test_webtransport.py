"""A session on a carrier that records; what needs a peer is in tests/live/test_webtransport.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aioquic.buffer import encode_uint_var

from realtime import bootstrap
from realtime.conf.options import ProcessOptions
from realtime.node.node import Node
from realtime.servers import webtransport
from realtime.servers.webtransport import WebTransportSession
from tests.unit.client.conftest import Clock, build_node


SCOPE = {"path": "/connection/webtransport", "query_string": b"", "headers": []}
SESSION, STREAM = 0, 4


class Carrier:
    """Writes down what a session does; ``unsent`` is what a peer has not taken."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.unsent = 0
        self.is_over = asyncio.Event()

    def write(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        self.done.append(("write", stream_id, data, is_last))

    def write_body(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        self.done.append(("body", stream_id, data, is_last))

    def reset(self, stream_id: int, code: int) -> None:
        self.done.append(("reset", stream_id))

    def unsent_bytes(self, stream_id: int) -> int:
        return self.unsent

    def pause_reading(self, stream_id: int) -> None:
        self.done.append(("pause", stream_id))

    def resume_reading(self, stream_id: int) -> None:
        self.done.append(("resume", stream_id))

    def forget(self, session: WebTransportSession, *, is_stuck: bool) -> None:
        self.done.append(("forget", is_stuck))
        self.is_over.set()


@pytest.fixture(autouse=True)
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """Give the process a node."""
    options = msgspec.convert(
        {
            "client": {"allow_anonymous_connect_without_token": True},
            "webtransport": {"enabled": True},
        },
        ProcessOptions,
    )
    node = build_node(options, Clock())
    await node.start()
    monkeypatch.setattr(bootstrap, "_node", node)
    monkeypatch.setattr(webtransport, "FAREWELL_SECONDS", 0.0)
    yield node
    await node.stop()


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


def _connected(carrier: Carrier) -> WebTransportSession:
    session = WebTransportSession(carrier, SESSION, SCOPE)
    assert session.take_stream(STREAM)
    session.on_stream_data(b'{"id":1,"connect":{}}\n', is_last=False)
    (written,) = carrier.done
    assert b'"connect"' in written[2]
    carrier.done.clear()
    return session


def _close(code: int, reason: str) -> bytes:
    return b"\x68\x43" + bytes((4 + len(reason),)) + code.to_bytes(4, "big") + reason.encode()


async def test_a_session_without_a_stream_ends(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ten seconds, as a socket that never connects does."""
    monkeypatch.setattr(webtransport, "STREAM_SECONDS", 0.0)
    WebTransportSession(carrier, SESSION, SCOPE)

    await asyncio.wait_for(carrier.is_over.wait(), 30)

    assert carrier.done == [("body", SESSION, _close(3502, "stale"), True), ("forget", False)]


async def test_the_servers_end_comes_in_order(node: Node, carrier: Carrier) -> None:
    """Push and end of the stream at once, the session's close later."""
    _connected(carrier)
    (client,) = node.connections

    client.disconnect(3005, "connection expired")
    push = b'{"push":{"disconnect":{"code":3005,"reason":"connection expired"}}}\n'
    assert carrier.done == [("write", STREAM, push, True)]
    await asyncio.wait_for(carrier.is_over.wait(), 30)

    assert carrier.done[1:] == [
        ("reset", STREAM),
        ("body", SESSION, _close(3005, "connection expired"), True),
        ("forget", False),
    ]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_capsules_that_do_not_matter_are_passed_over(
    node: Node, carrier: Carrier, piece: int
) -> None:
    """In whatever pieces they come, up to the one that closes the session."""
    session = _connected(carrier)
    stream = encode_uint_var(0x78AE) + b"\0" + encode_uint_var(0x17) + b"\x0aabcdefghij"
    for start in range(0, len(stream), piece):
        session.on_capsules(stream[start : start + piece], is_last=False)
    assert node.connections

    session.on_capsules(_close(0, ""), is_last=False)

    assert not node.connections
    assert carrier.done[-1] == ("forget", False)


@pytest.mark.parametrize(
    "end",
    [
        lambda session: session.on_capsules(b"", is_last=True),
        lambda session: session.on_capsules(
            encode_uint_var(0x17) + encode_uint_var(2**40), is_last=False
        ),
        lambda session: session.on_stream_data(b"", is_last=True),
        lambda session: session.on_stream_reset(STREAM),
        lambda session: session.on_stream_reset(SESSION),
        lambda session: session.on_lost(),
    ],
    ids=["end", "endless capsule", "stream's end", "stream's reset", "reset", "lost"],
)
async def test_the_peers_end_is_everythings(node: Node, carrier: Carrier, end: Any) -> None:
    """However it comes, the client is gone at once, and it happens once."""
    session = _connected(carrier)

    end(session)
    end(session)

    assert not node.connections
    assert [each for each in carrier.done if each[0] == "forget"] == [("forget", False)]


async def test_what_comes_while_a_command_waits_is_held(
    node: Node, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer's window is no longer widened; afterwards all of it is carried out in order."""
    session = _connected(carrier)
    (client,) = node.connections
    gate = asyncio.Event()
    seen: list[bytes] = []

    def on_message(_: object, data: bytes) -> None:
        seen.append(data)
        session.pause_reading()
        gate.set()

    monkeypatch.setattr(type(client), "on_message", on_message)
    session.on_stream_data(b"1\n", is_last=False)
    session.on_stream_data(b"2\n3", is_last=False)
    session.on_stream_data(b"\n", is_last=False)
    assert (seen, carrier.done) == ([b"1\n"], [("pause", STREAM)])

    gate.clear()
    session.resume_reading()
    await asyncio.wait_for(gate.wait(), 30)

    assert seen == [b"1\n", b"2\n3\n"]


async def test_a_reader_that_is_behind_is_paused_and_resumed(node: Node, carrier: Carrier) -> None:
    """By what has not left, not by what is under way; one that is stuck is not waited for."""
    session = _connected(carrier)
    (client,) = node.connections

    carrier.unsent = 70_000
    session.on_transmitted()
    assert client.is_paused
    carrier.unsent = 20_000
    session.on_transmitted()
    assert client.is_paused
    carrier.unsent = 1000
    session.on_transmitted()
    assert not client.is_paused

    carrier.unsent = 2_000_000
    session.on_transmitted()
    assert not node.connections
    await asyncio.wait_for(carrier.is_over.wait(), 30)
    assert carrier.done == [
        ("reset", STREAM),
        ("reset", STREAM),
        ("body", SESSION, _close(3008, "slow"), True),
        ("forget", True),
    ]
