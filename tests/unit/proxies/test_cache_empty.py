"""Telling the application of empty caches, over HTTP and in this process."""

from __future__ import annotations

import json

import pytest

import realtime
from realtime.conf.options import ProxyOptions
from realtime.protocol.errors import ClientError, ProxyError


@pytest.mark.parametrize(
    ("answer", "is_filled"),
    [
        ({"result": {"populated": True}}, True),
        ({"result": {"populated": False}}, False),
        ({"result": {"populated": None}}, False),
        ({"result": {}}, False),
        ({"result": None}, False),
        ({}, False),
    ],
)
async def test_an_answer_says_whether_there_is_a_publication(registry, backend, answer, is_filled):
    """The request has the channel and nothing else."""

    async def reply(exchange):
        exchange.answer(answer)

    backend.reply = reply
    registry.take({"cache_empty": ProxyOptions(endpoint=backend.url)}, {})

    assert await registry.find_cache_empty("default").tell("docs:a") is is_filled

    assert json.loads(backend.requests[0].body) == {"channel": "docs:a"}


@pytest.mark.parametrize(
    "answer", [{"result": {"populated": 1}}, {"error": {"code": 500, "message": "no"}}, []]
)
async def test_anything_else_is_a_failure(registry, backend, answer):
    """An error too: the subscriber can't be told that there is nothing."""

    async def reply(exchange):
        exchange.answer(answer)

    backend.reply = reply
    registry.take({}, {"docs": ProxyOptions(endpoint=backend.url)})

    with pytest.raises(ProxyError):
        await registry.find_cache_empty("docs").tell("docs:a")


@pytest.mark.parametrize(
    ("returned", "is_filled"),
    [
        (True, True),
        (False, False),
        (None, False),
        ({"populated": True}, True),
        (realtime.CacheEmptyResult(populated=True), True),
    ],
)
async def test_a_handler_may_answer_in_several_forms(registry, returned, is_filled):
    """Registered under a name, or without one as the default."""

    @realtime.on_cache_empty("docs")
    async def fill(request):
        assert request == realtime.CacheEmptyRequest("docs:a")
        return returned

    assert await registry.find_cache_empty("docs").tell("docs:a") is is_filled
    assert registry.find_cache_empty("default") is None
    assert registry.find_shared_poll("docs") is None


@pytest.mark.parametrize("returned", ["yes", 1, {"populated": "yes"}, ["docs"]])
async def test_a_handlers_answer_of_another_form_is_a_failure(registry, returned):
    """``1`` is no bool, in Python nor in JSON."""

    @realtime.on_cache_empty
    def fill(request):
        return returned

    with pytest.raises(ProxyError):
        await registry.find_cache_empty("default").tell("docs:a")


async def test_a_handler_that_refuses_is_a_failure(registry):
    """Whatever the code."""

    @realtime.on_cache_empty
    def fill(request):
        raise ClientError(404, "unknown document")

    with pytest.raises(ProxyError, match="unknown document"):
        await registry.find_cache_empty("default").tell("docs:a")
