"""Two ports, and TLS on each: what a client or an operator finds where, and what a reload changes."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.live.conftest import copy_database
from tests.live.harness import API_KEY, Server, free_port, raw
from tests.redis_servers import single
from tests.unit.servers.certificates import self_signed


pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

Start = Callable[..., Server]
ENDPOINTS = {"TIDEWIRE_HEALTH_ENABLED": "true", "TIDEWIRE_SWAGGER_ENABLED": "true"}


@pytest.fixture
def start(database: Path, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a server; the options' names go without what all of them begin with."""
    servers: list[Server] = []
    copy_database(database, tmp_path)

    def start(
        shape: str = "serve",
        *,
        flags: Sequence[str] = (),
        trust: ssl.SSLContext | None = None,
        port: int = 0,
        **options: str,
    ) -> Server:
        named = {f"TIDEWIRE_{name}": value for name, value in options.items()}
        server = Server(shape, tmp_path, {**ENDPOINTS, **named}, flags=flags, trust=trust)
        server.port = port or server.port
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


class Certificate:
    """A certificate and its key as files, which can be replaced by others."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file, self.key_file = folder / f"{name}.pem", folder / f"{name}.key"
        self.renew()

    def renew(self) -> None:
        """Write another one."""
        self.pem, key = self_signed()
        self.file.write_text(self.pem)
        self.key_file.write_text(key)

    def options(self, section: str) -> dict[str, str]:
        """Return the options that name it."""
        return {
            f"HTTP_SERVER_{section}_ENABLED": "true",
            f"HTTP_SERVER_{section}_CERT_PEM": str(self.file),
            f"HTTP_SERVER_{section}_KEY_PEM": str(self.key_file),
        }

    def trust(self) -> ssl.SSLContext:
        """Return a client's context that trusts this one alone, as it is now."""
        context = ssl.create_default_context(cadata=self.pem)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def _shown(port: int) -> str:
    """Return the certificate that a port shows."""
    return ssl.get_server_certificate(("127.0.0.1", port)).strip()


def _hang_up(server: Server) -> None:
    """Have the configuration read again, and wait until it has been."""
    lines = server.log.count("configuration successfully reloaded")
    os.kill(server.pid, signal.SIGHUP)
    deadline = time.monotonic() + 30
    while server.log.count("configuration successfully reloaded") == lines:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


def _until_shown(port: int, certificate: Certificate) -> None:
    deadline = time.monotonic() + 30
    while _shown(port) != certificate.pem.strip():
        assert time.monotonic() < deadline, "the certificate was not renewed"
        time.sleep(0.05)


def _until_logged(server: Server, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


def _statuses(server: Server, base: str) -> dict[str, int]:
    """Return what the endpoints of a port answer."""
    key = {"X-API-Key": API_KEY}
    return {
        "api": server.request("/api/info", b"{}", key, base=base).status,
        "api by Django": server.request("/api/info", b"{}", base=base).status,
        "health": server.request("/health", base=base).status,
        "swagger": server.request("/swagger/openapi.json", base=base).status,
        "admin": server.request("/admin/login/", base=base).status,
        "static": server.request("/static/admin/css/base.css", base=base).status,
        "websocket": server.request("/connection/websocket", base=base).status,
    }


INSIDE = {
    "api": 200,
    "api by Django": 401,
    "health": 200,
    "swagger": 200,
    "admin": 200,
    "static": 200,
    "websocket": 404,
}
OUTSIDE = {
    "api": 404,
    "api by Django": 404,
    "health": 404,
    "swagger": 404,
    "admin": 404,
    "static": 200,
    "websocket": 400,  # it waits for an upgrade
}


async def test_each_port_has_its_endpoints_and_both_are_one_server(start: Start) -> None:
    """What is published inside arrives outside; a client finds no way in on the internal port."""
    server = await asyncio.to_thread(start, HTTP_SERVER_INTERNAL_PORT=str(free_port()))

    async with raw(server) as client:
        await client.connect()
        await client.ask({"id": 2, "subscribe": {"channel": "news"}})
        await asyncio.to_thread(server.publish, "news", "hi")
        assert (await client.receive())["push"]["pub"]["data"] == "hi"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(
            server.api_url.replace("http", "ws", 1) + "/connection/websocket", proxy=None
        )

    assert refused.value.response.status_code == 404
    assert await asyncio.to_thread(_statuses, server, server.url) == OUTSIDE
    assert await asyncio.to_thread(_statuses, server, server.api_url) == INSIDE
    said = re.findall(r"serving (.*) endpoints on 127.0.0.1:(\d+)", server.log)
    assert [port for _, port in said] == [str(server.port), server.api_url.rpartition(":")[2]]
    assert said[0][0].startswith("websocket")
    assert "api" not in said[0][0]
    assert said[1][0] == "api, admin, health, swagger"


def test_what_the_internal_port_has_answered_opens_nothing_outside(start: Start) -> None:
    """A caller's head that the lane knows already is known on its own port only."""
    server = start(HTTP_SERVER_INTERNAL_PORT=str(free_port()))
    statuses = []

    for base in (server.api_url, server.url):
        connection = http.client.HTTPConnection("127.0.0.1", int(base.rpartition(":")[2]))
        # The same bytes to both, whatever the port.
        headers = {"Host": "localhost", "X-API-Key": API_KEY}
        for _ in range(3):
            connection.request("POST", "/api/info", b"{}", headers)
            response = connection.getresponse()
            statuses.append(response.status)
            response.read()
        connection.close()

    assert statuses == [200] * 3 + [404] * 3


def test_the_api_and_the_admin_are_outside_where_that_is_said(start: Start) -> None:
    """By ``http_api.external`` and ``admin.external``; what else is inside stays there."""
    server = start(
        HTTP_SERVER_INTERNAL_PORT=str(free_port()),
        HTTP_API_EXTERNAL="true",
        ADMIN_EXTERNAL="true",
    )

    assert _statuses(server, server.url) == {
        **INSIDE,
        "health": 404,
        "swagger": 404,
        "websocket": 400,
    }
    assert _statuses(server, server.api_url) == INSIDE


def test_a_daphne_on_the_internal_port_serves_what_is_inside(start: Start) -> None:
    """And on any other port what is outside."""
    port = free_port()
    inside = start("daphne", port=port, HTTP_SERVER_INTERNAL_PORT=str(port))
    outside = start("daphne", HTTP_SERVER_INTERNAL_PORT=str(port))  # waits for the API of the first

    assert _statuses(inside, inside.url) == INSIDE
    deadline = time.monotonic() + 30
    while True:
        try:
            assert _statuses(outside, outside.url) == OUTSIDE
            break
        except OSError:
            assert time.monotonic() < deadline, outside.log
            time.sleep(0.1)


@pytest.mark.redis
async def test_workers_share_both_ports(start: Start) -> None:
    """The kernel deals connections of each port out; what one worker is told, the clients of the other hear."""
    with single() as redis:
        server = await asyncio.to_thread(
            start,
            flags=["--workers", "2"],
            HTTP_SERVER_INTERNAL_PORT=str(free_port()),
            ENGINE_TYPE="redis",
            ENGINE_REDIS_ADDRESS=redis.address,
        )
        deadline = time.monotonic() + 30
        while len((await asyncio.to_thread(server.call, "info"))["nodes"]) < 2:
            assert time.monotonic() < deadline, server.log
            await asyncio.sleep(0.1)
        async with raw(server) as client:
            await client.connect()
            await client.ask({"id": 2, "subscribe": {"channel": "news"}})
            for number in range(10):  # each by a connection of its own
                await asyncio.to_thread(server.publish, "news", number)
            told = [(await client.receive())["push"]["pub"]["data"] for _ in range(10)]
        with ThreadPoolExecutor(4) as threads:
            outside = list(
                threads.map(
                    lambda _: server.request("/api/info", b"{}", {"X-API-Key": API_KEY}).status,
                    range(10),
                )
            )
        assert await asyncio.to_thread(server.stop) == 0

    assert sorted(told) == list(range(10))
    assert outside == [404] * 10


async def _ask(socket: Any) -> Any:
    await socket.send(json.dumps({"id": 9, "rpc": {"method": "none"}}))
    return json.loads(await asyncio.wait_for(socket.recv(), 30))


async def test_a_reload_renews_the_certificates(start: Start, tmp_path: Path) -> None:
    """Of both ports, for new connections; those that there are stay. A broken one changes nothing."""
    outer, inner = Certificate(tmp_path, "outer"), Certificate(tmp_path, "inner")
    server = await asyncio.to_thread(
        start,
        trust=inner.trust(),
        HTTP_SERVER_INTERNAL_PORT=str(free_port()),
        **outer.options("TLS"),
        **inner.options("INTERNAL_TLS"),
    )
    inner_port = int(server.api_url.rpartition(":")[2])
    assert [_shown(server.port), _shown(inner_port)] == [outer.pem.strip(), inner.pem.strip()]

    async with websockets.connect(server.websocket_url, proxy=None, ssl=outer.trust()) as socket:
        await socket.send(json.dumps({"id": 1, "connect": {}}))
        assert "connect" in json.loads(await socket.recv())
        outer.renew()
        inner.renew()
        await asyncio.to_thread(_hang_up, server)
        await asyncio.to_thread(_until_shown, server.port, outer)
        await asyncio.to_thread(_until_shown, inner_port, inner)
        assert (await _ask(socket))["id"] == 9

        good = outer.pem.strip()
        outer.key_file.write_text(self_signed()[1])  # of another certificate
        await asyncio.to_thread(_hang_up, server)
        await asyncio.to_thread(_until_logged, server, "the new certificate is refused")
        assert _shown(server.port) == good
        assert (await _ask(socket))["id"] == 9
    server.trust = inner.trust()
    assert (await asyncio.to_thread(server.api, "info", {})).status == 200


def test_nobody_is_turned_away_while_certificates_are_renewed(start: Start, tmp_path: Path) -> None:
    """One server takes over from the other on the same socket, and what has begun is finished."""
    certificate = Certificate(tmp_path, "server")
    context = certificate.trust()
    server = start(trust=context, **certificate.options("TLS"))
    ended = threading.Event()

    def connect() -> list[bool]:
        """Return which connections, one after the other, were served."""
        served = []
        while not ended.is_set():
            served.append(_handshake(server.port, context, None) is not None)
        return served

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(connect) for _ in range(4)]
        try:
            for _ in range(10):
                _hang_up(server)
        finally:
            ended.set()
    served = [each for caller in callers for each in caller.result()]

    assert len(served) > 20
    assert all(served)


async def test_tls_can_be_outside_only(start: Start, tmp_path: Path) -> None:
    """``tls_external``: the API inside is plain."""
    certificate = Certificate(tmp_path, "outer")
    server = await asyncio.to_thread(
        start,
        HTTP_SERVER_INTERNAL_PORT=str(free_port()),
        HTTP_SERVER_TLS_EXTERNAL="true",
        **certificate.options("TLS"),
    )

    assert server.api_url.startswith("http://")
    assert (await asyncio.to_thread(server.api, "info", {})).status == 200
    async with raw(server, ssl=certificate.trust()) as client:
        assert (await client.connect())["client"]


def _handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> Any:
    """Ask for the health over TLS and return the session to resume, or ``None`` where the server refused."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    try:
        connection.sock = context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), 5),
            server_hostname="127.0.0.1",
            session=session,
        )
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b"{}"
    except (ssl.SSLError, ConnectionError):
        return None
    else:
        return connection.sock.session
    finally:
        connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_reload_renews_whose_clients_are_let_in(
    start: Start, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """An authority that is trusted no more lets nobody in, not even by a session of before."""
    certificate, authority = Certificate(tmp_path, "server"), Certificate(tmp_path, "client")
    context = certificate.trust()
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(authority.file, authority.key_file)
    server = start(
        trust=context,
        HTTP_SERVER_TLS_CLIENT_CA_PEM=str(authority.file),
        **certificate.options("TLS"),
    )
    plain = certificate.trust()
    assert _handshake(server.port, plain, None) is None
    session = _handshake(server.port, context, None)
    assert session is not None

    authority.renew()
    _hang_up(server)
    deadline = time.monotonic() + 30
    while _handshake(server.port, context, session) is not None:
        assert time.monotonic() < deadline, "the former authority is still trusted"
        time.sleep(0.05)
    context = certificate.trust()
    context.load_cert_chain(authority.file, authority.key_file)
    assert _handshake(server.port, context, None) is not None
