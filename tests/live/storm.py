"""
A connect storm: everybody's socket is cut, everybody comes back at the same moment, and others go on listening.

``run`` does it and returns what was measured. The listeners' latency is counted from when a publication was due, not from when it
was sent, so a server that stands still can't hide it by taking requests late.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import statistics
from dataclasses import dataclass, field
from typing import Any

from tests.live.crowd import CrowdProcess
from tests.live.harness import API_KEY, Server
from tests.live.swarm import Message, ProtocolClient, api_connection


LISTENERS = 20
MISSED = 5  # publications to each channel of the crowd while it is away
CALM_SECONDS = 1.0  # before and after, for comparison


@dataclass
class Storm:
    """
    What happened; all times in seconds, from the moment of the reconnect.

    Attributes:
        clients: How many came back.
        refused: What those were told who could not, and how often.
        recovered: How many recovered.
        lost: What recovery left out or repeated.
        subscribed: When each client was subscribed, sorted.
        latencies: When a publication was due, and how long a listener then waited for it.
        gaps: What listeners missed.

    """

    clients: int
    refused: dict[str, int] = field(default_factory=dict)
    recovered: int = 0
    lost: list[str] = field(default_factory=list)
    subscribed: list[float] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def during(self) -> list[float]:
        """Latencies of what was due between the reconnect and the last client's subscription, sorted."""
        return sorted(wait for due, wait in self.latencies if 0 <= due <= self.subscribed[-1])

    @property
    def p99(self) -> float:
        """The 99th percentile of ``during``."""
        return statistics.quantiles(self.during, n=100)[98]


class _Listener:
    def __init__(self, storm: Storm, url: str, started: dict[str, float]) -> None:
        self._storm = storm
        self._started = started
        self._last = 0
        self.connection = ProtocolClient(url, is_protobuf=False, on_message=self._on_message)

    async def start(self, channel: str) -> None:
        await self.connection.open()
        await self.connection.ask("connect")
        await self.connection.ask("subscribe", channel=channel)

    def _on_message(self, message: Message) -> None:
        if "push" not in message:
            return
        publication = message["push"]["pub"]
        if self._last and publication["offset"] != self._last + 1:
            self._storm.gaps.append(f"{publication['offset']} after {self._last}")
        self._last = publication["offset"]
        due = publication["data"]
        now = asyncio.get_running_loop().time()
        self._storm.latencies.append((due - self._started["at"], now - due))


async def _publish_steadily(server: Server, channel: str, interval: float) -> None:
    """Publish every ``interval`` seconds, whether or not the last one was answered."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answers = asyncio.create_task(reader.read(-1))
    try:
        due = loop.time()
        while True:
            body = json.dumps({"channel": channel, "data": due}).encode()
            writer.write(
                b"POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %b\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (API_KEY.encode(), len(body), body)
            )
            due += interval
            await asyncio.sleep(max(0.0, due - loop.time()))
    finally:
        answers.cancel()
        writer.close()


def allow_many_files() -> None:
    """Let this process and those that it starts have as many sockets as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def run(server: Server, clients: int, *, channels: int = 50, interval: float = 0.01) -> Storm:
    """Let ``clients`` storm a server, while somebody publishes to the listeners every ``interval`` seconds."""
    storm = Storm(clients)
    started = {"at": float("inf")}
    loop = asyncio.get_running_loop()
    listeners = [_Listener(storm, server.websocket_url, started) for _ in range(LISTENERS)]
    await asyncio.gather(*(listener.start("load:listeners") for listener in listeners))
    prefix = f"load:crowd-{clients}-"
    crowd = await CrowdProcess.start(server.websocket_url, clients, channels, prefix)
    first = await crowd.do("connect")
    assert not first["refused"], first["refused"]
    await crowd.do("cut")
    async with api_connection(server) as api:
        for number in range(MISSED * channels):
            await api.publish(f"{prefix}{number % channels}", number)
    started["at"] = loop.time() + CALM_SECONDS
    publisher = asyncio.create_task(_publish_steadily(server, "load:listeners", interval))
    await asyncio.sleep(CALM_SECONDS)

    outcome = await crowd.do("connect")

    await asyncio.sleep(CALM_SECONDS)
    publisher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await publisher
    await crowd.end()
    for listener in listeners:
        listener.connection.kill()
    storm.refused, storm.recovered = outcome["refused"], outcome["recovered"]
    storm.lost, storm.subscribed = outcome["lost"], outcome["seconds"]
    return storm


def check(storm: Storm) -> dict[str, Any]:
    """Assert what has to hold, and return the figures."""
    figures = {
        "clients": storm.clients,
        "seconds": round(storm.subscribed[-1], 3) if storm.subscribed else None,
        "p50": round(statistics.median(storm.during), 4),
        "p99": round(storm.p99, 4),
        "max": round(storm.during[-1], 4),
    }
    assert not storm.refused, storm.refused
    assert storm.recovered == storm.clients, (storm.recovered, storm.clients)
    assert not storm.lost, storm.lost
    assert not storm.gaps, storm.gaps[:10]
    assert storm.p99 < 1, figures
    return figures
