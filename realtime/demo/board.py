"""A document that changes a little, all the time: a departure board."""

from __future__ import annotations

import random
from typing import Any


CITIES = (
    "Amsterdam", "Athína", "Barcelona", "Bergen", "București", "Dublin", "Gdańsk", "Genève", "Helsinki", "İstanbul",
    "København", "Kraków", "Lisboa", "Ljubljana", "Málaga", "Napoli", "Plzeň", "Praha", "Reykjavík", "Rīga", "Tallinn",
    "Trieste", "Warszawa", "Zürich",
)  # fmt: skip
NOTES = ("on time", "boarding", "gate changed", "10 minutes late", "25 minutes late")


class Board:
    """
    Change two rows a step.

    ``step()`` returns the whole document, some 2 KB::

        {"step": int, "rows": [{"to": city, "at": "hh:mm", "gate": "A1" to "D9", "note": str}, ...]}

    Args:
        seed: Boards of one seed show the same.

    """

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- a board, no secret
        self._step = 0
        self._rows = [
            {
                "to": city,
                "at": f"{6 + index // 4:02}:{index % 4 * 15:02}",
                "gate": self._gate(),
                "note": NOTES[0],
            }
            for index, city in enumerate(CITIES)
        ]

    def step(self) -> dict[str, Any]:
        """Change something and return the document."""
        self._step += 1
        moved, noted = self._random.sample(self._rows, 2)
        moved["gate"] = self._gate()
        noted["note"] = self._random.choice(NOTES)
        return {"step": self._step, "rows": self._rows}

    def _gate(self) -> str:
        return f"{self._random.choice('ABCD')}{self._random.randrange(1, 10)}"
