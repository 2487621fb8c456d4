"""
The server API in a process that serves nobody: a shell, a task queue, a command.

Where publications go through Redis such a process runs the engine's scripts itself, over connections of its own. They
are made with the first call, on the loop of one background thread, and kept; a forked child makes its own. Channel
options come from the database, as in a server: read on the first call, and again when their revision has changed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from django.conf import settings

from realtime.backends import Backends, make_backends
from realtime.conf.options import ProcessOptions
from realtime.conf.snapshot import Configuration, load_configuration, read_revision
from realtime.engines.base import (
    History,
    HistoryFilter,
    NobodyListens,
    PresenceManager,
    PublishOptions,
    PublishOutcome,
)
from realtime.engines.maps import MapBroker
from realtime.namespaces.table import Channel, NamespaceTable
from realtime.node.control import ControlCommand, NodeInfo, encode_control
from realtime.node.polls.feeds import KeyPublish, publish_key
from realtime.protocol.errors import EngineError, UnrecoverablePositionError
from realtime.protocol.messages import Publication


T = TypeVar("T")

CHECK_INTERVAL = 1.0  # seconds, as a server's own
CLOSE_TIMEOUT = 5.0  # seconds that the end of a process may wait for its connections


class OutsideNode:
    """
    What commands need of a node (``commands.CommandNode``), without connections of clients.

    Args:
        options: Process options.
        configuration: The rows' snapshot; ``refresh`` replaces it.
        backends: Started, on the loop that everything here is called on.
        sender: In the control messages' envelope.

    """

    def __init__(
        self,
        options: ProcessOptions,
        configuration: Configuration,
        backends: Backends,
        sender: str,
    ) -> None:
        self.options = options
        self.configuration = configuration
        self.backends = backends
        self._sender = sender

    @property
    def table(self) -> NamespaceTable:
        """The channel options in force."""
        return self.configuration.table

    @property
    def presence(self) -> PresenceManager:
        """Who is in which channel."""
        return self.backends.presence

    @property
    def maps(self) -> MapBroker:
        """The maps."""
        return self.backends.maps

    async def publish(
        self, channel: Channel, publication: Publication, options: PublishOptions
    ) -> PublishOutcome:
        """Publish; raises ``EngineError``."""
        return await self.backends.broker.publish(channel.name, publication, options)

    async def publish_polled(self, value: KeyPublish) -> None:
        """Tell all nodes that track a key of a shared poll its value; raises ``EngineError``."""
        await publish_key(self.backends.broker, value)

    async def history(self, channel: Channel, what: HistoryFilter) -> History:
        """Read a stream; raises ``EngineError``, or 112 where ``what.since`` belongs to another epoch."""
        history = await self.backends.broker.history(channel.name, what, channel.history_meta_ttl)
        if what.since is not None and not history.has(what.since):
            raise UnrecoverablePositionError
        return history

    async def remove_history(self, channel: Channel) -> None:
        """Drop a stream's publications; raises ``EngineError``."""
        await self.backends.broker.remove_history(channel.name)

    async def control(self, command: ControlCommand) -> None:
        """Have all nodes carry out a command; raises ``EngineError``."""
        await self.backends.control_bus.publish_control(encode_control(self._sender, command))

    async def survey_channels(self, pattern: str = "") -> Mapping[str, int]:
        """Only a node hears other nodes' answers."""
        raise EngineError(_NO_SURVEYS)

    async def survey_nodes(self) -> Sequence[NodeInfo]:
        """Only a node hears other nodes' announcements."""
        raise EngineError(_NO_SURVEYS)


_NO_SURVEYS = "only a server knows the other servers: set REALTIME['API_URL'] to one"


class Outside:
    """One process's way to Redis: a thread with a loop, and the connections on it."""

    def __init__(self, options: ProcessOptions) -> None:
        self.pid = os.getpid()
        self._options = options
        self._configuration = load_configuration(options)
        self._checked_at = time.monotonic()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="realtime-outside", daemon=True)
        self._thread.start()
        self._node = self.submit(self._make_node()).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _make_node(self) -> OutsideNode:
        layers = getattr(settings, "CHANNEL_LAYERS", {})
        # Without an id: it listens to no control messages and has nobody in presence.
        backends = await make_backends(self._options, layers, node_id="")
        await backends.start()
        await backends.broker.start(NobodyListens())
        await backends.maps.start(NobodyListens())
        return OutsideNode(self._options, self._configuration, backends, str(uuid.uuid4()))

    def submit(self, work: Awaitable[T]) -> Future[T]:
        """Run something on the loop."""

        async def run() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def call(self, command: Callable[[OutsideNode], Awaitable[T]]) -> Future[T]:
        """
        Run a command; call from a thread that may use the database.

        Raises:
            ConfigError: The rows changed and do not validate.

        """
        self._refresh()
        return self.submit(command(self._node))

    def _refresh(self) -> None:
        """Read the channel options anew if they changed, at most once a second."""
        with self._lock:
            if time.monotonic() - self._checked_at < CHECK_INTERVAL:
                return
            if read_revision() != self._node.configuration.revision:
                self._node.configuration = load_configuration(self._options)
            self._checked_at = time.monotonic()

    def close(self) -> None:
        """Disconnect; in a forked child there is nothing of it."""
        if self.pid != os.getpid() or not self._thread.is_alive():
            return

        async def close() -> None:
            await self._node.backends.maps.close()
            await self._node.backends.broker.close()
            await self._node.backends.close()

        with contextlib.suppress(Exception):  # the process ends whatever Redis does
            self.submit(close()).result(CLOSE_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT)
        self._loop.close()


_outside: Outside | None = None
_making = threading.Lock()


def get_outside(options: ProcessOptions) -> Outside:
    """Return this process's, made with the first call; raises ``ConfigError``."""
    global _outside
    with _making:
        if _outside is None or _outside.pid != os.getpid():
            _outside = Outside(options)
            atexit.register(_outside.close)
        return _outside


def close_outside() -> None:
    """Disconnect; the next call connects anew."""
    global _outside
    with _making:
        outside, _outside = _outside, None
    if outside is not None:
        atexit.unregister(outside.close)
        outside.close()


def run_command(
    options: ProcessOptions, command: Callable[[Any, Any], Awaitable[T]], request: Any
) -> Future[T]:
    """Run one of ``realtime.commands`` over Redis; raises ``ConfigError``."""
    return get_outside(options).call(lambda node: command(node, request))
