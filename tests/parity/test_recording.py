"""Record transcripts from Centrifugo anew: ``make parity``."""

from __future__ import annotations

import pytest

from tests.parity import scenarios
from tests.parity.script import Part, parts
from tests.parity.talk import Place
from tests.parity.transcripts import FOLDER, path_of, play, write


pytestmark = pytest.mark.parity

assert scenarios.MODULES


@pytest.mark.parametrize("part", parts(hasty=False), ids=lambda part: part.name)
async def test_record(part: Part, theirs: Place) -> None:
    """The scenario can be played with Centrifugo; what it says is kept."""
    lines = await play(part, theirs)

    assert lines
    write(part, lines)


@pytest.mark.parametrize("part", parts(hasty=True), ids=lambda part: part.name)
async def test_record_in_a_hurry(part: Part, their_hasty: Place) -> None:
    """The same with short intervals."""
    lines = await play(part, their_hasty)

    assert lines
    write(part, lines)


def test_forget_what_is_no_part_of_the_script() -> None:
    """Transcripts of scenarios that are no more go."""
    kept = {path_of(part) for hasty in (False, True) for part in parts(hasty=hasty)}

    for path in set(FOLDER.iterdir()) - kept:
        path.unlink()

    assert set(FOLDER.iterdir()) <= kept
