"""
The gRPC door: the service that published stubs call, made from the table of methods.

Requests and responses pass as bytes, since ``api_protobuf`` reads and writes them faster than the generated classes would and
straight from the structs that every door uses. A method of the schema that the table lacks is UNIMPLEMENTED, which gRPC
itself answers.

Errors are translated here once: a refused caller becomes UNAUTHENTICATED or PERMISSION_DENIED, bytes that are no request
INTERNAL (as Go's gRPC has it), a ``ClientError`` the response's error object, or, in the transport error mode, a status
with that object in its details.

Source: ``server-api`` 3 and 10.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import msgspec
from grpc.aio import ServicerContext

from api.keys import Caller, Verdict, decide, read_metadata
from api.methods import BATCH, METHODS, Method
from realtime import commands
from realtime.conf.options import GRPCAPIOptions
from realtime.node.node import Node
from realtime.protocol import api_protobuf
from realtime.protocol.api_messages import BatchRequest, Error
from realtime.protocol.errors import ClientError, InternalError
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.protobuf_structs import delimit, varint


logger = logging.getLogger(__name__)

Context = ServicerContext[bytes, bytes]
Answer = Callable[[bytes, Context], Awaitable[bytes]]

# Codes of the API in the transport error mode; any other is INTERNAL.
_STATUSES = {
    102: grpc.StatusCode.NOT_FOUND,
    103: grpc.StatusCode.PERMISSION_DENIED,
    104: grpc.StatusCode.NOT_FOUND,
    107: grpc.StatusCode.INVALID_ARGUMENT,
    108: grpc.StatusCode.INVALID_ARGUMENT,
    112: grpc.StatusCode.OUT_OF_RANGE,
    113: grpc.StatusCode.ALREADY_EXISTS,
}
_DETAILS_KEY = "grpc-status-details-bin"


class GRPCKeyPolicy(msgspec.Struct, frozen=True):
    """What ``grpc_api`` says of authentication: an empty key lets everybody call everything."""

    key: str

    @property
    def insecure(self) -> bool:
        """Whether everybody may call everything."""
        return not self.key


class GRPCService:
    """
    The server API as a gRPC service.

    Args:
        get_node: Returns the process's node.

    Attributes:
        name: The service's full name.
        schema: The serialized file descriptor, for reflection.

    """

    name = api_protobuf.SERVICE
    schema = api_protobuf.SERIALIZED_SCHEMA

    def __init__(self, get_node: Callable[[], Node]) -> None:
        self._get_node = get_node

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Return what answers each method, by its name in the schema."""
        return {
            method.title: grpc.unary_unary_rpc_method_handler(self._answer_of(method))
            for method in METHODS.values()
        }

    def _answer_of(self, method: Method) -> Any:
        decode = api_protobuf.request_decoder(method.title)
        encode = api_protobuf.response_encoder(method.title)

        async def answer(data: bytes, context: Context) -> bytes:
            node = self._get_node()
            credentials = read_metadata(context.invocation_metadata() or ())
            options: GRPCAPIOptions = node.options.grpc_api
            decision = decide(
                GRPCKeyPolicy(options.key),
                node.configuration.api_keys,
                credentials,
                method.name,
            )
            if decision.verdict is Verdict.FORBIDDEN:
                facts = {"method": method.name, "caller": getattr(decision.caller, "name", "")}
                logger.info("an API key's scopes do not have the method", extra=facts)
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "permission denied")
            if decision.caller is None:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
            try:
                request = decode(data)
            except MalformedFrame:
                await context.abort(grpc.StatusCode.INTERNAL, "malformed request")
            try:
                return encode(await _carry_out(node, method, decision.caller, request))
            except ClientError as error:
                failure = Error(error.code, error.message)
            except Exception:
                logger.exception("an API method failed", extra={"method": method.name})
                failure = Error(InternalError.code, InternalError.message)
            if credentials.is_transport or options.error_mode == "transport":
                await _abort(context, failure)
            return api_protobuf.error_response(failure)

        return answer


async def _carry_out(
    node: Node, method: Method, caller: Caller, request: msgspec.Struct
) -> msgspec.Struct:
    if method is BATCH:
        assert isinstance(request, BatchRequest)
        return await commands.batch(node, request, may_call=caller.may_call)
    return await method.command(node, request)


async def _abort(context: Context, error: Error) -> None:
    """End the call with a status whose details hold the API's error."""
    code = _STATUSES.get(error.code, grpc.StatusCode.INTERNAL)
    details = status_details(code.value[0], error)
    await context.abort(code, error.message, ((_DETAILS_KEY, details),))


def status_details(code: int, error: Error) -> bytes:
    """Write a ``google.rpc.Status`` (code=1, message=2, details=3) with the API's error packed in an ``Any``."""
    packed = b"\x0a" + delimit(f"type.googleapis.com/{api_protobuf.ERROR_TYPE}".encode())
    packed += b"\x12" + delimit(api_protobuf.encode_error(error))
    message = b"\x12" + delimit(error.message.encode())
    return b"\x08" + varint(code) + message + b"\x1a" + delimit(packed)
