"""What permessage-deflate costs: CPU time per publication and delivery, memory per socket, bytes on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pytest

from tests.bench.conftest import Record
from tests.live.conftest import copy_database
from tests.live.harness import Server
from tests.live.storm import allow_many_files
from tests.live.swarm import ProtocolClient, api_connection


pytestmark = [pytest.mark.bench, pytest.mark.timeout(180)]

SOCKETS = 500
PUBLICATIONS = 600
ORDER = {
    "id": 48151,
    "status": "out for delivery",
    "courier": {"name": "Mira Okonkwo", "position": {"lat": 52.520008, "lon": 13.404954}},
    "stops": [
        {
            "street": f"Example Street {number}",
            "city": "Berlin",
            "eta": f"2026-03-0{number}T12:30:00Z",
        }
        for number in range(1, 9)
    ],
}
"""A payload of some 800 bytes, as applications send it."""


@dataclass(frozen=True, slots=True)
class Price:
    """One run. ``us_per_publication`` is with nobody but one subscriber, so it is the compression's own share."""

    kb_per_socket: float
    bytes_per_delivery: float
    us_per_delivery: float
    us_per_publication: float


@pytest.fixture
def compressing(database: Path, tmp_path: Path) -> Iterator[Server]:
    """``manage.py serve`` with compression on: clients choose."""
    copy_database(database, tmp_path)
    server = Server("serve", tmp_path, {"TIDEWIRE_WEBSOCKET_COMPRESSION": "true"}).start()
    yield server
    assert server.stop() == 0, server.log


class _Subscriber(ProtocolClient):
    """A client that counts frames once it is subscribed: each has one publication."""

    on_frame: Callable[[], None] | None = None

    def on_payload(self, payload: bytes) -> None:
        if self.on_frame is None:
            super().on_payload(payload)
        else:
            self.on_frame()

    def on_compressed(self, payload: bytes) -> None:
        if self.on_frame is None:
            super().on_compressed(payload)
        else:
            self.on_frame()


class _Sockets:
    """Some subscribers of one channel, all of whom offer compression."""

    def __init__(self, server: Server, count: int) -> None:
        self._left = 0
        self._done = asyncio.Event()
        self.clients = [
            _Subscriber(server.websocket_url, is_protobuf=False, has_deflate=True)
            for _ in range(count)
        ]

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()

    async def open(self, channel: str) -> None:
        for client in self.clients:
            assert await client.open() == 101
            await client.ask("connect")
            await client.ask("subscribe", channel=channel)
            client.on_frame = self._count

    async def publish(self, server: Server, channel: str, count: int) -> None:
        """Publish, and wait until everybody has everything."""
        self._left = count * len(self.clients)
        self._done.clear()
        async with api_connection(server) as api:
            for _ in range(count):
                await api.publish(channel, ORDER)
        await asyncio.wait_for(self._done.wait(), 60)

    async def close(self) -> None:
        for client in self.clients:
            client.close()
        await asyncio.gather(*(client.ended for client in self.clients))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _price(server: Server) -> Price:
    process = psutil.Process(server.pid)
    channel = "price"
    alone = _Sockets(server, 1)
    await alone.open(channel)
    await alone.publish(server, channel, 100)  # warm
    before = _cpu(process)
    await alone.publish(server, channel, 5 * PUBLICATIONS)
    per_publication = (_cpu(process) - before) / (5 * PUBLICATIONS)
    await alone.close()
    memory = process.memory_info().rss
    many = _Sockets(server, SOCKETS)
    await many.open(channel)
    memory = process.memory_info().rss - memory
    received = sum(client.received_bytes for client in many.clients)
    before = _cpu(process)
    await many.publish(server, channel, PUBLICATIONS)
    per_delivery = (_cpu(process) - before) / (PUBLICATIONS * SOCKETS)
    received = sum(client.received_bytes for client in many.clients) - received
    await many.close()
    return Price(
        kb_per_socket=round(memory / 1024 / SOCKETS, 1),
        bytes_per_delivery=round(received / (PUBLICATIONS * SOCKETS), 1),
        us_per_delivery=round(per_delivery * 1e6, 2),
        us_per_publication=round(per_publication * 1e6, 1),
    )


async def test_compression_is_paid_for_by_publication_not_by_delivery(
    serving: Server, compressing: Server, record: Record
) -> None:
    """A message is compressed once for all who take it compressed, and a socket holds no compressor."""
    allow_many_files()

    plain = await _price(serving)
    compressed = await _price(compressing)

    figures = {"off": asdict(plain), "on": asdict(compressed)}
    record("compression", figures)
    assert compressed.bytes_per_delivery < plain.bytes_per_delivery / 1.5, figures
    assert compressed.kb_per_socket < plain.kb_per_socket + 3, figures
    assert compressed.us_per_delivery < 1.5 * plain.us_per_delivery, figures
