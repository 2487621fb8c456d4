"""What a namespace gathers: when it leaves, in which order, and to whom."""

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
from realtime.namespaces.options import ChannelOptions
from realtime.namespaces.table import NamespaceTable
from realtime.node.node import Node
from realtime.protocol.client_pb2 import Reply
from realtime.protocol.messages import Publication
from realtime.protocol.wire import (
    FRAMES_JSON,
    FRAMES_PROTOBUF,
    SSE_JSON,
    STREAM_JSON,
    UNI_FRAMES_JSON,
    Wire,
)
from tests.unit.client.conftest import OPEN, Connection
from tests.unit.client.readers import Reader


DELAY = 5.0
replace = msgspec.structs.replace

NAMESPACES = {
    "size": replace(OPEN, batch_max_size=3),
    "delay": replace(OPEN, batch_max_delay=DELAY),
    "both": replace(OPEN, batch_max_size=3, batch_max_delay=DELAY),
    "latest": replace(OPEN, batch_max_delay=DELAY, batch_flush_latest=True),
    "latestsize": replace(OPEN, batch_max_size=3, batch_flush_latest=True),
    "joins": replace(
        OPEN,
        batch_max_delay=DELAY,
        join_leave=True,
        force_push_join_leave=True,
    ),
    "filter": replace(OPEN, batch_max_size=2, allow_tags_filter=True),
    "hist": replace(
        OPEN,
        batch_max_delay=DELAY,
        history_size=1000,
        history_ttl=60,
        allow_recovery=True,
        allow_positioning=True,
        allowed_delta_types=("fossil",),
        delta_publish=True,
    ),
    "number": replace(OPEN, allow_channel_compaction=True, batch_max_delay=DELAY),
    "plain": OPEN,
}


class Time:
    """The clock of what is gathered."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.now = 100.0
        node.hub.batches.clock = lambda: self.now

    def pass_(self, seconds: float) -> None:
        """Let time go by, and have the timer look."""
        self.now += seconds
        self.node.hub.batches.fire()


@pytest.fixture
async def node(make_node: Callable[..., Any], options: ProcessOptions) -> Node:
    made: Node = await make_node(options)
    made.table = NamespaceTable(namespaces=NAMESPACES)
    return made


@pytest.fixture
def time(node: Node) -> Time:
    return Time(node)


async def publish(node: Node, channel: str, *values: Any, **facts: Any) -> None:
    options = PublishOptions()
    found = node.table.resolve(channel)
    if found is not None and found.has_history:
        options = PublishOptions(history_size=1000, history_ttl=60, delta=True)
    for value in values:
        publication = Publication(data=Raw(json.dumps(value).encode()), **facts)
        await node.broker.publish(channel, publication, options)


def data(messages: list[Any]) -> list[Any]:
    return [each["push"]["pub"]["data"] for each in messages if "pub" in each.get("push", {})]


def subscribe(connection: Connection, channel: str, **request: Any) -> list[Any]:
    return connection.send({"id": 2, "subscribe": {"channel": channel, **request}})


async def test_a_batch_leaves_when_it_is_full(node: Node, connect: Callable[..., Connection]):
    """Not before, and what is left over waits for ever without a delay."""
    connection = connect()
    subscribe(connection, "size:a")

    await publish(node, "size:a", 1, 2)
    assert connection.received() == []
    await publish(node, "size:a", 3, 4)

    assert data(connection.received()) == [1, 2, 3]
    await publish(node, "size:a", 5)
    assert connection.received() == []
    await publish(node, "size:a", 6)
    assert data(connection.received()) == [4, 5, 6]


async def test_a_batch_leaves_when_its_first_message_has_waited(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """However many have come since; the next one begins to wait anew."""
    connection = connect()
    subscribe(connection, "delay:a")
    await publish(node, "delay:a", 1)
    time.pass_(DELAY - 1)
    await publish(node, "delay:a", 2)
    assert connection.received() == []

    time.pass_(1)

    assert data(connection.received()) == [1, 2]
    await publish(node, "delay:a", 3)
    time.pass_(DELAY - 1)
    assert connection.received() == []
    time.pass_(1)
    assert data(connection.received()) == [3]


async def test_a_full_batch_does_not_take_the_time_of_the_next(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """The timer still knows of the first one, and must not let the second leave early."""
    connection = connect()
    subscribe(connection, "both:a")
    await publish(node, "both:a", 1, 2, 3)
    assert data(connection.received()) == [1, 2, 3]
    time.pass_(DELAY - 1)
    await publish(node, "both:a", 4)

    time.pass_(1)

    assert connection.received() == []
    time.pass_(DELAY - 1)
    assert data(connection.received()) == [4]


async def test_the_timer_of_the_loop_releases(
    make_node: Callable[..., Any], options: ProcessOptions, connect: Callable[..., Connection]
):
    """Without anybody calling it."""
    node = connect().node
    node.table = NamespaceTable(
        namespaces={"soon": replace(OPEN, batch_max_delay=0.002), **NAMESPACES}
    )
    connection = connect()
    subscribe(connection, "soon:a")
    arrived = asyncio.Event()
    write = connection.client.transport.write

    def tell(framed: bytes) -> None:
        write(framed)
        arrived.set()

    for cohort in node.hub.rooms["soon:a"].every_cohort():
        cohort.writes[connection.client] = tell

    await publish(node, "soon:a", 1, 2)

    assert not arrived.is_set()
    await asyncio.wait_for(arrived.wait(), 30)
    assert data(connection.received()) == [1, 2]


async def test_of_a_batch_only_the_latest_publication_is_sent(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """Of each key, in the order of their last update."""
    connection = connect()
    subscribe(connection, "latest:a")
    for key, value in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)]:
        await publish(node, "latest:a", value, key=key)

    time.pass_(DELAY)

    assert data(connection.received()) == [3, 4, 5]
    await publish(node, "latest:a", *range(10))
    time.pass_(DELAY)
    assert data(connection.received()) == [9]


async def test_those_that_are_left_out_count(node: Node, connect: Callable[..., Connection]):
    """A full batch of one key is one message; if only what stays counted it would wait for ever."""
    connection = connect()
    subscribe(connection, "latestsize:a")

    await publish(node, "latestsize:a", 1, 2, 3, 4, 5, 6, 7)

    assert data(connection.received()) == [3, 6]


async def test_joins_and_leaves_keep_their_place(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """They are gathered as publications are."""
    connection = connect()
    subscribe(connection, "joins:a")
    time.pass_(DELAY)
    connection.received()
    other = connect()

    await publish(node, "joins:a", 1)
    subscribe(other, "joins:a")
    await publish(node, "joins:a", 2)
    other.send({"id": 3, "unsubscribe": {"channel": "joins:a"}})
    await publish(node, "joins:a", 3)

    assert connection.received() == []
    time.pass_(DELAY)
    kinds = [
        ("pub", each["push"]["pub"]["data"])
        if "pub" in each["push"]
        else next(kind for kind in ("join", "leave") if kind in each["push"])
        for each in connection.received()
    ]
    assert kinds == [("pub", 1), "join", ("pub", 2), "leave", ("pub", 3)]


async def test_joins_for_a_slow_reader_keep_their_place_too(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """It is looked after on its own, and gets what the others get."""
    connection = connect()
    subscribe(connection, "joins:a")
    time.pass_(DELAY)
    connection.received()
    connection.client.on_pause()

    await publish(node, "joins:a", 1)
    subscribe(connect(), "joins:a")
    await publish(node, "joins:a", 2)

    assert connection.received() == []
    time.pass_(DELAY)
    one, join, two = connection.received()
    assert data([one, two]) == [1, 2]
    assert join["push"]["join"]["info"]["client"] == "client-2"


async def test_with_latest_only_joins_come_first(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """So that a publication's offset is never above one that comes later."""
    options = replace(NAMESPACES["joins"], batch_flush_latest=True)
    node.table = NamespaceTable(namespaces={"joins": options})
    connection = connect()
    subscribe(connection, "joins:a")
    time.pass_(DELAY)
    connection.received()

    await publish(node, "joins:a", 1)
    subscribe(connect(), "joins:a")
    await publish(node, "joins:a", 2)
    time.pass_(DELAY)

    first, second = connection.received()
    assert "join" in first["push"]
    assert second["push"]["pub"]["data"] == 2


async def test_what_is_gathered_leaves_before_the_subscription_ends(
    node: Node, connect: Callable[..., Connection]
):
    """And before the reply."""
    connection = connect()
    subscribe(connection, "delay:a")
    await publish(node, "delay:a", 1, 2)

    one, two, reply = connection.send({"id": 3, "unsubscribe": {"channel": "delay:a"}})

    assert data([one, two]) == [1, 2]
    assert reply == {"id": 3, "unsubscribe": {}}


async def test_who_comes_in_the_middle_of_a_batch_gets_what_was_published_since(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """Its own messages are gathered too, and it does not make those of others leave early."""
    old, new = connect(), connect()
    subscribe(old, "delay:a")
    await publish(node, "delay:a", 1)
    time.pass_(1)
    assert subscribe(new, "delay:a") == [{"id": 2, "subscribe": {}}]
    await publish(node, "delay:a", 2)
    assert (old.received(), new.received()) == ([], [])

    time.pass_(DELAY - 1)

    assert data(old.received()) == [1, 2]
    assert data(new.received()) == [2]
    # From now on they are together.
    assert node.hub.rooms["delay:a"].held is None
    assert node.hub.rooms["delay:a"].extras.alone == {}
    await publish(node, "delay:a", 3)
    assert (old.received(), new.received()) == ([], [])
    time.pass_(DELAY)
    assert data(old.received()) == data(new.received()) == [3]


async def test_who_waits_for_a_batch_gets_in_when_its_last_subscriber_leaves(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """Else it would be looked after on its own for as long as it stays."""
    old, new = connect(), connect()
    subscribe(old, "delay:a")
    await publish(node, "delay:a", 1)
    subscribe(new, "delay:a")
    old.send({"id": 3, "unsubscribe": {"channel": "delay:a"}})

    node.hub.flush()

    assert node.hub.rooms["delay:a"].held is None


async def test_a_slow_reader_is_spared_as_well(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """What it is sent on its own is gathered, the latest only."""
    connection = connect()
    subscribe(connection, "latest:a")
    await publish(node, "latest:a", 1)
    connection.client.on_pause()
    assert data(connection.received()) == [1]

    await publish(node, "latest:a", 2, 3)
    time.pass_(DELAY)
    assert data(connection.received()) == [3]
    await publish(node, "latest:a", 4, 5)
    connection.client.on_resume()
    await publish(node, "latest:a", 6)
    time.pass_(DELAY)

    assert data(connection.received()) == [5, 6]


async def test_batches_are_counted_for_each_who_is_owed_the_same(
    node: Node, connect: Callable[..., Connection]
):
    """What a filter keeps back fills nobody's batch."""
    of_a, every = connect(), connect()
    subscribe(of_a, "filter:x", tf={"key": "kind", "cmp": "eq", "val": "a"})
    subscribe(every, "filter:x")

    await publish(node, "filter:x", 1, tags={"kind": "a"})
    await publish(node, "filter:x", 2, tags={"kind": "b"})

    assert data(every.received()) == [1, 2]
    assert of_a.received() == []
    await publish(node, "filter:x", 3, tags={"kind": "a"})
    assert data(of_a.received()) == [1, 3]


async def test_patches_are_all_sent_whatever_the_namespace_says(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """The latest only would be a patch for one that was left out; saving such a namespace is refused, this is the last net."""
    node.table = NamespaceTable(
        namespaces={"hist": replace(NAMESPACES["hist"], batch_flush_latest=True)}
    )
    reader = Reader(node, "hist:a", delta="fossil", positioned=True)
    reader.come()
    documents = [f"a long text, the same but for its number: {number}" for number in range(5)]

    await publish(node, "hist:a", *documents)
    time.pass_(DELAY)
    reader.read()

    assert [json.loads(each) for each in reader.documents] == documents
    assert reader.patches == 4


def frames_of(written: list[bytes]) -> list[bytes]:
    """Return the payloads of unmasked frames."""
    stream, found = b"".join(written), []
    while stream:
        size, at = stream[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(stream[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(stream[2:10], "big"), 10
        found.append(stream[at : at + size])
        stream = stream[at + size :]
    return found


def messages_of(payload: bytes, wire: Wire) -> int:
    """Count the messages of a frame."""
    if wire.is_json:
        return len(payload.split(b"\n"))
    count = 0
    while payload:
        size = payload[0]
        assert size < 0x80
        assert Reply.FromString(payload[1 : 1 + size]).push.pub.data
        payload = payload[1 + size :]
        count += 1
    return count


@pytest.mark.parametrize("wire", [FRAMES_JSON, FRAMES_PROTOBUF])
@pytest.mark.parametrize(("most", "expected"), [(16, [16, 4]), (-1, [20]), (5, [5] * 4)])
async def test_a_batch_shares_frames(
    make_node: Callable[..., Any],
    options: ProcessOptions,
    wire: Wire,
    most: int,
    expected: list[int],
):
    """As many messages in each as ``client.max_messages_in_frame`` allows, in one write."""
    node = await make_node(
        replace(options, client=replace(options.client, max_messages_in_frame=most))
    )
    node.table = NamespaceTable(namespaces=NAMESPACES)
    time = Time(node)
    connection = Connection(node, "one")
    subscribe_on(connection, "delay:a", wire)

    await publish(node, "delay:a", *range(20))
    time.pass_(DELAY)
    node.hub.flush()

    (written,) = connection.transport.written
    assert [messages_of(each, wire) for each in frames_of([written])] == expected


def subscribe_on(connection: Connection, channel: str, wire: Wire) -> None:
    """Subscribe, and read on another wire from then on."""
    connection.send({"id": 1, "connect": {}})
    connection.client.wire = wire
    connection.client.on_message(
        msgspec.json.encode({"id": 2, "subscribe": {"channel": channel}})
        if wire.is_json
        else b"\x0d\x08\x02\x2a\x09\x0a\x07" + channel.encode()
    )
    assert channel in connection.client.session.subscriptions
    connection.transport.written.clear()


@pytest.mark.parametrize("wire", [UNI_FRAMES_JSON, SSE_JSON, STREAM_JSON])
async def test_messages_that_cannot_share_anything_leave_in_one_write(
    node: Node, time: Time, wire: Wire
):
    """A push per frame, event or line."""
    connection = Connection(node, "one")
    subscribe_on(connection, "delay:a", wire)

    await publish(node, "delay:a", 1, 2)
    time.pass_(DELAY)
    node.hub.flush()

    (written,) = connection.transport.written
    if wire is UNI_FRAMES_JSON:
        assert [json.loads(each)["pub"]["data"] for each in frames_of([written])] == [1, 2]
    else:
        lines = written.decode().replace("data: ", "").split()
        assert [json.loads(each)["push"]["pub"]["data"] for each in lines] == [1, 2]


async def test_a_frame_that_is_shared_is_not_larger_than_clients_take(node: Node, time: Time):
    """Some refuse more than 1 MiB; a message that is larger alone is left as it is."""
    connection = Connection(node, "one")
    subscribe_on(connection, "delay:a", FRAMES_JSON)

    await publish(node, "delay:a", "x" * 40_000, "y" * 20_000, "z" * 10_000, "w" * 100_000)
    time.pass_(DELAY)
    node.hub.flush()

    sizes = [len(each) // 1000 for each in frames_of(connection.transport.written)]
    assert sizes == [60, 10, 100]


async def test_a_number_stands_for_the_name_where_the_client_asks(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """In publications; the others of the channel get its name."""
    asking, other = connect(), connect()
    (reply,) = subscribe(asking, "number:a", flag=1)
    number = reply["subscribe"]["id"]
    assert number > 0
    (reply,) = subscribe(other, "number:a")
    assert "id" not in reply["subscribe"]

    await publish(node, "number:a", 1)
    time.pass_(DELAY)

    assert asking.received() == [{"push": {"id": number, "pub": {"data": 1}}}]
    assert other.received() == [{"push": {"channel": "number:a", "pub": {"data": 1}}}]


# --- whatever happens -------------------------------------------------------------------------------


class Crowd:
    """Readers that come, go, stall and drop by chance, and what each must have seen."""

    def __init__(self, node: Node, time: Time, seed: int, **request: Any) -> None:
        self.node = node
        self.time = time
        self.chance = random.Random(seed)
        self.request = request
        self.published = 0
        self.readers: list[Reader] = []
        self.subscribed: dict[Reader, bool] = {}

    async def run(self, channel: str, steps: int) -> None:
        for number in range(6):
            reader = Reader(self.node, channel, is_json=number % 2 == 0, **self.request)
            reader.come()
            self.readers.append(reader)
            self.subscribed[reader] = True
        for _ in range(steps):
            await self._step(channel)

    async def _step(self, channel: str) -> None:
        reader = self.chance.choice(self.readers)
        draw = self.chance.random()
        if draw < 0.6:
            self.published += 1
            await publish(self.node, channel, document(self.published))
        elif draw < 0.7:
            self.time.pass_(self.chance.random() * DELAY)
        elif draw < 0.76:
            self.node.hub.flush()
        elif draw < 0.84 and self.subscribed[reader]:
            reader.pause()
        elif draw < 0.92:
            reader.resume()
        elif self.subscribed[reader]:
            reader.unsubscribe()
            self.subscribed[reader] = False
        else:
            reader.subscribe()
            self.subscribed[reader] = True

    def settle(self, channel: str) -> None:
        for reader in self.readers:
            reader.resume()
        for _ in range(2):
            self.time.pass_(DELAY)
            for reader in self.readers:
                reader.read()


def document(number: int) -> str:
    return f"a text that is the same for all of them, except for its number {number}"


def numbers(reader: Reader) -> list[int]:
    return [int(json.loads(each).rsplit(" ", 1)[1]) for each in reader.documents]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("channel", ["both:a", "delay:a", "latest:a"])
async def test_whatever_happens_order_is_kept_and_the_last_one_arrives(
    node: Node, time: Time, channel: str, seed: int
):
    """Each reader sees numbers that rise, and ends with the publisher's last one."""
    crowd = Crowd(node, time, seed)

    await crowd.run(channel, 400)
    crowd.settle(channel)

    for reader in crowd.readers:
        seen = numbers(reader)
        assert seen == sorted(set(seen))
        if crowd.subscribed[reader]:
            reader.documents.clear()
    await publish(node, channel, document(10_000))
    crowd.settle(channel)
    for reader, is_subscribed in crowd.subscribed.items():
        if is_subscribed:
            assert numbers(reader) == [10_000]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("delta", ["", "fossil"])
async def test_whatever_happens_those_with_positions_miss_nothing(
    node: Node, time: Time, delta: str, seed: int
):
    """Gathering, slow readers and recoveries mixed: all there is, once, in order, with and without patches."""
    request: dict[str, Any] = {"recoverable": True, "positioned": True}
    if delta:
        request["delta"] = delta
    crowd = Crowd(node, time, seed, **request)

    await crowd.run("hist:a", 400)
    for reader, is_subscribed in crowd.subscribed.items():
        if not is_subscribed:
            reader.subscribe()
    crowd.settle("hist:a")

    for reader in crowd.readers:
        assert numbers(reader) == list(range(1, crowd.published + 1))
    assert bool(sum(reader.patches for reader in crowd.readers)) == bool(delta)


async def test_options_are_those_of_the_moment_of_the_subscribe(
    node: Node, connect: Callable[..., Connection], time: Time
):
    """A namespace that is edited gathers for newcomers only."""
    before, after = connect(), connect()
    subscribe(before, "plain:a")
    node.table = NamespaceTable(
        namespaces={"plain": ChannelOptions(**{**as_dict(OPEN), "batch_max_delay": DELAY})}
    )
    subscribe(after, "plain:a")

    await publish(node, "plain:a", 1)

    assert data(before.received()) == [1]
    assert after.received() == []
    time.pass_(DELAY)
    assert data(after.received()) == [1]


def as_dict(options: ChannelOptions) -> dict[str, Any]:
    return msgspec.structs.asdict(options)


async def test_what_was_gathered_for_a_slow_reader_may_be_too_much(
    node: Node, connect: Callable[..., Connection]
):
    """It leaves when the reader is back; if that overfills the queue the connection ends, with all its subscriptions."""
    connection = connect()
    for number, channel in enumerate(["delay:a", "delay:b"], start=2):
        connection.send({"id": number, "subscribe": {"channel": channel}})
    connection.client.on_pause()
    await publish(node, "delay:a", 1)
    await publish(node, "delay:b", 2)
    transport = connection.client.transport
    transport.backlog = node.options.client.queue_max_size + 1
    connection.client.write = lambda framed: connection.client.on_pause()

    connection.client.on_resume()

    assert connection.closed == (3008, "slow")
    assert node.hub.rooms == {}
