"""A connection that only listens, on the memory engine."""

from __future__ import annotations

import asyncio

import jwt
import msgspec
import pytest
from msgspec import Raw

from realtime.client.unidirectional import UnidirectionalClient
from realtime.conf.options import (
    DisconnectTransform,
    DisconnectTransformsOptions,
    TransformDisconnect,
)
from realtime.engines.base import PublishOptions
from realtime.engines.maps import PLAIN_CHANGE
from realtime.node.control import DisconnectUser, RefreshUser, SubscribeUser, UnsubscribeUser
from realtime.protocol import client_pb2
from realtime.protocol.errors import Disconnect, TokenExpiredError
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import Publication
from realtime.protocol.protobuf_codec import split_delimited
from realtime.protocol.wire import PING_FRAME, UNI_LINES_JSON, UNI_PROTOBUF, UNI_SSE_JSON, frame
from realtime.session.session import Session
from tests.unit.client.conftest import SECRET, RecordingTransport


HISTORY = PublishOptions(history_size=10, history_ttl=60, history_meta_ttl=600)


def token(**claims):
    return jwt.encode(claims, SECRET, algorithm="HS256")


class Listener:
    """A unidirectional client whose transport records."""

    def __init__(self, node, *, name="c", wire=UNI_LINES_JSON, **facts):
        self.node = node
        self.transport = RecordingTransport()
        self.client = UnidirectionalClient(
            node,
            Session(name, f"secret of {name}"),
            wire,
            self.transport,
            transport_name="uni",
            **facts,
        )

    def connect(self, **request):
        self.client.connect(UNI_LINES_JSON.decode_connect_request(msgspec.json.encode(request)))
        return self.received()

    def taken(self):
        self.node.hub.flush()
        written, self.transport.written = self.transport.written, []
        return b"".join(written)

    def received(self):
        return [msgspec.json.decode(line) for line in self.taken().splitlines()]


async def publish(node, channel, data=b'{"n":1}'):
    found = node.table.resolve(channel)
    options = HISTORY if found.has_history else PublishOptions()
    await node.publish(found, Publication(data=Raw(data)), options)


async def test_the_first_push_tells_what_the_client_needs(node):
    """The session is named, the node is not, and no pong is asked for."""
    listener = Listener(node)

    pushes = listener.connect()

    assert pushes == [
        {"connect": {"client": "c", "version": "0.0.0", "ping": 25, "session": "secret of c"}}
    ]


async def test_a_listener_hears_what_the_server_does(node):
    """Publications, subscribe, unsubscribe and refresh come as bare pushes; ``session`` narrows each."""
    listener = Listener(node)
    listener.connect(token=token(sub="u"), subs={"a": {}})

    await publish(node, "a")
    node.hub.flush()
    await node.control(SubscribeUser(user="u", channel="b", session="secret of c"))
    await node.control(SubscribeUser(user="u", channel="not this", session="another"))
    await node.control(
        UnsubscribeUser(user="u", channel="b", session="secret of c", code=2000, reason="bye")
    )
    await node.control(
        RefreshUser(user="u", session="secret of c", expire_at=int(node.clock()) + 100)
    )

    assert listener.received() == [
        {"channel": "a", "pub": {"data": {"n": 1}}},
        {"channel": "b", "subscribe": {}},
        {"channel": "b", "unsubscribe": {"code": 2000, "reason": "bye"}},
        {"refresh": {"expires": True, "ttl": 100}},
    ]


async def test_a_disconnect_by_session_ends_that_one_alone(node):
    """Others of the user stay."""
    listener, other = Listener(node), Listener(node, name="d")
    listener.connect(token=token(sub="u"))
    other.connect(token=token(sub="u"))

    await node.control(DisconnectUser(user="u", session="secret of c", code=3503, reason="out"))

    assert listener.transport.closed == (3503, "out")
    assert other.transport.closed is None


async def test_subs_bring_back_what_was_missed(node):
    """A position in the request recovers, within the connect push."""
    await publish(node, "hist:a", b"1")
    first = Listener(node)
    (connected,) = first.connect(subs={"hist:a": {}})
    epoch = connected["connect"]["subs"]["hist:a"]["epoch"]
    first.client.on_close()
    await publish(node, "hist:a", b"2")
    second = Listener(node)

    (connected,) = second.connect(subs={"hist:a": {"recover": True, "offset": 1, "epoch": epoch}})

    assert connected["connect"]["subs"]["hist:a"] == {
        "recoverable": True,
        "epoch": epoch,
        "publications": [{"data": 2, "offset": 2}],
        "recovered": True,
        "offset": 1,
        "positioned": True,
        "was_recovering": True,
    }


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"token": "garbage"}, (3500, "invalid token")),
        ({"token": token(sub="u", exp=1)}, (3005, "connection expired")),
        ({"token": token(sub="u", channels=["nope:a"])}, (3004, "internal server error")),
        ({"subs": {"nope:a": {}}}, (3501, "bad request")),
    ],
)
async def test_a_refused_connect_disconnects(node, request_, expected):
    """There is no error reply: codes of errors have disconnects of their own, and nothing stays behind."""
    listener = Listener(node)

    pushes = listener.connect(**request_)

    assert pushes == []
    assert listener.transport.closed == expected
    assert node.connections == set()
    assert len(node.hub.clients) == 0


async def test_the_operator_chooses_the_disconnects_of_errors(make_node, options):
    """A transform replaces the disconnect of its error; a disconnect is left as it is."""
    transforms = DisconnectTransformsOptions(
        enabled=True,
        transforms=(
            DisconnectTransform(code=109, to=TransformDisconnect(code=4567, reason="again")),
            DisconnectTransform(code=3500, to=TransformDisconnect(code=4568, reason="never")),
        ),
    )
    client = msgspec.structs.replace(
        options.client, connect_code_to_unidirectional_disconnect=transforms
    )
    node = await make_node(msgspec.structs.replace(options, client=client))
    expired, invalid = Listener(node), Listener(node)

    expired.connect(token=token(sub="u", exp=1))
    invalid.connect(token="garbage")

    assert expired.transport.closed == (4567, "again")
    assert invalid.transport.closed == (3500, "invalid token")


async def test_a_connection_ends_with_its_token(make_node, options, clock):
    """Nobody but the server API can refresh it; whom it refreshes stays."""
    client = msgspec.structs.replace(options.client, expired_close_delay=0.0)
    node = await make_node(msgspec.structs.replace(options, client=client))
    clock.now += 0.95
    ends_at = int(clock.now) + 1
    left, refreshed = Listener(node), Listener(node, name="d")

    (pushed,) = left.connect(token=token(sub="u", exp=ends_at))
    refreshed.connect(token=token(sub="u", exp=ends_at))
    await node.control(RefreshUser(user="u", session="secret of d", expire_at=int(clock.now) + 100))
    await asyncio.sleep(0.1)

    assert (pushed["connect"]["expires"], pushed["connect"]["ttl"]) == (True, 1)
    assert left.transport.closed == (3005, "connection expired")
    assert refreshed.transport.closed is None


async def test_only_the_first_request_counts(node):
    """A second one, and any message, is ignored."""
    listener = Listener(node)
    listener.connect()

    pushes = listener.connect(token="garbage")
    listener.client.on_message(b"{bad")

    assert pushes == []
    assert listener.transport.closed is None


async def test_let_in_leaves_the_refusal_to_the_caller(node):
    """Errors and disconnects come as they are, and the transport hears nothing."""
    decode = UNI_LINES_JSON.decode_connect_request
    expired, invalid, good = (Listener(node, name=name) for name in "abc")

    refusals = [
        await listener.client.let_in(decode(msgspec.json.encode({"token": text})))
        for listener, text in (
            (expired, token(sub="u", exp=1)),
            (invalid, "garbage"),
            (good, token(sub="u")),
        )
    ]

    assert isinstance(refusals[0], TokenExpiredError)
    assert refusals[1] == Disconnect(3500, "invalid token")
    assert refusals[2] is None
    assert expired.transport.closed is None
    assert "connect" in good.received()[0]


async def test_let_in_ends_with_the_connection(node, monkeypatch):
    """One that is disconnected while a backend is asked is rolled back, and the caller goes on."""
    asked = asyncio.Event()

    async def never(channel):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(node.broker, "subscribe", never)
    listener = Listener(node)
    request = UNI_LINES_JSON.decode_connect_request(b'{"subs":{"a":{}}}')
    letting_in = asyncio.create_task(listener.client.let_in(request))
    await asked.wait()

    listener.client.disconnect(3001, "shutdown")

    assert await letting_in is None
    assert listener.transport.closed == (3001, "shutdown")
    assert len(node.hub.clients) == 0
    assert node.hub.rooms == {}


async def test_pings_need_no_answer_but_ping_frames_do(node):
    """The protocol's ping is an empty push; who has PING frames as well must answer those."""
    plain = Listener(node)
    framed = Listener(node, name="d", frame_ping=frame(b"", PING_FRAME))
    plain.connect()
    framed.connect()

    for listener in (plain, framed):
        listener.taken()
        listener.client.ping()

    assert plain.taken() == b"{}\n"
    assert plain.client.session.is_pong_due is False
    assert framed.taken() == frame(b"", PING_FRAME) + b"{}\n"
    assert framed.client.session.is_pong_due is True
    framed.client.on_pong()
    assert framed.client.session.is_pong_due is False


async def test_an_event_of_sse_is_one_line(node):
    """Line breaks of a payload are taken out, since they would end the event."""
    listener = Listener(node, wire=UNI_SSE_JSON)
    listener.client.connect(UNI_SSE_JSON.decode_connect_request(b'{"subs":{"a":{}}}'))
    listener.taken()

    await publish(node, "a", b'{\r\n"n": 1}')

    assert listener.taken() == b'data: {"channel":"a","pub":{"data":{"n": 1}}}\n\n'


async def test_protobuf_pushes_are_delimited(node):
    """Several that leave together can be taken apart; any payload may come."""
    listener = Listener(node, wire=UNI_PROTOBUF)
    listener.client.connect(UNI_PROTOBUF.decode_connect_request(b"\x1a\x03\x0a\x01a"))
    await publish(node, "a", b"\xff" * 200)
    await publish(node, "a", b"\xfe")
    node.hub.flush()
    listener.client.ping()

    pushes = [client_pb2.Push.FromString(each) for each in split_delimited(listener.taken())]

    assert pushes[0].connect.session == "secret of c"
    assert list(pushes[0].connect.subs) == ["a"]
    assert [(each.channel, each.pub.data) for each in pushes[1:3]] == [
        ("a", b"\xff" * 200),
        ("a", b"\xfe"),
    ]
    assert pushes[3] == client_pb2.Push()


@pytest.mark.parametrize("text", [b"", b"[]", b"{bad", b'{"token":1}', b'{"data":"\xff"}'])
def test_what_is_no_connect_request_is_malformed(text):
    """The transport answers it in its own way."""
    with pytest.raises(MalformedFrame):
        UNI_LINES_JSON.decode_connect_request(text)


def test_null_is_an_empty_connect_request():
    """So is an object without a known field."""
    decode = UNI_LINES_JSON.decode_connect_request

    assert decode(b"null") == decode(b"{}") == decode(b'{"later":1}')


async def test_a_client_that_ends_within_a_flush_costs_nobody_a_publication(node):
    """Its cohort goes with it, in the middle of what is being written to all of them."""
    slow = Listener(node, name="slow", wire=UNI_LINES_JSON)
    other = Listener(node, name="other", wire=UNI_SSE_JSON)
    for listener in (slow, other):
        listener.client.connect(UNI_LINES_JSON.decode_connect_request(b'{"subs":{"news":{}}}'))
    slow.transport.write = lambda _: slow.client.disconnect(3008, "slow")
    room = node.hub.rooms["news"]
    cohort = next(iter(room.cohorts.values()))
    cohort.writes[slow.client] = slow.transport.write

    await publish(node, "news")

    assert b'"n":1' in other.taken()
    assert slow.transport.closed == (3008, "slow")


async def test_who_only_listens_is_told_what_changes_of_a_map(node):
    """By a connection token, as any channel: bare pushes with their keys, without state before them."""
    listener = Listener(node)

    (push,) = listener.connect(token=token(sub="u", subs={"board:a": {}}))
    assert push["connect"]["subs"] == {"board:a": {}}
    rules = node.table.resolve("board:a").map_rules
    change = Publication(key="k", data=Raw(b"1"))
    await node.maps.publish("board:a", change, rules, PLAIN_CHANGE)
    await node.maps.remove("board:a", Publication(key="k", removed=True), rules, PLAIN_CHANGE)

    first, second = listener.received()
    assert first["pub"].items() >= {"data": 1, "key": "k", "offset": 1}.items()
    assert second["pub"] == {"key": "k", "offset": 2, "removed": True}
