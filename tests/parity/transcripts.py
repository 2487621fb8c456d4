"""Transcripts: played, written, read and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.parity.script import Part
from tests.parity.talk import ABSENT, Differs, Line, Place, Talk


FOLDER = Path(__file__).parent / "transcripts"


async def play(part: Part, place: Place) -> list[Line]:
    """Play a scenario and return what was said."""
    talk = Talk(place, part.scenario.name, part.encoding)
    try:
        await part.scenario.play(talk)
        await talk.end()
    finally:
        await talk.close()
    return talk.lines


def path_of(part: Part) -> Path:
    """Return where a transcript is kept."""
    return FOLDER / f"{part.name}.jsonl"


def write(part: Part, lines: list[Line]) -> None:
    """Keep what Centrifugo said."""
    text = "".join(json.dumps(line.entry, ensure_ascii=False) + "\n" for line in lines)
    path_of(part).write_text(text, encoding="utf-8")


def read(part: Part) -> list[dict[str, Any]]:
    """Return what Centrifugo said."""
    return [
        json.loads(line) for line in path_of(part).read_text(encoding="utf-8").split("\n") if line
    ]


def compare(recorded: list[dict[str, Any]], ours: list[Line]) -> list[str]:
    """
    Say where our server's lines are not what they have to be: Centrifugo's, but where a scenario states ours.

    A stated difference that is none any more is a finding, too.
    """
    problems: list[str] = []
    for number, (theirs, line) in enumerate(zip(recorded, ours, strict=False), 1):
        # What is sent is a tuple here and a list there.
        entry = json.loads(json.dumps(line.entry))
        if line.differs is None:
            if entry != theirs:
                problems.append(_differ(number, theirs, entry))
            continue
        stated = _stated(theirs, line.differs)
        if entry != stated:
            problems.append(f"as stated ({line.differs.why}): " + _differ(number, stated, entry))
        if entry == theirs:
            problems.append(f"line {number} does not differ any more: {line.differs.why}")
    if len(recorded) != len(ours):
        longer = recorded if len(recorded) > len(ours) else [line.entry for line in ours]
        whose = "Centrifugo's" if longer is recorded else "ours"
        rest = longer[min(len(recorded), len(ours)) :]
        problems.append(f"only {whose}: " + "\n  ".join(map(json.dumps, rest)))
    return problems


def _stated(theirs: dict[str, Any], differs: Differs) -> dict[str, Any]:
    """Return the line that we are to write in the place of Centrifugo's."""
    if differs.ours is ABSENT:
        return {"who": theirs["who"], "got": None}
    if isinstance(differs.ours, tuple):
        return {"who": theirs["who"], "closed": list(differs.ours)}
    if differs.ours is not None:
        return {"who": theirs["who"], "got": differs.ours}
    stated: dict[str, Any] = json.loads(json.dumps(theirs))
    for path, value in differs.changes.items():
        *way, last = path.split(".")
        place: Any = stated["got"]
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if value is ABSENT:
            del place[last]
        else:
            place[last] = value
    return stated


def _differ(number: int, expected: Any, actual: Any) -> str:
    return f"line {number}:\n  expected {json.dumps(expected)}\n  got      {json.dumps(actual)}"
