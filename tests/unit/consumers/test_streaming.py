"""A response that stays open, on a server that the test plays."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from realtime.client.client import Client
from realtime.conf.options import ProcessOptions
from realtime.consumers import streaming
from realtime.consumers.emulation import EmulatedTransport
from realtime.consumers.streaming import ABORT, BodyError, StreamTransport, cors_headers, read_body
from realtime.node.node import Node
from realtime.protocol.wire import STREAM_JSON
from realtime.session.session import Session
from tests.unit.client.conftest import Clock, build_node


class Peer:
    """The server's side of one request: keeps what is sent, and may stop reading or leave."""

    def __init__(self, **scope: Any) -> None:
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "headers": [],
            "extensions": {ABORT: self.abort},
            **scope,
        }
        self.sent: list[dict[str, Any]] = []
        self.is_aborted = False
        self.is_open = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, event: dict[str, Any]) -> None:
        await self.may_write.wait()
        self.sent.append(event)
        if len(self.sent) == 2:
            self.is_open.set()

    async def receive(self) -> dict[str, Any]:
        return await self.events.get()

    def leave(self) -> None:
        self.events.put_nowait({"type": "http.disconnect"})

    def abort(self) -> None:
        self.is_aborted = True
        self.leave()

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)

    @property
    def is_complete(self) -> bool:
        return not self.sent[-1].get("more_body", False)


@pytest.fixture
def node() -> Node:
    options = ProcessOptions()
    client = msgspec.structs.replace(
        options.client,
        allow_anonymous_connect_without_token=True,
        queue_max_size=200_000,
        allowed_origins=("https://app.example",),
    )
    return build_node(msgspec.structs.replace(options, client=client), Clock())


@pytest.fixture
def peer() -> Peer:
    return Peer()


def open_stream(node: Node, peer: Peer) -> StreamTransport:
    transport = EmulatedTransport(node, STREAM_JSON, peer.scope, peer.receive, peer.send)
    transport.client = Client(
        node, Session("c", "s"), STREAM_JSON, transport, transport_name="http_stream"
    )
    return transport


async def test_messages_are_written_in_whole_chunks(node: Node, peer: Peer) -> None:
    """What waits leaves together up to 64 KiB; no message is cut, and the disconnect push is the last."""
    transport = open_stream(node, peer)
    serving = asyncio.ensure_future(transport.serve(preamble=b"\r\n"))
    await peer.is_open.wait()
    large = b"x" * 40_000

    for message in (b"1\n", b"2\n", large, large):
        transport.write(message)
    transport.close(3503, "force disconnect")
    transport.write(b"too late")
    await serving

    head, *parts = peer.sent
    push = b'{"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}\n'
    assert head["status"] == 200
    assert (b"connection", b"keep-alive") in head["headers"]
    assert [part["body"] for part in parts] == [b"\r\n", b"1\n2\n" + large, large + push, b""]
    assert peer.is_complete
    assert transport.client is not None
    assert transport.client.is_closed


async def test_a_reader_that_stops_is_dropped(
    node: Node, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send that waits for too long ends the connection with all that it holds."""
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT", 0.02)
    transport = open_stream(node, peer)
    serving = asyncio.ensure_future(transport.serve())
    await peer.is_open.wait()

    peer.may_write.clear()
    transport.write(b"never read\n")
    await serving

    assert peer.is_aborted
    assert not peer.is_complete
    assert transport.client is not None
    assert transport.client.is_closed


async def test_a_queue_over_its_limit_is_given_up(node: Node, peer: Peer) -> None:
    """3008: what waits is dropped; the reader gets the reason if it comes back in time."""
    transport = open_stream(node, peer)
    serving = asyncio.ensure_future(transport.serve())
    await peer.is_open.wait()
    peer.may_write.clear()

    for _ in range(10):
        transport.write(b"x" * 30_000)
    assert transport.buffer_size() < 100
    peer.may_write.set()
    await serving

    assert peer.body.count(b"x") <= 60_000
    assert peer.body.endswith(b'{"push":{"disconnect":{"code":3008,"reason":"slow"}}}\n')


async def test_a_peer_that_leaves_ends_the_client(node: Node, peer: Peer) -> None:
    """Nobody is written to, and the application's task ends."""
    transport = open_stream(node, peer)
    serving = asyncio.ensure_future(transport.serve())
    await peer.is_open.wait()

    peer.leave()
    await serving

    assert transport.client is not None
    assert transport.client.is_closed
    assert len(peer.sent) == 2
    assert not peer.is_aborted


async def test_commands_wait_up_to_a_limit(node: Node, peer: Peer) -> None:
    """Posts come whether or not they are welcome; more of them than the queue's limit end the connection."""
    transport = open_stream(node, peer)
    assert isinstance(transport, EmulatedTransport)
    assert transport.client is not None
    transport.pause_reading()

    for _ in range(4):
        transport.deliver(b"x" * 50_000)
    assert not transport.client.is_closed
    transport.deliver(b"x")

    assert transport.client.is_closed


async def test_commands_that_waited_are_carried_out_in_order(
    node: Node, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one request's commands are carried out, those of the next wait."""
    transport = open_stream(node, peer)
    assert isinstance(transport, EmulatedTransport)
    heard: list[bytes] = []
    monkeypatch.setattr(Client, "on_message", lambda _client, data: heard.append(data))
    transport.pause_reading()
    for data in (b"1", b"2", b"3"):
        transport.deliver(data)
    assert heard == []

    transport.resume_reading()

    assert heard == [b"1", b"2", b"3"]


async def test_a_body_is_limited(peer: Peer) -> None:
    """Its size counts, announced or not; one that the peer breaks off is none."""
    for part in (b"ab", b"cd"):
        peer.events.put_nowait({"type": "http.request", "body": part, "more_body": True})
    peer.events.put_nowait({"type": "http.request", "body": b"ef"})
    assert await read_body(peer.scope, peer.receive, 6) == b"abcdef"

    peer.events.put_nowait({"type": "http.request", "body": b"abcdefg", "more_body": True})
    with pytest.raises(BodyError) as refusal:
        await read_body(peer.scope, peer.receive, 6)
    assert refusal.value.status == 413

    with pytest.raises(BodyError):
        await read_body(Peer(headers=[(b"content-length", b"7")]).scope, peer.receive, 6)

    peer.events.put_nowait({"type": "http.request", "body": b"ab", "more_body": True})
    peer.leave()
    assert await read_body(peer.scope, peer.receive, 6) is None


async def test_a_body_that_never_comes(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that sends its body for ever is answered."""
    monkeypatch.setattr(streaming, "BODY_TIMEOUT", 0.01)

    with pytest.raises(BodyError) as refusal:
        await read_body(peer.scope, peer.receive, 6)

    assert refusal.value.status == 408


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {b"access-control-allow-origin": b"", b"access-control-allow-credentials": b"true"}),
        ({"origin": "https://evil.example"}, {}),
        (
            {
                "origin": "https://app.example",
                "access-control-request-headers": "content-type, x-y",
            },
            {
                b"access-control-allow-origin": b"https://app.example",
                b"access-control-allow-credentials": b"true",
                b"access-control-allow-headers": b"content-type, x-y",
            },
        ),
        (
            {"origin": "https://app.example", "access-control-request-headers": "null"},
            {
                b"access-control-allow-origin": b"https://app.example",
                b"access-control-allow-credentials": b"true",
            },
        ),
    ],
)
def test_cors_headers(node: Node, headers: dict[str, str], expected: dict[bytes, bytes]) -> None:
    """Pages of allowed origins may read the response, with the headers that they asked for."""
    scope = {"headers": [(name.encode(), value.encode()) for name, value in headers.items()]}

    assert dict(cors_headers(node, scope)) == expected
