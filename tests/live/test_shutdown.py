"""How a server ends, and what is there beside its WebSockets and its API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import pytest

from tests.live.crowd import CrowdProcess
from tests.live.harness import Server, manage, raw


pytestmark = pytest.mark.live

MakeServer = Callable[[Mapping[str, str]], Server]


async def test_sigterm_with_a_hundred_sockets_open(make_server: MakeServer) -> None:
    """Each of them is closed with 3001 and a reason, and the process ends with status 0."""
    server = await asyncio.to_thread(make_server, {})
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(raw(server)) for _ in range(100)]
        for socket in sockets:
            await socket.connect()
            assert await socket.ask({"id": 2, "subscribe": {"channel": "a"}}) == {
                "id": 2,
                "subscribe": {},
            }

        await asyncio.to_thread(server.terminate)

        closes = await asyncio.gather(*(socket.closed(30) for socket in sockets))
    assert set(closes) == {(3001, "shutdown")}
    assert await asyncio.to_thread(server.wait) == 0


async def test_sigterm_spreads_the_disconnects(make_server: MakeServer) -> None:
    """
    Five hundred clients are sent away over half a second, never many at once, so that they come back one after the other.

    Each is told 3001.
    """
    clients = 500
    server = await asyncio.to_thread(make_server, {})
    crowd = await CrowdProcess.start(server.websocket_url, clients, 10, "load:drain-")
    joined = await crowd.do("connect")
    assert not joined["refused"]

    closes = asyncio.create_task(crowd.do("closes"))
    await asyncio.to_thread(server.terminate)
    outcome = await closes
    await crowd.end()

    assert outcome["codes"] == {"3001": clients}
    times = outcome["seconds"]
    assert 0.3 < times[-1] - times[0] < 5
    # A tenth of a second is a fifth of the whole; on a busy machine rounds may fall together.
    most = max(sum(start <= one < start + 0.1 for one in times) for start in times[::10])
    assert most <= clients / 2, most
    assert await asyncio.to_thread(server.wait) == 0


async def test_one_bad_client_does_not_disturb_the_others(server: Server) -> None:
    """Garbage on many sockets ends those, while a subscriber gets everything."""
    async with raw(server) as subscriber:
        await subscriber.connect()
        await subscriber.ask({"id": 2, "subscribe": {"channel": "calm"}})

        async def misbehave(frame: str | bytes) -> tuple[int, str]:
            async with raw(server) as socket:
                await socket.connect()
                await socket.socket.send(frame)
                return await socket.closed()

        frames = ["{bad", "[[[[", '{"id":2,"subscribe":{"channel":""}}', "\x00", b"\xff\xfe\x00"]
        closes = await asyncio.gather(*(misbehave(frame) for frame in frames * 10))
        for number in range(10):
            await asyncio.to_thread(server.publish, "calm", number)

        received = [(await subscriber.receive())["push"]["pub"]["data"] for _ in range(10)]
    assert received == list(range(10))
    assert {code for code, _ in closes} == {3501}


def test_admin_and_its_style_are_served(server: Server) -> None:
    """The admin's login page comes with its style sheet, with DEBUG off."""
    page = server.request("/admin/login/")
    style = server.request("/static/admin/css/base.css")

    assert page.status == 200
    assert b'href="/static/admin/css/base.css"' in page.body
    assert style.status == 200
    assert style.headers["Content-Type"].startswith("text/css")
    assert len(style.body) > 1000


def test_configuration_that_does_not_validate_is_refused(server: Server) -> None:
    """A server with options that make no sense says so and does not start."""
    with pytest.raises(AssertionError, match="pong_timeout"):
        manage(
            server.database,
            "serve",
            "--port",
            "0",
            options={
                "TIDEWIRE_CLIENT_PING_INTERVAL": "1s",
                "TIDEWIRE_CLIENT_PONG_TIMEOUT": "2s",
            },
        )


async def test_namespace_made_in_another_process_is_used_at_once(
    make_server: MakeServer,
) -> None:
    """A row saved by a shell reaches the running server within a second or two."""
    server = await asyncio.to_thread(make_server, {})
    async with raw(server) as socket:
        await socket.connect()
        reply = await socket.ask({"id": 2, "subscribe": {"channel": "fresh:a"}})
        assert reply["error"]["code"] == 102

        await asyncio.to_thread(
            manage,
            server.database,
            "shell",
            "-v",
            "0",
            "-c",
            "from realtime.models import Namespace\n"
            "Namespace.objects.create(name='fresh', allow_subscribe_for_client=True,"
            " allow_subscribe_for_anonymous=True)",
        )

        async with asyncio.timeout(30):
            number = 3
            while True:
                reply = await socket.ask({"id": number, "subscribe": {"channel": "fresh:a"}})
                if reply == {"id": number, "subscribe": {}}:
                    break
                assert reply["error"]["code"] == 102
                number += 1
                await asyncio.sleep(0.1)
