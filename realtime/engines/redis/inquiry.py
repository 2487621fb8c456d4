"""Single questions, each on a connection of its own: what sentinels, seeds and unknown servers are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from realtime.engines.redis.addresses import Endpoint
from realtime.engines.redis.link import Link, greet, open_link


async def call_once(
    endpoint: Endpoint,
    *args: bytes | str | float,
    connect_timeout: float = 1.0,
    io_timeout: float = 4.0,
    force_resp2: bool = False,
) -> Any:
    """
    Send one command and return the reply.

    Raises:
        RedisError: It was refused, or the greeting was.
        EngineError: The connection was lost.
        OSError: There is no connection, or (``TimeoutError``) connecting or answering took too long.

    """
    async with _link_to(endpoint, connect_timeout, io_timeout) as link:
        await greet(link, endpoint, force_resp2=force_resp2)
        return await link.call(*args)


async def greet_once(
    endpoint: Endpoint,
    *,
    connect_timeout: float = 1.0,
    io_timeout: float = 4.0,
    force_resp2: bool = False,
) -> dict[str, Any]:
    """Return what a server says of itself (see ``link.greet``); raises as ``call_once``."""
    async with _link_to(endpoint, connect_timeout, io_timeout) as link:
        return await greet(link, endpoint, force_resp2=force_resp2)


class _Nobody:
    """Whoever asks once hears of a loss by the answer that does not come."""

    def on_link_lost(self, link: Link, cause: Exception | None) -> None:
        """Do nothing."""


@asynccontextmanager
async def _link_to(
    endpoint: Endpoint, connect_timeout: float, io_timeout: float
) -> AsyncIterator[Link]:
    async with asyncio.timeout(connect_timeout):
        link = await open_link(endpoint, lambda: Link(_Nobody()))
    try:
        async with asyncio.timeout(io_timeout):
            yield link
    finally:
        link.abort()
