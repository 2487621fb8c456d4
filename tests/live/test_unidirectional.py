"""Unidirectional transports on both servers and both engines, by ``curl -N`` and a plain WebSocket client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as sockets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.live.conftest import copy_database
from tests.live.harness import SHAPES, Server, make_token
from tests.live.listeners import curl, listener, query, socket
from tests.redis_servers import RedisServer, single


pytestmark = [pytest.mark.live, pytest.mark.redis, pytest.mark.timeout(120)]

MakeServer = Callable[[Mapping[str, str]], Server]

TRANSPORTS = ("uni_websocket", "uni_sse", "uni_http_stream")
STREAMS = ("uni_sse", "uni_http_stream")
ENABLED = {f"TIDEWIRE_{name.upper()}_ENABLED": "true" for name in TRANSPORTS}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Give a Redis of this module's own."""
    with single() as server:
        yield server


@pytest.fixture(
    scope="module", params=[(shape, engine) for shape in SHAPES for engine in ("memory", "redis")],
    ids="-".join,
)  # fmt: skip
def server(
    request: pytest.FixtureRequest,
    redis: RedisServer,
    database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Give a server with the transports on."""
    shape, engine = request.param
    options = dict(ENABLED)
    if engine == "redis":
        options.update(TIDEWIRE_ENGINE_TYPE="redis", TIDEWIRE_ENGINE_REDIS_ADDRESS=redis.address)
    folder = tmp_path_factory.mktemp(f"{shape}-{engine}")
    copy_database(database, folder)
    server = Server(shape, folder, options).start()
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)


def clients(server: Server) -> int:
    return int(server.call("info")["nodes"][0]["num_clients"])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_listener_hears_all_that_the_server_api_does(
    server: Server, transport: str
) -> None:
    """The session that the connect push names narrows each call to one connection; the last push says why it ends."""
    user = f"all-{transport}"
    request = {"token": make_token(user, lifetime=600), "subs": {f"a-{user}": {}}}
    async with (
        listener(server, transport, request) as one,
        listener(server, transport, request) as other,
    ):
        connected = (await one.receive())["connect"]
        await other.receive()
        this = {"user": user, "session": connected["session"]}

        def act() -> None:
            server.publish(f"a-{user}", {"text": "line\nbreak"})
            server.call("subscribe", channel=f"b-{user}", **this)
            server.publish(f"b-{user}", 1)
            server.call("unsubscribe", channel=f"b-{user}", **this)
            server.call("refresh", expire_at=int(time.time()) + 1000, **this)
            server.call("disconnect", **this)

        await asyncio.to_thread(act)
        pushes = await one.rest()
        heard_by_other = [await other.receive()]

    assert connected.keys() == {
        "client", "version", "subs", "expires", "ttl", "ping", "session",
    }  # fmt: skip
    assert connected["subs"] == {f"a-{user}": {}}
    assert pushes[:4] == [
        {"channel": f"a-{user}", "pub": {"data": {"text": "line\nbreak"}}},
        {"channel": f"b-{user}", "subscribe": {}},
        {"channel": f"b-{user}", "pub": {"data": 1}},
        {"channel": f"b-{user}", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}},
    ]
    assert pushes[4]["refresh"]["expires"] is True
    assert 990 < pushes[4]["refresh"]["ttl"] <= 1000
    assert pushes[5:] == [{"disconnect": {"code": 3503, "reason": "force disconnect"}}]
    assert heard_by_other == pushes[:1]
    if transport == "uni_websocket":
        assert one.close == (3503, "force disconnect")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_subs_bring_back_what_was_missed(server: Server, transport: str) -> None:
    """Also what is published while the new connection begins, once and in order."""
    channel = f"hist:{transport}-{server.port}"  # the servers of one engine share its history
    await asyncio.to_thread(server.publish, channel, 1)
    async with listener(server, transport, {"subs": {channel: {}}}) as first:
        known = (await first.receive())["connect"]["subs"][channel]
    await asyncio.to_thread(server.publish, channel, 2)
    await asyncio.to_thread(server.publish, channel, 3)

    position = {"recover": True, "offset": known["offset"], "epoch": known["epoch"]}
    async with listener(server, transport, {"subs": {channel: position}}) as second:
        back = (await second.receive())["connect"]["subs"][channel]
        await asyncio.to_thread(server.publish, channel, 4)
        live = await second.receive()

    assert known["offset"] == 1
    assert back["recovered"] is True
    assert back["was_recovering"] is True
    assert back["publications"] == [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}]
    assert live == {"channel": channel, "pub": {"data": 4, "offset": 4}}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("request_", "disconnect"),
    [
        ({"token": "garbage"}, (3500, "invalid token")),
        ({"token": make_token("u", lifetime=-60)}, (3005, "connection expired")),
        ({"token": make_token("u", channels=["nope:a"])}, (3004, "internal server error")),
    ],
)
async def test_a_refused_connect_is_a_disconnect(
    server: Server, transport: str, request_: Any, disconnect: tuple[int, str]
) -> None:
    """An error reply has no place here."""
    async with listener(server, transport, request_) as client:
        pushes = await client.rest()

    assert pushes == [{"disconnect": {"code": disconnect[0], "reason": disconnect[1]}}]
    if transport == "uni_websocket":
        assert client.close == disconnect


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_listener_that_vanishes_is_noticed(server: Server, transport: str) -> None:
    """Within seconds, and its presence ends with it."""
    await until(lambda: clients(server) == 0)
    request = {"token": make_token("gone"), "subs": {f"room:{transport}": {}}}
    async with listener(server, transport, request) as client:
        await client.receive()
        assert await asyncio.to_thread(clients, server) == 1

    await until(lambda: clients(server) == 0)
    await until(
        lambda: server.call("presence_stats", channel=f"room:{transport}")["num_clients"] == 0
    )


async def test_heads_of_streams(server: Server) -> None:
    """Nothing between may keep or gather the response; pages of allowed origins may read it."""
    async with curl(
        server, "/connection/uni_http_stream", "-d", "{}", "-H", "Origin: http://app.example"
    ) as lines:
        first = await lines.line()
    async with curl(server, "/connection/uni_sse") as events:
        preamble = await events.line()
        event = await events.line()

    assert lines.head.startswith("http/1.1 200")
    assert "access-control-allow-origin: http://app.example\r\n" in lines.head
    assert "x-accel-buffering: no\r\n" in lines.head
    assert first.startswith(b'{"connect":{')
    assert "content-type: text/event-stream; charset=utf-8\r\n" in events.head
    assert "cache-control: private, no-cache" in events.head
    assert preamble == b"\r\n"
    assert event.startswith(b'data: {"connect":{')


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/connection/uni_http_stream", b"", 400),
        ("POST", "/connection/uni_http_stream", b"{bad", 400),
        ("POST", "/connection/uni_http_stream", b'{"token":"' + b"x" * 65536 + b'"}', 413),
        ("GET", "/connection/uni_http_stream", None, 405),
        ("OPTIONS", "/connection/uni_http_stream", None, 204),
        ("POST", "/connection/uni_sse", b"[]", 400),
        ("POST", "/connection/uni_sse", b'{"token":"' + b"x" * 65536 + b'"}', 413),
        ("GET", "/connection/uni_sse?cf_connect=%7Bbad", None, 400),
        ("PUT", "/connection/uni_sse", b"{}", 405),
        ("GET", "/connection/uni_websocket", None, 400),
        ("GET", "/connection/uni_sse/", None, 404),
    ],
)
async def test_what_is_no_request_is_refused_by_http(
    server: Server, method: str, path: str, body: bytes | None, status: int
) -> None:
    """Before any stream begins."""
    answer = await asyncio.to_thread(server.request, path, body, {}, method)

    assert answer.status == status
    if method == "OPTIONS":
        assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"


async def test_a_request_may_stand_in_a_body_of_sse(server: Server) -> None:
    """A POST, for who reads events without ``EventSource``."""
    request = json.dumps({"token": make_token("post"), "subs": {"c": {}}})
    async with curl(server, "/connection/uni_sse", "--data", request) as events:
        assert (await events.receive())["connect"]["subs"] == {"c": {}}


async def test_a_request_may_stand_in_the_query_of_a_websocket(server: Server) -> None:
    """Then no message is needed, and those that come are ignored."""
    path = "/connection/uni_websocket" + query({"subs": {"q": {}}})
    async with socket(server, path=path) as client:
        assert (await client.receive())["connect"]["subs"] == {"q": {}}
        await client.socket.send("{bad")
        await client.socket.send(json.dumps({"token": "garbage"}))
        await asyncio.to_thread(server.publish, "q", 1)
        assert await client.receive() == {"channel": "q", "pub": {"data": 1}}


async def test_what_is_no_request_on_a_websocket(server: Server) -> None:
    """In the query: 400 before the upgrade. In a message: a close alone; a large one gets the usual code."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with socket(server, path="/connection/uni_websocket?cf_connect=%5B%5D"):
            pass
    async with socket(server) as bad:
        await bad.socket.send("{bad")
        assert await bad.rest() == []
    async with socket(server) as large:
        await large.socket.send("x" * 65537)
        assert await large.rest() == []
    with pytest.raises(websockets.InvalidStatus) as foreign:
        async with socket(server, origin="http://evil.example"):
            pass

    assert refused.value.response.status_code == 400
    assert bad.close == (3501, "bad request")
    assert large.close == (1009, "")
    assert foreign.value.response.status_code == 403


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_reader_that_stays_behind_is_dropped(server: Server, transport: str) -> None:
    """It is gone within seconds, its queue with it, and the others get everything meanwhile."""
    await until(lambda: clients(server) == 0)
    channel = f"flood-{transport}"
    request = json.dumps({"subs": {channel: {}}})
    stuck = sockets.socket()
    stuck.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", server.port))
    path = f"/connection/{transport}{query({'subs': {channel: {}}})}"
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    if transport == "uni_http_stream":
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(request)}\r\n\r\n{request}"
    else:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\n{upgrade if 'web' in transport else ''}\r\n"
    stuck.sendall(head.encode())
    await until(lambda: clients(server) == 1)

    async with listener(server, transport, {"subs": {channel: {}}}) as good:
        await good.receive()
        assert await asyncio.to_thread(clients, server) == 2

        def flood() -> None:
            for number in range(1000):
                server.publish(channel, {"n": number, "x": "x" * 20000})
                if number % 20 == 0 and clients(server) == 1:
                    server.publish(channel, "end")
                    return
            raise AssertionError("the reader that is stuck was kept")

        flooding = asyncio.create_task(asyncio.to_thread(flood))
        seen = []
        while (data := (await good.receive())["pub"]["data"]) != "end":
            seen.append(data["n"])
        await flooding
    assert seen == list(range(len(seen)))
    stuck.close()


# --- options ----------------------------------------------------------------------------------------


async def test_pings_come_and_frames_have_to_be_answered(make_server: MakeServer) -> None:
    """Streams get empty pushes, a WebSocket PING frames as well: who leaves those unanswered is sent away."""
    options = {"TIDEWIRE_CLIENT_PING_INTERVAL": "600ms", "TIDEWIRE_CLIENT_PONG_TIMEOUT": "300ms"}
    server = await asyncio.to_thread(make_server, {**ENABLED, **options})
    async with (
        listener(server, "uni_websocket", {}) as answering,
        listener(server, "uni_sse", {}) as events,
        listener(server, "uni_http_stream", {}) as lines,
    ):
        for client in (answering, events, lines):
            assert "connect" in await client.receive()
            assert [await client.receive() for _ in range(3)] == [{}, {}, {}]

    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /connection/uni_websocket?cf_connect={} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    written = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2.5):
            while chunk := await reader.read(4096):
                written += chunk
    writer.close()

    assert b"\x89\x00\x81\x02{}" in written  # a PING frame and a ping
    assert b'{"disconnect":{"code":3012,"reason":"no pong"}}\x88' in written


async def test_a_node_that_is_full_says_so(make_server: MakeServer) -> None:
    """By 503, before anything else."""
    server = await asyncio.to_thread(
        make_server, {**ENABLED, "TIDEWIRE_CLIENT_CONNECTION_LIMIT": "1"}
    )
    async with socket(server, {}) as only:
        await only.receive()
        answers = [
            await asyncio.to_thread(server.request, f"/connection/{transport}", b"{}")
            for transport in STREAMS
        ]
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with socket(server):
                pass

    assert [(answer.status, answer.body) for answer in answers] == [(503, b"")] * 2
    assert refused.value.response.status_code == 503


async def test_who_asks_for_nothing_is_stale(make_server: MakeServer) -> None:
    """With a push and a close."""
    options = {"TIDEWIRE_CLIENT_STALE_CLOSE_DELAY": "300ms"}
    server = await asyncio.to_thread(make_server, {**ENABLED, **options})
    async with socket(server) as client:
        pushes = await client.rest()

    assert pushes == [{"disconnect": {"code": 3502, "reason": "stale"}}]
    assert client.close == (3502, "stale")


async def test_options_of_the_websocket(make_server: MakeServer) -> None:
    """The push and the close frame can be left out, pushes can share a frame, messages have limits of their own."""
    options = {
        "TIDEWIRE_UNI_WEBSOCKET_DISABLE_DISCONNECT_PUSH": "true",
        "TIDEWIRE_UNI_WEBSOCKET_DISABLE_CLOSING_HANDSHAKE": "true",
        "TIDEWIRE_UNI_WEBSOCKET_JOIN_PUSH_MESSAGES": "true",
        "TIDEWIRE_UNI_WEBSOCKET_MESSAGE_SIZE_LIMIT": "1000",
        "TIDEWIRE_UNI_WEBSOCKET_HANDLER_PREFIX": "/listen",
        "TIDEWIRE_UNI_WEBSOCKET_COMPRESSION": "true",
        "TIDEWIRE_WEBSOCKET_WRITE_DELAY": "100ms",
        "TIDEWIRE_CLIENT_PING_INTERVAL": "600ms",
        "TIDEWIRE_CLIENT_PONG_TIMEOUT": "300ms",
    }
    server = await asyncio.to_thread(make_server, {**ENABLED, **options})
    request = {"token": make_token("u"), "subs": {"a": {}}}
    async with socket(server, request, path="/listen", compression="deflate") as client:
        await client.receive()
        await asyncio.to_thread(
            server.api,
            "batch",
            {"commands": [{"publish": {"channel": "a", "data": n}} for n in (1, 2)]},
        )
        pushes = [push for push in [await client.receive() for _ in range(4)] if push]
        await asyncio.to_thread(server.call, "disconnect", user="u")
        rest = await client.rest()
    async with socket(server, path="/listen", compression=None) as large:
        await large.socket.send("x" * 1001)
        await large.rest()

    assert pushes[:2] == [{"channel": "a", "pub": {"data": n}} for n in (1, 2)]
    assert '{"channel":"a","pub":{"data":1}}\n{"channel":"a","pub":{"data":2}}' in client.frames
    assert [push for push in rest if push] == []
    assert client.close == (1006, "")
    assert large.close == (1009, "")
    assert bool(client.socket.protocol.extensions) is (server.shape == "serve")


async def test_compressed_and_plain_listeners_get_the_same(make_server: MakeServer) -> None:
    """``uni_websocket.compression`` is an option of its own."""
    server = await asyncio.to_thread(
        make_server, {**ENABLED, "TIDEWIRE_UNI_WEBSOCKET_COMPRESSION": "true"}
    )
    request = {"subs": {"a": {}}}
    data = {"text": "lorem ipsum " * 500}
    async with (
        socket(server, request, compression="deflate") as compressed,
        socket(server, request, compression=None) as plain,
        socket(server, path="/connection/websocket", compression="deflate") as talking,
    ):
        for client in (compressed, plain):
            await client.receive()
        await asyncio.to_thread(server.publish, "a", data)
        for client in (compressed, plain):
            assert await client.receive() == {"channel": "a", "pub": {"data": data}}

        assert bool(compressed.socket.protocol.extensions) is (server.shape == "serve")
        assert talking.socket.protocol.extensions == []


async def test_another_node_reaches_a_session(make_server: MakeServer, redis: RedisServer) -> None:
    """Whatever node the API is asked on."""
    options = {
        **ENABLED,
        "TIDEWIRE_ENGINE_TYPE": "redis",
        "TIDEWIRE_ENGINE_REDIS_ADDRESS": redis.address,
    }
    here, there = [
        await asyncio.to_thread(make_server, {**options, "TIDEWIRE_NODE_NAME": name})
        for name in ("here", "there")
    ]
    await until(lambda: {"here", "there"} <= {node["name"] for node in there.call("info")["nodes"]})
    user = f"far-{here.port}"
    for transport in TRANSPORTS:
        async with listener(here, transport, {"token": make_token(user)}) as client:
            session = (await client.receive())["connect"]["session"]
            this = {"user": user, "session": session}
            await asyncio.to_thread(there.call, "subscribe", channel=f"ch-{user}", **this)
            assert await client.receive() == {"channel": f"ch-{user}", "subscribe": {}}
            await asyncio.to_thread(there.publish, f"ch-{user}", 1)
            assert await client.receive() == {"channel": f"ch-{user}", "pub": {"data": 1}}
            await asyncio.to_thread(there.call, "disconnect", **this)
            assert [*(await client.rest())[-1]] == ["disconnect"]


async def test_a_refusal_may_be_an_http_status(make_server: MakeServer) -> None:
    """Errors and disconnects by their code; what is not listed is a 500; an accepted connect is a stream as always."""
    transforms = [
        {"code": 109, "to": {"status_code": 401, "body": "log in again"}},
        {"code": 3500, "to": {"status_code": 403}},
    ]
    options = {}
    for name in ("UNI_SSE", "UNI_HTTP_STREAM"):
        prefix = f"TIDEWIRE_{name}_CONNECT_CODE_TO_HTTP_RESPONSE"
        options[f"{prefix}_ENABLED"] = "true"
        options[f"{prefix}_TRANSFORMS"] = json.dumps(transforms)
    server = await asyncio.to_thread(make_server, {**ENABLED, **options})

    def ask(transport: str, token: str) -> tuple[int, bytes]:
        body = json.dumps({"token": token}).encode()
        answer = server.request(f"/connection/{transport}", body)
        return answer.status, answer.body

    for transport in STREAMS:
        expired = await asyncio.to_thread(ask, transport, make_token("u", lifetime=-60))
        invalid = await asyncio.to_thread(ask, transport, "garbage")
        unlisted = await asyncio.to_thread(ask, transport, make_token("u", channels=["nope:a"]))
        async with listener(server, transport, {"token": make_token("u")}) as good:
            assert "connect" in await good.receive()

        assert expired == (401, b"log in again")
        assert invalid == (403, b"invalid token")
        assert unlisted == (500, b"Internal Server Error")
    await until(lambda: clients(server) == 0)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_trusted_header_names_the_user(make_server: MakeServer, transport: str) -> None:
    """``client.user_id_http_header``, as on the other transports."""
    server = await asyncio.to_thread(
        make_server, {**ENABLED, "TIDEWIRE_CLIENT_USER_ID_HTTP_HEADER": "X-User"}
    )
    path = f"/connection/{transport}"
    if transport == "uni_websocket":
        opened: Any = socket(server, {}, additional_headers={"X-User": "42"})
    elif transport == "uni_sse":
        opened = curl(server, path, "-H", "X-User: 42")
    else:
        opened = curl(server, path, "-H", "X-User: 42", "-d", "{}")
    async with opened as client:
        await client.receive()
        await asyncio.to_thread(server.call, "disconnect", user="42")
        assert await client.rest() == [{"disconnect": {"code": 3503, "reason": "force disconnect"}}]


async def test_a_shutdown_is_told(make_server: MakeServer) -> None:
    """On every transport, before the process ends."""
    server = await asyncio.to_thread(make_server, ENABLED)
    async with (
        listener(server, "uni_websocket", {}) as one,
        listener(server, "uni_sse", {}) as two,
        listener(server, "uni_http_stream", {}) as three,
    ):
        for client in (one, two, three):
            await client.receive()
        server.terminate()
        ends = [await client.rest() for client in (one, two, three)]

    assert ends == [[{"disconnect": {"code": 3001, "reason": "shutdown"}}]] * 3
    assert await asyncio.to_thread(server.wait) == 0
