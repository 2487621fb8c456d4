"""``from realtime import publish`` in a serving process: from its threads and from its loop."""

from __future__ import annotations

import asyncio
import contextlib
from unittest import mock

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction

import realtime
from realtime import bootstrap, calling
from realtime.namespaces.options import ChannelOptions, MapOptions
from realtime.namespaces.table import NamespaceTable


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


# --- maps ---------------------------------------------------------------------------------------


@pytest.fixture
def scores(serving):
    """Let this process serve a namespace of maps."""
    options = ChannelOptions(subscription_type="map", map=MapOptions(mode="persistent"))
    serving.table = NamespaceTable(namespaces={"scores": options})
    return serving


async def test_maps_are_written_and_read_from_threads(scores):
    """As a synchronous view does, with everything that a write may ask for."""
    publish = sync_to_async(realtime.map_publish)

    first = await publish("scores:a", "ada", {"n": 1}, tags={"t": "1"}, version=5)
    stale = await publish("scores:a", "ada", {"n": 0}, version=4, version_epoch="")
    empty = await publish("scores:a", "bob", b"", key_mode="if_new", idempotency_key="i")
    again = await publish("scores:a", "bob", 1, idempotency_key="i", delta=True)
    removed = await sync_to_async(realtime.map_remove)("scores:a", "bob")
    page = await sync_to_async(realtime.map_read_state)("scores:a", limit=1)
    changes = await sync_to_async(realtime.map_read_stream)(
        "scores:a", limit=-1, since=(1, first["epoch"])
    )

    epoch = first["epoch"]
    assert first == {"offset": 1, "epoch": epoch}
    assert (stale["offset"], stale["suppress_reason"]) == (1, "version")
    assert empty == {"offset": 2, "epoch": epoch}
    assert (again["suppressed"], again["suppress_reason"]) == (True, "idempotency")
    assert removed == {"offset": 3, "epoch": epoch}
    (entry,) = page["entries"]
    assert (entry["key"], entry["data"], entry["tags"]) == ("ada", {"n": 1}, {"t": "1"})
    assert [(change["key"], change.get("removed")) for change in changes["entries"]] == [
        ("bob", None),
        ("bob", True),
    ]


async def test_maps_are_written_and_read_from_coroutines(scores):
    """As an asynchronous view does."""
    for key in ("ada", "bob", "cleo"):
        await realtime.amap_publish("scores:a", key, {"of": key})
    await realtime.amap_remove("scores:a", "cleo", idempotency_key="i")
    gone = await realtime.amap_remove("scores:a", "cleo")

    first = await realtime.amap_read_state("scores:a", limit=1)
    second = await realtime.amap_read_state(
        "scores:a", limit=1, cursor=first["cursor"], epoch=first["epoch"]
    )
    one = await realtime.amap_read_state("scores:a", key="bob")
    newest = await realtime.amap_read_stream("scores:a", limit=1, reverse=True)
    counted = await realtime.amap_stats("scores:a")
    cleared = await realtime.amap_clear("scores:a")
    with pytest.raises(realtime.ApiError) as refusal:
        await realtime.amap_read_state("scores:a", epoch=first["epoch"])

    assert gone["suppress_reason"] == "key_not_found"
    assert [entry["key"] for entry in first["entries"] + second["entries"]] == ["ada", "bob"]
    assert "cursor" not in second
    assert one["entries"] == second["entries"]
    assert [(entry["key"], entry["removed"]) for entry in newest["entries"]] == [("cleo", True)]
    assert counted == {"num_keys": 2}
    assert cleared == {}
    assert refusal.value.code == 112


async def test_on_the_loop_itself_map_publish_names_the_other_one(scores):
    """It would wait for itself, and so would ``map_remove``."""
    with pytest.raises(RuntimeError, match="await amap_publish"):
        realtime.map_publish("scores:a", "ada", 1)
    with pytest.raises(RuntimeError, match="await amap_remove"):
        realtime.map_remove("scores:a", "ada")


# --- after a commit -----------------------------------------------------------------------------


ON_COMMIT = {
    "publish": (lambda: realtime.publish("a", 1, on_commit=True)),
    "map_publish": (lambda: realtime.map_publish("scores:a", "ada", 1, on_commit=True)),
    "map_remove": (lambda: realtime.map_remove("scores:a", "ada", on_commit=True)),
}


@pytest.fixture
def posted(monkeypatch):
    """Let this process be one that serves nobody; give what it posts to a server."""
    calls = []
    monkeypatch.setattr(bootstrap, "_node", None)
    monkeypatch.setattr(calling, "_is_posted", lambda _method: True)
    monkeypatch.setattr(calling, "_post", lambda method, _request: calls.append(method))
    return calls


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ON_COMMIT)
def test_a_write_waits_for_the_commit(method, posted):
    """What is rolled back is told to nobody."""
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        ON_COMMIT[method]()
        _ = 1 / 0
    with transaction.atomic():
        result = ON_COMMIT[method]()
        before = list(posted)

    assert (result, before, posted) == ({}, [], [method])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ON_COMMIT)
@pytest.mark.parametrize("error", [realtime.ApiError(107, "no"), realtime.EngineError("away")])
def test_a_failure_after_the_commit_is_logged(method, error, posted, monkeypatch, caplog):
    """The data is committed by that time, so there is nobody to raise it to."""
    monkeypatch.setattr(calling, "_post", mock.Mock(side_effect=error))

    with transaction.atomic():
        ON_COMMIT[method]()

    (record,) = caplog.records
    assert (record.message, record.method) == ("not carried out after commit", method)
