"""Commands of a stream that land on another server than the one that has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import copy_database
from tests.live.harness import Sdk, Server
from tests.live.streams import session
from tests.redis_servers import RedisServer, single


pytestmark = [pytest.mark.live, pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Give a Redis of this module's own."""
    with single() as server:
        yield server


@pytest.fixture
def pair(
    redis: RedisServer, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """Give two servers that know each other, of which the test may kill one."""
    folder = tmp_path_factory.mktemp("streams")
    copy_database(database, folder)
    options = {
        "TIDEWIRE_ENGINE_TYPE": "redis",
        "TIDEWIRE_ENGINE_REDIS_ADDRESS": redis.address,
    }
    first, second = (Server("serve", folder, options).start() for _ in range(2))
    deadline = time.monotonic() + 30
    while {len(server.call("info")["nodes"]) for server in (first, second)} != {2}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield first, second
    for server in (first, second):
        if server.is_running:
            assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
async def test_commands_land_on_another_node(pair: tuple[Server, Server], transport: str) -> None:
    """They are carried out where the session is, large ones too, and the answer comes when they were."""
    owner, other = pair
    async with session(owner, transport) as opened:
        channel = f"load:far-{transport}"

        assert await opened.send({"id": 2, "subscribe": {"channel": channel}}, server=other) == 204
        assert (await opened.receive())["id"] == 2
        text = "\xe9" * 8_000
        command = {"id": 3, "publish": {"channel": channel, "data": text}}
        assert await opened.send(command, server=other) == 204

        messages = [await opened.receive(), await opened.receive()]
        assert {"id": 3, "publish": {}} in messages
        assert text in [one["push"]["pub"]["data"] for one in messages if "push" in one]
        assert await opened.post("", other) == 204
        assert (await opened.receive())["push"]["disconnect"]["code"] == 3501


async def test_a_session_of_a_dead_node(pair: tuple[Server, Server]) -> None:
    """
    Commands for it are refused, so that the SDK connects anew.

    With 500 as long as the node may live, since it was asked and said nothing; with 404 once it is known to be dead.
    """
    owner, other = pair
    async with session(owner, "http_stream") as opened:
        owner.kill()
        assert await opened.send({}, server=other) in {404, 500}

        deadline = time.monotonic() + 30
        while await opened.send({}, server=other) != 404:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("kind", ["js-json-http_stream", "js-protobuf-http_stream", "js-json-sse"])
async def test_sdk_whose_posts_land_elsewhere(pair: tuple[Server, Server], kind: str) -> None:
    """An unmodified SDK behind a balancer without stickiness sees no difference."""
    owner, other = pair
    client = await Sdk.start(kind, owner.websocket_url, emulation=f"{other.url}/emulation")
    try:
        await client.connect()
        channel = f"load:sdk-{kind}"
        await client.subscribe(channel)
        for number in range(20):
            await client.do("publish", channel=channel, data={"n": number})
        await asyncio.to_thread(other.publish, channel, {"n": 20})

        seen = [(await client.wait("publication", channel=channel))["data"]["n"] for _ in range(21)]

        assert seen == list(range(21))
        assert not client.seen("disconnected")
    finally:
        await client.close()
