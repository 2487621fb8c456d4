"""What saves bandwidth beside batches: deltas without positions, numbers for names, a pause between publishes, one write for many."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from realtime.conf.options import ProcessOptions
from realtime.engines.base import PublishOptions
from realtime.namespaces.table import NamespaceTable
from realtime.node.node import Node
from realtime.protocol.messages import Command, ConnectRequest, Publication, SubscribeRequest
from realtime.protocol.protobuf_codec import delimit, encode_message
from realtime.protocol.wire import ASGI_JSON, ASGI_PROTOBUF, SSE_JSON, Wire
from tests.unit.client.conftest import OPEN, Connection
from tests.unit.client.readers import Reader, _messages


replace = msgspec.structs.replace
DELTA = PublishOptions(delta=True)
WHOLE = PublishOptions()

LATEST = replace(OPEN, allowed_delta_types=("fossil",), keep_latest_publication=True)
NAMESPACES = {
    "doc": LATEST,
    "batched": replace(LATEST, batch_max_size=3),
    "without": replace(LATEST, keep_latest_publication=False),
    "hist": replace(
        LATEST, history_size=100, history_ttl=60, allow_recovery=True, allow_positioning=True
    ),
    "number": replace(
        OPEN,
        allow_channel_compaction=True,
        join_leave=True,
        force_push_join_leave=True,
        allowed_delta_types=("fossil",),
    ),
    "debounce": replace(OPEN, client_publish_debounce_interval=0.25),
    "plain": OPEN,
}


@pytest.fixture
async def node(make_node: Callable[..., Any], options: ProcessOptions) -> Node:
    made: Node = await make_node(options)
    made.table = NamespaceTable(namespaces=NAMESPACES)
    return made


def document(number: int) -> str:
    return json.dumps(f"a text that is the same for all of them, except for its number {number}")


async def publish(
    node: Node, channel: str, text: str, options: PublishOptions = DELTA, **facts: Any
) -> None:
    publication = Publication(data=Raw(text.encode()), **facts)
    await node.broker.publish(channel, publication, options)


# --- deltas for those who count no offsets ----------------------------------------------------------


@pytest.mark.parametrize("is_json", [True, False])
async def test_patches_without_positions_and_history(node: Node, is_json: bool):
    """The first publication after a subscribe comes whole, those after it as patches."""
    reader = Reader(node, "doc:a", is_json=is_json, delta="fossil")
    assert reader.come()["delta"] is True

    for number in range(4):
        await publish(node, "doc:a", document(number))
    reader.read()

    assert reader.documents == [document(number).encode() for number in range(4)]
    assert reader.patches == 3
    assert node.hub.patched == 3
    assert node.hub.bytes_saved > 100
    reader.drop()
    reader.come()
    await publish(node, "doc:a", document(4))
    reader.read()
    assert reader.patches == 3
    assert reader.documents[-1] == document(4).encode()


async def test_without_the_option_every_publication_is_whole(node: Node):
    """As text, since the subscriber negotiated deltas."""
    reader = Reader(node, "without:a", delta="fossil")
    reader.come()

    for number in range(3):
        await publish(node, "without:a", document(number))
    reader.read()

    assert reader.documents == [document(number).encode() for number in range(3)]
    assert reader.patches == 0


async def test_what_is_published_without_deltas_is_whole_and_the_next_ones_base(node: Node):
    """The SDK takes what it received last as its base, whoever published it how."""
    reader = Reader(node, "doc:a", delta="fossil")
    reader.come()

    for number, options in enumerate([DELTA, WHOLE, DELTA]):
        await publish(node, "doc:a", document(number), options)
    reader.read()

    assert reader.documents == [document(number).encode() for number in range(3)]
    assert reader.patches == 1


async def test_followers_and_those_with_positions_share_what_they_can(node: Node):
    """One patch for both where the publication before is the same; one without an offset is a base for followers only."""
    stored = PublishOptions(history_size=100, history_ttl=60, delta=True)
    follower = Reader(node, "hist:a", delta="fossil")
    positioned = Reader(node, "hist:a", delta="fossil", positioned=True)
    follower.come()
    positioned.come()

    for number, options in enumerate([stored, stored, DELTA, stored, stored]):
        await publish(node, "hist:a", document(number), options)
    follower.read()
    positioned.read()

    expected = [document(number).encode() for number in range(5)]
    assert follower.documents == positioned.documents == expected
    assert follower.patches == 4
    assert positioned.patches == 2  # the one outside the stream breaks the chain


async def test_the_last_publication_is_kept_for_followers_only(node: Node):
    """A channel without them costs no memory for it."""
    reader, plain = Reader(node, "doc:a", delta="fossil"), Reader(node, "doc:a")
    reader.come()
    plain.come()
    await publish(node, "doc:a", document(1))
    assert bytes(node.hub.rooms["doc:a"].extras.latest.data) == document(1).encode()

    reader.unsubscribe()

    assert node.hub.rooms["doc:a"].extras.latest is None
    await publish(node, "doc:a", document(2))
    assert node.hub.rooms["doc:a"].extras.latest is None
    plain.read()
    assert [json.dumps(json.loads(each)) for each in plain.documents] == [document(1), document(2)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("channel", ["doc:a", "batched:a"])
async def test_followers_rebuild_every_document_whatever_happens(
    node: Node, channel: str, seed: int
):
    """Readers stall, catch up, go and come again; each sees an unbroken run from its subscribe on."""
    chance = random.Random(seed)
    readers = [Reader(node, channel, is_json=n % 2 == 0, delta="fossil") for n in range(5)]
    for reader in readers:
        reader.come()
    runs = dict.fromkeys(readers, 1)  # the number that the run has to begin with
    published = 0

    for _ in range(300):
        reader = chance.choice(readers)
        draw = chance.random()
        if draw < 0.6:
            published += 1
            options = DELTA if chance.random() < 0.9 else WHOLE
            await publish(node, channel, document(published), options)
        elif draw < 0.7:
            reader.pause()
        elif draw < 0.82:
            reader.resume()
        elif draw < 0.9:
            node.hub.flush()
        else:
            reader.unsubscribe()
            check_run(reader, runs[reader], published)
            reader.documents.clear()
            reader.subscribe()
            runs[reader] = published + 1
    for reader in readers:
        reader.unsubscribe()
        check_run(reader, runs[reader], published)

    assert sum(reader.patches for reader in readers) > 100


def check_run(reader: Reader, first: int, last: int) -> None:
    seen = [json.loads(each) for each in reader.documents]
    assert seen == [json.loads(document(number)) for number in range(first, last + 1)]


# --- numbers for names ------------------------------------------------------------------------------


def subscribe(connection: Connection, channel: str, **request: Any) -> list[Any]:
    return connection.send({"id": 2, "subscribe": {"channel": channel, **request}})


async def test_pushes_of_a_subscription_carry_the_number(
    node: Node, connect: Callable[..., Connection]
):
    """Publications, joins and leaves; the end of a subscription names the channel, as SDKs look it up."""
    asking, other = connect(), connect()
    reply, join = subscribe(asking, "number:a", flag=1)
    number = reply["subscribe"]["id"]
    assert join["push"]["id"] == number

    subscribe(other, "number:a")
    await publish(node, "number:a", "1")
    other.send({"id": 3, "unsubscribe": {"channel": "number:a"}})
    pushes = [each["push"] for each in asking.received()]

    assert [sorted(push) for push in pushes] == [["id", "join"], ["id", "pub"], ["id", "leave"]]
    assert {push["id"] for push in pushes} == {number}
    subscription = asking.client.session.subscriptions["number:a"]
    asking.client.unsubscribe(subscription, 2000, "server unsubscribe")
    assert asking.received()[0]["push"]["channel"] == "number:a"


async def test_a_number_is_a_channels_as_long_as_it_has_subscribers(
    node: Node, connect: Callable[..., Connection]
):
    """All who ask get the same; numbers of channels differ; one that was forgotten does not return."""
    first, second = connect(), connect()
    one = subscribe(first, "number:a", flag=1)[0]["subscribe"]["id"]
    two = subscribe(first, "number:b", flag=1)[0]["subscribe"]["id"]

    assert subscribe(second, "number:a", flag=3)[0]["subscribe"]["id"] == one
    assert one != two
    for connection in (first, second):
        connection.send({"id": 3, "unsubscribe": {"channel": "number:a"}})
    assert subscribe(first, "number:a", flag=1)[0]["subscribe"]["id"] not in (one, two)


@pytest.mark.parametrize(
    ("channel", "request_"), [("plain:a", {"flag": 1}), ("number:a", {"flag": 2})]
)
async def test_nobody_gets_a_number_unasked(
    connect: Callable[..., Connection], channel: str, request_: dict[str, Any]
):
    """Nor where the namespace has none."""
    assert "id" not in subscribe(connect(), channel, **request_)[0]["subscribe"]


@pytest.mark.parametrize(
    ("wire", "name", "has_number"),
    [(ASGI_PROTOBUF, "js", False), (ASGI_PROTOBUF, "go", True), (ASGI_JSON, "js", True)],
)
async def test_an_sdk_that_cannot_see_numbers_gets_names(
    node: Node, wire: Wire, name: str, has_number: bool
):
    """JavaScript's over Protobuf would drop every publication."""
    connection = Connection(node, "one", wire)
    commands = [
        Command(id=1, connect=ConnectRequest(name=name)),
        Command(id=2, subscribe=SubscribeRequest(channel="number:a", flag=1)),
    ]
    for command in commands:
        frame = msgspec.json.encode(command) if wire.is_json else delimit(encode_message(command))
        connection.client.on_message(frame)

    granted = connection.client.session.subscriptions["number:a"].options

    assert (granted.manner is not None) == has_number


async def test_numbers_on_protobuf_with_deltas_and_slow_readers(node: Node):
    """The same on the other encoding, and for one that is looked after on its own."""
    connection = Connection(node, "one")
    connection.send({"id": 1, "connect": {}})
    connection.client.wire = ASGI_PROTOBUF
    request = (
        b"\x0a\x08number:a" + bytes([12 << 3 | 2]) + b"\x06fossil" + bytes([14 << 3]) + b"\x01"
    )
    command = b"\x08\x02\x2a" + bytes([len(request)]) + request
    connection.client.on_message(bytes([len(command)]) + command, False)
    connection.client.on_pause()
    await publish(node, "number:a", "1")
    node.hub.flush()

    reply, join, push = _messages(b"".join(connection.transport.written))

    assert reply.subscribe.id > 0
    assert reply.subscribe.delta
    assert (join.push.id, join.push.channel) == (reply.subscribe.id, "")
    assert (push.push.id, push.push.channel) == (reply.subscribe.id, "")
    assert push.push.pub.data == b"1"


# --- the rest -----------------------------------------------------------------------------------------


async def test_sdks_are_told_how_often_to_publish(connect: Callable[..., Connection]):
    """In milliseconds, and only where the namespace says so."""
    connection = connect()

    assert subscribe(connection, "debounce:a")[0]["subscribe"]["publish_debounce"] == 250
    assert "publish_debounce" not in subscribe(connection, "plain:a")[0]["subscribe"]


async def delayed(
    make_node: Callable[..., Any], options: ProcessOptions, everywhere: float, websocket: float
) -> Node:
    client = replace(options.client, write_delay=everywhere)
    websockets = replace(options.websocket, write_delay=websocket)
    node: Node = await make_node(replace(options, client=client, websocket=websockets))
    node.table = NamespaceTable(namespaces=NAMESPACES)
    return node


async def listen(node: Node, *channels: str, is_websocket: bool = True) -> Connection:
    connection = Connection(node, f"client-{len(node.connections)}")
    connection.send({"id": 1, "connect": {}})
    if not is_websocket:
        connection.client.wire = SSE_JSON
    for number, channel in enumerate(channels, start=2):
        command = {"id": number, "subscribe": {"channel": channel}}
        connection.client.on_message(json.dumps(command).encode())
    connection.transport.written = Heard()
    return connection


class Heard(list[bytes]):
    """What was written; tells of it."""

    def __init__(self) -> None:
        super().__init__()
        self.has_more = asyncio.Event()

    def append(self, framed: bytes) -> None:
        super().append(framed)
        self.has_more.set()


async def heard(connection: Connection) -> None:
    """Wait until something is written."""
    assert isinstance(connection.transport.written, Heard)
    await asyncio.wait_for(connection.transport.written.has_more.wait(), 30)


async def test_a_write_delay_joins_what_a_connection_gets_of_all_its_channels(
    make_node: Callable[..., Any], options: ProcessOptions
):
    """In one write; nothing leaves before."""
    node = await delayed(make_node, options, 0.02, 0)
    connection = await listen(node, "plain:a", "plain:b", "plain:c")
    begin = asyncio.get_running_loop().time()

    for channel in ("plain:a", "plain:b", "plain:a"):
        await publish(node, channel, "1")
    assert connection.transport.written == []
    await heard(connection)

    assert asyncio.get_running_loop().time() - begin >= 0.018
    (written,) = connection.transport.written
    channels = [json.loads(line)["push"]["channel"] for line in written.split(b"\n")]
    assert channels == ["plain:a", "plain:a", "plain:b"]


@pytest.mark.parametrize(
    ("everywhere", "websocket", "is_websocket_first"), [(0.0, 0.05, False), (0.05, 0.002, True)]
)
async def test_websockets_may_have_a_delay_of_their_own(
    make_node: Callable[..., Any],
    options: ProcessOptions,
    everywhere: float,
    websocket: float,
    is_websocket_first: bool,
):
    """Shorter or longer than on the other transports."""
    node = await delayed(make_node, options, everywhere, websocket)
    on_websocket = await listen(node, "plain:a")
    on_sse = await listen(node, "plain:a", is_websocket=False)
    first, second = (on_websocket, on_sse) if is_websocket_first else (on_sse, on_websocket)

    await publish(node, "plain:a", "1")
    await heard(first)
    assert second.transport.written == []
    await publish(node, "plain:a", "2")
    await heard(second)

    assert len(first.transport.written) == 2
    (written,) = second.transport.written
    assert written.count(b'"pub"') == 2
