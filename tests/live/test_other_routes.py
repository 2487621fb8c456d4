"""WebSockets of the project's own on the server that also serves ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from tests.live.conftest import copy_database
from tests.live.harness import Server, raw


pytestmark = pytest.mark.live


@pytest.fixture
def other_project(database: Path, tmp_path: Path) -> Iterator[Server]:
    """``manage.py serve`` of a project with a route of its own, and compression on for Tidewire's."""
    copy_database(database, tmp_path)
    options = {
        "DJANGO_SETTINGS_MODULE": "tests.live.other_project.settings",
        "TIDEWIRE_WEBSOCKET_COMPRESSION": "true",
    }
    server = Server("serve", tmp_path, options).start()
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


async def test_a_consumer_of_the_projects_own_is_served_beside_tidewires(
    other_project: Server,
) -> None:
    """Text, bytes, large messages, close code and reason, by uvicorn's protocol; Tidewire's route and API work, too."""
    url = f"ws://127.0.0.1:{other_project.port}/shout"
    large = "lorem ipsum " * 4000
    async with websockets.connect(url, ping_interval=None) as other, raw(other_project) as ours:
        await ours.connect()
        assert "subscribe" in await ours.ask({"id": 2, "subscribe": {"channel": "a"}})

        await other.send("hello")
        await other.send(b"\x00\xff")
        await other.send(large)
        answers = [await asyncio.wait_for(other.recv(), 30) for _ in range(3)]
        await (await other.ping())
        await asyncio.to_thread(other_project.publish, "a", "news")
        push = await ours.receive()
        await other.send("bye")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(other.recv(), 30)

    assert answers == ["HELLO", b"\x00\xff", large.upper()]
    assert push["push"]["pub"]["data"] == "news"
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")


async def test_a_socket_of_the_projects_own_does_not_hold_the_end_up(other_project: Server) -> None:
    """It is closed with 1012 when the server ends, and the status is 0."""
    url = f"ws://127.0.0.1:{other_project.port}/shout"
    async with websockets.connect(url, ping_interval=None) as other:
        await other.send("hello")
        assert await asyncio.wait_for(other.recv(), 30) == "HELLO"

        await asyncio.to_thread(other_project.terminate)

        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(other.recv(), 30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert await asyncio.to_thread(other_project.wait) == 0
