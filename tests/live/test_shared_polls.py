"""Shared polls with the JavaScript SDK: what an application answers, and what its followers show."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.live.conftest import JS_KINDS, copy_database
from tests.live.harness import Server
from tests.live.polled import (
    PolledApplication,
    SdkFollower,
    polled_application,
    polled_database,
    polled_options,
)
from tests.redis_servers import RedisServer, single


pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

_numbers = itertools.count()
MakeFollower = Callable[..., Awaitable[SdkFollower]]


@pytest.fixture(scope="module")
def application() -> Iterator[PolledApplication]:
    """Give the application that all servers here poll."""
    with polled_application() as application:
        yield application


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory, application: PolledApplication) -> Path:
    """Give a database to be copied."""
    return polled_database(tmp_path_factory.mktemp("polled"), application)


@pytest.fixture(scope="module")
def server(
    shape: str,
    polled: Path,
    application: PolledApplication,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Give one server on the memory engine."""
    folder = tmp_path_factory.mktemp(shape)
    copy_database(polled, folder)
    server = Server(shape, folder, polled_options(application)).start()
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Give a Redis of this module's own."""
    with single() as server:
        yield server


@pytest.fixture(scope="module")
def nodes(
    polled: Path,
    application: PolledApplication,
    redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Server]]:
    """Give two servers on one Redis, which brings notifications, too."""
    folder = tmp_path_factory.mktemp("nodes")
    copy_database(polled, folder)
    options = polled_options(
        application,
        TIDEWIRE_ENGINE_TYPE="redis",
        TIDEWIRE_ENGINE_REDIS_ADDRESS=redis.address,
        TIDEWIRE_SHARED_POLL_NOTIFICATION_ENABLED="true",
        TIDEWIRE_SHARED_POLL_NOTIFICATION_REDIS_ADDRESS=redis.address,
    )
    servers = [Server(shape, folder, options).start() for shape in ("serve", "daphne")]
    yield servers
    for server in servers:
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


@pytest_asyncio.fixture
async def follow() -> AsyncIterator[MakeFollower]:
    """Give a function that starts a follower, ended after the test."""
    followers: list[SdkFollower] = []

    async def start(kind: str, server: Server, channel: str, delta: str = "") -> SdkFollower:
        followers.append(await SdkFollower.start(kind, server, channel, delta))
        return followers[-1]

    yield start
    for follower in followers:
        await follower.sdk.close()


@pytest.fixture
def name(application: PolledApplication) -> str:
    """Give a name that no other test uses, and an application that works."""
    application.epoch = ""
    application.is_down = False
    application.calls.clear()
    return f"n{next(_numbers)}"


@pytest.fixture(params=["js-json", "js-protobuf"])
def kind(request: pytest.FixtureRequest) -> str:
    """Give the name of an SDK's encoding."""
    kind: str = request.param
    return kind


every_transport = pytest.mark.parametrize("kind", JS_KINDS, indirect=True)


@every_transport
async def test_values_come_and_change(
    server: Server, follow: MakeFollower, application: PolledApplication, kind: str, name: str
) -> None:
    """At once for a new key, then with the cycle; untracked keys are silent, removed ones are told."""
    a, b = f"{name}-a", f"{name}-b"
    application.values.update({a: ({"p": 1}, 0), b: ({"p": 10}, 0)})
    follower = await follow(kind, server, f"plain:{name}")

    await follower.track(a, b)
    first = await follower.update(a)
    assert first["data"] == {"p": 1}
    assert (await follower.update(b))["data"] == {"p": 10}
    application.values[a] = ({"p": 2}, 0)
    second = await follower.update(a, data={"p": 2})
    assert second["version"] > first["version"] > 0

    await follower.untrack(b)
    application.values.update({a: ({"p": 3}, 0), b: ({"p": 11}, 0)})
    await follower.update(a, data={"p": 3})
    assert len(follower.updates(b)) == 1
    application.removed.add(a)
    assert (await follower.update(a, removed=True))["removed"]
    application.removed.discard(a)


async def test_one_call_per_interval_however_many_follow(
    server: Server, follow: MakeFollower, application: PolledApplication, name: str
) -> None:
    """Six clients, ten keys, one call a second."""
    keys = [f"{name}-{number}" for number in range(10)]
    application.values.update({key: ({"p": 1}, 0) for key in keys})
    followers = [await follow("js-json", server, f"plain:{name}") for _ in range(6)]
    for follower in followers:
        await follower.track(*keys)
        await follower.update(keys[-1])

    def calls() -> int:
        return sum(keys[0] in asked for asked in application.calls)

    before = calls()
    await asyncio.sleep(5)
    assert 4 <= calls() - before <= 6
    assert all(asked == sorted(keys) for asked in application.calls[-3:] if keys[0] in asked)


async def test_an_outage_is_waited_out(
    server: Server, follow: MakeFollower, application: PolledApplication, kind: str, name: str
) -> None:
    """Nothing is removed meanwhile; then the new value comes."""
    application.values[name] = ({"p": 1}, 0)
    follower = await follow(kind, server, f"plain:{name}")
    await follower.track(name)
    await follower.update(name)

    application.is_down = True
    application.values[name] = ({"p": 2}, 0)
    await application.after_calls(3)
    assert len(follower.updates(name)) == 1
    application.is_down = False

    assert (await follower.update(name))["data"] == {"p": 2}


async def test_signatures_are_refreshed_by_the_sdk(
    server: Server, follow: MakeFollower, application: PolledApplication, kind: str, name: str
) -> None:
    """It asks again before the end, and for all keys at once."""
    a, b = f"{name}-a", f"{name}-b"
    application.values.update({a: ({"p": 1}, 0), b: ({"p": 2}, 0)})
    follower = await follow(kind, server, f"plain:{name}")
    await follower.track(a, ttl=2)
    await follower.track(b)

    assert sorted(await follower.sign(ttl=60)) == [a, b]

    application.values[a] = ({"p": 3}, 0)
    await follower.update(a, data={"p": 3})
    assert follower.sdk.seen("subscription_error") == []


async def test_a_bad_signature_is_refused(
    server: Server, follow: MakeFollower, kind: str, name: str
) -> None:
    """103, and the SDK gives the keys up."""
    follower = await follow(kind, server, f"plain:{name}")
    await follower.sdk.do("track", channel=follower.channel, keys=["secret"])
    await follower.sdk.wait("get_signature")
    await follower.sdk.do("signature", keys=["secret"], signature=f"1:0:{'0' * 64}")

    assert (await follower.sdk.wait("subscription_error"))["code"] == 103


async def test_deltas_rebuild_the_documents(
    server: Server, follow: MakeFollower, application: PolledApplication, kind: str, name: str
) -> None:
    """The SDK applies the patches of each key to its own value before."""

    def document(number: int) -> dict[str, Any]:
        return {"text": "Der Absatz bleibt: äöü€😀. " * 12, "n": number}

    a, b = f"{name}-a", f"{name}-b"
    application.values.update({a: (document(0), 0), b: (document(100), 0)})
    follower = await follow(kind, server, f"kept:{name}", delta="fossil")
    await follower.track(a, b)
    await follower.update(a, data=document(0))
    await follower.update(b, data=document(100))

    for number in range(1, 4):
        application.values.update({a: (document(number), 0), b: (document(100 + number), 0)})
        await follower.update(a, data=document(number))
        await follower.update(b, data=document(100 + number))

    assert await follower.sdk.do("patches", channel=follower.channel) == 6


@every_transport
async def test_a_dropped_connection_comes_back_with_what_it_has(
    server: Server, follow: MakeFollower, application: PolledApplication, kind: str, name: str
) -> None:
    """The kept signature is shown again; what has changed meanwhile comes, what has not does not."""
    a, b = f"{name}-a", f"{name}-b"
    application.values.update({a: ({"p": 1}, 1), b: ({"p": 1}, 1)})
    follower = await follow(kind, server, f"versions:{name}")
    other = await follow(kind, server, f"versions:{name}")
    await other.track(a, b)
    await follower.track(a, b)
    await follower.update(a)
    await follower.update(b)

    await follower.sdk.do("kill")
    application.values[a] = ({"p": 2}, 2)
    await follower.update(a, data={"p": 2})
    await asyncio.sleep(1.5)

    assert len(follower.updates(b)) == 1
    assert len(follower.sdk.seen("get_signature")) == 1


async def test_an_epoch_begins_all_anew(
    server: Server, follow: MakeFollower, application: PolledApplication, kind: str, name: str
) -> None:
    """Versions that fell are believed after it: the application lost them, or was restored."""
    application.values[name] = ({"p": 1}, 50)
    application.epoch = f"{name}-one"
    follower = await follow(kind, server, f"versions:{name}")
    await follower.track(name)
    await follower.update(name, data={"p": 1}, version=50)

    application.values[name] = ({"p": 2}, 1)
    application.epoch = f"{name}-two"

    await follower.update(name, data={"p": 2}, version=1)


async def test_a_restarted_server_is_no_other(
    shape: str,
    polled: Path,
    application: PolledApplication,
    follow: MakeFollower,
    tmp_path: Path,
    name: str,
) -> None:
    """Its versions begin anew with another epoch, and followers show the application's values."""
    copy_database(polled, tmp_path)
    server = Server(shape, tmp_path, polled_options(application)).start()
    try:
        application.values[name] = ({"p": 1}, 0)
        follower = await follow("js-json", server, f"plain:{name}")
        await follower.track(name)
        for number in range(2, 5):
            await follower.update(name)
            application.values[name] = ({"p": number}, 0)
        await follower.update(name, data={"p": 4})

        server.stop()
        application.values[name] = ({"p": 5}, 0)
        await asyncio.to_thread(server.start)

        assert (await follower.update(name, data={"p": 5}))["version"] < 4
    finally:
        assert server.stop() == 0, server.log


@every_transport
async def test_a_direct_publish_reaches_followers(
    server: Server, follow: MakeFollower, application: PolledApplication, kind: str, name: str
) -> None:
    """Long before the next cycle; old versions are dropped."""
    channel = f"slow:{name}"
    application.values[name] = ({"p": 1}, 1)
    follower = await follow(kind, server, channel)
    await follower.track(name)
    await follower.update(name)

    for version in (5, 3, 6):
        server.call(
            "shared_poll_publish", channel=channel, key=name, data={"p": version}, version=version
        )

    await follower.update(name, version=6)
    assert [each["version"] for each in follower.updates(name)] == [1, 5, 6]


@pytest.mark.redis
async def test_publishes_and_hints_reach_the_followers_of_all_nodes(
    nodes: list[Server],
    follow: MakeFollower,
    application: PolledApplication,
    redis: RedisServer,
    kind: str,
    name: str,
) -> None:
    """Two nodes on one Redis; each asks the application for itself."""
    channel = f"slow:{name}"
    application.values[name] = ({"p": 1}, 1)
    followers = [await follow(kind, node, channel) for node in nodes]
    for follower in followers:
        await follower.track(name)
        await follower.update(name, version=1)

    nodes[1].call("shared_poll_publish", channel=channel, key=name, data={"p": 2}, version=2)
    for follower in followers:
        await follower.update(name, data={"p": 2}, version=2)

    application.values[name] = ({"p": 3}, 3)
    items = f'{{"items":[{{"channel":"{channel}","key":"{name}"}}]}}'
    assert redis.call("PUBLISH", "shared_poll_notify", items) == 2
    for follower in followers:
        await follower.update(name, data={"p": 3}, version=3)


@pytest.mark.redis
async def test_whatever_happens_everybody_shows_the_values(
    nodes: list[Server], follow: MakeFollower, application: PolledApplication, name: str
) -> None:
    """A seeded run: connections are cut, keys come and go, the application fails and publishes; at the end all agree."""
    chance = random.Random(20)
    channel = f"versions:{name}"
    keys = [f"{name}-{number}" for number in range(8)]
    versions = itertools.count(1)
    application.values.update({key: ({"n": 0}, next(versions)) for key in keys})
    followers = [
        await follow(chance.choice(["js-json", "js-protobuf"]), node, channel, delta)
        for node in nodes
        for delta in ("", "fossil", "")
    ]
    tracked: dict[SdkFollower, set[str]] = {each: set() for each in followers}

    async def step() -> None:
        one = chance.choice(followers)
        match chance.choice(
            ["change", "change", "publish", "track", "track", "untrack", "cut", "fail"]
        ):
            case "change" | "publish" as how:
                key, version = chance.choice(keys), next(versions)
                application.values[key] = ({"n": version}, version)
                if how == "publish":
                    chance.choice(nodes).call(
                        "shared_poll_publish",
                        channel=channel,
                        key=key,
                        data={"n": version},
                        version=version,
                    )
            case "track":
                wanted = set(chance.sample(keys, 3)) - tracked[one]
                if wanted:
                    tracked[one] |= wanted
                    await one.sdk.do("track", channel=channel, keys=sorted(wanted))
            case "untrack" if tracked[one]:
                gone = chance.choice(sorted(tracked[one]))
                tracked[one].discard(gone)
                await one.untrack(gone)
            case "cut":
                await one.sdk.do("kill")
            case "fail":
                application.is_down = not application.is_down
        await asyncio.sleep(chance.random() * 0.2)

    signers = [asyncio.create_task(_sign_all(each)) for each in followers]
    for _ in range(100):
        await step()
    application.is_down = False
    for each in followers:
        for key in tracked[each]:
            if not each.updates(key) or each.updates(key)[-1]["data"] != application.values[key][0]:
                await each.update(key, data=application.values[key][0])
    for signer in signers:
        signer.cancel()

    assert sum(map(len, tracked.values())) > 6


async def _sign_all(follower: SdkFollower) -> None:
    """Sign whatever it asks for, as long as the test lasts."""
    while True:
        await follower.sign(seconds=60)
