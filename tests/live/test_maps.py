"""Maps with an SDK that was not written here: what the application has is what was written, whatever happens between."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests import redis_servers
from tests.live.conftest import JS_KINDS, copy_database
from tests.live.harness import WAIT_SECONDS, Sdk, SdkError, Server, make_token


pytestmark = pytest.mark.live

_numbers = itertools.count()
ODD = {"key": "kind", "cmp": "eq", "val": "odd"}
ENGINES = ("memory", pytest.param("redis", marks=pytest.mark.redis))


@pytest.fixture(scope="module", params=ENGINES)
def maps(
    request: pytest.FixtureRequest,
    shape: str,
    database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Give one server per engine, for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp(f"maps-{request.param}")
    copy_database(database, folder)
    if request.param == "memory":
        server = Server(shape, folder).start()
        yield server
        _end(server)
        return
    with redis_servers.single() as redis:
        server = Server(shape, folder, on_redis(redis.address)).start()
        yield server
        _end(server)


def on_redis(address: str) -> dict[str, str]:
    """Have everything of a server in Redis."""
    return {
        "TIDEWIRE_ENGINE_TYPE": "redis",
        "TIDEWIRE_ENGINE_REDIS_ADDRESS": address,
        "TIDEWIRE_MAP_BROKER_TYPE": "redis",
        "TIDEWIRE_MAP_BROKER_REDIS_ADDRESS": address,
    }


def _end(server: Server) -> None:
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.fixture(params=["js-json", "js-protobuf"])
def kind(request: pytest.FixtureRequest) -> str:
    """Give the SDK that speaks maps, in either encoding."""
    kind: str = request.param
    return kind


every_transport = pytest.mark.parametrize("kind", JS_KINDS, indirect=True)


@pytest_asyncio.fixture
async def start(kind: str) -> AsyncIterator[Callable[..., Any]]:
    """Give a function that connects a client to a server, ended after the test."""
    clients: list[Sdk] = []

    async def connect(server: Server, **arguments: Any) -> Sdk:
        clients.append(await Sdk.start(kind, server.websocket_url))
        await clients[-1].connect(**arguments)
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
def make(start: Callable[..., Any], maps: Server) -> Callable[..., Any]:
    """Give a function that connects a client to the server of all tests."""
    return functools.partial(start, maps)


@pytest.fixture
def name(kind: str) -> str:
    """Give a name that no other test uses: servers are shared."""
    return f"{kind}-{next(_numbers)}"


async def put(server: Server, channel: str, key: str, data: object, **parameters: object) -> Any:
    return await asyncio.to_thread(
        server.call, "map_publish", channel=channel, key=key, data=data, **parameters
    )


async def take(server: Server, channel: str, key: str) -> Any:
    return await asyncio.to_thread(server.call, "map_remove", channel=channel, key=key)


async def stored(server: Server, channel: str) -> dict[str, Any]:
    """What the server has."""
    found = await asyncio.to_thread(server.call, "map_read_state", channel=channel, limit=-1)
    return {each["key"]: each.get("data") for each in found.get("entries", [])}


async def have(client: Sdk, channel: str) -> dict[str, Any]:
    """What the application has."""
    entries = await client.do("map", channel=channel)
    return {key: entry["data"] for key, entry in entries.items()}


async def agree(server: Server, channel: str, *clients: Sdk) -> None:
    """Wait until the applications have what the server has."""
    truth = await stored(server, channel)
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    for client in clients:
        shown = await have(client, channel)
        while shown != truth and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
            shown = await have(client, channel)
        assert shown == truth, client.events[-20:]


async def follow(client: Sdk, channel: str, **arguments: Any) -> Any:
    """Subscribe to a map and wait until it is there."""
    await client.do("subscribe_map", channel=channel, **arguments)
    return await client.wait("subscribed", channel=channel)


def document(number: int) -> dict[str, Any]:
    return {"text": "Der Absatz bleibt: äöü€😀. " * 8, "n": number}


@every_transport
@pytest.mark.parametrize("namespace", ["board", "things", "cursors"])
async def test_a_map_is_loaded_in_pages_while_it_changes_and_followed(
    maps: Server, make: Callable[..., Any], name: str, namespace: str
) -> None:
    """Pages of three keys; writers don't wait. Then changes and removals come one by one."""
    channel = f"{namespace}:{name}"
    rng = random.Random(3)
    for number in range(20):
        await put(maps, channel, f"k{number:02}", number)
    client = await make()
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            key = f"k{rng.randrange(25):02}"
            await (take(maps, channel, key) if rng.random() < 0.3 else put(maps, channel, key, 7))

    writer = asyncio.create_task(write())
    await follow(client, channel, page_size=3)
    done.set()
    await writer
    await agree(maps, channel, client)

    await put(maps, channel, "new", {"a": ["ä", None]})
    update = await client.wait("update", channel=channel, key="new")
    assert update["data"] == {"a": ["ä", None]}
    await take(maps, channel, "new")
    assert (await client.wait("update", channel=channel, key="new"))["removed"] is True
    await agree(maps, channel, client)
    assert not client.seen("subscription_error")


@every_transport
@pytest.mark.parametrize("namespace", ["board", "things", "cursors"])
async def test_who_was_cut_off_has_the_map_again(
    maps: Server, make: Callable[..., Any], name: str, namespace: str
) -> None:
    """By what changed where the map has a stream, and else by loading it."""
    channel = f"{namespace}:{name}"
    for number in range(10):
        await put(maps, channel, f"k{number}", number)
    client = await make()
    await follow(client, channel, page_size=4)
    for number in range(3):
        await client.do("disconnect")
        await put(maps, channel, "k1", f"missed {number}")
        await take(maps, channel, f"k{number + 5}")
        await client.do("connect_again")
        again = await client.wait("subscribed", channel=channel)
        assert again["recovered"] is (namespace != "cursors")
        await agree(maps, channel, client)
    syncs = len(client.seen("sync", channel=channel))
    assert syncs == (4 if namespace == "cursors" else 1)


async def test_a_map_that_was_cleared_is_loaded_anew(
    maps: Server, make: Callable[..., Any], name: str
) -> None:
    """Live ones learn of it by the next change, those who were away when they come back; the SDK sees to it."""
    channel = f"board:{name}"
    for number in range(5):
        await put(maps, channel, f"k{number}", number)
    live, away = await make(), await make()
    await follow(live, channel)
    await follow(away, channel)
    await away.do("disconnect")
    await away.wait("disconnected")
    await asyncio.to_thread(maps.call, "map_clear", channel=channel)
    await put(maps, channel, "only", 1)

    await away.do("connect_again")

    await agree(maps, channel, live, away)
    assert await have(live, channel) == {"only": 1}
    assert live.seen("subscribing", channel=channel, code=2500)


@every_transport
async def test_documents_arrive_as_patches_of_their_keys(
    maps: Server, make: Callable[..., Any], name: str
) -> None:
    """From the first change on, and after a reconnect again; removed keys begin anew."""
    channel = f"board:{name}"
    for key in "ab":
        await put(maps, channel, key, document(0))
    client = await make()
    await follow(client, channel, delta="fossil")
    for number in range(1, 6):
        for key in "ab":
            await put(maps, channel, key, document(number))
    await agree(maps, channel, client)
    assert await client.do("patches", channel=channel) == 10
    await take(maps, channel, "a")
    await put(maps, channel, "a", document(9))
    await client.do("kill")
    for number in range(10, 14):
        await put(maps, channel, "b", document(number))
    await client.wait("subscribed", channel=channel)
    for number in range(14, 18):
        for key in "abc":
            await put(maps, channel, key, document(number))

    await agree(maps, channel, client)

    # What it missed as a chain, and what came after it; each key's first one is whole.
    assert await client.do("patches", channel=channel) >= 10 + 3 + 3 + 3
    assert not client.seen("error")
    assert not client.seen("subscription_error")


async def test_a_filter_holds_for_state_changes_and_removals(
    maps: Server, make: Callable[..., Any], name: str
) -> None:
    """Also for what was missed; what was removed has the tags that it had."""
    channel = f"board:{name}"

    async def publish(first: int, last: int) -> None:
        for number in range(first, last):
            tags = {"kind": "odd" if number % 2 else "even"}
            await put(maps, channel, f"k{number}", number, tags=tags)

    await publish(0, 10)
    client = await make()
    await follow(client, channel, tf=ODD, page_size=3)
    assert set(await have(client, channel)) == {"k1", "k3", "k5", "k7", "k9"}
    await publish(10, 14)
    for number in (0, 1, 12):
        await take(maps, channel, f"k{number}")
    await client.wait("update", channel=channel, key="k1", removed=True)
    await client.do("kill")
    await publish(20, 24)
    await take(maps, channel, "k3")
    again = await client.wait("subscribed", channel=channel)
    await publish(24, 26)
    await client.wait("update", channel=channel, key="k25")

    assert again["recoverable"]
    assert set(await have(client, channel)) == {
        f"k{number}" for number in (5, 7, 9, 11, 13, 21, 23, 25)
    }
    seen = {each["key"] for each in client.seen("update", channel=channel)}
    assert not seen & {"k0", "k12", "k10", "k20", "k24"}


@every_transport
async def test_clients_write_and_remove_keys(
    maps: Server, make: Callable[..., Any], name: str
) -> None:
    """Where the namespace lets them; others see who wrote."""
    channel = f"board:{name}"
    writer, reader = await make(), await make()
    await follow(writer, channel)
    await follow(reader, channel)

    await writer.do("map_publish", channel=channel, key="mine", data={"x": 1})
    update = await reader.wait("update", channel=channel, key="mine")
    await writer.do("map_remove", channel=channel, key="mine")

    assert update["data"] == {"x": 1}
    assert update["info"]["client"] == writer.seen("connected")[0]["client"]
    assert (await reader.wait("update", channel=channel, key="mine"))["removed"] is True
    await follow(writer, f"things:{name}")
    with pytest.raises(SdkError) as refusal:
        await writer.do("map_publish", channel=f"things:{name}", key="mine", data=1)
    assert refusal.value.code == 103


async def test_who_is_there_is_a_map(maps: Server, make: Callable[..., Any], name: str) -> None:
    """Connections come and go with their subscription; users stay for a while, and then expire."""
    watcher = await make()
    await follow(watcher, f"clients:watched:{name}", kind="clients")
    await follow(watcher, f"mapusers:watched:{name}", kind="users")
    client = await make(token=make_token(f"user-{name}", info={"n": 1}))
    await client.subscribe(f"watched:{name}")
    client_id = client.seen("connected")[0]["client"]

    came = await watcher.wait("update", channel=f"clients:watched:{name}")
    assert (came["key"], came["info"]["conn_info"]) == (client_id, {"n": 1})
    user = await watcher.wait("update", channel=f"mapusers:watched:{name}")
    assert (user["key"], user["info"], user["removed"]) == (f"user-{name}", None, False)
    await client.do("kill")

    left = await watcher.wait("update", channel=f"clients:watched:{name}", key=client_id)
    assert left["removed"] is True
    await client.do("disconnect")
    gone = await watcher.wait("update", channel=f"mapusers:watched:{name}", removed=True)
    assert gone["key"] == f"user-{name}"


async def test_a_token_with_another_filter_loads_the_map_anew(
    maps: Server, make: Callable[..., Any], name: str
) -> None:
    """The SDK asks for a token when its time is over, gets other keys, and shows those."""
    channel = f"$board:{name}"
    for number in range(4):
        tags = {"kind": "odd" if number % 2 else "even"}
        await put(maps, channel, f"k{number}", number, tags=tags)

    def token(kind: str, lifetime: float) -> str:
        wanted = {"key": "kind", "cmp": "eq", "val": kind}
        return make_token("", channel=channel, lifetime=lifetime, server_tags_filter=wanted)

    client = await make()
    await client.do("subscribe_map", channel=channel, get_token=True)
    await client.wait("get_token", channel=channel)
    await client.do("token", token=token("odd", 2))
    await client.wait("subscribed", channel=channel)
    assert set(await have(client, channel)) == {"k1", "k3"}
    for _ in range(2):  # the refresh, and after 2502 the subscribe
        await client.wait("get_token", channel=channel)
        await client.do("token", token=token("even", 60))

    await client.wait("sync", channel=channel)
    await client.wait("sync", channel=channel)
    assert set(await have(client, channel)) == {"k0", "k2"}
    assert client.seen("subscribing", channel=channel, code=2502)


async def test_clients_that_drop_and_lag_end_with_the_publishers_map(
    maps: Server, make: Callable[..., Any], name: str
) -> None:
    """A seeded run: 300 changes, cut sockets, unsubscribes and a clear, on three modes at once."""
    rng = random.Random(5)
    channels = [f"{namespace}:{name}" for namespace in ("board", "things", "cursors")]
    clients = [await make() for _ in range(3)]
    for number, client in enumerate(clients):
        for channel in channels:
            delta = "fossil" if number and channel.startswith("board") else ""
            await follow(client, channel, delta=delta, page_size=3 + number)
    for step in range(300):
        channel, key = rng.choice(channels), f"k{rng.randrange(15)}"
        if rng.random() < 0.25:
            await take(maps, channel, key)
        else:
            await put(maps, channel, key, document(step))
        if rng.random() < 0.06:
            await rng.choice(clients).do("kill")
        if step == 150:
            await asyncio.to_thread(maps.call, "map_clear", channel=channels[0])

    for channel in channels:
        await put(maps, channel, "last", 1)
        await agree(maps, channel, *clients)
    for client in clients:
        assert client.seen("connecting")


@pytest.fixture
def engine_options(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Give the options of an engine, for servers of a test's own."""
    if request.param == "memory":
        yield {}
        return
    with redis_servers.single() as redis:
        yield on_redis(redis.address)


each_engine = pytest.mark.parametrize(
    ("kind", "engine_options"),
    [("js-json", "memory"), pytest.param("js-protobuf", "redis", marks=pytest.mark.redis)],
    indirect=True,
)


async def change(server: Server, channels: list[str], step: int) -> None:
    """Write much to one key of a map, and to all a changed document; and remove another one now and then."""
    bulk = f"{step} {'x' * 180_000}"
    await put(server, channels[step % len(channels)], f"bulk{step % 2}", bulk)
    for channel in channels:
        await put(server, channel, f"doc{step % 5}", document(step))
        if step % 4 == 0:
            await take(server, channel, f"doc{(step + 2) % 5}")


async def num_clients(server: Server) -> int:
    info = await asyncio.to_thread(server.call, "info")
    return int(sum(node.get("num_clients", 0) for node in info["nodes"]))


@each_engine
async def test_a_reader_that_is_cut_off_as_slow_ends_with_the_publishers_map(
    engine_options: dict[str, str],
    start: Callable[..., Any],
    make_server: Callable[[Mapping[str, str]], Server],
    name: str,
) -> None:
    """It stops reading while maps change, is disconnected with 3008, and comes back when it reads on."""
    server = make_server(
        {
            **engine_options,
            "TIDEWIRE_CLIENT_QUEUE_MAX_SIZE": "400000",
            "TIDEWIRE_WEBSOCKET_WRITE_TIMEOUT": "60s",
        }
    )
    channels = [f"{namespace}:{name}" for namespace in ("board", "things", "cursors")]
    slow, quick = await start(server), await start(server)
    for channel in channels:
        await put(server, channel, "kept", 0)
        for client in (slow, quick):
            await follow(client, channel, delta="fossil" if channel.startswith("board") else "")
    steps = itertools.count()

    await slow.do("pause")
    async with asyncio.timeout(2 * WAIT_SECONDS):
        while await num_clients(server) == 2:
            await change(server, channels, next(steps))
    for _ in range(3):
        await change(server, channels, next(steps))
    await slow.do("resume")

    await slow.wait("connecting", code=3008)
    for channel in channels:
        await slow.wait("subscribed", channel=channel)
        await agree(server, channel, slow, quick)
    await change(server, channels, next(steps))
    for channel in channels:
        await agree(server, channel, slow, quick)
    assert len(quick.seen("connecting")) == 1
    for client in (slow, quick):
        assert not client.seen("subscription_error")


@each_engine
async def test_a_reader_that_falls_behind_sees_every_change_in_its_order(
    engine_options: dict[str, str],
    start: Callable[..., Any],
    make_server: Callable[[Mapping[str, str]], Server],
    name: str,
) -> None:
    """Twelve megabytes, more than the kernel keeps of one connection, wait for it; none is left out of them."""
    server = make_server(
        {
            **engine_options,
            "TIDEWIRE_CLIENT_QUEUE_MAX_SIZE": "100000000",
            "TIDEWIRE_WEBSOCKET_WRITE_TIMEOUT": "60s",
        }
    )
    channels = [f"{namespace}:{name}" for namespace in ("board", "things", "cursors")]
    slow, quick = await start(server), await start(server)
    for channel in channels:
        for client in (slow, quick):
            await follow(client, channel, delta="fossil" if channel.startswith("board") else "")

    await slow.do("pause")
    for step in range(70):
        await change(server, channels, step)
    for channel in channels:
        await quick.wait("update", channel=channel, data=document(69))
        assert not slow.seen("update", channel=channel, data=document(69))
    await slow.do("resume")

    for channel in channels:
        await agree(server, channel, slow, quick)
        assert slow.seen("update", channel=channel) == quick.seen("update", channel=channel)
    for client in (slow, quick):
        assert len(client.seen("connecting")) == 1
        assert not client.seen("subscription_error")


async def test_a_restarted_server_is_resynced_with(
    kind: str, shape: str, make_server: Callable[[Mapping[str, str]], Server], name: str
) -> None:
    """What it had in memory is gone; the SDK comes back, is told so, and shows what is there now."""
    server = make_server({})
    channels = [f"board:{name}", f"cursors:{name}"]
    client = await Sdk.start(kind, server.websocket_url)
    await client.connect()
    for channel in channels:
        await put(server, channel, "old", 1)
        await follow(client, channel)
    assert server.stop() == 0
    await client.wait("connecting", code=3001)
    server.start()
    for channel in channels:
        await put(server, channel, "new", 2)

    for channel in channels:
        again = await client.wait("subscribed", channel=channel)
        assert again["recovered"] is False
        await agree(server, channel, client)
        assert await have(client, channel) == {"new": 2}
    await client.close()


@pytest.mark.redis
async def test_nodes_on_redis_have_one_map(
    kind: str, shape: str, make_server: Callable[[Mapping[str, str]], Server], name: str
) -> None:
    """Written at one node, followed at another, and come back to at a third's place when that one dies."""
    with redis_servers.single() as redis:
        options = on_redis(redis.address)
        here, there = make_server(options), make_server(options)
        channel = f"board:{name}"
        client = await Sdk.start(kind, there.websocket_url)
        await client.connect()
        await follow(client, channel, delta="fossil")
        for number in range(5):
            await put(here, channel, "k", document(number))
        await agree(here, channel, client)
        assert await client.do("patches", channel=channel) >= 3
        there.stop()
        await put(here, channel, "missed", 1)
        await take(here, channel, "k")
        there.start()

        again = await client.wait("subscribed", channel=channel)

        assert again["recovered"] is True
        await agree(here, channel, client)
        assert await have(client, channel) == {"missed": 1}
        await client.close()
        here.stop()
        there.stop()
