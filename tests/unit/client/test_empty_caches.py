"""Cache recovery of channels without a publication: the application is told, and may publish one."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from realtime.engines.base import HistoryFilter, PublishOptions
from realtime.protocol.errors import ProxyError
from realtime.protocol.messages import Publication


HISTORY = PublishOptions(history_size=5, history_ttl=60, history_meta_ttl=600)


class Application:
    """Is told of channels, and does with each what ``fill`` does."""

    def __init__(self, node, fill):
        self.told = []
        self.names = []
        self.gate = asyncio.Event()
        self._fill = fill
        node.empty_caches.find_backend = self.find

    def find(self, name):
        self.names.append(name)
        return self

    async def tell(self, channel):
        self.told.append(channel)
        await self.gate.wait()
        return await self._fill(channel)


@pytest.fixture
def publish(node):
    async def publish(channel, data=b'"filled"', tags=None):
        publication = Publication(data=Raw(data), tags=tags)
        await node.publish(node.table.resolve(channel), publication, HISTORY)
        return True

    return publish


async def replies(*connections):
    """Let the subscribes end; return the reply of each."""
    for _ in range(10):
        await asyncio.sleep(0)
    return [connection.received()[0] for connection in connections]


def data_of(answer):
    return [publication["data"] for publication in answer["subscribe"]["publications"]]


SUBSCRIBE = {"id": 2, "subscribe": {"channel": "filled:a"}}


async def test_what_the_application_publishes_is_the_answer(node, connect, publish):
    """It is told once of all who wait, and by the name that the namespace has."""
    application = Application(node, publish)
    one, two = connect(), connect()
    assert one.send(SUBSCRIBE) == two.send(SUBSCRIBE) == []

    application.gate.set()
    answers = await replies(one, two)

    assert (application.told, application.names) == (["filled:a"], ["docs"])
    for answer in answers:
        assert answer["subscribe"]["recovered"] is True
        assert data_of(answer) == ["filled"]
        assert "offset" not in answer["subscribe"]  # what was asked for

    await publish("filled:a", b"2")
    for connection in (one, two):
        (push,) = connection.received()
        assert push["push"]["pub"] == {"data": 2, "offset": 2}


async def test_one_who_goes_away_takes_nothing_from_the_others(node, connect, publish):
    """The call goes on for them."""
    application = Application(node, publish)
    one, two = connect(), connect()
    one.send(SUBSCRIBE)
    two.send(SUBSCRIBE)
    await asyncio.sleep(0)

    one.client.on_close()
    await asyncio.sleep(0)
    application.gate.set()
    (answer,) = await replies(two)

    assert answer["subscribe"]["recovered"] is True
    assert application.told == ["filled:a"]


async def test_an_application_that_has_nothing_changes_nothing(node, connect):
    """Then it is as if nobody had been told, and the next one is told again."""

    async def nothing(channel):
        return False

    application = Application(node, nothing)
    application.gate.set()
    for count in (1, 2):
        connection = connect()
        connection.send(SUBSCRIBE)
        (answer,) = await replies(connection)
        assert "recovered" not in answer["subscribe"]
        assert "publications" not in answer["subscribe"]
        assert len(application.told) == count


async def test_a_failure_fails_the_subscribe(node, connect, caplog):
    """With the error that SDKs try again after; the log has the reason."""

    async def fail(channel):
        raise ProxyError("no answer within 1s")

    application = Application(node, fail)
    application.gate.set()
    connection = connect()
    connection.send(SUBSCRIBE)
    (answer,) = await replies(connection)

    assert answer["error"]["code"] == 100
    assert "no answer within 1s" in caplog.text
    assert "filled:a" not in connection.client.session.subscriptions


async def test_without_a_proxy_the_subscribe_fails(node, connect, caplog):
    """It was taken away since."""
    connection = connect()
    connection.send(SUBSCRIBE)
    (answer,) = await replies(connection)

    assert answer["error"]["code"] == 100
    assert "there is no proxy 'docs'" in caplog.text


async def test_a_cache_with_a_publication_is_none_of_the_applications_business(
    node, connect, publish
):
    """Nor one where the subscriber is at the top, once it holds something."""
    application = Application(node, publish)
    await publish("filled:a", b"1")

    (answer,) = connect().send(SUBSCRIBE)

    assert data_of(answer) == [1]
    assert application.told == []


async def test_a_filter_that_nothing_passes_finds_an_empty_cache(node, connect, publish):
    """What is published then passes or not."""

    async def fill(channel):
        return await publish(channel, b'"mine"', {"for": "me"})

    application = Application(node, fill)
    application.gate.set()
    await publish("filled:a", b'"other"', {"for": "you"})
    connection = connect()
    wanted = {"op": "", "key": "for", "cmp": "eq", "val": "me"}
    connection.send({"id": 2, "subscribe": {"channel": "filled:a", "tf": wanted}})
    (answer,) = await replies(connection)

    assert application.told == ["filled:a"]
    (publication,) = answer["subscribe"]["publications"]
    assert (publication["data"], publication["offset"]) == ("mine", 2)


async def test_who_is_at_the_top_gets_what_is_published_as_what_comes_next(node, connect, publish):
    """Its position is recovered, although nothing is left of the stream."""
    application = Application(node, publish)
    channel = node.table.resolve("filled:a")
    await publish("filled:a", b"1")
    top = (await node.history(channel, HistoryFilter())).top
    await node.remove_history(channel)
    connection = connect()
    asked = {"channel": "filled:a", "recover": True, "offset": 1, "epoch": top.epoch}
    assert connection.send({"id": 2, "subscribe": asked}) == []

    application.gate.set()
    (answer,) = await replies(connection)

    assert answer["subscribe"]["recovered"] is True
    assert answer["subscribe"]["publications"] == [{"data": "filled", "offset": 2}]
