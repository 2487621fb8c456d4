"""Loading a map: the rows of the decisions, and what is kept of changes that come by key."""

from __future__ import annotations

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.namespaces.options import MapOptions, MapPaging, map_paging
from realtime.protocol.errors import (
    BadRequestError,
    PermissionDeniedError,
    UnrecoverablePositionError,
)
from realtime.protocol.messages import Publication, StreamPosition, SubscribeRequest
from realtime.session.map_loading import (
    HeldByKey,
    MapLoad,
    Phase,
    continues,
    first_step,
    follow,
    is_near,
    visible,
)


def changes(*offsets):
    return [Publication(key=f"k{offset}", offset=offset) for offset in offsets]


@pytest.mark.parametrize(
    ("request_", "is_loading", "expected"),
    [
        ({"phase": 2}, True, False),
        ({"phase": 2, "cursor": "c"}, True, True),
        ({"phase": 1}, True, True),
        ({"phase": 0}, True, True),
        ({"phase": 7}, True, True),
        ({"phase": 2, "cursor": "c"}, False, False),
        ({"phase": 1}, False, False),
    ],
)
def test_what_goes_on_with_a_load(request_, is_loading, expected):
    """Whatever isn't a first page, as long as there is a load."""
    assert continues(SubscribeRequest(**request_), is_loading=is_loading) is expected


@pytest.mark.parametrize(
    ("request_", "has_stream", "expected"),
    [
        ({"phase": 2}, True, Phase.STATE),
        ({"phase": 2}, False, Phase.STATE),
        ({"phase": 1, "recover": True}, True, Phase.STREAM),
        ({"phase": 1}, True, PermissionDeniedError),
        ({"phase": 1, "recover": True}, False, BadRequestError),
        ({"phase": 1}, False, BadRequestError),
        ({"phase": 0}, True, Phase.LIVE),
        ({"phase": 0}, False, Phase.LIVE),
        ({"phase": 3}, True, BadRequestError),
        ({"phase": -1}, True, BadRequestError),
    ],
)
def test_where_a_load_begins(request_, has_stream, expected):
    """A stream without a load is for who comes back."""
    request = SubscribeRequest(**request_)
    if isinstance(expected, Phase):
        assert first_step(request, has_stream=has_stream) is expected
    else:
        with pytest.raises(expected):
            first_step(request, has_stream=has_stream)


@pytest.mark.parametrize(
    ("read", "top", "since", "holds"),
    [
        ([6, 7], (7, "e"), (5, "e"), True),
        ([6, 7], (9, "e"), (5, "e"), True),  # a page of more
        ([], (5, "e"), (5, "e"), True),
        ([1], (1, "e"), (0, "e"), True),
        ([], (0, "e"), (0, "e"), True),
        ([7], (7, "e"), (5, "e"), False),  # a hole
        ([2], (2, "e"), (0, "e"), False),  # also where nothing was before
        ([], (7, "e"), (5, "e"), False),  # nothing is left
        ([], (3, "e"), (5, "e"), False),  # the map fell back
        ([6], (6, "e"), (5, "other"), False),
        ([6], (6, "e"), (5, ""), False),
    ],
)
def test_changes_follow_a_position_without_a_hole_or_not_at_all(read, top, since, holds):
    """Each row of 12.7's rule, as it should be."""
    arguments = changes(*read), StreamPosition(*since), StreamPosition(*top)
    if holds:
        assert [each.offset for each in follow(*arguments)] == read
    else:
        with pytest.raises(UnrecoverablePositionError):
            follow(*arguments)


def test_what_changed_since_the_first_page_is_not_on_the_others():
    """It comes with the changes."""
    seen = visible(changes(3, 9, 5, 6), StreamPosition(5, "e"))

    assert [each.offset for each in seen] == [3, 5]


@pytest.mark.parametrize(("offset", "size", "top"), [(0, 100, 100), (5, 1, 6), (9, 1, 4)])
def test_a_page_or_less_is_near(offset, size, top):
    """The rest comes with going live."""
    assert is_near(offset, size, top)
    assert not is_near(offset, size, offset + size + 1)


def test_what_is_automatic_of_pages_is_filled_in():
    """Centrifugo's numbers; what may be missed is as much as the largest page."""
    assert map_paging(MapOptions()) == MapPaging(100, 100, 1000, 1000, 5.0)
    given = MapOptions(
        default_page_size=20,
        min_page_size=10,
        max_page_size=30,
        live_transition_max_publication_limit=7,
        subscribe_catch_up_timeout=-1,
    )
    paging = map_paging(given)
    assert [paging.size(limit) for limit in (-1, 0, 1, 15, 31)] == [20, 20, 10, 15, 30]
    assert (paging.live_limit, map_paging(MapOptions(max_page_size=200)).live_limit) == (7, 200)
    assert not MapLoad(0.0, paging).is_late(1e9)
    assert [MapLoad(0.0, MapPaging()).is_late(now) for now in (5.0, 5.1)] == [False, True]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers()), max_size=50))
def test_of_each_key_the_newest_is_held_back(written):
    """In the order in which the newest came, and never more than there are keys."""
    held = HeldByKey()
    for key, version in written:
        held.append(types.SimpleNamespace(publication=Publication(key=key, version=version)))

    kept = [(each.publication.key, each.publication.version) for each in held]

    assert dict(kept) == dict(written)
    assert len(kept) == len(dict(written))
    last = [max(i for i, (key, _) in enumerate(written) if key == each) for each, _ in kept]
    assert last == sorted(last)
