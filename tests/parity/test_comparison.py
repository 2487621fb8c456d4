"""The comparison finds what differs, also a stated difference that is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.masks import Masks, Shown
from tests.parity.talk import ABSENT, Differs, Line
from tests.parity.transcripts import compare


def _got(value: Any) -> dict[str, Any]:
    return {"who": "client", "got": value}


THEIRS = _got({"id": 1, "subscribe": {"state": [{"key": "a", "epoch": "e"}]}})
CHANGED = _got({"id": 1, "subscribe": {"state": [{"key": "b"}]}})
CHANGES = {"subscribe.state.0.key": "b", "subscribe.state.0.epoch": ABSENT}


@pytest.mark.parametrize(
    ("theirs", "ours", "problems"),
    [
        ([THEIRS], [Line(THEIRS)], 0),
        ([THEIRS], [Line(CHANGED)], 1),
        ([THEIRS, THEIRS], [Line(THEIRS)], 1),
        ([THEIRS], [Line(THEIRS), Line(THEIRS)], 1),
        ([THEIRS], [Line(CHANGED, Differs("why", CHANGES))], 0),
        ([THEIRS], [Line(CHANGED, Differs("why", {"subscribe.state.0.key": "b"}))], 1),
        # It differs from what was stated, and not from Centrifugo's.
        ([THEIRS], [Line(THEIRS, Differs("why", CHANGES))], 2),
        ([THEIRS], [Line(_got(None), Differs("why", ours=ABSENT))], 0),
        (
            [THEIRS],
            [Line({"who": "client", "closed": [3500, "bad"]}, Differs("why", ours=(3500, "bad")))],
            0,
        ),
    ],
)
def test_differences_are_found(
    theirs: list[dict[str, Any]], ours: list[Line], problems: int
) -> None:
    """One problem a line, but where a statement is out of date."""
    assert len(compare(theirs, ours)) == problems


def test_what_a_server_makes_up_keeps_its_name() -> None:
    """Equal values have equal names, in what is received and in what is sent."""
    masks = Masks()
    client = "0b6ed1a1-9b0f-4a9e-8d54-1f2d6f5cf6a1"

    first = masks.got({"connect": {"client": client, "version": "6.9.1"}, "epoch": "abcdefgh"})
    again = masks.got({"epoch": "ijklmnop", "ttl": 95, "presence": {client: {"client": client}}})
    sent = masks.sent({"epoch": "abcdefgh", "token": Shown("x.y.z", "<token>")})

    assert first == {
        "connect": {"client": "<id 1>", "version": "<version>"},
        "epoch": "<epoch 1>",
    }
    assert again == {
        "epoch": "<epoch 2>",
        "ttl": "<about 100>",
        "presence": {"<id 1>": {"client": "<id 1>"}},
    }
    assert sent == {"epoch": "<epoch 1>", "token": "<token>"}


def test_an_epoch_of_the_script_stays_as_it_is() -> None:
    """An application's own is no server's invention."""
    masks = Masks()
    masks.sent({"epoch": "first"})

    assert masks.got({"epoch": "first"}) == {"epoch": "first"}
