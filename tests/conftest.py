"""
What every test shares: the services that a marker stands for.

Bare ``pytest`` skips a test whose service is missing; with ``TEST_REQUIRE=all`` (``make test``) it fails instead,
so a green run means that everything ran.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.go_client import OLDEST, find_go


JS_FOLDER = Path(__file__).parent / "live" / "js"


def _missing_program(*names: str) -> str:
    """Say which programs are not on the path, in the words of the report."""
    missing = [name for name in names if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found" if missing else ""


def _missing_for_live() -> str:
    problem = _missing_program("node")
    if not problem and not (JS_FOLDER / "node_modules" / "centrifuge").is_dir():
        problem = f"{JS_FOLDER / 'node_modules'} not installed"
    return problem


def _missing_for_go() -> str:
    return "" if find_go() else "Go {}.{} or newer not found".format(*OLDEST)


# Marker -> what is missing for it ("" is nothing). Parity, bench and autobahn run only when named by -m.
_REQUIREMENTS: dict[str, Callable[[], str]] = {
    "redis": lambda: _missing_program("redis-server"),
    "live": _missing_for_live,
    "go": _missing_for_go,
    "browser": lambda: _missing_program("chromium", "chromedriver"),
}
_ON_REQUEST = ("parity", "bench", "autobahn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has to be asked for by its marker."""
    wanted = config.getoption("markexpr")
    left_out = [name for name in _ON_REQUEST if name not in wanted]
    dropped = [item for item in items if any(item.get_closest_marker(name) for name in left_out)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail under ``TEST_REQUIRE=all``, where a marker's service is missing."""
    for marker, missing in _REQUIREMENTS.items():
        if item.get_closest_marker(marker) and (problem := missing()):
            if os.environ.get("TEST_REQUIRE") == "all":
                pytest.fail(f"{problem}: run `make services`", pytrace=False)
            pytest.skip(problem)
