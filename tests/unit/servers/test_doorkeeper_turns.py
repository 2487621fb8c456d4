"""Upgrades that come in a flood wait at the door, with all that their peers send meanwhile."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from uvicorn.config import Config

from realtime.protocol.wire import frame
from realtime.servers.connections import DrainableState, HTTPSettings
from realtime.servers.doorkeeper import Doorkeeper, doorkeeper_class
from realtime.servers.extension import EXTENSION
from realtime.servers.pacing import Turns
from tests.unit.servers.frames import client_frame
from tests.unit.servers.test_frames_protocol import RecordingTransport


REQUEST = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Transport(RecordingTransport):
    """A transport that a doorkeeper can be given."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return bool(self.end)


class Echo:
    """Echoes."""

    connection: Any = None

    def on_message(self, data: bytes, is_text: bool) -> None:
        self.connection.write(frame(data))

    def on_close(self, code: int) -> None: ...


async def _application(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    echo = Echo()
    echo.connection = scope["extensions"][EXTENSION]
    echo.connection.attach(echo)


def _connections(count: int, turns: Turns) -> list[Transport]:
    config = Config(_application, log_config=None)
    config.load()
    made = doorkeeper_class(HTTPSettings(handshakes=turns))
    state = DrainableState()
    transports = [Transport() for _ in range(count)]
    for transport in transports:
        transport.protocol = made(config, state, {})
        transport.protocol.connection_made(transport)
    return transports


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_flood_is_answered_in_slices_and_nothing_is_lost() -> None:
    """Two a round; who waits is not read from, and frames that were read meanwhile count."""
    transports = _connections(6, Turns(2))
    for transport in transports:
        transport.protocol.data_received(REQUEST + client_frame(b"one"))

    waiting = [isinstance(transport.protocol, Doorkeeper) for transport in transports]
    assert waiting == [False, False, *[True] * 4]
    assert not any(transport.is_reading for transport in transports[2:])
    # What a TLS layer had decrypted before it was told to pause.
    transports[-1].protocol.data_received(client_frame(b"two"))
    answered = []
    for _ in range(8):
        await _rounds(1)
        answered.append(sum(bool(transport.written) for transport in transports))

    assert answered[0] <= 2
    assert answered[-1] == 6
    assert max(after - before for before, after in pairwise(answered)) == 2
    echoed = [b"".join(transport.written[1:]) for transport in transports]
    assert echoed == [*[frame(b"one")] * 5, frame(b"one") + frame(b"two")]


async def test_who_leaves_while_waiting_is_forgotten() -> None:
    """The others' turns go on."""
    turns = Turns(1)
    first, second, third = _connections(3, turns)
    for transport in (first, second, third):
        transport.protocol.data_received(REQUEST)
    second.end = "closed"
    second.protocol.connection_lost(None)

    await _rounds(6)

    assert [bool(transport.written) for transport in (first, second, third)] == [True, False, True]
