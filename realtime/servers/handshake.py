"""The opening handshake of RFC 6455: is a request an upgrade, and what is answered. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from http import HTTPStatus


Headers = Sequence[tuple[bytes, bytes]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = b"13"
_JUDGED = frozenset({b"connection", b"upgrade", b"sec-websocket-version", b"sec-websocket-key"})


class HandshakeError(Exception):
    """
    The request can't be upgraded.

    Attributes:
        status: The HTTP status to answer with.
        headers: Headers that go with it.

    """

    def __init__(self, status: HTTPStatus, text: str, headers: Headers = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def header_values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return all values of the header ``name`` (lower case), in order."""
    return [value for key, value in headers if key == name]


def check_upgrade(method: bytes, http_version: str, headers: Headers) -> bytes:
    """
    Judge an upgrade request.

    Args:
        method: The request's method.
        http_version: ``"1.0"``, ``"1.1"``...
        headers: With lower-case names.

    Returns:
        The value of ``Sec-WebSocket-Accept``.

    Raises:
        HandshakeError: 405 for another method than GET, else 400.

    """
    if method != b"GET":
        raise HandshakeError(
            HTTPStatus.METHOD_NOT_ALLOWED, "websocket needs GET", ((b"allow", b"GET"),)
        )
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _JUDGED:
            # A repeated key or version is none: a comma is in neither.
            found[name] = b"%b,%b" % (found[name], value) if name in found else value
    if not _has_token(found.get(b"connection", b""), b"upgrade") or not _has_token(
        found.get(b"upgrade", b""), b"websocket"
    ):
        raise HandshakeError(HTTPStatus.BAD_REQUEST, "not a websocket upgrade")
    if http_version in ("0.9", "1.0"):
        raise HandshakeError(HTTPStatus.BAD_REQUEST, "websocket needs HTTP/1.1")
    if found.get(b"sec-websocket-version") != _VERSION:
        raise HandshakeError(
            HTTPStatus.BAD_REQUEST,
            "unsupported websocket version",
            ((b"sec-websocket-version", _VERSION),),
        )
    key = found.get(b"sec-websocket-key", b"")
    if not _is_key(key):
        raise HandshakeError(HTTPStatus.BAD_REQUEST, "bad websocket key")
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _has_token(value: bytes, token: bytes) -> bool:
    lowered = value.lower()
    return lowered == token or token in map(bytes.strip, lowered.split(b","))


def _is_key(key: bytes) -> bool:
    try:
        return len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except binascii.Error:
        return False


def subprotocols_of(headers: Headers) -> list[str]:
    """Return the subprotocols that the client offers, in its order."""
    offered = b",".join(header_values(headers, b"sec-websocket-protocol")).decode("latin-1")
    return [name.strip() for name in offered.split(",") if name.strip()]


def switching_protocols(
    accept: bytes, subprotocol: str | None, extensions: str | None, headers: Headers
) -> bytes:
    """Return the head of the 101 response; ``headers`` are the application's own."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
        accept,
        b"\r\n",
    ]
    if subprotocol:
        lines.append(b"sec-websocket-protocol: %b\r\n" % subprotocol.encode("latin-1"))
    if extensions:
        lines.append(b"sec-websocket-extensions: %b\r\n" % extensions.encode("latin-1"))
    lines.extend(header_line(name, value) for name, value in headers)
    lines.append(b"\r\n")
    return b"".join(lines)


def header_line(name: bytes, value: bytes) -> bytes:
    """
    Return one header as it is written.

    Raises:
        ValueError: A line break is in it: someone tries to slip in a header or a body.

    """
    if b"\r" in name + value or b"\n" in name + value:
        raise ValueError(f"line break in the header {name!r}")
    return b"%b: %b\r\n" % (name, value)


def status_line(status: int) -> bytes:
    """Return the first line of a response."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())


def closing_response(status: int, headers: Headers = (), body: bytes | None = None) -> bytes:
    """
    Return a whole response after which the connection ends.

    Args:
        status: The HTTP status.
        headers: More headers; ``content-length`` and ``connection`` are ours.
        body: ``None`` gives the status's phrase as plain text.

    """
    if body is None:
        try:
            body = HTTPStatus(status).phrase.encode()
        except ValueError:
            body = b""
        headers = (*headers, (b"content-type", b"text/plain; charset=utf-8"))
    lines = [status_line(status)]
    lines.extend(
        header_line(name, value)
        for name, value in headers
        if name.lower() not in (b"content-length", b"connection")
    )
    lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
    lines.append(body)
    return b"".join(lines)
