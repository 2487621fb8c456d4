"""The project itself under its three servers: ``manage.py serve``, ``daphne`` and ``runserver``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.live.servers.conftest import ROOT, free_port


pytestmark = pytest.mark.timeout(120)

KEY = "a key for this test"


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with a database of its own and none of this machine's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWIRE_")}
    return {
        **kept,
        "ENV_FILE": "",
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "SECRET_KEY": "a secret for this test",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "TIDEWIRE_HTTP_API_KEY": KEY,
        "TIDEWIRE_CLIENT_INSECURE": "true",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose database is migrated."""
    values = _environment(tmp_path_factory.mktemp("project"))
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(migrate, cwd=ROOT, env=values, check=True)
    return values


def _command(kind: str, port: int) -> list[str]:
    if kind == "serve":
        return ["manage.py", "serve", "--host", "127.0.0.1", "--port", str(port)]
    if kind == "runserver":
        return ["manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    return ["-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "project.asgi:application"]


def _run(kind: str, port: int, environment: dict[str, str], log: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, *_command(kind, port)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True)


def _wait_until_it_answers(process: subprocess.Popen[str], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            _status(f"http://127.0.0.1:{port}/connection/websocket")
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        else:
            return


def _status(url: str, data: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(url, data, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


@pytest.fixture(params=["serve", "daphne", "runserver"])
def server(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running server and its port."""
    port, log = free_port(), tmp_path / "log"
    with log.open("w", encoding="utf-8") as file:
        process = _run(request.param, port, environment, file)
        _wait_until_it_answers(process, port, log)
        yield process, port
        if process.poll() is None:
            process.kill()
        process.wait(10)
    assert "Traceback" not in log.read_text(encoding="utf-8")


async def test_a_client_connects_and_is_sent_away_at_the_end(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    """The connect reply, then 3001 ``shutdown`` on SIGTERM, and exit status 0."""
    process, port = server
    async with connect(f"ws://127.0.0.1:{port}/connection/websocket") as websocket:
        await websocket.send('{"id":1,"connect":{}}')
        reply = json.loads(await asyncio.wait_for(websocket.recv(), 30))
        assert reply["connect"]["client"]

        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(websocket.recv(), 30)

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (3001, "shutdown")
    assert await asyncio.to_thread(process.wait, 20) == 0


async def test_every_kind_of_request_finds_its_way(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    """The API by its key, Django's pages, and 400, 405 and 404 where no WebSocket is."""
    _, port = server
    root = f"http://127.0.0.1:{port}"

    assert _api(root, KEY)["result"]["nodes"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        _api(root, "wrong")
    refused.value.close()
    assert refused.value.code == 401
    assert _status(f"{root}/connection/websocket") == 400
    assert _status(f"{root}/connection/websocket", b"") == 405
    assert _status(f"{root}/connection/sockjs") == 404
    assert _status(f"{root}/admin/login/") == 200
    with pytest.raises(InvalidStatus) as missing:
        await connect(f"ws://127.0.0.1:{port}/connection/websocket/")
    assert missing.value.response.status_code == 404


def _api(root: str, key: str) -> Any:
    request = urllib.request.Request(f"{root}/api/info", b"{}", {"X-API-Key": key})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "2"], "the memory engine lives in one process"),
        (["--workers", "0"], "expected 1 or more, got 0"),
        (["--http_server.internal_port", "90000"], "http_server.internal_port"),
        (["-a", "192.0.2.1", "-p", "8000"], "can't listen on 192.0.2.1:8000"),
        (["-p", "0", "--http_server.internal_address", "192.0.2.1"], "can't listen on 192.0.2.1:0"),
        (["-p", "http"], "http_server.port"),
    ],
)
def test_what_can_not_be_served_is_said_and_not_started(
    environment: dict[str, str], flags: list[str], message: str
) -> None:
    """A sentence for the operator, exit status 1, no traceback."""
    command = [sys.executable, "manage.py", "serve", *flags]

    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30
    )

    assert run.returncode == 1
    assert message in run.stderr.replace("TIDEWIRE_HTTP_SERVER_PORT", "http_server.port")
    assert "Traceback" not in run.stderr
