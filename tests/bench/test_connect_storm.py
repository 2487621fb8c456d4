"""Five thousand clients whose sockets are cut come back at the same moment."""

from __future__ import annotations

import json
from itertools import groupby
from statistics import median
from typing import Any

import pytest

from realtime.bench import report
from tests.bench.conftest import IMAGES
from tests.bench.timeline import Panel, Point, Series, render
from tests.live import storm
from tests.live.harness import Server


pytestmark = [pytest.mark.bench, pytest.mark.timeout(180)]

CLIENTS = 5000
SLICE = 0.05  # seconds that one point of a curve stands for


async def test_five_thousand_come_back_at_once(serving: Server) -> None:
    """
    Nobody is refused, everybody recovers, and a subscriber who stayed waits less than a second (p99).

    The curve is written as ``connect-storm.json`` and ``connect-storm.svg``.
    """
    storm.allow_many_files()

    outcome = await storm.run(serving, CLIENTS)

    figures = storm.check(outcome)
    curve = _curve(outcome)
    record = {
        "machine": report.machine(),
        "versions": report.versions(),
        "figures": figures,
        "curve": curve,
    }
    (IMAGES / "connect-storm.json").write_text(json.dumps(record) + "\n")
    (IMAGES / "connect-storm.svg").write_text(_draw(figures, curve))


def _curve(outcome: storm.Storm) -> dict[str, list[Point]]:
    """Put what was measured into slices of time, counted from the reconnect."""
    waits = sorted(outcome.latencies)
    slices = [
        (number * SLICE, [wait * 1000 for _, wait in group])
        for number, group in groupby(waits, key=lambda one: int(one[0] // SLICE))
    ]
    counts = {
        number: len(list(group))
        for number, group in groupby(outcome.subscribed, key=lambda at: int(at // SLICE))
    }
    first, last = slices[0][0], slices[-1][0]
    return {
        "median_ms": [(round(at, 3), round(median(group), 2)) for at, group in slices],
        "max_ms": [(round(at, 3), round(max(group), 2)) for at, group in slices],
        "connects_per_second": [
            (round(number * SLICE, 3), counts.get(number, 0) / SLICE)
            for number in range(round(first / SLICE), round(last / SLICE) + 1)
        ],
    }


def _draw(figures: dict[str, Any], curve: dict[str, list[Point]]) -> str:
    title = (
        f"{figures['clients']} clients reconnect at once and recover in {figures['seconds']:.1f} s; "
        f"others wait {figures['p99'] * 1000:.0f} ms (p99)"
    )
    return render(
        title,
        "seconds since all clients began to reconnect",
        [
            Panel(
                "latency of publications to subscribers who stayed, ms",
                [Series("largest", curve["max_ms"]), Series("median", curve["median_ms"])],
            ),
            Panel(
                "connects with subscribe and recovery, per second",
                [Series("", curve["connects_per_second"])],
            ),
        ],
    )
