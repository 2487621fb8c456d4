"""A production server for measurements, and where they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import copy_database
from tests.live.conftest import database as database
from tests.live.harness import ROOT, Server


@pytest.fixture
def server(database: Path, tmp_path: Path) -> Iterator[Server]:
    """``manage.py serve``."""
    copy_database(database, tmp_path)
    server = Server("serve", tmp_path).start()
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture
def record_folder() -> Path:
    """Where figures go: out of git, or with ``BENCH_RECORD=1`` in place of those in ``docs``."""
    folder = ROOT / ("docs/images" if os.environ.get("BENCH_RECORD") == "1" else ".build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
