"""Proxies over reloads: what is unchanged stays, the rest is closed."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from realtime.conf.options import ProxyOptions
from realtime.node.figures import Figures
from realtime.protocol.errors import ConfigError, ProxyError
from realtime.proxies.shared_poll import SharedPollRefreshRequest
from tests.unit.proxies.backend import open_backend


REQUEST = SharedPollRefreshRequest("c:c")
EVENT = "shared_poll_refresh"


async def test_an_unchanged_proxy_keeps_its_connection_over_a_reload(registry, backend):
    """Options are compared by value, as each load makes new ones."""
    backend.answers({"result": {}})
    async with open_backend() as other:
        other.answers({"result": {}})
        registry.take({}, {"one": ProxyOptions(endpoint=backend.url)})
        before = registry.find_shared_poll("one")
        await before.refresh(REQUEST)

        registry.take(
            {EVENT: ProxyOptions(endpoint=other.url)},
            {"one": ProxyOptions(endpoint=backend.url), "two": ProxyOptions(endpoint=other.url)},
        )
        await registry.find_shared_poll("two").refresh(REQUEST)
        await registry.find_shared_poll("default").refresh(REQUEST)

    assert registry.find_shared_poll("one") is before
    await before.refresh(REQUEST)
    assert backend.connections == 1
    assert other.connections == 2


@pytest.mark.parametrize("change", [{"timeout": 2.0}, None])
async def test_a_proxy_that_changes_or_goes_closes_its_connections(registry, backend, change):
    """What replaces it has its own."""
    backend.answers({"result": {}})
    options = ProxyOptions(endpoint=backend.url)
    registry.take({}, {"one": options})
    await registry.find_shared_poll("one").refresh(REQUEST)
    assert backend.open_connections == 1

    registry.take({}, {"one": replace(options, **change)} if change else {})

    await asyncio.wait_for(backend.all_closed.wait(), 30)
    assert (registry.find_shared_poll("one") is not None) == bool(change)


async def test_a_call_under_way_ends_before_its_proxy_is_closed(registry, backend):
    """A reload loses no answer."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait(exchange):
        entered.set()
        await release.wait()
        exchange.answer({"result": {"epoch": "answered"}})

    backend.reply = wait
    registry.take({}, {"one": ProxyOptions(endpoint=backend.url, timeout=10)})
    call = asyncio.create_task(registry.find_shared_poll("one").refresh(REQUEST))
    await asyncio.wait_for(entered.wait(), 30)

    registry.take({}, {})
    release.set()

    assert (await call).epoch == "answered"
    await asyncio.wait_for(backend.all_closed.wait(), 30)


async def test_a_configuration_that_can_not_be_taken_changes_nothing(registry, backend):
    """Not even the part of it that could."""
    backend.answers({"result": {}})
    registry.take({}, {"one": ProxyOptions(endpoint=backend.url)})
    before = registry.find_shared_poll("one")

    with pytest.raises(ConfigError, match=r"proxies\[two\]"):
        registry.take(
            {},
            {
                "one": ProxyOptions(endpoint=backend.url, timeout=3),
                "two": ProxyOptions(endpoint="python:no.such.thing"),
            },
        )
    with pytest.raises(ConfigError, match="gRPC endpoints come with a later version"):
        registry.take({}, {"two": ProxyOptions(endpoint="grpc://127.0.0.1:1")})

    assert registry.find_shared_poll("one") is before
    await before.refresh(REQUEST)


async def test_closing_waits_for_nobody_for_ever(registry, backend, monkeypatch):
    """A call that is still under way is let go of; closing twice is fine."""
    monkeypatch.setattr("realtime.proxies.registry.CLOSE_TIMEOUT", 0.05)
    entered = asyncio.Event()

    async def wait(exchange):
        entered.set()
        await asyncio.sleep(30)

    backend.reply = wait
    registry.take({}, {"one": ProxyOptions(endpoint=backend.url, timeout=30)})
    call = asyncio.create_task(registry.find_shared_poll("one").refresh(REQUEST))
    await asyncio.wait_for(entered.wait(), 30)

    await registry.close()
    await registry.close()

    with pytest.raises(ProxyError):
        await asyncio.wait_for(call, 30)
    assert backend.connections == 1
    assert registry.find_shared_poll("one") is None


async def test_figures_of_a_proxy_that_comes_later_are_shown(registry, backend, figures):
    """A node's snapshot began without it, and shows growth."""
    backend.answers({"result": {}})
    snapshot = Figures(60, figures.gauges, figures.counters, 0)
    registry.take({}, {"one": ProxyOptions(endpoint=backend.url)})
    proxy = registry.find_shared_poll("one")
    count = f"centrifugo.proxy.duration_seconds.count.name.one.protocol.http.type.{EVENT}"
    for calls, now in ((2, 60), (1, 120)):
        for _ in range(calls):
            await proxy.refresh(REQUEST)
        snapshot.renew(now)

        assert snapshot.current[count] == calls
