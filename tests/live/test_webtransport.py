"""WebTransport and HTTP/3, seen by a client that shares no code with the server but the QUIC below."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from realtime.protocol import client_pb2
from tests.live.conftest import copy_database
from tests.live.harness import API_KEY, Server, manage
from tests.live.webtransport_client import PATH, Session, http3, open_session
from tests.unit.servers.certificates import self_signed


pytestmark = pytest.mark.live

QUEUE_BYTES = 300_000
MESSAGE_BYTES = 2_000
ORIGIN = ("origin", "http://app.example")
Start = Callable[..., Server]


def _options(folder: Path) -> dict[str, str]:
    certificate, key = self_signed()
    (folder / "tls.pem").write_text(certificate)
    (folder / "tls.key").write_text(key)
    return {
        "TIDEWIRE_HTTP_SERVER_TLS_ENABLED": "true",
        "TIDEWIRE_HTTP_SERVER_TLS_CERT_PEM": str(folder / "tls.pem"),
        "TIDEWIRE_HTTP_SERVER_TLS_KEY_PEM": str(folder / "tls.key"),
        "TIDEWIRE_HTTP_SERVER_HTTP3_ENABLED": "true",
        "TIDEWIRE_WEBTRANSPORT_ENABLED": "true",
        "TIDEWIRE_WEBTRANSPORT_MESSAGE_SIZE_LIMIT": str(MESSAGE_BYTES),
        "TIDEWIRE_HEALTH_ENABLED": "true",
        "TIDEWIRE_HTTP_STREAM_ENABLED": "true",
    }


def _start(folder: Path, more: Mapping[str, str] = {}) -> Server:
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    return Server("serve", folder, {**_options(folder), **more}, trust=trust).start()


@contextlib.contextmanager
def _ended(server: Server) -> Iterator[Server]:
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.fixture(scope="module")
def server(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("webtransport")
    copy_database(database, folder)
    with _ended(_start(folder, {"TIDEWIRE_CLIENT_QUEUE_MAX_SIZE": str(QUEUE_BYTES)})) as started:
        yield started


@pytest.fixture
def start(database: Path, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts one with more options."""
    copy_database(database, tmp_path)
    with contextlib.ExitStack() as stack:
        yield lambda **more: stack.enter_context(
            _ended(_start(tmp_path, {f"TIDEWIRE_{name}": value for name, value in more.items()}))
        )


@contextlib.asynccontextmanager
async def session(server: Server, **settings: Any) -> AsyncIterator[Session]:
    """Open a session that is connected."""
    async with http3(server.port, **settings) as client:
        opened = await open_session(client)
        await opened.connect()
        yield opened


def _members(server: Server, channel: str) -> int:
    """Return how many clients a channel has, by their presence."""
    count: int = server.call("presence_stats", channel=channel)["num_clients"]
    return count


async def _until(condition: Callable[[], bool]) -> None:
    """Ask, in a thread, until it is so."""
    async with asyncio.timeout(30):
        while True:
            if await asyncio.to_thread(condition):
                return
            await asyncio.sleep(0.05)


# --- the client protocol ----------------------------------------------------------------------------


async def test_json(server: Server) -> None:
    """Commands and replies are lines; several commands may come in one write, and one in several."""
    async with session(server) as one:
        one.send(
            {"id": 2, "subscribe": {"channel": "wt-json"}},
            {"id": 3, "publish": {"channel": "wt-json", "data": {"n": 1}}},
        )
        replies = [await one.receive() for _ in range(3)]
        text = b'{"id":4,"publish":{"channel":"wt-json","data":"late"}}\n'
        one.write(text[:20])
        await asyncio.sleep(0.05)
        one.write(text[20:])
        replies += [await one.receive() for _ in range(2)]

    assert {"id": 2, "subscribe": {}} in replies
    assert {"id": 3, "publish": {}} in replies
    assert {"id": 4, "publish": {}} in replies
    pushed = [reply["push"]["pub"]["data"] for reply in replies if "push" in reply]
    assert pushed == [{"n": 1}, "late"]


async def test_protobuf(server: Server) -> None:
    """``cf_protocol=protobuf`` makes messages length-delimited, in both directions."""

    def framed(command: client_pb2.Command) -> bytes:
        data = command.SerializeToString()
        assert len(data) < 0x80
        return bytes((len(data),)) + data

    async with http3(server.port) as client:
        opened = await open_session(client, is_protobuf=True)
        opened.write(framed(client_pb2.Command(id=1, connect=client_pb2.ConnectRequest())))
        reply = client_pb2.Reply.FromString(await opened.receive_bytes())
        request = client_pb2.SubscribeRequest(channel="wt-pb")
        opened.write(framed(client_pb2.Command(id=2, subscribe=request)))
        subscribed = client_pb2.Reply.FromString(await opened.receive_bytes())
        await asyncio.to_thread(server.publish, "wt-pb", {"n": 1})
        pushed = client_pb2.Reply.FromString(await opened.receive_bytes())

    assert reply.id == 1
    assert reply.connect.client
    assert subscribed.id == 2
    assert (pushed.push.channel, json.loads(pushed.push.pub.data)) == ("wt-pb", {"n": 1})


async def test_recovery_over_a_new_session(server: Server) -> None:
    """What was published in between comes with the subscribe, once and in order."""
    async with session(server) as first:
        reply = await first.ask({"id": 2, "subscribe": {"channel": "hist:wt"}})
        position = {name: reply["subscribe"].get(name, 0) for name in ("epoch", "offset")}
    for number in range(3):
        await asyncio.to_thread(server.publish, "hist:wt", number)

    async with session(server) as second:
        request = {"channel": "hist:wt", "recover": True, **position}
        result = (await second.ask({"id": 2, "subscribe": request}))["subscribe"]

    assert result["recovered"]
    assert [each["data"] for each in result["publications"]] == [0, 1, 2]


async def test_a_client_that_leaves_is_gone_at_once(server: Server) -> None:
    """Its leave is told and its presence removed when it ends its stream, as the SDK does."""
    async with session(server) as stays, session(server) as leaves:
        await stays.ask({"id": 2, "subscribe": {"channel": "room:wt"}})
        await stays.receive()  # its own join
        await leaves.ask({"id": 2, "subscribe": {"channel": "room:wt"}})
        await stays.receive()

        leaves.write(b"", is_last=True)

        assert "leave" in (await stays.receive())["push"]
        assert await asyncio.to_thread(_members, server, "room:wt") == 1
        assert await leaves.closed() == (0, "")


# --- how it ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"{bad\n",
        b"\n",
        b'{"id":9,"rpc":{"data":"' + b"x" * MESSAGE_BYTES + b'"}}\n',
        b"x" * (MESSAGE_BYTES + 1),
    ],
    ids=["malformed", "empty", "too large", "without an end"],
)
async def test_what_is_no_command_ends_the_session(server: Server, sent: bytes) -> None:
    """A push says so before the stream ends; a second later the session is closed with the same code."""
    async with session(server) as one:
        one.write(sent)

        assert await one.receive() == {
            "push": {"disconnect": {"code": 3501, "reason": "bad request"}}
        }
        await one.client.until(lambda: one.stream_id in one.client.ended)
        assert one.session_id not in one.client.ended
        assert await one.closed() == (3501, "bad request")


async def test_a_disconnect_by_the_api(server: Server) -> None:
    """Code and reason are those that the caller chose."""
    async with http3(server.port) as client:
        one = await open_session(client)
        result = await one.connect()

        await asyncio.to_thread(
            server.call,
            "disconnect",
            user="",
            client=result["client"],
            disconnect={"code": 4242, "reason": "moved"},
        )

        assert (await one.receive())["push"]["disconnect"] == {"code": 4242, "reason": "moved"}
        assert await one.closed() == (4242, "moved")


@pytest.mark.parametrize(
    ("batches", "code"), [([3], 3009), ([4, 4], 3008)], ids=["write error", "slow"]
)
async def test_a_reader_that_does_not_read(server: Server, batches: list[int], code: int) -> None:
    """Behind for a second it ends with 3009, over the queue's limit at once with 3008; others get everything."""
    channel = f"wt-slow-{code}"
    async with session(server, max_stream_data=65536) as slow, session(server) as quick:
        # From now on it lets the server send 64 KiB and no more on any stream.
        slow.client._quic._write_stream_limits = lambda **_: None  # type: ignore[method-assign]
        for one in (slow, quick):
            await one.ask({"id": 2, "subscribe": {"channel": channel}})
        data = "x" * 50_000

        publish = {"publish": {"channel": channel, "data": data}}
        for publications in batches:
            await asyncio.to_thread(server.api, "batch", {"commands": [publish] * publications})
            for _ in range(publications):
                assert (await quick.receive())["push"]["pub"]["data"] == data
        code_and_reason = await slow.closed()
        assert slow.stream_id in slow.client.resets
    assert code_and_reason == (code, {3008: "slow", 3009: "write error"}[code])


async def test_a_client_that_vanished(server: Server) -> None:
    """It takes nothing, acknowledges nothing, and is gone a second after it is owed more than the buffers hold."""
    async with session(server) as gone, session(server) as stays:
        for one in (gone, stays):
            await one.ask({"id": 2, "subscribe": {"channel": "room:wt-gone"}})
        gone.client.datagram_received = lambda *_: None  # type: ignore[method-assign]

        await asyncio.to_thread(server.publish, "room:wt-gone", "x" * 200_000)

        await _until(lambda: _members(server, "room:wt-gone") == 1)


async def test_sigterm_sends_sessions_away(start: Start) -> None:
    """With 3001, and the process ends with status 0."""
    server = await asyncio.to_thread(start)
    async with session(server) as first, session(server) as second:
        await asyncio.to_thread(server.terminate)

        for one in (first, second):
            assert (await one.receive())["push"]["disconnect"]["code"] == 3001
            assert await one.closed() == (3001, "shutdown")
    assert await asyncio.to_thread(server.wait) == 0


async def test_pings(start: Start) -> None:
    """They come as on a WebSocket; who answers stays, and who doesn't is told 3012."""
    server = await asyncio.to_thread(start, CLIENT_PING_INTERVAL="1s", CLIENT_PONG_TIMEOUT="500ms")
    async with session(server) as answers, session(server) as ignores:
        assert await ignores.receive() == {}
        for _ in range(2):
            assert await answers.receive() == {}
            answers.send({})

        assert (await ignores.receive())["push"]["disconnect"]["code"] == 3012
        assert await ignores.closed() == (3012, "no pong")
        assert await answers.receive() == {}


# --- who comes in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "protocol", "status"),
    [
        (PATH, [ORIGIN], "webtransport", b"200"),
        (PATH, [("origin", "https://evil.example")], "webtransport", b"403"),
        ("/connection/elsewhere", [], "webtransport", b"404"),
        (PATH, [], "websocket", b"501"),
    ],
)
async def test_who_may_open_a_session(
    server: Server, path: str, headers: list[tuple[str, str]], protocol: str, status: bytes
) -> None:
    """Pages of allowed origins, at the right path, with the protocol that there is."""
    async with http3(server.port) as client:
        head = await client.answer(client.request("CONNECT", path, headers, protocol=protocol))

    assert head[b":status"] == status


async def test_the_connection_limit_counts(start: Start) -> None:
    """503, as on the other transports."""
    server = await asyncio.to_thread(start, CLIENT_CONNECTION_LIMIT="1")
    async with session(server), http3(server.port) as client:
        head = await client.answer(client.request("CONNECT", PATH, protocol="webtransport"))

    assert head[b":status"] == b"503"


async def test_one_stream_is_the_clients(server: Server) -> None:
    """Another one, and one in the other direction, are refused; the session goes on."""
    async with session(server) as one:
        client = one.client
        second = Session(client, one.session_id)
        second.send({"id": 1, "connect": {}})
        sideways = client.http.create_webtransport_stream(one.session_id, is_unidirectional=True)
        client._quic.send_stream_data(sideways, b"x")
        client.transmit()

        await client.until(lambda: second.stream_id in client.resets)
        assert await one.ask({"id": 2, "subscribe": {"channel": "wt-one"}}) == {
            "id": 2,
            "subscribe": {},
        }


# --- plain requests ---------------------------------------------------------------------------------


async def test_plain_requests_over_http3(server: Server) -> None:
    """They are answered as over HTTP/1.1: bodies, methods, pages of Django."""
    key = ("x-api-key", API_KEY)
    body = json.dumps({"channel": "wt-api", "data": "x" * 50_000}).encode()
    async with http3(server.port) as client:
        health = await client.fetch("GET", "/health")
        refused = await client.fetch("POST", "/api/info", body=b"{}")
        published = await client.fetch("POST", "/api/publish", [key], body)
        style = await client.fetch("GET", "/static/admin/css/base.css")
        missing = await client.fetch("GET", "/connection/websocket")

    assert (health[0], health[2]) == (200, b"{}")
    assert refused[0] == 401
    assert (published[0], json.loads(published[2])) == (200, {"result": {}})
    assert style[0] == 200
    assert style[2] == (await asyncio.to_thread(server.request, "/static/admin/css/base.css")).body
    assert missing[0] == 400


async def test_a_streaming_response_over_http3(server: Server) -> None:
    """HTTP streaming works there too, and ends when the client gives it up."""
    async with http3(server.port) as client:
        body = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"room:h3"}}'
        stream = client.request("POST", "/connection/http_stream", body=body)
        await client.until(lambda: b'"subscribe"' in client.bodies.get(stream, b""))
        await _until(lambda: _members(server, "room:h3") == 1)

        client._quic.stop_stream(stream, 0x10C)
        client.transmit()

        await _until(lambda: _members(server, "room:h3") == 0)


def test_browsers_learn_of_http3(server: Server) -> None:
    """From the answers over TCP."""
    header = server.request("/health").headers["Alt-Svc"]

    assert header == f'h3=":{server.port}"; ma=2592000'
    assert f"127.0.0.1:{server.port} with HTTP/3 (experimental)" in server.log


# --- the operator -----------------------------------------------------------------------------------


async def test_sighup_renews_the_certificate(start: Start, tmp_path: Path) -> None:
    """New connections get the new one; those that there are go on."""
    server = await asyncio.to_thread(start)

    async def shown() -> Any:
        async with http3(server.port) as client:
            return client._quic.tls._peer_certificate

    async with session(server) as before:
        old = await shown()
        certificate, key = self_signed()
        (tmp_path / "tls.pem").write_text(certificate)
        (tmp_path / "tls.key").write_text(key)
        os.kill(server.pid, signal.SIGHUP)

        async with asyncio.timeout(30):
            while True:
                if await shown() != old:
                    break
                await asyncio.sleep(0.1)
        assert "subscribe" in await before.ask({"id": 2, "subscribe": {"channel": "wt-hup"}})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"HTTP_SERVER_HTTP3_ENABLED": "false"}, "carried by HTTP/3"),
        ({"HTTP_SERVER_TLS_ENABLED": "false"}, "no QUIC without TLS"),
        ({"WORKERS": "2", "ENGINE_TYPE": "redis"}, "set workers to 1"),
    ],
)
def test_what_can_not_be_is_refused_at_the_start(
    tmp_path: Path, changed: dict[str, str], says: str
) -> None:
    """With the reason, and what to do."""
    options = _options(tmp_path) | {f"TIDEWIRE_{name}": value for name, value in changed.items()}
    with pytest.raises(AssertionError, match=says):
        manage(tmp_path / "db.sqlite3", "serve", "--port", "0", options=options)


def test_a_udp_port_in_use_is_named(database: Path, tmp_path: Path) -> None:
    """TCP may be free on it all the same."""
    copy_database(database, tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        with pytest.raises(AssertionError, match=f"UDP port {port}"):
            manage(
                tmp_path / "db.sqlite3",
                *("serve", "--host", "127.0.0.1", "--port", str(port)),
                options=_options(tmp_path),
            )
