"""Autobahn's WebSocket conformance suite: no case fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.mark.autobahn
@pytest.mark.timeout(1800)
def test_no_case_of_the_suite_fails() -> None:
    """The script runs the suite against our server and says which cases failed."""
    script = Path(__file__).parent / "run.sh"

    run = subprocess.run([script], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 failed" in run.stdout
