"""The frame decoder: whatever the network does to the bytes, and whatever a peer sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from realtime.protocol.wire import frame
from realtime.servers.frame_codec import (
    CLOSE,
    INVALID_DATA,
    NO_STATUS,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TOO_BIG,
    FrameError,
    decode_close,
    encode_close,
)
from tests.unit.servers.frames import Recording, client_frame, split_at


MASKS = st.binary(min_size=4, max_size=4)
SIZES_AT_THE_EDGES = [0, 1, 125, 126, 127, 65535, 65536]


@st.composite
def valid_streams(draw: st.DrawFn) -> tuple[bytes, list[tuple[object, bytes]]]:
    """A client's bytes and the events that they mean: whole and fragmented messages, control frames anywhere."""
    stream, events = b"", []
    for _ in range(draw(st.integers(1, 5))):
        is_text = draw(st.booleans())
        payload = draw(st.text(max_size=90)).encode() if is_text else draw(st.binary(max_size=300))
        fragments = split_at(payload, draw(st.lists(st.integers(0, 300), max_size=3)))
        for number, fragment in enumerate(fragments):
            is_last = number == len(fragments) - 1
            opcode = 0 if number else (1 if is_text else 2)
            stream += client_frame(fragment, opcode, fin=is_last, mask=draw(MASKS))
            if is_last:
                events.append(("text" if is_text else "binary", payload))
            if draw(st.booleans()):
                control = draw(st.sampled_from([PING, PONG]))
                note = draw(st.binary(max_size=125))
                stream += client_frame(note, control, mask=draw(MASKS))
                events.append((control, note))
    return stream, events


@given(valid_streams(), st.lists(st.integers(0, 2000), max_size=8))
def test_any_split_of_a_byte_stream_decodes_alike(
    sent: tuple[bytes, list[tuple[object, bytes]]], places: list[int]
) -> None:
    """Where the network cuts the bytes makes no difference."""
    stream, events = sent

    decoded = Recording().feed(*split_at(stream, places))

    assert decoded.failure is None
    assert decoded.events == events
    assert not decoded.decoder.has_input


def test_bytes_that_come_one_by_one_decode_alike() -> None:
    """The slowest peer is understood, over every form of length."""
    stream = b"".join(client_frame(b"x" * size, 2) for size in (0, 5, 126, 300))

    decoded = Recording().feed(*(stream[n : n + 1] for n in range(len(stream))))

    assert [len(payload) for _, payload in decoded.events] == [0, 5, 126, 300]


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_garbage_fails_or_waits_alike_however_it_is_cut(garbage: bytes, places: list[int]) -> None:
    """No bytes make the decoder do anything but call back, wait or raise ``FrameError``."""
    whole = Recording(1000).feed(garbage)

    cut = Recording(1000).feed(*split_at(garbage, places))

    assert cut.events == whole.events
    assert cut.failure == whole.failure


@given(st.data())
def test_frames_of_another_library_are_judged_as_it_judges_them(data: st.DataObject) -> None:
    """
    A random frame header is accepted or refused exactly where ``websockets`` does it.

    Continuations are left out: its frame parser has no message state. So are fragments of it, for that reason.
    """
    opcode = data.draw(st.sampled_from([1, 2, 3, 5, 8, 9, 10, 11, 15]))
    first = data.draw(st.sampled_from([0x80, 0x00, 0x90, 0xA0, 0xC0])) | opcode
    payload = data.draw(st.one_of(st.just(b""), st.binary(max_size=130), st.just(b"\x03\xe8")))
    head = client_frame(payload, opcode)
    stream = bytes([first]) + head[1:]

    theirs = _parse_with_websockets(stream)
    ours = Recording().feed(stream)

    if theirs is None:
        assert ours.failure == (PROTOCOL_ERROR, "")
    elif opcode >= CLOSE:
        assert ours.events == [(opcode, theirs.data)]
    elif not theirs.fin:
        assert ours.failure is None or ours.failure[0] == INVALID_DATA
        assert ours.events == []
    elif ours.failure is not None:
        assert ours.failure == (INVALID_DATA, "")
        with pytest.raises(UnicodeDecodeError):
            theirs.data.decode()
    else:
        assert ours.events == [("text" if opcode == 1 else "binary", theirs.data)]


def _parse_with_websockets(stream: bytes) -> Frame | None:
    """Parse a client's frame with the library; ``None`` when it refuses it."""
    reader = StreamReader()
    reader.feed_data(stream)
    reader.feed_eof()
    parser = Frame.parse(reader.read_exact, mask=True)
    try:
        next(parser)
    except StopIteration as parsed:
        return parsed.value
    except ProtocolError:
        return None
    raise AssertionError("the frame is not whole")


@pytest.mark.parametrize("size", SIZES_AT_THE_EDGES)
def test_every_form_of_length_is_read(size: int) -> None:
    """Seven bits, sixteen and sixty-four, at their edges."""
    decoded = Recording(70000).feed(client_frame(b"a" * size))

    assert decoded.events == [("text", b"a" * size)]


@pytest.mark.parametrize("size", SIZES_AT_THE_EDGES)
def test_what_a_server_frames_another_library_reads(size: int) -> None:
    """Our frames are right for a client, not just for ourselves."""
    reader = StreamReader()
    reader.feed_data(frame(b"a" * size, 2))
    parser = Frame.parse(reader.read_exact, mask=False)

    with pytest.raises(StopIteration) as parsed:
        next(parser)

    assert parsed.value.value == Frame(Opcode.BINARY, b"a" * size)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (client_frame(b"hello", mask=None) + b"more", PROTOCOL_ERROR),  # not masked
        (client_frame(b"hello", rsv=4), PROTOCOL_ERROR),  # compressed, and nothing was negotiated
        (client_frame(b"hello", rsv=2), PROTOCOL_ERROR),
        (client_frame(b"hello", rsv=1), PROTOCOL_ERROR),
        (client_frame(b"hello", 3), PROTOCOL_ERROR),  # unknown opcodes
        (client_frame(b"hello", 11), PROTOCOL_ERROR),
        (client_frame(b"a" * 126, PING), PROTOCOL_ERROR),  # control frames: too long, fragmented
        (client_frame(b"", PING, fin=False), PROTOCOL_ERROR),
        (client_frame(b"hello", 0), PROTOCOL_ERROR),  # a continuation of nothing
        (
            client_frame(b"a", fin=False) + client_frame(b"b"),
            PROTOCOL_ERROR,
        ),  # two messages at once
        (b"\x81\xfe\x00\x7d" + b"mask", PROTOCOL_ERROR),  # 125 in sixteen bits
        (b"\x81\xff" + (65535).to_bytes(8, "big") + b"mask", PROTOCOL_ERROR),
        (b"\x81\xff" + (1 << 63).to_bytes(8, "big") + b"mask", PROTOCOL_ERROR),
        (client_frame(b"\xff"), INVALID_DATA),
        (client_frame(b"\xed\xa0\x80"), INVALID_DATA),  # a surrogate
        (client_frame(b"\xc3"), INVALID_DATA),  # cut in a character
        (client_frame(b"\xc3", fin=False) + client_frame(b"", 0), INVALID_DATA),
    ],
)
def test_a_peer_that_breaks_the_rules_is_told_which(stream: bytes, code: int) -> None:
    """Each rule of RFC 6455 has its close code, and no reason is given."""
    decoded = Recording().feed(stream)

    assert decoded.failure == (code, "")
    assert decoded.events == []


@pytest.mark.parametrize(
    "start",
    [
        client_frame(b"x" * 1000, 3)[:20],
        client_frame(b"x" * 1000, rsv=4)[:20],
        client_frame(b"x" * 1000, 0)[:20],
        client_frame(b"x" * 2000)[:8],
    ],
)
def test_a_frame_that_can_not_be_right_is_refused_before_its_payload_comes(start: bytes) -> None:
    """A peer can't make us wait for, and keep, what will be refused anyhow."""
    decoded = Recording(1500).feed(start)

    assert decoded.failure is not None


def test_a_wrong_byte_ends_a_fragmented_text_at_once() -> None:
    """Text is checked fragment by fragment; a character may span two."""
    good = client_frame(b"\xc3", fin=False) + client_frame(b"\xa9", 0, fin=False)

    decoded = Recording().feed(good + client_frame(b"\xff", 0, fin=False))

    assert decoded.failure == (INVALID_DATA, "")


def test_messages_before_a_wrong_frame_are_delivered() -> None:
    """What was right is not lost to what follows."""
    decoded = Recording().feed(client_frame(b"one") + client_frame(b"two") + client_frame(b"", 3))

    assert decoded.events == [("text", b"one"), ("text", b"two")]
    assert decoded.failure == (PROTOCOL_ERROR, "")


def test_a_message_may_be_as_large_as_the_limit() -> None:
    """The limit itself is allowed, in one frame or several."""
    whole = client_frame(b"x" * 1000, 2)
    parts = client_frame(b"x" * 400, 2, fin=False) + client_frame(b"x" * 600, 0)

    decoded = Recording(1000).feed(whole + parts)

    assert decoded.events == [("binary", b"x" * 1000)] * 2


@pytest.mark.parametrize(
    "stream",
    [
        client_frame(b"x" * 1001, 2),
        client_frame(b"x" * 400, 2, fin=False) + client_frame(b"x" * 601, 0),
        client_frame(b"x" * 999, 2, fin=False) + client_frame(b"xx", 0, fin=False),
    ],
)
def test_one_byte_over_the_limit_is_too_big(stream: bytes) -> None:
    """The limit is over the sum of the fragments; the close reason is empty."""
    decoded = Recording(1000).feed(stream)

    assert decoded.failure == (TOO_BIG, "")


def test_empty_fragments_without_end_cost_no_memory() -> None:
    """A peer that never finishes its message makes nothing grow."""
    decoded = Recording(1000).feed(client_frame(b"", fin=False))

    decoded.feed(*[client_frame(b"", 0, fin=False)] * 1000)

    assert decoded.failure is None
    assert decoded.feed(client_frame(b"end", 0)).events == [("text", b"end")]


def test_a_paused_decoder_keeps_the_rest_in_order() -> None:
    """A pause within a callback holds even the messages of the same read, and those read later come after."""
    seen: list[bytes] = []
    recording = Recording()
    decoder = recording.decoder

    def pause_at_second(payload: bytes, _: bool) -> None:
        seen.append(payload)
        decoder.is_paused = payload == b"2"

    def none_expected(opcode: int, _: bytes) -> None:
        raise AssertionError(opcode)

    decoder.feed(
        b"".join(client_frame(b"%d" % n) for n in (1, 2, 3)), pause_at_second, none_expected
    )
    decoder.feed(client_frame(b"4"), pause_at_second, none_expected)
    before = list(seen)
    decoder.is_paused = False
    decoder.feed(b"", pause_at_second, none_expected)

    assert before == [b"1", b"2"]
    assert seen == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 3500, 4999])
def test_a_close_frame_is_read_back(code: int) -> None:
    """Code and reason survive."""
    payload = encode_close(code, "é")[2:]

    assert decode_close(payload) == (code, "é")


def test_a_close_frame_may_be_empty() -> None:
    """No status is 1005 to the application, and an empty frame on the wire."""
    assert decode_close(b"") == (NO_STATUS, "")
    assert encode_close(NO_STATUS) == b"\x88\x00"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", PROTOCOL_ERROR),
        *(
            (number.to_bytes(2, "big"), PROTOCOL_ERROR)
            for number in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
        ),
        (b"\x03\xe8\xff", INVALID_DATA),
    ],
)
def test_a_close_frame_that_nobody_may_send_is_refused(payload: bytes, code: int) -> None:
    """Reserved codes, half a code, a reason that isn't UTF-8."""
    with pytest.raises(FrameError) as raised:
        decode_close(payload)

    assert raised.value.code == code


@given(st.text(max_size=200))
def test_a_close_reason_always_fits_and_stays_text(reason: str) -> None:
    """Reasons are cut to 123 bytes at the end of a character; a client can always read the frame."""
    sent = encode_close(3000, reason)

    close = Close.parse(sent[2:])
    assert len(sent) <= 127
    assert close.code == 3000
    assert reason.startswith(close.reason)
    assert len(close.reason.encode()) == min(len(reason.encode()), len(close.reason.encode()))
    assert len(reason.encode()) <= 123 or len(close.reason.encode()) >= 120
