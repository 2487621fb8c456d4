"""A backend of the application on loopback, which does what a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field


Reply = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request, and how to answer it."""

    head: list[str]
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def headers(self) -> dict[str, str]:
        """Header values by lower-case name; one that came twice is joined."""
        found: dict[str, str] = {}
        for line in self.head[1:]:
            name, _, value = line.partition(": ")
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        return found

    def answer(self, body: bytes | object, status: str = "200 OK", *headers: str) -> None:
        """Write a whole answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers]
        self.writer.write("\r\n".join([*head, "", ""]).encode() + data)


@dataclass
class Backend:
    """
    A server and what it has seen.

    ``reply`` is awaited for each request; ``connections`` counts those that were opened.
    """

    port: int = 0
    scheme: str = "http"
    reply: Reply | None = None
    requests: list[Exchange] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    all_closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}/poll?a=b%20c"

    def answers(self, body: bytes | object, status: str = "200 OK", *headers: str) -> None:
        """Answer every request alike."""

        async def reply(exchange: Exchange) -> None:
            exchange.answer(body, status, *headers)

        self.reply = reply

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the other side or the reply closes it."""
        self.connections += 1
        self.open_connections += 1
        self.all_closed.clear()
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
                length = next(
                    int(line.partition(":")[2])
                    for line in head
                    if line.lower().startswith("content-length:")
                )
                exchange = Exchange(head, await reader.readexactly(length), writer)
                self.requests.append(exchange)
                assert self.reply is not None
                await self.reply(exchange)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_connections -= 1
            if not self.open_connections:
                self.all_closed.set()
            writer.close()


@contextlib.asynccontextmanager
async def open_backend(context: ssl.SSLContext | None = None) -> AsyncIterator[Backend]:
    """Start one on a free port."""
    backend = Backend(scheme="https" if context else "http")
    handlers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(backend.serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    backend.port = server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
