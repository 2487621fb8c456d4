"""Read Autobahn's report: print what isn't right, exit 1 if a case failed or none ran."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any


# What the suite calls a pass. NON-STRICT is allowed by the RFC (a wrong byte is noticed at the frame's end and not
# within it); INFORMATIONAL cases have no right answer. UNIMPLEMENTED: the server declined the compression
# offered, as it may.
_PASSED = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}


def failures(report: dict[str, Any]) -> list[str]:
    """Name the cases that failed, with both verdicts."""
    return [
        f"{case}: {result['behavior']}, close {result['behaviorClose']}"
        for cases in report.values()
        for case, result in cases.items()
        if result["behavior"] not in _PASSED or result["behaviorClose"] not in _PASSED
    ]


def main(path: str) -> int:
    """Judge the report in ``path``."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    verdicts = Counter(result["behavior"] for cases in report.values() for result in cases.values())
    failed = failures(report)
    total = verdicts.total()
    lines = [
        *(f"FAILED {line}" for line in failed),
        ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())),
        f"{total - len(failed)} passed, {len(failed)} failed",
    ]
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
