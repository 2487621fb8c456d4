"""Chromium, and the server that it looks at."""

from __future__ import annotations

import contextlib
import functools
import http.server
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.live.harness import API_KEY, ROOT, Server, environment, manage


LIVE_PACKAGES = ROOT / "tests" / "live" / "js" / "node_modules"
WAIT_SECONDS = 30.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


class Page:
    """One tab of a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    def text(self, element: str) -> str:
        """Return what an element shows, by its id."""
        return self.driver.find_element(By.ID, element).text

    def number(self, element: str) -> int:
        """Return a number that an element shows; 0 while it shows none."""
        text = self.text(element)
        return int(text) if text.isdigit() else 0

    def wait(self, what: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Wait until ``what()`` is true; an error shows the page's text."""
        try:
            WebDriverWait(self.driver, seconds, poll_frequency=0.1).until(lambda _: what())
        except Exception as error:
            body = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"not within {seconds:g} s; the page shows:\n{body}") from error

    def wait_for(self, element: str, text: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until an element shows ``text``."""
        self.wait(lambda: text in self.text(element), seconds)

    def errors(self) -> list[str]:
        """Return what the browser's console complains about."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def make_page(tmp_path: Path) -> Iterator[Callable[[], Page]]:
    """Give a function that starts a browser of its own, with its own cookies."""
    with contextlib.ExitStack() as stack:

        def make() -> Page:
            options = webdriver.ChromeOptions()
            options.binary_location = "/usr/bin/chromium"
            for flag in _FLAGS:
                options.add_argument(flag)
            options.add_argument(f"--user-data-dir={tmp_path / f'profile-{id(options)}'}")
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            service = webdriver.ChromeService("/usr/bin/chromedriver")
            driver = webdriver.Chrome(options=options, service=service)
            stack.callback(driver.quit)
            return Page(driver)

        yield make


@pytest.fixture
def page(make_page: Callable[[], Page]) -> Page:
    """Give one browser."""
    return make_page()


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server with the demo, as ``make run`` prepares it, and the demo's process beside it."""
    folder = tmp_path_factory.mktemp("demo")
    manage(folder / "db.sqlite3", "bootstrap")
    options = {"TIDEWIRE_DEMO": "true", "TIDEWIRE_CLIENT_ALLOWED_ORIGINS": "http://127.0.0.1:*"}
    server = Server("serve", folder, options).start()
    feed_environment = environment(
        server.database, {"TIDEWIRE_API_URL": f"{server.url}/api", "TIDEWIRE_API_KEY": API_KEY}
    )
    command = [sys.executable, str(ROOT / "manage.py"), "demo", "--interval", "0.2"]
    with (folder / "feed.log").open("wb") as log:
        feed = subprocess.Popen(command, env=feed_environment, cwd=ROOT, stdout=log, stderr=log)
    yield server
    feed.terminate()
    # One that is still importing dies of the signal.
    assert feed.wait(15) in (0, -signal.SIGTERM), (folder / "feed.log").read_text()
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def web_root(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder and the address under which the test itself serves it."""
    handler = functools.partial(_QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""
