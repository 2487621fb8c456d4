"""
HTTP streaming and SSE as they are on the wire, against both servers.

What SDKs make of them is in ``test_sdk.py``, which runs over these transports too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from realtime.protocol.client_pb2 import Command, EmulationRequest, Reply
from tests.live.harness import Server, make_token
from tests.live.streams import commands, session, sse_path, stream


pytestmark = pytest.mark.live

CONNECT: Mapping[str, Any] = {"id": 1, "connect": {}}
HTTP_STREAM = "/connection/http_stream"
PREFLIGHT = {
    "access-control-max-age": "300",
    "access-control-allow-methods": "POST, OPTIONS",
    "access-control-allow-origin": "http://app.example",
    "access-control-allow-credentials": "true",
    "access-control-allow-headers": "content-type",
}

both = pytest.mark.parametrize("transport", ["http_stream", "sse"])


async def eventually(is_so: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def num_clients(server: Server, channel: str) -> int:
    stats = await asyncio.to_thread(server.call, "presence_stats", channel=channel)
    count: int = stats["num_clients"]
    return count


async def test_http_stream(server: Server) -> None:
    """The head comes first, then a line for each message: replies to all commands of the body, and pushes."""
    body = commands(CONNECT, {"id": 2, "subscribe": {"channel": "hist:stream-head"}})
    async with stream(server, HTTP_STREAM, body) as opened:
        assert opened.status == 200
        assert opened.headers["cache-control"] == (
            "private, no-cache, no-store, must-revalidate, max-age=0"
        )
        assert opened.headers["pragma"] == "no-cache"
        assert opened.headers["expire"] == "0"
        assert opened.headers["x-accel-buffering"] == "no"
        assert opened.headers["connection"] == "keep-alive"
        assert opened.headers["transfer-encoding"] == "chunked"
        connected = (await opened.line())["connect"]
        assert connected["ping"] == 25
        assert connected["pong"] is True
        assert connected["session"] != connected["client"]
        assert (await opened.line())["subscribe"]["recoverable"] is True

        await asyncio.to_thread(server.publish, "hist:stream-head", {"n": 1})

        push = (await opened.line())["push"]
        assert push["channel"] == "hist:stream-head"
        assert push["pub"]["data"] == {"n": 1}
        assert push["pub"]["offset"] == 1


async def test_sse(server: Server) -> None:
    """A line break opens the stream; each message is one event of one line, though its payload came in several."""
    async with stream(server, sse_path(CONNECT)) as opened:
        assert opened.status == 200
        assert opened.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert opened.headers["x-accel-buffering"] == "no"
        assert await opened.until(b"data: ") == b"\r\n"
        assert b'"connect":{' in await opened.until(b"\n\n")

    body = commands(CONNECT, {"id": 2, "subscribe": {"channel": "sse-lines"}})
    async with stream(server, "/connection/sse", body) as opened:
        await opened.event()
        await opened.event()
        text = b'{"channel":"sse-lines","data":{"a":\r\n1}}'
        key = {"X-API-Key": "a key for live tests"}
        await asyncio.to_thread(server.request, "/api/publish", text, key)
        push = await opened.until(b"\n\n")
    assert push == b'data: {"push":{"channel":"sse-lines","pub":{"data":{"a":1}}}}'


async def test_protobuf(server: Server) -> None:
    """The content type chooses the encoding of the stream, and of each command."""
    binary = {"Content-Type": "application/octet-stream"}

    def delimited(command: Command) -> bytes:
        text = command.SerializeToString()
        return bytes([len(text)]) + text

    connect = Command(id=1)
    connect.connect.SetInParent()
    async with stream(server, HTTP_STREAM, delimited(connect), binary) as opened:
        chunk = await opened.chunk()
        reply = Reply()
        reply.ParseFromString(chunk[2:] if chunk[0] >= 0x80 else chunk[1:])
        assert reply.connect.session
        subscribe = Command(id=2)
        subscribe.subscribe.channel = "stream-protobuf"
        request = EmulationRequest(
            session=reply.connect.session,
            node=reply.connect.node,
            data=delimited(subscribe),
        )

        answer = await asyncio.to_thread(
            server.request, "/emulation", request.SerializeToString(), binary
        )

        assert answer.status == 204
        reply.ParseFromString((await opened.chunk())[1:])
        assert reply.id == 2
        assert reply.HasField("subscribe")


@both
async def test_commands_by_posts(server: Server, transport: str) -> None:
    """Commands in one request are carried out in order; their replies are on the stream."""
    async with session(server, transport) as opened:
        channel = f"post-{transport}-{server.shape}"

        status = await opened.send(
            {"id": 2, "subscribe": {"channel": channel}},
            {"id": 3, "publish": {"channel": channel, "data": {"x": 1}}},
            server=server,
        )

        assert status == 204
        assert await opened.receive() == {"id": 2, "subscribe": {}}
        messages = [await opened.receive(), await opened.receive()]
        assert {"id": 3, "publish": {}} in messages
        (push,) = [one["push"] for one in messages if "push" in one]
        assert push["pub"]["data"] == {"x": 1}


@both
@pytest.mark.parametrize("data", ["", "{]", "{}", '{"id":9,"nothing":{}}', None])
async def test_bad_commands_end_the_stream(
    server: Server, transport: str, data: str | None
) -> None:
    """The request is answered as any other; the stream says 3501 (a pong that nobody asked for too) and ends."""
    async with session(server, transport) as opened:
        status = await opened.post(data, server, is_text=data is not None)

        assert status == 204
        assert await opened.receive() == {
            "push": {"disconnect": {"code": 3501, "reason": "bad request"}}
        }
        assert await opened.receive() is None
        assert opened.stream.is_ended


@pytest.mark.parametrize("body", [b"", b"{}", b'{"id":1,"subscribe":{"channel":"a"}}', b"\xff"])
async def test_a_stream_begins_with_a_connect(server: Server, body: bytes) -> None:
    """What is wrong with it is said in the response, whose status is 200 by then."""
    async with stream(server, HTTP_STREAM, body) as opened:
        assert opened.status == 200
        assert (await opened.line())["push"]["disconnect"]["code"] == 3501
        assert await opened.line() is None


async def test_a_refused_connect(server: Server) -> None:
    """Error replies and disconnects come as on a WebSocket."""
    expired = make_token("ann", lifetime=-100)
    async with stream(
        server, HTTP_STREAM, commands({"id": 1, "connect": {"token": expired}})
    ) as one:
        assert (await one.line())["error"]["code"] == 109
    async with stream(server, HTTP_STREAM, commands({"id": 1, "connect": {"token": "no"}})) as one:
        assert (await one.line())["push"]["disconnect"]["code"] == 3500
        assert await one.line() is None


@pytest.mark.parametrize(
    ("method", "path", "size", "status"),
    [
        ("PUT", HTTP_STREAM, 2, 405),
        ("GET", HTTP_STREAM, 0, 405),
        ("POST", HTTP_STREAM, 65_537, 413),
        ("GET", "/connection/sse", 0, 400),
        ("PUT", "/connection/sse", 2, 405),
        ("POST", "/connection/sse", 65_537, 413),
        ("GET", "/emulation", 0, 405),
        ("POST", "/emulation", 65_537, 413),
        ("POST", HTTP_STREAM + "/", 2, 404),
        ("POST", "/connection/sockjs", 2, 404),
    ],
)
def test_requests_that_are_refused(
    server: Server, method: str, path: str, size: int, status: int
) -> None:
    """Wrong methods, bodies over 64 KiB, and paths that are nearly right."""
    body = b"x" * size if size else None

    answer = server.request(path, body, method=method)

    assert answer.status == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"node":"nobody","session":"s","data":"{}"}', 404),
        (b'{"node":"NODE","session":"nobody","data":"{}"}', 204),
        (b'{"node":"NODE","session":"nobody","data":1}', 204),
    ],
)
def test_emulation_answers(server: Server, body: bytes, status: int) -> None:
    """What is delivered is 204, for a session that is gone too; a node that isn't there is 404."""
    node = server.call("info")["nodes"][0]["uid"]

    answer = server.request("/emulation", body.replace(b"NODE", node.encode()))

    assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize("path", [HTTP_STREAM, "/emulation"])
def test_preflight(server: Server, path: str) -> None:
    """A page of an allowed origin may; one of another gets no such headers."""
    asked = {"Access-Control-Request-Headers": "content-type"}

    allowed = server.request(path, None, {"Origin": "http://app.example", **asked}, "OPTIONS")
    other = server.request(path, None, {"Origin": "http://evil.example", **asked}, "OPTIONS")

    assert (allowed.status, other.status) == (204, 204)
    given = {name.lower(): value for name, value in allowed.headers.items()}
    assert {name: given[name] for name in PREFLIGHT} == PREFLIGHT
    assert "access-control-allow-origin" not in {name.lower() for name in other.headers}


@both
async def test_other_origins_are_served_and_cannot_read(server: Server, transport: str) -> None:
    """Unlike a WebSocket, a stream isn't refused: the browser keeps it from the page."""
    is_sse = transport == "sse"
    for origin, allowed in (("http://app.example", True), ("http://evil.example", False)):
        path = sse_path(CONNECT) if is_sse else HTTP_STREAM
        body = None if is_sse else commands(CONNECT)
        async with stream(server, path, body, {"Origin": origin}) as opened:
            assert opened.status == 200
            assert opened.headers.get("access-control-allow-origin") == (
                origin if allowed else None
            )
            assert b"connect" in await opened.until(b"\n\n" if is_sse else b"\n")


@both
async def test_disconnect_by_the_api(server: Server, transport: str) -> None:
    """The last message says why; then the response ends and the connection may serve the next request."""
    user = f"user-{transport}-{server.shape}"
    async with session(server, transport, token=make_token(user)) as opened:
        await asyncio.to_thread(server.call, "disconnect", user=user)

        assert await opened.receive() == {
            "push": {"disconnect": {"code": 3503, "reason": "force disconnect"}}
        }
        assert await opened.receive() is None
        opened.stream.writer.write(b"GET /emulation HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await opened.stream.read_head()
        assert opened.stream.status == 405


@both
async def test_a_reader_that_leaves_is_noticed(server: Server, transport: str) -> None:
    """Its presence goes when its socket does, not with the next ping."""
    channel = f"room:leaves-{transport}-{server.shape}"
    async with session(server, transport) as opened:
        await opened.send({"id": 2, "subscribe": {"channel": channel}}, server=server)
        await opened.receive()
        assert await num_clients(server, channel) == 1

    async def is_empty() -> bool:
        return await num_clients(server, channel) == 0

    await eventually(is_empty, 3)


@both
async def test_pings(make_server: Callable[..., Server], transport: str) -> None:
    """A pong is a post of an empty command; without one the stream ends with 3012."""
    options = {
        "TIDEWIRE_CLIENT_PING_INTERVAL": "2s",
        "TIDEWIRE_CLIENT_PONG_TIMEOUT": "500ms",
    }
    server = make_server(options)
    async with session(server, transport) as opened:
        assert await opened.receive() == {}
        assert await opened.send({}, server=server) == 204
        assert await opened.receive() == {}
        assert await opened.receive() == {
            "push": {"disconnect": {"code": 3012, "reason": "no pong"}}
        }
        assert await opened.receive() is None


@both
async def test_a_reader_that_stops_is_dropped(
    make_server: Callable[..., Server], transport: str
) -> None:
    """What it doesn't read is bounded, its neighbours are served meanwhile, and its socket is let go of."""
    server = make_server({"TIDEWIRE_CLIENT_QUEUE_MAX_SIZE": "300000"})
    channel = "room:slow"
    subscribe = {"id": 2, "subscribe": {"channel": channel}}
    is_sse = transport == "sse"
    path = sse_path(CONNECT, subscribe) if is_sse else HTTP_STREAM
    body = None if is_sse else commands(CONNECT, subscribe)
    async with (
        stream(server, path, body, receive_buffer=4096),
        session(server, transport) as neighbour,
    ):
        await neighbour.send(subscribe, server=server)
        sockets_before = _sockets(server)
        before = _peak_memory(server)

        async def is_alone() -> bool:
            await asyncio.to_thread(server.publish, channel, "x" * 60_000)
            while True:
                message = await neighbour.receive()
                if "pub" in message.get("push", {}):
                    break
            return await num_clients(server, channel) == 1

        await eventually(is_alone, 20)

        async def has_let_go() -> bool:
            return _sockets(server) < sockets_before

        await eventually(has_let_go, 5)
        assert _peak_memory(server) - before < 32 * 1024 * 1024


@both
async def test_shutdown(make_server: Callable[..., Server], transport: str) -> None:
    """Clients are sent away with 3001, which they hear before the server is gone."""
    server = make_server({})
    async with session(server, transport) as opened:
        await asyncio.to_thread(server.stop)

        assert await opened.receive() == {
            "push": {"disconnect": {"code": 3001, "reason": "shutdown"}}
        }
        assert await opened.receive() is None


async def test_limits_of_the_node(make_server: Callable[..., Server]) -> None:
    """One connection too many is answered with 503, on every transport; commands are no connections."""
    server = make_server({"TIDEWIRE_CLIENT_CONNECTION_LIMIT": "1"})
    async with session(server, "http_stream") as opened:
        body = commands(CONNECT)
        answer = await asyncio.to_thread(server.request, HTTP_STREAM, body)
        assert (answer.status, answer.body) == (503, b"")
        answer = await asyncio.to_thread(server.request, sse_path(CONNECT))
        assert answer.status == 503
        assert await opened.send({"id": 2, "subscribe": {"channel": "a"}}, server=server) == 204


def test_transports_that_are_off(make_server: Callable[..., Server]) -> None:
    """Each is off by default, and emulation with the last of them."""
    server = make_server({"TIDEWIRE_HTTP_STREAM_ENABLED": "false", "TIDEWIRE_SSE_ENABLED": "false"})

    for path in (HTTP_STREAM, "/connection/sse", "/emulation"):
        assert server.request(path, b"{}").status == 404


def test_tokens_stay_out_of_the_access_log(server: Server) -> None:
    """An event stream has its token in the address."""
    secret = "a-secret-of-someone"
    server.request("/connection/sse?" + f"cf_connect=%7B%22token%22%3A%22{secret}")

    assert secret not in server.log


def _sockets(server: Server) -> int:
    folder = f"/proc/{server.pid}/fd"
    count = 0
    for name in os.listdir(folder):
        try:
            count += os.readlink(f"{folder}/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return count


def _peak_memory(server: Server) -> int:
    """Bytes."""
    with open(f"/proc/{server.pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
