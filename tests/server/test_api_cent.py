"""Centrifugo's own client for Python, unchanged, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import cent
import pytest
import pytest_asyncio
import uvicorn
from django.core.handlers.asgi import ASGIHandler

from api.lane import DirectLane, DirectLaneApp
from tests.server.api_world import EPOCH, KEY, make_options, open_world


@pytest_asyncio.fixture
async def url() -> AsyncIterator[str]:
    """Serve a world on a free port of the loopback."""
    options = make_options()
    async with open_world(options) as world:
        lane = DirectLane(lambda: world.node, options.http_api)
        application = DirectLaneApp(ASGIHandler(), lane)
        config = uvicorn.Config(application, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            serving = asyncio.create_task(server._serve([listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            finally:
                server.should_exit = True
                await serving


async def test_cent_works_unchanged(url: str) -> None:
    """Each call that the client has for what we have, and its errors."""
    client = cent.AsyncClient(url, KEY)
    try:
        published = await client.publish(
            cent.PublishRequest(channel="hist:a", data={"a": None}, tags={"k": "v"})
        )
        assert (published.offset, published.epoch) == (1, EPOCH)
        # The client's models let fields through that they don't declare.
        extra = cent.PublishRequest(channel="hist:a", data=1, delta=True, version=3)  # type: ignore[call-arg]
        assert (await client.publish(extra)).offset == 2
        history = await client.history(cent.HistoryRequest(channel="hist:a", limit=-1))
        assert [publication.data for publication in history.publications] == [{"a": None}, 1]
        assert history.publications[0].tags == {"k": "v"}
        broadcast = await client.broadcast(
            cent.BroadcastRequest(channels=["hist:b", "no_such:c"], data="x")
        )
        assert broadcast.responses[0].result is not None
        assert broadcast.responses[1].error is not None
        presence = await client.presence(cent.PresenceRequest(channel="pres:room"))
        assert presence.presence["c1"].conn_info == {"a": 1.0}
        stats = await client.presence_stats(cent.PresenceStatsRequest(channel="pres:room"))
        assert (stats.num_clients, stats.num_users) == (2, 2)
        info = await client.info(cent.InfoRequest())
        assert info.nodes[0].metrics is not None
        assert (await client.channels(cent.ChannelsRequest())).channels == {}
        await client.subscribe(cent.SubscribeRequest(user="u", channel="a"))
        await client.unsubscribe(cent.UnsubscribeRequest(user="u", channel="a"))
        await client.disconnect(cent.DisconnectRequest(user="u"))
        await client.refresh(cent.RefreshRequest(user="u", expired=True))
        await client.history_remove(cent.HistoryRemoveRequest(channel="hist:a"))
        batch = await client.batch(
            cent.BatchRequest(
                requests=[
                    cent.PublishRequest(channel="hist:z", data=1),
                    cent.HistoryRequest(channel="hist:z", limit=1),
                ],
            )
        )
        assert batch.replies[0].offset == 1
        assert [publication.data for publication in batch.replies[1].publications] == [1]
        with pytest.raises(cent.CentApiResponseError) as refused:
            await client.publish(cent.PublishRequest(channel="no_such:a", data=1))
        assert (refused.value.code, refused.value.message) == (102, "unknown channel")
        with pytest.raises(cent.CentApiResponseError) as absent:
            await client.publish(cent.PublishRequest(channel="a", data=None))
        assert absent.value.code == 107
    finally:
        await client.close()


async def test_cent_s_own_errors(url: str) -> None:
    """A wrong key, and a URL that ends in a slash: the redirect repeats the POST with its headers."""
    stranger = cent.AsyncClient(url, "wrong")
    slash = cent.AsyncClient(f"{url}/", KEY)
    try:
        with pytest.raises(cent.CentUnauthorizedError):
            await stranger.info(cent.InfoRequest())
        assert (await slash.info(cent.InfoRequest())).nodes[0].name == "here"
    finally:
        await stranger.close()
        await slash.close()


async def test_cent_s_synchronous_client(url: str) -> None:
    """The same over another HTTP library."""
    client = cent.Client(url, KEY)
    try:
        request = cent.PublishRequest(channel="hist:a", data=1)
        result = await asyncio.to_thread(client.publish, request)
    finally:
        client.close()

    assert result.offset == 1
