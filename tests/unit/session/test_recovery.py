"""Recovery: the rows of its tables, and what holds wherever history and live traffic overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from realtime.protocol.messages import FilterNode, Publication, StreamPosition
from realtime.session.recovery import merge_publications, recover_cache, recover_stream
from realtime.session.tags_filter import make_filter


def pubs(*offsets):
    return [Publication(data=Raw(b"{}"), offset=offset) for offset in offsets]


@pytest.mark.parametrize(
    ("read", "top", "asked", "recovered"),
    [
        ([6, 7], 7, (5, "e"), True),
        ([6, 7], 7, (5, ""), True),
        ([6, 7], 7, (5, "other"), False),
        ([], 7, (7, "e"), True),
        ([], 7, (5, "e"), False),  # expired or removed
        ([], 7, (9, "e"), False),  # the client is ahead
        ([], 0, (0, ""), True),
        ([7], 7, (5, "e"), False),  # a hole at the front
        ([6, 7], 9, (5, "e"), False),  # more is missed than may be read
        ([1, 2], 2, (0, ""), True),
    ],
)
def test_a_stream_recovers_whole_or_not_at_all(read, top, asked, recovered):
    """Each row of the decision table; a refusal carries no publication."""
    found = recover_stream(pubs(*read), StreamPosition(top, "e"), StreamPosition(*asked))

    assert found.recovered is recovered
    assert [pub.offset for pub in found.publications] == (read if recovered else [])


@pytest.mark.parametrize(
    ("latest", "top", "asked", "recovered", "sent"),
    [
        (None, 3, (3, "e"), True, []),
        (None, 3, (2, "e"), False, []),
        (None, 0, (0, ""), False, []),
        (3, 3, (2, "e"), True, [3]),
        (3, 3, (3, "e"), True, []),
        (3, 3, (3, "other"), True, [3]),
        (3, 3, (0, ""), True, [3]),
        (2, 3, (1, "e"), False, []),
    ],
)
def test_a_cache_brings_the_newest_or_nothing(latest, top, asked, recovered, sent):
    """Each row of the decision table."""
    newest = pubs(latest) if latest else []

    found = recover_cache(newest, StreamPosition(top, "e"), StreamPosition(*asked))

    assert found.recovered is recovered
    assert [pub.offset for pub in found.publications] == sent


def test_a_filtered_cache_brings_the_newest_that_passes():
    """Newest first; where nothing passes it is as if nothing was stored, and a stream without its top is no cache."""
    wanted = make_filter(FilterNode(key="kind", cmp="eq", val="a"))
    newest = [
        Publication(data=Raw(b"{}"), offset=offset, tags={"kind": kind})
        for offset, kind in ((4, "b"), (3, "a"), (2, "a"))
    ]
    top, asked = StreamPosition(4, "e"), StreamPosition(1, "e")

    some = recover_cache(newest, top, asked, wanted)
    none = recover_cache(newest[:1], top, asked, wanted)
    nothing_new = recover_cache(newest[:1], top, top, wanted)
    late = recover_cache(newest[1:], top, asked, wanted)

    assert [pub.offset for pub in some.publications] == [3]
    assert some.recovered
    assert (none.recovered, none.publications) == (False, ())
    assert (nothing_new.recovered, nothing_new.publications) == (True, ())
    assert not late.recovered


@given(top=st.integers(0, 40), cut=st.integers(0, 40), overlap=st.integers(0, 5))
def test_merge_restores_the_stream_wherever_the_split_falls(top, cut, overlap):
    """However history and live traffic overlap, the result is 1..top once each."""
    stream = pubs(*range(1, top + 1))

    merged = merge_publications(stream[:cut], stream[max(0, cut - overlap) :])

    assert merged == tuple(stream)


@given(top=st.integers(3, 40), data=st.data())
def test_merge_notices_every_hole(top, data):
    """A publication that neither history nor live traffic has makes the merge fail."""
    lost = data.draw(st.integers(2, top - 1))
    cut = data.draw(st.integers(1, top - 1))
    history = [pub for pub in pubs(*range(1, cut + 1)) if pub.offset != lost]
    live = [pub for pub in pubs(*range(cut + 1, top + 1)) if pub.offset != lost]

    assert merge_publications(history, live) is None
