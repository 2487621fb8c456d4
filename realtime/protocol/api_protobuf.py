"""
Server API messages as Protobuf: requests from bytes, responses to bytes.

A response is an envelope with the error or the result; only ``BatchResponse`` is what it is. A payload is ``bytes`` here and
may be anything, while in JSON it must be JSON.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from google.protobuf.descriptor import Descriptor

from realtime.protocol import api_messages, api_pb2
from realtime.protocol.api_messages import Error
from realtime.protocol.protobuf_structs import StructCodec, delimit


_codec = StructCodec(api_pb2, api_messages)
_ERROR_TAG = b"\x0a"
_RESULT_TAG = b"\x12"

SERVICE = api_pb2.DESCRIPTOR.services_by_name["CentrifugoApi"].full_name
ERROR_TYPE = api_pb2.DESCRIPTOR.message_types_by_name["Error"].full_name
SERIALIZED_SCHEMA: bytes = api_pb2.DESCRIPTOR.serialized_pb

_encode_error = _codec.encoder(_codec.messages["Error"])


def request_decoder(title: str) -> Callable[[bytes], msgspec.Struct]:
    """Return what reads ``<title>Request``; it raises ``MalformedFrame``."""
    return message_decoder(f"{title}Request")


def message_decoder(name: str) -> Callable[[bytes], msgspec.Struct]:
    """Return what reads a message by its name; it raises ``MalformedFrame``."""
    return _codec.bytes_decoder(name)


def response_encoder(title: str) -> Callable[[msgspec.Struct], bytes]:
    """
    Return what writes a result as ``<title>Response``.

    It raises ``ValueError`` for an integer out of its field's range and for a text that cannot be UTF-8.
    """
    if title == "Batch":
        return _codec.encoder(_message("BatchResponse"))
    encode = _codec.encoder(_message(f"{title}Result"))
    return lambda result: _RESULT_TAG + delimit(encode(result))


def encode_error(error: Error) -> bytes:
    """Write the error alone."""
    return _encode_error(error)


def error_response(error: Error) -> bytes:
    """Write an error as the response of any method but ``Batch``, which has none of its own."""
    return _ERROR_TAG + delimit(_encode_error(error))


def _message(name: str) -> Descriptor:
    return _codec.messages[name]
