"""
From an authenticated request's body to the answer: what all HTTP doors have in common.

Errors are translated here once: a ``ClientError`` becomes the API's error object, an unreadable body 400, a payload that
can't stand in JSON 500, and anything unforeseen code 100 with the details in the log only.
"""

from __future__ import annotations

import logging

import msgspec
from msgspec import Raw

from api.codec import MalformedRequest, UnencodablePayload, encode, request_decoder
from api.keys import Caller
from api.methods import BATCH, LEGACY_NAMES, LEGACY_NUMBERS, METHODS, Method
from api.replies import (
    BAD_REQUEST,
    SERVER_ERROR,
    UNAVAILABLE,
    LaneResponse,
    error_response,
    error_text,
    json_response,
    result_response,
)
from realtime import commands
from realtime.node.node import Node
from realtime.protocol.api_messages import BatchRequest, UInt32
from realtime.protocol.errors import (
    BadRequestError,
    ClientError,
    InternalError,
    NotFoundError,
    PermissionDeniedError,
)
from realtime.protocol.go_json import MalformedJson, split_values
from realtime.protocol.messages import EMPTY


logger = logging.getLogger(__name__)


async def execute(
    node: Node, method: Method, caller: Caller, body: bytes, *, is_transport: bool
) -> LaneResponse:
    """
    Carry out one request whose caller may call ``method``.

    Args:
        node: The node.
        method: From the path.
        caller: Judges the commands of a batch.
        body: The whole body.
        is_transport: Whether the request asks for the transport error mode; the option may, too.

    """
    try:
        request = method.decode(body)
    except MalformedRequest:
        return BAD_REQUEST
    try:
        if method is BATCH:
            assert isinstance(request, BatchRequest)
            return json_response(
                encode(await commands.batch(node, request, may_call=caller.may_call))
            )
        return result_response(await method.command(node, request))
    except ClientError as error:
        return error_response(error, is_transport=is_transport or _is_transport(node))
    except UnencodablePayload:
        return _unencodable(method.name)
    except Exception:
        logger.exception("an API method failed", extra={"method": method.name})
        return error_response(InternalError(), is_transport=is_transport or _is_transport(node))


def _is_transport(node: Node) -> bool:
    return node.options.http_api.error_mode == "transport"


def _unencodable(method: str) -> LaneResponse:
    logger.error("a payload is not JSON and can't stand in the reply", extra={"method": method})
    return SERVER_ERROR


# --- the legacy stream --------------------------------------------------------------------------


class LegacyCommand(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A command of the legacy stream; ``method`` is a name or a number, absent for publish."""

    id: UInt32 = 0
    method: Raw = EMPTY
    params: Raw = EMPTY


_decode_command = request_decoder(LegacyCommand)
_PUBLISH = 0


async def execute_stream(node: Node, caller: Caller, body: bytes) -> LaneResponse:
    """
    Carry out a legacy command stream, command by command, and answer a line for each.

    All commands are read before the first is carried out, so a malformed stream has no effect.
    """
    if node.is_draining:
        return UNAVAILABLE
    try:
        parsed = [(command, _method_name(command)) for command in _read_stream(body)]
        replies = [await _legacy_reply(node, caller, *each) for each in parsed]
    except MalformedRequest:
        return BAD_REQUEST
    except UnencodablePayload:
        return _unencodable("legacy")
    return json_response(b"\n".join(replies))


def _read_stream(body: bytes) -> list[LegacyCommand]:
    try:
        values = split_values(body)
    except (MalformedJson, RecursionError) as error:
        raise MalformedRequest from error
    if not values:
        raise MalformedRequest
    return [_decode_command(value) for value in values]


def _method_name(command: LegacyCommand) -> str:
    """Return a name; ``""`` for a number that stands for nothing. Raises ``MalformedRequest`` for an unknown name."""
    text = bytes(command.method)
    if not text or text == b"null":
        return LEGACY_NUMBERS[_PUBLISH]
    try:
        method: int | str = msgspec.json.decode(text, type=int | str)
    except msgspec.MsgspecError as error:
        raise MalformedRequest from error
    if isinstance(method, int):
        return LEGACY_NUMBERS.get(method, "")
    if method.lower() not in LEGACY_NAMES:
        raise MalformedRequest
    return method.lower()


async def _legacy_reply(node: Node, caller: Caller, command: LegacyCommand, name: str) -> bytes:
    try:
        outcome = b'"result":' + await _legacy_result(node, caller, command, name)
    except ClientError as error:
        outcome = b'"error":' + error_text(error)
    except UnencodablePayload:
        raise
    except Exception:
        logger.exception("an API method failed", extra={"method": name})
        outcome = b'"error":' + error_text(InternalError())
    return b'{"id":%d,%b}' % (command.id, outcome) if command.id else b"{%b}" % outcome


async def _legacy_result(node: Node, caller: Caller, command: LegacyCommand, name: str) -> bytes:
    method = METHODS.get(name)
    if method is None:
        raise NotFoundError
    if not caller.may_call(name):
        raise PermissionDeniedError
    try:
        request = method.decode(bytes(command.params))
    except MalformedRequest as error:
        raise BadRequestError from error
    return encode(await method.command(node, request))
