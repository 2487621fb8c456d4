"""Single frames on a bare WebSocket, and what must come of each, in both encodings."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import websockets

from realtime.protocol import client_pb2
from tests.live.harness import API_KEY, Server, make_token, raw


pytestmark = pytest.mark.live

BAD_REQUEST = (3501, "bad request")
_names = itertools.count()


def _error(number: int, code: int, message: str) -> dict[str, Any]:
    return {"id": number, "error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    "frame",
    [
        '{"id":1,"subscribe":{"channel":"a"}}',
        "{}",
        '{"connect":{}}',
        '{"id":1,"publish":{"channel":"a","data":{}}}',
        '{"id":1,"rpc":{"method":"x"}}',
        '{"send":{"data":{}}}',
        "",
        "\n",
        "{bad",
        "[]",
        "7",
        '"text"',
        '{"id":"1","connect":{}}',
        '{"id":-1,"connect":{}}',
    ],
)
async def test_first_frame_must_connect(server: Server, frame: str) -> None:
    """What comes before a connect, or is no command, closes with 3501."""
    async with raw(server) as socket:
        await socket.send(frame)

        assert await socket.closed() == BAD_REQUEST


@pytest.mark.parametrize(
    ("frame", "close"),
    [
        ('{"id":2,"connect":{}}', BAD_REQUEST),
        ("{}", BAD_REQUEST),
        ("null", BAD_REQUEST),
        ("", BAD_REQUEST),
        ("\n", BAD_REQUEST),
        ("{bad", BAD_REQUEST),
        ("[]", BAD_REQUEST),
        ('{"id":"2"}', BAD_REQUEST),
        ('{"id":2,"ping":{}}', BAD_REQUEST),
        ('{"id":2}', BAD_REQUEST),
        ('{"id":2,"foo":{}}', BAD_REQUEST),
        ('{"send":{"data":{}}}', (3508, "not available")),
        ('{"id":2,"send":{"data":{}}}', (3508, "not available")),
        ('{"subscribe":{"channel":"a"}}', BAD_REQUEST),
        ('{"id":2,"subscribe":{}}', BAD_REQUEST),
        ('{"id":2,"unsubscribe":{}}', BAD_REQUEST),
        ('{"id":2,"publish":{"data":{}}}', BAD_REQUEST),
        ('{"id":2,"presence":{}}', BAD_REQUEST),
        ('{"id":2,"presence_stats":{}}', BAD_REQUEST),
        ('{"id":2,"history":{}}', BAD_REQUEST),
        ('{"id":2,"sub_refresh":{}}', BAD_REQUEST),
        ('{"id":2,"refresh":{}}', BAD_REQUEST),
        ('{"id":2,"refresh":{"token":"not a token"}}', (3500, "invalid token")),
        ('{"id":2,"subscribe":{"channel":"a","delta":"xx"}}', BAD_REQUEST),
        ('{"id":2,"subscribe":[]}', BAD_REQUEST),
        ('{"id":2,"subscribe":{"channel":7}}', BAD_REQUEST),
    ],
)
async def test_frame_that_ends_the_connection(
    server: Server, frame: str, close: tuple[int, str]
) -> None:
    """After an anonymous connect these frames close with this code and reason."""
    async with raw(server) as socket:
        await socket.connect()

        await socket.send(frame)

        assert await socket.closed() == close


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ({"id": 2, "rpc": {"method": "x", "data": {}}}, _error(2, 108, "not available")),
        ({"id": 2, "rpc": {"method": "no:x", "data": {}}}, _error(2, 108, "not available")),
        ({"id": 2, "subscribe": {"channel": "a" * 256}}, _error(2, 107, "bad request")),
        ({"id": 2, "subscribe": {"channel": "a" * 255}}, {"id": 2, "subscribe": {}}),
        ({"id": 2, "subscribe": {"channel": "\xe9"}}, _error(2, 107, "bad request")),
        ({"id": 2, "subscribe": {"channel": "nope:a"}}, _error(2, 102, "unknown channel")),
        ({"id": 2, "subscribe": {"channel": "$priv"}}, _error(2, 103, "permission denied")),
        ({"id": 2, "subscribe": {"channel": "closed:a"}}, _error(2, 103, "permission denied")),
        ({"id": 2, "subscribe": {"channel": "users:#7"}}, _error(2, 103, "permission denied")),
        ({"id": 2, "unsubscribe": {"channel": "zzz"}}, {"id": 2, "unsubscribe": {}}),
        ({"id": 2, "presence": {"channel": "hist:a"}}, _error(2, 108, "not available")),
        ({"id": 2, "presence_stats": {"channel": "hist:a"}}, _error(2, 108, "not available")),
        ({"id": 2, "history": {"channel": "room:a"}}, _error(2, 108, "not available")),
        ({"id": 2, "history": {"channel": "nope:a"}}, _error(2, 102, "unknown channel")),
        ({"id": 2, "history": {"channel": "hist:a"}}, _error(2, 103, "permission denied")),
        ({"id": 2, "presence": {"channel": "room:a"}}, _error(2, 103, "permission denied")),
        ({"id": 2, "publish": {"channel": "a", "data": {}}}, _error(2, 103, "permission denied")),
        (
            {"id": 2, "publish": {"channel": "nope:a", "data": {}}},
            _error(2, 102, "unknown channel"),
        ),
        (
            {"id": 2, "sub_refresh": {"channel": "a", "token": "x"}},
            _error(2, 103, "permission denied"),
        ),
        (
            {"id": 2, "subscribe": {"channel": "a", "tf": {"op": "", "cmp": "eq", "key": "a"}}},
            _error(2, 107, "bad request"),
        ),
        (
            {"id": 2, "subscribe": {"channel": "a", "tf": {"op": "what"}}},
            _error(2, 107, "bad request"),
        ),
        (
            {"id": 2, "subscribe": {"channel": "a", "token": "x"}},
            _error(2, 103, "permission denied"),
        ),
        ({"ID": 2, "Unsubscribe": {"Channel": "zzz"}}, {"id": 2, "unsubscribe": {}}),
        ({"id": 2, "more": 1, "unsubscribe": {"channel": "zzz"}}, {"id": 2, "unsubscribe": {}}),
        (
            {"id": 4294967295, "unsubscribe": {"channel": "z"}},
            {"id": 4294967295, "unsubscribe": {}},
        ),
    ],
)
async def test_command_that_is_answered(
    server: Server, command: dict[str, Any], reply: dict[str, Any]
) -> None:
    """After an anonymous connect these commands get this reply, and the connection goes on."""
    async with raw(server) as socket:
        await socket.connect()

        assert await socket.ask(command) == reply
        assert await socket.ask({"id": 9, "unsubscribe": {"channel": "q"}}) == {
            "id": 9,
            "unsubscribe": {},
        }


async def test_connect_reply_has_what_sdks_read(server: Server) -> None:
    """An anonymous connect answers with a client ID, a version, the ping interval and pong."""
    async with raw(server) as socket:
        result = await socket.connect()

    assert set(result) == {"client", "version", "ping", "pong"}
    assert len(result["client"]) == 36
    assert result["ping"] == 25
    assert result["pong"] is True


async def test_second_subscribe_to_a_channel_is_refused(server: Server) -> None:
    """The same channel twice: the first succeeds, the second is error 105."""
    async with raw(server) as socket:
        await socket.connect()

        assert await socket.ask({"id": 2, "subscribe": {"channel": "a"}}) == {
            "id": 2,
            "subscribe": {},
        }
        assert await socket.ask({"id": 3, "subscribe": {"channel": "a"}}) == _error(
            3, 105, "already subscribed"
        )


async def test_publish_needs_data_but_null_is_data(server: Server) -> None:
    """A subscriber publishes: without data is error 107, with null it is delivered."""
    channel = f"probe{next(_names)}"
    async with raw(server) as socket:
        await socket.connect()
        await socket.ask({"id": 2, "subscribe": {"channel": channel}})

        assert await socket.ask({"id": 3, "publish": {"channel": channel}}) == _error(
            3, 107, "bad request"
        )
        await socket.send(f'{{"id":4,"publish":{{"channel":"{channel}","data":null}}}}')
        messages = [await socket.receive(), await socket.receive()]

    assert {"id": 4, "publish": {}} in messages
    push = next(message["push"] for message in messages if "push" in message)
    assert push["pub"]["data"] is None
    assert push["pub"]["info"]["user"] == ""


async def test_empty_line_ends_the_connection_after_what_came_before(server: Server) -> None:
    """An empty line between commands closes with 3501; the first command is answered."""
    async with raw(server) as socket:
        await socket.connect()

        await socket.send('{"id":2,"unsubscribe":{"channel":"a"}}\n\n{"id":3}')

        assert await socket.receive() == {"id": 2, "unsubscribe": {}}
        assert await socket.closed() == BAD_REQUEST


@pytest.mark.parametrize("separator", ["\n", "\r\n"])
async def test_several_commands_in_a_frame(server: Server, separator: str) -> None:
    """Two commands in a frame, with a line end after the last, get both replies in order."""
    async with raw(server) as socket:
        await socket.connect()

        await socket.send(
            f'{{"id":2,"unsubscribe":{{"channel":"a"}}}}{separator}'
            f'{{"id":3,"unsubscribe":{{"channel":"b"}}}}{separator}'
        )

        assert [await socket.receive(), await socket.receive()] == [
            {"id": 2, "unsubscribe": {}},
            {"id": 3, "unsubscribe": {}},
        ]


async def test_connect_and_subscribe_in_one_frame(server: Server) -> None:
    """SDKs send connect and subscribes at once: the replies come in that order."""
    async with raw(server) as socket:
        await socket.send({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}})

        assert "connect" in await socket.receive()
        assert await socket.receive() == {"id": 2, "subscribe": {}}


async def test_message_over_the_limit_closes_with_1009(server: Server) -> None:
    """A message of 70,000 bytes is over the limit of 64 KiB, and one of 60,000 is not."""
    async with raw(server) as socket:
        await socket.connect()
        padding = "x" * 60_000
        reply = await socket.ask({"id": 2, "more": padding, "unsubscribe": {"channel": "a"}})
        assert reply == {"id": 2, "unsubscribe": {}}

        await socket.send("x" * 70_000)

        assert (await socket.closed())[0] == 1009


async def test_binary_payload_cannot_go_to_a_json_client(server: Server) -> None:
    """A publication that is no JSON closes the JSON subscriber with 3506, and only that one."""
    channel = f"probe{next(_names)}"
    async with raw(server) as subscriber, raw(server) as bystander:
        for socket in (subscriber, bystander):
            await socket.connect()
        await subscriber.ask({"id": 2, "subscribe": {"channel": channel}})

        await asyncio.to_thread(server.call, "publish", channel=channel, b64data="/wD+")

        assert await subscriber.closed() == (3506, "inappropriate protocol")
        reply = await bystander.ask({"id": 2, "unsubscribe": {"channel": "a"}})
        assert reply == {"id": 2, "unsubscribe": {}}


async def test_payload_reaches_a_json_client_as_it_was_written(server: Server) -> None:
    """Numbers, spacing and escapes of a payload arrive byte for byte."""
    channel = f"probe{next(_names)}"
    data = '{"a": 1.0, "big":12345678901234567890,"e":1e3, "u":"\\u00e9"}'
    async with raw(server) as socket:
        await socket.connect()
        await socket.ask({"id": 2, "subscribe": {"channel": channel}})

        answer = await asyncio.to_thread(
            server.request,
            "/api/publish",
            f'{{"channel":"{channel}","data":{data}}}'.encode(),
            {"X-API-Key": API_KEY},
        )
        frame = await asyncio.wait_for(socket.socket.recv(), 30)

    assert answer.json == {"result": {}}
    assert frame == f'{{"push":{{"channel":"{channel}","pub":{{"data":{data}}}}}}}'


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        (lambda: make_token("7", lifetime=-60), 109),
        (lambda: make_token("7", lifetime=600, nbf=4_000_000_000), 109),
        (lambda: make_token("7")[:-4] + "AAAA", (3500, "invalid token")),
        (lambda: "garbage", (3500, "invalid token")),
        (lambda: "a.b.c", (3500, "invalid token")),
        (lambda: make_token("7", channels=["nope:a"]), 102),
    ],
    ids=["expired", "not yet valid", "forged", "garbage", "three parts", "unknown namespace"],
)
async def test_connect_with_a_bad_token(
    server: Server, token: Callable[[], str], outcome: int | tuple[int, str]
) -> None:
    """An expired token is an error that the SDK can mend; an invalid one is the end."""
    async with raw(server) as socket:
        await socket.send({"id": 1, "connect": {"token": token()}})

        if isinstance(outcome, int):
            reply = await socket.receive()
            assert reply["error"]["code"] == outcome
        else:
            assert await socket.closed() == outcome


async def test_failed_connect_makes_the_connection_unusable(server: Server) -> None:
    """Commands after a connect that failed, in the same frame, are not executed."""
    async with raw(server) as socket:
        await socket.send(
            {"id": 1, "connect": {"token": make_token("7", lifetime=-60)}},
            {"id": 2, "subscribe": {"channel": "a"}},
        )

        assert (await socket.receive())["error"]["code"] == 109
        with contextlib.suppress(TimeoutError, websockets.ConnectionClosed):
            reply = await socket.receive(seconds=0.5)
            pytest.fail(f"answered {reply}")


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ({"channel": "$other"}, (3500, "invalid token")),
        ({"channel": "$p", "exp": 1}, 109),
        ({"channel": "$p", "sub": "someone else"}, (3500, "invalid token")),
        ({"channel": "$p", "exp": 4_000_000_000}, None),
    ],
    ids=["other channel", "expired", "other user", "good"],
)
async def test_subscribe_with_a_token(
    server: Server, claims: Mapping[str, Any], outcome: Any
) -> None:
    """A subscription token must be of this channel and user; expired is an error."""
    token = make_token("7", **claims)
    async with raw(server) as socket:
        await socket.connect(token=make_token("7"))

        await socket.send({"id": 2, "subscribe": {"channel": "$p", "token": token}})

        if isinstance(outcome, tuple):
            assert await socket.closed() == outcome
            return
        reply = await socket.receive()
        if outcome is None:
            assert reply["subscribe"]["expires"] is True
            assert reply["subscribe"]["ttl"] > 1000
        else:
            assert reply["error"]["code"] == outcome


async def test_origin_that_is_not_allowed_is_refused_before_the_upgrade(server: Server) -> None:
    """A foreign origin gets 403, an allowed one and none at all are let in."""
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with raw(server, origin="http://evil.example"):
            pass
    assert refusal.value.response.status_code == 403

    async with raw(server, origin="http://app.example") as socket:
        assert "client" in await socket.connect()


@pytest.mark.parametrize("path", ["/connection/websocket/", "/connection/nothing", "/"])
async def test_unknown_path_is_not_upgraded(server: Server, path: str) -> None:
    """WebSockets are taken on the exact path only."""
    address = f"ws://127.0.0.1:{server.port}{path}"
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with websockets.connect(address, proxy=None):
            pass

    assert refusal.value.response.status_code in {403, 404}


# --- the same on Protobuf ------------------------------------------------------------------------


def _frame(*messages: Any) -> bytes:
    """Join messages as the protocol has them: each behind its length."""
    result = b""
    for message in messages:
        body = message if isinstance(message, bytes) else message.SerializeToString()
        length = len(body)
        while length > 127:
            result += bytes([length & 127 | 128])
            length >>= 7
        result += bytes([length]) + body
    return result


def _read(frame: bytes) -> list[client_pb2.Reply]:
    """Take a frame apart again."""
    replies = []
    while frame:
        length = shift = 0
        while True:
            byte, frame = frame[0], frame[1:]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        replies.append(client_pb2.Reply.FromString(frame[:length]))
        frame = frame[length:]
    return replies


@contextlib.asynccontextmanager
async def _protobuf(server: Server, *, connect: bool = True) -> Any:
    async with websockets.connect(
        server.websocket_url + "?format=protobuf", proxy=None, ping_interval=None
    ) as socket:
        if connect:
            await socket.send(bytes.fromhex("0408012200"))
            (reply,) = _read(await socket.recv())
            assert reply.id == 1
            assert reply.HasField("connect")
        yield socket


async def _close(socket: websockets.ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(30):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code, socket.close_reason


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("07 08 02 2a 03 0a 01 61", "04 08 02 32 00"),
        (
            "07 08 02 2a 03 0a 01 61 07 08 02 2a 03 0a 01 61",
            "04 08 02 32 00 1a 08 02 12 16 08 69 12 12" + b"already subscribed".hex(),
        ),
    ],
    ids=["subscribe", "subscribe twice"],
)
async def test_protobuf_vectors(server: Server, sent: str, answered: str) -> None:
    """Frames recorded from the reference are answered byte for byte."""
    async with _protobuf(server) as socket:
        await socket.send(bytes.fromhex(sent))
        received = b""
        while len(received) < len(bytes.fromhex(answered)):
            received += await asyncio.wait_for(socket.recv(), 30)

    assert received == bytes.fromhex(answered)


@pytest.mark.parametrize(
    "frame",
    [
        "07 08 01 2a 03 0a 01 61",  # subscribe
        "00",  # pong
        "02 22 00",  # connect without an id
        "",
        "05 08 01",  # truncated
        "02 ff ff",  # no message
        "ff ff ff ff ff ff ff ff ff ff 01",  # a length without an end
    ],
)
async def test_protobuf_first_frame_must_connect(server: Server, frame: str) -> None:
    """What comes before a connect, or is no command, closes with 3501."""
    async with _protobuf(server, connect=False) as socket:
        await socket.send(bytes.fromhex(frame))

        assert await _close(socket) == BAD_REQUEST


Command = client_pb2.Command


@pytest.mark.parametrize(
    ("command", "close"),
    [
        (Command(id=2, connect=client_pb2.ConnectRequest()), BAD_REQUEST),
        (Command(), BAD_REQUEST),
        (Command(id=2), BAD_REQUEST),
        (Command(id=2, ping=client_pb2.PingRequest()), BAD_REQUEST),
        (Command(send=client_pb2.SendRequest()), (3508, "not available")),
        (Command(id=2, subscribe=client_pb2.SubscribeRequest()), BAD_REQUEST),
        (Command(id=2, refresh=client_pb2.RefreshRequest()), BAD_REQUEST),
        (Command(id=2, refresh=client_pb2.RefreshRequest(token="x")), (3500, "invalid token")),
        (
            Command(id=2, subscribe=client_pb2.SubscribeRequest(channel="a", delta="xx")),
            BAD_REQUEST,
        ),
    ],
)
async def test_protobuf_command_that_ends_the_connection(
    server: Server, command: client_pb2.Command, close: tuple[int, str]
) -> None:
    """After an anonymous connect these commands close with this code and reason."""
    async with _protobuf(server) as socket:
        await socket.send(_frame(command))

        assert await _close(socket) == close


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Command(id=2, rpc=client_pb2.RPCRequest(method="x")), 108),
        (Command(id=2, subscribe=client_pb2.SubscribeRequest(channel="a" * 256)), 107),
        (Command(id=2, subscribe=client_pb2.SubscribeRequest(channel="\xe9")), 107),
        (Command(id=2, subscribe=client_pb2.SubscribeRequest(channel="nope:a")), 102),
        (Command(id=2, subscribe=client_pb2.SubscribeRequest(channel="$priv")), 103),
        (Command(id=2, presence=client_pb2.PresenceRequest(channel="hist:a")), 108),
        (Command(id=2, history=client_pb2.HistoryRequest(channel="room:a")), 108),
        (
            Command(id=2, sub_refresh=client_pb2.SubRefreshRequest(channel="a", token="x")),
            103,
        ),
        (
            Command(
                id=2,
                subscribe=client_pb2.SubscribeRequest(
                    channel="a", tf=client_pb2.FilterNode(op="what")
                ),
            ),
            107,
        ),
    ],
)
async def test_protobuf_command_that_is_refused(
    server: Server, command: client_pb2.Command, code: int
) -> None:
    """After an anonymous connect these commands get this error, and the connection goes on."""
    unsubscribe = Command(id=3, unsubscribe=client_pb2.UnsubscribeRequest(channel="zzz"))
    async with _protobuf(server) as socket:
        await socket.send(_frame(command, unsubscribe))
        replies: list[client_pb2.Reply] = []
        while len(replies) < 2:
            replies += _read(await asyncio.wait_for(socket.recv(), 30))

    assert (replies[0].id, replies[0].error.code) == (2, code)
    assert replies[0].error.message
    assert replies[1].id == 3
    assert replies[1].HasField("unsubscribe")


async def test_protobuf_client_gets_any_bytes(server: Server) -> None:
    """A binary publication arrives as it is, and JSON as its text."""
    channel = f"probe{next(_names)}"
    async with _protobuf(server) as socket:
        await socket.send(
            _frame(Command(id=2, subscribe=client_pb2.SubscribeRequest(channel=channel)))
        )
        await socket.recv()

        await asyncio.to_thread(server.call, "publish", channel=channel, b64data="/wD+")
        (first,) = _read(await asyncio.wait_for(socket.recv(), 30))
        await asyncio.to_thread(server.publish, channel, {"a": 1})
        (second,) = _read(await asyncio.wait_for(socket.recv(), 30))

    assert first.push.channel == channel
    assert first.push.pub.data == b"\xff\x00\xfe"
    assert json.loads(second.push.pub.data) == {"a": 1}


# --- pings, expiry, limits: servers of their own -------------------------------------------------


async def test_client_that_sends_no_pong_is_closed(
    make_server: Callable[[Mapping[str, str]], Server],
) -> None:
    """A ping comes each interval; without a pong the close is 3012, with one it goes on."""
    server = await asyncio.to_thread(
        make_server,
        {"TIDEWIRE_CLIENT_PING_INTERVAL": "1s", "TIDEWIRE_CLIENT_PONG_TIMEOUT": "0.5s"},
    )
    async with raw(server) as silent, raw(server) as answering:
        assert (await silent.connect())["ping"] == 1
        await answering.connect()

        for _ in range(3):
            assert await answering.receive() == {}
            await answering.send("{}")

        assert await silent.closed() == (3012, "no pong")
        reply = await answering.ask({"id": 2, "unsubscribe": {"channel": "a"}})
        assert reply == {"id": 2, "unsubscribe": {}}


async def test_client_that_does_not_connect_is_stale(
    make_server: Callable[[Mapping[str, str]], Server],
) -> None:
    """Who sends no connect in time is closed with 3502."""
    server = await asyncio.to_thread(make_server, {"TIDEWIRE_CLIENT_STALE_CLOSE_DELAY": "0.5s"})
    async with raw(server) as socket:
        assert await socket.closed() == (3502, "stale")


async def test_connection_without_credentials_is_refused(
    make_server: Callable[[Mapping[str, str]], Server],
) -> None:
    """Where anonymous clients are not allowed, a connect without a token closes with 3501."""
    server = await asyncio.to_thread(
        make_server, {"TIDEWIRE_CLIENT_ALLOW_ANONYMOUS_CONNECT_WITHOUT_TOKEN": "false"}
    )
    async with raw(server) as anonymous, raw(server) as known:
        await anonymous.send({"id": 1, "connect": {}})

        assert await anonymous.closed() == BAD_REQUEST
        assert "client" in await known.connect(token=make_token("7"))


async def test_connection_that_is_not_refreshed_expires(
    make_server: Callable[[Mapping[str, str]], Server],
) -> None:
    """A token's end closes with 3005 after the grace; one who refreshes stays."""
    server = await asyncio.to_thread(make_server, {"TIDEWIRE_CLIENT_EXPIRED_CLOSE_DELAY": "0.5s"})
    async with raw(server) as idle, raw(server) as diligent:
        for socket in (idle, diligent):
            result = await socket.connect(token=make_token("7", lifetime=2))
            assert result["expires"] is True
            assert result["ttl"] in {1, 2}
        reply = await diligent.ask({"id": 2, "refresh": {"token": make_token("7", lifetime=600)}})
        assert reply["refresh"]["ttl"] > 500

        assert await idle.closed() == (3005, "connection expired")
        reply = await diligent.ask({"id": 3, "unsubscribe": {"channel": "a"}})
        assert reply == {"id": 3, "unsubscribe": {}}


async def test_channel_limit(make_server: Callable[[Mapping[str, str]], Server]) -> None:
    """More client-side subscriptions than allowed are error 106, server-side ones close with 3505."""
    server = await asyncio.to_thread(make_server, {"TIDEWIRE_CLIENT_CHANNEL_LIMIT": "2"})
    async with raw(server) as socket:
        await socket.connect()
        for number, channel in enumerate(["a", "b"], start=2):
            assert "subscribe" in await socket.ask(
                {"id": number, "subscribe": {"channel": channel}}
            )

        assert await socket.ask({"id": 4, "subscribe": {"channel": "c"}}) == _error(
            4, 106, "limit exceeded"
        )
    async with raw(server) as socket:
        await socket.send(
            {"id": 1, "connect": {"token": make_token("7", channels=["a", "b", "c"])}}
        )
        assert await socket.closed() == (3505, "channel limit")
