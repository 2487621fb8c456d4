"""
The proxies of the configuration in force, by name.

A proxy whose options are as before stays the same object over a reload, with its connections. One that went or changed
is closed once the calls under way have ended.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from realtime.handlers import Registered, find_handler
from realtime.namespaces.validation import DEFAULT_PROXY
from realtime.protocol.errors import ConfigError
from realtime.proxies.cache_empty import EVENT as CACHE_EMPTY
from realtime.proxies.cache_empty import CacheEmptyBackend, CacheEmptyProxy
from realtime.proxies.event import Caller
from realtime.proxies.figures import ProxyFigures
from realtime.proxies.http_caller import HTTPCaller
from realtime.proxies.proxy import Proxy
from realtime.proxies.python_caller import PREFIX, PythonCaller, RunInThread, resolve
from realtime.proxies.shared_poll import SharedPollBackend
from realtime.proxies.shared_poll_event import EVENT as SHARED_POLL_REFRESH
from realtime.proxies.shared_poll_event import SharedPollProxy


if TYPE_CHECKING:
    from realtime.conf.options import ProxyOptions, TLSOptions

    MakeContext = Callable[[TLSOptions, str], ssl.SSLContext]

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 5.0  # seconds; as long as the node waits for its own tasks

_Key = tuple[str, str]
"""Event and ``default``, or nothing and a name: a named proxy is the same for all events."""


class ProxyRegistry:
    """
    Who is asked.

    Args:
        make_context: Makes the context of a TLS client from its options and their path; raises ``ConfigError``.
        run_in_thread: Runs handlers that are not async.
        figures: What all calls are counted in.

    """

    def __init__(
        self, *, make_context: MakeContext, run_in_thread: RunInThread, figures: ProxyFigures
    ) -> None:
        self._make_context = make_context
        self._run_in_thread = run_in_thread
        self._figures = figures
        self._options: Mapping[_Key, ProxyOptions] = {}
        self._proxies: dict[_Key, Proxy] = {}
        self._handled: dict[_Key, tuple[Registered, Proxy]] = {}
        self._shared_polls: dict[Proxy, SharedPollProxy] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, defaults: Mapping[str, ProxyOptions], named: Mapping[str, ProxyOptions]) -> None:
        """
        Go on with these proxies; call it on the event loop.

        Args:
            defaults: By event; without an endpoint there is none.
            named: By name.

        Raises:
            ConfigError: One can't be made: its certificates are none, its handler can't be imported. Then nothing changes.

        """
        wanted: dict[_Key, ProxyOptions] = {
            (event, DEFAULT_PROXY): options for event, options in defaults.items()
        }
        wanted.update({("", name): options for name, options in named.items()})
        wanted = {key: options for key, options in wanted.items() if options.endpoint}
        proxies = {
            key: self._proxies[key]
            if self._options.get(key) == options
            else self._make(key, options)
            for key, options in wanted.items()
        }
        replaced = [proxy for key, proxy in self._proxies.items() if proxies.get(key) is not proxy]
        self._options, self._proxies = wanted, proxies
        self._retire(replaced)

    def find_shared_poll(self, name: str) -> SharedPollBackend | None:
        """Return who is polled under a proxy name, if anybody is."""
        proxy = self._find(SHARED_POLL_REFRESH.name, name)
        if proxy is None:
            return None
        return self._shared_polls.setdefault(proxy, SharedPollProxy(proxy))

    def find_cache_empty(self, name: str) -> CacheEmptyBackend | None:
        """Return who is told of empty caches under a proxy name, if anybody is."""
        proxy = self._find(CACHE_EMPTY.name, name)
        return None if proxy is None else CacheEmptyProxy(proxy)

    def _find(self, event: str, name: str) -> Proxy | None:
        is_default = name == DEFAULT_PROXY
        proxy = self._proxies.get((event, name) if is_default else ("", name))
        if proxy is not None:
            return proxy
        registered = find_handler(event, name)
        if registered is None:
            return None
        known = self._handled.get((event, name))
        if known is None or known[0] is not registered:
            caller = PythonCaller(registered.handler, self._run_in_thread)
            proxy = Proxy(name, caller, registered.timeout, self._figures)
            known = self._handled[event, name] = (registered, proxy)
        return known[1]

    def _make(self, key: _Key, options: ProxyOptions) -> Proxy:
        event, name = key
        path = f"channel.proxy.{event}" if event else f"proxies[{name}]"
        return Proxy(name, self._caller(path, options), options.timeout, self._figures)

    def _caller(self, path: str, options: ProxyOptions) -> Caller:
        endpoint = options.endpoint
        if endpoint.startswith(PREFIX):
            try:
                return PythonCaller(resolve(endpoint), self._run_in_thread)
            except ConfigError as error:
                raise ConfigError(f"{path}.endpoint: {error}") from error
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"{path}.endpoint: gRPC endpoints come with a later version")
        tls = options.http.tls
        context = self._make_context(tls, f"{path}.http.tls") if tls.enabled else None
        return HTTPCaller(endpoint, options.http.static_headers, context, tls.server_name)

    def _retire(self, proxies: Iterable[Proxy]) -> None:
        for proxy in proxies:
            self._shared_polls.pop(proxy, None)
            task = asyncio.get_running_loop().create_task(proxy.close())
            self._closing.add(task)
            task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a proxy was not closed", exc_info=task.exception())

    async def close(self) -> None:
        """Let go of everything, and of calls that are still under way after some seconds; may be called twice."""
        self._retire(self._proxies.values())
        self._proxies, self._options = {}, {}
        if self._closing:
            _, pending = await asyncio.wait(self._closing, timeout=CLOSE_TIMEOUT)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
