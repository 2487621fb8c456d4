"""Fossil deltas: vectors of the reference encoder, and what holds for any two documents."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime.protocol.fossil import (
    COPIES,
    SEARCHED,
    DeltaError,
    apply,
    checksum,
    create,
    create_shorter,
)


def document(number: int) -> bytes:
    text = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor"
    return b'{"text": "%b", "n": %d}' % (text.encode(), number)


@st.composite
def edits(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two documents of which the second was made of pieces of the first, moved, repeated, changed."""
    alphabet = draw(st.sampled_from(["ab", "abc{}:,0123456789", "aä€😀", "äöü"]))
    base = draw(st.text(alphabet, max_size=300))
    pieces: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        begin = draw(st.integers(0, len(base)))
        pieces.append(base[begin : begin + draw(st.integers(0, 120))])
        pieces.append(draw(st.text(alphabet, max_size=10)))
    return base.encode(), "".join(pieces).encode()


@pytest.mark.parametrize(
    ("base", "target", "delta"),
    [
        (document(0), document(1), b"1W\n1U@0,2:1}18dr7C;"),
        (document(1), document(2), b"1W\n1U@0,2:2}18drBC;"),
        (b"short", b"hello world", b"B\nB:hello world19x_VR;"),
        (b"", b"", b"0\n0;"),
    ],
)
def test_the_reference_encoder_makes_the_same(base: bytes, target: bytes, delta: bytes) -> None:
    """These are its outputs; decoders would take others too."""
    assert create(base, target) == delta
    assert apply(base, delta) == target


def test_the_checksum_is_that_of_the_format() -> None:
    """Words of 32 bits, big-endian, the last one filled up with zeros; across the chunks that they are added in."""
    assert checksum(b"abcdefg") == 3335047780
    assert checksum(b"") == 0
    rng = random.Random(1)
    for size in (1, 2, 3, 4, 5, 4095, 4096, 4097, 20_000):
        data = rng.randbytes(size)
        padded = data + bytes(-size % 4)
        words = (int.from_bytes(padded[at : at + 4]) for at in range(0, len(padded), 4))
        assert checksum(data) == sum(words) % 2**32


@given(pair=edits())
@example(pair=(b"ab" * 40, b"ab" * 90))
@example(pair=(b"x" * 16, b"x" * 17))
def test_a_delta_gives_its_target_and_text_gives_text(pair: tuple[bytes, bytes]) -> None:
    """Whatever was changed, the target comes back; and no literal ends within a character."""
    base, target = pair

    delta = create(base, target)

    assert apply(base, delta) == target
    delta.decode()


@given(base=st.binary(max_size=400), target=st.binary(max_size=400))
def test_any_bytes_will_do(base: bytes, target: bytes) -> None:
    """What is no text is no exception."""
    assert apply(base, create(base, target)) == target
    assert apply(target, create(target, target)) == target


def test_a_changed_number_in_a_large_document_costs_a_few_bytes() -> None:
    """Also where it is one of two that are far apart, in a table whose rows are alike."""
    rows = [{"id": number, "name": f"item {number}", "price": 1000} for number in range(2000)]
    before = json.dumps(rows).encode()
    rows[3]["price"] = rows[1990]["price"] = 2000

    delta = create(before, json.dumps(rows).encode())

    assert len(before) > 80_000
    assert len(delta) < 60


def test_moved_parts_are_copied() -> None:
    """What stands elsewhere in the target is found by its blocks."""
    rng = random.Random(2)
    parts = [rng.randbytes(300).hex().encode() for _ in range(5)]
    base = b"".join(parts)

    delta = create(base, b"".join(reversed(parts)))

    assert len(delta) < 150


def test_work_is_bounded() -> None:
    """Beyond the bounds a patch is longer than it might be, and right all the same."""
    rng = random.Random(3)
    noise, other = rng.randbytes(SEARCHED + 10), rng.randbytes(SEARCHED + 10)
    assert apply(noise, create(noise, other)) == other
    base = b"".join(b"%032d" % number for number in range(4 * COPIES))
    target = b"".join(b"%032d-" % number for number in range(4 * COPIES))

    delta = create(base, target)

    assert apply(base, delta) == target
    assert delta.count(b"@") <= COPIES + 2


def test_what_is_not_shorter_is_none() -> None:
    """A patch that saves nothing is of no use."""
    assert create_shorter(b"", document(1)) is None
    assert create_shorter(b"something else altogether", document(1)) is None
    assert create_shorter(document(0), document(1)) == create(document(0), document(1))


@pytest.mark.parametrize(
    "delta",
    [
        b"",
        b"1W",
        b"1W\n",
        b"1W 1U@0,2:1}18dr7C;",
        b"1W\n1U@0;2:1}18dr7C;",
        b"1W\n1U@0,2:1}18dr7D;",
        b"1V\n1U@0,2:1}18dr7C;",
        b"1X\n1U@0,2:1}18dr7C;",
        b"1W\n1U@a,2:1}18dr7C;",
        b"1W\n1U@0,9:1}18dr7C;",
        b"1W\n1U@0,2:1}",
        b"1W\n1U!0,2:1}18dr7C;",
        b"~~~~~~~\n0;",
    ],
)
def test_a_malformed_delta_is_refused(delta: bytes) -> None:
    """Numbers, operators, bounds, size and checksum are all looked at."""
    with pytest.raises(DeltaError):
        apply(document(0), delta)
