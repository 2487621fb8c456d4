"""
The server API's JSON: requests as Go reads them, replies as Go writes them.

A request is first read by a strict decoder; what it refuses is read again by Go's laxer rules. A reply
escapes ``<``, ``>``, ``&`` and the two Unicode line separators, so that it can stand in HTML and in JavaScript, and has no
white space that does not count, in payloads neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from realtime.protocol.api_messages import (
    BatchResponse,
    HistoryResult,
    MapEntry,
    MapReadStateResult,
    MapReadStreamResult,
    PresenceResult,
    Publication,
    Reply,
    RPCResult,
)
from realtime.protocol.go_json import MalformedJson, mend, normalise
from realtime.protocol.messages import EMPTY, ClientInfo


RequestT = TypeVar("RequestT", bound=msgspec.Struct)


class MalformedRequest(ValueError):  # noqa: N818 -- said of the input, not of us
    """A request's body is not JSON of the right types."""


class UnencodablePayload(ValueError):  # noqa: N818 -- said of the payload, not of us
    """A payload is not JSON, so that it cannot be part of a JSON reply."""


def request_decoder(message_type: type[RequestT]) -> Callable[[bytes], RequestT]:
    """Return a function that decodes a body; it raises ``MalformedRequest``."""
    decode_strictly = msgspec.json.Decoder(message_type).decode

    def decode(body: bytes) -> RequestT:
        try:
            # The strict decoder does not look into payloads for what is not UTF-8.
            if not body.isascii():
                body.decode()
            return decode_strictly(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        try:
            return decode_strictly(normalise(message_type, body))
        except (msgspec.MsgspecError, MalformedJson, RecursionError) as error:
            raise MalformedRequest from error

    return decode


_encode = msgspec.json.Encoder().encode
_UNSAFE = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_ESCAPES = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    b"\xe2\x80\xa8": rb"\u2028",
    b"\xe2\x80\xa9": rb"\u2029",
}


def encode(message: msgspec.Struct) -> bytes:
    """
    Encode a result, an error or a batch's response.

    Raises:
        UnencodablePayload: It holds a payload that is not JSON.

    """
    compacted = _COMPACTED.get(type(message))
    if compacted is not None:
        message = compacted(message)
    text = _encode(message)
    if _UNSAFE.search(text):
        # Outside strings these characters don't occur in JSON.
        return _UNSAFE.sub(lambda match: _ESCAPES[match[0]], text)
    return text


def _compact(payload: Raw) -> Raw:
    if not payload:
        return EMPTY
    text = bytes(payload)
    try:
        if not text.isascii():
            text.decode()
        return Raw(_without_blanks(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnencodablePayload from error


def _without_blanks(text: bytes) -> bytes:
    try:
        return msgspec.json.format(text, indent=-1)
    except msgspec.MsgspecError:
        mended = mend(text)  # half a surrogate pair is JSON for everybody but this decoder
        if mended == text:
            raise
    return msgspec.json.format(mended, indent=-1)


def _compact_info(info: ClientInfo) -> ClientInfo:
    if not (info.conn_info or info.chan_info):
        return info
    return ClientInfo(info.user, info.client, _compact(info.conn_info), _compact(info.chan_info))


def _compact_history(result: HistoryResult) -> HistoryResult:
    publications = [
        Publication(
            data=_compact(pub.data),
            info=None if pub.info is None else _compact_info(pub.info),
            offset=pub.offset,
            # An empty map is a zero value like any other.
            tags=pub.tags or None,
        )
        for pub in result.publications
    ]
    return HistoryResult(publications, result.epoch, result.offset)


def _compact_presence(result: PresenceResult) -> PresenceResult:
    return PresenceResult({client: _compact_info(info) for client, info in result.presence.items()})


def _compact_rpc(result: RPCResult) -> RPCResult:
    return RPCResult(_compact(result.data))


def _compact_entries(entries: list[MapEntry]) -> list[MapEntry]:
    return [replace(entry, data=_compact(entry.data), tags=entry.tags or None) for entry in entries]


def _compact_map_page(
    result: MapReadStateResult | MapReadStreamResult,
) -> MapReadStateResult | MapReadStreamResult:
    return replace(result, entries=_compact_entries(result.entries))


def _compact_reply(reply: Reply) -> Reply:
    for name in _IN_REPLIES:
        result = getattr(reply, name)
        if result is not None:
            return replace(reply, **{name: _COMPACTED[type(result)](result)})
    return reply


def _compact_batch(response: BatchResponse) -> BatchResponse:
    return BatchResponse([_compact_reply(reply) for reply in response.replies])


# The messages that hold payloads.
_COMPACTED: dict[type[Any], Callable[[Any], msgspec.Struct]] = {
    HistoryResult: _compact_history,
    PresenceResult: _compact_presence,
    RPCResult: _compact_rpc,
    MapReadStateResult: _compact_map_page,
    MapReadStreamResult: _compact_map_page,
    BatchResponse: _compact_batch,
}
_IN_REPLIES = ("history", "presence", "rpc", "map_read_state", "map_read_stream")
