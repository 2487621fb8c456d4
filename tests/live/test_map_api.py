"""Maps from outside of a server: the scoreboard's commands, and Django code in a process that serves nobody."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.live.harness import API_KEY, ROOT, Server, manage


pytestmark = pytest.mark.live

EXAMPLE = ROOT / "examples" / "scoreboard"
CHANNEL = "scores:game"


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    """Give a server with the scoreboard's namespace, imported as its README says."""
    server = make_server()
    manage(server.database, "importconfig", str(EXAMPLE / "namespace.json"))
    wait_for(lambda: "result" in server.api("map_stats", {"channel": CHANNEL}).json)
    return server


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something is so; the server is another process."""
    deadline = time.monotonic() + 20
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


def test_a_shell_writes_maps(server: Server) -> None:
    """A process that serves nobody has the same functions with the same results."""
    options = {"TIDEWIRE_API_URL": f"{server.url}/api", "TIDEWIRE_API_KEY": API_KEY}

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
