"""permessage-deflate: what is negotiated, and that nothing unpacks without bound."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from realtime.servers.deflate import (
    RESPONSE,
    TOO_BIG_REASON,
    compress,
    compress_frame,
    decompress,
    negotiate,
)
from realtime.servers.frame_codec import INVALID_DATA, PROTOCOL_ERROR, TOO_BIG, FrameError
from tests.unit.servers.frames import Recording, client_frame


@pytest.mark.parametrize(
    "header",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",  # Chrome, Firefox
        "permessage-deflate; client_max_window_bits=8",
        'permessage-deflate; client_max_window_bits="15"',
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",  # the second will do
        "Permessage-Deflate ; Client_Max_Window_Bits",
    ],
)
def test_an_offer_that_we_can_keep_is_taken(header: str) -> None:
    """The answer is always the same: no context in either direction."""
    assert negotiate(header) == RESPONSE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=10",  # frames are shared, all with the full window
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; unknown",
        "permessage-deflate;",
    ],
)
def test_an_offer_that_we_can_not_keep_is_declined(header: str) -> None:
    """RFC 7692 section 7.1: decline what is malformed, unknown or more than we do."""
    assert negotiate(header) is None


@given(st.binary(max_size=2000), st.integers(1, 9))
def test_decompress_undoes_compress(payload: bytes, level: int) -> None:
    """At every level."""
    assert decompress(compress(payload, level), len(payload)) == payload


@given(st.binary(max_size=500))
def test_another_library_reads_our_compressed_frames(payload: bytes) -> None:
    """A client that negotiated as we answer understands every frame on its own."""
    extension = PerMessageDeflate(True, True, 15, 15)
    reader = StreamReader()
    reader.feed_data(compress_frame(payload, 2))
    parser = Frame.parse(reader.read_exact, mask=False, extensions=[extension])

    with pytest.raises(StopIteration) as parsed:
        next(parser)

    assert parsed.value.value.data == payload


@given(st.text(max_size=300))
def test_another_librarys_compressed_frames_are_read(text: str) -> None:
    """And the other way round, through the decoder."""
    extension = PerMessageDeflate(True, True, 15, 15)
    recording = Recording()
    recording.decoder.inflate = lambda payload: decompress(payload, 65536)

    sent = Frame(Opcode.TEXT, text.encode()).serialize(mask=True, extensions=[extension])
    recording.feed(sent)

    assert recording.events == [("text", text.encode())]


def test_compressed_fragments_are_one_message() -> None:
    """Only the first fragment says that the message is compressed; control frames may stand between."""
    recording = Recording()
    recording.decoder.inflate = lambda payload: decompress(payload, 65536)
    packed = compress(b"hello hello hello")

    recording.feed(
        client_frame(packed[:4], fin=False, rsv=4),
        client_frame(b"!", 9),
        client_frame(packed[4:], 0),
    )

    assert recording.events == [(9, b"!"), ("text", b"hello hello hello")]


def test_an_uncompressed_message_is_taken_beside_compressed_ones() -> None:
    """The bit decides per message."""
    recording = Recording()
    recording.decoder.inflate = lambda payload: decompress(payload, 65536)

    recording.feed(client_frame(compress(b"a"), rsv=4), client_frame(b"b"))

    assert recording.events == [("text", b"a"), ("text", b"b")]


@pytest.mark.parametrize(
    "stream",
    [
        client_frame(b"x", fin=False) + client_frame(b"y", 0, rsv=4),
        client_frame(b"x", 9, rsv=4),
    ],
)
def test_the_compression_bit_belongs_on_a_messages_first_frame(stream: bytes) -> None:
    """Elsewhere it is an error, negotiated or not."""
    recording = Recording()
    recording.decoder.inflate = lambda payload: payload

    assert recording.feed(stream).failure == (PROTOCOL_ERROR, "")


def test_compressed_text_must_be_utf8_too() -> None:
    """It is looked at after decompression."""
    recording = Recording()
    recording.decoder.inflate = lambda payload: decompress(payload, 65536)

    assert recording.feed(client_frame(compress(b"\xff"), rsv=4)).failure == (INVALID_DATA, "")


def test_a_message_may_unpack_up_to_the_limit_and_no_further() -> None:
    """One byte more is 1009, with a reason of its own."""
    assert decompress(compress(b"x" * 1000), 1000) == b"x" * 1000

    with pytest.raises(FrameError) as raised:
        decompress(compress(b"x" * 1001), 1000)

    assert (raised.value.code, raised.value.reason) == (TOO_BIG, TOO_BIG_REASON)


def test_what_is_not_deflate_is_invalid_data() -> None:
    """The peer is told 1007."""
    with pytest.raises(FrameError) as raised:
        decompress(b"\xff\xff\xff", 1000)

    assert raised.value.code == INVALID_DATA


def test_a_final_block_is_understood() -> None:
    """RFC 7692 section 7.2.3.4's own example."""
    assert decompress(bytes.fromhex("f348cdc9c9070000"), 100) == b"Hello"


def test_streams_without_number_in_one_message_are_refused() -> None:
    """Each costs a decompressor; a message of them must not cost thousands."""
    empty = zlib.compressobj(1, zlib.DEFLATED, -15).flush()

    with pytest.raises(FrameError) as raised:
        decompress(empty * 1000, 1000)

    assert raised.value.code == INVALID_DATA
