"""The server API's commands where no door shows them: engines that wait, the registry, concurrency."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Raw

from realtime import commands
from realtime.conf.options import ProcessOptions
from realtime.engines.base import PublishOptions, PublishOutcome
from realtime.namespaces.globs import compile_glob
from realtime.namespaces.options import ChannelOptions
from realtime.namespaces.table import Channel, NamespaceTable
from realtime.node.eager import run_eagerly
from realtime.protocol.api_messages import (
    BatchRequest,
    BroadcastRequest,
    ChannelsRequest,
    Command,
    PresenceRequest,
    PublishRequest,
    RPCRequest,
)
from realtime.protocol.errors import BadRequestError, EngineError, NotAvailableError
from realtime.protocol.messages import Publication, StreamPosition


@dataclass
class WaitingNode:
    """A node whose publishes wait until they are let go, and that notes how many wait at once."""

    table: NamespaceTable = field(
        default_factory=lambda: NamespaceTable(
            namespaces={
                "hist": ChannelOptions(history_size=5, history_ttl=9.0, delta_publish=True),
                "pres": ChannelOptions(presence=True),
            }
        )
    )
    options: ProcessOptions = field(default_factory=ProcessOptions)
    presence: Any = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    most: int = 0
    published: list[tuple[str, Publication, PublishOptions]] = field(default_factory=list)

    async def publish(
        self, channel: Channel, publication: Publication, options: PublishOptions
    ) -> PublishOutcome:
        """Wait, then publish."""
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        self.published.append((channel.name, publication, options))
        if channel.name == "broken":
            message = "away"
            raise EngineError(message)
        if channel.name == "bug":
            message = "a bug"
            raise RuntimeError(message)
        return PublishOutcome(StreamPosition(len(self.published), "e"))

    async def survey_channels(self, pattern: str = "") -> dict[str, int]:
        """Count."""
        counts = {"chat:a": 1, "chat:b": 2, "news:a": 3}
        return {name: counts[name] for name in filter(compile_glob(pattern or "*"), counts)}


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Any]:
    """Give a node whose gate is open."""
    waiting = WaitingNode()
    waiting.gate.set()
    yield waiting
    assert waiting.waiting == 0


async def start() -> None:
    """Let a task run up to where it waits: one turn of the loop starts it, a second one its children."""
    for _ in range(2):
        await asyncio.sleep(0)


async def test_a_broadcast_waits_for_all_channels_at_once(node: Any) -> None:
    """At most 1024 publishes are under way, and the responses come in the order of the channels."""
    node.gate.clear()
    names = [f"c{number}" for number in range(1500)]
    task = asyncio.ensure_future(
        commands.broadcast(node, BroadcastRequest(channels=names, data=Raw(b"1")))
    )
    await start()
    node.gate.set()

    result = await task

    assert node.most == 1024
    assert [name for name, _, _ in node.published] == names
    assert [response.result.offset for response in result.responses if response.result] == list(
        range(1, 1501)
    )


async def test_a_broadcast_survives_single_failures(node: Any) -> None:
    """Neither an engine's failure nor a bug in one channel concerns the others."""
    request = BroadcastRequest(channels=["broken", "bug", "fine"], data=Raw(b"1"))

    result = await commands.broadcast(node, request)

    assert [response.error and response.error.code for response in result.responses] == [
        100,
        100,
        None,
    ]


@pytest.mark.parametrize(("is_parallel", "most"), [(False, 1), (True, 3)])
async def test_a_batch_runs_in_order_or_at_once(node: Any, is_parallel: bool, most: int) -> None:
    """Replies are in the order of the commands either way."""
    node.gate.clear()
    request = BatchRequest(
        commands=[Command(publish=PublishRequest(channel=name, data=Raw(b"1"))) for name in "abc"],
        parallel=is_parallel,
    )
    task = asyncio.ensure_future(commands.batch(node, request))
    await start()
    node.gate.set()

    response = await task

    assert node.most == most
    assert [reply.publish.offset for reply in response.replies if reply.publish] == [1, 2, 3]


async def test_cancelling_a_broadcast_cancels_its_publishes(node: Any) -> None:
    """Nobody is left waiting for an answer that nobody wants."""
    node.gate.clear()
    request = BroadcastRequest(channels=["a", "b"], data=Raw(b"1"))
    task = asyncio.ensure_future(commands.broadcast(node, request))
    await start()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)

    assert node.waiting == 0
    assert node.published == []


async def test_commands_do_not_suspend_on_an_engine_that_does_not(node: Any) -> None:
    """A door can drive them to their end without a task."""
    request = BatchRequest(
        commands=[
            Command(publish=PublishRequest(channel="a", data=Raw(b"1"))),
            Command(broadcast=BroadcastRequest(channels=["a", "b"], data=Raw(b"1"))),
        ],
        parallel=True,
    )

    response, task = run_eagerly(commands.batch(node, request))

    assert task is None
    assert response is not None
    assert [reply.error for reply in response.replies] == [None, None]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            PublishRequest(channel="hist:a", data=Raw(b"1")),
            PublishOptions(5, 9.0, 2592000.0, delta=True),
        ),
        (
            PublishRequest(channel="hist:a", data=Raw(b"1"), skip_history=True),
            PublishOptions(0, 9.0, 2592000.0, delta=True),
        ),
        (
            PublishRequest(
                channel="hist:a",
                data=Raw(b"1"),
                idempotency_key="k",
                version=4,
                version_epoch="v",
            ),
            PublishOptions(
                5, 9.0, 2592000.0, idempotency_key="k", delta=True, version=4, version_epoch="v"
            ),
        ),
        (
            PublishRequest(channel="plain", data=Raw(b"1"), delta=True),
            PublishOptions(0, 0, 2592000.0, delta=True),
        ),
    ],
)
async def test_publish_options_come_from_namespace_and_request(
    node: Any, request_: PublishRequest, expected: PublishOptions
) -> None:
    """The engine is told all that it needs; the version travels with the publication too."""
    await commands.publish(node, request_)

    ((_, publication, options),) = node.published
    assert options == expected
    assert publication.version == request_.version


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("", {"chat:a": 1, "chat:b": 2, "news:a": 3}), ("*:a", {"chat:a": 1, "news:a": 3}), ("x", {})],
)
async def test_channels_are_filtered(node: Any, pattern: str, expected: dict[str, int]) -> None:
    """An empty pattern means all."""
    result = await commands.channels(node, ChannelsRequest(pattern=pattern))

    assert {name: info.num_clients for name, info in result.channels.items()} == expected


async def test_presence_needs_an_engine_that_has_it(node: Any) -> None:
    """108, even where the namespace wants presence."""
    with pytest.raises(NotAvailableError):
        await commands.presence(node, PresenceRequest(channel="pres:a"))


async def test_a_sync_function_runs_in_another_thread(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may block without holding up the loop."""
    monkeypatch.setattr(commands.functions, "_thread_runner", asyncio.to_thread)
    commands.register_rpc("where", lambda params: threading.get_ident())
    try:
        result = await commands.rpc(node, RPCRequest(method="where"))
    finally:
        commands.unregister_rpc("where")

    assert int(bytes(result.data)) != threading.get_ident()


async def test_an_object_with_an_async_call_is_awaited(node: Any) -> None:
    """It is a coroutine function as well."""

    class Echo:
        async def __call__(self, params: bytes) -> bytes:
            return params

    commands.register_rpc("echo", Echo())
    try:
        result = await commands.rpc(node, RPCRequest(method="echo", params=Raw(b"[1]")))
    finally:
        commands.unregister_rpc("echo")

    assert bytes(result.data) == b"[1]"


def test_rpc_names_are_unique() -> None:
    """A second function under a name would silently replace the first."""
    commands.register_rpc("once", bytes)
    try:
        with pytest.raises(ValueError, match="already"):
            commands.register_rpc("once", bytes)
        with pytest.raises(ValueError, match="name"):
            commands.register_rpc("", bytes)
    finally:
        commands.unregister_rpc("once")


async def test_what_a_function_returns_must_be_encodable(node: Any) -> None:
    """Anything that is no JSON is the function's bug: 100, with the details in the log."""
    commands.register_rpc("thing", lambda params: object())
    try:
        with pytest.raises(Exception, match="100: internal server error"):
            await commands.rpc(node, RPCRequest(method="thing"))
    finally:
        commands.unregister_rpc("thing")


async def test_a_payload_does_not_keep_its_request_alive(node: Any) -> None:
    """Of a large batch one small publication may stay in history; its bytes are its own."""
    body = b'{"x":1}' + b" " * 1000
    data = Raw(memoryview(body)[:7])

    await commands.publish(node, PublishRequest(channel="a", data=data))

    ((_, publication, _),) = node.published
    assert memoryview(publication.data).nbytes == 7
    assert publication.data is not data


async def test_an_empty_broadcast_is_refused(node: Any) -> None:
    """107, before anything is decoded."""
    with pytest.raises(BadRequestError):
        await commands.broadcast(node, BroadcastRequest(b64data="!"))
