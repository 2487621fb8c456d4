"""``from realtime import publish`` in a serving process: from its threads and from its loop."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync, sync_to_async

import realtime
from realtime import bootstrap, shortcuts
from realtime.conf import schema


@pytest.fixture
def serving(node, monkeypatch):
    """Make this process one that serves."""
    monkeypatch.setattr(bootstrap, "_node", node)
    return node


async def test_a_thread_publishes_through_the_nodes_loop(serving, connect):
    """As a synchronous view does; what it publishes is delivered and its position returned."""
    connection = connect()
    connection.send({"id": 2, "subscribe": {"channel": "hist:a"}})

    result = await sync_to_async(realtime.publish)("hist:a", {"n": 1}, tags={"t": "1"})

    (push,) = connection.received()
    assert push["push"]["pub"]["data"] == {"n": 1}
    assert push["push"]["pub"]["tags"] == {"t": "1"}
    assert result == {"offset": 1, "epoch": result["epoch"]}


async def test_a_coroutine_publishes_directly(serving, connect):
    """As an asynchronous view does."""
    connection = connect()
    connection.send({"id": 2, "subscribe": {"channel": "a"}})

    await realtime.apublish("a", b'{"raw": 1.0}')
    stats = await realtime.achannels("a*")

    assert connection.received()[0]["push"]["pub"]["data"] == {"raw": 1.0}
    assert stats == {"channels": {"a": {"num_clients": 1}}}


async def test_on_the_loop_itself_publish_names_the_other_one(serving):
    """It would wait for itself."""
    with pytest.raises(RuntimeError, match="apublish"):
        realtime.publish("a", 1)


async def test_a_coroutine_of_another_loop_reaches_the_nodes(serving):
    """As ``async_to_sync`` makes in a thread."""
    result = await asyncio.to_thread(async_to_sync(realtime.apublish), "hist:a", 1)

    assert result["offset"] == 1


@pytest.mark.parametrize(
    ("values", "posted"),
    [
        ({}, {"publish", "map_publish", "info"}),
        ({"engine.type": "redis"}, {"map_publish", "info"}),
        ({"map_broker.type": "redis"}, {"publish", "info"}),
        ({"engine.type": "redis", "map_broker.type": "redis"}, {"info"}),
    ],
)
def test_a_process_that_serves_nobody_does_itself_what_goes_by_redis(monkeypatch, values, posted):
    """Publications and maps each by their own option; the rest it asks a server for."""
    options = schema.build(values)
    monkeypatch.setattr(shortcuts, "get_options", lambda: options)

    methods = ("publish", "map_publish", "info")

    assert {method for method in methods if shortcuts._is_posted(method)} == posted


async def test_a_refusal_is_an_api_error(serving):
    """With the code and text of the API."""
    with pytest.raises(realtime.ApiError) as refusal:
        await realtime.apublish("nope:a", 1)

    assert (refusal.value.code, refusal.value.message) == (102, "unknown channel")


async def test_the_rest_of_the_api_is_there_too(serving, connect):
    """Acting on connections, and reading what there is."""
    connection = connect()
    await realtime.asubscribe("", "jl:a", data={"d": 1})
    await realtime.apublish("hist:h", 1)

    presence = await realtime.apresence_stats("jl:a")
    history = await realtime.ahistory("hist:h", limit=-1)
    responses = await realtime.abroadcast(["hist:h", "nope:a"], 2)
    await realtime.ahistory_remove("hist:h")
    await realtime.adisconnect("", code=4500, reason="enough")

    assert presence == {"num_clients": 1, "num_users": 1}
    assert [publication["data"] for publication in history["publications"]] == [1]
    assert responses["responses"][1]["error"]["code"] == 102
    assert connection.closed == (4500, "enough")
