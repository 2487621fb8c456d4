"""The unidirectional WebSocket over plain ASGI events, as other servers have it."""

from __future__ import annotations

import asyncio
import json
import types

import msgspec
import pytest

from realtime.conf.options import ProcessOptions
from realtime.consumers import uni_websocket as module
from realtime.consumers.uni_websocket import FramesListener
from realtime.engines.base import PublishOptions
from realtime.protocol.messages import Publication
from realtime.protocol.wire import frame
from tests.unit.client.conftest import Clock, build_node


class Peer:
    """One connection of an ASGI server without extensions."""

    def __init__(self, query=b""):
        self.events = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        self.sent = asyncio.Queue()
        self.scope = {"type": "websocket", "headers": [], "query_string": query}
        self.task = asyncio.create_task(
            module.uni_websocket(self.scope, self.events.get, self.sent.put)
        )

    def say(self, text):
        self.events.put_nowait({"type": "websocket.receive", "text": text})

    async def next(self):
        async with asyncio.timeout(30):
            return await self.sent.get()

    async def push(self):
        event = await self.next()
        assert event["type"] == "websocket.send", event
        return [json.loads(line) for line in event["text"].split("\n")]


def varied(**uni):
    default = ProcessOptions()
    client = msgspec.structs.replace(default.client, allow_anonymous_connect_without_token=True)
    section = msgspec.structs.replace(default.uni_websocket, enabled=True, **uni)
    return msgspec.structs.replace(default, client=client, uni_websocket=section)


@pytest.fixture
async def start(monkeypatch):
    nodes = []

    async def started(**uni):
        node = build_node(varied(**uni), Clock())
        await node.start()
        nodes.append(node)

        async def ensure_node():
            return node

        monkeypatch.setattr(module.bootstrap, "ensure_node", ensure_node)
        return node

    yield started
    for node in nodes:
        await node.stop()


async def publish(node, channel, *payloads):
    for data in payloads:
        found = node.table.resolve(channel)
        await node.publish(found, Publication(data=msgspec.Raw(data)), PublishOptions())


@pytest.mark.parametrize("is_joined", [False, True])
async def test_pushes_have_frames_of_their_own_unless_they_may_share(start, is_joined):
    """Several of one tick, which the hub writes at once."""
    node = await start(join_push_messages=is_joined)
    peer = Peer()
    assert (await peer.next())["type"] == "websocket.accept"
    peer.say('{"subs":{"a":{}}}')
    ((connected,),) = [await peer.push()]

    await publish(node, "a", b"1", b"2")

    first = await peer.push()
    pushes = first if is_joined else [*first, *(await peer.push())]
    assert connected["connect"]["subs"] == {"a": {}}
    assert len(first) == (2 if is_joined else 1)
    assert pushes == [{"channel": "a", "pub": {"data": n}} for n in (1, 2)]
    peer.events.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await peer.task
    assert node.connections == set()


@pytest.mark.parametrize("has_push", [True, False])
async def test_the_end_is_told_twice(start, has_push):
    """By a push, unless that is off, and the close."""
    node = await start(disable_disconnect_push=not has_push)
    peer = Peer(b"cf_connect=%7B%7D")
    await peer.next()
    await peer.push()

    for client in list(node.connections):
        client.disconnect(3503, "out")

    if has_push:
        assert await peer.push() == [{"disconnect": {"code": 3503, "reason": "out"}}]
    assert await peer.next() == {"type": "websocket.close", "code": 3503, "reason": "out"}
    peer.events.put_nowait({"type": "websocket.disconnect", "code": 3503})
    await peer.task


async def test_what_is_no_request_gets_a_close_alone(start):
    """As from the reference."""
    node = await start()
    peer = Peer()
    await peer.next()

    peer.say("{bad")

    assert await peer.next() == {"type": "websocket.close", "code": 3501, "reason": "bad request"}
    await peer.task
    assert node.connections == set()


async def test_a_reader_that_is_too_slow_is_closed(start):
    """Its queue is dropped."""
    node = await start()
    peer = Peer(b"cf_connect=" + b"%7B%22subs%22%3A%7B%22a%22%3A%7B%7D%7D%7D")
    await peer.next()
    await peer.push()

    await publish(node, "a", *[b'"%b"' % (b"x" * 300_000)] * 4)

    assert await peer.next() == {"type": "websocket.close", "code": 3008, "reason": "slow"}
    peer.events.put_nowait({"type": "websocket.disconnect", "code": 3008})
    await peer.task


async def test_a_push_that_fills_the_buffer_ends_the_connection_once(start):
    """The disconnect push itself may be what the transport can't take."""
    node = await start()
    written = []
    connection = types.SimpleNamespace(
        buffer_size=lambda: 2**30, uncork=lambda: None, pause_reading=None, resume_reading=None,
        direct_write=None, negotiated_compression=False, close=lambda *end: written.append(end),
    )  # fmt: skip

    def write(data):
        written.append(data)
        listener.on_pause()

    connection.write = write
    listener = FramesListener(node, connection, "")

    listener.client.disconnect(3503, "out")

    assert written == [frame(b'{"disconnect":{"code":3503,"reason":"out"}}'), (3503, "out")]
    assert node.connections == set()
