"""A page's own ``EventSource`` in Chromium, without an SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Page
from tests.live.harness import SHAPES, Server, make_token, manage


pytestmark = pytest.mark.browser

# As a page would do it: positions of its own, a new address for each attempt.
PAGE = """<!doctype html><title>EventSource</title><p id="log"></p>
<script>
  window.seen = [];
  window.opened = 0;
  const channel = "demo:listen";
  let position = null;
  const say = (text) => { document.getElementById("log").textContent = text; };
  const take = ({ offset, data }) => { position.offset = offset; seen.push(data.n); };
  window.listen = () => {
    const request = { token: %s, subs: { [channel]: position ? { recover: true, ...position } : {} } };
    const source = new EventSource(%s + "?cf_connect=" + encodeURIComponent(JSON.stringify(request)));
    source.onopen = () => { opened += 1; };
    source.onmessage = (event) => {
      const push = JSON.parse(event.data);
      if (push.connect) {
        const sub = push.connect.subs[channel];
        position = { offset: sub.offset ?? 0, epoch: sub.epoch };
        (sub.publications ?? []).forEach(take);
        say(`connected ${sub.was_recovering ?? false} ${sub.recovered ?? false}`);
      } else if (push.pub) {
        take(push.pub);
      } else if (push.disconnect) {
        source.close();
        say(`disconnected ${push.disconnect.code} ${push.disconnect.reason}`);
      }
    };
  };
  listen();
</script>
"""


@pytest.fixture(scope="module", params=SHAPES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Give a server of either shape with the demo's namespace."""
    folder = tmp_path_factory.mktemp("eventsource")
    manage(folder / "db.sqlite3", "bootstrap")
    options = {
        "TIDEWIRE_CLIENT_ALLOWED_ORIGINS": "http://127.0.0.1:*",
        "TIDEWIRE_UNI_SSE_ENABLED": "true",
    }
    server = Server(request.param, folder, options).start()
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log
    assert "ey" + "J" not in server.log, "a token is in the log"


def test_a_page_listens_and_comes_back_for_what_it_missed(
    page: Page, server: Server, web_root: tuple[Path, str]
) -> None:
    """From a page of another origin: open at once, live, told why it ended, and complete after the next connect."""
    folder, address = web_root
    token = make_token("listener", lifetime=60)
    (folder / "index.html").write_text(
        PAGE % (json.dumps(token), json.dumps(f"{server.url}/connection/uni_sse"))
    )
    page.open(f"{address}/index.html")
    page.wait_for("log", "connected false false")
    server.publish("demo:listen", {"n": 1})
    page.wait(lambda: page.driver.execute_script("return seen.length") == 1)

    server.call("disconnect", user="listener")
    page.wait_for("log", "disconnected 3503 force disconnect")
    server.publish("demo:listen", {"n": 2})
    page.driver.execute_script("listen()")
    page.wait_for("log", "connected true true")
    server.publish("demo:listen", {"n": 3})
    page.wait(lambda: page.driver.execute_script("return seen.length") == 3)

    assert page.driver.execute_script("return seen") == [1, 2, 3]
    assert page.driver.execute_script("return opened") == 2
