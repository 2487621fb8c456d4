"""Servers to talk to: ours, and Centrifugo where there is a binary."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import copy_database
from tests.live.harness import Server, free_port, manage
from tests.live.polled import PolledApplication
from tests.parity.configuration import configuration
from tests.parity.talk import Place


BINARY_VARIABLE = "CENTRIFUGO_BINARY"
_START_SECONDS = 30.0


def our_database(folder: Path, polled: PolledApplication) -> Path:
    """Make a database with the namespaces, which both of our servers are started with."""
    path, file = folder / "db.sqlite3", folder / "config.json"
    file.write_text(json.dumps(configuration(polled.url)))
    manage(path, "migrate", "--verbosity", "0")
    manage(path, "importconfig", str(file), options={"TIDEWIRE_CONFIG": str(file)})
    return path


@contextlib.contextmanager
def our_server(
    database: Path, folder: Path, polled: PolledApplication, *, hasty: bool = False
) -> Iterator[Place]:
    """Run ``manage.py serve`` with the configuration."""
    copy_database(database, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(configuration(polled.url, hasty=hasty)))
    options = {
        "TIDEWIRE_CONFIG": str(file),
        # The harness allows everybody to connect, and the environment wins over the file.
        "TIDEWIRE_CLIENT_ALLOW_ANONYMOUS_CONNECT_WITHOUT_TOKEN": str(not hasty).lower(),
    }
    server = Server("serve", folder, options).start()
    try:
        yield Place(server.url, polled, is_ours=True)
    finally:
        status = server.stop()
    assert status == 0, server.log
    assert "Traceback" not in server.log, server.log


@contextlib.contextmanager
def centrifugo(folder: Path, polled: PolledApplication, *, hasty: bool = False) -> Iterator[Place]:
    """Run the binary that ``CENTRIFUGO_BINARY`` names with the same configuration."""
    binary = os.environ.get(BINARY_VARIABLE, "")
    if not binary or not os.access(binary, os.X_OK):
        pytest.fail(
            f"set {BINARY_VARIABLE} to the path of a Centrifugo v6 binary that records transcripts; "
            f"it is {binary!r}",
            pytrace=False,
        )
    port = free_port()
    settings = configuration(polled.url, hasty=hasty)
    settings["http_server"] = {"address": "127.0.0.1", "port": port}
    file = folder / "centrifugo.json"
    file.write_text(json.dumps(settings))
    log_path = folder / "centrifugo.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [binary, "-c", str(file)], stdout=log, stderr=log, cwd=folder, env={}
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_answer(url, process, log_path)
        yield Place(url, polled, is_ours=False)
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def _await_answer(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url + "/health", timeout=5).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"Centrifugo did not start:\n{log_path.read_text()}")
