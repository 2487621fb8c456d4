"""Our server says what Centrifugo said, but where a scenario states and explains a difference."""

from __future__ import annotations

import pytest

from tests.parity import scenarios
from tests.parity.script import Part, parts
from tests.parity.talk import Place
from tests.parity.transcripts import FOLDER, compare, path_of, play, read


pytestmark = pytest.mark.live

assert scenarios.MODULES


@pytest.mark.parametrize("part", parts(hasty=False), ids=lambda part: part.name)
async def test_we_say_what_centrifugo_said(part: Part, ours: Place) -> None:
    """Line by line."""
    lines = await play(part, ours)

    assert not (problems := compare(read(part), lines)), "\n".join(problems)


@pytest.mark.parametrize("part", parts(hasty=True), ids=lambda part: part.name)
async def test_we_say_so_in_a_hurry_too(part: Part, our_hasty: Place) -> None:
    """Pings, expiry and the like, with short intervals."""
    lines = await play(part, our_hasty)

    assert not (problems := compare(read(part), lines)), "\n".join(problems)


def test_transcripts_belong_to_scenarios() -> None:
    """There is one for each, and none that nothing compares."""
    expected = {path_of(part).name for hasty in (False, True) for part in parts(hasty=hasty)}

    found = {path.name for path in FOLDER.iterdir()}

    assert found == expected
