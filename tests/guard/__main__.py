"""
The guard against slow hot paths: ``python -m tests.guard`` compares with ``baseline.json``, ``--write`` makes it anew.

It fails when a path takes 30 % more than the baseline says, in multiples of the calibration's work (see ``measure``). The
figure is the median over several processes, since the layout of memory and the seed of hashes differ from one to the next. One that
is over the limit is measured once more, with more processes, before it counts.

The baseline has figures for versions of Python. On one that it doesn't know the nearest version's are used with a wider
limit, since the interpreter speeds up some kinds of work more than others.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
BASELINE = Path(__file__).with_name("baseline.json")
LIMIT, LIMIT_OF_ANOTHER_VERSION = 1.3, 1.6
# From here on the baseline is worth renewing: the guard would let the gain be lost again.
GAIN = 0.8
PROCESSES, PROCESSES_IN_DOUBT = 3, 5

Figures = Mapping[str, float]


def measure(processes: int) -> dict[str, float]:
    """Return the median of each path's figure over so many processes."""
    outcomes: list[dict[str, float]] = []
    for _ in range(processes):
        run = subprocess.run(
            [sys.executable, "-m", "tests.guard.measure"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if run.returncode:
            raise SystemExit(f"the measurement failed:\n{run.stderr}")
        outcomes.append(json.loads(run.stdout))
    return {
        name: round(statistics.median(outcome[name] for outcome in outcomes), 3)
        for name in outcomes[0]
    }


def version() -> str:
    """Return Python's version without the last number."""
    return ".".join(platform.python_version_tuple()[:2])


def expected(baseline: Mapping[str, Figures], running: str) -> tuple[Figures, float]:
    """Return the figures to compare with, and the limit."""
    if running in baseline:
        return baseline[running], LIMIT

    def distance(other: str) -> int:
        return abs(int(other.partition(".")[2]) - int(running.partition(".")[2]))

    return baseline[min(baseline, key=distance)], LIMIT_OF_ANOTHER_VERSION


def slower(figures: Figures, before: Figures, limit: float) -> list[str]:
    """Name the paths that are over the limit."""
    return [name for name, figure in figures.items() if figure > limit * before[name]]


def table(figures: Figures, before: Figures, limit: float) -> str:
    """Return the figures for people to read."""
    lines = [f"{'path':<18}{'baseline':>10}{'now':>10}{'change':>10}   (limit {limit - 1:+.0%})"]
    for name, figure in figures.items():
        change = figure / before[name]
        note = (
            "  SLOWER"
            if change > limit
            else "  faster: make guard-baseline"
            if change < GAIN
            else ""
        )
        lines.append(f"{name:<18}{before[name]:>10.3f}{figure:>10.3f}{change - 1:>+10.0%}{note}")
    return "\n".join(lines)


def main() -> int:
    """Compare, or write the baseline; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.guard", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make the baseline anew")
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if parser.parse_args().write:
        baseline[version()] = measure(PROCESSES_IN_DOUBT)
        BASELINE.write_text(json.dumps(baseline, indent=2) + "\n")
        sys.stdout.write(f"{json.dumps(baseline[version()])}\n")
        return 0
    before, limit = expected(baseline, version())
    figures = measure(PROCESSES)
    if slower(figures, before, limit):
        figures = measure(PROCESSES_IN_DOUBT)
    sys.stdout.write(table(figures, before, limit) + "\n")
    return 1 if slower(figures, before, limit) else 0


if __name__ == "__main__":
    raise SystemExit(main())
