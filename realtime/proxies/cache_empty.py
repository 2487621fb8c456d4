"""
Telling the application that a channel's cache is empty, which it may fill before it answers.

Source: Centrifugo's cache-empty proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from realtime.handlers import CACHE_EMPTY
from realtime.proxies.event import Event, decode_object
from realtime.proxies.proxy import Proxy


class CacheEmptyRequest(msgspec.Struct, frozen=True, gc=False):
    """Somebody recovers in cache mode, and ``channel`` has no publication."""

    channel: str


class CacheEmptyResult(msgspec.Struct, frozen=True, gc=False):
    """``populated`` says that there is one now."""

    populated: bool = False


class CacheEmptyBackend(Protocol):
    """The application, as it is told. Calls may overlap; each ends within the backend's own timeout."""

    async def tell(self, channel: str) -> bool:
        """Say whether the application has published; raises ``ProxyError``."""


FindCacheEmptyBackend = Callable[[str], CacheEmptyBackend | None]
"""From ``cache_empty_proxy_name`` to who is told; ``None`` where nobody is."""


class _WireResult(msgspec.Struct, frozen=True):
    populated: bool | None = None


def _from_json(text: bytes) -> CacheEmptyResult:
    result = decode_object(_WireResult, text, "the result")
    return CacheEmptyResult(result.populated or False)


def _from_python(value: Any) -> CacheEmptyResult:
    if isinstance(value, bool):
        return CacheEmptyResult(value)
    if isinstance(value, CacheEmptyResult):
        return value
    return msgspec.convert(value, CacheEmptyResult)


EVENT = Event(CACHE_EMPTY, _from_json, _from_python, is_repeatable=True)


class CacheEmptyProxy:
    """A proxy as the node tells it: a ``CacheEmptyBackend``."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def tell(self, channel: str) -> bool:
        """
        Say whether the application has published.

        Raises:
            ProxyError: It could not be asked, or refused.

        """
        answer = await self._proxy.ask(EVENT, CacheEmptyRequest(channel))
        answer.check_accepted()
        return answer.result is not None and answer.result.populated
