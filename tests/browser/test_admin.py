"""The admin in Chromium, and its effect on a socket that is open all the while."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from websockets.sync.client import ClientConnection, connect

from tests.browser.conftest import Page
from tests.live.harness import Server, make_token, manage


pytestmark = pytest.mark.browser

PASSWORD = "a password for this test"
MAKE_ADMIN = (
    "from django.contrib.auth import get_user_model; "
    f"get_user_model().objects.filter(username='tester').exists() or get_user_model().objects.create_superuser('tester', password={PASSWORD!r})"
)


class LiveSocket:
    """A connected client, one command after the other."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.next_id = 0

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command; return its reply."""
        self.next_id += 1
        self.connection.send(json.dumps({"id": self.next_id, **command}))
        while True:
            reply: dict[str, Any] = json.loads(self.connection.recv(timeout=30))
            if reply.get("id") == self.next_id:
                return reply

    def ask_until(self, command: dict[str, Any], key: str, code: int = 0) -> float:
        """Repeat a command until it is answered by ``key`` (and code); return the seconds that took."""
        began = time.monotonic()
        while True:
            reply = self.ask(command)
            if key in reply and (not code or reply[key]["code"] == code):
                return time.monotonic() - began
            assert time.monotonic() - began < 30, reply
            # One that was let in meanwhile must not be answered "already subscribed" next.
            self.ask({"unsubscribe": {"channel": command["subscribe"]["channel"]}})


@pytest.fixture
def admin(page: Page, demo_server: Server) -> Page:
    """Give the admin, logged in."""
    manage(demo_server.database, "shell", "-v0", "-c", MAKE_ADMIN)
    page.open(f"{demo_server.url}/admin/")
    page.driver.find_element(By.NAME, "username").send_keys("tester")
    page.driver.find_element(By.NAME, "password").send_keys(PASSWORD)
    page.driver.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    page.wait(lambda: "Namespaces" in page.driver.page_source)
    return page


@pytest.fixture
def live_socket(demo_server: Server) -> Iterator[LiveSocket]:
    """Give a socket that stays open while the admin works."""
    with connect(demo_server.websocket_url) as connection:
        live = LiveSocket(connection)
        assert "connect" in live.ask({"connect": {"token": make_token("u")}})
        yield live


def save(page: Page) -> None:
    """Press the form's own button and wait for the answer."""
    button = page.driver.find_element(By.NAME, "_save")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    page.wait(lambda: page.driver.find_elements(By.CSS_SELECTOR, ".messagelist, .errornote"))


def tick(page: Page, name: str) -> None:
    """Press a checkbox."""
    box = page.driver.find_element(By.NAME, name)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    box.click()


def test_a_namespace_edited_in_the_admin_applies_to_a_live_socket(
    admin: Page, live_socket: LiveSocket, demo_server: Server
) -> None:
    """Made, it opens its channels; edited, it closes them again; no restart, within about a second."""
    subscribe = {"subscribe": {"channel": "rooms:a"}}
    unsubscribe = {"unsubscribe": {"channel": "rooms:a"}}
    assert live_socket.ask(subscribe)["error"]["code"] == 102

    admin.open(f"{demo_server.url}/admin/realtime/namespace/add/")
    admin.driver.find_element(By.NAME, "name").send_keys("rooms")
    tick(admin, "allow_subscribe_for_client")
    save(admin)
    opened_after = live_socket.ask_until(subscribe, "subscribe")

    live_socket.ask(unsubscribe)
    admin.open(f"{demo_server.url}/admin/realtime/namespace/")
    admin.driver.find_element(By.LINK_TEXT, "rooms").click()
    tick(admin, "allow_subscribe_for_client")
    save(admin)
    live_socket.ask(unsubscribe)
    closed_after = live_socket.ask_until({"subscribe": {"channel": "rooms:b"}}, "error", code=103)

    assert opened_after < 5
    assert closed_after < 5


def test_a_wrong_value_is_refused_at_its_field(admin: Page, demo_server: Server) -> None:
    """History needs a size and a time; the message stands where it can be mended."""
    admin.open(f"{demo_server.url}/admin/realtime/namespace/add/")
    admin.driver.find_element(By.NAME, "name").send_keys("half")
    size = admin.driver.find_element(By.NAME, "history_size")
    size.clear()
    size.send_keys("10")

    save(admin)

    errors = admin.driver.find_elements(By.CSS_SELECTOR, ".errors .errorlist, .errorlist")
    assert any("history" in error.text.lower() for error in errors)
    assert "/add/" in admin.driver.current_url


def test_a_proxy_is_added_and_chosen_in_a_namespace(admin: Page, demo_server: Server) -> None:
    """A secret header is typed once and not shown again; the proxy that a namespace names stays."""
    driver = admin.driver
    admin.open(f"{demo_server.url}/admin/realtime/proxy/add/")
    driver.find_element(By.NAME, "name").send_keys("prices")
    driver.find_element(By.NAME, "endpoint").send_keys("http://127.0.0.1:9/poll")
    driver.find_element(By.NAME, "http_static_headers").send_keys("X-Key: s3cret\nX-Two: 2")
    save(admin)
    admin.open(f"{demo_server.url}/admin/realtime/namespace/add/")
    driver.find_element(By.NAME, "name").send_keys("stocks")
    for column, label in (("subscribe_proxy_name", "prices"), ("shared_poll_proxy_name", "prices")):
        choice = driver.find_element(By.NAME, column)
        driver.execute_script("arguments[0].closest('details')?.setAttribute('open', '')", choice)
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", choice)
        Select(choice).select_by_visible_text(label)
    save(admin)

    admin.open(f"{demo_server.url}/admin/realtime/proxy/")
    assert "stocks" in driver.find_element(By.ID, "result_list").text
    driver.find_element(By.LINK_TEXT, "prices").click()
    shown = driver.find_element(By.NAME, "http_static_headers").get_attribute("value")
    assert shown == "X-Key: ********\nX-Two: ********"
    assert "s3cret" not in driver.page_source
    driver.find_element(By.CSS_SELECTOR, ".deletelink").click()
    admin.wait(lambda: "cannot be deleted" in driver.page_source)
    assert "namespace stocks names prices" in driver.page_source
