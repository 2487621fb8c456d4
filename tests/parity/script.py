"""The script: every scenario, by its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.parity.encodings import JSON
from tests.parity.talk import Talk


Play = Callable[[Talk], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One conversation.

    Attributes:
        name: Of its transcript.
        play: Says what is sent and awaited.
        encodings: Of the connections; it is played once with each.
        hasty: On the server with little patience.

    """

    name: str
    play: Play
    encodings: tuple[str, ...] = (JSON,)
    hasty: bool = False


SCENARIOS: dict[str, Scenario] = {}


def scenario(*encodings: str, hasty: bool = False) -> Callable[[Play], Play]:
    """Make a function a scenario; its name is that of the transcript."""

    def register(play: Play) -> Play:
        name = play.__name__
        assert name not in SCENARIOS, name
        SCENARIOS[name] = Scenario(name, play, encodings or (JSON,), hasty)
        return play

    return register


@dataclass(frozen=True, slots=True)
class Part:
    """A scenario in one encoding: what has a transcript."""

    scenario: Scenario
    encoding: str

    @property
    def name(self) -> str:
        """Of the transcript."""
        return f"{self.scenario.name}.{self.encoding}"


def parts(*, hasty: bool) -> list[Part]:
    """Return those for one of the servers, in the script's order."""
    return [
        Part(one, encoding)
        for one in SCENARIOS.values()
        if one.hasty is hasty
        for encoding in one.encodings
    ]
