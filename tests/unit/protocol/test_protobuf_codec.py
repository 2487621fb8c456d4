"""Protobuf messages: the specification's vectors, the library as a second opinion, and bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from hypothesis import given, settings
from msgspec import Raw

from realtime.protocol import client_pb2
from realtime.protocol.framing import MalformedFrame
from realtime.protocol.messages import (
    EMPTY,
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    EmulationRequest,
    Error,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    PublishResult,
    Push,
    RefreshRequest,
    Reply,
    SubscribeRequest,
    SubscribeResult,
)
from realtime.protocol.protobuf_codec import (
    decode_commands,
    decode_connect_request,
    decode_emulation_request,
    decode_message,
    delimit,
    encode_message,
    encode_push,
    encode_reply,
)
from tests.unit.protocol.strategies import MESSAGE_TYPES, message_class, messages_of


COMMANDS = messages_of(Command)
OTHER_NAMES = {"dictionary": "dict"}


def fill(target: Any, message: msgspec.Struct) -> Any:
    """Put a struct's values into one of the library's messages, by its public interface alone."""
    for name in message.__struct_fields__:
        value = getattr(message, name)
        attribute = OTHER_NAMES.get(name, name)
        if value is None:
            continue
        if isinstance(value, msgspec.Struct):
            getattr(target, attribute).SetInParent()
            fill(getattr(target, attribute), value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, msgspec.Struct):
                    fill(getattr(target, attribute).add(), item)
                else:
                    getattr(target, attribute).append(item)
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, msgspec.Struct):
                    fill(getattr(target, attribute)[key], item)
                else:
                    getattr(target, attribute)[key] = item
        else:
            setattr(target, attribute, bytes(value) if isinstance(value, Raw) else value)
    return target


# --- vectors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "command"),
    [
        ("04 08 01 22 00", Command(id=1, connect=ConnectRequest())),
        (
            "07 08 02 2a 03 0a 01 61",
            Command(id=2, subscribe=SubscribeRequest(channel="a")),
        ),
        ("00", Command()),
    ],
)
def test_commands_of_the_specification(frame: str, command: Command) -> None:
    """The bytes that SDKs send; an empty message is a pong."""
    assert list(decode_commands(bytes.fromhex(frame))) == [command]


UUID = "9ac9de4e-1111-2222-3333-444455556666"


@pytest.mark.parametrize(
    ("reply", "frame"),
    [
        (Reply(), b"\x00"),
        (Reply(id=2, subscribe=SubscribeResult()), bytes.fromhex("04 08 02 32 00")),
        (
            Reply(id=2, error=Error(105, "already subscribed")),
            bytes.fromhex("1a 08 02 12 16 08 69 12 12") + b"already subscribed",
        ),
        (
            Reply(id=1, connect=ConnectResult(client=UUID, version="0.0.0 OSS", ping=4, pong=True)),
            bytes.fromhex("39 08 01 2a 35 0a 24")
            + UUID.encode()
            + bytes.fromhex("12 09")
            + b"0.0.0 OSS"
            + bytes.fromhex("38 04 40 01"),
        ),
        (
            Reply(
                id=2,
                subscribe=SubscribeResult(
                    recoverable=True, positioned=True, delta=True, epoch="jihbAAqp", offset=2
                ),
            ),
            bytes.fromhex("16 08 02 32 12 18 01 32 08 6a 69 68 62 41 41 71 70 48 02 50 01 68 01"),
        ),
    ],
)
def test_replies_of_the_specification(reply: Reply, frame: bytes) -> None:
    """The bytes that SDKs get."""
    assert delimit(encode_reply(reply)) == frame


# --- both ways --------------------------------------------------------------------------------------


@pytest.mark.parametrize("struct", MESSAGE_TYPES, ids=lambda struct: struct.__name__)
def test_what_is_written_is_read(struct: type[msgspec.Struct]) -> None:
    """Decoding undoes encoding, and the library reads and writes the same."""

    @settings(max_examples=20, deadline=None)
    @given(message=messages_of(struct))
    def check(message: msgspec.Struct) -> None:
        encoded = encode_message(message)
        expected = fill(message_class(struct)(), message)

        assert decode_message(struct, encoded) == message
        assert message_class(struct).FromString(encoded) == expected
        assert decode_message(struct, expected.SerializeToString()) == message
        if isinstance(message, Reply):
            assert encode_reply(message) == encoded
        if isinstance(message, Push):
            assert encode_push(message) == encoded

    check()


@settings(max_examples=50, deadline=None)
@given(message=messages_of(Reply))
def test_replies_are_as_long_as_the_librarys(message: Reply) -> None:
    """Nothing is written that the library would leave out; the order within a map may differ."""
    filled = fill(client_pb2.Reply(), message)

    assert len(encode_reply(message)) == len(filled.SerializeToString())
    assert client_pb2.Reply.FromString(encode_reply(message)) == filled


@settings(max_examples=50, deadline=None)
@given(
    publication=messages_of(Publication).filter(lambda publication: len(publication.tags or "") < 2)
)
def test_publications_are_byte_for_byte_the_librarys(publication: Publication) -> None:
    """Both the short way and the general one."""
    message = Reply(push=Push(channel="news:1", pub=publication))

    assert encode_reply(message) == fill(client_pb2.Reply(), message).SerializeToString()


@settings(max_examples=50, deadline=None)
@given(commands=st.lists(COMMANDS, min_size=1, max_size=4))
def test_a_frame_holds_several_commands(commands: list[Command]) -> None:
    """They come back in order."""
    frame = b"".join(delimit(encode_message(command)) for command in commands)

    assert list(decode_commands(frame)) == commands


@pytest.mark.parametrize("command_id", [0, 1, 127, 128, 300, 2**28 - 1, 2**28, 2**32 - 1])
@pytest.mark.parametrize("size", [0, 1, 120, 127, 128, 16_384, 70_000])
def test_lengths_and_ids_around_the_varints_steps(command_id: int, size: int) -> None:
    """Lengths and ids of one byte and of several."""
    command = Command(id=command_id, publish=PublishRequest(channel="c", data=Raw(b"x" * size)))

    assert list(decode_commands(delimit(encode_message(command)))) == [command]


def test_an_empty_message_is_a_message() -> None:
    """A result without content is there all the same, in each kind of reply."""
    for name, tag in [("subscribe", 6), ("unsubscribe", 7), ("publish", 8), ("rpc", 13)]:
        result = decode_message(Reply, bytes((8, 2, tag << 3 | 2, 0)))
        assert getattr(result, name) is not None
        assert encode_reply(result) == bytes((8, 2, tag << 3 | 2, 0))


def test_an_absent_payload_is_the_one_empty_payload() -> None:
    """By identity, which is how the JSON encoder knows to leave it out."""
    command = next(decode_commands(delimit(encode_message(Command(publish=PublishRequest())))))

    assert command.publish is not None
    assert command.publish.data is EMPTY


def test_payloads_may_hold_any_bytes() -> None:
    """They are not text, let alone JSON."""
    everything = bytes(range(256))
    push = Push(channel="c", pub=Publication(data=Raw(everything), offset=2**64 - 1))

    decoded = decode_message(Push, encode_push(push))

    assert decoded.pub is not None
    assert bytes(decoded.pub.data) == everything
    assert decoded == push


def test_results_of_presence_and_history() -> None:
    """Maps and lists, also empty ones."""
    info = ClientInfo("", "id", chan_info=Raw(b"{}"))
    for result in (
        Reply(id=1, presence=PresenceResult({"id": info, "": ClientInfo("", "")})),
        Reply(id=1, presence=PresenceResult({})),
        Reply(id=1, presence_stats=PresenceStatsResult(0, 0)),
        Reply(id=1, history=HistoryResult([Publication(offset=3)], "e", 3)),
        Reply(id=1, history=HistoryResult([], "", 0)),
    ):
        assert decode_message(Reply, encode_reply(result)) == result


def test_a_connect_push_has_numbers_of_its_own() -> None:
    """``data`` is field 3 of the push and field 5 of the result."""
    result = ConnectResult(client="c", data=Raw(b"d"), expires=True, ttl=7)

    assert encode_push(Push(connect=result)) == b"\x52\x0a\x0a\x01c\x1a\x01d\x28\x01\x30\x07"
    assert encode_message(result) == b"\x0a\x01c\x18\x01\x20\x07\x2a\x01d"


def test_fields_of_the_schema_that_we_do_not_have_are_skipped() -> None:
    """A publication's time comes from other nodes only, and unknown fields from newer SDKs."""
    encoded = client_pb2.Publication(data=b"1", time=5, prev_data=b"0").SerializeToString()
    unknown = b"\xfa\x3f\x03abc" + b"\xf8\x3f\x07"

    assert decode_message(Publication, encoded + unknown) == Publication(data=Raw(b"1"))
    frame = delimit(b"\x08\x05" + unknown + b"\x2a\x00")
    assert list(decode_commands(frame)) == [Command(id=5, subscribe=SubscribeRequest())]


# --- what arrives otherwise than SDKs write it -------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(first=COMMANDS, second=COMMANDS)
def test_repeated_fields_merge_as_the_library_merges_them(first: Command, second: Command) -> None:
    """Two messages one behind the other are one: also where the short way has to give up."""
    encoded = encode_message(first) + encode_message(second)

    (command,) = decode_commands(delimit(encoded))

    merged = client_pb2.Command.FromString(encoded)
    assert fill(client_pb2.Command(), command) == merged


def check_reading(data: bytes) -> None:
    """See that a command's bytes are read as the library reads them, or refused as it refuses them."""
    try:
        (command,) = decode_commands(delimit(data))
    except MalformedFrame:
        with pytest.raises(Exception, match="parsing"):
            client_pb2.Command.FromString(data)
    else:
        expected = client_pb2.Command.FromString(data)
        expected.DiscardUnknownFields()
        assert fill(client_pb2.Command(), command) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x80\x80\x80\x80\x10\x22\x00",  # an id of 33 bits, of which 32 count
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x22\x00",  # and one of 64
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x22\x00",
        b"\x08\x81\x00\x22\x00",  # more bytes than it needs
        b"\x08\x01\x22\x80\x00",
        b"\x22\x00\x08\x01",  # the id last
        b"\x08\x01\x22\x00\x08\x02",  # the id twice
        b"\x08\x01\x23\x24",  # a group where a request belongs
        b"\x08\x01\x20\x00",  # and a number
    ],
)
def test_unusual_ways_to_write_a_command(data: bytes) -> None:
    """What the format allows is read, though no SDK writes it."""
    check_reading(data)


@given(data=st.binary(max_size=40))
def test_any_bytes_are_commands_or_malformed(data: bytes) -> None:
    """Nothing else is raised, and what is read is what the library reads."""
    check_reading(data)


@settings(max_examples=50, deadline=None)
@given(command=COMMANDS, data=st.data())
def test_a_changed_byte_reads_as_the_library_reads_it(command: Command, data: Any) -> None:
    """Damage near the envelope meets both ways of reading."""
    encoded = bytearray(encode_message(command))
    if not encoded:
        return
    at = data.draw(st.integers(0, min(8, len(encoded) - 1)))
    encoded[at] = data.draw(st.integers(0, 255))

    check_reading(bytes(encoded))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",  # a length and nothing else
        b"\x05",
        b"\x05\x08\x01\x22",  # a message cut short
        b"\x80",  # a length cut short
        b"\xff" * 9 + b"\x7f\x00",  # a length above 64 bits
        b"\x80" * 11,  # and one that doesn't end
        b"\x01\x08",  # a field without value
        b"\x03\x08\x01\x22",
        b"\x04\x08\x01\x22\x05",  # a request longer than its command
        b"\x02\x0b\x14",  # one group begins, another ends
        b"\x01\x07",  # no such wire type
        b"\x01\x00",  # field number 0
        b"\x08\x08\x01\x2a\x04\x0a\x02\xff\xfe",  # a channel that is not UTF-8
        b"\x09\x08\x01\x2a\x05\x0a\x03\xed\xa0\x80",  # nor is a surrogate
    ],
)
def test_malformed_frames(frame: bytes) -> None:
    """No command comes out of them."""
    with pytest.raises(MalformedFrame):
        list(decode_commands(frame))


def test_commands_before_a_malformed_one_are_there() -> None:
    """They are carried out before the connection ends."""
    commands = decode_commands(
        b"\x04\x08\x01\x22\x00" + b"\x07\x08\x02\x2a\x03\x0a\x01a" + b"\x09\x08"
    )

    assert next(commands) == Command(id=1, connect=ConnectRequest())
    assert next(commands) == Command(id=2, subscribe=SubscribeRequest(channel="a"))
    with pytest.raises(MalformedFrame):
        next(commands)


def test_a_deep_filter_is_malformed_and_no_stack_overflow() -> None:
    """The library's limit of depth holds; one that is within it is read."""

    def nested(depth: int) -> bytes:
        node = b""
        for _ in range(depth):
            node = b"\x32" + delimit(node)
        return delimit(b"\x08\x01\x2a" + delimit(b"\x6a" + delimit(node)))

    (command,) = decode_commands(nested(20))
    assert command.subscribe is not None
    assert command.subscribe.tf is not None
    with pytest.raises(MalformedFrame):
        list(decode_commands(nested(5_000)))


def test_connect_and_emulation_requests() -> None:
    """They come without a length; nothing at all is an empty request."""
    request = ConnectRequest(token="t", subs={"c": SubscribeRequest(recover=True)}, dictionary="d")
    emulation = EmulationRequest("node", "session", Raw(b"\x04\x08\x01\x22\x00"))

    assert decode_connect_request(encode_message(request)) == request
    assert decode_connect_request(b"") == ConnectRequest()
    assert decode_emulation_request(encode_message(emulation)) == emulation
    for decode in (decode_connect_request, decode_emulation_request):
        with pytest.raises(MalformedFrame):
            decode(b"\x0a\x05ab")


# --- what cannot be written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Error(-1, "x"),
        Error(2**32, "x"),
        SubscribeResult(offset=-1),
        SubscribeResult(offset=2**64),
        SubscribeResult(id=2**63),
        SubscribeRequest(type=2**31),
        Publication(offset=-1),
        Publication(offset=2**64),
        Publication(score=2**63),
        RefreshRequest(token="\ud800"),
    ],
)
def test_what_does_not_fit_is_refused(message: msgspec.Struct) -> None:
    """Rather than written as something else."""
    with pytest.raises(ValueError, match=r"not in|surrogates"):
        encode_message(message)


@pytest.mark.parametrize("offset", [-1, 2**64])
def test_an_offset_that_does_not_fit_is_refused_on_the_short_way_too(offset: int) -> None:
    """A loop that shifts a negative number right never ends."""
    with pytest.raises(ValueError, match="not in"):
        encode_push(Push(channel="c", pub=Publication(offset=offset)))


# --- the library's global state -----------------------------------------------------------------------


def test_an_sdk_can_live_in_the_same_process() -> None:
    """Both have the same names; a pool would take the second one for a redefinition."""
    code = (
        "import centrifuge.protocol.client_pb2, realtime.protocol.protobuf_codec as ours;"
        "from realtime.protocol.messages import Reply, PublishResult;"
        "print(ours.encode_reply(Reply(id=1, publish=PublishResult())).hex())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [encode_reply(Reply(id=1, publish=PublishResult())).hex()]


# --- the generated module -----------------------------------------------------------------------------


def test_the_generated_module_is_that_of_the_schema(tmp_path: Path) -> None:
    """Who changes ``client.proto`` runs ``generate.sh``."""
    folder = Path(client_pb2.__file__).parent
    compiled = tmp_path / "client.pb"
    command = ["-m", "grpc_tools.protoc", f"-I{folder}", f"--descriptor_set_out={compiled}"]

    subprocess.run([sys.executable, *command, str(folder / "client.proto")], check=True)

    (file,) = FileDescriptorSet.FromString(compiled.read_bytes()).file
    for message in file.message_type:
        for part in (message, *message.nested_type):
            for field in part.field:
                field.ClearField("json_name")  # the generated module leaves it out
    assert file == FileDescriptorProto.FromString(client_pb2.DESCRIPTOR.serialized_pb)
