"""One connection on the memory engine: the protocol's rows, byte by byte where bytes are the contract."""

from __future__ import annotations

import asyncio

import jwt
import pytest
from msgspec import Raw

from realtime.engines.base import HistoryFilter, PublishOptions
from realtime.node.control import DisconnectUser, RefreshUser, SubscribeUser, UnsubscribeUser
from realtime.protocol.messages import Publication
from tests.unit.client.conftest import SECRET, Connection


HISTORY = PublishOptions(history_size=10, history_ttl=60, history_meta_ttl=600)


def token(**claims):
    return jwt.encode(claims, SECRET, algorithm="HS256")


async def publish(node, channel, data=b'{"n":1}'):
    found = node.table.resolve(channel)
    options = HISTORY if found.has_history else PublishOptions()
    return await node.publish(found, Publication(data=Raw(data)), options)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b'{"id":1,"subscribe":{"channel":"a"}}', 3501),
        (b"{}", 3501),
        (b'{"connect":{}}', 3501),
        (b"", 3501),
        (b"{bad", 3501),
        (b'{"id":1,"connect":{"token":"garbage"}}', 3500),
    ],
)
async def test_what_may_not_come_first_ends_the_connection(node, frame, code):
    """Before connect only a well-formed connect command with an id is accepted."""
    connection = Connection(node, "c")

    connection.send_raw(frame)

    assert connection.closed is not None
    assert connection.closed[0] == code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b'{"id":2,"connect":{}}', 3501),
        (b"{}", 3501),
        (b"", 3501),
        (b"\n", 3501),
        (b"{bad", 3501),
        (b"[]", 3501),
        (b'{"id":2,"ping":{}}', 3501),
        (b'{"id":2}', 3501),
        (b'{"id":2,"foo":{}}', 3501),
        (b'{"id":"2","subscribe":{"channel":"a"}}', 3501),
        (b'{"send":{"data":{}}}', 3508),
        (b'{"id":2,"subscribe":{}}', 3501),
        (b'{"id":2,"refresh":{}}', 3501),
        (b'{"id":2,"refresh":{"token":"bad"}}', 3500),
        (b'{"id":2,"subscribe":{"channel":"a","delta":"xx"}}', 3501),
        (b'{"id":2,"unsubscribe":{}}', 3501),
        (b'{"id":2,"subscribe":{"channel":"a","offset":-1}}', 3501),
        (b'{"id":2,"history":{"channel":"hist:a","since":{"offset":-1}}}', 3501),
        (
            b'{"id":2,"sub_refresh":{"channel":"a","type":1,"track":[{"items":[{"key":"k","version":-1}]}]}}',
            3501,
        ),
    ],
)
async def test_what_breaks_the_protocol_ends_the_connection(connect, frame, code):
    """A violation closes with the documented code, and nothing is answered."""
    connection = connect()

    connection.send_raw(frame)

    assert connection.closed is not None
    assert connection.closed[0] == code


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"rpc": {"method": "x", "data": {}}}, 108),
        ({"rpc": {"method": "ns:x", "data": {}}}, 108),
        ({"subscribe": {"channel": "a" * 256}}, 107),
        ({"subscribe": {"channel": "é"}}, 107),
        ({"subscribe": {"channel": "nope:a"}}, 102),
        ({"subscribe": {"channel": "$priv"}}, 103),
        ({"subscribe": {"channel": "a", "tf": {"key": "k", "cmp": "eq", "val": "v"}}}, 107),
        ({"subscribe": {"channel": "a", "token": "garbage"}}, 103),
        ({"publish": {"channel": "a"}}, 107),
        ({"presence": {"channel": "a"}}, 108),
        ({"history": {"channel": "a"}}, 108),
        ({"history": {"channel": "hist:a"}}, 103),
        ({"sub_refresh": {"channel": "a"}}, 103),
    ],
)
async def test_a_refused_command_is_answered_and_the_connection_lives(connect, command, code):
    """An error reply carries the code; the next command works."""
    connection = connect()

    (reply,) = connection.send({"id": 2, **command})

    assert reply["error"]["code"] == code
    assert connection.send({"id": 3, "unsubscribe": {"channel": "z"}}) == [
        {"id": 3, "unsubscribe": {}}
    ]


async def test_the_connect_reply_says_what_the_client_needs(node):
    """Pings are announced in whole seconds; session and node are not for this transport."""
    connection = Connection(node, "c")

    replies = connection.send({"id": 1, "connect": {}})

    assert replies == [
        {"id": 1, "connect": {"client": "c", "version": "0.0.0", "ping": 25, "pong": True}}
    ]


async def test_commands_before_a_malformed_one_are_answered(connect):
    """An empty line is an error, after what stood before it."""
    connection = connect()

    connection.send_raw(b'{"id":2,"unsubscribe":{"channel":"a"}}\n\n{"id":3}')

    assert connection.received() == [{"id": 2, "unsubscribe": {}}]
    assert connection.closed == (3501, "bad request")


async def test_names_in_any_case_and_nulls_are_read(connect):
    """JSON is read as the reference reads it."""
    connection = connect()

    connection.send_raw(b'{"ID":2,"Subscribe":{"CHANNEL":"a","token":null,"later":1}}')

    assert connection.received() == [{"id": 2, "subscribe": {}}]


async def test_a_publication_reaches_all_subscribers_once_and_in_order(node, connect):
    """The payload arrives as it was written, after the subscribe reply."""
    one, two = connect(), connect()
    one.send({"id": 2, "subscribe": {"channel": "a"}})
    two.send({"id": 2, "subscribe": {"channel": "a"}})

    await publish(node, "a", b'{"x": 1.0}')
    one.client.on_message(b'{"id":3,"publish":{"channel":"a","data":{"y":2}}}', True)

    expected = [
        {"push": {"channel": "a", "pub": {"data": {"x": 1.0}}}},
        {
            "push": {
                "channel": "a",
                "pub": {"data": {"y": 2}, "info": {"user": "", "client": "client-1"}},
            }
        },
    ]
    assert [each for each in two.received() if "push" in each] == expected
    assert [each for each in one.received() if "push" in each] == expected


async def test_an_ended_subscription_gets_what_was_published_before(node, connect):
    """What is pending for a member leaves with it; what comes later does not."""
    connection = connect()
    connection.send({"id": 2, "subscribe": {"channel": "a"}})

    await publish(node, "a", b"1")
    replies = connection.send({"id": 3, "unsubscribe": {"channel": "a"}})
    await publish(node, "a", b"2")

    assert replies == [
        {"push": {"channel": "a", "pub": {"data": 1}}},
        {"id": 3, "unsubscribe": {}},
    ]
    assert connection.received() == []


async def test_a_new_subscriber_gets_nothing_that_was_published_before(node, connect):
    """Who joins in the tick of a publication does not see it."""
    old, new = connect(), connect()
    old.send({"id": 2, "subscribe": {"channel": "hist:a"}})

    await publish(node, "hist:a", b"1")
    (reply,) = new.send({"id": 2, "subscribe": {"channel": "hist:a"}})
    await publish(node, "hist:a", b"2")

    assert reply["subscribe"]["offset"] == 1
    assert [each["push"]["pub"]["offset"] for each in new.received()] == [2]
    assert [each["push"]["pub"]["offset"] for each in old.received()] == [1, 2]


async def test_recovery_returns_what_was_missed(node, connect):
    """The reply carries the missed publications and the offset that was asked for."""
    connection = connect()
    for number in range(1, 4):
        await publish(node, "hist:a", b"%d" % number)
    epoch = (await node.broker.history("hist:a", _position_only(), 600)).top.epoch

    (reply,) = connection.send(
        {"id": 2, "subscribe": {"channel": "hist:a", "recover": True, "offset": 1, "epoch": epoch}}
    )

    assert reply["subscribe"] == {
        "recoverable": True,
        "epoch": epoch,
        "publications": [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}],
        "recovered": True,
        "offset": 1,
        "positioned": True,
        "was_recovering": True,
    }


def _position_only():
    from realtime.engines.base import HistoryFilter

    return HistoryFilter(limit=0)


async def test_recovery_from_another_epoch_is_refused_whole(node, connect):
    """Nothing is recovered partly: the top is told and no publication."""
    connection = connect()
    await publish(node, "hist:a")

    (reply,) = connection.send(
        {"id": 2, "subscribe": {"channel": "hist:a", "recover": True, "offset": 0, "epoch": "_"}}
    )

    result = reply["subscribe"]
    assert "recovered" not in result
    assert result["offset"] == 1
    assert "publications" not in result
    (reply,) = connect().send(
        {"id": 2, "subscribe": {"channel": "hist:a", "recover": True, "epoch": "_", "flag": 3}}
    )
    assert reply["error"]["code"] == 112


async def test_cache_mode_brings_the_newest_publication(node, connect):
    """``auto_cache_recover`` acts without being asked."""
    await publish(node, "cache:a", b"1")
    await publish(node, "cache:a", b"2")

    (reply,) = connect().send({"id": 2, "subscribe": {"channel": "cache:a"}})

    assert reply["subscribe"]["publications"] == [{"data": 2, "offset": 2}]
    assert reply["subscribe"]["recovered"] is True


async def test_history_is_for_subscribers_where_it_says_so(node, connect):
    """A subscriber reads the stream; its position comes along."""
    connection = connect()
    await publish(node, "hist:a", b"1")
    connection.send({"id": 2, "subscribe": {"channel": "hist:a"}})

    (reply,) = connection.send({"id": 3, "history": {"channel": "hist:a", "limit": 5}})

    assert [pub["offset"] for pub in reply["history"]["publications"]] == [1]
    assert reply["history"]["offset"] == 1
    (reply,) = connection.send(
        {"id": 4, "history": {"channel": "hist:a", "limit": 1, "since": {"epoch": "x"}}}
    )
    assert reply["error"]["code"] == 112


async def test_joins_and_leaves_are_told(connect):
    """The own join comes after the own reply, the own leave never."""
    one, two = connect(), connect()

    replies = one.send({"id": 2, "subscribe": {"channel": "jl:a"}})
    two.send({"id": 2, "subscribe": {"channel": "jl:a"}})
    two.send({"id": 3, "unsubscribe": {"channel": "jl:a"}})

    assert replies == [
        {"id": 2, "subscribe": {}},
        {"push": {"channel": "jl:a", "join": {"info": {"user": "", "client": "client-1"}}}},
    ]
    assert one.received() == [
        {"push": {"channel": "jl:a", "join": {"info": {"user": "", "client": "client-2"}}}},
        {"push": {"channel": "jl:a", "leave": {"info": {"user": "", "client": "client-2"}}}},
    ]
    assert two.received() == []


async def test_presence_follows_connections(connect):
    """An entry comes with the subscription and goes with the connection."""
    one, two = connect(), connect()
    one.send({"id": 2, "subscribe": {"channel": "jl:a"}})
    two.send({"id": 2, "subscribe": {"channel": "jl:a"}})

    *_, before = one.send({"id": 3, "presence_stats": {"channel": "jl:a"}})
    two.client.on_close(1006)
    *_, after = one.send({"id": 4, "presence": {"channel": "jl:a"}})

    assert before["presence_stats"] == {"num_clients": 2, "num_users": 1}
    assert after["presence"] == {"presence": {"client-1": {"user": "", "client": "client-1"}}}


async def test_a_token_brings_user_info_channels_and_expiry(node, clock):
    """Server-side subscriptions stand in the connect reply and deliver."""
    connection = Connection(node, "c")
    text = token(sub="u1", exp=int(clock.now) + 100, channels=["hist:s"], info={"n": 1})

    (reply,) = connection.send({"id": 1, "connect": {"token": text}})
    await publish(node, "hist:s", b"1")

    result = reply["connect"]
    assert (result["expires"], result["ttl"]) == (True, 100)
    assert result["subs"]["hist:s"]["recoverable"] is True
    (push,) = connection.received()
    assert push["push"]["pub"]["offset"] == 1
    assert connection.client.session.client_info().conn_info == Raw(b'{"n":1}')


async def test_an_expired_token_is_answered_with_109(node, clock):
    """The SDK fetches another; the connection takes nothing more."""
    connection = Connection(node, "c")

    (reply,) = connection.send(
        {"id": 1, "connect": {"token": token(sub="u", exp=int(clock.now) - 1)}}
    )

    assert reply == {"id": 1, "error": {"code": 109, "message": "token expired"}}
    assert connection.send({"id": 2, "subscribe": {"channel": "a"}}) == []


async def test_refresh_moves_the_expiry_and_checks_the_user(connect, clock):
    """Another user's token ends the connection."""
    connection = connect(token(sub="u", exp=int(clock.now) + 10))

    (reply,) = connection.send(
        {"id": 2, "refresh": {"token": token(sub="u", exp=int(clock.now) + 99)}}
    )
    connection.send({"id": 3, "refresh": {"token": token(sub="other", exp=int(clock.now) + 99)}})

    assert reply == {"id": 2, "refresh": {"expires": True, "ttl": 99}}
    assert connection.closed == (3500, "invalid token")


async def test_a_subscription_token_opens_a_private_channel(connect, clock):
    """It must name the channel and the user; otherwise the connection ends."""
    connection = connect(token(sub="u"))
    good = token(sub="u", channel="$p", exp=int(clock.now) + 60)

    (reply,) = connection.send({"id": 2, "subscribe": {"channel": "$p", "token": good}})
    connection.send({"id": 3, "subscribe": {"channel": "$q", "token": good}})

    assert reply == {"id": 2, "subscribe": {"expires": True, "ttl": 60}}
    assert connection.closed == (3500, "invalid token")


async def test_an_expired_subscription_ends_on_the_tick(connect, clock):
    """The SDK is told 2501 after the grace."""
    connection = connect(token(sub="u"))
    text = token(sub="u", channel="$p", exp=int(clock.now) + 10)
    connection.send({"id": 2, "subscribe": {"channel": "$p", "token": text}})

    clock.now += 36
    connection.client.maintain(clock.now)

    assert connection.received() == [
        {"push": {"channel": "$p", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}}
    ]


async def test_the_server_api_acts_on_live_connections(node, connect):
    """Subscribe, unsubscribe, refresh and disconnect reach the user's connections."""
    connection = connect(token(sub="u"))

    await node.control(SubscribeUser(user="u", channel="hist:s", data=b'{"d":1}'))
    await node.control(SubscribeUser(user="u", channel="hist:s"))
    await node.control(UnsubscribeUser(user="u", channel="hist:s"))
    await node.control(RefreshUser(user="u", expire_at=int(node.clock()) + 50))
    subscribed, unsubscribed, refreshed = connection.received()
    await node.control(DisconnectUser(user="u"))

    assert subscribed["push"]["subscribe"]["data"] == {"d": 1}
    assert unsubscribed["push"]["unsubscribe"] == {"code": 2000, "reason": "server unsubscribe"}
    assert refreshed == {"push": {"refresh": {"expires": True, "ttl": 50}}}
    assert connection.closed == (3503, "force disconnect")


async def test_binary_data_ends_json_subscribers_only(node, connect):
    """A payload that is no JSON cannot be shown to a JSON connection."""
    connection, other = connect(), connect()
    connection.send({"id": 2, "subscribe": {"channel": "a"}})

    await publish(node, "a", b"\xff\x00")

    assert connection.closed == (3506, "inappropriate protocol")
    assert other.closed is None


async def test_a_pong_answers_one_ping(connect):
    """The second pong for the same ping breaks the protocol."""
    connection = connect()
    connection.client.ping()

    connection.send_raw(b"{}")
    assert connection.closed is None
    connection.send_raw(b"{}")

    assert connection.closed == (3501, "bad request")


async def test_a_slow_reader_is_cared_for_alone_and_loses_nothing(node, connect):
    """While its buffer is full it is out of the cohort; back in, the order is unbroken."""
    slow, quick = connect(), connect()
    for each in (slow, quick):
        each.send({"id": 2, "subscribe": {"channel": "hist:a"}})

    await publish(node, "hist:a", b"1")
    slow.client.on_pause()
    await publish(node, "hist:a", b"2")
    slow.client.on_resume()
    await publish(node, "hist:a", b"3")

    assert [each["push"]["pub"]["data"] for each in slow.received()] == [1, 2, 3]
    assert [each["push"]["pub"]["data"] for each in quick.received()] == [1, 2, 3]
    slow.client.on_pause()
    slow.transport.backlog = 2_000_000
    await publish(node, "hist:a", b"4")
    assert slow.closed == (3008, "slow")


async def test_a_slow_reader_is_told_of_a_stream_that_began_again(node, connect):
    """How far it was in the stream before says nothing of this one, however low its offsets are."""
    slow = connect()
    slow.send({"id": 2, "subscribe": {"channel": "hist:a"}})
    for data in (b"1", b"2", b"3"):
        await publish(node, "hist:a", data)
    slow.client.on_pause()
    top = (await node.broker.history("hist:a", HistoryFilter(), 60)).top
    await node.broker.renew("hist:a", top.epoch)

    await publish(node, "hist:a", b"4")

    assert slow.received()[-1]["push"]["unsubscribe"]["code"] == 2500


async def test_a_closed_connection_leaves_nothing_behind(node, connect):
    """Rooms, users and connections are empty again."""
    connection = connect(token(sub="u"))
    connection.send({"id": 2, "subscribe": {"channel": "jl:a"}})

    connection.client.on_close(1006)

    assert (len(node.hub.clients), node.hub.clients.num_users, node.hub.num_channels) == (0, 0, 0)
    assert not node.connections
    assert not await node.presence.presence("jl:a")


async def test_draining_tells_every_client(node, connect):
    """All get 3001, those that have not connected yet too."""
    connections = [connect() for _ in range(5)] + [Connection(node, "early")]

    await node.drain(0)

    assert {each.closed for each in connections} == {(3001, "shutdown")}


@pytest.mark.parametrize("is_text", [True, False])
async def test_what_is_no_utf8_is_malformed(connect, is_text):
    """In whichever frame it comes; what stood before it in an earlier frame is answered."""
    connection = connect()

    connection.client.on_message(b'{"id":2,"publish":{"channel":"a","data":"\xff"}}', is_text)

    assert connection.closed == (3501, "bad request")
    assert connection.received() == []


async def test_the_nodes_figures_count_connections_by_transport(node, clock):
    """Renewed once per interval, with the node's tick."""
    connections = [Connection(node, name) for name in ("a", "b")]
    clock.now += node.options.node.info_metrics_aggregate_interval
    await asyncio.sleep(1.2)
    (this,) = await node.survey_nodes()

    name = "centrifugo.client.connections_inflight.transport.websocket"
    assert this.metrics[name] == len(connections)
