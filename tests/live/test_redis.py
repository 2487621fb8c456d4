"""Servers on Redis, as processes: two of them, a shell beside them, and Redis away."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from tests import redis_servers
from tests.live.harness import Server, manage


pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis():
    with redis_servers.single() as server:
        yield server


@pytest.fixture
def own_redis():
    """One that the test may end."""
    with redis_servers.single() as server:
        yield server


@pytest.fixture
def make_hardy_server(shape, database, tmp_path_factory):
    """Start servers as ``make_server`` does, for tests that give them something to log."""
    servers = []

    def make(options):
        folder = tmp_path_factory.mktemp(shape)
        for file in database.parent.glob("db.sqlite3*"):
            shutil.copy(file, folder)
        servers.append(Server(shape, folder, options))
        return servers[-1].start()

    yield make
    for server in servers:
        assert server.stop() == 0, server.log


def options_for(redis):
    return {
        "TIDEWIRE_ENGINE_TYPE": "redis",
        "TIDEWIRE_ENGINE_REDIS_ADDRESS": redis.address,
        "TIDEWIRE_HEALTH_ENABLED": "true",
    }


SHELL = """
import asyncio, json, os
import realtime
from realtime.protocol.errors import EngineError

out = [realtime.publish("hist:shell", {"n": 1})]
out.append(asyncio.run(realtime.apublish("hist:shell", {"n": 2})))
pid = os.fork()
if pid == 0:
    realtime.publish("hist:shell", {"n": 3})
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
out.append(realtime.history("hist:shell", limit=-1))
out.append(realtime.presence_stats("room:shell"))
try:
    realtime.publish("nope:x", 1)
except realtime.ApiError as error:
    out.append(error.code)
try:
    realtime.info()
except EngineError as error:
    out.append(str(error))
print(json.dumps(out))
"""


def test_a_shell_publishes_by_the_engine_itself(redis, make_server):
    """Without an API_URL or a key; a forked child has connections of its own; refusals are the API's."""
    server = make_server(options_for(redis))
    before = server.call("history", channel="hist:shell", limit=-1)["offset"]

    first, second, history, stats, refusal, info = json.loads(
        manage(server.database, "shell", "-v", "0", "-c", SHELL, options=options_for(redis))
    )

    assert (first["offset"], second["offset"]) == (before + 1, before + 2)
    assert [each["data"]["n"] for each in history["publications"]][-3:] == [1, 2, 3]
    assert server.call("history", channel="hist:shell", limit=-1)["offset"] == before + 3
    assert stats == {"num_clients": 0, "num_users": 0}
    assert refusal == 102
    assert "REALTIME['API_URL'] is not set" in info or "no answer from" in info


def test_health_tells_that_redis_is_away(own_redis, make_hardy_server):
    """The process lives and says so; it is ready when Redis answers; the API fails meanwhile and recovers."""
    server = make_hardy_server(options_for(own_redis))
    assert deep(server) == 200
    own_redis.kill()
    wait_for(lambda: deep(server) == 503)

    assert server.request("/health").status == 200
    assert server.api("publish", {"channel": "a", "data": 1}).json["error"]["code"] == 100

    own_redis.restart()
    wait_for(lambda: deep(server) == 200)
    assert server.api("publish", {"channel": "a", "data": 1}).json == {"result": {}}


def test_health_tells_that_the_maps_redis_is_away(own_redis, make_hardy_server):
    """Whatever the engine is; publications go on meanwhile."""
    options = {
        "TIDEWIRE_MAP_BROKER_TYPE": "redis",
        "TIDEWIRE_MAP_BROKER_REDIS_ADDRESS": own_redis.address,
        "TIDEWIRE_HEALTH_ENABLED": "true",
    }
    server = make_hardy_server(options)
    assert deep(server) == 200
    own_redis.kill()
    wait_for(lambda: deep(server) == 503)

    assert server.api("publish", {"channel": "a", "data": 1}).json == {"result": {}}

    own_redis.restart()
    wait_for(lambda: deep(server) == 200)


def test_a_server_starts_without_redis(own_redis, make_hardy_server):
    """It logs, keeps trying, and works once Redis is there."""
    own_redis.kill()
    server = make_hardy_server(options_for(own_redis))
    assert deep(server) == 503
    assert "Redis is away" in server.log

    own_redis.restart()

    wait_for(lambda: deep(server) == 200)
    assert server.publish("hist:a", 1)["offset"] == 1


def deep(server: Server) -> int:
    return server.request("/health?deep=1").status


def wait_for(holds) -> None:
    """Wait until something is so; the server is another process."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
