"""A case of the server API: what is sent, and what has to come of it, byte for byte."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from tests.server.api_world import EPOCH, Answer, Call


JSON = "application/json"
BAD_REQUEST = Answer(400, b"Bad Request\n", "text/plain; charset=utf-8")
NOT_FOUND = Answer(404, b"404 page not found\n", "text/plain; charset=utf-8")
SERVER_ERROR = Answer(500, b"Internal Server Error\n", "text/plain; charset=utf-8")
UNAUTHORIZED = Answer(401, b"", "")
FORBIDDEN = Answer(403, b"", "")
NO_METHOD = Answer(405, b"", "")

ERRORS = {
    100: "internal server error",
    102: "unknown channel",
    103: "permission denied",
    104: "not found",
    107: "bad request",
    108: "not available",
    112: "unrecoverable position",
}
STREAM = b'"epoch":"%b"' % EPOCH.encode()


def ok(result: bytes | str = b"{}") -> Answer:
    """Expect a result."""
    result = result.encode() if isinstance(result, str) else result
    return Answer(200, b'{"result":%b}' % result)


def reply(body: bytes) -> Answer:
    """Expect a whole JSON body."""
    return Answer(200, body)


def error_text(code: int) -> bytes:
    """Write the error object."""
    return b'{"code":%d,"message":"%b"}' % (code, ERRORS[code].encode())


def refused(code: int) -> Answer:
    """Expect an API error."""
    return Answer(200, b'{"error":%b}' % error_text(code))


def b64(data: bytes) -> str:
    """Encode."""
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Case:
    """
    One request, after those of ``before``, and what has to come of it.

    ``lane`` is whether the direct lane may answer it; what it leaves to Django is answered by two doors only.
    """

    name: str
    call: Call
    expected: Answer
    before: tuple[Call, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    has_rows: bool = True
    lane: bool = True
    sent: tuple[Any, ...] | None = None
    is_broken: bool = False


def call(method: str, body: bytes | str | dict[str, Any], **facts: Any) -> Call:
    """Make a call of a method."""
    if isinstance(body, dict):
        body = json.dumps(body)
    return Call(f"/api/{method}", body.encode() if isinstance(body, str) else body, **facts)
