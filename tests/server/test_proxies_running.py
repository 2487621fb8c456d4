"""Proxies in a running node: they follow rows, the environment and what apps register."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db import connections

from realtime import bootstrap, handlers
from realtime.conf import loader
from realtime.models import Proxy
from realtime.node.node import Node
from realtime.protocol.errors import ConfigError
from realtime.proxies.shared_poll import SharedPollRefreshRequest
from tests.unit.proxies.backend import Backend, open_backend


pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
REQUEST = SharedPollRefreshRequest("prices:eu")
OWN = "TIDEWIRE_CHANNEL_PROXY_SHARED_POLL_REFRESH_ENDPOINT"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    """No handlers, and options that are read when they are asked for."""
    monkeypatch.setattr(handlers, "_handlers", {})
    loader.reset()
    yield
    loader.reset()


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[Backend]:
    """Give a backend that answers with the epoch ``e``."""
    async with open_backend() as opened:
        opened.answers({"result": {"epoch": "e"}})
        yield opened


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    """Run this process's node."""
    yield await bootstrap.start_node()
    await bootstrap.stop_node()


def find(name):
    assert bootstrap._proxies is not None
    return bootstrap._proxies.find_shared_poll(name)


async def eventually(is_so):
    """Wait until the node, which nobody tells, has found out."""
    for _ in range(100):
        if is_so():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not within 5 s")


async def test_rows_take_effect_without_a_restart(node, backend):
    """One that is new, changed or gone; the figures are the node's."""
    assert find("prices") is None
    row = await Proxy.objects.acreate(name="prices", endpoint=backend.url)
    await eventually(lambda: find("prices") is not None)
    first = find("prices")
    assert (await first.refresh(REQUEST)).epoch == "e"

    await Proxy.objects.acreate(name="other", endpoint=backend.url)
    await eventually(lambda: find("other") is not None)
    assert find("prices") is first

    row.timeout = 3
    await row.asave()
    await eventually(lambda: find("prices") is not first)
    assert (await find("prices").refresh(REQUEST)).epoch == "e"
    assert backend.connections == 2

    await row.adelete()
    await eventually(lambda: find("prices") is None)
    counters = node._counters()
    labels = "name.prices.protocol.http.type.shared_poll_refresh"
    assert counters[f"centrifugo.proxy.duration_seconds.count.{labels}"] == 2
    assert node._gauges()[f"centrifugo.proxy.inflight_requests.{labels}"] == 0


async def test_a_row_that_can_not_be_taken_changes_nothing(node, backend, caplog):
    """The handler is missing where the server looks for it: the configuration before stays."""
    await Proxy.objects.acreate(name="prices", endpoint=backend.url)
    await node.reload()
    revision = node.configuration.revision
    await Proxy.objects.acreate(name="broken", endpoint="python:no.such.thing")

    assert await node.reload() is False

    assert node.configuration.revision == revision
    assert "proxies[broken].endpoint" in caplog.text
    assert (await find("prices").refresh(REQUEST)).epoch == "e"


async def test_a_node_does_not_start_on_a_proxy_that_can_not_be_taken():
    """And says which."""
    await Proxy.objects.acreate(name="broken", endpoint="python:no.such.thing")

    with pytest.raises(ConfigError, match=r"proxies\[broken\]\.endpoint: .*can't be imported"):
        await bootstrap.start_node()

    assert bootstrap.running_node() is None


async def test_the_process_options_own_proxy_follows_them(node, backend, monkeypatch):
    """They are read again on SIGHUP."""
    assert find("default") is None

    monkeypatch.setenv(OWN, backend.url)
    await bootstrap.reload_options()
    assert (await find("default").refresh(REQUEST)).epoch == "e"

    monkeypatch.delenv(OWN)
    await bootstrap.reload_options()
    assert find("default") is None


async def test_connections_end_with_the_node(backend):
    """They are closed when it stops."""
    await Proxy.objects.acreate(name="prices", endpoint=backend.url)
    await bootstrap.start_node()
    await find("prices").refresh(REQUEST)
    assert backend.open_connections == 1

    await bootstrap.stop_node()

    await asyncio.wait_for(backend.all_closed.wait(), 30)


async def test_a_function_that_is_not_async_has_the_database(node):
    """In a thread whose connection is looked after before and after the call."""
    seen = []

    def handler(request):
        count = Proxy.objects.count()
        # Django takes it back when it looks whether a connection may be kept.
        connections["default"].health_check_done = True
        seen.append(connections["default"])
        return {"epoch": str(count)}

    handlers.register_handler("shared_poll_refresh", "prices", handler)
    await sync_to_async(Proxy.objects.create)(name="other", endpoint="http://127.0.0.1:1/")

    result = await find("prices").refresh(REQUEST)

    assert result.epoch == "1"
    (used,) = seen
    assert used is not connections["default"]
    assert used.health_check_done is False


def test_the_module_realtime_of_each_app_is_loaded(tmp_path):
    """In every process that sets Django up, a serving one or not."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "realtime.py").write_text(
        "import realtime\n\n"
        "from shop.models import Price\n\n\n"
        "@realtime.on_shared_poll_refresh('prices')\n"
        "async def refresh(request):\n"
        "    return [{'key': 'a', 'data': await Price.objects.acount()}]\n"
    )
    (tmp_path / "shop" / "models.py").write_text(
        "from django.db import models\n\n\nclass Price(models.Model):\n    pass\n"
    )
    (tmp_path / "shop_settings.py").write_text(
        "from tests.settings import *\n\n\nINSTALLED_APPS = ['shop', *INSTALLED_APPS]\n"
    )
    script = (
        "import django; django.setup(); from realtime.handlers import find_handler; "
        "print(find_handler('shared_poll_refresh', 'prices').handler.__module__)"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "shop_settings",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }

    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )

    assert (done.stdout.strip(), done.stderr) == ("shop.realtime", "")
