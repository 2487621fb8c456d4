"""The demo's page and token endpoint, and the template tag that any page can use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.template import Context, Template
from django.test import Client, RequestFactory

from realtime.conf import loader


SECRET = "a secret of at least thirty-two bytes"
API_KEY = "an API key that no page may show"


def options_of(settings: Any, **values: Any) -> None:
    """Run with these process options."""
    settings.REALTIME = {
        "demo": True,
        "http_api": {"key": API_KEY},
        "client": {"token": {"hmac_secret_key": SECRET}},
        **values,
    }
    loader.reset()


@pytest.fixture(autouse=True)
def _demo(settings: Any) -> Iterator[None]:
    options_of(settings)
    yield
    loader.reset()


def config_of(html: str) -> dict[str, str]:
    """Return what the page tells the client module."""
    found = re.search(r'<script id="realtime-config" type="application/json">(.*?)</script>', html)
    assert found is not None
    config: dict[str, str] = json.loads(found[1])
    return config


def claims_of(token: str) -> dict[str, Any]:
    """Verify a token and return its claims."""
    claims: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"])
    return claims


def test_page_gives_a_stranger_a_name_and_keeps_it() -> None:
    """Page, reload and renewed token are of one user, remembered by the browser."""
    client = Client()

    first = claims_of(config_of(client.get("/").content.decode())["token"])
    again = claims_of(config_of(client.get("/").content.decode())["token"])
    renewed = claims_of(client.get("/demo/token").json()["token"])

    assert first["sub"].startswith("demo-")
    assert first["sub"] == again["sub"] == renewed["sub"]
    assert first["info"] == renewed["info"]


@pytest.mark.django_db
def test_page_knows_who_is_signed_in() -> None:
    """An account is the user on the wire."""
    account = User.objects.create_user("ada", password="x")
    client = Client()
    client.force_login(account)

    claims = claims_of(config_of(client.get("/").content.decode())["token"])

    assert (claims["sub"], claims["info"]) == (str(account.pk), {"name": "ada"})


@pytest.mark.parametrize("cookie", ["", "demo-1", "demo-1:forged:signature"])
def test_token_is_refused_to_whom_the_page_never_saw(cookie: str) -> None:
    """Nobody becomes somebody else by a cookie of their own making."""
    client = Client()
    client.cookies["demo_visitor"] = cookie

    assert client.get("/demo/token").status_code == 403


def test_page_shows_how_to_publish_but_not_the_key() -> None:
    """The line for the terminal names the variable."""
    html = Client().get("/", headers={"host": "127.0.0.1:8000"}).content.decode()

    assert "curl http://127.0.0.1:8000/api/publish" in html
    assert "$TIDEWIRE_API_KEY" in html
    assert API_KEY not in html
    assert SECRET not in html


@pytest.mark.parametrize("path", ["/", "/demo/token"])
def test_nothing_is_there_when_the_demo_is_off(path: str, settings: Any) -> None:
    """A production server has no demo."""
    options_of(settings, demo=False)

    assert Client().get(path).status_code == 404


def test_page_says_when_tokens_cannot_be_signed(settings: Any) -> None:
    """An operator reads what to set."""
    options_of(settings, client={})

    html = Client().get("/").content.decode()

    assert config_of(html)["token"] == ""
    assert (
        "TIDEWIRE_CLIENT_TOKEN_HMAC_SECRET_KEY" in html.partition("<main>")[2].partition("curl")[0]
    )


@pytest.mark.parametrize("path", ["/", "/demo/token"])
def test_answers_are_not_cached_and_only_read(path: str) -> None:
    """A token belongs to one visitor, and nothing is posted here."""
    client = Client()
    client.get("/")

    assert "no-store" in client.get(path).headers["Cache-Control"]
    assert client.post(path).status_code == 405


def render(source: str, **context: Any) -> str:
    """Render a template that loads the tag."""
    return Template("{% load realtime %}" + source).render(Context(context))


def test_tag_maps_the_name_and_passes_the_configuration() -> None:
    """Two lines of template and a page can import the client."""
    html = render('{% realtime_script token_url="/t" token=token %}', token="jwt")

    assert config_of(html) == {"url": "/connection/websocket", "token": "jwt", "tokenUrl": "/t"}
    assert '{"imports": {"tidewire": "/static/realtime/tidewire.js"}}' in html


def test_tag_escapes_what_could_end_its_script() -> None:
    """A value never becomes markup."""
    html = render("{% realtime_script token=token %}", token="</script><script>alert(1)")

    assert "<script>alert" not in html
    assert config_of(html)["token"] == "</script><script>alert(1)"


def test_tag_leaves_the_import_map_to_a_page_that_has_one() -> None:
    """Older browsers take a single map."""
    assert "importmap" not in render("{% realtime_script importmap=False %}")


class LazyNonce:
    """Like those of Django and of django-csp: false until somebody reads it."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "n0nce"


def test_tag_puts_the_nonce_on_all_that_a_policy_would_stop() -> None:
    """From the context or from the request, read or not."""
    request = RequestFactory().get("/")
    request.csp_nonce = LazyNonce()  # type: ignore[attr-defined]

    for context in ({"csp_nonce": LazyNonce()}, {"request": request}):
        html = render("{% realtime_script %}", **context)
        assert '<script type="importmap" nonce="n0nce">' in html
        assert html.count('nonce="n0nce"') == 2
    assert "nonce" not in render("{% realtime_script %}")


@pytest.mark.parametrize(
    "arguments",
    [["--interval", "0"], ["--interval", "nan"], ["--interval", "soon"], ["--count", "-1"]],
)
def test_command_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    """A wrong option is named instead of tried."""
    with pytest.raises(CommandError, match=arguments[0]):
        call_command("demo", *arguments)
