"""Messages on a stream without frames."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from realtime.protocol.framing import MalformedFrame
from realtime.protocol.protobuf_codec import delimit
from realtime.protocol.streams import LengthSplitter, LineSplitter, Splitter


LIMIT = 400
LINES = st.lists(st.binary(max_size=LIMIT).map(lambda each: each.replace(b"\n", b"")))
MESSAGES = st.lists(st.binary(max_size=LIMIT))


def _feed(splitter: Splitter, stream: bytes, cuts: list[int]) -> list[bytes]:
    """Give a stream in pieces; return the runs that came out."""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    return [run for piece in pieces if (run := splitter.feed(piece))]


@given(LINES, st.lists(st.integers(0, 3000)), st.binary(max_size=20))
def test_any_split_gives_the_same_lines(lines, cuts, rest):
    """Whole ones only, each as soon as it is there; an unfinished one stays."""
    whole = b"".join(line + b"\n" for line in lines)

    runs = _feed(LineSplitter(LIMIT), whole + rest.replace(b"\n", b""), cuts)

    assert b"".join(runs) == whole
    assert all(run.endswith(b"\n") for run in runs)


@given(MESSAGES, st.lists(st.integers(0, 3000)))
def test_any_split_gives_the_same_messages(messages, cuts):
    """Runs end between messages, so that a decoder can read each run by itself."""
    framed = [delimit(message) for message in messages]
    ends, end = set(), 0
    for each in framed:
        end += len(each)
        ends.add(end)

    runs = _feed(LengthSplitter(LIMIT), b"".join(framed) + b"\x7f", cuts)

    assert b"".join(runs) == b"".join(framed)
    taken = 0
    for run in runs:
        taken += len(run)
        assert taken in ends


def test_a_message_comes_with_its_last_byte():
    """Not before, and not later: nobody would send another one to push it out."""
    lines, lengths = LineSplitter(LIMIT), LengthSplitter(LIMIT)
    framed = delimit(b"x" * 300)

    assert [lines.feed(bytes((byte,))) for byte in b"ab\n"] == [b"", b"", b"ab\n"]
    pieces = [lengths.feed(bytes((byte,))) for byte in framed]
    assert pieces == [b""] * (len(framed) - 1) + [framed]


@pytest.mark.parametrize(
    ("splitter", "data"),
    [
        (LineSplitter, b"x" * (LIMIT + 2) + b"\n"),
        (LineSplitter, b"a\n" + b"x" * (LIMIT + 1)),
        (LineSplitter, b"a\n" + b"x" * (LIMIT + 1) + b"\nb\n"),
        (LengthSplitter, delimit(b"x" * (LIMIT + 1))),
        (LengthSplitter, delimit(b"x" * (LIMIT + 1))[:2]),
        (LengthSplitter, b"\x00" + b"\xff" * 10),
    ],
)
def test_what_is_too_large_is_malformed(splitter, data):
    """Known from a length alone, or without waiting for a line's end."""
    with pytest.raises(MalformedFrame):
        splitter(LIMIT).feed(data)
