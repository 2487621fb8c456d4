"""
The npm package over WebTransport in Chromium, unmodified.

Chromium takes the test's own certificate by its hash, which the page gives to ``WebTransport``; browsers allow that for
ECDSA certificates of at most 14 days.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import LIVE_PACKAGES, Page
from tests.live.harness import Server, make_token, manage
from tests.unit.servers.certificates import self_signed


pytestmark = pytest.mark.browser

PAGE = """<!doctype html><title>WebTransport</title><p id="log"></p>
<script src="centrifuge.js"></script>
<script>
  const Plain = WebTransport;
  const value = new Uint8Array(%(hash)s);
  window.WebTransport = class extends Plain {
    constructor(url) { super(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] }); }
  };
  window.seen = [];
  window.transports = [];
  window.client = new Centrifuge(
    [{ transport: "webtransport", endpoint: "%(url)s/connection/webtransport" }],
    { token: "%(token)s", minReconnectDelay: 100, maxReconnectDelay: 300 },
  );
  const show = (text) => { document.getElementById("log").textContent = text; };
  client.on("connected", ({ transport }) => transports.push(transport));
  client.on("connecting", ({ code, reason }) => show(`connecting ${code} ${reason}`));
  client.on("disconnected", ({ code, reason }) => show(`disconnected ${code} ${reason}`));
  window.subscription = client.newSubscription("demo:sdk");
  const unpack = (data) =>
    data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data;
  subscription.on("publication", ({ offset, data }) => seen.push([Number(offset), unpack(data).n]));
  subscription.on("subscribed", ({ wasRecovering, recovered }) => {
    show(`subscribed ${wasRecovering} ${recovered}`);
  });
  subscription.subscribe();
  client.connect();
</script>
"""


@pytest.fixture
def webtransport_server(tmp_path: Path) -> Iterator[tuple[Server, list[int]]]:
    """Give a server with the demo's namespace, and the hash of its certificate."""
    manage(tmp_path / "db.sqlite3", "bootstrap")
    certificate, key = self_signed()
    trust = ssl.create_default_context(cadata=certificate)
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    options = {
        "TIDEWIRE_CLIENT_ALLOWED_ORIGINS": "http://127.0.0.1:*",
        "TIDEWIRE_DEMO": "true",
        "TIDEWIRE_HTTP_SERVER_HTTP3_ENABLED": "true",
        "TIDEWIRE_HTTP_SERVER_TLS_CERT_PEM": certificate,
        "TIDEWIRE_HTTP_SERVER_TLS_ENABLED": "true",
        "TIDEWIRE_HTTP_SERVER_TLS_KEY_PEM": key,
        "TIDEWIRE_WEBTRANSPORT_ENABLED": "true",
    }
    server = Server("serve", tmp_path, options, trust=trust).start()
    yield server, list(hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest())
    if server.is_running:
        assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("bundle", ["centrifuge.js", "centrifuge.protobuf.js"])
def test_sdk_over_webtransport(
    bundle: str,
    page: Page,
    webtransport_server: tuple[Server, list[int]],
    web_root: tuple[Path, str],
) -> None:
    """It connects, recovers what it missed, in order; a disconnect's code and the shutdown's reach it."""
    server, digest = webtransport_server
    folder, address = web_root
    shutil.copy(LIVE_PACKAGES / "centrifuge" / "dist" / bundle, folder / "centrifuge.js")
    token = make_token("sdk", lifetime=60)
    (folder / "index.html").write_text(PAGE % {"hash": digest, "url": server.url, "token": token})
    page.open(f"{address}/index.html")
    page.wait_for("log", "subscribed false false")
    server.publish("demo:sdk", {"n": 1})
    page.wait(lambda: page.driver.execute_script("return seen.length") == 1)

    page.driver.execute_script("client.disconnect()")
    server.publish("demo:sdk", {"n": 2})
    server.publish("demo:sdk", {"n": 3})
    page.driver.execute_script("client.connect()")
    page.wait_for("log", "subscribed true true")
    server.publish("demo:sdk", {"n": 4})
    page.wait(lambda: page.driver.execute_script("return seen.length") == 4)

    assert page.driver.execute_script("return seen") == [[1, 1], [2, 2], [3, 3], [4, 4]]
    assert page.driver.execute_script("return transports") == ["webtransport"] * 2

    server.call("disconnect", user="sdk", disconnect={"code": 4501, "reason": "enough"})
    page.wait_for("log", "disconnected 4501 enough")
    page.driver.execute_script("client.connect()")
    page.wait_for("log", "subscribed true true")
    server.terminate()
    page.wait_for("log", "connecting 3001 shutdown")
    assert server.wait() == 0
