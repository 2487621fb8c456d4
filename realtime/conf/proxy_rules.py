"""
What is wrong with a proxy, be it of the process options, a file or a row; and which proxies there are.

No Django: the process options are judged before it is set up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from realtime.conf.options import ProcessOptions, ProxyOptions, StatusToCodeTransform, TLSOptions
from realtime.handlers import EVENTS, handler_names
from realtime.namespaces.names import is_namespace_name
from realtime.namespaces.validation import DEFAULT_PROXY, Proxies


HTTP_PREFIXES = ("http://", "https://")
PYTHON_PREFIX = "python:"

# RFC 9110: a token; and what its client sets itself or a proxy must not pass on.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\uffff]*")
_OWN_HEADERS = frozenset({"connection", "content-length", "transfer-encoding"})
_DOTTED_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
_LONGEST_REASON = 123  # bytes; what fits into a close frame beside the code

Found = Iterator[tuple[str, str]]
"""Option path within the proxy, and what is wrong."""


def name_problem(name: str) -> str:
    """Say why a proxy can't have this name; empty if it can."""
    if name == DEFAULT_PROXY:
        return "default is the proxy of channel.proxy in the process options"
    if not is_namespace_name(name):
        return "must be two or more of ASCII letters, digits, '-', '_' and '.'"
    return ""


def find_problems(proxy: ProxyOptions) -> Found:
    """List what is wrong with a proxy that is to be asked."""
    if text := _endpoint_problem(proxy.endpoint):
        yield "endpoint", text
    if proxy.timeout <= 0:
        yield "timeout", "expected a duration above 0"
    for name, value in proxy.http.static_headers.items():
        if text := _header_problem(name, value):
            yield "http.static_headers", text
    for number, transform in enumerate(proxy.http.status_to_code_transforms):
        for path, text in _transform_problems(transform):
            yield f"http.status_to_code_transforms.[{number}]{path}", text
    yield from _tls_problems("http.tls", proxy.http.tls)


def _endpoint_problem(endpoint: str) -> str:
    if not endpoint:
        return "is required"
    if endpoint.startswith(PYTHON_PREFIX):
        path = endpoint.removeprefix(PYTHON_PREFIX)
        return "" if _DOTTED_PATH.fullmatch(path) else "expected python:package.module.name"
    if not endpoint.startswith(HTTP_PREFIXES):
        return (
            "gRPC endpoints come with a later version: expected a URL that begins with http:// or "
            "https://, or python:package.module.name"
        )
    if not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        return "expected a URL of printable ASCII characters: write others as %XX"
    try:
        url = urlsplit(endpoint)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:
        has_host = False
    if not has_host:
        return "expected a URL with a host, as in https://app.example.com/poll"
    if "@" in url.netloc:
        return "a user and password don't belong into the URL: give a header, Authorization"
    return ""


def _header_problem(name: str, value: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        return f"{name!r} is no name of a header"
    if name.lower() in _OWN_HEADERS:
        return f"{name} can't be set: the connection needs its own"
    if not _HEADER_VALUE.fullmatch(value):
        return f"the value of {name} has a line break or another control character in it"
    return ""


def _transform_problems(transform: StatusToCodeTransform) -> Found:
    error, disconnect = transform.to_error, transform.to_disconnect
    if not transform.status_code:
        yield ".status_code", "is required"
    if bool(error.code) == bool(disconnect.code):
        yield "", "expected to_error or to_disconnect, and one of them only, with a code above 0"
    if not error.message.isascii():
        yield ".to_error.message", "must be ASCII"
    if not disconnect.reason.isascii():
        yield ".to_disconnect.reason", "must be ASCII"
    elif len(disconnect.reason) > _LONGEST_REASON:
        yield ".to_disconnect.reason", f"expected at most {_LONGEST_REASON} bytes"


def _tls_problems(path: str, tls: TLSOptions) -> Found:
    if tls.enabled and bool(tls.cert_pem) != bool(tls.key_pem):
        yield f"{path}.cert_pem", "cert_pem and key_pem belong together"


def known_proxies(options: ProcessOptions, names: Iterable[str]) -> Proxies:
    """
    Say which proxies namespaces may name.

    Args:
        options: Of the process: they have the ``default`` ones.
        names: Of the rows, or of a file's ``proxies``.

    """
    handled = {event: handler_names(event) for event in EVENTS}
    section = options.channel.proxy
    defaults = {
        event
        for event in type(section).__struct_fields__
        if getattr(section, event).endpoint and getattr(section, event).timeout > 0
    }
    defaults.update(event for event, known in handled.items() if DEFAULT_PROXY in known)
    return Proxies(frozenset(names), frozenset(defaults), EVENTS, handled)
