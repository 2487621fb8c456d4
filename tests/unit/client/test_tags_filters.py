"""Tags filters: live, held back, recovered, from a token; and deltas of server-side subscriptions."""

from __future__ import annotations

import asyncio
import json
import random

import jwt
import pytest
from msgspec import Raw

from realtime.engines.base import PublishOptions
from realtime.protocol.messages import FilterNode, Publication
from realtime.session import tags_filter
from tests.unit.client.conftest import SECRET, Connection
from tests.unit.client.readers import Reader


HISTORY = PublishOptions(history_size=20, history_ttl=60, history_meta_ttl=600, delta=True)
ODD = {"key": "kind", "cmp": "eq", "val": "odd"}
RECOVERING = {"recoverable": True}


def token(**claims):
    return jwt.encode(claims, SECRET, algorithm="HS256")


async def publish(node, channel, number, options=HISTORY):
    found = node.table.resolve(channel)
    tags = {"kind": "odd" if number % 2 else "even", "n": str(number)}
    await node.publish(found, Publication(data=Raw(b"%d" % number), tags=tags), options)


def numbers(reader):
    return [json.loads(each) for each in reader.documents]


@pytest.mark.parametrize("is_json", [True, False], ids=["json", "protobuf"])
async def test_only_what_passes_arrives_and_the_position_moves_on(node, is_json):
    """Live, and after a drop; others in the channel get all of it."""
    reader = Reader(node, "doc:a", is_json=is_json, tf=ODD, **RECOVERING)
    other = Reader(node, "doc:a", is_json=is_json, **RECOVERING)
    reader.come()
    other.come()
    for number in (1, 2, 3, 4):
        await publish(node, "doc:a", number)
    reader.read()
    other.read()
    reader.drop()
    for number in (5, 6, 7, 8):
        await publish(node, "doc:a", number)

    result = reader.come()

    assert result["recovered"] is True
    await publish(node, "doc:a", 9)
    reader.read()
    other.read()
    assert numbers(reader) == [1, 3, 5, 7, 9]
    assert numbers(other) == list(range(1, 10))
    assert not reader.unsubscribed
    assert node.hub.filtered == 2


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "hist:a", "tf": ODD}, 107),
        ({"channel": "doc:a", "tf": {"cmp": "eq", "key": "a"}}, 107),
        ({"channel": "doc:a", "tf": {}}, 107),
        ({"channel": "doc:a", "tf": {"op": "or"}}, 107),
    ],
)
async def test_what_is_not_allowed_or_malformed_is_refused(connect, request_, code):
    """Nothing of the subscription stays."""
    connection = connect()

    (reply,) = connection.send({"id": 2, "subscribe": request_})

    assert reply["error"]["code"] == code
    assert not connection.client.session.subscriptions


async def test_a_filter_of_any_depth_ends_with_an_answer(connect):
    """Deeper than the decoder goes is malformed, deeper than is allowed a bad request; nothing else breaks."""
    for depth, outcome in ((100, 107), (20_000, 3501)):
        node = b'{"op":"not","nodes":[' * depth + json.dumps(ODD).encode() + b"]}" * depth
        connection = connect()

        connection.send_raw(b'{"id":2,"subscribe":{"channel":"doc:a","tf":%b}}' % node)

        if outcome == 107:
            (reply,) = connection.received()
            assert reply["error"]["code"] == 107
        else:
            assert connection.closed is not None
            assert connection.closed[0] == 3501


async def test_with_a_filter_there_are_no_deltas(node):
    """Publications that were kept back can't be bases; documents come as they are."""
    reader = Reader(node, "doc:a", tf=ODD, delta="fossil", **RECOVERING)

    assert "delta" not in reader.come()

    for number in (1, 2, 3):
        await publish(node, "doc:a", number)
    reader.read()
    assert numbers(reader) == [1, 3]


async def test_equal_filters_are_asked_once_per_publication(node, monkeypatch):
    """Whatever the number of subscribers, and on both encodings."""
    asked = []
    passes = tags_filter.TagsFilter.passes_tags
    monkeypatch.setattr(
        tags_filter.TagsFilter,
        "passes_tags",
        lambda self, tags: asked.append(self) or passes(self, tags),
    )
    readers = [Reader(node, "doc:a", is_json=bool(number % 2), tf=ODD) for number in range(10)]
    for reader in readers:
        reader.come()

    for number in (1, 2):
        await publish(node, "doc:a", number)

    for reader in readers:
        reader.read()
        assert numbers(reader) == [1]
    assert len(asked) == 2
    assert len(set(asked)) == 1


async def test_what_is_held_back_while_subscribing_is_filtered(node, monkeypatch):
    """A publication that the filter keeps back is no hole."""
    broker, is_reading, may_read = node.broker, asyncio.Event(), asyncio.Event()
    history = broker.history

    async def slow_history(*arguments):
        found = await history(*arguments)
        is_reading.set()
        await may_read.wait()
        return found

    monkeypatch.setattr(broker, "history", slow_history)
    await publish(node, "doc:a", 1)
    reader = Reader(node, "doc:a", tf=ODD, recover=True, **RECOVERING)
    reader.connect()
    reader._command({"id": 2, "subscribe": {"channel": "doc:a", **reader.request}})
    await asyncio.wait_for(is_reading.wait(), 30)
    for number in (2, 3, 4):
        await publish(node, "doc:a", number)

    may_read.set()
    await asyncio.wait_for(reader.connection.client._task, 30)
    await publish(node, "doc:a", 5)
    reader.read()

    assert numbers(reader) == [1, 3, 5]
    assert not reader.unsubscribed


async def test_a_slow_reader_is_filtered_too(node):
    """While it is looked after on its own."""
    reader = Reader(node, "doc:a", tf=ODD, **RECOVERING)
    reader.come()
    reader.pause()
    for number in (1, 2, 3):
        await publish(node, "doc:a", number)
    reader.resume()
    for number in (4, 5):
        await publish(node, "doc:a", number)

    reader.read()

    assert numbers(reader) == [1, 3, 5]


async def test_a_cache_brings_the_newest_that_passes(node):
    """Also where newer ones do not; where none does there is nothing."""
    for number in (1, 3, 4, 6):
        await publish(node, "cachedoc:a", number)
    reader = Reader(node, "cachedoc:a", tf=ODD, recover=True)
    nothing = Reader(node, "cachedoc:a", tf={"key": "none", "cmp": "ex"}, recover=True)

    found, empty = reader.come(), nothing.come()

    assert found["recovered"] is True
    assert numbers(reader) == [3]
    assert "recovered" not in empty
    assert numbers(nothing) == []


async def test_a_token_brings_a_filter_that_the_client_can_only_narrow(node, clock):
    """Both have to pass, the namespace need not allow filters, and there are no deltas."""
    claims = {"sub": "ann", "server_tags_filter": ODD}
    subscription = {"channel": "doc:a", "token": token(channel="doc:a", **claims)}
    other = {"channel": "hist:a", "token": token(channel="hist:a", **claims)}
    connection = Connection(node, "c")
    connection.send({"id": 1, "connect": {"token": token(sub="ann")}})
    narrow = {"key": "n", "cmp": "gt", "val": "2"}

    (first,) = connection.send(
        {"id": 2, "subscribe": {**subscription, "tf": narrow, "delta": "fossil"}}
    )
    (second,) = connection.send({"id": 3, "subscribe": other})

    assert "delta" not in first["subscribe"]
    assert "subscribe" in second
    for number in (1, 2, 3, 4, 5):
        await publish(node, "doc:a", number)
        await publish(node, "hist:a", number)
    pushes = [message["push"] for message in connection.received()]
    assert [push["pub"]["data"] for push in pushes if push["channel"] == "doc:a"] == [3, 5]
    assert [push["pub"]["data"] for push in pushes if push["channel"] == "hist:a"] == [1, 3, 5]


async def test_a_refreshed_token_changes_the_filter_at_once(node):
    """The client's own part stays, and a token without a filter changes nothing."""
    connection = Connection(node, "c")
    connection.send({"id": 1, "connect": {"token": token(sub="ann")}})
    claims = {"sub": "ann", "channel": "doc:a"}
    small = {"key": "n", "cmp": "lt", "val": "7"}
    first = token(server_tags_filter=ODD, **claims)
    connection.send({"id": 2, "subscribe": {"channel": "doc:a", "token": first, "tf": small}})
    await publish(node, "doc:a", 1)

    for number, refreshed in ((2, token(**claims)), (4, None), (8, None)):
        if refreshed is None:
            even = {"op": "not", "nodes": [ODD]}
            refreshed = token(server_tags_filter=even, **claims)
        connection.client.on_message(
            json.dumps({"id": 3, "sub_refresh": {"channel": "doc:a", "token": refreshed}}).encode()
        )
        await publish(node, "doc:a", number)
        await publish(node, "doc:a", number + 1)

    pubs = [each["push"]["pub"]["data"] for each in connection.received() if "push" in each]
    assert pubs == [1, 3, 4]


async def test_a_filter_on_a_subscription_with_deltas_ends_the_patches(node):
    """It goes on with whole documents, as strings, since that was agreed."""
    connection = Connection(node, "c")
    connection.send({"id": 1, "connect": {"token": token(sub="ann")}})
    claims = {"sub": "ann", "channel": "doc:a"}
    request = {"channel": "doc:a", "token": token(**claims), "delta": "fossil", "recoverable": True}
    (reply,) = connection.send({"id": 2, "subscribe": request})
    assert reply["subscribe"]["delta"] is True
    await publish(node, "doc:a", 1)
    refreshed = token(server_tags_filter=ODD, **claims)
    connection.send({"id": 3, "sub_refresh": {"channel": "doc:a", "token": refreshed}})

    for number in (2, 3):
        await publish(node, "doc:a", number)

    pubs = [each["push"]["pub"] for each in connection.received()]
    assert [(pub["data"], pub.get("delta", False)) for pub in pubs] == [("3", False)]


@pytest.mark.parametrize("claim", [{"cmp": "eq"}, {"op": "xor"}, "text", 5, {"cmp": 5}])
async def test_a_malformed_filter_makes_a_token_invalid(node, claim):
    """Nobody gets more than was meant because of a mistake in it."""
    connection = Connection(node, "c")
    connection.send({"id": 1, "connect": {"token": token(sub="ann")}})
    signed = token(sub="ann", channel="doc:a", server_tags_filter=claim)

    (reply,) = connection.send({"id": 2, "subscribe": {"channel": "doc:a", "token": signed}})

    assert reply["error"]["code"] == 103


async def test_server_side_subscriptions_have_the_tokens_filter_or_deltas(node):
    """Which of them is the connection token's to say; the connect request asks for deltas channel by channel."""
    subs = {"doc:a": {"server_tags_filter": ODD}, "cachedoc:a": {}, "hist:a": {}}
    asked = {name: {"delta": "fossil"} for name in subs}
    connection = Connection(node, "c")

    (reply,) = connection.send(
        {"id": 1, "connect": {"token": token(sub="ann", subs=subs), "subs": asked}}
    )

    granted = reply["connect"]["subs"]
    assert [granted[name].get("delta", False) for name in subs] == [False, True, False]
    for number in range(10_000, 10_004):
        await publish(node, "doc:a", number)
        await publish(node, "cachedoc:a", number)
    pushes = [message["push"] for message in connection.received()]
    assert [push["pub"]["data"] for push in pushes if push["channel"] == "doc:a"] == [
        10_001,
        10_003,
    ]
    cached = [push["pub"]["data"] for push in pushes if push["channel"] == "cachedoc:a"]
    assert cached == [str(number) for number in range(10_000, 10_004)]


async def test_many_filters_each_get_theirs(node):
    """As many filters as subscribers, some with deltas beside them; members come and go."""
    rng = random.Random(5)
    readers = [
        Reader(
            node, "doc:a", is_json=bool(number % 2), tf={"key": "n", "cmp": "in", "vals": wanted}
        )
        for number in range(40)
        for wanted in [[str(rng.randrange(30)) for _ in range(10)]]
    ]
    for reader in readers:
        reader.come()
    for number in range(30):
        await publish(node, "doc:a", number)
        if number == 15:
            for reader in readers[::3]:
                reader.read()
                reader.drop()

    for index, reader in enumerate(readers):
        reader.read()
        last = 15 if index % 3 == 0 else 29
        wanted = {int(text) for text in reader.request["tf"]["vals"]}
        assert numbers(reader) == [number for number in range(last + 1) if number in wanted]
    assert FilterNode(**ODD).val == "odd"


async def test_what_comes_between_a_subscribe_and_the_end_of_its_connect_arrives(node, monkeypatch):
    """One channel of a connect is ready before another: what is published to it meanwhile is delivered."""
    broker, is_waiting, may_go = node.broker, asyncio.Event(), asyncio.Event()
    history = broker.history
    broker.is_reliable = False

    async def slow_history(channel, *arguments):
        if channel == "hist:slow":
            is_waiting.set()
            await may_go.wait()
        return await history(channel, *arguments)

    monkeypatch.setattr(broker, "history", slow_history)
    connection = Connection(node, "c")
    subs = {"hist:quick": {}, "hist:slow": {}}
    connection.send({"id": 1, "connect": {"token": token(sub="ann", subs=subs)}})
    await asyncio.wait_for(is_waiting.wait(), 30)
    await asyncio.sleep(0)
    for number in (1, 2):
        await publish(node, "hist:quick", number)

    may_go.set()
    await asyncio.wait_for(connection.client._task, 30)
    await publish(node, "hist:quick", 3)

    reply, *pushes = connection.received()
    assert reply["connect"]["subs"]["hist:quick"].get("offset", 0) == 0
    assert [push["push"]["pub"]["offset"] for push in pushes] == [1, 2, 3]
