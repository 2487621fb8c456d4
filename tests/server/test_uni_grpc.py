"""Unidirectional sessions over gRPC, by a real channel to a port of the test's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
import pytest
from msgspec import Raw

from project.listeners import make_listeners
from realtime import commands
from realtime.client.unidirectional import UnidirectionalClient
from realtime.conf.options import ProcessOptions, TLSOptions
from realtime.consumers import uni_grpc
from realtime.consumers.uni_grpc import CORE_OPTIONS, UniStreamService
from realtime.engines.base import PublishOptions
from realtime.node.node import Node
from realtime.protocol import unistream_pb2
from realtime.protocol.api_messages import (
    DisconnectRequest,
    PublishRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from realtime.protocol.messages import Publication
from realtime.servers.grpc_listener import GRPCListener, GRPCSettings
from tests.server.api_world import EPOCH, World, make_options, open_world


CONSUME = "/centrifugal.centrifugo.unistream.CentrifugoUniStream/Consume"


def listening_options(**client: Any) -> ProcessOptions:
    """Let everybody in, to every channel."""
    options = make_options()
    changed = msgspec.structs.replace(options.client, **{"insecure": True, **client})
    return msgspec.structs.replace(options, client=changed)


@asynccontextmanager
async def listening(world: World) -> AsyncIterator[grpc.aio.Channel]:
    """Serve the world's unidirectional clients, and open a channel to the port."""
    settings = GRPCSettings("uni_grpc", "127.0.0.1", 0, tls=TLSOptions, core=CORE_OPTIONS)
    listener = GRPCListener(settings, UniStreamService(lambda: world.node))
    await listener.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
            yield channel
    finally:
        await listener.stop(1)


def consume(channel: grpc.aio.Channel, **request: Any) -> Any:
    """Begin a stream by the classes that the Protobuf library made of the schema."""
    call = channel.unary_stream(
        CONSUME,
        request_serializer=unistream_pb2.ConnectRequest.SerializeToString,
        response_deserializer=unistream_pb2.Push.FromString,
    )
    return call(unistream_pb2.ConnectRequest(**request), timeout=30)


async def next_of(stream: Any) -> unistream_pb2.Push:
    """Read one push."""
    push = await asyncio.wait_for(stream.read(), 30)
    assert push is not grpc.aio.EOF
    return push


def kind_of(push: unistream_pb2.Push) -> list[str]:
    """Name what a push has."""
    return [field.name for field, _ in push.ListFields()]


async def until(is_so: Any) -> None:
    """Wait for a state that nothing reports."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 -- nothing there to wait for
            await asyncio.sleep(0.01)


def only_client(node: Node) -> UnidirectionalClient:
    """Return the one connection."""
    (client,) = node.connections
    assert isinstance(client, UnidirectionalClient)
    return client


async def test_a_client_is_told_that_it_is_in_and_gets_what_is_published() -> None:
    """The connect push comes first, then publications; payloads are any bytes."""
    data = bytes(range(256))
    async with open_world(listening_options()) as world, listening(world) as channel:
        stream = consume(channel, name="test", subs={"hist:a": {}, "binary:b": {}})
        connect = (await next_of(stream)).connect
        await commands.publish(world.node, PublishRequest(channel="hist:a", data=Raw(b"1")))
        first = await next_of(stream)
        publication = Publication(data=Raw(data), tags={"a": "b"})
        binary = world.node.table.resolve("binary:b")
        await world.node.publish(binary, publication, PublishOptions())

        second = await next_of(stream)
        stream.cancel()

    assert (connect.version, connect.ping, connect.pong, connect.node) == ("1.2.3", 25, False, "")
    assert connect.client
    assert connect.session
    assert set(connect.subs) == {"hist:a", "binary:b"}
    assert (first.channel, first.pub.data, first.pub.offset) == ("hist:a", b"1", 1)
    assert (second.channel, second.pub.data) == ("binary:b", data)
    assert dict(second.pub.tags) == {"a": "b"}


async def test_a_burst_arrives_whole_and_in_order() -> None:
    """Publications of one tick are joined for the transport; here each is a message."""
    async with open_world(listening_options()) as world, listening(world) as channel:
        stream = consume(channel, subs={"a": {}})
        await next_of(stream)
        for number in range(500):
            request = PublishRequest(channel="a", data=Raw(b"%d" % number))
            await commands.publish(world.node, request)

        received = [(await next_of(stream)).pub.data for _ in range(500)]
        stream.cancel()

    assert received == [b"%d" % number for number in range(500)]


async def test_what_was_missed_is_recovered() -> None:
    """``subs`` say where the client stopped; what came since is in the connect push."""
    async with open_world(listening_options()) as world, listening(world) as channel:
        for number in (1, 2, 3):
            request = PublishRequest(channel="kept:a", data=Raw(b"%d" % number))
            await commands.publish(world.node, request)
        since = {"recover": True, "offset": 1, "epoch": EPOCH}

        connect = (await next_of(consume(channel, subs={"kept:a": since}))).connect

    result = connect.subs["kept:a"]
    assert (result.was_recovering, result.recovered) == (True, True)
    assert [pub.data for pub in result.publications] == [b"2", b"3"]


async def test_the_server_api_acts_on_the_connection() -> None:
    """Subscribe, unsubscribe and disconnect are pushes; after the last one the call has ended well."""
    async with open_world(listening_options()) as world, listening(world) as channel:
        stream = consume(channel)
        await next_of(stream)
        request = SubscribeRequest(channel="b", user="", data=Raw(b"1"))
        await commands.subscribe(world.node, request)
        subscribed = await next_of(stream)
        await commands.unsubscribe(world.node, UnsubscribeRequest(channel="b", user=""))
        unsubscribed = await next_of(stream)
        await commands.disconnect(world.node, DisconnectRequest(user=""))
        ended = await next_of(stream)
        code = await stream.code()

    assert (subscribed.channel, kind_of(subscribed)) == ("b", ["channel", "subscribe"])
    assert (unsubscribed.channel, unsubscribed.unsubscribe.code) == ("b", 2000)
    assert kind_of(ended) == ["disconnect"]
    assert (ended.disconnect.code, ended.disconnect.reason) == (3503, "force disconnect")
    assert code is grpc.StatusCode.OK


async def test_a_ping_is_a_push_with_nothing() -> None:
    """It is what keeps the stream's reader sure of its server; no pong is due."""
    async with open_world(listening_options()) as world, listening(world) as channel:
        stream = consume(channel)
        await next_of(stream)
        client = only_client(world.node)

        client.ping()

        assert kind_of(await next_of(stream)) == []
        assert not client.session.is_pong_due
        stream.cancel()


async def test_a_refused_connect_is_a_disconnect_and_a_good_end() -> None:
    """The first push is the last one."""
    async with (
        open_world(listening_options(insecure=False)) as world,
        listening(world) as channel,
    ):
        stream = consume(channel, token="no token at all")

        push = await next_of(stream)

        assert kind_of(push) == ["disconnect"]
        assert (push.disconnect.code, push.disconnect.reason) == (3500, "invalid token")
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        assert not world.node.connections


async def test_bytes_that_are_no_request_are_an_internal_error() -> None:
    """As with Go's server, before there is a connection."""
    async with open_world(listening_options()) as world, listening(world) as channel:
        stream = channel.unary_stream(CONSUME)(b"\x0a")

        assert await stream.code() is grpc.StatusCode.INTERNAL


async def test_the_limit_of_connections_holds() -> None:
    """One that is too many is told to come another time."""
    async with (
        open_world(listening_options(connection_limit=1)) as world,
        listening(world) as channel,
    ):
        stream = consume(channel)
        await next_of(stream)

        assert await consume(channel).code() is grpc.StatusCode.UNAVAILABLE
        stream.cancel()


async def test_a_client_that_leaves_is_noticed() -> None:
    """Its connection ends, and so do its subscriptions."""
    async with open_world(listening_options()) as world, listening(world) as channel:
        stream = consume(channel, subs={"a": {}})
        await next_of(stream)
        assert await world.node.survey_channels() == {"a": 1}

        stream.cancel()

        await until(lambda: not world.node.connections)
        assert await world.node.survey_channels() == {}


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the server ended connections."""
    codes: list[int] = []
    disconnect = UnidirectionalClient.disconnect

    def note(client: UnidirectionalClient, code: int, reason: str) -> None:
        if not client.is_closed:
            codes.append(code)
        disconnect(client, code, reason)

    monkeypatch.setattr(UnidirectionalClient, "disconnect", note)
    return codes


async def test_a_reader_that_stops_is_disconnected(
    ended: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is sent waits for gRPC's window; the call ends once the reader reads on, or leaves, which is no error."""
    monkeypatch.setattr(uni_grpc, "WRITE_TIMEOUT", 0.2)
    request = PublishRequest(channel="a", data=Raw(b"x" * 60_000))
    async with (
        open_world(listening_options(queue_max_size=1 << 30)) as world,
        listening(world) as channel,
    ):
        stream, leaver = consume(channel, subs={"a": {}}), consume(channel, subs={"a": {}})
        await next_of(stream)
        await next_of(leaver)

        while world.node.connections:
            await commands.publish(world.node, request)
            await asyncio.sleep(0.01)

        leaver.cancel()
        while await stream.read() is not grpc.aio.EOF:
            continue
        assert await stream.code() is grpc.StatusCode.OK

    assert ended == [3009, 3009]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_reader_whose_queue_is_full_is_disconnected(ended: list[int]) -> None:
    """3008, and nothing that waited is sent after it."""
    async with (
        open_world(listening_options(queue_max_size=100_000)) as world,
        listening(world) as channel,
    ):
        stream = consume(channel, subs={"a": {}})
        await next_of(stream)
        request = PublishRequest(channel="a", data=Raw(b"x" * 60_000))

        for _ in range(3):
            await commands.publish(world.node, request)
            world.node.hub.flush()

        await until(lambda: not world.node.connections)
        last = None
        while (push := await stream.read()) is not grpc.aio.EOF:
            last = push

    assert ended == [3008]
    assert last is not None
    assert (last.disconnect.code, last.disconnect.reason) == (3008, "slow")


async def test_a_drain_sends_clients_away_and_the_port_closes() -> None:
    """Everybody hears 3001, and the calls end by themselves."""
    async with open_world(listening_options()) as world, listening(world) as channel:
        streams = [consume(channel) for _ in range(5)]
        for stream in streams:
            await next_of(stream)

        await world.node.drain(0)

        for stream in streams:
            assert (await next_of(stream)).disconnect.code == 3001
            assert await stream.code() is grpc.StatusCode.OK


def test_the_port_is_made_of_the_options() -> None:
    """Each section that is enabled has a listener, in the order in which they start."""
    options = ProcessOptions()
    both = msgspec.structs.replace(
        options,
        grpc_api=msgspec.structs.replace(options.grpc_api, enabled=True),
        uni_grpc=msgspec.structs.replace(options.uni_grpc, enabled=True),
    )

    made: list[Any] = make_listeners(both)

    assert make_listeners(options) == []
    assert [(each._settings.section, each._settings.port) for each in made] == [
        ("grpc_api", 10000),
        ("uni_grpc", 11000),
    ]
