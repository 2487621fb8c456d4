"""
Two kinds of connection to one Redis, each reconnecting by itself for ever.

``CommandConnection`` is multiplexed; ``SubscriptionConnection`` hands messages over as they are read. Both know nothing of
keys. Nothing waits for a Redis that is away: what needs a connection raises ``EngineError`` at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from realtime.engines.base import Answer
from realtime.engines.prompt import PromptFuture
from realtime.engines.redis.addresses import Endpoint
from realtime.engines.redis.link import (
    GONE,
    MAX_PENDING,
    Link,
    RedisError,
    SubscriptionLink,
    UnsupportedServerError,
    check_server,
    gone,
    greet,
    open_link,
    pack,
    run_id,
)
from realtime.protocol.errors import ConfigError, EngineError


__all__ = [
    "AWAY",
    "CommandConnection",
    "FixedResolver",
    "RedisError",
    "Resolver",
    "SubscriptionConnection",
    "UnsupportedServerError",
]

logger = logging.getLogger(__name__)

FIRST_RETRY = 0.25  # seconds, the reference's
LAST_RETRY = 2.0  # what a node may add to an outage
RESUBSCRIBE_BATCH = 512  # names per command, the reference's
RESUBSCRIBE_RATE = 20_000  # names a second that a Redis must manage; it does ten times as many
PROBE_AFTER = 5.0  # seconds of silence on a subscription before it is asked for a sign of life

AWAY = "no connection to Redis"


class Resolver(Protocol):
    """Where a connection goes."""

    async def resolve(self) -> Endpoint:
        """Say where to connect now; called before each attempt. Raises ``OSError`` or ``EngineError``."""


class FixedResolver:
    """An address that stays."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def resolve(self) -> Endpoint:
        """Return it."""
        return self._endpoint


# --- what both kinds have in common ---------------------------------------------------------------


class _Connection:
    """What both kinds have in common: connect, greet, watch, and connect again."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        connect_timeout: float,
        io_timeout: float,
        force_resp2: bool,
        is_in_cluster: bool,
    ) -> None:
        self._resolver = resolver
        self._connect_timeout = connect_timeout
        self._io_timeout = io_timeout
        self._force_resp2 = force_resp2
        self._is_in_cluster = is_in_cluster
        self._task: asyncio.Task[None] | None = None
        self._socket: Link | None = None
        self._retry = asyncio.Event()
        self._label = ""
        self.server: dict[str, Any] = {}
        self.failure: Exception | None = None

    async def start(self) -> None:
        """
        Begin to connect, and return with the first attempt's outcome, whichever it is.

        Raises:
            UnsupportedServerError: The server was reached and can't be used.

        """
        if self._task is not None:
            return
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._keep_connected(first))
        await first
        if isinstance(self.failure, UnsupportedServerError):
            failure = self.failure
            await self.close()
            raise failure

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.reset()

    def reset(self) -> None:
        """Drop the socket and connect anew at once, to where the resolver says then."""
        self._retry.set()
        if self._socket is not None:
            self._socket.abort()

    def hurry(self) -> None:
        """Make the next attempt at once, if there is one to make."""
        if self._socket is None or self._socket.lost.done():
            self._retry.set()

    async def _keep_connected(self, first: asyncio.Future[None]) -> None:
        delay = FIRST_RETRY
        while True:
            link: Link | None = None
            try:
                link = await self._connect()
                self._report_success()
                delay = FIRST_RETRY
                if not first.done():
                    first.set_result(None)
                await self._watch(link)
                self._report_failure(EngineError(GONE))
            except (OSError, EngineError, ConfigError, TimeoutError) as error:
                self._report_failure(error)
            finally:
                if link is not None:
                    link.abort()
                if not first.done():
                    first.set_result(None)
            with contextlib.suppress(TimeoutError):
                # Not all nodes at once; no secret.
                async with asyncio.timeout(delay * random.uniform(0.8, 1.2)):  # noqa: S311
                    await self._retry.wait()
            self._retry.clear()
            delay = min(delay * 2, LAST_RETRY)

    async def _connect(self) -> Link:
        endpoint = await self._resolver.resolve()
        self._label = endpoint.label
        async with asyncio.timeout(self._connect_timeout):
            link = await open_link(endpoint, self._make_link)
        self._socket = link
        try:
            async with asyncio.timeout(self._io_timeout):
                self.server = await greet(link, endpoint, force_resp2=self._force_resp2)
                check_server(self.server, endpoint, is_in_cluster=self._is_in_cluster)
            await self._use(link)
        except BaseException:
            link.abort()
            raise
        return link

    def _make_link(self) -> Link:
        return Link(self)

    async def _use(self, link: Link) -> None:
        """Put a greeted link to its use."""
        raise NotImplementedError

    def on_link_lost(self, link: Link, cause: Exception | None) -> None:
        """Stop using a link; called when its socket is gone."""
        raise NotImplementedError

    async def _watch(self, link: Link) -> None:
        """Return when the link is gone; end one that does not answer."""
        interval = min(self._io_timeout / 8, 0.5)
        loop = asyncio.get_running_loop()
        while not link.lost.done():
            await asyncio.wait((link.lost,), timeout=interval)
            if not link.lost.done() and self._is_stuck(link, loop.time()):
                logger.warning("Redis does not answer", extra={"redis": self._label})
                link.abort()

    def _is_stuck(self, link: Link, now: float) -> bool:
        return link.is_overdue(now, self._io_timeout)

    def _report_failure(self, error: Exception) -> None:
        # Once per outage: the attempts go on several times a second.
        if self.failure is None or isinstance(error, UnsupportedServerError):
            text = str(error) or type(error).__name__
            facts = {"redis": self._label, "error": text}
            logger.error("Redis is away (%s), trying again", text, extra=facts)
        self.failure = error

    def _report_success(self) -> None:
        if self.failure is not None:
            logger.info("Redis is back", extra={"redis": self._label})
        self.failure = None


# --- commands ---------------------------------------------------------------------------------------


class CommandConnection(_Connection):
    """
    Commands to one Redis, multiplexed.

    Args:
        resolver: Where to connect; asked before each attempt.
        connect_timeout: Of one attempt, in seconds.
        io_timeout: Of one answer, in seconds.
        force_resp2: Do not try RESP3.
        is_in_cluster: Whether the server may be one of a cluster, where channels have other names.
        on_connected: Called with each new connection.

    Attributes:
        run_id: Of the server that the last connection led to; empty where it can't say.

    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        connect_timeout: float = 1.0,
        io_timeout: float = 4.0,
        force_resp2: bool = False,
        is_in_cluster: bool = False,
        on_connected: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            resolver,
            connect_timeout=connect_timeout,
            io_timeout=io_timeout,
            force_resp2=force_resp2,
            is_in_cluster=is_in_cluster,
        )
        self._on_connected = on_connected
        self._link: Link | None = None
        self.run_id = b""

    @property
    def is_connected(self) -> bool:
        """Whether commands can be sent."""
        return self._link is not None

    @property
    def is_busy(self) -> bool:
        """Whether so many commands wait that one should wait its turn that can."""
        return self._link is not None and self._link.is_busy

    def call(self, *args: bytes | str | float) -> asyncio.Future[Any]:
        """
        Send a command.

        Returns:
            Its reply; fails with ``RedisError`` where Redis refuses it, and ``EngineError`` when the answer is overdue
            or the connection is lost: then nobody knows whether it was carried out.

        Raises:
            EngineError: There is no connection, or too much is waiting.

        """
        link = self._link
        if link is None:
            raise EngineError(AWAY) from self.failure
        return link.call(*args)

    def send(self, answer: Answer, *args: bytes | str | float) -> None:
        """Do as ``call``, and tell ``answer`` what that would return."""
        link = self._link
        if link is None:
            raise EngineError(AWAY) from self.failure
        link.send(answer, args)

    async def _use(self, link: Link) -> None:
        async with asyncio.timeout(self._io_timeout):
            self.run_id = await run_id(link)
        if link.lost.done():
            raise EngineError(GONE)
        self._link = link
        if self._on_connected is not None:
            self._on_connected()

    def on_link_lost(self, link: Link, cause: Exception | None) -> None:
        """Refuse commands until there is another."""
        if link is self._link:
            self._link = None

    def reset(self) -> None:
        """Drop the socket and connect anew, to where the resolver says then."""
        self._link = None
        super().reset()


# --- subscriptions ----------------------------------------------------------------------------------


class _Batch:
    """One command and the names that Redis has yet to confirm."""

    __slots__ = ("error", "is_over", "kind", "names", "waiters")

    def __init__(self, kind: bytes, names: Iterable[bytes]) -> None:
        self.kind = kind
        self.names = set(names)
        self.waiters: list[PromptFuture[None]] = []
        self.is_over = False
        self.error: Exception | None = None

    async def confirmed(self) -> None:
        """Return when Redis has confirmed all names; raises ``EngineError``."""
        if not self.is_over:
            # Each has its own: who gives up must not take it from the others, and a shield for that would cost 4 µs.
            waiter: PromptFuture[None] = PromptFuture(loop=asyncio.get_running_loop())
            self.waiters.append(waiter)
            await waiter
        elif self.error is not None:
            raise self.error

    def end(self, error: Exception | None = None) -> None:
        """Tell those who wait."""
        self.is_over, self.error = True, error
        for waiter in self.waiters:
            if error is None:
                waiter.settle(None)
            else:
                waiter.fail(error)


class SubscriptionConnection(_Connection):
    """
    PUB/SUB of one Redis.

    Args:
        resolver: Where to connect; asked before each attempt.
        on_message: Called with name and payload, from the read itself.
        on_lost: Called when messages may be missed from now on.
        on_restored: Called when all names are subscribed again.
        is_sharded: Use sharded PUB/SUB.
        on_dropped: Called with a name that Redis took away (its slot moved); it is not wanted any more then.
        connect_timeout: Of one attempt, in seconds.
        io_timeout: Of one answer, in seconds.
        force_resp2: Do not try RESP3.
        is_in_cluster: Whether the server may be one of a cluster, where channels have other names.

    """

    def __init__(
        self,
        resolver: Resolver,
        on_message: Callable[[bytes, bytes], None],
        *,
        on_lost: Callable[[], None],
        on_restored: Callable[[], None],
        is_sharded: bool = False,
        on_dropped: Callable[[bytes], None] | None = None,
        connect_timeout: float = 1.0,
        io_timeout: float = 4.0,
        force_resp2: bool = False,
        is_in_cluster: bool = False,
    ) -> None:
        super().__init__(
            resolver,
            connect_timeout=connect_timeout,
            io_timeout=io_timeout,
            force_resp2=force_resp2,
            is_in_cluster=is_in_cluster,
        )
        self.on_message = on_message
        self.message_kind = b"smessage" if is_sharded else b"message"
        self._subscribe_kind = b"ssubscribe" if is_sharded else b"subscribe"
        self._unsubscribe_kind = b"sunsubscribe" if is_sharded else b"unsubscribe"
        # A sharded command's names must be of one slot.
        self._batch_size = 1 if is_sharded else RESUBSCRIBE_BATCH
        self._on_lost = on_lost
        self._on_restored = on_restored
        self._on_dropped = on_dropped
        self._wanted: dict[bytes, None] = {}
        self._joining: dict[bytes, _Batch] = {}
        self._batches: deque[_Batch] = deque()
        self._link: SubscriptionLink | None = None
        self._was_lost = False
        self._is_probing = False

    @property
    def is_connected(self) -> bool:
        """Whether all wanted names are subscribed."""
        return self._link is not None

    def want(self, names: Iterable[bytes]) -> None:
        """Subscribe names with the next connection, and with each after it; call before ``start``."""
        self._wanted.update(dict.fromkeys(names))

    async def subscribe(self, name: bytes) -> None:
        """
        Return when Redis has confirmed.

        Raises:
            EngineError: There is no connection, or it was lost meanwhile; the name is then not subscribed.

        """
        if name in self._wanted and self._link is not None:
            return
        batch = self._joining.get(name)
        if batch is None:
            batch = self._joining[name] = self._ask(self._subscribe_kind, (name,))
        await batch.confirmed()

    def keeps(self, name: bytes) -> bool:
        """Say whether a name is subscribed, and will be with each connection to come."""
        return name in self._wanted

    async def unsubscribe(self, name: bytes) -> None:
        """Return when Redis has confirmed; without a connection there is nothing to do."""
        if name not in self._wanted:
            return
        del self._wanted[name]
        if self._link is None:
            return
        await self._ask(self._unsubscribe_kind, (name,)).confirmed()

    def _ask(self, kind: bytes, names: tuple[bytes, ...]) -> _Batch:
        link = self._link
        if link is None:
            raise EngineError(AWAY) from self.failure
        if len(self._batches) >= MAX_PENDING:
            message = f"{len(self._batches)} subscriptions are waiting for Redis already"
            raise EngineError(message)
        return self._ask_on(link, kind, names)

    def _ask_on(self, link: SubscriptionLink, kind: bytes, names: tuple[bytes, ...]) -> _Batch:
        batch = _Batch(kind, names)
        self._batches.append(batch)
        link.ask(pack((kind, *names)))
        return batch

    async def close(self) -> None:
        """Disconnect, without calling that a loss; may be called twice."""
        self._link = None
        await super().close()

    # --- what the link tells -------------------------------------------------------------------------

    def on_confirmed(self, kind: bytes, name: bytes) -> int:
        """Note a confirmation; returns how many commands are answered by it."""
        batch = self._batches[0] if self._batches else None
        if batch is None or batch.kind != kind or name not in batch.names:
            if kind == b"sunsubscribe":
                self._wanted.pop(name, None)
                if self._on_dropped is not None:
                    self._on_dropped(name)
            return 0
        batch.names.discard(name)
        if kind == self._subscribe_kind and self._joining.pop(name, None) is not None:
            self._wanted[name] = None
        if batch.names:
            return 0
        self._batches.popleft()
        batch.end()
        return 1

    def on_refused(self, error: RedisError) -> None:
        """Fail the oldest command."""
        if not self._batches:
            return
        batch = self._batches.popleft()
        for name in batch.names:
            self._joining.pop(name, None)
        batch.end(error)

    def on_link_lost(self, link: Link, cause: Exception | None) -> None:
        """Tell, and fail what waits."""
        self._joining.clear()
        batches, self._batches = self._batches, deque()
        if self._link is not None:
            self._link = None
            self._was_lost = True
            self._on_lost()
        for batch in batches:
            batch.end(gone(cause))

    # --- life of a connection -------------------------------------------------------------------------

    def _make_link(self) -> Link:
        return SubscriptionLink(self)

    async def _use(self, link: Link) -> None:
        assert isinstance(link, SubscriptionLink)
        link.is_greeted = True
        self._is_probing = False
        names = tuple(self._wanted)
        size = self._batch_size
        async with asyncio.timeout(self._io_timeout + len(names) / RESUBSCRIBE_RATE):
            asked = [
                self._ask_on(link, self._subscribe_kind, names[at : at + size])
                for at in range(0, len(names), size)
            ]
            for number, batch in enumerate(asked):
                try:
                    await batch.confirmed()
                except RedisError:
                    if self._on_dropped is None:
                        raise
                    # Its slot moved while nobody listened.
                    self._wanted.pop(names[number], None)
                    self._on_dropped(names[number])
        if link.lost.done():
            raise EngineError(GONE)
        self._link = link
        for name in names:
            # Left while it was being subscribed again.
            if name not in self._wanted:
                self._ask(self._unsubscribe_kind, (name,))
        if self._was_lost:
            self._was_lost = False
            self._on_restored()

    def _is_stuck(self, link: Link, now: float) -> bool:
        assert isinstance(link, SubscriptionLink)
        if link.is_overdue(now, self._io_timeout):
            return True
        silence = now - link.heard_at
        if silence < PROBE_AFTER:
            self._is_probing = False
        elif not self._is_probing:
            self._is_probing = True
            link.probe()
        return silence >= PROBE_AFTER + self._io_timeout
