"""
A crowd of clients in a process of its own, so that what it costs does not blur what others measure.

``python -m tests.live.crowd URL CLIENTS CHANNELS PREFIX`` reads commands, one a line, from standard input and answers each
with one line of JSON:

``connect``
    All clients connect at the same moment and subscribe, with recovery from where they were. The answer has ``refused``
    (statuses or errors), ``recovered``, ``lost`` (what recovery left out or repeated) and ``seconds``, sorted: when each
    client was subscribed.
``cut``
    All sockets are dropped without a word.
``closes``
    Wait until the server has closed all of them; ``codes`` counts the close codes, ``seconds`` says when they came.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any, Self

import uvloop

from tests.live.swarm import Message, ProtocolClient


WAIT_SECONDS = 60.0


class Member:
    """One client of the crowd, over all its connections."""

    def __init__(self, url: str, channel: str) -> None:
        self._url = url
        self._channel = channel
        self._position: tuple[int, str] | None = None
        self.connection: ProtocolClient | None = None
        self.is_recovered = False
        self.closed_at = 0.0
        self.problems: list[str] = []

    async def connect(self) -> float:
        """Connect and subscribe; return when that was done."""
        loop = asyncio.get_running_loop()
        self.connection = ProtocolClient(self._url, is_protobuf=False, on_message=self._on_message)
        self.connection.ended.add_done_callback(self._on_end)
        if (status := await self.connection.open()) != 101:
            raise ConnectionRefusedError(f"status {status}")
        request: Message = {"channel": self._channel}
        if self._position is not None:
            offset, epoch = self._position
            request |= {"recover": True, "offset": offset, "epoch": epoch}
        connected, subscribed = self.connection.number(), self.connection.number()
        done = self.connection.expect(subscribed)
        self.connection.send(
            {"id": connected, "connect": {}}, {"id": subscribed, "subscribe": request}
        )
        async with asyncio.timeout(WAIT_SECONDS):
            result = (await done)["subscribe"]
        self._take(request, result)
        return loop.time()

    def _take(self, request: Message, result: Message) -> None:
        self.is_recovered = bool(result.get("recovered"))
        offset = result.get("offset", 0)
        if self.is_recovered:
            offset = request["offset"]
            for publication in result.get("publications", ()):
                if publication["offset"] != offset + 1:
                    self.problems.append(f"{publication['offset']} after {offset}")
                offset = publication["offset"]
        self._position = (offset, result["epoch"])

    def _on_message(self, message: Message) -> None:
        """Count pushes; the reply is read where it was asked for."""
        push = message.get("push")
        if push is None or self._position is None:
            return
        offset = push["pub"]["offset"]
        if offset != self._position[0] + 1:
            self.problems.append(f"{offset} after {self._position[0]}")
        self._position = (offset, self._position[1])

    def _on_end(self, _: asyncio.Future[int]) -> None:
        self.closed_at = asyncio.get_running_loop().time()


class Crowd:
    """All members."""

    def __init__(self, members: list[Member]) -> None:
        self._members = members

    async def connect(self) -> dict[str, Any]:
        """Connect all at the same moment."""
        start = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(
            *(member.connect() for member in self._members), return_exceptions=True
        )
        refused = Counter(repr(one) for one in outcomes if isinstance(one, BaseException))
        return {
            "refused": dict(refused),
            "recovered": sum(member.is_recovered for member in self._members),
            "lost": [problem for member in self._members for problem in member.problems][:10],
            "seconds": sorted(one - start for one in outcomes if isinstance(one, float)),
        }

    async def cut(self) -> dict[str, Any]:
        """Drop all sockets."""
        connections = [member.connection for member in self._members if member.connection]
        for connection in connections:
            connection.kill()
        await asyncio.gather(*(connection.ended for connection in connections))
        return {}

    async def closes(self) -> dict[str, Any]:
        """Wait for the server to close all of them."""
        start = asyncio.get_running_loop().time()
        codes = await asyncio.wait_for(
            asyncio.gather(*(one.connection.ended for one in self._members if one.connection)),
            WAIT_SECONDS,
        )
        return {
            "codes": Counter(codes),
            "seconds": sorted(member.closed_at - start for member in self._members),
        }


async def _serve(crowd: Crowd) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        answer = await getattr(crowd, line.decode().strip())()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def _main(url: str, clients: int, channels: int, prefix: str) -> None:
    members = [Member(url, f"{prefix}{number % channels}") for number in range(clients)]
    await _serve(Crowd(members))


class CrowdProcess:
    """The process, from the test's side."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, url: str, clients: int, channels: int, prefix: str) -> Self:
        """Start it."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "tests.live.crowd",
                    url,
                    str(clients),
                    str(channels),
                    prefix,
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=16 * 1024 * 1024,
            )
        )

    async def do(self, command: str) -> Any:
        """Have a command carried out and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        line = await asyncio.wait_for(self._process.stdout.readline(), 2 * WAIT_SECONDS)
        return json.loads(line)

    async def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
