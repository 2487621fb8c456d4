"""Clients of the unidirectional transports as anybody would write them: ``curl -N`` and a plain WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any, Self

import websockets

from tests.live.harness import WAIT_SECONDS, Server


class Curl:
    """``curl -N`` on a stream; ``receive`` gives its pushes one by one."""

    def __init__(self, process: asyncio.subprocess.Process, head: str, *, is_sse: bool) -> None:
        self._process = process
        self._is_sse = is_sse
        self.head = head

    @classmethod
    async def start(cls, url: str, *arguments: str) -> Self:
        """Begin, and wait for the response's head."""
        process = await asyncio.create_subprocess_exec(
            "curl", "-sSN", "-i", "--max-time", "60", *arguments, url,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            head = await process.stdout.readuntil(b"\r\n\r\n")
        text = head.decode().lower()
        return cls(process, text, is_sse="text/event-stream" in text)

    async def line(self, seconds: float = WAIT_SECONDS) -> bytes:
        """Return the next line of the body, empty at its end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            return await self._process.stdout.readline()

    async def receive(self, seconds: float = WAIT_SECONDS) -> Any:
        """Return the next push; ``EOFError`` at the body's end."""
        while True:
            line = await self.line(seconds)
            if not line:
                raise EOFError
            if not self._is_sse:
                return json.loads(line)
            if line.startswith(b"data: "):
                assert await self.line() == b"\n"
                return json.loads(line.removeprefix(b"data: "))
            assert line == b"\r\n"  # the preamble

    async def rest(self) -> list[Any]:
        """Return the pushes to the end of the body."""
        pushes = []
        with contextlib.suppress(EOFError):
            while True:
                pushes.append(await self.receive())
        return pushes

    async def close(self) -> None:
        """Go away without a word."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()


class Socket:
    """A WebSocket on ``uni_websocket``; a push per frame, or several."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.frames: list[str] = []
        self._waiting: list[Any] = []

    async def receive(self, seconds: float = WAIT_SECONDS) -> Any:
        """Return the next push."""
        while not self._waiting:
            async with asyncio.timeout(seconds):
                frame = await self.socket.recv()
            assert isinstance(frame, str)
            self.frames.append(frame)
            self._waiting = [json.loads(line) for line in frame.split("\n")]
        return self._waiting.pop(0)

    async def rest(self) -> list[Any]:
        """Return the pushes to the close."""
        pushes = []
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                pushes.append(await self.receive())
        return pushes

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of the server's close frame; 1006 where there was none."""
        return self.socket.close_code or 0, self.socket.close_reason or ""


def query(request: Any) -> str:
    """Return a connect request as the query of a URL."""
    return "?" + urllib.parse.urlencode({"cf_connect": json.dumps(request)})


@contextlib.asynccontextmanager
async def socket(
    server: Server, request: Any = None, *, path: str = "/connection/uni_websocket", **more: Any
) -> AsyncIterator[Socket]:
    """Open a WebSocket and send a connect request, if there is one."""
    async with websockets.connect(
        f"ws://127.0.0.1:{server.port}{path}", proxy=None, ping_interval=None, **more
    ) as connection:
        if request is not None:
            await connection.send(json.dumps(request))
        yield Socket(connection)


@contextlib.asynccontextmanager
async def curl(server: Server, path: str, *arguments: str) -> AsyncIterator[Curl]:
    """Run ``curl -N``, ended at the end of the block."""
    client = await Curl.start(server.url + path, *arguments)
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def listener(server: Server, transport: str, request: Any) -> AsyncIterator[Curl | Socket]:
    """Connect by a transport's usual way."""
    path = f"/connection/{transport}"
    if transport == "uni_websocket":
        async with socket(server, request) as opened:
            yield opened
    elif transport == "uni_sse":
        async with curl(server, path + query(request)) as opened:
            yield opened
    else:
        async with curl(server, path, "--data", json.dumps(request)) as opened:
            yield opened
