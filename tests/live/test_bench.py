"""``manage.py bench`` as a user runs it: on a server of its own, and on one that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from realtime.bench.plan import SCENARIOS
from tests.live.harness import API_KEY, HMAC_KEY, ROOT, Server, environment


pytestmark = pytest.mark.live

SMALL = ("--clients", "20", "--publications", "40", "--publishers", "3", "--processes", "2")
KEYS = {"BENCH_API_KEY": API_KEY, "BENCH_TOKEN_SECRET": HMAC_KEY}


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give an environment whose temporary files are the test's, and see to it that none stay behind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield {**environment(tmp_path / "unused.sqlite3"), "TMPDIR": str(folder)}
    assert list(folder.iterdir()) == []
    # The scratch server had a database of its own.
    assert not (tmp_path / "unused.sqlite3").exists()


def bench(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "bench", *arguments],
        cwd=ROOT,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def scenarios_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the figures by scenario, of a run that succeeded."""
    assert done.returncode == 0, done.stderr
    return {each["scenario"]: each for each in json.loads(done.stdout)["scenarios"]}


def test_a_server_of_its_own(scratch):
    """All that was published arrives, counted; the figures are there and say what they are of."""
    done = bench(scratch, "fanout", *SMALL, "--history", "--json")

    (figures,) = scenarios_of(done).values()
    assert (figures["owed"], figures["delivered"], figures["units"]) == (800, 800, 800)
    assert figures["cpu_seconds"] >= 0
    assert figures["kb_per_socket"] is not None
    assert len(figures["pids"]) == 1
    content = json.loads(done.stdout)
    assert content["command"] == f"manage.py bench fanout {' '.join(SMALL)} --history --json"
    assert content["server"] == {"is_scratch": True, "url": None, "engine": "memory"}
    assert content["versions"]["tidewire"]
    assert content["machine"]["cores"] >= 1
    assert content["error"] is None


def test_deltas_and_filters_are_measured_beside_the_plain_run(scratch):
    """Each in a run of its own, with everything that was published; the patches are on the wire."""
    done = bench(scratch, "fanout", *SMALL, "--delta", "--filters", "7", "--json")

    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [each["variant"] for each in content["scenarios"]] == ["", "delta", "7 filters"]
    assert {each["delivered"] for each in content["scenarios"]} == {800}
    assert [bool(each["latency_ms"]) for each in content["scenarios"]] == [True, False, True]
    options = "--filters 7 --delta --json"
    assert content["command"] == f"manage.py bench fanout {' '.join(SMALL)} {options}"


def test_scenarios_without_variants_are_refused(scratch):
    """Rather than measured as if nothing had been asked for."""
    done = bench(scratch, "connect", "--delta")

    assert done.returncode == 1
    assert "--delta and --filters are for fanout and channels" in done.stderr


@pytest.mark.parametrize("shape", ["serve"], indirect=True)
def test_every_scenario(scratch, server: Server):
    """Counted deliveries are those expected; nothing is lost, twice or failed."""
    done = bench({**scratch, **KEYS}, *SMALL, "--url", server.url, "--prefix", "any-", "--json")

    found = scenarios_of(done)
    assert {name: (each["units"], each["delivered"]) for name, each in found.items()} == {
        "fanout": (800, 800),
        "channels": (40, 40),
        "publish": (40, 0),
        "connect": (20, 0),
        "inbound": (800, 800),
    }
    assert set(found) == set(SCENARIOS)
    for each in found.values():
        assert each["is_complete"]
        assert (each["missing"], each["surplus"], each["failed"], each["errors"]) == (0, 0, 0, [])
        assert each["pids"] == [server.pid]
        assert each["per_second"] > 0
        latency = each["latency_ms"]
        assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"]


@pytest.mark.parametrize("shape", ["serve"], indirect=True)
def test_a_running_server_is_measured_by_its_processes(scratch, server: Server):
    """Those that listen on its port; the table names them, and no key is shown."""
    done = bench(
        {**scratch, **KEYS}, "fanout", *SMALL, "--url", server.url, "--prefix", "any-", "--history"
    )
    assert done.returncode == 1
    assert "--history is for a server of its own" in done.stderr

    done = bench({**scratch, **KEYS}, "fanout", *SMALL, "--url", server.url, "--prefix", "any-")

    assert done.returncode == 0, done.stderr
    assert f"of the processes {server.pid}" in done.stdout
    assert "| fanout   | 20 x 1             |  800 |" in done.stdout
    assert API_KEY not in done.stdout + done.stderr
    assert HMAC_KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("shape", ["daphne"], indirect=True)
def test_a_server_that_puts_several_messages_into_a_frame_is_counted_as_well(
    scratch, server: Server
):
    """As any ASGI server's ``send`` does."""
    done = bench(
        {**scratch, **KEYS},
        "fanout",
        "inbound",
        *SMALL,
        "--url",
        server.url,
        "--prefix",
        "any-",
        "--json",
    )

    assert {each["delivered"] for each in scenarios_of(done).values()} == {800}


@pytest.mark.parametrize("shape", ["serve"], indirect=True)
def test_what_the_server_refuses_ends_the_run_with_its_words(scratch, server: Server):
    """A channel that nobody may have, and a wrong key."""
    refused = bench(
        {**scratch, **KEYS}, "fanout", *SMALL, "--url", server.url, "--prefix", "closed:"
    )
    wrong = bench(
        {**scratch, **KEYS, "BENCH_API_KEY": "wrong"}, "fanout", *SMALL, "--url", server.url
    )

    assert refused.returncode == wrong.returncode == 1
    assert "20 of 20 sockets could not connect and subscribe: refused: 103 permission denied" in (
        refused.stderr
    )
    assert "/api/info was answered 401; is the API key right?" in wrong.stderr


@pytest.mark.parametrize("shape", ["serve"], indirect=True)
def test_what_does_not_arrive_makes_the_command_fail(scratch, server: Server):
    """Here because the clients are sent away while publications are under way."""
    process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "manage.py"), "bench", "fanout", *SMALL, "--rate", "10",
            "--url", server.url, "--prefix", "any-", "--json",
        ],
        cwd=ROOT,
        env={**scratch, **KEYS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while server.call("channels", pattern="any-0")["channels"] != {
            "any-0": {"num_clients": 20}
        }:
            assert time.monotonic() < deadline, "the sockets did not come"
            time.sleep(0.05)
        server.call("disconnect", user="bench7")
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 1, errors
    (figures,) = json.loads(out)["scenarios"]
    assert 0 < figures["missing"] <= 40
    assert figures["delivered"] == 800 - figures["missing"]
    assert f"{figures['missing']} of 800 deliveries are missing" in errors
    assert "closed with 3503 force disconnect" in errors


def test_ctrl_c_leaves_nothing_behind(scratch):
    """Neither a process nor a file, in the middle of a run."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "bench", "fanout", *SMALL, "--rate", "2"],
        cwd=ROOT,
        env=scratch,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        children = _wait_for_clients(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 130, errors
    assert out == ""
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert len(children) == 3  # the server and two client processes
    assert [child for child in children if child.is_running()] == []


def _wait_for_clients(pid: int) -> list[psutil.Process]:
    """Wait until the clients of a run are there; return all its children."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        children = psutil.Process(pid).children(recursive=True)
        lines = [" ".join(child.cmdline()) for child in children]
        if sum("realtime.bench.worker" in line for line in lines) == 2:
            return children
        time.sleep(0.05)
    raise AssertionError("no client processes came")
