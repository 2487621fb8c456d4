"""Our own JavaScript client: its unit tests in node, and its types."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


pytestmark = pytest.mark.browser

FOLDER = Path(__file__).parent / "js"


@pytest.mark.parametrize(
    "command", [["node", "--test"], ["node_modules/.bin/tsc"]], ids=["tests", "types"]
)
def test_module(command: list[str]) -> None:
    """``node --test`` and the type checker find nothing."""
    done = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    if command[-1] == "--test":
        assert "# pass 0" not in done.stdout
