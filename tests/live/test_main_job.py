"""A REST publish reaches a subscriber, on both servers as a user starts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
import websockets


pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret of more than thirty-two bytes, for live tests"
KEY = "an API key for live tests"

NAMESPACE = (
    "from realtime.models import Namespace; Namespace.objects.create(name='hist', history_size=10, "
    "history_ttl=60, force_recovery=True, allow_subscribe_for_client=True)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A database with one namespace, and the options of the process."""
    database = tmp_path_factory.mktemp("live") / "db.sqlite3"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIDEWIRE_")},
        "ENV_FILE": "",
        "SECRET_KEY": "for live tests only",
        "DATABASE_URL": f"sqlite:///{database}",
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "TIDEWIRE_CLIENT_TOKEN_HMAC_SECRET_KEY": SECRET,
        "TIDEWIRE_HTTP_API_KEY": KEY,
    }
    for arguments in (["migrate", "-v0"], ["shell", "-v0", "-c", NAMESPACE]):
        subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment,
            check=True,
            timeout=120,
        )
    return environment


@pytest.fixture(scope="module", params=["serve", "daphne"])
def server(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[int]:
    """The port of a running server; it must end with status 0."""
    port = free_port()
    if request.param == "serve":
        command = ["manage.py", "serve", "--host", "127.0.0.1", "--port", str(port)]
    else:
        command = ["-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "project.asgi:application"]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the server ended at once"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    assert status == 0


def call_api(port: int, method: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{method}",
        data=json.dumps(body).encode(),
        headers={"X-API-Key": KEY},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, object] = json.load(response)
        return answer


async def connect(port: int) -> websockets.ClientConnection:
    connection = await websockets.connect(f"ws://127.0.0.1:{port}/connection/websocket")
    token = jwt.encode({"sub": "u"}, SECRET, algorithm="HS256")
    await connection.send(json.dumps({"id": 1, "connect": {"token": token}}))
    reply = json.loads(await asyncio.wait_for(connection.recv(), 30))
    assert reply["connect"]["client"]
    return connection


async def test_a_rest_publish_reaches_the_subscriber(server: int) -> None:
    """The publication arrives with its offset; after a killed connection what was missed is recovered."""
    connection = await connect(server)
    await connection.send(json.dumps({"id": 2, "subscribe": {"channel": "hist:a"}}))
    position = json.loads(await asyncio.wait_for(connection.recv(), 30))["subscribe"]

    result = await asyncio.to_thread(
        call_api, server, "publish", {"channel": "hist:a", "data": {"n": 1}}
    )
    push = json.loads(await asyncio.wait_for(connection.recv(), 30))["push"]

    assert push["pub"]["data"] == {"n": 1}
    assert result["result"] == {"offset": push["pub"]["offset"], "epoch": position["epoch"]}
    connection.transport.abort()
    await asyncio.to_thread(call_api, server, "publish", {"channel": "hist:a", "data": {"n": 2}})
    again = await connect(server)
    subscribe = {
        "channel": "hist:a",
        "recover": True,
        "offset": push["pub"]["offset"],
        "epoch": position["epoch"],
    }
    await again.send(json.dumps({"id": 2, "subscribe": subscribe}))
    recovered = json.loads(await asyncio.wait_for(again.recv(), 30))["subscribe"]
    assert recovered["recovered"] is True
    assert [pub["data"] for pub in recovered["publications"]] == [{"n": 2}]
    await again.close()


async def test_a_disconnect_carries_code_and_reason(server: int) -> None:
    """SDKs decide by both."""
    connection = await connect(server)

    await asyncio.to_thread(call_api, server, "disconnect", {"user": "u"})

    with pytest.raises(websockets.ConnectionClosed) as end:
        await asyncio.wait_for(connection.recv(), 30)
    assert end.value.rcvd is not None
    assert (end.value.rcvd.code, end.value.rcvd.reason) == (3503, "force disconnect")


async def test_a_namespace_saved_elsewhere_applies_within_seconds(
    server: int, environment: dict[str, str]
) -> None:
    """A change from another process is found by the revision."""
    connection = await connect(server)
    name = f"late{server}"
    await connection.send(json.dumps({"id": 2, "subscribe": {"channel": f"{name}:a"}}))
    before = json.loads(await asyncio.wait_for(connection.recv(), 30))

    code = f"from realtime.models import Namespace; Namespace.objects.create(name={name!r}, allow_subscribe_for_client=True)"
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "manage.py", "shell", "-v0", "-c", code],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=60,
    )
    deadline = time.monotonic() + 30
    while True:
        await connection.send(json.dumps({"id": 3, "subscribe": {"channel": f"{name}:a"}}))
        after = json.loads(await asyncio.wait_for(connection.recv(), 30))
        if "subscribe" in after or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)

    assert before["error"]["code"] == 102
    assert after == {"id": 3, "subscribe": {}}
    await connection.close()
