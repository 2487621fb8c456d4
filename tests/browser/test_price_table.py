"""``examples/price-table``: the npm package's shared poll subscription, and a backend that is polled."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from realtime.auth.poll_signatures import PollSecrets, verify_batch
from tests.browser.conftest import LIVE_PACKAGES, Page
from tests.live.harness import ROOT, Server, manage


pytestmark = pytest.mark.browser

EXAMPLE = ROOT / "examples" / "price-table"
SECRET = {"TIDEWIRE_SHARED_POLL_HMAC_SECRET_KEY": "a secret of the price table"}


@pytest.fixture
def prices(tmp_path: Path) -> Iterator[str]:
    """Run the example's backend; gives its address."""
    folder = tmp_path / "price-table"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(LIVE_PACKAGES)
    process = subprocess.Popen(
        [sys.executable, str(folder / "prices.py"), "0"],
        env={**os.environ, **SECRET},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def table(prices: str, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """Run a server that polls it, with the example's namespace; gives it and the page's address."""
    config = json.loads((EXAMPLE / "namespace.json").read_text())
    config["proxies"][0]["endpoint"] = f"{prices}/poll"
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = {**SECRET, "TIDEWIRE_CLIENT_ALLOWED_ORIGINS": prices}
    server = Server("serve", tmp_path, options)
    manage(server.database, "migrate", "--verbosity", "0", options=options)
    manage(server.database, "importconfig", str(tmp_path / "config.json"), options=options)
    server.start()
    address = server.url.replace("http", "ws", 1)
    yield server, f"{prices}/?server={address}"
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


def price(page: Page, symbol: str) -> str:
    """Return what a row shows."""
    return page.driver.find_element(By.CSS_SELECTOR, f"#{symbol} td:nth-child(3)").text


def asked(address: str) -> int:
    """Return how often the backend was polled."""
    with urllib.request.urlopen(address.rpartition("/?")[0] + "/calls", timeout=30) as response:
        calls: int = json.load(response)["calls"]
        return calls


def test_pages_show_what_they_follow_and_share_the_calls(
    table: tuple[Server, str], make_page: Callable[[], Page]
) -> None:
    """Two pages follow different rows; they agree where both do, and the backend is asked once a second."""
    _, address = table
    first, second = make_page(), make_page()
    first.open(f"{address}&follow=BTC,ETH")
    second.open(f"{address}&follow=ETH,ADA")
    for page in (first, second):
        page.wait_for("status", "Live.")
        page.wait(lambda page=page: price(page, "ETH"))

    first.wait(lambda: price(first, "ETH") == price(second, "ETH"))
    assert price(second, "BTC") == price(first, "ADA") == ""
    before = price(first, "BTC")
    first.wait(lambda: price(first, "BTC") != before)

    first.driver.find_element(By.CSS_SELECTOR, "#BTC input").click()
    first.driver.find_element(By.CSS_SELECTOR, "#SOL input").click()
    first.wait(lambda: price(first, "SOL"))
    still = price(first, "BTC")
    calls, began_at = asked(address), time.monotonic()
    first.wait(lambda: asked(address) >= calls + 4)
    assert time.monotonic() - began_at > 2.5
    first.wait(lambda: first.number("calls") > calls)
    assert price(first, "BTC") == still
    assert first.errors() == second.errors() == []
    if folder := os.environ.get("SCREENSHOTS"):
        first.driver.save_screenshot(f"{folder}/price-table.png")


def test_the_backend_signs_as_the_package_does() -> None:
    """With nothing but the standard library."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        backend = importlib.import_module("prices")
    finally:
        sys.path.remove(str(EXAMPLE))

    signed = backend.sign("s", {"channel": "prices:market", "keys": ["BTC", "nothing"]})

    assert signed["keys"] == ["BTC"]
    assert verify_batch(
        signed["signature"], PollSecrets("s"), user="", channel="prices:market", keys=["BTC"], now=0
    )
