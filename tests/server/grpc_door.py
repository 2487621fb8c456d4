"""The gRPC door of the world in ``api_world``: the same calls, in so far as gRPC has them, through a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from msgspec import Raw

from api.codec import MalformedRequest, encode
from api.grpc_service import GRPCService
from api.methods import METHODS, Method
from api.replies import error_response, result_response
from realtime.conf.options import TLSOptions
from realtime.protocol import api_pb2, api_protobuf
from realtime.protocol.errors import ClientError
from realtime.servers.grpc_listener import GRPCListener, GRPCSettings
from tests.server.api_world import Answer, Call, World


PATH = "/centrifugal.centrifugo.api.CentrifugoApi/"

_REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED: Answer(401, b"", ""),
    grpc.StatusCode.PERMISSION_DENIED: Answer(403, b"", ""),
}
# The status that the same error has over HTTP.
_HTTP_STATUSES = {
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 416,
    grpc.StatusCode.ALREADY_EXISTS: 409,
}


def is_expressible(call: Call) -> bool:
    """Say whether a request can be made over gRPC: a method of the table, a body that is one, a key in metadata."""
    try:
        return _translate(call) is not None
    except MalformedRequest:
        return False


async def through_grpc(world: World, call: Call) -> Answer | None:
    """Call the service by what was generated from the schema; ``None`` for what gRPC can't express."""
    translated = _translate(call) if is_expressible(call) else None
    if translated is None:
        return None
    method, request, metadata = translated
    async with listening(world) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            response = await stub(channel, method.title)(request, metadata=metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            return _answer_of_status(error)
    return _answer_of_response(method, response)


@asynccontextmanager
async def listening(world: World, **settings: Any) -> AsyncIterator[int]:
    """Serve the world's API on a port of its own."""
    facts: dict[str, Any] = {"tls": TLSOptions, **settings}
    listener = GRPCListener(
        GRPCSettings("grpc_api", "127.0.0.1", 0, **facts), GRPCService(lambda: world.node)
    )
    await listener.start()
    try:
        yield listener.port
    finally:
        await listener.stop(1)


def stub(channel: grpc.aio.Channel, title: str) -> Callable[..., Any]:
    """Return what calls a method by the classes that the Protobuf library made of the schema."""
    return channel.unary_unary(
        PATH + title,
        request_serializer=getattr(api_pb2, f"{title}Request").SerializeToString,
        response_deserializer=getattr(api_pb2, f"{title}Response").FromString,
    )


def read_status_details(data: bytes) -> tuple[int, str, api_pb2.Error]:
    """Read a ``google.rpc.Status`` whose only detail is the API's error."""
    status = _STATUS.FromString(data)
    (detail,) = status.details
    assert detail.type_url == "type.googleapis.com/centrifugal.centrifugo.api.Error"
    return status.code, status.message, api_pb2.Error.FromString(detail.value)


def _translate(call: Call) -> tuple[Method, Message, tuple[tuple[str, str], ...]] | None:
    method = METHODS.get(call.path.removeprefix("/api/"))
    headers = dict(call.headers)
    key = headers.pop("x-api-key", None)
    if key is not None and "authorization" in headers:
        return None
    if key is not None:
        headers["authorization"] = f"apikey {key}"
    if method is None or call.verb != "POST" or call.query:
        return None
    if not all(value.isascii() and value.strip() == value for value in headers.values()):
        return None
    request = method.decode(call.body)
    if None in getattr(request, "commands", ()):
        return None
    message: Message = getattr(api_pb2, f"{method.title}Request")()
    _fill(message, request)
    metadata = {
        name: value
        for name, value in headers.items()
        if name in ("authorization", "x-centrifugo-error-mode")
    }
    return method, message, tuple(metadata.items())


def _fill(message: Any, struct: msgspec.Struct) -> None:
    """Copy a struct into the library's message."""
    message.SetInParent()
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if value is None:
            continue
        if isinstance(value, msgspec.Struct):
            _fill(getattr(message, name), value)
        elif isinstance(value, dict):
            getattr(message, name).update(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, msgspec.Struct):
                    _fill(getattr(message, name).add(), item)
                else:
                    getattr(message, name).append(item)
        else:
            setattr(message, name, bytes(value) if isinstance(value, Raw) else value)


def _answer_of_response(method: Method, response: Any) -> Answer:
    """Write a response as HTTP would."""
    if method.name == "batch":
        batch = api_protobuf.message_decoder("BatchResponse")(response.SerializeToString())
        return Answer(200, encode(batch))
    assert response.HasField("error") != response.HasField("result")
    if response.HasField("error"):
        error = ClientError(response.error.code, response.error.message)
        return Answer(200, error_response(error).body)
    decode = api_protobuf.message_decoder(f"{method.title}Result")
    return Answer(200, result_response(decode(response.result.SerializeToString())).body)


def _answer_of_status(error: grpc.aio.AioRpcError) -> Answer:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:
        return _REFUSALS[error.code()]
    code, message, api_error = read_status_details(details)
    assert (code, message) == (error.code().value[0], error.details())
    refused = ClientError(api_error.code, api_error.message)
    body = error_response(refused, is_transport=True).body
    return Answer(_HTTP_STATUSES[error.code()], body)


def _status_class() -> Any:
    """Make ``google.rpc.Status``, which the Protobuf library does not bring along."""
    file = descriptor_pb2.FileDescriptorProto(name="status.proto", package="rpc", syntax="proto3")
    packed = file.message_type.add(name="Any")
    packed.field.add(name="type_url", number=1, type=9, label=1)
    packed.field.add(name="value", number=2, type=12, label=1)
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=5, label=1)
    status.field.add(name="message", number=2, type=9, label=1)
    status.field.add(name="details", number=3, type=11, label=3, type_name=".rpc.Any")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rpc.Status"))


_STATUS = _status_class()
