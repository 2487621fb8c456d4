"""How the servers start and end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.live.servers.conftest import RunningServer, raw_client


pytestmark = pytest.mark.timeout(120)

Start = Callable[..., RunningServer]


async def _close_of(websocket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(websocket.recv(), 30)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


@pytest.mark.parametrize("kind", ["serve", "daphne"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_hundred_clients_are_told_and_the_process_ends_well(
    start: Start, kind: str, number: int
) -> None:
    """3001 ``shutdown`` to each, the node stopped, exit status 0."""
    server = start(kind)
    clients = [await connect(server.url("/connection/echo")) for _ in range(100)]

    server.process.send_signal(number)
    closes = [await _close_of(client) for client in clients]
    status = await asyncio.to_thread(server.process.wait, 15)

    assert closes == [(3001, "shutdown")] * 100
    assert status == 0, server.log_text()
    assert server.process.stdout is not None
    assert "stopped" in server.process.stdout.read()
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("kind", ["serve", "daphne"])
async def test_clients_that_never_answer_do_not_hold_the_process_up(
    start: Start, kind: str
) -> None:
    """Their sockets are dropped five seconds after the close frame."""
    server = start(kind)
    async with raw_client(server) as client:
        await client.request("/connection/echo")

        server.process.send_signal(signal.SIGTERM)
        assert await client.exactly(12) == b"\x88\x0a\x0b\xb9shutdown"
        status = await asyncio.to_thread(server.process.wait, 15)

        assert status == 0, server.log_text()


async def test_consumers_that_did_not_attach_are_told_to_come_back(start: Start) -> None:
    """1012, service restart."""
    server = start("serve")
    async with connect(server.url("/connection/plain")) as websocket:
        server.process.send_signal(signal.SIGTERM)

        assert (await _close_of(websocket))[0] == 1012
    assert await asyncio.to_thread(server.process.wait, 15) == 0


async def test_a_shutdown_that_takes_too_long_is_given_up(start: Start) -> None:
    """Exit status 1 and a line in the log."""
    server = start("serve", "--hanging-drain", "--shutdown-seconds", "0.3")

    status = await asyncio.to_thread(server.stop)

    assert status == 1
    assert "shutdown timeout reached" in server.log_text()


async def test_a_request_under_way_is_finished(start: Start) -> None:
    """The server stops to accept, and answers what it has."""
    server = start("serve")
    async with raw_client(server) as client:
        client.writer.write(b"GET /slow?wait=0.5 HTTP/1.1\r\nhost: a\r\n\r\n")
        await client.writer.drain()
        await asyncio.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)

        assert (await client.rest()).endswith(b"asgi GET /slow 0")
    assert await asyncio.to_thread(server.process.wait, 15) == 0


def test_the_pid_file_is_there_for_the_time_of_the_run(start: Start, tmp_path: Path) -> None:
    """And gone after it."""
    file = tmp_path / "pid"
    server = start("serve", "--pid-file", str(file))

    assert int(file.read_text()) == server.process.pid
    server.stop()
    assert not file.exists()


def test_processes_share_a_port_only_if_told_to(start: Start) -> None:
    """Two that don't know of each other must not divide the clients between them."""
    first = start("serve", "--shared")
    second = start("serve", "--shared", "--port", str(first.port))
    assert second.port == first.port

    with pytest.raises(AssertionError, match="Address already in use"):
        start("serve", "--port", str(first.port))


def test_the_node_starts_once_under_daphne(start: Start) -> None:
    """With the first scope, since Daphne has no lifespan."""
    server = start("daphne")

    assert server.events() == [["start"]]
    assert server.events() == [["start"]]


def test_a_killed_process_leaves_no_hidden_listener(start: Start) -> None:
    """The port is free at once, without ``SO_REUSEPORT``."""
    first = start("serve")
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait(5)

    assert start("serve", "--port", str(first.port)).get("/").startswith(b"asgi")
