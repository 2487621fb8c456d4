"""
Several servers on one Redis: what a user of one sees of the others, and what is left when one dies.

Two are ``manage.py serve``, the third is the plain ``daphne`` command. They share the database, as nodes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.live.admin_forms import Operator, make_operator
from tests.live.harness import Raw, Server, make_token, raw
from tests.redis_servers import RedisServer, single


pytestmark = [pytest.mark.live, pytest.mark.redis, pytest.mark.timeout(180)]

# A dead node's presence is right, and its leaves told, within so many seconds.
BURIAL_SECONDS = 10.0

MakeNode = Callable[..., Server]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Give a Redis of this module's own."""
    with single() as server:
        yield server


@pytest.fixture(scope="module")
def folder(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the nodes' database."""
    folder = tmp_path_factory.mktemp("cluster")
    for file in database.parent.glob("db.sqlite3*"):
        shutil.copy(file, folder)
    return folder


def options_for(redis: RedisServer, **more: str) -> Mapping[str, str]:
    return {
        "TIDEWIRE_ENGINE_TYPE": "redis",
        "TIDEWIRE_ENGINE_REDIS_ADDRESS": redis.address,
        **more,
    }


@pytest.fixture(scope="module")
def nodes(redis: RedisServer, folder: Path) -> Iterator[list[Server]]:
    """Give three nodes that know each other."""
    servers = [
        Server(shape, folder, options_for(redis, TIDEWIRE_NODE_NAME=name))
        for shape, name in (("serve", "a"), ("serve", "b"), ("daphne", "c"))
    ]
    with ThreadPoolExecutor() as threads:
        list(threads.map(Server.start, servers))
    for server in servers:
        until(lambda server=server: names(server) >= {"a", "b", "c"})
    yield servers
    for server in servers:
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


@pytest.fixture
def make_node(redis: RedisServer, folder: Path) -> Iterator[MakeNode]:
    """Give a function that starts one more node, which the test may kill."""
    servers: list[Server] = []

    def make(**options: str) -> Server:
        servers.append(Server("serve", folder, options_for(redis, **options)))
        return servers[-1].start()

    yield make
    for server in servers:
        if server.is_running:
            assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


def names(server: Server) -> set[str]:
    return {node["name"] for node in server.call("info")["nodes"]}


def until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def eventually(is_so: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def connected(server: Server, user: str, *channels: str) -> Any:
    """Open a connection of a user that is subscribed to channels."""
    async with raw(server) as socket:
        await socket.connect(token=make_token(user))
        for number, channel in enumerate(channels, 2):
            reply = await socket.ask({"id": number, "subscribe": {"channel": channel}})
            assert "subscribe" in reply, reply
        yield socket


async def push_of(socket: Raw, kind: str, seconds: float = 30.0) -> Any:
    """Wait for the next push of a kind; pings and other pushes are dropped."""
    async with asyncio.timeout(seconds):
        while True:
            message = await socket.receive(seconds)
            if kind in message.get("push", {}):
                return message["push"]


async def call(server: Server, method: str, **parameters: Any) -> Any:
    return await asyncio.to_thread(server.call, method, **parameters)


async def present(server: Server, channel: str) -> set[str]:
    """The users in a channel."""
    entries = (await call(server, "presence", channel=channel))["presence"]
    return {entry["user"] for entry in entries.values()}


async def collect_leaves(socket: Raw, leaves: list[str]) -> None:
    """Note the user of every leave push."""
    while True:
        leaves.append((await push_of(socket, "leave", 120))["leave"]["info"]["user"])


# --- what one node asks of all -------------------------------------------------------------------


async def test_a_publication_reaches_the_clients_of_every_node(nodes: list[Server]) -> None:
    """Through whichever node it comes in, in order, and history is the same everywhere."""
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connected(node, "u", "hist:spread")) for node in nodes
        ]
        for number in range(30):
            await call(nodes[number % 3], "publish", channel="hist:spread", data=number)

        for socket in sockets:
            pubs = [(await push_of(socket, "pub"))["pub"] for _ in range(30)]
            assert [pub["data"] for pub in pubs] == list(range(30))
            assert [pub["offset"] for pub in pubs] == list(range(1, 31))
    for node in nodes:
        read = await call(node, "history", channel="hist:spread", limit=-1)
        assert [pub["data"] for pub in read["publications"]] == list(range(30))


@pytest.mark.parametrize("home", [1, 2], ids=["serve", "daphne"])
async def test_the_api_of_one_node_acts_on_connections_of_another(
    nodes: list[Server], home: int
) -> None:
    """Subscribe with its options, unsubscribe, refresh and disconnect."""
    api, user = nodes[0], f"moved-{home}"
    async with connected(nodes[home], user) as socket, connected(nodes[home], "other") as other:
        await call(
            api,
            "subscribe",
            user=user,
            channel="room:api",
            data={"d": 1},
            info={"i": 1},
            override={"force_positioning": {"value": True}},
        )
        push = await push_of(socket, "subscribe")
        assert push["channel"] == "room:api"
        assert push["subscribe"]["data"] == {"d": 1}
        assert push["subscribe"]["positioned"] is True
        entries = (await call(api, "presence", channel="room:api"))["presence"]
        assert [(entry["user"], entry["chan_info"]) for entry in entries.values()] == [
            (user, {"i": 1})
        ]

        await call(api, "unsubscribe", user=user, channel="room:api")
        push = await push_of(socket, "unsubscribe")
        assert (push["channel"], push["unsubscribe"]["code"]) == ("room:api", 2000)

        await call(api, "refresh", user=user, expire_at=int(time.time()) + 100)
        assert (await push_of(socket, "refresh"))["refresh"]["ttl"] in range(95, 101)

        await call(api, "disconnect", user=user, disconnect={"code": 4001, "reason": "moved"})
        assert await socket.closed() == (4001, "moved")
        assert "subscribe" in await other.ask({"id": 9, "subscribe": {"channel": "x"}})


async def test_channels_are_counted_over_all_nodes(nodes: list[Server]) -> None:
    """With and without a pattern, whichever node is asked."""
    async with contextlib.AsyncExitStack() as stack:
        for node, channels in zip(nodes, (("sum:a",), ("sum:a", "sum:b"), ("sum:a",)), strict=True):
            bare = [channel.replace(":", "-") for channel in channels]
            await stack.enter_async_context(connected(node, "u", *bare))
        for node in nodes:
            result = await call(node, "channels", pattern="sum-*")
            assert result["channels"] == {"sum-a": {"num_clients": 3}, "sum-b": {"num_clients": 1}}
            assert "sum-a" in (await call(node, "channels"))["channels"]


async def test_info_has_every_node(nodes: list[Server]) -> None:
    """Each with its own id, name and counts, which lag by the interval of announcements."""
    async with connected(nodes[1], "counted", "info-a", "info-b"):

        async def is_seen() -> bool:
            infos = {node["name"]: node for node in (await call(nodes[0], "info"))["nodes"]}
            return bool(infos["b"]["num_clients"] >= 1 and infos["b"]["num_subs"] >= 2)

        await eventually(is_seen, 6)
    found = (await call(nodes[2], "info"))["nodes"]
    assert len({node["uid"] for node in found}) == len(found)
    assert all(node["metrics"]["items"] for node in found)


async def test_presence_and_joins_span_the_nodes(nodes: list[Server]) -> None:
    """Who is on another node is there, comes and goes like everyone else."""
    async with connected(nodes[0], "watcher", "room:span") as watcher:
        # Waited for, since joins of two nodes have no order.
        assert (await push_of(watcher, "join"))["join"]["info"]["user"] == "watcher"
        async with connected(nodes[2], "guest", "room:span"):
            assert (await push_of(watcher, "join"))["join"]["info"]["user"] == "guest"
            for node in nodes:
                assert await present(node, "room:span") == {"watcher", "guest"}
                stats = await call(node, "presence_stats", channel="room:span")
                assert stats == {"num_clients": 2, "num_users": 2}
        assert (await push_of(watcher, "leave"))["leave"]["info"]["user"] == "guest"
        assert await present(nodes[1], "room:span") == {"watcher"}


# --- nodes that go -------------------------------------------------------------------------------


async def test_after_kill_9_presence_is_right_and_each_leave_was_told_once(
    nodes: list[Server], make_node: MakeNode
) -> None:
    """Within ten seconds, whichever of the survivors does it."""
    dying = await asyncio.to_thread(make_node)
    users = {f"gone-{number}" for number in range(20)}
    leaves: list[list[str]] = [[] for _ in nodes]
    async with contextlib.AsyncExitStack() as stack:
        watchers = [
            await stack.enter_async_context(connected(node, f"left-{number}", "room:kill"))
            for number, node in enumerate(nodes)
        ]
        for user in users:
            await stack.enter_async_context(connected(dying, user, "room:kill"))
        readers = [
            asyncio.create_task(collect_leaves(socket, noted))
            for socket, noted in zip(watchers, leaves, strict=True)
        ]
        stays = {"left-0", "left-1", "left-2"}
        assert await present(nodes[0], "room:kill") == users | stays

        killed_at = time.monotonic()
        await asyncio.to_thread(dying.kill)

        async def is_right() -> bool:
            return await present(nodes[0], "room:kill") == stays and all(
                set(noted) == users for noted in leaves
            )

        await eventually(is_right, BURIAL_SECONDS)
        assert time.monotonic() - killed_at < BURIAL_SECONDS
        assert await asyncio.to_thread(names, nodes[1]) == {"a", "b", "c"}
        # A second survivor would have told them by now.
        await asyncio.sleep(2)
        for noted in leaves:
            assert len(noted) == len(users)
        for reader in readers:
            reader.cancel()


async def test_a_stopped_node_comes_back_with_its_clients(
    nodes: list[Server], make_node: MakeNode
) -> None:
    """SIGSTOP for longer than the others wait: its clients leave, and are there again when it goes on."""
    stopped = await asyncio.to_thread(make_node, TIDEWIRE_NODE_NAME="d")
    async with (
        connected(nodes[0], "watcher", "room:stop") as watcher,
        connected(stopped, "sleeper", "room:stop") as sleeper,
    ):
        # Its own join is told before it is stopped: one still on its way would pass for the one after.
        for user in ("watcher", "sleeper"):
            assert (await push_of(watcher, "join"))["join"]["info"]["user"] == user
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            assert (await push_of(watcher, "leave", 12))["leave"]["info"]["user"] == "sleeper"
            assert await present(nodes[1], "room:stop") == {"watcher"}
            assert await asyncio.to_thread(names, nodes[2]) == {"a", "b", "c"}
        finally:
            os.kill(stopped.pid, signal.SIGCONT)

        assert (await push_of(watcher, "join"))["join"]["info"]["user"] == "sleeper"
        assert await present(nodes[1], "room:stop") == {"watcher", "sleeper"}
        await eventually(lambda: asyncio.to_thread(lambda: names(nodes[2]) == {"a", "b", "c", "d"}))
        assert names(stopped) == {"a", "b", "c", "d"}
        await call(nodes[0], "publish", channel="room:stop", data="still there")
        assert (await push_of(sleeper, "pub"))["pub"]["data"] == "still there"


async def test_a_node_that_shuts_down_is_gone_at_once(
    nodes: list[Server], make_node: MakeNode
) -> None:
    """Nobody waits for it, its clients are told to come again, and they have left when it has ended."""
    leaving = await asyncio.to_thread(make_node, TIDEWIRE_NODE_NAME="d")
    async with (
        connected(nodes[0], "watcher", "room:down") as watcher,
        connected(leaving, "guest", "room:down") as guest,
    ):
        await asyncio.to_thread(leaving.terminate)

        assert await guest.closed() == (3001, "shutdown")
        assert (await push_of(watcher, "leave"))["leave"]["info"]["user"] == "guest"
        assert await asyncio.to_thread(leaving.wait) == 0
        assert await asyncio.to_thread(names, nodes[1]) == {"a", "b", "c"}
        assert await present(nodes[1], "room:down") == {"watcher"}


# --- configuration -------------------------------------------------------------------------------


async def test_a_namespace_saved_in_one_admin_is_in_force_on_all_nodes(
    nodes: list[Server],
) -> None:
    """Within a second, on sockets that are open."""
    await asyncio.to_thread(make_operator, nodes[0])
    operator = await asyncio.to_thread(Operator, nodes[0])
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(node, "u")) for node in nodes]
        for socket in sockets:
            reply = await socket.ask({"id": 2, "subscribe": {"channel": "fresh:a"}})
            assert reply["error"]["code"] == 102

        await asyncio.to_thread(
            operator.submit,
            "/admin/realtime/namespace/add/",
            name="fresh",
            allow_subscribe_for_client="on",
        )
        saved_at = time.monotonic()

        for socket in sockets:
            number = 3
            while "error" in await socket.ask({"id": number, "subscribe": {"channel": "fresh:a"}}):
                number += 1
                assert time.monotonic() - saved_at < 5  # a busy machine
                await asyncio.sleep(0.02)
        assert time.monotonic() - saved_at < 5  # a busy machine


# --- what others do costs nothing ----------------------------------------------------------------


async def test_a_node_without_subscribers_pays_nothing(nodes: list[Server]) -> None:
    """While another one publishes to its own: a process that would be woken for each message would show it."""
    busy, idle = nodes[0], nodes[1]
    commands = [{"publish": {"channel": "busy", "data": {"n": 1}}}] * 500
    async with connected(busy, "reader", "busy") as reader:
        before = cpu_seconds(busy.pid), cpu_seconds(idle.pid)
        for _ in range(30):
            answer = await asyncio.to_thread(
                busy.api, "batch", {"commands": commands, "parallel": True}
            )
            assert answer.json["replies"] == [{"publish": {}}] * 500
            for _ in range(500):
                await push_of(reader, "pub")
        spent = cpu_seconds(busy.pid) - before[0], cpu_seconds(idle.pid) - before[1]
    assert spent[0] > 0.3
    # What it does anyway: announcements, ticks, one read of the revision a second.
    assert spent[1] < spent[0] / 10, spent


def cpu_seconds(pid: int) -> float:
    """The time that a process has had on a CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- workers -------------------------------------------------------------------------------------


def workers_of(server: Server) -> list[int]:
    """The processes under a supervisor."""
    pid = server.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_workers_share_a_port_and_a_dead_one_is_replaced(
    make_node: MakeNode, tmp_path: Path
) -> None:
    """kill -9 of one: the others go on, its clients come back, and the node takes its place under its name."""
    pid_file = tmp_path / "pid"
    server = await asyncio.to_thread(
        make_node,
        TIDEWIRE_WORKERS="3",
        TIDEWIRE_NODE_NAME="w",
        TIDEWIRE_ENGINE_REDIS_PREFIX="w",
        TIDEWIRE_PID_FILE=str(pid_file),
    )
    wanted = {"w_1", "w_2", "w_3"}
    await eventually(lambda: asyncio.to_thread(lambda: names(server) == wanted), 30)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connected(server, f"u{number}", "shared"))
            for number in range(30)
        ]
        result = await call(server, "channels")
        assert result["channels"] == {"shared": {"num_clients": 30}}
        await call(server, "publish", channel="shared", data="to all")
        for socket in sockets:
            assert (await push_of(socket, "pub"))["pub"]["data"] == "to all"
        victim = workers_of(server)[1]

        os.kill(victim, signal.SIGKILL)

        async def is_replaced() -> bool:
            children = workers_of(server)
            return victim not in children and len(children) == 3 and names(server) == wanted

        await eventually(is_replaced, 30)
        assert "[worker 1] " in server.log
        assert int(pid_file.read_text()) == server.pid
        # Those of the dead worker lost their sockets, and only those.
        closes = [socket.socket.close_code is not None for socket in sockets]
        for number, socket in enumerate(sockets):
            if socket.socket.close_code is not None:
                sockets[number] = await stack.enter_async_context(
                    connected(server, f"u{number}", "shared")
                )
        assert 0 < sum(closes) < 30
        await call(server, "publish", channel="shared", data="again")
        for socket in sockets:
            assert (await push_of(socket, "pub"))["pub"]["data"] == "again"

        await asyncio.to_thread(server.terminate)

        assert {await socket.closed(30) for socket in sockets} == {(3001, "shutdown")}
        assert await asyncio.to_thread(server.wait) == 0
        assert not pid_file.exists()


async def test_workers_end_with_a_supervisor_that_is_killed(make_node: MakeNode) -> None:
    """Their clients are sent away in order, and the port is free."""
    server = await asyncio.to_thread(
        make_node, TIDEWIRE_WORKERS="2", TIDEWIRE_ENGINE_REDIS_PREFIX="k"
    )
    await eventually(lambda: asyncio.to_thread(lambda: len(workers_of(server)) == 2), 30)
    workers = workers_of(server)
    async with connected(server, "u") as socket:
        await asyncio.to_thread(server.kill)

        assert await socket.closed(30) == (3001, "shutdown")

    async def are_gone() -> bool:
        return not any(is_alive(pid) for pid in workers)

    await eventually(are_gone, 20)


def test_a_port_in_use_is_told_before_a_worker_starts(
    nodes: list[Server], redis: RedisServer, folder: Path
) -> None:
    """By one line, not by every worker again and again."""
    second = Server("serve", folder, options_for(redis, TIDEWIRE_WORKERS="2"))
    second.port = redis.port

    with pytest.raises(AssertionError, match=r"can't listen on .*: Address already in use"):
        second.start()

    assert "worker" not in second.log


def test_a_first_worker_that_can_not_start_ends_it(redis: RedisServer, tmp_path: Path) -> None:
    """Here for want of a database that was migrated."""
    server = Server("serve", tmp_path, options_for(redis, TIDEWIRE_WORKERS="2"))

    with pytest.raises(AssertionError, match="the first worker did not start"):
        server.start()


async def test_sighup_reads_the_configuration_file_again(
    make_node: MakeNode, tmp_path: Path
) -> None:
    """In every worker; one that makes no sense changes nothing, and neither ends anything."""
    file = tmp_path / "config.yaml"
    file.write_text("client:\n  channel_limit: 100\n")
    server = await asyncio.to_thread(
        make_node,
        TIDEWIRE_WORKERS="2",
        TIDEWIRE_CONFIG=str(file),
        TIDEWIRE_ENGINE_REDIS_PREFIX="h",
    )
    await eventually(lambda: asyncio.to_thread(lambda: len(names(server)) == 2), 30)
    workers = workers_of(server)

    file.write_text("client:\n  channel_limit: 1\n")
    os.kill(server.pid, signal.SIGHUP)
    await asyncio.to_thread(
        until, lambda: server.log.count("configuration successfully reloaded") == 2
    )
    async with connected(server, "u", "one") as socket:
        reply = await socket.ask({"id": 9, "subscribe": {"channel": "two"}})
        assert reply["error"]["code"] == 106

    file.write_text("client:\n  channel_limit: 0\n")
    os.kill(server.pid, signal.SIGHUP)
    await asyncio.to_thread(
        until, lambda: server.log.count("the new configuration is refused") == 2
    )
    assert workers_of(server) == workers
    server.log_path.write_text("")  # the refusals have their tracebacks


def test_a_sighup_that_comes_early_is_carried_out_late(
    redis: RedisServer, folder: Path, tmp_path: Path
) -> None:
    """Once the server listens to it: until then it ends nothing, and what was read already is read again."""
    file = tmp_path / "config.yaml"
    file.write_text("client:\n  channel_limit: 100\n")
    server = Server("serve", folder, options_for(redis, TIDEWIRE_CONFIG=str(file)))
    with ThreadPoolExecutor(1) as threads:
        started = threads.submit(server.start)
        until(lambda: server.is_running and holds_back(server.pid, signal.SIGHUP))

        os.kill(server.pid, signal.SIGHUP)

        started.result()
    until(lambda: "configuration successfully reloaded" in server.log)
    assert not holds_back(server.pid, signal.SIGHUP)
    assert server.stop() == 0, server.log


def holds_back(pid: int, number: signal.Signals) -> bool:
    """Whether a process has blocked a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked, 16) >> (number - 1) & 1)
