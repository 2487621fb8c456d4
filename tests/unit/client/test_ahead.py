"""Publishes of one connection that are on their way together, over a broker that answers when it is told to."""

from __future__ import annotations

import asyncio

import pytest

from realtime.client.ahead import MOST, MOST_BYTES
from realtime.protocol.errors import EngineError


class Waiting:
    """What a broker was asked to publish and has not answered; the rest is the memory engine's."""

    def __init__(self, broker):
        self.publications = []
        self.answers = []
        self.has_room = True
        broker.is_remote = True
        broker.publish_ahead = self.publish_ahead

    def publish_ahead(self, channel, publication, options, answer):
        if self.has_room:
            self.publications.append((channel, bytes(publication.data)))
            self.answers.append(answer)
        return self.has_room

    def answer(self, *numbers):
        for number in numbers or range(len(self.answers)):
            self.answers[number].settle(0)


@pytest.fixture
def waiting(node):
    return Waiting(node.broker)


def publish(number, channel="a", **request):
    return {"id": number, "publish": {"channel": channel, "data": number, **request}}


async def received(connection):
    """Return what was written when all that is due has been."""
    for _ in range(3):
        await asyncio.sleep(0)
    return connection.received()


async def test_publishes_do_not_wait_for_each_other(connect, waiting):
    """Neither those of one frame nor those of the next, and each is sent once and in its turn."""
    connection = connect()

    connection.send(publish(2), publish(3, "b"))
    connection.send(publish(4))

    assert waiting.publications == [("a", b"2"), ("b", b"3"), ("a", b"4")]
    assert await received(connection) == []


async def test_replies_keep_the_order_of_the_commands_and_share_a_write(connect, waiting):
    """Whatever the order in which the broker answers."""
    connection = connect()
    connection.send(publish(2), publish(3), publish(4))

    waiting.answer(1)
    early = await received(connection)
    waiting.answer(2, 0)
    await asyncio.sleep(0)
    writes = len(connection.transport.written)

    assert early == []
    assert writes == 1
    assert [reply["id"] for reply in await received(connection)] == [2, 3, 4]


async def test_another_command_waits_for_all_publishes_before_it(connect, waiting):
    """And those behind it for the command."""
    connection = connect()
    connection.send(publish(2), {"id": 3, "history": {"channel": "hist:a"}}, publish(4))
    connection.send(publish(5))
    assert not connection.transport.is_reading

    waiting.answer(0)
    replies = await received(connection)

    assert [reply["id"] for reply in replies] == [2, 3]
    assert [data for _, data in waiting.publications] == [b"2", b"4", b"5"]
    assert connection.transport.is_reading


async def test_a_failure_concerns_its_own_publish(connect, waiting):
    connection = connect()
    connection.send(publish(2), publish(3))

    waiting.answers[0].fail(EngineError("gone"))
    waiting.answer(1)

    assert await received(connection) == [
        {"id": 2, "error": {"code": 100, "message": "internal server error", "temporary": True}},
        {"id": 3, "publish": {}},
    ]


async def test_a_refusal_is_told_in_its_turn(connect, waiting):
    connection = connect()
    connection.send(publish(2), publish(3, "closed:a"), publish(4))

    waiting.answer(0)
    replies = await received(connection)

    assert [(reply["id"], "error" in reply) for reply in replies] == [(2, False), (3, True)]
    assert [data for _, data in waiting.publications] == [b"2", b"4"]


async def test_a_broker_that_is_away_refuses_a_publish(connect, waiting, node):
    connection = connect()
    connection.send(publish(2))

    def away(*_):
        raise EngineError("away")

    node.broker.publish_ahead = away
    connection.send(publish(3))
    waiting.answer(0)

    replies = await received(connection)
    assert [(reply["id"], "error" in reply) for reply in replies] == [(2, False), (3, True)]


async def test_no_more_than_some_are_on_their_way(connect, waiting):
    """The next begin when all have ended; the connection isn't read from meanwhile."""
    connection = connect()
    for number in range(MOST + 2):
        connection.send(publish(number + 2))
    assert len(waiting.answers) == MOST
    assert not connection.transport.is_reading

    waiting.answer()
    await received(connection)

    assert len(waiting.answers) == MOST + 2
    assert connection.transport.is_reading


@pytest.mark.parametrize(
    "request_of",
    [
        {"channel": "hist:a", "data": 3},
        {"channel": "a", "data": "x" * (MOST_BYTES + 1)},
    ],
    ids=["with history", "large"],
)
async def test_some_publishes_wait_for_those_before_and_are_waited_for(
    connect, waiting, request_of
):
    """A stream's and a large one: the first can be overtaken, the second takes the room of many."""
    connection = connect()
    connection.send({"id": 2, "subscribe": {"channel": request_of["channel"]}})
    connection.send(publish(3), {"id": 4, "publish": request_of}, publish(5))
    assert len(waiting.publications) == 1

    waiting.answer(0)
    replies = await received(connection)

    assert [reply["id"] for reply in replies if reply.get("id")] == [3, 4]
    assert [data for _, data in waiting.publications] == [b"3", b"5"]


async def test_a_broker_without_room_is_waited_for(connect, waiting):
    connection = connect()
    connection.send(publish(2))

    waiting.has_room = False
    connection.send(publish(3))
    before = await received(connection)
    waiting.answer()

    assert before == []
    assert [reply["id"] for reply in await received(connection)] == [2, 3]


async def test_a_bad_frame_ends_the_connection_behind_the_replies_before(connect, waiting):
    connection = connect()
    connection.send(publish(2))
    connection.send_raw(b"{")
    assert connection.closed is None

    waiting.answer()

    assert [reply["id"] for reply in await received(connection)] == [2]
    assert connection.closed == (3501, "bad request")


async def test_what_is_due_is_written_before_a_disconnect(connect, waiting):
    """Also what would have waited for the loop's next turn."""
    connection = connect()
    connection.send(publish(2), publish(3))

    waiting.answer(0)
    connection.client.disconnect(3000, "over")

    assert [reply["id"] for reply in connection.received()] == [2]


async def test_a_connection_that_is_gone_gets_nothing(connect, waiting):
    """What waits behind its publishes is not carried out; their answers come to nothing."""
    connection = connect()
    connection.send(publish(2), {"id": 3, "subscribe": {"channel": "a"}})
    connection.client.on_close()
    await received(connection)

    waiting.answer()

    assert await received(connection) == []
    assert connection.node.hub.num_channels == 0
