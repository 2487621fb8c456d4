"""Applications that load their state themselves and follow a stream since then: ``getState`` of the SDKs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import redis_servers
from tests.live.conftest import MakeSdk, copy_database
from tests.live.harness import Sdk, Server


pytestmark = pytest.mark.live

HISTORY_SIZE = 100  # of the namespace "hist"
_numbers = itertools.count()
PLAIN, PATCHED = ("hist", ""), ("doc", "fossil")  # namespaces, and what is asked for in them


@pytest.fixture(
    params=[
        "js-json",
        "js-protobuf",
        "python-json",
        pytest.param("go-protobuf", marks=pytest.mark.go),
    ]
)
def sdk_kind(request: pytest.FixtureRequest) -> str:
    """Give the name of an SDK that has ``getState``."""
    kind: str = request.param
    return kind


@pytest.fixture(scope="module", params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def server(
    request: pytest.FixtureRequest,
    shape: str,
    database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Give one server per engine, for all tests that leave it as it was."""
    if request.param == "memory":
        yield request.getfixturevalue("server_in_memory")
        return
    folder = tmp_path_factory.mktemp("own-state")
    copy_database(database, folder)
    with redis_servers.single() as redis:
        server = Server(shape, folder, _on_redis(redis.address)).start()
        yield server
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


def _on_redis(address: str) -> dict[str, str]:
    return {"TIDEWIRE_ENGINE_TYPE": "redis", "TIDEWIRE_ENGINE_REDIS_ADDRESS": address}


class Application:
    """A list of documents, each stored and published, and one client that shows them."""

    def __init__(
        self, server: Server, client: Sdk, namespace: str = "hist", delta: str = ""
    ) -> None:
        self.server, self.client, self.delta = server, client, delta
        self.channel = f"{namespace}:own-state-{next(_numbers)}"
        self.stored: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []
        self._heard = 0

    async def publish(self, count: int) -> None:
        """Store and publish the next documents."""
        for _ in range(count):
            self.stored.append({"text": "Der Absatz bleibt: äöü€😀. " * 6, "n": len(self.stored)})
            await asyncio.to_thread(self.server.publish, self.channel, self.stored[-1])

    async def subscribe(self) -> None:
        """Connect and subscribe; the SDK then asks for the state."""
        await self.client.connect()
        await self.client.do(
            "subscribe", channel=self.channel, get_state=True, recoverable=True, delta=self.delta
        )

    async def read(self) -> dict[str, Any]:
        """Wait until the SDK asks for the state, show it, and return the position that was read before."""
        await self.client.wait("get_state", channel=self.channel)
        top = await asyncio.to_thread(self.server.call, "history", channel=self.channel, limit=0)
        self.shown = list(self.stored)
        return {"offset": top.get("offset", 0), "epoch": top["epoch"]}

    async def leave(self) -> None:
        """Disconnect until ``connect_again``."""
        await self.client.do("disconnect")
        await self.client.wait("disconnected")

    async def subscribed(self, *, is_recovered: bool = True) -> None:
        """Wait for a subscription, which has the state's position."""
        event = await self.client.wait("subscribed", channel=self.channel)
        assert event["was_recovering"] is True
        assert event["recovered"] is is_recovered

    async def check(self, loads: int) -> None:
        """Publish once more, and see that all that is stored is shown, once, after so many calls of ``getState``."""
        await self.publish(1)
        self.shown += await self.heard()
        assert self.shown == self.stored
        self.assert_calm(loads)

    async def heard(self) -> list[dict[str, Any]]:
        """Wait for what was stored last; returns all that came since the call before."""
        while (await self.client.wait("publication", channel=self.channel))["data"] != self.stored[
            -1
        ]:
            pass  # those before it are looked at together
        before, all_of_it = self._heard, self.client.seen("publication", channel=self.channel)
        self._heard = len(all_of_it)
        return [each["data"] for each in all_of_it[before:]]

    def assert_calm(self, loads: int) -> None:
        """See that ``getState`` was called so often, and that nothing was refused or ended."""
        assert len(self.client.seen("get_state")) == loads
        # centrifuge-go says so of a request of its own that a wanted disconnect overtook.
        assert not [
            each
            for each in self.client.seen("subscription_error")
            if each["message"] != "subscribe error: client disconnected"
        ]
        assert not self.client.seen("unsubscribed")


@pytest.mark.parametrize("before", [0, 3], ids=["empty", "filled"])
@pytest.mark.parametrize("way", [PLAIN, PATCHED], ids=["whole", "patches"])
async def test_what_is_published_after_the_state_was_read_arrives(
    server: Server, make_sdk: MakeSdk, before: int, way: tuple[str, str]
) -> None:
    """Between the position and the subscription, and live."""
    application = Application(server, await make_sdk(server), *way)
    await application.publish(before)
    await application.subscribe()
    position = await application.read()
    assert position["offset"] == before
    await application.publish(4)
    await application.client.do("state", **position)

    await application.subscribed()
    await application.check(loads=1)


@pytest.mark.parametrize("way", [PLAIN, PATCHED], ids=["whole", "patches"])
async def test_a_reconnect_recovers_without_the_state(
    server: Server, make_sdk: MakeSdk, sdk_kind: str, way: tuple[str, str]
) -> None:
    """From where the SDK is, again and again, also where nothing was missed."""
    application = Application(server, await make_sdk(server), *way)
    await application.publish(2)
    await application.subscribe()
    await application.client.do("state", **await application.read())
    await application.subscribed()
    await application.check(loads=1)

    for missed in (3, 0, HISTORY_SIZE):
        await application.leave()
        await application.publish(missed)
        await application.client.do("connect_again")
        await application.subscribed()
        await application.check(loads=1)
    if application.delta and sdk_kind.startswith("js"):
        # The first of each subscription is whole.
        patches = await application.client.do("patches", channel=application.channel)
        assert patches >= HISTORY_SIZE


@pytest.mark.parametrize("missed", [2, HISTORY_SIZE + 1], ids=["removed", "too-many"])
async def test_what_can_not_be_recovered_is_loaded_anew(
    server: Server, make_sdk: MakeSdk, missed: int
) -> None:
    """Where history was removed or didn't reach back, and then recoveries go on from the new position."""
    application = Application(server, await make_sdk(server))
    await application.subscribe()
    await application.client.do("state", **await application.read())
    await application.subscribed()
    await application.check(loads=1)

    await application.leave()
    await application.publish(missed)
    if missed < HISTORY_SIZE:
        await asyncio.to_thread(server.call, "history_remove", channel=application.channel)
    await application.client.do("connect_again")
    position = await application.read()
    await application.publish(2)
    await application.client.do("state", **position)
    await application.subscribed()
    await application.check(loads=2)

    await application.leave()
    await application.publish(2)
    await application.client.do("connect_again")
    await application.subscribed()
    await application.check(loads=2)


async def test_a_state_that_is_too_old_when_it_comes_is_loaded_anew(
    server: Server, make_sdk: MakeSdk
) -> None:
    """The first position can be lost, too, while an application loads."""
    application = Application(server, await make_sdk(server))
    await application.subscribe()
    position = await application.read()
    await application.publish(2)
    await asyncio.to_thread(server.call, "history_remove", channel=application.channel)
    await application.client.do("state", **position)

    await application.client.do("state", **await application.read())
    await application.subscribed()
    await application.check(loads=2)


async def test_a_cache_brings_the_newest_after_the_state(server: Server, make_sdk: MakeSdk) -> None:
    """One document in place of all; none where the state has it, nor, with a word of it, where the cache has none."""
    application = Application(server, await make_sdk(server), "cache")
    await application.publish(3)
    await application.subscribe()
    position = await application.read()
    assert position["offset"] == 3
    await application.publish(2)
    await application.client.do("state", **position)
    await application.subscribed()
    assert await application.heard() == application.stored[-1:]

    for missed in (0, 4):
        await application.leave()
        await application.publish(missed)
        await application.client.do("connect_again")
        await application.subscribed()
        assert missed == 0 or await application.heard() == application.stored[-1:]

    await application.leave()
    await application.publish(1)
    await asyncio.to_thread(server.call, "history_remove", channel=application.channel)
    await application.client.do("connect_again")
    # 112 belongs to streams: here the application would load only what is in its cache already.
    await application.subscribed(is_recovered=False)
    await application.publish(1)
    assert await application.heard() == application.stored[-1:]
    application.assert_calm(loads=1)


@pytest.mark.redis
async def test_a_stream_that_outlives_the_server_is_recovered(
    make_server: Callable[[Mapping[str, str]], Server], make_sdk: MakeSdk
) -> None:
    """In Redis it is the same stream after a restart, and another one when Redis has lost it."""
    with redis_servers.single() as redis:
        server = make_server(_on_redis(redis.address))
        application = Application(server, await make_sdk(server), *PATCHED)
        await application.subscribe()
        await application.client.do("state", **await application.read())
        await application.subscribed()
        await application.check(loads=1)

        await application.leave()
        await application.publish(2)
        assert server.stop() == 0, server.log
        server.start()
        await application.client.do("connect_again")
        await application.subscribed()
        await application.check(loads=1)

        await application.leave()
        redis.call("FLUSHALL")
        await application.client.do("connect_again")
        await application.client.do("state", **await application.read())
        await application.subscribed()
        await application.check(loads=2)
        assert server.stop() == 0, server.log


async def test_another_epoch_is_loaded_anew(
    make_server: Callable[[Mapping[str, str]], Server], make_sdk: MakeSdk
) -> None:
    """A server that keeps streams in memory starts again: same offset, another stream."""
    server = make_server({})
    application = Application(server, await make_sdk(server))
    await application.subscribe()
    old = await application.read()
    await application.client.do("state", **old)
    await application.subscribed()
    await application.check(loads=1)

    await application.leave()
    assert server.stop() == 0, server.log
    server.start()
    await application.publish(1)
    await application.client.do("connect_again")
    new = await application.read()
    assert new["offset"] == 1
    assert new["epoch"] != old["epoch"]
    await application.client.do("state", **new)
    await application.subscribed()
    await application.check(loads=2)
