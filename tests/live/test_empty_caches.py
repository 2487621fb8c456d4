"""A cache that the application fills when the first subscriber comes, with SDKs that were not written here."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import MakeSdk
from tests.live.harness import Server, manage
from tests.live.polled import answering


pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

_numbers = itertools.count()

NAMESPACE = {
    "name": "docs",
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "history_size": 1,
    "history_ttl": "300s",
    "force_recovery": True,
    "force_recovery_mode": "cache",
    "auto_cache_recover": True,
    "cache_empty_proxy_enabled": True,
}


class Author:
    """An application that writes a document when it is told that there is none."""

    def __init__(self) -> None:
        self.publish: Callable[..., Any] | None = None
        self.told: list[str] = []
        self.is_down = False

    def answer(self, request: Any) -> tuple[int, bytes]:
        self.told.append(request["channel"])
        if self.is_down:
            return 503, b"{}"
        assert self.publish is not None
        self.publish(request["channel"], {"text": "written just now"})
        return 200, json.dumps({"result": {"populated": True}}).encode()


@pytest.fixture(scope="module")
def author() -> Author:
    """Give the application that the server tells."""
    return Author()


@pytest.fixture(scope="module")
def server(
    shape: str, author: Author, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Give a server whose ``docs`` are written by the application."""
    folder: Path = tmp_path_factory.mktemp(shape)
    config = folder / "config.json"
    config.write_text(json.dumps({"channel": {"namespaces": [NAMESPACE]}}))
    with answering(author.answer) as url:
        options = {"TIDEWIRE_CHANNEL_PROXY_CACHE_EMPTY_ENDPOINT": url}
        manage(folder / "db.sqlite3", "migrate", "--verbosity", "0", options=options)
        manage(folder / "db.sqlite3", "importconfig", str(config), options=options)
        server = Server(shape, folder, options).start()
        author.publish = server.publish
        yield server
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


@pytest.fixture
def name() -> str:
    """Give a name that no other test uses: servers are shared."""
    return f"n{next(_numbers)}"


async def test_the_first_subscribers_get_what_is_written_for_them(
    server: Server, author: Author, make_sdk: MakeSdk, name: str
) -> None:
    """And those who come later what is there; nobody is told of that."""
    channel = f"docs:{name}"
    first = [await make_sdk(server) for _ in range(3)]
    for sdk in first:
        await sdk.connect()
    await asyncio.gather(*(sdk.subscribe(channel) for sdk in first))

    for sdk in first:
        publication = await sdk.wait("publication", channel=channel)
        assert publication["data"] == {"text": "written just now"}
    assert 1 <= author.told.count(channel) <= len(first)

    before = author.told.count(channel)
    late = await make_sdk(server)
    await late.connect()
    await late.subscribe(channel)
    assert (await late.wait("publication", channel=channel))["offset"] == author.told.count(channel)
    assert author.told.count(channel) == before


async def test_a_subscriber_waits_for_an_application_that_comes_back(
    server: Server, author: Author, make_sdk: MakeSdk, name: str
) -> None:
    """The subscribe fails with an error that is temporary, so the SDK tries again."""
    channel = f"docs:{name}"
    author.is_down = True
    sdk = await make_sdk(server)
    await sdk.connect()
    await sdk.do("subscribe", channel=channel)
    await sdk.wait("subscription_error", channel=channel)
    assert channel in author.told

    author.is_down = False

    await sdk.wait("subscribed", channel=channel)
    assert (await sdk.wait("publication", channel=channel))["data"] == {"text": "written just now"}
