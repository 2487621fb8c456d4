"""What is the Redis engine's own: what it says and keeps in Redis, and its options."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import redis as redis_client
from channels_redis.pubsub import RedisPubSubChannelLayer
from msgspec import Raw

from realtime.engines.base import NO_OPTIONS, HistoryFilter, PresenceStats, PublishOptions
from realtime.engines.redis.keys import group_of
from realtime.engines.redis.link import Link
from realtime.protocol.errors import ConfigError
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition
from realtime.protocol.protobuf_codec import decode_message
from tests import redis_servers
from tests.engines.backends import RedisUnderTest, redis_engine, redis_under_test
from tests.engines.test_presence_and_messages import ANN, ANN_AGAIN, BOB, NOBODY
from tests.engines.test_publish import EVERYTHING, HISTORY, META_TTL, publication, with_options


pytestmark = pytest.mark.redis

NOT_TEXT = b"\x00\xff\xfe__p1:\xc1\n"


@pytest.fixture
async def redis():
    async with redis_under_test() as under_test:
        yield under_test


@pytest.fixture(scope="module")
def valkey():
    """A server that can expire the fields of a hash."""
    with redis_servers.single(binary=redis_servers.valkey_binary()) as server:
        yield server


@contextlib.asynccontextmanager
async def stock_layer(under_test: RedisUnderTest, group: str):
    """Open channels-redis' own layer on the same Redis; yields it and a channel of it that is in the group."""
    options = under_test.options
    layer = RedisPubSubChannelLayer(hosts=list(options.address), prefix=options.prefix)
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    name = f"{options.prefix}__group__{group}"

    def is_there() -> bool:
        return under_test.server.call("PUBSUB", "NUMSUB", name)[1] == 1

    # It returns before Redis has confirmed.
    await asyncio.to_thread(redis_servers.wait_until, is_there, "the stock layer's subscription")
    try:
        yield layer, channel
    finally:
        await layer.flush()


# --- the wire ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b'{"a":1}', NOT_TEXT, b"", b"\xff" * 300, b"\x00" * 70_000])
async def test_an_unmodified_layer_reads_what_the_script_publishes(redis, data):
    """Payloads of every length that msgpack tells apart, text or not, in a channel with history."""
    info = ClientInfo("u", "c", chan_info=Raw(b"\xff"))
    sent = Publication(data=Raw(data), info=info, tags={"k": "é"}, version=3)

    async with stock_layer(redis, group_of("c")) as (layer, channel):
        outcome = await redis.engine.broker.publish("c", sent, with_options(version=3))
        message = await asyncio.wait_for(layer.receive(channel), 30)

    assert message == {
        "type": "realtime.publication",
        "channel": "c",
        "time": redis.clock.now,
        "info": {"user": "u", "client": "c", "chan_info": b"\xff"},
        "tags": {"k": "é"},
        "version": 3,
        "data": data,
        "offset": 1,
        "epoch": outcome.position.epoch,
    }


async def test_an_unmodified_layer_reads_the_publication_before(redis):
    """With patches allowed the message has the stored form of the publication before, which is Protobuf."""
    options = with_options(delta=True)
    await redis.engine.broker.publish("c", Publication(data=Raw(NOT_TEXT)), options)

    async with stock_layer(redis, group_of("c")) as (layer, channel):
        await redis.engine.broker.publish("c", publication(2), options)
        message = await asyncio.wait_for(layer.receive(channel), 30)

    assert (message["delta"], message["offset"]) == (True, 2)
    assert bytes(decode_message(Publication, message["previous"]).data) == NOT_TEXT


async def test_an_unmodified_layer_reads_what_is_published_without_a_script(redis):
    """A publication without history, a join and a leave."""
    broker = redis.engine.broker

    async with stock_layer(redis, group_of("c")) as (layer, channel):
        await broker.publish("c", Publication(data=Raw(NOT_TEXT)), PublishOptions(delta=True))
        await broker.publish_join("c", ANN)
        await broker.publish_leave("c", BOB)
        messages = [await asyncio.wait_for(layer.receive(channel), 30) for _ in range(3)]

    info = {"user": "ann", "client": "c1", "conn_info": b'{"n":1}', "chan_info": b"\x00\xff"}
    assert messages == [
        {
            "type": "realtime.publication",
            "channel": "c",
            "time": redis.clock.now,
            "data": NOT_TEXT,
            "delta": True,
        },
        {"type": "realtime.join", "channel": "c", "info": info},
        {"type": "realtime.leave", "channel": "c", "info": {"user": "bob", "client": "c3"}},
    ]


async def test_what_others_say_in_a_group_is_theirs(redis, caplog):
    """Neither their messages nor rubbish reach the node or end the subscription."""
    await redis.engine.broker.subscribe("c")

    async with stock_layer(redis, "another") as (layer, _):
        await layer.group_send(group_of("c"), {"type": "chat.message", "text": "hello"})
    redis.server.call("PUBLISH", f"{redis.options.prefix}__group__{group_of('c')}", b"\xc1")
    await redis.engine.broker.publish("c", publication(1), NO_OPTIONS)

    assert await redis.node.payloads(1) == [b'{"n":1}']
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_forgotten_script_is_sent_again(redis):
    """After ``SCRIPT FLUSH``, a restart or a failover."""
    redis.server.call("SCRIPT", "FLUSH")

    outcome = await redis.engine.broker.publish("c", publication(1), HISTORY)

    assert outcome.position.offset == 1


async def test_offsets_beyond_what_lua_prints_are_exact(redis):
    """Its ``tostring`` has 14 digits."""
    broker, prefix = redis.engine.broker, redis.options.prefix
    await broker.publish("c", publication(1), HISTORY)
    redis.server.call("HSET", f"{prefix}.stream.meta.c", "s", 2**53 - 10)

    outcome = await broker.publish("c", publication(2), HISTORY)

    history = await broker.history("c", EVERYTHING, META_TTL)
    assert outcome.position.offset == 2**53 - 9
    assert [stored.offset for stored in history.publications] == [1, 2**53 - 9]


async def test_publishes_of_one_tick_leave_in_one_write(redis, monkeypatch):
    """However many there are: as a batch or a broadcast makes them."""
    writes = []
    flush = Link._flush

    def counted(link):
        writes.append(len(link._out))
        flush(link)

    monkeypatch.setattr(Link, "_flush", counted)
    broker = redis.engine.broker
    await asyncio.gather(*(broker.publish(f"c{n}", publication(n), HISTORY) for n in range(64)))

    assert max(writes) == 64


# --- keys -------------------------------------------------------------------------------------------


async def test_keys_are_those_of_the_reference(redis):
    """So that an operator's scripts find them; values are Protobuf."""
    prefix, call = redis.options.prefix, redis.server.call

    await redis.engine.broker.publish("c", Publication(data=Raw(NOT_TEXT), version=7), HISTORY)
    await redis.presence.add("c", "c1", ANN)

    keys = set(call("KEYS", f"{prefix}.*"))
    assert keys == {
        f"{prefix}.stream.c",
        f"{prefix}.stream.meta.c",
        f"{prefix}.presence.data.c",
        f"{prefix}.presence.expire.c",
        f"{prefix}.node.node-1.presence",
    }
    with redis_client.Redis(port=redis.server.port) as client:
        ((entry_id, fields),) = client.xrange(f"{prefix}.stream.c")
        info = client.hget(f"{prefix}.presence.data.c", "c1")
    stored = decode_message(Publication, fields[b"d"])
    assert (entry_id, bytes(stored.data), stored.version) == (b"1-0", NOT_TEXT, 7)
    assert decode_message(ClientInfo, info) == ANN


@pytest.mark.parametrize("others", [("meta.c", "c"), (".meta.c", "meta.c"), ("..c", ".c")])
async def test_no_channels_keys_are_anothers(redis, others):
    """The record of one is not the stream of the other, whichever comes first."""
    broker = redis.engine.broker
    for name in (*others, *others):
        await broker.publish(name, publication(1), HISTORY)

    for name in others:
        history = await broker.history(name, EVERYTHING, META_TTL)
        assert [stored.offset for stored in history.publications] == [1, 2]


async def test_a_stream_whose_record_was_evicted_begins_anew(redis):
    """For a read as for a publish: what is left of it belongs to the epoch before."""
    broker, prefix = redis.engine.broker, redis.options.prefix
    for name in ("read", "published"):
        await broker.publish(name, publication(1), HISTORY)
        redis.server.call("DEL", f"{prefix}.stream.meta.{name}")

    read = await broker.history("read", EVERYTHING, META_TTL)
    await broker.publish("published", publication(2), HISTORY)
    published = await broker.history("published", EVERYTHING, META_TTL)

    assert (list(read.publications), read.top.offset) == ([], 0)
    assert [bytes(stored.data) for stored in published.publications] == [b'{"n":2}']


# --- lists ------------------------------------------------------------------------------------------


@pytest.fixture
async def lists():
    async with redis_under_test(history_use_lists=True) as under_test:
        yield under_test


async def test_history_in_lists(lists):
    """Offsets, size, ranges, delta and repeated keys are as with streams."""
    broker, prefix = lists.engine.broker, lists.options.prefix
    await broker.subscribe("c")
    options = with_options(history_size=3, delta=True)

    outcomes = [await broker.publish("c", Publication(data=Raw(NOT_TEXT)), options)]
    outcomes += [await broker.publish("c", publication(n), options) for n in (2, 3, 4)]
    keyed = with_options(history_size=3, idempotency_key="k")
    repeats = [await broker.publish("c", publication(5), keyed) for _ in range(2)]

    await lists.node.payloads(5)
    assert [outcome.position.offset for outcome in outcomes] == [1, 2, 3, 4]
    assert [(o.position.offset, o.suppressed) for o in repeats] == [(5, ""), (5, "idempotency")]
    previous = [delivery.previous for delivery in lists.node.deliveries]
    assert previous[0] is None
    assert (previous[1].offset, bytes(previous[1].data)) == (1, NOT_TEXT)
    for what, expected in (
        (EVERYTHING, [3, 4, 5]),
        (HistoryFilter(limit=2), [3, 4]),
        (HistoryFilter(limit=-1, since=StreamPosition(4)), [5]),
        (HistoryFilter(limit=0), []),
    ):
        history = await broker.history("c", what, META_TTL)
        assert [stored.offset for stored in history.publications] == expected
        assert history.top == repeats[0].position
    assert lists.server.call("LLEN", f"{prefix}.list.c") == 3


async def test_lists_expire_and_are_removed(lists):
    """Top and epoch stay until the record's own end."""
    broker = lists.engine.broker
    first = await broker.publish("c", publication(1), HISTORY)
    await broker.remove_history("c")
    removed = await broker.history("c", EVERYTHING, META_TTL)
    await broker.publish("c", publication(2), HISTORY)
    await lists.pass_time(61)

    expired = await broker.history("c", EVERYTHING, META_TTL)

    assert (list(removed.publications), removed.top) == ([], first.position)
    assert (list(expired.publications), expired.top.offset) == ([], 2)


# --- presence ---------------------------------------------------------------------------------------


@pytest.fixture(params=[{}, {"presence_user_mapping": True}], ids=["plain", "mapping"])
async def presence(request):
    async with redis_under_test(**request.param) as under_test:
        yield under_test


async def test_stats_follow_who_leaves_and_who_is_forgotten(presence):
    """Connections and users are exact after removals, and after entries that were not refreshed."""
    long_name = ClientInfo("x" * 300, "c9")
    for info in (ANN, ANN_AGAIN, BOB, NOBODY, long_name):
        await presence.presence.add("c", info.client, info)
    await presence.presence.add("c", "c1", ANN)
    full = await presence.presence.presence_stats("c")
    await presence.presence.remove("c", "c1", "ann")
    one_left = await presence.presence.presence_stats("c")
    await presence.pass_time(presence.options.presence_ttl - 10)
    await presence.presence.add("c", "c3", BOB)
    await presence.pass_time(11)

    assert full == PresenceStats(5, 4)
    assert one_left == PresenceStats(4, 4)
    assert await presence.presence.presence_stats("c") == PresenceStats(1, 1)
    await presence.presence.remove("c", "c3", "bob")
    assert await presence.presence.presence_stats("c") == PresenceStats(0, 0)


async def test_one_of_two_connections_that_is_forgotten_leaves_its_user(presence):
    """The user goes with the last one."""
    await presence.presence.add("c", "c1", ANN)
    await presence.presence.add("c", "c2", ANN_AGAIN)
    await presence.pass_time(presence.options.presence_ttl - 10)
    await presence.presence.add("c", "c2", ANN_AGAIN)
    await presence.pass_time(11)
    after_expiry = await presence.presence.presence_stats("c")

    await presence.presence.remove("c", "c2", "ann")

    assert after_expiry == PresenceStats(1, 1)
    assert await presence.presence.presence_stats("c") == PresenceStats(0, 0)


async def test_entries_can_expire_as_fields(valkey):
    """Without deadlines of their own; a refresh prolongs the one field."""
    async with redis_under_test(valkey, presence_hash_field_ttl=True, presence_ttl=0.6) as redis:
        await redis.presence.check_support()
        await redis.presence.add("c", "c1", ANN)
        await redis.presence.add("c", "c3", BOB)
        keys = set(redis.server.call("KEYS", f"{redis.options.prefix}.p*"))
        async with asyncio.timeout(30):
            while "c1" in await redis.presence.presence("c"):
                await redis.presence.add("c", "c3", BOB)

        assert dict(await redis.presence.presence("c")) == {"c3": BOB}
        assert keys == {f"{redis.options.prefix}.presence.data.c"}


async def test_field_expiry_is_refused_where_redis_has_none(redis):
    """At the start, and not with the first entry."""
    if redis.server.call("COMMAND", "INFO", "HPEXPIRE")[0]:
        pytest.skip("this Redis has it")
    async with redis_under_test(presence_hash_field_ttl=True) as old:
        with pytest.raises(ConfigError, match=r"presence_hash_field_ttl needs Redis 7\.4"):
            await old.presence.check_support()


async def test_survivors_get_a_dead_nodes_entries_once(redis):
    """However many ask at once; other nodes' entries stay."""
    prefix, options = redis.options.prefix, {"presence_user_mapping": True}
    infos = [ClientInfo(f"u{n % 7}", f"dead{n}") for n in range(600)]
    async with (
        redis_under_test(node_id="dead", prefix=prefix, **options) as dead,
        redis_under_test(node_id="other", prefix=prefix, **options) as other,
        redis_under_test(node_id="another", prefix=prefix, **options) as another,
    ):
        await asyncio.gather(
            *(dead.presence.add(f"c{n % 3}", info.client, info) for n, info in enumerate(infos))
        )
        await other.presence.add("c0", "c1", ANN)

        results = await asyncio.gather(
            other.presence.remove_node("dead"), another.presence.remove_node("dead")
        )

        removed = [entry for result in results for entry in result]
        assert sorted(info.client for _, info in removed) == sorted(i.client for i in infos)
        assert {len(result) for result in results} == {0, 600}
        assert dict(removed)["c1"].user in {f"u{n}" for n in range(7)}
        assert dict(await other.presence.presence("c0")) == {"c1": ANN}
        assert await other.presence.presence_stats("c0") == PresenceStats(1, 1)
        assert await other.presence.remove_node("dead") == []


async def test_a_node_that_returned_is_in_the_index_again(redis):
    """Its entries can be taken away a second time."""
    for _ in range(2):
        await redis.presence.add("c", "c1", ANN)
        assert list(await redis.presence.remove_node("node-1")) == [("c", ANN)]


async def test_an_entry_that_left_is_in_no_index(redis):
    """What a dead node has nothing of any more is nothing to clear up."""
    await redis.presence.add("c", "c1", ANN)
    await redis.presence.remove("c", "c1", "ann")

    assert redis.server.call("EXISTS", f"{redis.options.prefix}.node.node-1.presence") == 0


# --- control ----------------------------------------------------------------------------------------


async def test_control_messages_go_to_all_or_to_one(redis):
    """Both nodes hear what is for all, and what is for one is heard by it alone."""
    async with redis_under_test(node_id="node-2", prefix=redis.options.prefix) as other:
        await redis.engine.control_bus.publish_control(b"theirs", "node-2")
        await redis.engine.control_bus.publish_control(b"all")

        await redis.node.until(lambda: bool(redis.node.controls))
        await other.node.until(lambda: len(other.node.controls) == 2)
        assert redis.node.controls == [b"all"]
        assert other.node.controls == [b"theirs", b"all"]


async def test_two_nodes_share_streams_and_deliveries(redis):
    """What one publishes the other delivers and reads."""
    async with redis_under_test(node_id="node-2", prefix=redis.options.prefix) as other:
        await other.engine.broker.subscribe("c")
        outcome = await redis.engine.broker.publish("c", publication(1), HISTORY)

        assert await other.node.payloads(1) == [b'{"n":1}']
        history = await other.engine.broker.history("c", EVERYTHING, META_TTL)
        assert history.top == outcome.position


async def test_prefixes_keep_setups_apart(redis):
    """PUB/SUB knows no databases."""
    async with redis_engine() as other:
        await other.broker.subscribe("c")
        await redis.engine.broker.publish("c", publication(1), HISTORY)
        await other.broker.publish("c", publication(2), HISTORY)

        assert await other.node.payloads(1) == [b'{"n":2}']
