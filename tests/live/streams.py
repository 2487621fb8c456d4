"""HTTP responses that stay open, read from a plain socket: no client library decides what a chunk is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.live.harness import WAIT_SECONDS, Server


class Stream:
    """One response; ``headers`` has lower-case names."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self._buffer = b""
        self.is_ended = False

    async def read_head(self) -> None:
        """Read the status line and the headers."""
        head = (await self._in_time(self._reader.readuntil(b"\r\n\r\n"))).decode("latin-1")
        status, *lines = head.rstrip("\r\n").split("\r\n")
        self.status = int(status.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    async def chunk(self) -> bytes:
        """Read one chunk of the body; empty at its end."""
        size = int((await self._in_time(self._reader.readline())).strip() or b"0", 16)
        data = await self._in_time(self._reader.readexactly(size + 2))
        self.is_ended = size == 0
        return data[:-2]

    async def until(self, mark: bytes) -> bytes:
        """Read up to a mark and return what is before it; what the body ends with if it ends first."""
        while mark not in self._buffer and not self.is_ended:
            self._buffer += await self.chunk()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    async def line(self) -> Any:
        """Return the next message of HTTP streaming; ``None`` at the end."""
        text = await self.until(b"\n")
        return json.loads(text) if text else None

    async def event(self) -> Any:
        """Return the next message of an event stream; ``None`` at the end."""
        text = await self.until(b"\n\n")
        return json.loads(text.removeprefix(b"\r\n").removeprefix(b"data: ")) if text else None

    async def _in_time(self, awaitable: Any) -> Any:
        async with asyncio.timeout(WAIT_SECONDS):
            return await awaitable


@contextlib.asynccontextmanager
async def stream(
    server: Server,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = {},
    *,
    receive_buffer: int = 0,
) -> AsyncIterator[Stream]:
    """Send a request and read the response's head; a ``POST`` where there is a body."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**20)
    try:
        lines = [
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            *(f"{name}: {value}" for name, value in headers.items()),
            *(() if body is None else (f"Content-Length: {len(body)}",)),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        opened = Stream(reader, writer)
        await opened.read_head()
        yield opened
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def commands(*each: Any) -> bytes:
    """Frame commands as JSON."""
    return b"\n".join(json.dumps(one).encode() for one in each)


def sse_path(*each: Any) -> str:
    """Return the path of an event stream that begins with commands."""
    return "/connection/sse?" + urllib.parse.urlencode({"cf_connect": commands(*each)})


class Session:
    """A bidirectional session in JSON over one of the two streams."""

    def __init__(self, opened: Stream, *, is_sse: bool) -> None:
        self.stream = opened
        self._is_sse = is_sse
        self.connected: Any = None

    async def receive(self) -> Any:
        """Return the next message; ``None`` at the end."""
        return await (self.stream.event() if self._is_sse else self.stream.line())

    async def post(self, data: Any, server: Server, *, is_text: bool = True) -> int:
        """Say something to the session, at any server; return the HTTP status."""
        body = {
            "session": self.connected["session"],
            "node": self.connected["node"],
            "data": data if is_text else {"no": "text"},
        }
        answer = await asyncio.to_thread(
            server.request, "/emulation", json.dumps(body).encode(), {"Content-Type": "text/plain"}
        )
        return answer.status

    async def send(self, *each: Any, server: Server) -> int:
        """Send commands in one request."""
        return await self.post(commands(*each).decode(), server)


@contextlib.asynccontextmanager
async def session(server: Server, transport: str, **connect: Any) -> AsyncIterator[Session]:
    """Open a connected session over ``http_stream`` or ``sse``."""
    command = {"id": 1, "connect": connect}
    is_sse = transport == "sse"
    path = sse_path(command) if is_sse else "/connection/http_stream"
    async with stream(server, path, None if is_sse else commands(command)) as opened:
        made = Session(opened, is_sse=is_sse)
        made.connected = (await made.receive())["connect"]
        yield made
