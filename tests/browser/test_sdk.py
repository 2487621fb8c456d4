"""The npm package's browser bundle in Chromium: unmodified, from a page of another origin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.browser.conftest import LIVE_PACKAGES, Page
from tests.live.harness import Server, make_token


pytestmark = pytest.mark.browser

PAGE = """<!doctype html><title>SDK</title><p id="log"></p>
<script src="centrifuge.js"></script>
<script>
  window.seen = [];
  window.client = new Centrifuge("%s", { token: "%s", minReconnectDelay: 100, maxReconnectDelay: 300 });
  window.subscription = client.newSubscription("demo:sdk");
  subscription.on("publication", ({ offset, data }) => seen.push([offset, data.n]));
  subscription.on("subscribed", ({ wasRecovering, recovered }) => {
    document.getElementById("log").textContent = `subscribed ${wasRecovering} ${recovered}`;
  });
  subscription.subscribe();
  client.connect();
</script>
"""


def test_sdk_connects_subscribes_and_recovers(
    page: Page, demo_server: Server, web_root: tuple[Path, str]
) -> None:
    """What is published while its socket is closed reaches the SDK after it is back, once and in order."""
    folder, address = web_root
    shutil.copy(LIVE_PACKAGES / "centrifuge" / "dist" / "centrifuge.js", folder)
    (folder / "index.html").write_text(
        PAGE % (demo_server.websocket_url, make_token("sdk", lifetime=60))
    )
    page.open(f"{address}/index.html")
    page.wait_for("log", "subscribed false false")
    demo_server.publish("demo:sdk", {"n": 1})
    page.wait(lambda: page.driver.execute_script("return seen.length") == 1)

    page.driver.execute_script("client.disconnect()")
    demo_server.publish("demo:sdk", {"n": 2})
    demo_server.publish("demo:sdk", {"n": 3})
    page.driver.execute_script("client.connect()")
    page.wait_for("log", "subscribed true true")
    demo_server.publish("demo:sdk", {"n": 4})
    page.wait(lambda: page.driver.execute_script("return seen.length") == 4)

    assert page.driver.execute_script("return seen") == [[1, 1], [2, 2], [3, 3], [4, 4]]
