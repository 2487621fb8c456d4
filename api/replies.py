"""HTTP answers, in the form that every door can send."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from api.codec import encode
from realtime.protocol.api_messages import Error
from realtime.protocol.errors import ClientError


class LaneResponse(NamedTuple):
    """One HTTP answer; the names of headers are in lower case, and ``content-length`` is the sender's business."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


_JSON = ((b"content-type", b"application/json"),)
_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)

# Codes of the API as HTTP statuses, in the transport error mode; any other is a 500.
_STATUSES = {
    100: 500,
    102: 404,
    103: 403,
    104: 404,
    107: 400,
    108: 400,
    112: 416,
    113: 409,
}


def json_response(body: bytes, status: int = 200) -> LaneResponse:
    """Answer with JSON text."""
    return LaneResponse(status, _JSON, body)


def text_response(status: int, text: bytes) -> LaneResponse:
    """Answer with a line of plain text."""
    return LaneResponse(status, _TEXT, text)


def empty_response(status: int) -> LaneResponse:
    """Answer with a status only."""
    return LaneResponse(status, (), b"")


def result_response(result: msgspec.Struct) -> LaneResponse:
    """
    Answer with a result in its envelope.

    Raises:
        UnencodablePayload: A payload in it is not JSON.

    """
    text = encode(result)
    if text == b"{}":
        return _EMPTY_RESULT
    return json_response(b'{"result":%b}' % text)


def error_response(error: ClientError, *, is_transport: bool = False) -> LaneResponse:
    """Answer with an error: in its envelope with status 200, or bare with a status of its own."""
    text = error_text(error)
    if is_transport:
        return json_response(text, _STATUSES.get(error.code, 500))
    return json_response(b'{"error":%b}' % text)


def error_text(error: ClientError) -> bytes:
    """Encode code and message."""
    return encode(Error(error.code, error.message))


_EMPTY_RESULT = json_response(b'{"result":{}}')

BAD_REQUEST = text_response(400, b"Bad Request\n")
NOT_FOUND = text_response(404, b"404 page not found\n")
SERVER_ERROR = text_response(500, b"Internal Server Error\n")
UNAUTHORIZED = empty_response(401)
FORBIDDEN = empty_response(403)
METHOD_NOT_ALLOWED = empty_response(405)
UNAVAILABLE = empty_response(503)
