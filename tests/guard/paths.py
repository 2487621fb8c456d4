"""
The hot paths, each as a function that does one small batch of work, and the work that they are compared with.

Only public seams are used (``TidewireHTTP.data_received``, ``Hub.publish``, ``Client.on_message``,
``FramesProtocol.data_received``), so that what is behind them can be rewritten without touching the guard.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
from msgspec import Raw
from uvicorn.config import Config

from api.lane import DirectLane
from realtime.client.client import Client
from realtime.conf.options import ProcessOptions
from realtime.node.node import Node
from realtime.protocol.messages import Publication, StreamPosition
from realtime.protocol.wire import FRAMES_JSON
from realtime.servers.connections import DrainableState, HTTPSettings
from realtime.servers.extension import EXTENSION, FramesSettings
from realtime.servers.frames_protocol import FramesProtocol
from realtime.servers.http_protocol import http_class
from realtime.session.session import Session
from tests.unit.client.conftest import Clock, build_node
from tests.unit.servers.frames import client_frame


Batch = Callable[[], None]

SUBSCRIBERS = 200
_KEY = "a key for the guard"
_DATA = b'{"text":"a payload of some sixty bytes, as applications have it"}'


class FakeTransport(asyncio.Transport):
    """Takes everything and keeps a count."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, data: Any) -> None:
        """Count."""
        self.count += 1

    direct_write = write

    def uncork(self) -> None:
        """Do nothing: all was written."""

    def set_protocol(self, protocol: Any) -> None:
        """Do nothing: who has the protocol calls it."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: there is no buffer."""

    def get_write_buffer_size(self) -> int:
        """Return that all was written."""
        return 0

    buffer_size = get_write_buffer_size

    def is_closing(self) -> bool:
        """Say that it is open."""
        return False

    def pause_reading(self) -> None:
        """Do nothing: nobody reads."""

    def resume_reading(self) -> None:
        """Do nothing: nobody reads."""

    def close(self, *_: Any) -> None:
        """Do nothing: there is no socket."""


def make_node() -> Node:
    """Put a node on the memory engine together, where anonymous clients may connect; the caller starts and stops it."""
    replace = msgspec.structs.replace
    options = ProcessOptions()
    client = replace(options.client, allow_anonymous_connect_without_token=True)
    http_api = replace(options.http_api, key=_KEY)
    return build_node(replace(options, client=client, http_api=http_api), Clock())


def calibration() -> Batch:
    """
    Return the work that the paths are compared with: calls, slots, dicts, joined bytes, msgspec.

    It is what the paths are made of. No system call is in it: what one costs differs by far more between machines (and
    sandboxes) than what Python costs, and the paths below write to transports that are none.
    """
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder()
    message = {"channel": "room", "data": {"text": "x" * 40}, "offset": 17}

    class Member:
        __slots__ = ("pending", "size")

        def __init__(self) -> None:
            self.pending: list[bytes] = []
            self.size = 0

        def put(self, data: bytes) -> int:
            self.pending.append(data)
            self.size += len(data)
            return self.size

    def batch() -> None:
        members = {number: Member() for number in range(8)}
        for number in range(400):
            payload = encoder.encode(message)
            framed = struct.pack("!BB", 0x81, len(payload) & 0x7F) + payload
            members[number & 7].put(framed)
            decoder.decode(payload)
        for member in members.values():
            b"".join(member.pending)

    return batch


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the lane answers")


def api_publish(node: Node) -> Batch:
    """A publish over the HTTP API, bytes to bytes, to a channel where nobody listens."""
    lane = DirectLane(lambda: node, node.options.http_api)
    config = Config(_no_application, log_config=None)
    config.load()
    state = DrainableState()
    protocol = http_class(HTTPSettings(lane=lane))(config=config, server_state=state, app_state={})
    transport = FakeTransport()
    protocol.connection_made(transport)
    body = b'{"channel":"nobody","data":%b}' % _DATA
    request = (
        b"POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    ) % (_KEY.encode(), len(body), body)

    def batch() -> None:
        before = transport.count
        for _ in range(60):
            protocol.data_received(request)
        assert transport.count - before == 60

    return batch


def fan_out(node: Node) -> Batch:
    """Publications of one channel to a cohort, ten in a tick."""
    transports = [FakeTransport() for _ in range(SUBSCRIBERS)]
    for number, transport in enumerate(transports):
        client = Client(
            node, Session(f"fan-{number}"), FRAMES_JSON, transport, transport_name="websocket"
        )
        client.on_message(_CONNECT, True)
        client.on_message(b'{"id":2,"subscribe":{"channel":"many"}}', True)
    publication = Publication(data=Raw(_DATA))
    nowhere = StreamPosition(0, "")
    hub = node.hub

    def batch() -> None:
        before = transports[-1].count
        for _ in range(10):
            for _ in range(10):
                hub.publish("many", publication, nowhere)
            hub.flush()
        assert transports[-1].count - before == 10

    return batch


_CONNECT = b'{"id":1,"connect":{}}'


def connect(node: Node) -> Batch:
    """A client comes, subscribes to a channel with history, and goes."""
    numbers = count()

    def batch() -> None:
        for _ in range(20):
            transport = FakeTransport()
            name = f"guard-{next(numbers)}"
            client = Client(node, Session(name), FRAMES_JSON, transport, transport_name="websocket")
            client.on_message(_CONNECT, True)
            client.on_message(b'{"id":2,"subscribe":{"channel":"hist:room"}}', True)
            assert transport.count == 2
            client.on_close(1000)

    return batch


async def inbound_publish(node: Node) -> Batch:
    """Frames from a client are unmasked and read, and the publish in each is carried out and answered."""
    transport = FakeTransport()
    attached: list[Client] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connection = scope["extensions"][EXTENSION]
        client = Client(
            node, Session("inbound"), FRAMES_JSON, connection, transport_name="websocket"
        )
        connection.attach(client)
        attached.append(client)

    protocol = FramesProtocol(FramesSettings(), set())
    scope = {"type": "websocket", "headers": []}
    await protocol.start(transport, scope, b"", b"", application)
    await asyncio.sleep(0)  # attached: the handler is called from the next round on
    protocol.data_received(client_frame(_CONNECT))
    assert attached
    frame = client_frame(b'{"id":3,"publish":{"channel":"inbound","data":%b}}' % _DATA)

    def batch() -> None:
        before = transport.count
        for _ in range(100):
            protocol.data_received(frame)
        assert transport.count - before == 100

    return batch
