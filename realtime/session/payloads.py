"""Is what was published of the format that the namespace asks for?"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from realtime.protocol.errors import BadRequestError
from realtime.session.rules import Step, Trace, refuse


# What Go's JSON accepts and the fast decoder does not: escapes of half a surrogate pair. Any other escape
# of the same length in their place leaves the syntax as it was.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_json = msgspec.json.Decoder(Raw)


def check_data_format(data_format: str, data: bytes | Raw, trace: Trace = None) -> None:
    """
    Check a payload against ``publication_data_format``; ``data`` is what the client sent, unchanged.

    ``""`` takes anything but nothing, ``json`` any JSON value, ``json_object`` a JSON object, ``binary`` anything.

    Raises:
        BadRequestError: The payload isn't of that format.

    """
    obstacle = _payload_obstacle(data_format, data)
    if obstacle:
        refuse(trace, "data_format", BadRequestError(), obstacle)
    if trace is not None:
        trace.append(Step("data_format", "pass", f"the data is {data_format or 'not empty'}"))


def _payload_obstacle(data_format: str, data: bytes | Raw) -> str:
    if data_format == "binary":
        return ""
    if not data:
        return "the data is empty"
    if not data_format:
        return ""
    payload = bytes(data)
    if not _is_json(payload):
        return "the data is not JSON"
    if data_format == "json_object" and payload.lstrip(b" \t\r\n")[:1] != b"{":
        return "the data is not a JSON object"
    return ""


def _is_json(text: bytes) -> bool:
    """Check syntax only; what is nested deeper than the decoder goes (some 1,000 levels) is refused."""
    try:
        _json.decode(text)
    except RecursionError:
        return False
    except msgspec.MsgspecError:
        mended, count = _SURROGATE_ESCAPE.subn(rb"\\u0000", text)
        if not count:
            return False
    else:
        return True
    try:
        _json.decode(mended)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True
