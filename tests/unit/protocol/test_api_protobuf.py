"""The server API's schema has the numbers that published stubs have, and the codec writes what the library reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from msgspec import Raw

from api.methods import METHODS
from realtime.protocol import api_messages, api_pb2, api_protobuf, unistream_pb2
from realtime.protocol.api_messages import (
    BatchRequest,
    BatchResponse,
    BoolValue,
    Command,
    Error,
    HistoryResult,
    InfoResult,
    Metrics,
    NodeResult,
    PresenceResult,
    Process,
    Publication,
    PublishRequest,
    PublishResult,
    Reply,
    StreamPosition,
    SubscribeOptionOverride,
    SubscribeRequest,
)
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import ClientInfo


# A line per message: name, then field=number:type; [] is repeated, {} a map from strings. The responses, which
# are alike, are not in it.
FIELDS = Path(__file__).with_name("server_api_fields.txt").read_text()

_RPC_NAMES = """
Batch Publish Broadcast Subscribe Unsubscribe Disconnect Presence PresenceStats History HistoryRemove Info RPC Refresh
Channels Connections UpdateUserStatus GetUserStatus DeleteUserStatus BlockUser UnblockUser RevokeToken InvalidateUserTokens
DeviceRegister DeviceUpdate DeviceRemove DeviceList DeviceTopicList DeviceTopicUpdate UserTopicList UserTopicUpdate
SendPushNotification UpdatePushStatus CancelPush MapPublish MapRemove MapReadState MapReadStream MapStats MapClear
SharedPollPublish
"""
RPCS = _RPC_NAMES.split()

UNISTREAM = """
ConnectRequest token=1:string data=2:bytes subs=3:{SubscribeRequest} name=4:string version=5:string headers=6:{string}
SubscribeRequest recover=3:bool epoch=6:string offset=7:uint64
Push channel=2:string pub=4:Publication join=5:Join leave=6:Leave unsubscribe=7:Unsubscribe message=8:Message subscribe=9:Subscribe connect=10:Connect disconnect=11:Disconnect refresh=12:Refresh
ClientInfo user=1:string client=2:string conn_info=3:bytes chan_info=4:bytes
Publication data=4:bytes info=5:ClientInfo offset=6:uint64 tags=7:{string}
Join info=1:ClientInfo
Leave info=1:ClientInfo
Unsubscribe code=2:uint32 reason=3:string
Subscribe recoverable=1:bool epoch=4:string offset=5:uint64 positioned=6:bool data=7:bytes
Message data=1:bytes
Connect client=1:string version=2:string data=3:bytes subs=4:{SubscribeResult} expires=5:bool ttl=6:uint32 ping=7:uint32 pong=8:bool session=9:string node=10:string
SubscribeResult expires=1:bool ttl=2:uint32 recoverable=3:bool epoch=6:string publications=7:Publication[] recovered=8:bool offset=9:uint64 positioned=10:bool data=11:bytes was_recovering=12:bool
Disconnect code=1:uint32 reason=2:string reconnect=3:bool
Refresh expires=1:bool ttl=2:uint32
"""


def describe(message: Descriptor) -> str:
    """Write a message in the form of the tables above."""
    return " ".join(
        [
            message.name,
            *(f"{field.name}={field.number}:{kind_of(field)}" for field in message.fields),
        ]
    )


def kind_of(field: FieldDescriptor) -> str:
    """Write a field's type in the form of the tables above."""
    message = field.message_type
    if message is None:
        names = {
            number: name.removeprefix("TYPE_").lower()
            for name, number in vars(FieldDescriptor).items()
            if name.startswith("TYPE_")
        }
        kind = names[field.type]
    elif message.GetOptions().map_entry:
        assert kind_of(message.fields_by_name["key"]) == "string"
        return "{" + kind_of(message.fields_by_name["value"]) + "}"
    else:
        kind = message.name
    return f"{kind}[]" if field.is_repeated else kind


def test_the_server_api_has_the_published_names_and_numbers() -> None:
    """Package, service, methods, and every field of every message."""
    schema = api_pb2.DESCRIPTOR
    service = schema.services_by_name["CentrifugoApi"]
    responses = {
        f"{name}Response": f"{name}Response error=1:Error result=2:{name}Result"
        for name in RPCS
        if name != "Batch"
    }

    described = {
        message.name: describe(message) for message in schema.message_types_by_name.values()
    }

    assert schema.package == "centrifugal.centrifugo.api"
    assert [
        (method.name, method.input_type.name, method.output_type.name) for method in service.methods
    ] == [(name, f"{name}Request", f"{name}Response") for name in RPCS]
    assert not any(method.client_streaming or method.server_streaming for method in service.methods)
    assert described == {line.split()[0]: line for line in FIELDS.splitlines()} | responses


def test_the_unidirectional_stream_has_the_published_names_and_numbers() -> None:
    """Package, service, the one method, and every field of every message."""
    schema = unistream_pb2.DESCRIPTOR
    (method,) = schema.services_by_name["CentrifugoUniStream"].methods

    described = {
        message.name: describe(message) for message in schema.message_types_by_name.values()
    }

    assert schema.package == "centrifugal.centrifugo.unistream"
    assert (method.name, method.input_type.name, method.output_type.name) == (
        "Consume",
        "ConnectRequest",
        "Push",
    )
    assert (method.client_streaming, method.server_streaming) == (False, True)
    assert described == {line.split()[0]: line for line in UNISTREAM.strip().splitlines()}


def test_every_struct_has_its_message_with_the_same_fields() -> None:
    """A field of a struct that the schema lacks would be lost without a word."""
    for name, message in api_pb2.DESCRIPTOR.message_types_by_name.items():
        struct = getattr(api_messages, name, None)
        if struct is not None:
            assert set(struct.__struct_fields__) <= {field.name for field in message.fields}, name
    for method in METHODS.values():
        assert method.title in RPCS


@pytest.mark.parametrize(
    ("title", "result"),
    [
        ("Publish", PublishResult(2**64 - 1, "epoch")),
        ("Publish", PublishResult()),
        (
            "History",
            HistoryResult(
                [
                    Publication(Raw(b"\x00\xff"), ClientInfo("u", "c", Raw(b"1")), 7, {"": "x"}),
                    Publication(),
                ],
                "e",
                9,
            ),
        ),
        ("Presence", PresenceResult({"a": ClientInfo("", "c2"), "b": ClientInfo("", "")})),
        (
            "Info",
            InfoResult(
                [
                    NodeResult(
                        uid="u",
                        name="n",
                        version="v",
                        num_clients=1,
                        num_users=2,
                        num_channels=3,
                        uptime=4,
                        metrics=Metrics(
                            60, {"half": 0.5, "negative": -1e300, "whole": 5, "zero": 0}
                        ),
                        process=Process(1.5, 2**40),
                        num_subs=2**32 - 1,
                    )
                ]
            ),
        ),
    ],
)
def test_a_result_is_written_as_the_library_would(title: str, result: msgspec.Struct) -> None:
    """The library reads the envelope, and its own bytes decode to the same struct."""
    written = api_protobuf.response_encoder(title)(result)

    message = getattr(api_pb2, f"{title}Response").FromString(written)
    assert message.HasField("result")
    assert not message.HasField("error")
    assert written == message.SerializeToString(deterministic=True)
    decode = api_protobuf.message_decoder(f"{title}Result")
    assert decode(message.result.SerializeToString()) == result


def test_an_error_is_written_in_the_envelope_and_alone() -> None:
    """Code and message, for every method the same."""
    error = Error(107, "bad request")

    envelope = api_pb2.HistoryResponse.FromString(api_protobuf.error_response(error))
    alone = api_pb2.Error.FromString(api_protobuf.encode_error(error))

    assert not envelope.HasField("result")
    assert envelope.error == alone
    assert (alone.code, alone.message) == (107, "bad request")


def test_a_batch_is_read_and_written() -> None:
    """Which request of a command is set counts, empty or not; a batch's response has no envelope."""
    request = api_pb2.BatchRequest(parallel=True)
    request.commands.add().publish.channel = "a"
    request.commands.add().info.SetInParent()
    request.commands.add()
    request.commands.add().block_user.user = "a method that the table lacks"

    decoded = api_protobuf.request_decoder("Batch")(request.SerializeToString())
    written = api_protobuf.response_encoder("Batch")(
        BatchResponse([Reply(publish=PublishResult()), Reply(error=Error(104, "not found"))])
    )

    assert decoded == BatchRequest(
        [
            Command(publish=PublishRequest(channel="a")),
            Command(info=api_messages.InfoRequest()),
            Command(),
            Command(),
        ],
        parallel=True,
    )
    replies = api_pb2.BatchResponse.FromString(written).replies
    assert [reply.HasField("publish") for reply in replies] == [True, False]
    assert replies[1].error.code == 104


def test_what_a_request_leaves_out_has_its_default() -> None:
    """No bytes at all are a request; nested messages are there or not."""
    decode = api_protobuf.request_decoder("Subscribe")
    message = api_pb2.SubscribeRequest(channel="a", data=b"\x00", label_filter={"key": "k"})
    message.recover_since.SetInParent()
    message.override.presence.value = True
    message.override.join_leave.SetInParent()

    assert decode(b"") == SubscribeRequest()
    assert decode(message.SerializeToString()) == SubscribeRequest(
        channel="a",
        data=Raw(b"\x00"),
        recover_since=StreamPosition(),
        override=SubscribeOptionOverride(presence=BoolValue(value=True), join_leave=BoolValue()),
    )


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x02\xff\xfe", b"\x09\x01", b"\x07"])
def test_bytes_that_are_no_request_are_refused(data: bytes) -> None:
    """Cut short, not UTF-8, another wire type cut short, a group's end."""
    with pytest.raises(MalformedFrame):
        api_protobuf.request_decoder("Publish")(data)


def test_a_number_out_of_range_is_refused() -> None:
    """It would otherwise be another number at the reader's."""
    with pytest.raises(ValueError, match="4294967296"):
        api_protobuf.response_encoder("PresenceStats")(api_messages.PresenceStatsResult(2**32, 0))
