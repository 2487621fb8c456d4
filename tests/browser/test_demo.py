"""The demo page in Chromium, against the real server and the real feed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from selenium.webdriver.common.by import By

from tests.browser.conftest import Page
from tests.live.harness import API_KEY, HMAC_KEY, ROOT, Server, manage


pytestmark = pytest.mark.browser


@pytest.fixture
def demo(page: Page, demo_server: Server) -> Page:
    """Give the demo page, connected and receiving."""
    page.open(demo_server.url)
    page.wait_for("state", "connected")
    page.wait(lambda: page.number("in-order") > 2)
    return page


def test_live_data_arrives(demo: Page) -> None:
    """Offsets rise, meters show numbers, and the console has nothing to say."""
    before = demo.number("offset")

    demo.wait(lambda: demo.number("offset") > before)

    assert "% of" in demo.text("cpu")
    assert len(demo.text("epoch")) > 1
    demo.wait(lambda: "ms" in demo.text("latency"))
    demo.wait(lambda: float(demo.text("rate")) > 1)
    assert demo.driver.find_elements(By.CSS_SELECTOR, "#wire rect.live")
    assert demo.errors() == []


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
def test_the_transport_can_be_changed(demo: Page, demo_server: Server, transport: str) -> None:
    """Over plain HTTP the page goes on as before, and misses nothing between the two connections."""
    option = demo.driver.find_element(By.CSS_SELECTOR, f"#transport option[value={transport}]")
    before = demo.text("client")

    option.click()

    demo.wait(lambda: demo.text("client") != before and demo.text("state") == "connected")
    offset = demo.number("offset")
    demo.wait(lambda: demo.number("offset") > offset + 2)
    assert (demo.number("missing"), demo.number("twice")) == (0, 0)
    used = "return performance.getEntriesByType('resource').map(({ name }) => name).join(' ')"
    assert "/emulation" in demo.driver.execute_script(used)
    demo.driver.find_element(By.ID, "text").send_keys(f"by {transport}\n")
    demo.wait_for("messages", f"by {transport}")
    assert demo.errors() == []


def test_what_the_api_publishes_appears(demo: Page, demo_server: Server) -> None:
    """A backend's message is on the page, and its text is text."""
    demo_server.publish("demo:chat", {"text": "<b>hello</b> from the API"})

    demo.wait_for("messages", "<b>hello</b> from the API")
    assert "server" in demo.text("messages")


def test_a_visitor_cannot_pass_for_the_machine(demo: Page, demo_server: Server) -> None:
    """What a client publishes among the measurements is counted, since it has an offset, and never drawn."""
    demo.driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const { Tidewire } = await import("tidewire");
        const client = Tidewire.fromPage();
        const system = client.subscribe("demo:system");
        system.on("publication", ({ info, offset }) => info && (window.forged ??= offset));
        client.connect();
        await system.publish({ at: Date.now(), cpu: 99, forged: true });
        done();
        """
    )
    demo.wait(lambda: demo.driver.execute_script("return window.forged ?? 0"))
    forged = int(demo.driver.execute_script("return window.forged"))
    demo.wait(lambda: demo.number("offset") > forged)

    drawn = demo.driver.execute_script(
        "return [...document.querySelectorAll('#wire rect[data-offset]')].map((bar) => +bar.dataset.offset)"
    )
    assert forged - 1 in drawn
    assert forged not in drawn
    assert demo.number("missing") == 0


def test_what_a_visitor_says_appears_once(demo: Page) -> None:
    """The message comes back through the channel, under the visitor's name."""
    demo.driver.find_element(By.ID, "text").send_keys("hello from a visitor\n")

    demo.wait_for("messages", "hello from a visitor")
    assert demo.text("messages").count("hello from a visitor") == 1
    assert demo.driver.find_elements(By.CSS_SELECTOR, "#messages li.mine")


def test_a_dropped_connection_loses_nothing(demo: Page, demo_server: Server) -> None:
    """What is published while the socket is gone comes by recovery: nothing missing, nothing twice, and in order."""
    drop = demo.driver.find_element(By.ID, "drop")
    drop.click()
    demo.wait_for("state", "offline")
    while_away = demo.number("offset")
    demo_server.publish("demo:chat", {"text": "said while you were away"})
    top = demo_server.call("history", channel="demo:system", limit=0)["offset"]
    demo.wait(
        lambda: demo_server.call("history", channel="demo:system", limit=0)["offset"] >= top + 5
    )
    assert demo.number("offset") == while_away

    drop.click()
    demo.wait_for("verdict", "none missing, none twice")

    assert demo.number("recovered") >= 5
    assert (demo.number("missing"), demo.number("twice")) == (0, 0)
    assert demo.text("messages").count("said while you were away") == 1
    bars = demo.driver.execute_script(
        "return [...document.querySelectorAll('#wire rect[data-offset]:not(.past)')]"
        ".map((bar) => Number(bar.dataset.offset))"
    )
    assert bars == list(range(bars[0], bars[0] + len(bars)))
    assert demo.driver.find_elements(By.CSS_SELECTOR, "#wire rect.recovered")
    assert demo.text("reconnects") == "1 time"


def test_a_document_is_sent_as_what_differs_until_the_switch_says_otherwise(demo: Page) -> None:
    """The page shows the whole board either way, and what came for it."""
    demo.wait(lambda: "saved by" in demo.text("saving"))
    rows = demo.driver.find_elements(By.CSS_SELECTOR, "#rows li")
    assert len(rows) == 24
    demo.wait(lambda: float(demo.text("saving").partition(" %")[0].rpartition(" ")[2]) > 30)

    demo.driver.find_element(By.ID, "delta").click()

    demo.wait(lambda: "each of them whole" in demo.text("saving"))
    demo.driver.find_element(By.ID, "delta").click()
    demo.wait(lambda: "saved by" in demo.text("saving"))
    assert demo.errors() == []


def test_the_page_of_the_live_document_shows_it_and_its_changes(
    page: Page, demo_server: Server, web_root: tuple[Path, str]
) -> None:
    """``examples/live-document/index.html``, from another origin than the server's."""
    folder, address = web_root
    shutil.copy(ROOT / "examples" / "live-document" / "index.html", folder)
    # The feed beside the server has begun, so that it can be ended after this test.
    page.wait(lambda: demo_server.call("history", channel="demo:board", limit=0)["offset"])
    user = jwt.encode({"sub": "me"}, HMAC_KEY, algorithm="HS256")
    text = "A paragraph that stays. " * 20
    demo_server.publish("demo:document", {"name": "notes.md", "text": text})
    page.open(f"{address}/index.html?server={demo_server.url}&token={user}")
    page.wait_for("text", text.strip())

    for change in ("one", "two", "three"):
        demo_server.publish("demo:document", {"name": "notes.md", "text": f"{text}{change}"})

    page.wait_for("text", "three")
    page.wait_for("traffic", "in 2 patches")
    assert page.errors() == []


def test_two_tabs_see_each_other(
    demo: Page, make_page: Callable[[], Page], demo_server: Server
) -> None:
    """A second tab of the same browser is one more client of the same user; another browser is another user."""
    before = demo.number("here")
    demo.driver.switch_to.new_window("tab")
    demo.open(demo_server.url)
    demo.wait_for("state", "connected")
    demo.wait_for("presence", "you, 2 tabs")

    stranger = make_page()
    stranger.open(demo_server.url)
    stranger.wait(lambda: stranger.number("here") == before + 2)

    demo.wait(lambda: demo.number("here") == before + 2)
    demo.driver.close()
    stranger.wait(lambda: stranger.number("here") == before + 1)


def test_token_is_renewed_without_a_reconnect(demo: Page) -> None:
    """The page lives on past its token's 30 seconds."""
    client = demo.text("client")

    demo.wait_for("renewals", "1 time", seconds=45)

    assert demo.text("client") == client
    assert demo.text("reconnects") == "never"


def test_page_fits_a_phone(demo: Page) -> None:
    """Nothing is wider than the screen."""
    demo.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True},
    )

    wide = demo.driver.execute_script(
        "return [...document.body.querySelectorAll('main *, header *')]"
        ".filter((one) => !one.closest('svg, pre') && one.getBoundingClientRect().right > 360)"
        ".map((one) => one.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert demo.driver.execute_script("return document.documentElement.scrollWidth") <= 360


def test_command_ends_after_its_count(demo_server: Server) -> None:
    """Two measurements are two publications more, and the process ends by itself."""
    before = demo_server.call("history", channel="demo:system", limit=0)["offset"]

    manage(
        demo_server.database,
        *("demo", "--count", "2", "--interval", "0.1"),
        options={"TIDEWIRE_API_URL": f"{demo_server.url}/api", "TIDEWIRE_API_KEY": API_KEY},
    )

    assert demo_server.call("history", channel="demo:system", limit=0)["offset"] >= before + 2
