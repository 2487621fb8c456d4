"""
Unidirectional sessions by gRPC: ``Consume`` takes a connect request and answers with pushes until one side ends it.

The messages are the client protocol's with fewer fields, so the bytes are those of every unidirectional Protobuf connection,
and the generated classes have no part in it. A refused connect is a disconnect push and a good end, as the reference has it.

Where we differ from the reference on purpose: pings come at ``client.ping_interval`` (every 25 s there whatever the option
says; the connect push tells either), and the limits of connections hold here too (UNAVAILABLE).

Source: ``client-protocol`` 1.8 and 1.12.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from realtime.client.unidirectional import UnidirectionalClient
from realtime.consumers.scopes import random_uuid
from realtime.consumers.streaming import WRITE_TIMEOUT, QueueTransport
from realtime.protocol import errors, unistream_pb2
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.protobuf_codec import split_delimited
from realtime.protocol.wire import UNI_PROTOBUF
from realtime.session.session import Session


if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from realtime.node.node import Node

NAME = "uni_grpc"

CORE_OPTIONS = {
    # Milliseconds: a peer that vanished is found out, and one that pings more often than every 5 s sent away.
    "grpc.keepalive_time_ms": 25_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
}


class UniStreamService:
    """
    The service ``CentrifugoUniStream``.

    Args:
        get_node: Returns the process's node.

    Attributes:
        name: The service's full name.
        schema: The serialized file descriptor.

    """

    name = unistream_pb2.DESCRIPTOR.services_by_name["CentrifugoUniStream"].full_name
    schema: bytes = unistream_pb2.DESCRIPTOR.serialized_pb

    def __init__(self, get_node: Callable[[], Node]) -> None:
        self._get_node = get_node

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Return what answers each method, by its name in the schema."""
        return {"Consume": grpc.unary_stream_rpc_method_handler(self._consume)}

    async def _consume(self, data: bytes, context: ServicerContext[bytes, bytes]) -> None:
        node = self._get_node()
        try:
            request = UNI_PROTOBUF.decode_connect_request(data)
        except MalformedFrame:
            await context.abort(grpc.StatusCode.INTERNAL, "malformed request")
        if not node.admit():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many connections")
        transport = CallTransport(node, context)
        client = transport.client = UnidirectionalClient(
            node,
            Session(random_uuid(), random_uuid()),
            UNI_PROTOBUF,
            transport,
            transport_name=NAME,
        )
        try:
            client.connect(request)
            await transport.serve()
        finally:
            # The call is cancelled when the peer leaves.
            client.on_close()


class CallTransport(QueueTransport):
    """
    One call's stream of responses, as the transport of a client.

    Args:
        node: Has the limits.
        context: The call's.

    """

    def __init__(self, node: Node, context: ServicerContext[bytes, bytes]) -> None:
        super().__init__(node, UNI_PROTOBUF)
        self._context = context

    async def serve(self) -> None:
        """Send what is written until the connection is closed or the call cancelled."""
        assert self.client is not None
        try:
            while True:
                while self._queue:
                    messages = self._queue.popleft()
                    self._size -= len(messages)
                    await self._send(messages)
                if self._is_closing:
                    return
                self._wakeup.clear()
                await self._wakeup.wait()
        except TimeoutError:
            # The push that says so would wait like the rest. The call ends as soon as the peer reads on or leaves.
            self.client.disconnect(*errors.WRITE_ERROR)

    async def _send(self, messages: bytes) -> None:
        """Send messages that the hub may have joined; gRPC's flow control holds up those of a reader that does not read."""
        for message in split_delimited(messages):
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._context.write(message)
