"""Applications that load their state themselves and follow a stream since then: ``getState`` of the JavaScript SDK."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.live.conftest import MakeSdk
from tests.live.harness import Sdk, Server


pytestmark = pytest.mark.live

HISTORY_SIZE = 100  # of the namespace "hist"
_numbers = itertools.count()


@pytest.fixture(params=["js-json", "js-protobuf"])
def sdk_kind(request: pytest.FixtureRequest) -> str:
    """Give the name of an SDK that has ``getState``."""
    kind: str = request.param
    return kind


class Application:
    """A list of numbers, each stored and published, and one client that shows it."""

    def __init__(self, server: Server, client: Sdk) -> None:
        self.server, self.client = server, client
        self.channel = f"hist:own-state-{next(_numbers)}"
        self.stored: list[int] = []
        self.shown: list[int] = []
        self._heard = 0

    async def publish(self, count: int) -> None:
        """Store and publish the next numbers."""
        for _ in range(count):
            self.stored.append(len(self.stored))
            await asyncio.to_thread(self.server.publish, self.channel, self.stored[-1])

    async def subscribe(self) -> None:
        """Connect and subscribe; the SDK then asks for the state."""
        await self.client.connect()
        await self.client.do("subscribe", channel=self.channel, get_state=True)

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

    async def subscribed(self) -> None:
        """Wait for a subscription, which always recovers."""
        event = await self.client.wait("subscribed", channel=self.channel)
        assert event["was_recovering"] is True
        assert event["recovered"] is True

    async def check(self, loads: int) -> None:
        """Publish once more, and see that all that is stored is shown, once, after so many calls of ``getState``."""
        await self.publish(1)
        while (await self.client.wait("publication", channel=self.channel))["data"] != len(
            self.stored
        ) - 1:
            pass  # those before it are looked at together
        heard = self.client.seen("publication", channel=self.channel)
        self.shown += [each["data"] for each in heard[self._heard :]]
        self._heard = len(heard)
        assert self.shown == self.stored
        assert len(self.client.seen("get_state")) == loads
        assert not self.client.seen("subscription_error")
        assert not self.client.seen("unsubscribed")


@pytest.mark.parametrize("before", [0, 3], ids=["empty", "filled"])
async def test_what_is_published_after_the_state_was_read_arrives(
    server: Server, make_sdk: MakeSdk, before: int
) -> None:
    """Between the position and the subscription, and live."""
    application = Application(server, await make_sdk(server))
    await application.publish(before)
    await application.subscribe()
    position = await application.read()
    assert position["offset"] == before
    await application.publish(4)
    await application.client.do("state", **position)

    await application.subscribed()
    await application.check(loads=1)


async def test_a_reconnect_recovers_without_the_state(server: Server, make_sdk: MakeSdk) -> None:
    """From where the SDK is, again and again, also where nothing was missed."""
    application = Application(server, await make_sdk(server))
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
