"""
A server for the measurements, and the record that they go into: ``docs/images/bench.json``, drawn as ``bench.svg``.

A measurement replaces its own part of the record, so that one can be repeated alone; machine and versions are those of
the last one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from realtime.bench import report, scenarios
from realtime.bench.plan import Plan
from realtime.bench.report import Result
from realtime.bench.server import ScratchServer, allow_open_files
from realtime.conf import loader
from realtime.conf.rendering import document
from realtime.management.commands.bench import token_maker
from tests.bench.plot import draw_record
from tests.live.conftest import copy_database
from tests.live.conftest import database as database
from tests.live.harness import Server


IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
Record = Callable[[str, Any], None]


@pytest.fixture
def record() -> Record:
    """Give a function that puts a part into the record and draws it anew."""

    def put(name: str, content: Any) -> None:
        path = IMAGES / "bench.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        kept |= {"machine": report.machine(), "versions": report.versions(), name: content}
        path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        (IMAGES / "bench.svg").write_text(draw_record(kept), encoding="utf-8")

    return put


class Bench:
    """Runs plans, each on a server that was started for it, on the memory engine with default options."""

    def __init__(self, server: ScratchServer) -> None:
        self._server = server

    async def run(self, plan: Plan) -> Result:
        """Measure; nothing may be lost."""
        allow_open_files([plan])
        async with self._server as server:
            result = await scenarios.run(plan, server, token_maker(server.token_secret))
        assert result.is_complete, result.problems()
        return result


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> Bench:
    """Give what measures."""
    server = ScratchServer(tmp_path, document(loader.load({}, {}).options), "project.settings")
    await server.prepare()
    return Bench(server)


@pytest.fixture
def serving(database: Path, tmp_path: Path) -> Iterator[Server]:
    """Give ``manage.py serve`` with the namespaces of the live tests."""
    copy_database(database, tmp_path)
    server = Server("serve", tmp_path).start()
    yield server
    assert server.stop() == 0, server.log
