"""Handlers in this process: how they are named, what they get and may return, and how they fail."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import types

import pytest
from msgspec import Raw

import realtime
from realtime.conf.options import ProxyOptions
from realtime.handlers import find_handler, handler_names, register_handler, unregister_handler
from realtime.protocol.errors import ClientError, ConfigError, Disconnect, ProxyError
from realtime.proxies.shared_poll import (
    PolledItem,
    PollItem,
    SharedPollRefreshRequest,
    SharedPollRefreshResult,
)


EVENT = "shared_poll_refresh"
REQUEST = SharedPollRefreshRequest("prices:eu", [PollItem("a", 3)])


@pytest.fixture
def module(monkeypatch):
    """A module of the application, ``shop.realtime``, to put handlers into."""
    made = types.ModuleType("shop.realtime")
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.realtime", made)
    return made


def named(registry, endpoint):
    """Configure a proxy ``prices`` and return it."""
    registry.take({}, {"prices": ProxyOptions(endpoint=endpoint)})
    return registry.find_shared_poll("prices")


async def ask(registry, handler, name="default", **options):
    """Register a handler and poll it."""
    register_handler(EVENT, name, handler, **options)
    return await registry.find_shared_poll(name).refresh(REQUEST)


# --- decorators ---------------------------------------------------------------------------------


async def test_a_decorated_function_is_the_proxy_of_its_name(registry):
    """Without a name it is the default one; the function stays what it is."""

    @realtime.on_shared_poll_refresh
    async def by_default(request):
        return [{"key": request.channel, "version": request.items[0].version + 1}]

    @realtime.on_shared_poll_refresh("prices", timeout=2)
    def by_name(request):
        return {"epoch": "e"}

    assert (await registry.find_shared_poll("default").refresh(REQUEST)).items == [
        PolledItem("prices:eu", version=4)
    ]
    assert (await registry.find_shared_poll("prices").refresh(REQUEST)).epoch == "e"
    assert by_name(REQUEST) == {"epoch": "e"}
    assert handler_names(EVENT) == {"default", "prices"}
    assert handler_names("subscribe") == set()


def test_a_name_is_taken_once():
    """Two modules would otherwise overrule each other by their order."""
    realtime.on_shared_poll_refresh("prices")(lambda request: None)

    with pytest.raises(ValueError, match="there is a handler of shared_poll_refresh for the proxy"):
        realtime.on_shared_poll_refresh("prices")(lambda request: None)

    unregister_handler(EVENT, "prices")
    unregister_handler(EVENT, "prices")
    assert find_handler(EVENT, "prices") is None


@pytest.mark.parametrize("name", ["", "x", "a:b", "ä" * 3])
def test_a_name_is_that_of_a_proxy(name):
    """What no namespace can name is told at once."""
    with pytest.raises(ValueError, match="a proxy's name is"):
        realtime.on_shared_poll_refresh(name)(print)


def test_a_timeout_is_positive():
    """Or no answer would come in time."""
    with pytest.raises(ValueError, match="timeout"):
        realtime.on_shared_poll_refresh("prices", timeout=0)(print)


async def test_what_is_configured_takes_precedence(registry, backend):
    """By name and by default; a handler comes back when the configuration goes."""
    backend.answers({"result": {"epoch": "http"}})
    for name in ("default", "prices"):
        register_handler(EVENT, name, lambda request: {"epoch": "python"})
    over_http = ProxyOptions(endpoint=backend.url)

    registry.take({EVENT: over_http}, {"prices": over_http})
    for name in ("default", "prices"):
        assert (await registry.find_shared_poll(name).refresh(REQUEST)).epoch == "http"

    registry.take({EVENT: ProxyOptions()}, {})
    for name in ("default", "prices"):
        assert (await registry.find_shared_poll(name).refresh(REQUEST)).epoch == "python"


async def test_a_handler_that_comes_late_is_found(registry):
    """It is looked up at each call; an unknown name is nobody."""
    assert registry.find_shared_poll("prices") is None

    assert (await ask(registry, lambda request: None, "prices")) == SharedPollRefreshResult()

    assert registry.find_shared_poll("other") is None


# --- endpoints ----------------------------------------------------------------------------------


async def test_an_endpoint_names_a_function_or_an_instance(registry, module):
    """By its dotted path."""

    class Prices:
        async def __call__(self, request):
            return {"epoch": "instance"}

    module.function = lambda request: {"epoch": "function"}
    module.instance = Prices()

    for name in ("function", "instance"):
        found = await named(registry, f"python:shop.realtime.{name}").refresh(REQUEST)
        assert found.epoch == name


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("shop.realtime.missing", "has no missing"),
        ("nosuch.module.name", "can't be imported"),
        ("name", "expected python:package.module.name"),
        ("shop.realtime.NUMBER", "can't be called"),
        ("shop.realtime.Class", "a class; name an instance"),
    ],
)
async def test_an_endpoint_that_names_nothing_is_the_operators_mistake(
    registry, module, path, told
):
    """Told when the configuration is taken, with the proxy's path."""
    module.NUMBER = 1
    module.Class = type("Class", (), {})

    with pytest.raises(ConfigError, match=rf"proxies\[prices\]\.endpoint: .*{told}"):
        named(registry, f"python:{path}")


# --- what handlers return -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "returned",
    [
        SharedPollRefreshResult([PolledItem("a", Raw(b'{"p":1}'), 2)]),
        {"items": [{"key": "a", "data": {"p": 1}, "version": 2}]},
        {"items": [{"key": "a", "data": b'{"p":1}', "version": 2}], "epoch": ""},
        [PolledItem("a", Raw(b'{"p":1}'), 2)],
        (PolledItem("a", {"p": 1}, 2),),
        [{"key": "a", "data": memoryview(b'{"p":1}'), "version": 2}],
    ],
)
async def test_a_result_has_many_forms(registry, returned):
    """Bytes are JSON text already, anything else becomes JSON."""
    result = await ask(registry, lambda request: returned)

    assert result == SharedPollRefreshResult([PolledItem("a", Raw(b'{"p":1}'), 2)])


async def test_text_and_numbers_are_data_too(registry):
    """Each as JSON has it; without data there is none."""
    items = [{"key": "a", "data": "x"}, {"key": "b", "data": 0}, {"key": "c", "removed": True}]

    result = await ask(registry, lambda request: items)

    assert result.items == [
        PolledItem("a", Raw(b'"x"')),
        PolledItem("b", Raw(b"0")),
        PolledItem("c", removed=True),
    ]


@pytest.mark.parametrize(
    "returned",
    [
        "text",
        b"{}",
        5,
        {"item": []},
        {"items": 5},
        {"items": [], "epoch": 5},
        ["a"],
        [{"data": 1}],
        [{"key": 1}],
        [{"key": "a", "value": 1}],
        [{"key": "a", "version": -1}],
        [{"key": "a", "data": object()}],
    ],
)
async def test_a_result_of_another_form_is_a_failure(registry, returned, caplog):
    """The log says which; the caller is told no more than that it failed."""
    with pytest.raises(ProxyError, match=r"the handler .* failed"):
        await ask(registry, lambda request: returned)

    assert "a handler failed" in caplog.text


# --- how handlers fail --------------------------------------------------------------------------


async def test_an_exception_is_a_failure_and_its_text_stays_in_the_log(registry, figures, caplog):
    """It may have anything in it."""

    async def fail(request):
        raise ValueError("a secret")

    with pytest.raises(ProxyError, match=r"the handler .*fail failed: ValueError") as caught:
        await ask(registry, fail)

    assert "secret" not in str(caught.value)
    assert "a secret" in caplog.text
    labels = "name.default.protocol.python.type.shared_poll_refresh"
    assert figures.counters()[f"centrifugo.proxy.errors.{labels}"] == 1


async def test_a_refusal_is_an_answer(registry, figures, caplog):
    """The cycle is lost, and nothing failed; a disconnect has nobody to end."""

    async def refuse(request):
        raise ClientError(500, "not now", temporary=True)

    async def disconnect(request):
        raise Disconnect(4500, "go")

    with caplog.at_level(logging.ERROR):
        with pytest.raises(ProxyError, match="answered error 500: 'not now'"):
            await ask(registry, refuse)
        assert await ask(registry, disconnect, "other") == SharedPollRefreshResult()

    assert not caplog.records
    assert not [value for name, value in figures.counters().items() if ".errors." in name and value]


async def test_an_async_handler_is_cancelled_when_its_time_is_up(registry):
    """It gets to clean up."""
    cleaned_up = asyncio.Event()

    async def slow(request):
        try:
            await asyncio.sleep(30)
        finally:
            cleaned_up.set()

    with pytest.raises(ProxyError, match=r"no answer within 0\.05s"):
        await ask(registry, slow, timeout=0.05)

    assert cleaned_up.is_set()


async def test_a_function_in_a_thread_is_left_to_itself_when_its_time_is_up(registry):
    """The loop goes on meanwhile."""
    release = threading.Event()
    ended = threading.Event()

    def slow(request):
        release.wait(10)
        ended.set()

    try:
        with pytest.raises(ProxyError, match=r"no answer within 0\.05s"):
            await ask(registry, slow, timeout=0.05)
    finally:
        release.set()
    assert await asyncio.to_thread(ended.wait, 10)


async def test_a_function_that_is_not_async_runs_in_a_thread(registry):
    """Unless it returns a coroutine, which is awaited on the loop."""
    threads = []

    def blocking(request):
        threads.append(threading.current_thread())

    async def asynchronous(request):
        threads.append(threading.current_thread())

    await ask(registry, blocking)
    await ask(registry, asynchronous, "async")
    await ask(registry, lambda request: asynchronous(request), "disguised")

    here = threading.current_thread()
    assert [thread is here for thread in threads] == [False, True, True]
