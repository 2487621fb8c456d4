"""The demo's document: it changes a little, and patches of it are small."""

from __future__ import annotations

import json

from realtime.demo.board import CITIES, Board
from realtime.protocol.fossil import apply, create


def test_a_step_changes_two_rows_at_most_and_costs_a_few_bytes() -> None:
    """Steps are counted, and boards of one seed show the same."""
    board, same = Board(3), Board(3)
    before = json.dumps(board.step(), ensure_ascii=False).encode()
    assert json.loads(before) == same.step()

    for step in range(2, 12):
        document = board.step()
        after = json.dumps(document, ensure_ascii=False).encode()

        rows = json.loads(before)["rows"]
        changed = [new for new, old in zip(document["rows"], rows, strict=True) if new != old]
        assert document["step"] == step
        assert len(changed) <= 2
        assert len(document["rows"]) == len(CITIES)
        delta = create(before, after)
        assert apply(before, delta) == after
        assert len(delta) < len(after) / 10
        before = after
