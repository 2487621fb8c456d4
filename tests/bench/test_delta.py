"""
What deltas and filters cost: CPU time of the encoder, and of a publication and a delivery with and without them.

Most of it in one process, with transports that take everything: the difference between the rows is what is asked for. ``-s``
shows them.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import psutil
import pytest
from msgspec import Raw

from realtime.client.client import Client
from realtime.namespaces.options import ChannelOptions
from realtime.namespaces.table import NamespaceTable
from realtime.node.node import Node
from realtime.protocol.fossil import apply, create
from realtime.protocol.messages import Publication, StreamPosition
from realtime.protocol.wire import FRAMES_JSON
from realtime.session.session import Session
from tests.guard.paths import FakeTransport, make_node
from tests.live.harness import Server
from tests.live.storm import allow_many_files
from tests.live.swarm import ProtocolClient, api_connection


pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

ROUNDS = 7
PUBLICATIONS = 40
NAMESPACES = {
    "doc": ChannelOptions(
        history_size=10,
        history_ttl=60,
        force_recovery=True,
        allowed_delta_types=("fossil",),
        delta_publish=True,
        allow_tags_filter=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
    )
}


def table(rows: int) -> dict[str, Any]:
    """Make a document of some 75 bytes a row."""
    rng = random.Random(rows)
    return {
        "rows": [
            {"id": number, "name": f"item {rng.randrange(10**6)}", "price": rng.random()}
            for number in range(rows)
        ]
    }


def _text(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _one_change(document: dict[str, Any]) -> None:
    document["rows"][len(document["rows"]) // 2]["price"] = 0.5


def _two_ends(document: dict[str, Any]) -> None:
    document["rows"][0]["price"] = document["rows"][-1]["price"] = 0.5


def _everywhere(document: dict[str, Any]) -> None:
    rng = random.Random(1)
    for row in document["rows"]:
        row["price"] = rng.random()


def _nothing_left(document: dict[str, Any]) -> None:
    document["rows"] = [random.Random(2).randbytes(len(_text(document)) // 2).hex()]


def _least(work: Callable[[], object]) -> float:
    """Return the least CPU seconds of several runs."""
    least = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        least = min(least, time.process_time() - begin)
    return least


@pytest.mark.parametrize("rows", [3, 15, 150, 1500])
@pytest.mark.parametrize("change", [_one_change, _two_ends, _everywhere, _nothing_left])
def test_encoder(rows: int, change: Callable[[dict[str, Any]], None]) -> None:
    """A change costs its size and little of the document's; no document holds the loop for long."""
    document = table(rows)
    before = _text(document)
    change(document)
    after = _text(document)

    seconds = _least(lambda: create(before, after))

    delta = create(before, after)
    assert apply(before, delta) == after
    sys.stdout.write(
        f"\n{change.__name__[1:]:>12} {len(after):>7} bytes, delta {len(delta):>6}: "
        f"{seconds * 1e6:8.1f} us, {seconds * 1e9 / len(after):6.2f} us/KB"
    )
    assert seconds < 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """Of one kind of subscriber: their number, and CPU µs of a publication and of each of its deliveries."""

    kind: str
    subscribers: int
    deliveries: int
    us_per_publication: float

    def __str__(self) -> str:
        """Show it as a line of a table."""
        each = self.us_per_publication / max(self.deliveries, 1)
        return (
            f"{self.kind:>12} {self.subscribers:>6} subscribers: {self.us_per_publication:9.1f} us a publication, "
            f"{self.deliveries:>6} deliveries, {each:6.3f} us each"
        )


@pytest.fixture
async def node() -> Any:
    """Give a node whose namespace allows everything here."""
    node = make_node()
    node.table = NamespaceTable(without_namespace=ChannelOptions(), namespaces=NAMESPACES)
    await node.start()
    yield node
    await node.stop()


def _fill(node: Node, count: int, requests: Iterator[dict[str, Any]]) -> None:
    for number in range(count):
        client = Client(
            node, Session(f"c-{number}"), FRAMES_JSON, FakeTransport(), transport_name="websocket"
        )
        client.on_message(b'{"id":1,"connect":{}}', True)
        subscribe = {"channel": "doc:a", **next(requests)}
        client.on_message(msgspec.json.encode({"id": 2, "subscribe": subscribe}), True)


def _plain() -> Iterator[dict[str, Any]]:
    while True:
        yield {}


def _delta() -> Iterator[dict[str, Any]]:
    while True:
        yield {"delta": "fossil"}


def _filters(count: int) -> Iterator[dict[str, Any]]:
    while True:
        for number in range(count):
            yield {
                "tf": {
                    "op": "and",
                    "nodes": [
                        {"key": "n", "cmp": "gte", "val": str(number)},
                        {"key": "kind", "cmp": "in", "vals": ["a", f"k{number}"]},
                    ],
                }
            }


@pytest.mark.parametrize("size", [800, 11_000])
@pytest.mark.parametrize("subscribers", [1, 1000])
@pytest.mark.parametrize("kind", ["plain", "delta", "1 filter", "100 filters"])
async def test_fan_out(node: Node, kind: str, subscribers: int, size: int) -> None:
    """One publication in a tick, to all; with filters half of the subscribers want it."""
    count = {"1 filter": 1, "100 filters": 100}.get(kind)
    requests = _delta() if kind == "delta" else _filters(count) if count else _plain()
    _fill(node, subscribers, requests)
    document = table(size // 75)
    documents = []
    for number in range(2):
        document["rows"][1]["price"] = number / 3
        documents.append(Raw(_text(document)))
    epoch = node.hub.rooms["doc:a"].epoch or ""
    tags = {"n": "50", "kind": "a"} if count else None
    offset = 0

    def publish() -> None:
        nonlocal offset
        for _ in range(PUBLICATIONS):
            offset += 1
            before = Publication(documents[offset % 2], offset=offset - 1) if offset > 1 else None
            publication = Publication(documents[(offset + 1) % 2], offset=offset, tags=tags)
            node.hub.publish("doc:a", publication, StreamPosition(offset, epoch), before)
            node.hub.flush()

    seconds = _least(publish)

    deliveries = node.hub.deliveries // offset
    row = Row(kind, subscribers, deliveries, seconds * 1e6 / PUBLICATIONS)
    sys.stdout.write(f"\n{size:>7} bytes {row}")
    assert node.hub.deliveries + node.hub.filtered == offset * subscribers
    if kind == "delta":
        assert node.hub.patched == (offset - 1) * subscribers


# --- a real server --------------------------------------------------------------------------------------

SOCKETS = 300
SENT = 300


class _Subscriber(ProtocolClient):
    """A client that counts frames once it is subscribed: each has one publication or several."""

    on_frame: Callable[[], None] | None = None

    def on_payload(self, payload: bytes) -> None:
        if self.on_frame is None:
            super().on_payload(payload)
        else:
            self.on_frame()


async def _price(server: Server, channel: str, requests: Iterator[dict[str, Any]]) -> Price:
    """Publish a document that changes a little to many sockets; each publication is awaited by all of them."""
    arrived = asyncio.Event()
    left = 0

    def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            arrived.set()

    clients = [_Subscriber(server.websocket_url, is_protobuf=False) for _ in range(SOCKETS)]
    for client in clients:
        assert await client.open() == 101
        await client.ask("connect")
        await client.ask("subscribe", channel=channel, **next(requests))
        client.on_frame = count
    document = table(25)
    process = psutil.Process(server.pid)
    spent = -sum(process.cpu_times()[:2])
    received = -sum(client.received_bytes for client in clients)
    async with api_connection(server) as api:
        for number in range(SENT):
            document["rows"][number % 25]["price"] = number / 7
            left = SOCKETS
            arrived.clear()
            await api.call(
                "publish", channel=channel, data=document, tags={"n": "500", "kind": "a"}
            )
            await asyncio.wait_for(arrived.wait(), 20)
    spent += sum(process.cpu_times()[:2])
    received += sum(client.received_bytes for client in clients)
    for client in clients:
        client.close()
    await asyncio.gather(*(client.ended for client in clients))
    deliveries = SENT * SOCKETS
    return Price(round(spent * 1e6 / deliveries, 2), round(received / deliveries))


@dataclass(frozen=True, slots=True)
class Price:
    """The server's CPU µs and the bytes on the wire of a delivery."""

    us_per_delivery: float
    bytes_per_delivery: int


async def test_a_real_server(serving: Server) -> None:
    """A document of 2 KB to sockets: a patch is made once, and a filter asked once, for all of them."""
    allow_many_files()

    prices = {
        "plain": await _price(serving, "doc:plain", _plain()),
        "delta": await _price(serving, "doc:delta", _delta()),
        "1 filter": await _price(serving, "tagged:one", _filters(1)),
        "100 filters": await _price(serving, "tagged:many", _filters(100)),
    }

    for kind, price in prices.items():
        sys.stdout.write(f"\n{kind:>12} {price}")
    assert prices["delta"].bytes_per_delivery < prices["plain"].bytes_per_delivery / 5
    assert prices["delta"].us_per_delivery < 1.5 * prices["plain"].us_per_delivery
