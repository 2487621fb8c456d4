"""What goes through nginx, set up as the README shows: HTTP/2, WebSockets, streams, addresses, paths."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.live.conftest import copy_database
from tests.live.harness import API_KEY, Raw, Sdk, Server, make_token
from tests.live.nginx import Nginx


pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

OPTIONS = {
    "TIDEWIRE_HTTP_STREAM_ENABLED": "true",
    "TIDEWIRE_SSE_ENABLED": "true",
    "TIDEWIRE_UNI_HTTP_STREAM_ENABLED": "true",
    "TIDEWIRE_UNI_SSE_ENABLED": "true",
    "TIDEWIRE_UNI_WEBSOCKET_ENABLED": "true",
    "TIDEWIRE_INIT_ENABLED": "true",
    "TIDEWIRE_SWAGGER_ENABLED": "true",
    "TIDEWIRE_DEMO": "true",
    # A stream that only pings shows in a moment whether nginx holds anything back.
    "TIDEWIRE_CLIENT_PING_INTERVAL": "1s",
    "TIDEWIRE_CLIENT_PONG_TIMEOUT": "0.5s",
}
Start = Callable[..., Server]


@pytest.fixture
def start(database: Path, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a server to be put behind nginx."""
    servers: list[Server] = []
    copy_database(database, tmp_path)

    def start(*flags: str, shape: str = "serve", **options: str) -> Server:
        servers.append(Server(shape, tmp_path, {**OPTIONS, **options}, flags=flags))
        return servers[-1].start()

    yield start
    for server in servers:
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


@pytest.fixture(params=["serve", "daphne"])
def site(
    request: pytest.FixtureRequest, start: Start, tmp_path: Path
) -> Iterator[tuple[Server, Nginx]]:
    """Give a server of each kind and the nginx in front of it."""
    server = start(shape=request.param)
    with Nginx(tmp_path, server.port) as nginx:
        yield server, nginx


async def curl(nginx: Nginx, path: str, *arguments: str) -> str:
    """Return what curl prints; it knows the certificate."""
    process = await _curl(nginx, path, *arguments)
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, (process.returncode, output, nginx.errors)
    return output.decode()


async def _curl(nginx: Nginx, path: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--no-buffer", "--noproxy", "*", "--cacert", str(nginx.certificate)),
        *arguments,
        nginx.url + path,
        stdout=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def stream(nginx: Nginx, path: str, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """Have curl read a response that stays open."""
    process = await _curl(nginx, path, *arguments)
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        await process.communicate()


async def _message(reader: asyncio.StreamReader) -> Any:
    """Return the next message that is no ping, of a stream of JSON lines or of SSE."""
    while True:
        line = await asyncio.wait_for(reader.readline(), 30)
        assert line, "the stream ended"
        text = line.decode().removeprefix("data: ").strip()
        if text and not text.startswith((":", "event:", "retry:")) and (found := json.loads(text)):
            return found


@pytest.mark.parametrize("encoding", ["json", "protobuf"])
async def test_an_sdk_connects_over_wss(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Publications arrive, and so does what the client publishes."""
    server = await asyncio.to_thread(start)
    with Nginx(tmp_path, server.port) as nginx:
        monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(nginx.certificate))
        sdk = await Sdk.start(
            f"js-{encoding}", nginx.url.replace("https", "wss") + "/connection/websocket"
        )
        try:
            await sdk.connect()
            await sdk.subscribe("news")
            await asyncio.to_thread(server.publish, "news", {"text": "hi"})
            await sdk.wait("publication", channel="news", data={"text": "hi"})
            await sdk.do("publish", channel="news", data={"text": "back"})
            await sdk.wait("publication", channel="news", data={"text": "back"})
        finally:
            await sdk.close()


async def test_http_2_reaches_the_api_and_pages(site: tuple[Server, Nginx]) -> None:
    """Between browser and nginx; what is behind speaks HTTP/1.1."""
    _, nginx = site
    show = ("--http2", "--output", "/dev/null", "--write-out", "%{http_version} %{http_code}")

    api = await curl(nginx, "/api/info", "--http2", "-H", f"X-API-Key: {API_KEY}", "-d", "{}")
    assert len(json.loads(api)["result"]["nodes"]) == 1
    assert await curl(nginx, "/admin/login/", *show) == "2 200"
    assert await curl(nginx, "/api/info", *show, "-d", "{}") == "2 401"
    first = await curl(nginx, "/connection/init", "-i", "-H", "Origin: http://app.example")
    assert first.endswith("\r\n\r\n{}")
    assert "access-control-allow-origin: http://app.example\r\n" in first
    large = json.dumps({"channel": "news", "data": "x" * 3_000_000})
    answer = await _with_input(nginx, "/api/publish", large)
    assert "result" in json.loads(answer)


async def _with_input(nginx: Nginx, path: str, body: str) -> str:
    file = nginx.certificate.parent / "body.json"
    file.write_text(body)
    return await curl(nginx, path, "--http2", "-H", f"X-API-Key: {API_KEY}", "-d", f"@{file}")


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_streams_are_not_held_back(site: tuple[Server, Nginx], version: str) -> None:
    """HTTP streaming and SSE: the reply, then each publication when it is made, and commands by ``/emulation``."""
    server, nginx = site
    connect = json.dumps({"id": 1, "connect": {}})
    streams = {
        "/connection/http_stream": ("-d", connect),
        "/connection/sse": ("--get", "--data-urlencode", f"cf_connect={connect}"),
    }

    for path, arguments in streams.items():
        async with stream(nginx, path, version, *arguments) as reader:
            reply = (await _message(reader))["connect"]
            command = {
                "session": reply["session"],
                "node": reply["node"],
                "data": json.dumps({"id": 2, "subscribe": {"channel": "news"}}),
            }
            await curl(nginx, "/emulation", version, "-d", json.dumps(command))
            assert (await _message(reader))["id"] == 2
            for number in range(3):
                await asyncio.to_thread(server.publish, "news", number)
                assert (await _message(reader))["push"]["pub"]["data"] == number


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_streams_of_listeners_are_not_held_back(
    site: tuple[Server, Nginx], version: str
) -> None:
    """The unidirectional ones, which any HTTP client can read."""
    server, nginx = site
    request = json.dumps({"token": make_token("ann", channels=["news"])})
    streams = {
        "/connection/uni_http_stream": ("-d", request),
        "/connection/uni_sse": ("--get", "--data-urlencode", f"cf_connect={request}"),
    }

    for path, arguments in streams.items():
        async with stream(nginx, path, version, *arguments) as reader:
            assert "news" in (await _message(reader))["connect"]["subs"]
            for number in range(3):
                await asyncio.to_thread(server.publish, "news", number)
                assert (await _message(reader))["pub"]["data"] == number


async def test_a_reader_that_goes_away_is_noticed_behind_nginx(site: tuple[Server, Nginx]) -> None:
    """The session ends with the response that nobody reads."""
    server, nginx = site
    async with stream(
        nginx, "/connection/http_stream", "--http2", "-d", json.dumps({"id": 1, "connect": {}})
    ) as reader:
        await _message(reader)
        assert await _clients(server) == 1

    async with asyncio.timeout(15):
        while await _clients(server):  # noqa: ASYNC110 -- another process
            await asyncio.sleep(0.1)


async def _clients(server: Server) -> int:
    return int((await asyncio.to_thread(server.call, "info"))["nodes"][0]["num_clients"])


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        (["--proxy-headers"], "127.0.0.2"),
        (["--proxy-headers", "--forwarded-allow-ips", "192.0.2.0/24"], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
async def test_the_client_is_who_a_trusted_proxy_says(
    start: Start, tmp_path: Path, flags: Sequence[str], address: str
) -> None:
    """In answers of the direct lane and of Django alike; what a client itself claims counts for nothing."""
    server = await asyncio.to_thread(start, "--access-log", *flags)
    claim = ("--interface", "127.0.0.2", "-H", "X-Forwarded-For: 203.0.113.9")
    with Nginx(tmp_path, server.port) as nginx:
        await curl(nginx, "/api/rpc", *claim, "-H", f"X-API-Key: {API_KEY}", "-d", "{}")
        await curl(nginx, "/admin/login/", *claim)

    lines = [line for line in server.log.splitlines() if "/api/rpc" in line or "/admin/" in line]
    assert [re.findall(r"([0-9.]+):\d+ - ", line) for line in lines] == [[address], [address]]


async def test_below_a_path_that_nginx_cuts_off(start: Start, tmp_path: Path) -> None:
    """Transports, API, and pages with all that they link to."""
    server = await asyncio.to_thread(start, FORCE_SCRIPT_NAME="/rt", CSRF_TRUSTED_ORIGINS="")
    with Nginx(tmp_path, server.port, "/rt") as nginx:
        context = ssl.create_default_context(cafile=nginx.certificate)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        address = nginx.url.replace("https", "wss") + "/rt/connection/websocket"
        async with websockets.connect(address, proxy=None, ssl=context) as socket:
            assert (await Raw(socket).connect())["client"]
        info = await curl(nginx, "/rt/api/info", "-H", f"X-API-Key: {API_KEY}", "-d", "{}")
        login = await curl(nginx, "/rt/admin/", "--location")
        moved = await curl(
            nginx, "/rt/swagger", "--output", "/dev/null", "--write-out", "%{redirect_url}"
        )
        async with stream(
            nginx, "/rt/connection/http_stream", "-d", '{"id": 1, "connect": {}}'
        ) as reader:
            assert (await _message(reader))["connect"]["session"]
        demo = await curl(nginx, "/rt/")
        styles = re.findall(r'href="(/[^"]+\.css)"', login)
        for style in styles:
            await curl(nginx, style, "--fail")

    assert "result" in json.loads(info)
    assert styles
    assert 'name="next" value="/rt/admin/"' in login
    assert moved == f"{nginx.url}/rt/swagger/"
    assert "/rt/connection/websocket" in demo
    assert "/rt/api/publish" in demo
    assert '"/rt/connection/http_stream"' in demo


async def test_below_a_path_that_the_options_have(start: Start, tmp_path: Path) -> None:
    """Nothing is cut off."""
    prefixes = {
        f"TIDEWIRE_{section}_HANDLER_PREFIX": f"/rt/{path}"
        for section, path in {
            "WEBSOCKET": "ws",
            "HTTP_STREAM": "stream",
            "SSE": "events",
            "EMULATION": "up",
            "INIT": "first",
            "SWAGGER": "doc",
            "HEALTH": "well",
        }.items()
    }
    server = await asyncio.to_thread(start, TIDEWIRE_HEALTH_ENABLED="true", **prefixes)
    with Nginx(tmp_path, server.port) as nginx:
        context = ssl.create_default_context(cafile=nginx.certificate)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        address = nginx.url.replace("https", "wss") + "/rt/ws"
        async with websockets.connect(address, proxy=None, ssl=context) as socket:
            assert (await Raw(socket).connect())["client"]
        async with stream(nginx, "/rt/stream", "-d", '{"id": 1, "connect": {}}') as reader:
            assert (await _message(reader))["connect"]["session"]
        status = ("--output", "/dev/null", "--write-out", "%{http_code}")
        statuses = [
            await curl(nginx, path, *status)
            for path in (
                "/rt/well",
                "/rt/first",
                "/rt/doc/openapi.json",
                "/rt/up",
                "/rt/events",
                "/health",
            )
        ]

    # /emulation takes POST alone, and an event stream needs its first commands.
    assert statuses == ["200", "200", "200", "405", "400", "404"]
