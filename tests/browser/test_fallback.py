"""The npm package's list of transports in Chromium: what does not get through is left for the next one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import LIVE_PACKAGES, Page
from tests.live.harness import SHAPES, Server, make_token, manage


pytestmark = pytest.mark.browser

PAGE = """<!doctype html><title>SDK</title><p id="log"></p>
<script src="centrifuge.js"></script>
<script>
  window.seen = [];
  window.client = new Centrifuge(%s, {
    token: "%s",
    emulationEndpoint: "%s",
    minReconnectDelay: 50,
    maxReconnectDelay: 200,
    timeout: 2000,
  });
  const say = (text) => { document.getElementById("log").textContent = text; };
  client.on("connected", ({ transport }) => { window.transport = transport; });
  window.subscription = client.newSubscription("demo:fallback");
  subscription.on("publication", ({ offset, data }) => seen.push([offset, data.n]));
  subscription.on("subscribed", ({ wasRecovering, recovered }) => {
    say(`subscribed by ${window.transport} ${wasRecovering} ${recovered}`);
  });
  subscription.subscribe();
  client.connect();
</script>
"""


@pytest.fixture(scope="module", params=SHAPES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Give a server of either shape with the demo's namespace."""
    folder = tmp_path_factory.mktemp("fallback")
    manage(folder / "db.sqlite3", "bootstrap")
    options = {"TIDEWIRE_DEMO": "true", "TIDEWIRE_CLIENT_ALLOWED_ORIGINS": "http://127.0.0.1:*"}
    server = Server(request.param, folder, options).start()
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize(
    ("blocked", "expected"),
    [
        ((), "websocket"),
        (("websocket",), "http_stream"),
        (("websocket", "http_stream"), "sse"),
    ],
    ids=["nothing-blocked", "websocket-blocked", "only-sse"],
)
def test_the_list_of_transports(
    page: Page,
    server: Server,
    web_root: tuple[Path, str],
    blocked: tuple[str, ...],
    expected: str,
) -> None:
    """From a page of another origin: commands, publications and recovery work over whichever is left."""
    folder, address = web_root
    transports = [
        {
            "transport": name,
            "endpoint": f"{scheme}://127.0.0.1:{server.port}/"
            + ("nowhere" if name in blocked else f"connection/{name}"),
        }
        for name, scheme in (("websocket", "ws"), ("http_stream", "http"), ("sse", "http"))
    ]
    shutil.copy(LIVE_PACKAGES / "centrifuge" / "dist" / "centrifuge.js", folder)
    (folder / "index.html").write_text(
        PAGE
        % (
            json.dumps(transports),
            make_token(f"fallback-{expected}", lifetime=60),
            f"{server.url}/emulation",
        )
    )
    offset = server.publish("demo:fallback", {"n": 0})["offset"]

    page.open(f"{address}/index.html")
    page.wait_for("log", f"subscribed by {expected} false false")
    page.driver.execute_script("subscription.publish({ n: 1 })")
    page.wait(lambda: page.driver.execute_script("return seen.length") == 1)
    page.driver.execute_script("client.disconnect()")
    server.publish("demo:fallback", {"n": 2})
    page.driver.execute_script("client.connect()")
    page.wait_for("log", f"subscribed by {expected} true true")
    server.publish("demo:fallback", {"n": 3})
    page.wait(lambda: page.driver.execute_script("return seen.length") == 3)

    seen = page.driver.execute_script("return seen")
    assert seen == [[offset + 1, 1], [offset + 2, 2], [offset + 3, 3]]
