"""The opening handshake: who gets 101, and what the others get."""

from __future__ import annotations

import pytest

from realtime.servers.handshake import (
    HandshakeError,
    check_upgrade,
    closing_response,
    header_line,
    subprotocols_of,
    switching_protocols,
)


KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    b"host": b"localhost",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-key": KEY,
    b"sec-websocket-version": b"13",
}


def test_the_specifications_own_key_gets_its_own_answer() -> None:
    """RFC 6455 section 1.3."""
    assert check_upgrade(b"GET", "1.1", list(GOOD.items())) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_tokens_are_found_in_lists_and_in_any_case() -> None:
    """Firefox sends ``keep-alive, Upgrade``."""
    headers = {**GOOD, b"connection": b"keep-alive, upgrade", b"upgrade": b"WebSocket"}

    assert check_upgrade(b"GET", "1.1", list(headers.items()))


@pytest.mark.parametrize(
    ("method", "version", "changes", "status"),
    [
        (b"POST", "1.1", {}, 405),
        (b"HEAD", "1.1", {}, 405),
        (b"GET", "1.0", {}, 400),
        (b"GET", "1.1", {b"upgrade": b"h2c"}, 400),
        (b"GET", "1.1", {b"upgrade": None}, 400),
        (b"GET", "1.1", {b"connection": b"close"}, 400),
        (b"GET", "1.1", {b"sec-websocket-version": b"8"}, 400),
        (b"GET", "1.1", {b"sec-websocket-version": None}, 400),
        (b"GET", "1.1", {b"sec-websocket-key": None}, 400),
        (b"GET", "1.1", {b"sec-websocket-key": b"dG9vIHNob3J0"}, 400),
        (b"GET", "1.1", {b"sec-websocket-key": b"\xff not base64"}, 400),
    ],
)
def test_a_bad_upgrade_gets_the_documented_status(
    method: bytes, version: str, changes: dict[bytes, bytes | None], status: int
) -> None:
    """405 for another method, 400 for the rest."""
    headers = [(name, value) for name, value in {**GOOD, **changes}.items() if value is not None]

    with pytest.raises(HandshakeError) as raised:
        check_upgrade(method, version, headers)

    assert raised.value.status == status


def test_a_key_that_comes_twice_is_refused() -> None:
    """Which one would the answer belong to?"""
    with pytest.raises(HandshakeError):
        check_upgrade(b"GET", "1.1", [*GOOD.items(), (b"sec-websocket-key", KEY)])


def test_subprotocols_keep_the_clients_order() -> None:
    """Over several headers, without empty ones."""
    headers = [
        (b"sec-websocket-protocol", b"centrifuge-protobuf, centrifuge-json"),
        (b"x", b"y"),
        (b"sec-websocket-protocol", b" ,other"),
    ]

    assert subprotocols_of(headers) == ["centrifuge-protobuf", "centrifuge-json", "other"]


def test_the_answer_carries_what_was_agreed() -> None:
    """Byte for byte."""
    head = switching_protocols(b"abc=", "centrifuge-json", "permessage-deflate", [(b"x-a", b"1")])

    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: abc=\r\nsec-websocket-protocol: centrifuge-json\r\n"
        b"sec-websocket-extensions: permessage-deflate\r\nx-a: 1\r\n\r\n"
    )


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
def test_a_header_with_a_line_break_is_not_written(value: bytes) -> None:
    """Or whoever controls the value controls the response."""
    with pytest.raises(ValueError, match="line break"):
        header_line(b"location", value)


def test_an_error_response_ends_the_connection() -> None:
    """Its length and its end are ours to state, whatever the application says."""
    response = closing_response(403, [(b"Content-Length", b"9999"), (b"x-a", b"1")])

    assert response == (
        b"HTTP/1.1 403 Forbidden\r\nx-a: 1\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"content-length: 9\r\nconnection: close\r\n\r\nForbidden"
    )
    assert closing_response(499, body=b"") == (
        b"HTTP/1.1 499 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
