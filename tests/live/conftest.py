"""
Servers in both shapes, and clients of every SDK, for the tests of this folder.

Databases are migrated and filled once and copied for each server. A test that fails shows the logs of the servers
it used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from tests.live.harness import SHAPES, Sdk, Server, manage


CONFIGURATION = {
    "channel": {
        "without_namespace": {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "allow_publish_for_subscriber": True,
            "allow_publish_for_anonymous": True,
        },
        "namespaces": [
            {
                "name": "room",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allow_publish_for_subscriber": True,
                "allow_presence_for_subscriber": True,
                "allow_presence_for_anonymous": True,
                "presence": True,
                "join_leave": True,
                "force_push_join_leave": True,
            },
            {
                "name": "hist",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allow_history_for_subscriber": True,
                "allow_history_for_anonymous": True,
                "history_size": 100,
                "history_ttl": "300s",
                "force_recovery": True,
            },
            {
                "name": "long",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "history_size": 100_000,
                "history_ttl": "1h",
                "force_recovery": True,
            },
            {
                "name": "cache",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "history_size": 1,
                "history_ttl": "300s",
                "force_recovery": True,
                "force_recovery_mode": "cache",
            },
            {
                "name": "load",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allow_publish_for_subscriber": True,
                "allow_publish_for_anonymous": True,
                "history_size": 100,
                "history_ttl": "300s",
                "force_recovery": True,
            },
            {
                "name": "doc",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "history_size": 300,
                "history_ttl": "300s",
                "force_recovery": True,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
            },
            {
                "name": "tagged",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "history_size": 300,
                "history_ttl": "300s",
                "force_recovery": True,
                "allow_tags_filter": True,
            },
            {
                "name": "batch",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "join_leave": True,
                "force_push_join_leave": True,
                "batch_max_size": 100,
                "batch_max_delay": "300ms",
            },
            {
                "name": "latest",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "batch_max_delay": "300ms",
                "batch_flush_latest": True,
            },
            {
                "name": "quick",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
                "keep_latest_publication": True,
            },
            {
                "name": "compact",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "join_leave": True,
                "force_push_join_leave": True,
                "allow_channel_compaction": True,
            },
            {
                "name": "debounced",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allow_publish_for_subscriber": True,
                "allow_publish_for_anonymous": True,
                "client_publish_debounce_interval": "200ms",
            },
            {
                "name": "board",
                "subscription_type": "map",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
                "allow_tags_filter": True,
                "map": {
                    "mode": "persistent",
                    "min_page_size": 1,
                    "allow_publish_for_subscriber": True,
                    "allow_publish_for_anonymous": True,
                    "allow_remove_for_subscriber": True,
                    "allow_remove_for_anonymous": True,
                },
            },
            {
                "name": "things",
                "subscription_type": "map",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "map": {"mode": "recoverable", "key_ttl": "600s", "min_page_size": 1},
            },
            {
                "name": "cursors",
                "subscription_type": "map",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "map": {"mode": "ephemeral", "key_ttl": "600s", "min_page_size": 1},
            },
            {
                "name": "clients",
                "subscription_type": "map_clients",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "map": {"mode": "ephemeral", "key_ttl": "60s"},
            },
            {
                "name": "mapusers",
                "subscription_type": "map_users",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "map": {"mode": "recoverable", "key_ttl": "2s"},
            },
            {
                "name": "watched",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "map_clients_presence_channel_prefix": "clients:",
                "map_users_presence_channel_prefix": "mapusers:",
            },
            {"name": "closed"},
            {"name": "personal", "presence": True},
            {"name": "users", "allow_user_limited_channels": True},
        ],
    },
}
"""What the servers of this folder allow, as a Centrifugo configuration file."""


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database that was migrated and filled by ``importconfig``, to be copied."""
    folder = tmp_path_factory.mktemp("database")
    path = folder / "db.sqlite3"
    (folder / "config.json").write_text(json.dumps(CONFIGURATION))
    manage(path, "migrate", "--verbosity", "0")
    manage(path, "importconfig", str(folder / "config.json"))
    return path


@pytest.fixture(scope="session", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """Give the kind of server."""
    shape: str = request.param
    return shape


def copy_database(database: Path, folder: Path) -> None:
    """Copy a database; the write-ahead log goes with the file that it belongs to."""
    for file in database.parent.glob("db.sqlite3*"):
        shutil.copy(file, folder)


def _folder(tmp_path_factory: pytest.TempPathFactory, database: Path, name: str) -> Path:
    folder = tmp_path_factory.mktemp(name)
    copy_database(database, folder)
    return folder


@pytest.fixture(scope="session")
def server(server_in_memory: Server) -> Server:
    """Give one server with the usual options; a module may have it be on other engines, too."""
    return server_in_memory


@pytest.fixture(scope="session")
def server_in_memory(
    shape: str, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Give one server with the usual options, for all tests that leave it as it was."""
    server = Server(shape, _folder(tmp_path_factory, database, shape)).start()
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def make_server(
    shape: str, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Mapping[str, str]], Server]]:
    """Give a function that starts a server with more options, ended after the test."""
    servers: list[Server] = []

    def make(options: Mapping[str, str] = {}) -> Server:
        folder = _folder(tmp_path_factory, database, shape)
        servers.append(Server(shape, folder, options))
        return servers[-1].start()

    yield make
    for server in servers:
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


JS_STREAMS = ("js-json-http_stream", "js-protobuf-http_stream", "js-json-sse")
JS_KINDS = ("js-json", "js-protobuf", *JS_STREAMS)

SDK_KINDS = (
    *JS_KINDS,
    "python-json",
    "python-protobuf",
    pytest.param("go-json", marks=pytest.mark.go),
    pytest.param("go-protobuf", marks=pytest.mark.go),
)


# Of what doesn't depend on each other some combinations do, and time is scarce.
_LEFT_OUT: tuple[Mapping[str, str], ...] = (
    {"shape": "daphne", "sdk_kind": "go-protobuf"},
    {"shape": "daphne", "server": "redis"},
    *({"maps": "redis", "kind": kind} for kind in JS_STREAMS),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave such combinations out."""

    def is_left_out(item: pytest.Item) -> bool:
        call = getattr(item, "callspec", None)
        return call is not None and any(one.items() <= call.params.items() for one in _LEFT_OUT)

    dropped = [item for item in items if is_left_out(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not is_left_out(item)]


@pytest.fixture(params=SDK_KINDS)
def sdk_kind(request: pytest.FixtureRequest) -> str:
    """Give the name of an SDK, an encoding and, where it is no WebSocket, a transport."""
    kind: str = request.param
    return kind


MakeSdk = Callable[[Server], Awaitable[Sdk]]


@pytest_asyncio.fixture
async def make_sdk(sdk_kind: str) -> AsyncIterator[MakeSdk]:
    """Give a function that starts a client of the SDK, ended after the test."""
    clients: list[Sdk] = []

    async def make(server: Server) -> Sdk:
        clients.append(await Sdk.start(sdk_kind, server.websocket_url))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the end of the server's log to the report of a test that failed."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Server):
                report.sections.append((f"log of {value.shape}", value.log[-5000:]))
    return report
