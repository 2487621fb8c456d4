"""PING frames in place of the protocol's pings, and compressed connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import pytest
import websockets

from tests.live.conftest import MakeSdk
from tests.live.harness import Server, make_token


pytestmark = pytest.mark.live

MakeServer = Callable[[Mapping[str, str]], Server]


async def _connected(
    url: str, *, compression: str | None = None
) -> tuple[websockets.ClientConnection, dict[str, object]]:
    socket = await websockets.connect(url, compression=compression, ping_interval=None)
    await socket.send(json.dumps({"id": 1, "connect": {"token": make_token("u")}}))
    reply = json.loads(await asyncio.wait_for(socket.recv(), 30))
    return socket, reply["connect"]


async def test_ping_frames_replace_the_protocols_pings(make_server: MakeServer) -> None:
    """The connect reply announces none, the client's library answers them, and the connection lives."""
    options = {"TIDEWIRE_CLIENT_PING_INTERVAL": "600ms", "TIDEWIRE_CLIENT_PONG_TIMEOUT": "200ms"}
    server = await asyncio.to_thread(make_server, options)

    socket, result = await _connected(f"{server.websocket_url}?cf_ws_frame_ping_pong=true")

    assert "ping" not in result
    assert "pong" not in result
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(socket.recv(), 2.5)
    await socket.close()


async def test_compressed_and_plain_subscribers_get_the_same(make_server: MakeServer) -> None:
    """With ``websocket.compression`` a client that offers it gets compressed messages, others plain ones."""
    server = await asyncio.to_thread(make_server, {"TIDEWIRE_WEBSOCKET_COMPRESSION": "true"})
    compressed, _ = await _connected(server.websocket_url, compression="deflate")
    plain, _ = await _connected(server.websocket_url)
    for socket in (compressed, plain):
        await socket.send(json.dumps({"id": 2, "subscribe": {"channel": "hist:big"}}))
        assert "subscribe" in json.loads(await asyncio.wait_for(socket.recv(), 30))

    data = {"text": "lorem ipsum " * 500}
    await asyncio.to_thread(server.publish, "hist:big", data)

    for socket in (compressed, plain):
        push = json.loads(await asyncio.wait_for(socket.recv(), 30))
        assert push["push"]["pub"]["data"] == data
        await socket.close()
    if server.shape == "serve":
        assert [extension.name for extension in compressed.protocol.extensions] == [
            "permessage-deflate"
        ]


@pytest.mark.parametrize(
    "sdk_kind",
    [
        "js-json",
        "python-protobuf",
        pytest.param("go-json", marks=pytest.mark.go),
        pytest.param("go-protobuf", marks=pytest.mark.go),
    ],
    indirect=True,
)
async def test_an_sdk_that_compresses_is_understood_and_understands(
    make_server: MakeServer, make_sdk: MakeSdk, sdk_kind: str
) -> None:
    """What it publishes comes back, again after a lost connection; that of others comes with fewer bytes."""
    server = await asyncio.to_thread(make_server, {"TIDEWIRE_WEBSOCKET_COMPRESSION": "true"})
    client = await make_sdk(server)
    # The other libraries offer it by themselves.
    asked = {"compression": True} if sdk_kind.startswith("go") else {}
    await client.connect(**asked)
    await client.subscribe("load:one", recoverable=True)
    data = {"text": "lorem ipsum äöü€😀 " * 1000}

    for turn in range(2):
        await client.do("publish", channel="load:one", data={**data, "turn": turn})
        assert (await client.wait("publication"))["data"] == {**data, "turn": turn}
        await client.do("kill")
        await asyncio.to_thread(server.publish, "load:one", {**data, "missed": turn})
        assert (await client.wait("publication"))["data"] == {**data, "missed": turn}

    if sdk_kind.startswith("go"):
        whole = 4 * len(json.dumps(data))
        received = await client.do("received_bytes")
        assert received < whole / 4 if server.shape == "serve" else received > whole / 2


async def test_compression_is_off_unless_it_is_asked_for(server: Server) -> None:
    """A client that offers it gets plain messages."""
    socket, _ = await _connected(server.websocket_url, compression="deflate")

    assert socket.protocol.extensions == []
    await socket.close()
