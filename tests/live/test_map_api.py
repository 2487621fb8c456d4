"""Maps from outside of a server: the scoreboard's commands, and Django code in a process that serves nobody."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import copy_database
from tests.live.harness import API_KEY, ROOT, Server, make_token, manage, raw
from tests.redis_servers import RedisServer, single


pytestmark = pytest.mark.live

EXAMPLE = ROOT / "examples" / "scoreboard"
CHANNEL = "scores:game"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Give a Redis of this module's own."""
    with single() as server:
        yield server


@pytest.fixture(scope="module", params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def options(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Say where maps are."""
    if request.param == "memory":
        return {}
    redis: RedisServer = request.getfixturevalue("redis")
    return {
        "TIDEWIRE_ENGINE_TYPE": "redis",
        "TIDEWIRE_ENGINE_REDIS_ADDRESS": redis.address,
        "TIDEWIRE_MAP_BROKER_TYPE": "redis",
        "TIDEWIRE_MAP_BROKER_REDIS_ADDRESS": redis.address,
    }


@pytest.fixture(scope="module")
def running(
    shape: str,
    database: Path,
    options: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Give a server with the scoreboard's namespace, imported as its README says."""
    folder = tmp_path_factory.mktemp(shape)
    copy_database(database, folder)
    server = Server(shape, folder, options).start()
    add_namespace(server)
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def server(running: Server) -> Server:
    """Give the server, with an empty board."""
    running.call("map_clear", channel=CHANNEL)
    return running


def add_namespace(server: Server) -> None:
    """Import the scoreboard's namespace, and wait until the server has it."""
    manage(server.database, "importconfig", str(EXAMPLE / "namespace.json"))
    wait_for(lambda: "result" in server.api("map_stats", {"channel": CHANNEL}).json)


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something is so; the server is another process."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def program(server: Server, *arguments: str) -> list[str]:
    """Return the scoreboard's command."""
    return [sys.executable, str(EXAMPLE / "publish.py"), "--url", server.url, *arguments]


def run(server: Server, *arguments: str) -> None:
    """Run the scoreboard's program to its end."""
    environment = {"TIDEWIRE_API_KEY": API_KEY}
    subprocess.run(program(server, *arguments), env=environment, timeout=30, check=True)


@contextmanager
def playing(server: Server, *arguments: str) -> Iterator[None]:
    """Let a game go on."""
    environment = {"TIDEWIRE_API_KEY": API_KEY}
    with subprocess.Popen(program(server, "play", *arguments), env=environment) as game:
        try:
            yield
            assert game.poll() is None
        finally:
            game.terminate()


def scores(server: Server, limit: int = -1) -> dict[str, Any]:
    """Read the board, by pages where there is a limit."""
    found: dict[str, Any] = {}
    cursor = ""
    while True:
        page = server.call("map_read_state", channel=CHANNEL, limit=limit, cursor=cursor)
        found |= {entry["key"]: entry["data"]["score"] for entry in page.get("entries", [])}
        cursor = page.get("cursor", "")
        if not cursor:
            return found


def test_the_scoreboard_is_written_by_hand(server: Server) -> None:
    """``publish.py set`` and ``remove``."""
    run(server, "set", "ada", "120")
    run(server, "set", "bob", "5")
    run(server, "set", "ada", "121")
    run(server, "remove", "bob")

    assert scores(server) == {"ada": 121}
    changes = server.call("map_read_stream", channel=CHANNEL, limit=-1)
    assert [(each["key"], each.get("removed", False)) for each in changes["entries"]] == [
        ("ada", False),
        ("bob", False),
        ("ada", False),
        ("bob", True),
    ]


def test_a_game_goes_on_with_many_players(server: Server) -> None:
    """``publish.py play``: all players are on the board, and pages have them all."""
    with playing(server, "--players", "250"):
        wait_for(lambda: server.call("map_stats", channel=CHANNEL).get("num_keys", 0) >= 249)
        wait_for(lambda: server.call("map_read_state", channel=CHANNEL)["offset"] > 252)

    everything = scores(server)
    assert {f"player-{number:03}" for number in range(250)} >= everything.keys()
    assert sum(everything.values()) > 0
    assert scores(server, limit=100) == everything


SHELL = """
import asyncio, json
import realtime

channel = "scores:game"
out = [realtime.map_publish(channel, "ada", {"score": 1}, tags={"t": "1"})]
out.append(asyncio.run(realtime.amap_publish(channel, "bob", {"score": 2}, key_mode="if_new")))
out.append(realtime.map_publish(channel, "bob", {"score": 3}, key_mode="if_new"))
out.append(realtime.map_remove(channel, "ada"))
out.append(realtime.map_read_state(channel, limit=-1))
out.append(realtime.map_read_stream(channel, limit=1, reverse=True))
out.append(realtime.map_stats(channel))
try:
    realtime.publish(channel, 1)
except realtime.ApiError as error:
    out.append(error.code)
print(json.dumps(out))
"""


def test_a_shell_writes_maps(server: Server, options: Mapping[str, str]) -> None:
    """A process that serves nobody has the same functions with the same results: in Redis by itself."""
    options = options or {"TIDEWIRE_API_URL": f"{server.url}/api", "TIDEWIRE_API_KEY": API_KEY}

    out = json.loads(manage(server.database, "shell", "-v", "0", "-c", SHELL, options=options))

    first, second, suppressed, removed, state, stream, stats, refusal = out
    assert [each["offset"] for each in (first, second, suppressed, removed)] == [1, 2, 2, 3]
    assert suppressed["suppress_reason"] == "key_exists"
    assert [(each["key"], each["data"]) for each in state["entries"]] == [("bob", {"score": 2})]
    assert (state["offset"], state["epoch"]) == (3, first["epoch"])
    assert [(each["key"], each["removed"]) for each in stream["entries"]] == [("ada", True)]
    assert stats == {"num_keys": 1}
    assert refusal == 107
    assert scores(server) == {"bob": 2}


@pytest.mark.redis
@pytest.mark.parametrize("options", ["redis"], indirect=True)
async def test_nodes_share_maps(
    server: Server, make_server: Callable[..., Server], options: Mapping[str, str]
) -> None:
    """What is written at one node is read at another, and told to who is there, once and in order."""
    first, second = nodes = (server, make_server(options))
    add_namespace(second)
    run(first, "set", "ada", "1")

    async with raw(second) as socket:
        await socket.connect(token=make_token("me"))
        subscribed = await socket.ask(
            {"id": 2, "subscribe": {"channel": CHANNEL, "type": 1, "phase": 2}}
        )
        for node, score in ((first, "2"), (second, "3"), (first, "4")):
            await asyncio.to_thread(run, node, "set", "ada", score)
        await asyncio.to_thread(run, second, "remove", "ada")
        pushes = [(await socket.receive())["push"]["pub"] for _ in range(4)]

    state = subscribed["subscribe"]["state"]
    assert [(entry["key"], entry["data"]) for entry in state] == [("ada", {"score": 1})]
    assert [(pub["offset"], pub.get("data", {}).get("score")) for pub in pushes] == [
        (2, 2),
        (3, 3),
        (4, 4),
        (5, None),
    ]
    assert pushes[-1]["removed"]
    assert scores(first) == scores(second) == {}
    epochs = {node.call("map_read_stream", channel=CHANNEL, limit=-1)["epoch"] for node in nodes}
    assert epochs == {subscribed["subscribe"]["epoch"]}
