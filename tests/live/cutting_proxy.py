"""A TCP proxy in front of Redis that lets PUB/SUB messages of a channel disappear on demand."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class CuttingProxy:
    """
    Passes everything on, but for what it was told to drop.

    What Redis writes in one go arrives in one go on the loopback interface, and while nothing else is published that is
    whole messages; so it is dropped as it came, and the stream of replies stays in order.

    Attributes:
        dropped: How many chunks were.

    """

    def __init__(self, redis_port: int) -> None:
        self._redis_port = redis_port
        self._server: asyncio.Server | None = None
        self._unwanted: bytes | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self.dropped = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    @property
    def address(self) -> str:
        """Where nodes connect."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def drop_messages_of(self, channel: bytes) -> None:
        """Drop the next PUB/SUB message that has this in it."""
        self._unwanted = channel

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._redis_port)
        for source, target in ((reader, to_writer), (to_reader, writer)):
            task = asyncio.create_task(self._pipe(source, target, is_reply=source is to_reader))
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)

    async def _pipe(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if is_reply and self._is_unwanted(data):
                    self._unwanted = None
                    self.dropped += 1
                    continue
                target.write(data)
                await target.drain()
        target.close()

    def _is_unwanted(self, data: bytes) -> bool:
        return self._unwanted is not None and b"message" in data and self._unwanted in data
