"""A node on the memory engine, and connections whose transport records."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from realtime.auth.tokens import TokenVerifier
from realtime.client.client import Client
from realtime.conf.options import ProcessOptions
from realtime.engines.memory import MemoryEngine
from realtime.engines.memory_maps import MemoryMaps
from realtime.namespaces.options import ChannelOptions, MapOptions
from realtime.namespaces.table import NamespaceTable
from realtime.node.node import Node
from realtime.protocol.wire import ASGI_JSON, Wire
from realtime.session.session import Session


SECRET = "a secret of more than thirty-two bytes, for tests"

PAGES = {
    "default_page_size": 3,
    "min_page_size": 1,
    "max_page_size": 10,
    "live_transition_max_publication_limit": 20,
}
NAMESPACES = {
    "hist": ChannelOptions(
        history_size=10,
        history_ttl=60,
        force_recovery=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allow_history_for_subscriber=True,
        allow_history_for_anonymous=True,
        allow_publish_for_subscriber=True,
        allow_publish_for_anonymous=True,
    ),
    "jl": ChannelOptions(
        presence=True,
        join_leave=True,
        force_push_join_leave=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allow_presence_for_subscriber=True,
        allow_presence_for_anonymous=True,
    ),
    "cache": ChannelOptions(
        history_size=1,
        history_ttl=60,
        force_recovery=True,
        force_recovery_mode="cache",
        auto_cache_recover=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
    ),
    "filled": ChannelOptions(
        history_size=5,
        history_ttl=60,
        force_recovery=True,
        force_recovery_mode="cache",
        auto_cache_recover=True,
        allow_tags_filter=True,
        cache_empty_proxy_enabled=True,
        cache_empty_proxy_name="docs",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
    ),
    "doc": ChannelOptions(
        history_size=20,
        history_ttl=60,
        allow_recovery=True,
        allow_positioning=True,
        allowed_delta_types=("fossil",),
        delta_publish=True,
        allow_tags_filter=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allow_history_for_subscriber=True,
        allow_history_for_anonymous=True,
    ),
    "cachedoc": ChannelOptions(
        history_size=20,
        history_ttl=60,
        force_recovery=True,
        force_recovery_mode="cache",
        allowed_delta_types=("fossil",),
        delta_publish=True,
        allow_tags_filter=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
    ),
    "user": ChannelOptions(allow_user_limited_channels=True),
    "board": ChannelOptions(
        subscription_type="map",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allowed_delta_types=("fossil",),
        delta_publish=True,
        allow_tags_filter=True,
        map=MapOptions(mode="persistent", stream_size=50, stream_ttl=60, **PAGES),
    ),
    "things": ChannelOptions(
        subscription_type="map",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        map=MapOptions(mode="recoverable", key_ttl=60, stream_size=50, stream_ttl=30, **PAGES),
    ),
    "cursors": ChannelOptions(
        subscription_type="map",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allowed_delta_types=("fossil",),
        delta_publish=True,
        allow_tags_filter=True,
        map=MapOptions(mode="ephemeral", key_ttl=60, **PAGES),
    ),
    "clients": ChannelOptions(
        subscription_type="map_clients",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        map=MapOptions(mode="ephemeral", key_ttl=60),
    ),
    "users": ChannelOptions(
        subscription_type="map_users",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        map=MapOptions(mode="recoverable", key_ttl=60),
    ),
    "watched": ChannelOptions(
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        map_clients_presence_channel_prefix="clients:",
        map_users_presence_channel_prefix="users:",
    ),
    "own": ChannelOptions(
        subscription_type="map",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        map=MapOptions(
            mode="persistent",
            remove_client_on_unsubscribe=True,
            client_key="client_id",
            allow_publish_for_subscriber=True,
            allow_publish_for_anonymous=True,
        ),
    ),
}
OPEN = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_subscribe_for_anonymous=True,
    allow_publish_for_client=True,
    allow_publish_for_anonymous=True,
)


class RecordingTransport:
    """Keeps what is written; ``closed`` is the code and reason."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.is_reading = True
        self.backlog = 0

    def write(self, framed: bytes) -> None:
        self.written.append(framed)

    direct_write = write

    def uncork(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def buffer_size(self) -> int:
        return self.backlog

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class Connection:
    """A client in a test: ``send`` commands, read what came back."""

    def __init__(self, node: Node, client_id: str, wire: Wire = ASGI_JSON, **facts: Any) -> None:
        self.node = node
        self.transport = RecordingTransport()
        self.client = Client(
            node,
            Session(client_id),
            wire,
            self.transport,
            transport_name="websocket",
            **facts,
        )

    def send(self, *commands: Any) -> list[Any]:
        """Send commands in one frame; return what was written meanwhile, pending publications too."""
        self.send_raw(b"\n".join(msgspec.json.encode(command) for command in commands))
        return self.received()

    def send_raw(self, frame: bytes) -> None:
        self.client.on_message(frame, True)

    async def carried_out(self) -> None:
        """Return when no command is being carried out any more."""
        async with asyncio.timeout(30):
            while self.client._task is not None:  # noqa: ASYNC110 -- nobody announces it
                await asyncio.sleep(0)

    def received(self) -> list[Any]:
        """Return the messages since the last look."""
        self.node.hub.flush()
        written, self.transport.written = self.transport.written, []
        return [msgspec.json.decode(line) for each in written for line in each.split(b"\n")]

    @property
    def closed(self) -> tuple[int, str] | None:
        return self.transport.closed


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def build_node(options: ProcessOptions, clock: Clock) -> Node:
    """Put a node together on the memory engine; the caller starts and stops it."""
    engine = MemoryEngine(clock=clock)
    table = NamespaceTable(without_namespace=OPEN, namespaces=NAMESPACES)
    verifier = TokenVerifier(options.client.token)
    return Node(
        options=options,
        configuration=types.SimpleNamespace(revision=1, table=table, api_keys={}),
        broker=engine,
        presence=engine,
        control_bus=engine,
        maps=MemoryMaps(clock),
        connection_verifier=verifier,
        subscription_verifier=verifier,
        version="0.0.0",
        clock=clock,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def options() -> ProcessOptions:
    default = ProcessOptions()
    replace = msgspec.structs.replace
    token = replace(default.client.token, hmac_secret_key=SECRET)
    client = replace(default.client, allow_anonymous_connect_without_token=True, token=token)
    return replace(default, client=client)


@pytest.fixture
async def make_node(clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    nodes: list[Node] = []

    async def make(options: ProcessOptions) -> Node:
        node = build_node(options, clock)
        await node.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        await node.stop()


@pytest.fixture
async def node(make_node: Callable[..., Any], options: ProcessOptions) -> Node:
    made: Node = await make_node(options)
    return made


@pytest.fixture
def connect(node: Node) -> Callable[..., Connection]:
    """Open connections that are connected already (anonymously, or by a token)."""
    count = 0

    def opened(token: str = "", **request: Any) -> Connection:
        nonlocal count
        count += 1
        connection = Connection(node, f"client-{count}")
        body = {"token": token, **request} if token else request
        (reply, *_) = connection.send({"id": 1, "connect": body})
        assert "connect" in reply, reply
        return connection

    return opened
