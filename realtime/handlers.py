"""
What the application registers to be asked in this process: handlers, by event and proxy name.

``@realtime.on_shared_poll_refresh`` stands in an app's ``realtime.py``, which is loaded when Django starts. A handler is
the endpoint of the proxy that it is registered for; a proxy that is configured under this name takes precedence.

Plain Python without Django: the room is below both the configuration, which has to know which proxies there are, and
``realtime.proxies``, which asks them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from realtime.namespaces.names import is_namespace_name
from realtime.namespaces.validation import DEFAULT_PROXY


Handler = Callable[[Any], Any]
"""Gets the event's request and returns its result, or a coroutine for it."""

HandlerT = TypeVar("HandlerT", bound=Handler)

DEFAULT_TIMEOUT = 1.0  # seconds, as that of a proxy
SHARED_POLL_REFRESH = "shared_poll_refresh"
CACHE_EMPTY = "cache_empty"
EVENTS = (SHARED_POLL_REFRESH, CACHE_EMPTY)
"""Events that the application is asked about in this release."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A handler and how many seconds it may take."""

    handler: Handler
    timeout: float


_handlers: dict[tuple[str, str], Registered] = {}


def find_handler(event: str, name: str) -> Registered | None:
    """Return what is registered for an event under a proxy name."""
    return _handlers.get((event, name))


def handler_names(event: str) -> frozenset[str]:
    """Return the proxy names that an event has handlers for."""
    return frozenset(name for kind, name in _handlers if kind == event)


def register_handler(
    event: str, name: str, handler: Handler, timeout: float = DEFAULT_TIMEOUT
) -> None:
    """
    Have a handler asked.

    Raises:
        ValueError: The name is none or taken, or the timeout is not positive.

    """
    if not is_namespace_name(name):
        raise ValueError(
            f"a proxy's name is two or more of ASCII letters, digits, '-', '_' and '.', got {name!r}"
        )
    if timeout <= 0:
        raise ValueError(f"expected a timeout above 0 seconds, got {timeout!r}")
    if (event, name) in _handlers:
        raise ValueError(f"there is a handler of {event} for the proxy {name!r} already")
    _handlers[event, name] = Registered(handler, timeout)


def unregister_handler(event: str, name: str) -> None:
    """Take a handler away; an unknown one is no error."""
    _handlers.pop((event, name), None)


@overload
def on_shared_poll_refresh(handler: HandlerT, /) -> HandlerT: ...


@overload
def on_shared_poll_refresh(
    name: str = DEFAULT_PROXY, /, *, timeout: float = DEFAULT_TIMEOUT
) -> Callable[[HandlerT], HandlerT]: ...


def on_shared_poll_refresh(
    name: str | HandlerT = DEFAULT_PROXY, /, *, timeout: float = DEFAULT_TIMEOUT
) -> HandlerT | Callable[[HandlerT], HandlerT]:
    """
    Register who is asked for the values of polled keys.

    The handler gets a ``SharedPollRefreshRequest`` (``channel`` and ``items``, each with ``key`` and ``version``) and returns
    a ``SharedPollRefreshResult``, the same as a dict, a list of items, or ``None`` for nothing new. An item is a
    ``PolledItem`` or a dict; its ``data`` is any JSON-serialisable value, or ``bytes``, which are JSON text already. A
    function that is not async runs in a thread.

    Args:
        name: Of the proxy, which is what a namespace has in ``shared_poll.proxy_name``. Without parentheses, and
            without a name, it is ``default``.
        timeout: How many seconds an answer may take.

    Raises:
        ValueError: The name is none or taken, or the timeout is not positive.

    """
    return _decorator(SHARED_POLL_REFRESH, name, timeout)


@overload
def on_cache_empty(handler: HandlerT, /) -> HandlerT: ...


@overload
def on_cache_empty(
    name: str = DEFAULT_PROXY, /, *, timeout: float = DEFAULT_TIMEOUT
) -> Callable[[HandlerT], HandlerT]: ...


def on_cache_empty(
    name: str | HandlerT = DEFAULT_PROXY, /, *, timeout: float = DEFAULT_TIMEOUT
) -> HandlerT | Callable[[HandlerT], HandlerT]:
    """
    Register who is told that somebody recovers in cache mode and there is no publication.

    The handler gets a ``CacheEmptyRequest`` (``channel``), may publish into the channel, and returns whether it did: a bool, a
    ``CacheEmptyResult``, the same as a dict, or ``None`` for no. A function that is not async runs in a thread.

    Args:
        name: Of the proxy, which is what a namespace has in ``cache_empty_proxy_name``. Without parentheses, and
            without a name, it is ``default``.
        timeout: How many seconds an answer may take; the subscriber waits for it.

    Raises:
        ValueError: The name is none or taken, or the timeout is not positive.

    """
    return _decorator(CACHE_EMPTY, name, timeout)


def _decorator(
    event: str, name: str | HandlerT, timeout: float
) -> HandlerT | Callable[[HandlerT], HandlerT]:
    if not isinstance(name, str):
        register_handler(event, DEFAULT_PROXY, name)
        return name

    def register(handler: HandlerT) -> HandlerT:
        register_handler(event, name, handler, timeout)
        return handler

    return register
