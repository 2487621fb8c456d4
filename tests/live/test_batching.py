"""Batches and what saves bandwidth, with SDKs that were not written here."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.live.conftest import JS_STREAMS, SDK_KINDS, MakeSdk
from tests.live.harness import Sdk, Server


pytestmark = pytest.mark.live

_numbers = itertools.count()
on_websockets = pytest.mark.parametrize("sdk_kind", ["js-json", "js-protobuf"], indirect=True)


@pytest.fixture
def name(sdk_kind: str, shape: str) -> str:
    """Give a name that no other test uses: servers are shared."""
    return f"{sdk_kind}-{shape}-{next(_numbers)}"


async def _publish_all(server: Server, channel: str, values: range) -> None:
    """Publish in one request, so that all of it falls into one batch."""
    commands = [{"publish": {"channel": channel, "data": value}} for value in values]
    answer = await asyncio.to_thread(server.api, "batch", {"commands": commands})
    assert all("error" not in reply for reply in answer.json["replies"]), answer.body


async def _received(client: Sdk, channel: str, last: int) -> list[int]:
    """Wait for a value, and return what came up to it."""
    await client.wait("publication", channel=channel, data=last)
    return [each["data"] for each in client.seen("publication", channel=channel)]


async def test_a_batch_arrives_whole_and_in_order(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """On every transport; a batch that is full does not wait."""
    channel = f"batch:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel)

    await _publish_all(server, channel, range(250))

    assert await _received(client, channel, 249) == list(range(250))


@on_websockets
async def test_messages_of_a_batch_share_frames(
    server: Server, make_sdk: MakeSdk, name: str, shape: str
) -> None:
    """Some 48 publications and two joins in a handful of frames; 16 to a frame where the frames are ours."""
    channel = f"batch:{name}"
    client, other = await make_sdk(server), await make_sdk(server)
    await client.connect()
    await other.connect()
    await client.subscribe(channel)
    await client.wait("join", channel=channel)
    await client.do("frames", text="")

    await _publish_all(server, channel, range(24))
    await other.subscribe(channel)
    await _publish_all(server, channel, range(24, 48))

    assert await _received(client, channel, 47) == list(range(48))
    assert len(client.seen("join", channel=channel)) == 2
    kinds = [each["event"] for each in client.events if each["event"] in ("join", "publication")]
    assert 1 < kinds.index("join", 1) < 48  # among the publications, not before or after them
    assert (await client.do("frames", text=""))["count"] <= 8


async def test_the_latest_only_is_the_latest(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """What is between is left out, the last one never."""
    channel = f"latest:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel)

    for first in range(0, 400, 100):
        await _publish_all(server, channel, range(first, first + 100))

    received = await _received(client, channel, 399)
    assert received == sorted(received)
    assert len(received) < 20


async def test_documents_arrive_as_patches_without_positions(
    server: Server, make_sdk: MakeSdk, name: str, sdk_kind: str
) -> None:
    """Of a channel without history; the first one after each subscribe comes whole."""
    channel = f"quick:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel, delta="fossil")

    documents = [{"text": "Der Absatz bleibt: äöü€. " * 8, "n": number} for number in range(10)]
    for count, document in enumerate(documents):
        if count == 5:
            await client.do("disconnect")
            await client.wait("disconnected")
            await client.do("connect_again")
            await client.wait("subscribed", channel=channel)
        await asyncio.to_thread(server.publish, channel, document)
        assert (await client.wait("publication", channel=channel))["data"] == document

    if sdk_kind.startswith("js"):
        assert await client.do("patches", channel=channel) == 8
    assert not client.seen("error")


@pytest.mark.parametrize(
    "sdk_kind", [kind for kind in SDK_KINDS if kind not in JS_STREAMS], indirect=True
)
async def test_a_number_stands_for_the_channels_name(
    server: Server, make_sdk: MakeSdk, name: str, sdk_kind: str
) -> None:
    """In every publication, join and leave, also after a reconnect; the SDK finds the subscription by it."""
    channels = [f"compact:{name}-{letter}" for letter in "ab"]
    client, other = await make_sdk(server), await make_sdk(server)
    await client.connect()
    await other.connect()
    for turn in range(2):
        for channel in channels:
            if turn:
                await client.wait("subscribed", channel=channel)
            else:
                await client.subscribe(channel)
            await client.wait("join", channel=channel)
        if sdk_kind.startswith("js"):
            await client.do("frames", text="")

        for channel in channels:
            if not turn:
                await other.subscribe(channel)
                await client.wait("join", channel=channel)
            await asyncio.to_thread(server.publish, channel, channel[-1] + str(turn))
            await client.wait("publication", channel=channel, data=channel[-1] + str(turn))

        if sdk_kind == "js-json":
            assert (await client.do("frames", text=name))["with_text"] == 0
        if not turn:
            await client.do("disconnect")
            await client.wait("disconnected")
            await client.do("connect_again")
    await client.do("unsubscribe", channel=channels[0])
    await client.wait("unsubscribed", channel=channels[0])


@on_websockets
async def test_publishing_is_slowed_down_by_the_sdk(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """The first publication goes at once, and of those that follow in the interval the last one."""
    channel = f"debounced:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel)

    for value in range(50):
        await client.do("subscription_publish", channel=channel, data=value)

    received = await _received(client, channel, 49)
    assert received[0] == 0
    assert received == sorted(received)
    assert len(received) < 25


@pytest.mark.parametrize(
    "sdk_kind", ["js-json", "js-protobuf", "js-json-http_stream", "js-json-sse"], indirect=True
)
async def test_a_write_delay_holds_on_every_transport(make_server, make_sdk, name) -> None:
    """Publications wait for it, replies don't; on a WebSocket what it gathered leaves in one piece."""
    server = make_server({"TIDEWIRE_CLIENT_WRITE_DELAY": "2s"})
    channel = f"any-{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel)
    loop = asyncio.get_running_loop()

    begin = loop.time()
    await _publish_all(server, channel, range(20))
    await client.do("publish", channel=channel, data=20)
    answered = loop.time() - begin
    assert client.seen("publication") == []
    received = await _received(client, channel, 20)

    assert answered < 1.9 < loop.time() - begin
    assert received == list(range(21))
