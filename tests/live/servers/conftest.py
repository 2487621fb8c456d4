"""Servers as processes on free ports, and a client that sees bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest


ROOT = Path(__file__).parents[3]
START_SECONDS = 60.0
APPLICATION = "tests.live.servers.echo:application"


class RunningServer:
    """A server process; ``kind`` is ``serve`` or ``daphne``."""

    def __init__(self, kind: str, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.kind = kind
        self.process = process
        self.port = port
        self.log = log

    def url(self, path: str) -> str:
        """Return a WebSocket URL."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def get(self, path: str) -> bytes:
        """Return the body of a GET."""
        address = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(address, timeout=30) as response:
            return bytes(response.read())

    def events(self) -> list[list[Any]]:
        """Return what the handlers were told."""
        return list(json.loads(self.get("/events")))

    def wait_for_events(self, *wanted: list[Any]) -> list[list[Any]]:
        """Wait until all of ``wanted`` have happened."""
        deadline = time.monotonic() + 30
        while True:
            events = self.events()
            if all(event in events for event in wanted):
                return events
            assert time.monotonic() < deadline, f"{wanted} not in {events}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def log_text(self) -> str:
        """Return what the process wrote to standard error."""
        return self.log.read_text(encoding="utf-8")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(command: list[str], log: IO[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )


def start_serve(log: Path, *flags: str) -> RunningServer:
    """Start the echo application the way ``manage.py serve`` serves."""
    with log.open("w", encoding="utf-8") as file:
        process = _start([sys.executable, "-m", "tests.live.servers.echo", *flags], file, {})
    assert process.stdout is not None
    word, _, port = process.stdout.readline().partition(" ")
    if word != "ready":
        process.communicate(timeout=30)
        raise AssertionError(log.read_text(encoding="utf-8"))
    return RunningServer("serve", process, int(port), log)


def start_daphne(log: Path, limit: int = 65536) -> RunningServer:
    """Start the plain ``daphne`` command on the echo application."""
    port = free_port()
    command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), APPLICATION]
    with log.open("w", encoding="utf-8") as file:
        process = _start(command, file, {"ECHO_ON_DAPHNE": "1", "ECHO_LIMIT": str(limit)})
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return RunningServer("daphne", process, port, log)
    process.kill()
    process.communicate(timeout=30)
    raise AssertionError(log.read_text(encoding="utf-8"))


def _end(server: RunningServer) -> None:
    if server.process.poll() is None:
        server.process.kill()
    server.process.wait(10)
    if server.process.stdout is not None:
        server.process.stdout.close()


@pytest.fixture(scope="module", params=["serve", "daphne"])
def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One server of each kind; its limit of messages is 1000 bytes."""
    log = tmp_path_factory.mktemp("server") / "log"
    server = (
        start_serve(log, "--limit", "1000") if request.param == "serve" else start_daphne(log, 1000)
    )
    yield server
    _end(server)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A production server with the default limit of messages and one of 1000 bytes for API bodies."""
    server = start_serve(tmp_path_factory.mktemp("server") / "log", "--body-limit", "1000")
    yield server
    _end(server)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers of a test's own: ``start("serve", "--flag")`` or ``start("daphne")``."""
    started: list[RunningServer] = []

    def _starter(kind: str, *flags: str) -> RunningServer:
        log = tmp_path / f"log{len(started)}"
        server = start_serve(log, *flags) if kind == "serve" else start_daphne(log)
        started.append(server)
        return server

    yield _starter
    for server in started:
        _end(server)


class RawClient:
    """A socket, for what no library lets one send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self, path: str, *, tail: bytes = b"", **headers: str) -> bytes:
        """Ask for the upgrade, with ``tail`` in the same write, and return the response's head."""
        fields = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + tail)
        return await self.head()

    async def head(self) -> bytes:
        """Read a response's head."""
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)

    async def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        return await asyncio.wait_for(self.reader.readexactly(size), 30)

    async def rest(self, seconds: float = 5) -> bytes:
        """Read to the end."""
        return await asyncio.wait_for(self.reader.read(), seconds)

    async def close(self) -> None:
        """Close without any word."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_client(server: RunningServer) -> AsyncIterator[RawClient]:
    """Connect a ``RawClient``, and close it at the end."""
    client = RawClient(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        yield client
    finally:
        await client.close()
