"""Channels whose cache is empty: the application is told once, whatever the number of those who wait for it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from realtime.protocol.errors import ProxyError


if TYPE_CHECKING:
    from realtime.namespaces.table import Channel
    from realtime.proxies.cache_empty import CacheEmptyBackend, FindCacheEmptyBackend

logger = logging.getLogger(__name__)


class EmptyCaches:
    """
    Asks for publications of channels that have none.

    Attributes:
        find_backend: Says who is told; replaced by who has proxies.

    """

    def __init__(self) -> None:
        self.find_backend: FindCacheEmptyBackend = lambda _name: None
        self._asked: dict[str, asyncio.Task[bool]] = {}

    async def fill(self, channel: Channel) -> bool:
        """
        Tell the application of a channel; say whether it has published.

        Raises:
            ProxyError: It could not be asked, or refused.

        """
        task = self._asked.get(channel.name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._tell(channel))
            self._asked[channel.name] = task
            task.add_done_callback(lambda _: self._asked.pop(channel.name, None))
        # One who goes away must not take the answer from the others.
        return await asyncio.shield(task)

    async def _tell(self, channel: Channel) -> bool:
        try:
            return await self._backend(channel).tell(channel.name)
        except ProxyError as error:
            facts = {"channel": channel.name}
            logger.warning("the application was not told of an empty cache: %s", error, extra=facts)
            raise

    def _backend(self, channel: Channel) -> CacheEmptyBackend:
        name = channel.options.cache_empty_proxy_name
        backend = self.find_backend(name)
        if backend is None:
            message = f"there is no proxy {name!r} for empty caches"
            raise ProxyError(message)
        return backend
