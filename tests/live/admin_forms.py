"""A person at the admin, as a browser would send what is typed: forms are read, changed and posted."""

from __future__ import annotations

import http.cookiejar
import urllib.parse
import urllib.request
from html.parser import HTMLParser

from tests.live.harness import Server, manage


NAME, PASSWORD = "operator", "a password for live tests"


class _Form(HTMLParser):
    """The fields of a page's forms, with what a browser would send for each."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._select = self._textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        if tag == "input" and name:
            kind = given.get("type", "text")
            if kind in ("submit", "button", "file") or (
                kind in ("checkbox", "radio") and "checked" not in given
            ):
                return
            self.values[name] = given.get("value", "on" if kind == "checkbox" else "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            if "selected" in given or self._select not in self.values:
                self.values[self._select] = given.get("value", "")
        elif tag == "textarea":
            self._textarea = name
            self.values[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            # A browser drops the line break that Django puts first.
            self.values[self._textarea] += data.removeprefix("\r\n").removeprefix("\n")


def make_operator(server: Server) -> None:
    """Put the person into the server's database."""
    manage(
        server.database,
        *("shell", "-v", "0", "-c"),
        "from django.contrib.auth.models import User\n"
        f"User.objects.create_superuser({NAME!r}, password={PASSWORD!r})",
    )


class Operator:
    """One person, logged in on one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)
        self.submit("/admin/login/", username=NAME, password=PASSWORD)

    def submit(self, path: str, **edits: str | None) -> str:
        """Fill in the form of a page and send it; returns the page after it. ``None`` unticks a box."""
        url = self._server.url + path
        with self._opener.open(url, timeout=20) as response:
            form = _Form()
            form.feed(response.read().decode())
        values = {**form.values, **edits}
        body = urllib.parse.urlencode(
            {name: value for name, value in values.items() if value is not None}
        )
        with self._opener.open(url, body.encode(), timeout=20) as response:
            page: str = response.read().decode()
        assert response.url != url, f"the form at {path} was not accepted: {page}"
        return page
