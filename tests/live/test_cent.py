"""The server API through ``cent``, the Python client for backends that was not written here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import cent
import pytest
import pytest_asyncio

from tests.live.harness import API_KEY, Server, make_token, raw


pytestmark = pytest.mark.live

_numbers = itertools.count()


@pytest.fixture
def name(shape: str) -> str:
    """Give a name that no other test uses."""
    return f"cent-{shape}-{next(_numbers)}"


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[cent.AsyncClient]:
    """Give a client with the key."""
    client = cent.AsyncClient(f"{server.url}/api", api_key=API_KEY, timeout=30)
    yield client
    await client.close()


def test_synchronous_client(server: Server, name: str) -> None:
    """The synchronous client publishes and reads history."""
    client = cent.Client(f"{server.url}/api", api_key=API_KEY, timeout=30)
    try:
        result = client.publish(cent.PublishRequest(channel=f"hist:{name}", data={"n": 1}))
        history = client.history(cent.HistoryRequest(channel=f"hist:{name}", limit=10))
    finally:
        client._session.close()

    assert result.offset == 1
    assert result.epoch == history.epoch
    assert [publication.data for publication in history.publications] == [{"n": 1}]


async def test_publish_and_history(client: cent.AsyncClient, name: str) -> None:
    """Offsets rise by one, history is read by limit, position and direction, and is removed."""
    channel = f"hist:{name}"
    for number in range(1, 4):
        result = await client.publish(
            cent.PublishRequest(channel=channel, data={"n": number}, tags={"k": "v"})
        )
        assert result.offset == number

    history = await client.history(cent.HistoryRequest(channel=channel, limit=2, reverse=True))
    assert [publication.offset for publication in history.publications] == [3, 2]
    assert history.publications[0].tags == {"k": "v"}
    since = cent.StreamPosition(offset=1, epoch=history.epoch)
    history = await client.history(cent.HistoryRequest(channel=channel, limit=9, since=since))
    assert [publication.offset for publication in history.publications] == [2, 3]

    await client.history_remove(cent.HistoryRemoveRequest(channel=channel))

    history = await client.history(cent.HistoryRequest(channel=channel, limit=9))
    assert history.publications == []


async def test_idempotency_key(client: cent.AsyncClient, name: str) -> None:
    """A publish repeated with its key is answered alike and sends nothing."""
    request = cent.PublishRequest(channel=f"hist:{name}", data=1, idempotency_key="once")

    first, second = await client.publish(request), await client.publish(request)

    assert (first.offset, first.epoch) == (second.offset, second.epoch)
    history = await client.history(cent.HistoryRequest(channel=f"hist:{name}", limit=-1))
    assert len(history.publications) == 1


async def test_broadcast(client: cent.AsyncClient, name: str) -> None:
    """One call publishes to many channels and tells of each."""
    result = await client.broadcast(
        cent.BroadcastRequest(channels=[f"hist:{name}", "nope:a", name], data={"x": 1})
    )

    first, second, third = result.responses
    assert first.result is not None
    assert first.result.offset == 1
    assert second.error is not None
    assert second.error.code == 102
    assert third.error is None


async def test_presence_and_channels(client: cent.AsyncClient, server: Server, name: str) -> None:
    """Who is in a channel, how many, and which channels there are."""
    channel = f"room:{name}"
    async with raw(server) as socket:
        result = await socket.connect(token=make_token("ann", info={"n": 1}))
        await socket.ask({"id": 2, "subscribe": {"channel": channel}})

        presence = await client.presence(cent.PresenceRequest(channel=channel))
        stats = await client.presence_stats(cent.PresenceStatsRequest(channel=channel))
        channels = await client.channels(cent.ChannelsRequest(pattern=f"room:{name}*"))

    assert set(presence.presence) == {result["client"]}
    assert presence.presence[result["client"]].user == "ann"
    assert presence.presence[result["client"]].conn_info == {"n": 1}
    assert (stats.num_clients, stats.num_users) == (1, 1)
    assert {key: value.num_clients for key, value in channels.channels.items()} == {channel: 1}


async def test_info(client: cent.AsyncClient) -> None:
    """The node says who it is."""
    result = await client.info(cent.InfoRequest())

    (node,) = result.nodes
    assert node.uid
    assert node.name
    assert node.version


async def test_subscribe_unsubscribe_refresh_disconnect(
    client: cent.AsyncClient, server: Server, name: str
) -> None:
    """Every call on a user's connections arrives at them."""
    user, channel = f"user-{name}", f"closed:{name}"
    async with raw(server) as socket:
        await socket.connect(token=make_token(user, lifetime=600))

        await client.subscribe(cent.SubscribeRequest(user=user, channel=channel))
        assert await socket.receive() == {"push": {"channel": channel, "subscribe": {}}}
        await client.unsubscribe(cent.UnsubscribeRequest(user=user, channel=channel))
        assert await socket.receive() == {
            "push": {
                "channel": channel,
                "unsubscribe": {"code": 2000, "reason": "server unsubscribe"},
            }
        }
        expire_at = int(asyncio.get_running_loop().time()) + 4_000_000_000
        await client.refresh(cent.RefreshRequest(user=user, expire_at=expire_at))
        push = await socket.receive()
        assert push["push"]["refresh"]["expires"] is True
        await client.disconnect(
            cent.DisconnectRequest(
                user=user, disconnect=cent.Disconnect(code=4500, reason="enough")
            )
        )

        assert await socket.closed() == (4500, "enough")


async def test_batch(client: cent.AsyncClient, name: str) -> None:
    """Several commands in one request are carried out and answered in order."""
    result = await client.batch(
        cent.BatchRequest(
            requests=[
                cent.PublishRequest(channel=f"hist:{name}", data=1),
                cent.HistoryRequest(channel=f"hist:{name}", limit=1),
            ]
        )
    )

    published, history = result.replies
    assert published.offset == 1
    assert [publication.data for publication in history.publications] == [1]


async def test_errors(client: cent.AsyncClient, server: Server) -> None:
    """An error of the API is raised with its code, a wrong key as unauthorized."""
    with pytest.raises(cent.CentApiResponseError) as refusal:
        await client.publish(cent.PublishRequest(channel="nope:a", data=1))
    assert refusal.value.code == 102

    stranger = cent.AsyncClient(f"{server.url}/api", api_key="wrong", timeout=30)
    try:
        with pytest.raises(cent.CentUnauthorizedError):
            await stranger.publish(cent.PublishRequest(channel="a", data=1))
    finally:
        await stranger.close()
