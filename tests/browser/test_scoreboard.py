"""``examples/scoreboard/index.html`` with the npm package's map subscription, from another origin than the server's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from tests.browser.conftest import LIVE_PACKAGES, Page
from tests.live.harness import Server, make_token, manage
from tests.live.test_map_api import CHANNEL, EXAMPLE, playing, run, wait_for


pytestmark = pytest.mark.browser


@pytest.fixture
def board(demo_server: Server, web_root: tuple[Path, str]) -> tuple[Server, str]:
    """Give the server, with the example's namespace and an empty board, and the page's address."""
    folder, address = web_root
    shutil.copy(EXAMPLE / "index.html", folder)
    (folder / "node_modules").symlink_to(LIVE_PACKAGES)
    manage(demo_server.database, "importconfig", str(EXAMPLE / "namespace.json"))
    wait_for(lambda: "result" in demo_server.api("map_clear", {"channel": CHANNEL}).json)
    server = demo_server.url.replace("http", "ws", 1)
    return demo_server, f"{address}/index.html?server={server}&token={make_token('me')}"


def rows(page: Page) -> list[str]:
    """Return the lines of the table."""
    return page.driver.find_element(By.ID, "rows").text.splitlines()


def test_browsers_agree_and_a_late_one_gets_everything(
    board: tuple[Server, str], make_page: Callable[[], Page]
) -> None:
    """Scores, a removal, and the state of 250 players by pages."""
    server, address = board
    first, second = make_page(), make_page()
    for page in (first, second):
        page.open(address)
        page.wait_for("status", "Live")

    run(server, "set", "ada", "120")
    run(server, "set", "bob", "300")
    for page in (first, second):
        page.wait(lambda page=page: rows(page) == ["1 bob 300", "2 ada 120"])
    run(server, "set", "ada", "301")
    run(server, "set", "cleo", "1")
    run(server, "remove", "bob")
    for page in (first, second):
        page.wait_for("last", "bob left")
        assert rows(page) == ["1 ada 301", "2 cleo 1"]

    with playing(server, "--players", "250"):
        first.wait(lambda: first.number("count") >= 248)
        late = make_page()
        late.open(address)
        late.wait_for("status", "Live")
        late.wait(lambda: "player" in late.text("last"))
    pages = (first, second, late)
    keys = server.call("map_stats", channel=CHANNEL)["num_keys"]
    for page in pages:
        page.wait(lambda page=page: page.number("count") == keys)
    # The last turn's change has the same place in every browser.
    first.wait(lambda: rows(first) == rows(second) == rows(late))

    assert keys > 240
    assert len(rows(first)) == 20
    for page in pages:
        assert page.errors() == []


def test_a_browser_that_was_away_gets_what_changed(board: tuple[Server, str], page: Page) -> None:
    """A removal and a new score that it missed, without the whole state."""
    server, address = board
    for player, score in (("ada", "1"), ("bob", "2")):
        run(server, "set", player, score)
    page.open(address)
    page.wait(lambda: rows(page) == ["1 bob 2", "2 ada 1"])
    page.driver.execute_script("window.syncs = 0; scoreboard.on('sync', () => syncs++)")

    page.driver.execute_script("client.disconnect()")
    run(server, "remove", "bob")
    run(server, "set", "ada", "7")
    page.driver.execute_script("client.connect()")

    page.wait_for("status", "nothing was missed")
    page.wait(lambda: rows(page) == ["1 ada 7"])
    assert page.driver.execute_script("return syncs") == 0
    assert page.errors() == []


def test_a_board_that_was_cleared_is_loaded_anew(board: tuple[Server, str], page: Page) -> None:
    """Nobody goes on with keys that are gone."""
    server, address = board
    run(server, "set", "ada", "1")
    page.open(address)
    page.wait(lambda: rows(page) == ["1 ada 1"])

    server.call("map_clear", channel=CHANNEL)
    run(server, "set", "bob", "2")

    page.wait(lambda: rows(page) == ["1 bob 2"])
