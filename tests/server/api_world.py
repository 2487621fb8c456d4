"""A node on the memory engine, and the doors through which the server API is reached."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.core.handlers.asgi import ASGIHandler
from msgspec import Raw

from api.lane import DirectLane, DirectLaneApp
from realtime import bootstrap
from realtime.auth.tokens import TokenVerifier
from realtime.conf.options import ProcessOptions
from realtime.conf.snapshot import ApiKey, Configuration
from realtime.engines.memory import MemoryEngine
from realtime.engines.memory_maps import MemoryMaps
from realtime.namespaces.options import ChannelOptions, MapOptions, SharedPollOptions
from realtime.namespaces.table import NamespaceTable
from realtime.node.control import (
    Announcement,
    ControlBody,
    Shutdown,
    SurveyRequest,
    decode_control,
)
from realtime.node.node import Node
from realtime.protocol.errors import EngineError
from realtime.protocol.messages import ClientInfo


KEY = "process-key"
PUBLISH_KEY = "row-key-that-may-publish"
EVERYTHING_KEY = "row-key-that-may-do-everything"
NOW = 1_700_000_000.0
EPOCH = "epochepo"

NAMESPACES = {
    "hist": ChannelOptions(history_size=10, history_ttl=60.0),
    "kept": ChannelOptions(history_size=10, history_ttl=60.0, force_recovery=True),
    "pres": ChannelOptions(presence=True),
    "json": ChannelOptions(publication_data_format="json"),
    "object": ChannelOptions(publication_data_format="json_object"),
    "binary": ChannelOptions(publication_data_format="binary", history_size=10, history_ttl=60.0),
    "map": ChannelOptions(
        subscription_type="map", map=MapOptions(mode="persistent", stream_size=4)
    ),
    "brief": ChannelOptions(
        subscription_type="map", map=MapOptions(mode="ephemeral", key_ttl=60.0), delta_publish=True
    ),
    "clients": ChannelOptions(
        subscription_type="map_clients", map=MapOptions(mode="recoverable", key_ttl=60.0)
    ),
    "users": ChannelOptions(
        subscription_type="map_users", map=MapOptions(mode="recoverable", key_ttl=60.0)
    ),
    "objects": ChannelOptions(
        subscription_type="map",
        map=MapOptions(mode="persistent"),
        publication_data_format="json_object",
    ),
    "poll": ChannelOptions(subscription_type="shared_poll"),
    "rates": ChannelOptions(
        subscription_type="shared_poll",
        shared_poll=SharedPollOptions(mode="versioned", publish_enabled=True),
    ),
}


# What a node says of itself, and asks the others for the sake of an answer.
NOT_ASKED_FOR = (Announcement, Shutdown, SurveyRequest)


class RecordingEngine(MemoryEngine):
    """The memory engine, which also notes what goes over the control bus and fails on demand."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: NOW, epochs=lambda: EPOCH)
        self.commands: list[ControlBody] = []
        self.is_broken = False

    async def publish_control(self, data: bytes, node_id: str = "") -> None:
        """Note, and pass on."""
        self.check_health()
        body = decode_control(data).body
        if not isinstance(body, NOT_ASKED_FOR):
            self.commands.append(body)
        await super().publish_control(data, node_id)

    async def publish(self, *args: Any, **kwargs: Any) -> Any:
        """Publish unless broken."""
        self.check_health()
        return await super().publish(*args, **kwargs)

    async def history(self, *args: Any, **kwargs: Any) -> Any:
        """Read unless broken."""
        self.check_health()
        return await super().history(*args, **kwargs)

    async def presence(self, *args: Any, **kwargs: Any) -> Any:
        """Read unless broken."""
        self.check_health()
        return await super().presence(*args, **kwargs)

    async def presence_stats(self, *args: Any, **kwargs: Any) -> Any:
        """Count unless broken."""
        self.check_health()
        return await super().presence_stats(*args, **kwargs)

    def check_health(self) -> None:
        """Raise where the engine is to be broken."""
        if self.is_broken:
            message = "the backend's own words, with a password in them"
            raise EngineError(message)


class BreakingMaps(MemoryMaps):
    """The maps in memory, which fail when the engine does."""

    def __init__(self, engine: RecordingEngine) -> None:
        super().__init__(lambda: NOW, lambda: EPOCH)
        for name in ("publish", "remove", "read_state", "read_stream", "count", "clear"):
            setattr(self, name, self._breaking(getattr(self, name), engine))

    @staticmethod
    def _breaking(method: Any, engine: RecordingEngine) -> Any:
        async def checked(*args: Any) -> Any:
            engine.check_health()
            return await method(*args)

        return checked


@dataclass
class World:
    """A started node with two presence entries in ``pres:room``, and its engine."""

    node: Node
    engine: RecordingEngine
    options: ProcessOptions


@dataclass(frozen=True)
class Answer:
    """What a caller sees: status, the headers that matter, body."""

    status: int
    body: bytes
    content_type: str = "application/json"
    location: str = ""


@dataclass(frozen=True)
class Call:
    """One request."""

    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"x-api-key": KEY})
    query: str = ""
    verb: str = "POST"

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """As a server hands them over."""
        return [(name.encode(), value.encode()) for name, value in self.headers.items()]


def make_options(**http_api: Any) -> ProcessOptions:
    """Make process options with the tests' key, unless told otherwise; gRPC's, which has no insecure mode, follow."""
    options = ProcessOptions()
    api = msgspec.structs.replace(options.http_api, **{"key": KEY, **http_api})
    grpc_api = msgspec.structs.replace(
        options.grpc_api, key="" if api.insecure else api.key, error_mode=api.error_mode
    )
    return msgspec.structs.replace(options, http_api=api, grpc_api=grpc_api)


@asynccontextmanager
async def open_world(options: ProcessOptions, *, has_rows: bool = True) -> AsyncIterator[World]:
    """Start a node and make it this process's."""
    keys = {
        PUBLISH_KEY: frozenset({"publish", "rpc"}),
        EVERYTHING_KEY: frozenset({"*"}),
    }
    rows = {
        hashlib.sha256(key.encode()).digest(): ApiKey(f"owner of {key}", key[:8], scopes)
        for key, scopes in keys.items()
    }
    engine = RecordingEngine()
    verifier = TokenVerifier(options.client.token)
    node = Node(
        options=options,
        configuration=Configuration(
            1, NamespaceTable(namespaces=NAMESPACES), rows if has_rows else {}
        ),
        broker=engine,
        presence=engine,
        control_bus=engine,
        maps=BreakingMaps(engine),
        connection_verifier=verifier,
        subscription_verifier=verifier,
        version="1.2.3",
        name="here",
        clock=lambda: NOW,
    )
    node.id = "node-id"
    await node.start()
    await engine.add(
        "pres:room", "c1", ClientInfo("u1", "c1", Raw(b'{ "a" : 1.0 }'), Raw(b'"<&>"'))
    )
    await engine.add("pres:room", "c2", ClientInfo("", "c2"))
    before = bootstrap._node
    bootstrap._node = node
    try:
        yield World(node, engine, options)
    finally:
        bootstrap._node = before
        await node.stop()


Door = Callable[[World, Call], Awaitable[Answer | None]]


async def through_views(world: World, call: Call) -> Answer:
    """Send a request to Django alone."""
    return await send(ASGIHandler(), call)


async def through_lane_application(world: World, call: Call) -> Answer:
    """Send a request to the lane in front of Django."""
    lane = DirectLane(lambda: world.node, world.options.http_api)
    return await send(DirectLaneApp(ASGIHandler(), lane), call)


async def through_lane(world: World, call: Call) -> Answer | None:
    """Ask the lane itself; ``None`` when the request isn't the lane's."""
    lane = DirectLane(lambda: world.node, world.options.http_api)
    method, path = call.verb.encode(), call.path.encode()
    if not lane.matches(method, path):
        return None
    opened = lane.open(path, call.query.encode(), call.raw_headers)
    if opened is None:
        return None
    response = await opened.answer(call.body)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return Answer(response.status, response.body, headers.get("content-type", ""))


DOORS: dict[str, Door] = {
    "views": through_views,
    "lane application": through_lane_application,
    "lane": through_lane,
}


async def send(application: Any, call: Call) -> Answer:
    """Make one ASGI call, with the body in two pieces."""
    middle = len(call.body) // 2
    pieces = [call.body[:middle], call.body[middle:]]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if pieces:
            return {
                "type": "http.request",
                "body": pieces.pop(0),
                "more_body": bool(pieces),
            }
        return await _never()

    async def collect(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.verb,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": call.query.encode(),
        "headers": [
            (b"host", b"localhost"),
            (b"content-length", b"%d" % len(call.body)),
            *call.raw_headers,
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await application(scope, receive, collect)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(
        sent[0]["status"],
        b"".join(message.get("body", b"") for message in sent[1:]),
        headers.get("content-type", ""),
        headers.get("location", ""),
    )


async def _never() -> Any:

    await asyncio.get_running_loop().create_future()
