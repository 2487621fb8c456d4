"""Proxies that are of the right form and impossible all the same."""

from __future__ import annotations

import pytest

from realtime import handlers
from realtime.conf import schema
from realtime.conf.options import (
    ProxyHTTPOptions,
    ProxyOptions,
    StatusToCodeTransform,
    TLSOptions,
    TransformDisconnect,
    TransformError,
)
from realtime.conf.proxy_rules import find_problems, known_proxies, name_problem
from realtime.conf.validation import find_problems as find_problems_of_options


EVENT = "shared_poll_refresh"
NO = TransformError(code=403, message="no")
GONE = TransformDisconnect(code=4504, reason="gone")


def make(endpoint="https://app.example.com/poll", timeout=1.0, **http):
    return ProxyOptions(endpoint=endpoint, timeout=timeout, http=ProxyHTTPOptions(**http))


def wrong(proxy):
    return [path for path, _ in find_problems(proxy)]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:8080",
        "https://app.example.com/poll?a=b%20c",
        "http://[::1]:8000/",
        "python:shop.realtime.prices",
        "python:prices.poll",
    ],
)
def test_a_right_endpoint(endpoint):
    """A URL, or a dotted path."""
    assert wrong(make(endpoint)) == []


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("", "is required"),
        ("grpc://127.0.0.1:9000", "gRPC endpoints come with a later version"),
        ("app.example.com:9000", "gRPC endpoints come with a later version"),
        ("HTTP://a/", "gRPC endpoints come with a later version"),
        ("http://", "with a host"),
        ("http:///poll", "with a host"),
        ("http://a:0/", "with a host"),
        ("http://a:x/", "with a host"),
        ("http://[::1/", "with a host"),
        ("http://a/ b", "printable ASCII"),
        ("http://a/\u00e9", "printable ASCII"),
        ("http://a/\n", "printable ASCII"),
        ("http://user:word@a/", "don't belong into the URL"),
        ("python:", "expected python:"),
        ("python:prices", "expected python:"),
        ("python:shop.realtime:prices", "expected python:"),
        ("python:shop..prices", "expected python:"),
    ],
)
def test_a_wrong_endpoint_is_told(endpoint, told):
    """Which never repeats what may hold a password."""
    ((path, text),) = find_problems(make(endpoint))

    assert path == "endpoint"
    assert told in text
    assert "word" not in text.replace("password", "")


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_a_timeout_is_positive(timeout):
    """Or no call would ever be answered."""
    assert wrong(make(timeout=timeout)) == ["timeout"]


@pytest.mark.parametrize(
    ("name", "value", "is_right"),
    [
        ("X-Key", "a\tb \u00e9", True),
        ("Host", "app", True),
        ("X Key", "a", False),
        ("", "a", False),
        ("X-Key", "a\r\nX-Other: b", False),
        ("X-Key", "a\x00", False),
        ("Content-Length", "5", False),
        ("transfer-encoding", "chunked", False),
        ("Connection", "close", False),
    ],
)
def test_headers_can_be_sent(name, value, is_right):
    """And don't break the request."""
    assert wrong(make(static_headers={name: value})) == (
        [] if is_right else ["http.static_headers"]
    )


@pytest.mark.parametrize(
    ("transform", "path"),
    [
        (StatusToCodeTransform(status_code=403, to_error=NO), None),
        (StatusToCodeTransform(status_code=403, to_disconnect=GONE), None),
        (StatusToCodeTransform(to_error=NO), ".status_code"),
        (StatusToCodeTransform(status_code=403), ""),
        (StatusToCodeTransform(status_code=403, to_error=NO, to_disconnect=GONE), ""),
        (
            StatusToCodeTransform(
                status_code=403, to_error=TransformError(code=1, message="\u00e9")
            ),
            ".to_error.message",
        ),
        (
            StatusToCodeTransform(
                status_code=403, to_disconnect=TransformDisconnect(code=1, reason="\u00e9")
            ),
            ".to_disconnect.reason",
        ),
        (
            StatusToCodeTransform(
                status_code=403, to_disconnect=TransformDisconnect(code=1, reason="x" * 124)
            ),
            ".to_disconnect.reason",
        ),
    ],
)
def test_transforms(transform, path):
    """A status, and one target that a client can be sent."""
    base = "http.status_to_code_transforms.[0]"

    assert wrong(make(status_to_code_transforms=(transform,))) == (
        [] if path is None else [base + path]
    )


def test_a_certificate_needs_its_key():
    """Where TLS is on at all."""
    half = TLSOptions(enabled=True, cert_pem="x")

    assert wrong(make(tls=half)) == ["http.tls.cert_pem"]
    assert wrong(make(tls=TLSOptions(cert_pem="x"))) == []


@pytest.mark.parametrize(
    ("name", "is_right"), [("prices", True), ("a.b-c_d", True), ("x", False), ("default", False)]
)
def test_names(name, is_right):
    """``default`` is taken by the process options."""
    assert bool(name_problem(name)) is not is_right


def test_the_process_options_own_proxy_is_judged_where_it_has_an_endpoint():
    """By the same rules; those of events that come later are only logged."""
    path = "channel.proxy.shared_poll_refresh"
    values = {f"{path}.endpoint": "grpc://a:1", f"{path}.timeout": 0.0}

    found = find_problems_of_options(schema.build(values))

    assert [where for where, _ in found] == [f"{path}.endpoint", f"{path}.timeout"]
    assert find_problems_of_options(schema.build({f"{path}.timeout": 0.0})) == []
    assert find_problems_of_options(schema.build({"channel.proxy.publish.endpoint": "a:1"})) == []


def test_which_proxies_there_are(monkeypatch):
    """Rows, handlers, and the process options' own."""
    monkeypatch.setattr(handlers, "_handlers", {})
    values = {
        "channel.proxy.publish.endpoint": "http://a/",
        "channel.proxy.subscribe.endpoint": "http://a/",
        "channel.proxy.subscribe.timeout": 0.0,
    }
    options = schema.build(values)

    before = known_proxies(options, ["row"])
    handlers.register_handler(EVENT, "prices", print)
    handlers.register_handler(EVENT, "default", print)
    after = known_proxies(options, ["row"])

    assert (before.names, before.defaults) == ({"row"}, {"publish"})
    assert after.names == {"row"}
    assert before.problem(EVENT, "prices")
    assert not after.problem(EVENT, "prices")
    assert after.problem("cache_empty", "prices")
    assert after.defaults == {"publish", EVENT}
    assert after.asks(EVENT)
    assert not after.asks("publish")
