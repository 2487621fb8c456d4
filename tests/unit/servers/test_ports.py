"""Which endpoint is on which port."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from django.test import override_settings

from realtime.conf.options import ProcessOptions
from realtime.servers.limits import endpoint_names
from realtime.servers.ports import SCOPE_KEY, Ports, Side, admin_paths, listeners


EVERYTHING: dict[str, Any] = {
    name: {"enabled": True}
    for name in ("health", "swagger", "prometheus", "debug", "sse", "http_stream", "init")
}
TRANSPORTS = {
    "/connection/websocket",
    "/connection/sse",
    "/connection/http_stream",
    "/connection/init",
    "/emulation",
}
INSIDE = {
    "/api",
    "/api/publish",
    "/api/unknown/",
    "/admin",
    "/admin/",
    "/admin/login/",
    "/health",
    "/metrics",
    "/swagger",
    "/swagger/openapi.json",
    "/debug/pprof/tasks",
}
ELSEWHERE = {"/", "/static/page.css", "/apiary", "/healthy", "//api/publish", "/connection/own"}


def _options(**sections: dict[str, Any]) -> ProcessOptions:
    return msgspec.convert(sections, ProcessOptions)


def _split(**sections: dict[str, Any]) -> ProcessOptions:
    http = {"address": "127.0.0.1", "port": 8000, "internal_port": "9000"}
    return _options(**{**sections, "http_server": {**http, **sections.get("http_server", {})}})


def _open(ports: Ports, paths: set[str], **scope: Any) -> set[str]:
    return {path for path in paths if not ports.is_closed({"path": path, **scope})}


def test_without_an_internal_port_everything_is_everywhere() -> None:
    """One listener, and nothing to ask."""
    options = _options(http_server={"port": 8000, "internal_port": "8000"}, **EVERYTHING)

    (listener,) = listeners(options)

    assert (listener.side, listener.port) == (Side.ALL, 8000)
    everything = TRANSPORTS | INSIDE | ELSEWHERE
    ports = Ports(options, api=["/api"])
    assert _open(ports, everything, server=("127.0.0.1", 8000)) == everything


@pytest.mark.parametrize(
    ("side", "server"),
    [(Side.EXTERNAL, ("127.0.0.1", 9000)), (None, ("10.0.0.1", 8000)), (None, None)],
)
def test_outside_there_are_the_transports(side: Side | None, server: object) -> None:
    """What a listener says counts; else the server's port, and what is not known is outside."""
    ports = Ports(_split(**EVERYTHING), api=["/api"])
    scope = {"server": server} if side is None else {"server": server, SCOPE_KEY: side}

    assert _open(ports, TRANSPORTS | INSIDE | ELSEWHERE, **scope) == TRANSPORTS | ELSEWHERE


@pytest.mark.parametrize(
    ("side", "server"), [(Side.INTERNAL, ("127.0.0.1", 8000)), (None, ("10.0.0.1", 9000))]
)
def test_inside_there_is_all_else(side: Side | None, server: object) -> None:
    """No client is to find its way in there."""
    ports = Ports(_split(**EVERYTHING), api=["/api"])
    scope = {"server": server} if side is None else {"server": server, SCOPE_KEY: side}

    assert _open(ports, TRANSPORTS | INSIDE | ELSEWHERE, **scope) == INSIDE | ELSEWHERE


def test_the_api_and_the_admin_can_be_outside_too() -> None:
    """Each by its option."""
    api = Ports(_split(http_api={"external": True}), api=["/api"])
    admin = Ports(_split(admin={"external": True}), api=["/api"])
    paths = {"/api/publish", "/admin/login/"}

    assert _open(api, paths, server=None) == {"/api/publish"}
    assert _open(admin, paths, server=None) == {"/admin/login/"}
    assert _open(api, paths, server=("", 9000)) == paths


def test_prefixes_are_those_of_the_options() -> None:
    """An endpoint at the root closes the root and not what is below; one that is off closes nothing."""
    options = _split(
        websocket={"handler_prefix": "/rt"},
        health={"enabled": True, "handler_prefix": ""},
        prometheus={"enabled": False},
    )
    ports = Ports(options, api=["/rt/api"])
    paths = {"/", "/rt", "/rt/api", "/rt/api/info", "/metrics", "/page"}

    assert _open(ports, paths, server=None) == {"/rt", "/metrics", "/page"}
    assert _open(ports, paths, server=("", 9000)) == paths - {"/rt"}


@pytest.mark.parametrize("path", ["/below/api/publish", "/api/publish", "/below/admin/"])
def test_a_prefix_of_the_site_opens_nothing(path: str) -> None:
    """Whether the proxy has cut it off or not."""
    ports = Ports(_split(), api=["/api"])

    assert ports.is_closed({"path": path, "server": None, "root_path": "/below"})
    with override_settings(FORCE_SCRIPT_NAME="/below"):
        assert ports.is_closed({"path": path, "server": None})
        assert not ports.is_closed({"path": "/below/page", "server": None})


def test_an_address_alone_can_be_internal() -> None:
    """On the same port."""
    options = _options(
        http_server={"address": "192.0.2.1", "port": 8000, "internal_address": "127.0.0.1"}
    )
    ports = Ports(options, api=["/api"])

    assert [(each.address, each.port) for each in listeners(options)] == [
        ("192.0.2.1", 8000),
        ("127.0.0.1", 8000),
    ]
    assert _open(ports, {"/api"}, server=("192.0.2.1", 8000)) == set()
    assert _open(ports, {"/api"}, server=("127.0.0.1", 8000)) == {"/api"}


@pytest.mark.parametrize(
    ("http", "has_tls", "paths"),
    [
        ({}, [False, False], ["tls", "tls"]),
        ({"tls": {"enabled": True}}, [True, True], ["tls", "tls"]),
        ({"tls": {"enabled": True}, "tls_external": True}, [True, False], ["tls", "tls"]),
        ({"internal_tls": {"enabled": True}}, [False, True], ["tls", "internal_tls"]),
        (
            {"tls": {"enabled": True}, "internal_tls": {"enabled": True}, "tls_external": True},
            [True, True],
            ["tls", "internal_tls"],
        ),
    ],
)
def test_each_listener_has_its_tls(
    http: dict[str, Any], has_tls: list[bool], paths: list[str]
) -> None:
    """``tls`` is for both, unless it is external only or the internal one has its own."""
    found = listeners(_split(http_server=http))

    assert [each.tls.enabled for each in found] == has_tls
    assert [each.tls_path for each in found] == [f"http_server.{path}" for path in paths]


def test_the_start_up_line_of_each_listener_says_what_is_there() -> None:
    """In the reference's order."""
    options = _split(health={"enabled": True}, http_api={"external": True})

    assert endpoint_names(options, Side.EXTERNAL) == ["websocket", "api"]
    assert endpoint_names(options, Side.INTERNAL) == ["api", "admin", "health"]


@override_settings(ROOT_URLCONF="tests.unit.servers.translated_urls")
def test_the_admin_is_found_in_every_language() -> None:
    """Where its path depends on that."""
    with override_settings(LANGUAGES=[("en", "English"), ("de", "German")]):
        assert set(admin_paths()) == {"/en/office/", "/de/office/"}
