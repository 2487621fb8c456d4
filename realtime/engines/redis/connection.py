"""
Two kinds of connection to one Redis, each reconnecting by itself for ever.

``CommandConnection`` is multiplexed: commands of one tick leave in one write and replies come back in order.
``SubscriptionConnection`` hands messages over in ``data_received``, without a queue or a task between. Both read with
hiredis, know nothing of keys, and end a connection on which an answer is overdue: on a connection that answers in
order everything behind that answer is overdue, too.

Nothing waits for a Redis that is away: what needs a connection raises ``EngineError`` at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from hiredis import Reader, ReplyError, pack_command

from realtime.engines.redis.addresses import Endpoint
from realtime.protocol.errors import ConfigError, EngineError


logger = logging.getLogger(__name__)

FIRST_RETRY = 0.25  # seconds, the reference's
LAST_RETRY = 2.0  # what a node may add to an outage
MAX_PENDING = (
    1 << 15
)  # commands; beyond it Redis is seconds behind, and the caller should hear of it
MAX_UNSENT = 16 << 20  # bytes
RESUBSCRIBE_BATCH = 512  # names per command, the reference's
RESUBSCRIBE_RATE = 20_000  # names a second that a Redis must manage; it does ten times as many
PROBE_AFTER = 5.0  # seconds of silence on a subscription before it is asked for a sign of life
MINIMUM_VERSION = (6, 2)

_NOTHING: Any = object()
_GONE = "the connection to Redis is gone"
_AWAY = "no connection to Redis"


class RedisError(EngineError):
    """
    Redis refused a command.

    Attributes:
        code: Its first word, such as ``NOSCRIPT`` or ``MOVED``.

    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class UnsupportedServerError(ConfigError):
    """The server lacks what the engine needs."""


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


# --- one socket -------------------------------------------------------------------------------------


class _Link(asyncio.Protocol):
    """
    One socket, from connect to loss; commands in, replies out in order.

    Attributes:
        lost: Done when the socket is gone.

    """

    def __init__(self, owner: _Connection) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(notEnoughData=_NOTHING)
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._is_full = False
        self._sent = 0
        self._received = 0
        # (commands sent by then, loop time): the oldest mark says how long an answer is overdue.
        self._marks: deque[tuple[int, float]] = deque()
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT)
        _keep_alive(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)
        pending, self._pending = self._pending, deque()
        for future in pending:
            if not future.done():
                future.set_exception(_gone(exc))
        self._owner.on_link_lost(self, exc)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def data_received(self, data: bytes) -> None:
        reader, pending = self._reader, self._pending
        reader.feed(data)
        gets, take = reader.gets, pending.popleft
        count = 0
        while (reply := gets()) is not _NOTHING:
            count += 1
            future = take()
            if future.done():
                continue  # whoever waited was cancelled
            if isinstance(reply, ReplyError):
                future.set_exception(RedisError(str(reply)))
            else:
                future.set_result(reply)
        self._received += count

    def call(self, packed: bytes) -> asyncio.Future[Any]:
        """Send a command with the others of this tick; raises ``EngineError`` when too much is waiting."""
        pending = self._pending
        if self._is_full or len(pending) >= MAX_PENDING:
            message = f"{len(pending)} commands are waiting for Redis already"
            raise EngineError(message)
        future = self._loop.create_future()
        pending.append(future)
        self._send(packed)
        self._sent += 1
        return future

    def _send(self, packed: bytes) -> None:
        out = self._out
        if not out:
            self._loop.call_soon(self._flush)
        out.append(packed)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def is_overdue(self, now: float, limit: float) -> bool:
        """Say whether an answer is overdue; called several times within ``limit`` seconds."""
        marks = self._marks
        while marks and marks[0][0] <= self._received:
            marks.popleft()
        if marks and now - marks[0][1] >= limit:
            return True
        if self._sent > self._received:
            marks.append((self._sent, now))
        return False

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _gone(cause: Exception | None) -> EngineError:
    error = EngineError(_GONE)
    error.__cause__ = cause
    return error


def _keep_alive(sock: socket.socket | None) -> None:
    """Have the kernel notice a peer that vanished; an answer that is overdue is noticed earlier."""
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _SubscriptionLink(_Link):
    """A socket that carries PUB/SUB messages once it is greeted."""

    _owner: SubscriptionConnection

    def __init__(self, owner: SubscriptionConnection) -> None:
        super().__init__(owner)
        self.is_greeted = False
        self.heard_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if not self.is_greeted:
            super().data_received(data)
            return
        self.heard_at = self._loop.time()
        reader, owner = self._reader, self._owner
        reader.feed(data)
        gets, kind, tell = reader.gets, owner.message_kind, owner.on_message
        while (reply := gets()) is not _NOTHING:
            if isinstance(reply, list) and reply[0] == kind:
                try:
                    tell(reply[1], reply[2])
                except Exception:
                    # One message that can't be handled must not end what all channels come by.
                    logger.exception("a message from Redis was not handled")
            else:
                self._on_other(reply)

    def _on_other(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            self._received += 1
            self._owner.on_refused(RedisError(str(reply)))
        elif isinstance(reply, list) and reply[0] in _CONFIRMATIONS:
            self._received += self._owner.on_confirmed(reply[0], reply[1])
        # What is left is the answer to a PING, whose form depends on the protocol.

    def ask(self, packed: bytes) -> None:
        """Send a command whose confirmation the owner waits for."""
        self._send(packed)
        self._sent += 1

    def probe(self) -> None:
        """Ask for a sign of life."""
        self._send(_PING)


_CONFIRMATIONS = frozenset((b"subscribe", b"ssubscribe", b"unsubscribe", b"sunsubscribe"))
_PING = pack_command(("PING",))


# --- connecting -------------------------------------------------------------------------------------


async def _greet(link: _Link, endpoint: Endpoint, *, force_resp2: bool) -> dict[str, Any]:
    """
    Authenticate and choose protocol and database.

    Returns:
        What the server says of itself (``HELLO``), empty where it can't.

    """
    server: dict[str, Any] = {}
    if not force_resp2:
        command: list[str] = ["HELLO", "3"]
        if endpoint.password:
            command += ["AUTH", endpoint.username or "default", endpoint.password]
        if endpoint.client_name:
            command += ["SETNAME", endpoint.client_name]
        try:
            server = _texts(await link.call(pack_command(tuple(command))))
        except RedisError as error:
            # A server or a proxy of before RESP3; a refusal of the credentials is final.
            if error.code not in ("ERR", "NOPROTO"):
                raise
    if not server:
        server = await _greet_resp2(link, endpoint)
    if endpoint.db:
        await link.call(pack_command(("SELECT", endpoint.db)))
    return server


async def _greet_resp2(link: _Link, endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.password:
        names = (endpoint.username,) if endpoint.username else ()
        await link.call(pack_command(("AUTH", *names, endpoint.password)))
    if endpoint.client_name:
        await link.call(pack_command(("CLIENT", "SETNAME", endpoint.client_name)))
    try:
        text = await link.call(pack_command(("INFO", "server")))
    except RedisError:
        return {}  # some hosted offerings have no INFO: go on without knowing
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    facts = {name: value for name, _, value in lines}
    return {
        "version": facts.get("redis_version", ""),
        "mode": facts.get("redis_mode", ""),
    }


def _texts(reply: Any) -> dict[str, Any]:
    """Read the reply to ``HELLO``, which is a map or, by some servers, a flat list."""
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=False))
    return {
        key.decode(): value.decode(errors="replace") if isinstance(value, bytes) else value
        for key, value in reply.items()
    }


def _check_version(server: dict[str, Any], endpoint: Endpoint) -> None:
    numbers = str(server.get("version", "")).split(".")
    if not all(number.isdigit() for number in numbers[:2]):
        return
    version = tuple(int(number) for number in numbers[:2])
    if version < MINIMUM_VERSION:
        message = f"Redis at {endpoint.label} is {server['version']}, expected 6.2 or newer"
        raise UnsupportedServerError(message)


class _Connection:
    """What both kinds have in common: connect, greet, watch, and connect again."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        connect_timeout: float,
        io_timeout: float,
        force_resp2: bool,
    ) -> None:
        self._resolver = resolver
        self._connect_timeout = connect_timeout
        self._io_timeout = io_timeout
        self._force_resp2 = force_resp2
        self._task: asyncio.Task[None] | None = None
        self._socket: _Link | None = None
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
        """Drop the socket and connect anew, to where the resolver says then."""
        if self._socket is not None:
            self._socket.abort()

    async def _keep_connected(self, first: asyncio.Future[None]) -> None:
        delay = FIRST_RETRY
        while True:
            link: _Link | None = None
            try:
                link = await self._connect()
                self._report_success()
                delay = FIRST_RETRY
                if not first.done():
                    first.set_result(None)
                await self._watch(link)
                self._report_failure(EngineError(_GONE))
            except (OSError, EngineError, ConfigError, TimeoutError) as error:
                self._report_failure(error)
            finally:
                if link is not None:
                    link.abort()
                if not first.done():
                    first.set_result(None)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 -- spreads nodes, no secret
            delay = min(delay * 2, LAST_RETRY)

    async def _connect(self) -> _Link:
        endpoint = await self._resolver.resolve()
        async with asyncio.timeout(self._connect_timeout):
            link = await self._open(endpoint)
        self._socket = link
        try:
            async with asyncio.timeout(self._io_timeout):
                self.server = await _greet(link, endpoint, force_resp2=self._force_resp2)
                _check_version(self.server, endpoint)
            await self._use(link)
        except BaseException:
            link.abort()
            raise
        return link

    async def _open(self, endpoint: Endpoint) -> _Link:
        loop = asyncio.get_running_loop()
        if endpoint.path:
            _, link = await loop.create_unix_connection(
                self._make_link, endpoint.path, ssl=endpoint.ssl_context
            )
        else:
            _, link = await loop.create_connection(
                self._make_link,
                endpoint.host,
                endpoint.port,
                ssl=endpoint.ssl_context,
                server_hostname=(endpoint.server_name or endpoint.host)
                if endpoint.ssl_context
                else None,
            )
        self._label = endpoint.label
        return link

    def _make_link(self) -> _Link:
        return _Link(self)

    async def _use(self, link: _Link) -> None:
        """Put a greeted link to its use."""
        raise NotImplementedError

    def on_link_lost(self, link: _Link, cause: Exception | None) -> None:
        """Stop using a link; called when its socket is gone."""
        raise NotImplementedError

    async def _watch(self, link: _Link) -> None:
        """Return when the link is gone; end one that does not answer."""
        interval = min(self._io_timeout / 8, 0.5)
        loop = asyncio.get_running_loop()
        while not link.lost.done():
            await asyncio.wait((link.lost,), timeout=interval)
            if not link.lost.done() and self._is_stuck(link, loop.time()):
                logger.warning("Redis does not answer", extra={"redis": self._label})
                link.abort()

    def _is_stuck(self, link: _Link, now: float) -> bool:
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
        on_connected: Called with each new connection.

    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        connect_timeout: float = 1.0,
        io_timeout: float = 4.0,
        force_resp2: bool = False,
        on_connected: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            resolver,
            connect_timeout=connect_timeout,
            io_timeout=io_timeout,
            force_resp2=force_resp2,
        )
        self._on_connected = on_connected
        self._link: _Link | None = None

    @property
    def is_connected(self) -> bool:
        """Whether commands can be sent."""
        return self._link is not None

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
            raise EngineError(_AWAY) from self.failure
        return link.call(pack_command(args))

    async def _use(self, link: _Link) -> None:
        if link.lost.done():
            raise EngineError(_GONE)
        self._link = link
        if self._on_connected is not None:
            self._on_connected()

    def on_link_lost(self, link: _Link, cause: Exception | None) -> None:
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

    __slots__ = ("future", "kind", "names")

    def __init__(self, kind: bytes, names: Iterable[bytes], future: asyncio.Future[None]) -> None:
        self.kind = kind
        self.names = set(names)
        self.future = future


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
    ) -> None:
        super().__init__(
            resolver,
            connect_timeout=connect_timeout,
            io_timeout=io_timeout,
            force_resp2=force_resp2,
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
        self._joining: dict[bytes, asyncio.Future[None]] = {}
        self._batches: deque[_Batch] = deque()
        self._link: _SubscriptionLink | None = None
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
        waiter = self._joining.get(name)
        if waiter is None:
            waiter = self._joining[name] = self._ask(self._subscribe_kind, (name,))
        await asyncio.shield(waiter)

    async def unsubscribe(self, name: bytes) -> None:
        """Return when Redis has confirmed; without a connection there is nothing to do."""
        if self._wanted.pop(name, _NOTHING) is _NOTHING or self._link is None:
            return
        await self._ask(self._unsubscribe_kind, (name,))

    def _ask(self, kind: bytes, names: tuple[bytes, ...]) -> asyncio.Future[None]:
        link = self._link
        if link is None:
            raise EngineError(_AWAY) from self.failure
        if len(self._batches) >= MAX_PENDING:
            message = f"{len(self._batches)} subscriptions are waiting for Redis already"
            raise EngineError(message)
        return self._ask_on(link, kind, names)

    def _ask_on(
        self, link: _SubscriptionLink, kind: bytes, names: tuple[bytes, ...]
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve)
        self._batches.append(_Batch(kind, names, future))
        link.ask(pack_command((kind, *names)))
        return future

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
        if not batch.future.done():
            batch.future.set_result(None)
        return 1

    def on_refused(self, error: RedisError) -> None:
        """Fail the oldest command."""
        if not self._batches:
            return
        batch = self._batches.popleft()
        for name in batch.names:
            self._joining.pop(name, None)
        if not batch.future.done():
            batch.future.set_exception(error)

    def on_link_lost(self, link: _Link, cause: Exception | None) -> None:
        """Fail what waits, and tell."""
        self._joining.clear()
        batches, self._batches = self._batches, deque()
        for batch in batches:
            if not batch.future.done():
                batch.future.set_exception(_gone(cause))
        if self._link is not None:
            self._link = None
            self._was_lost = True
            self._on_lost()

    # --- life of a connection -------------------------------------------------------------------------

    def _make_link(self) -> _Link:
        return _SubscriptionLink(self)

    async def _use(self, link: _Link) -> None:
        assert isinstance(link, _SubscriptionLink)
        link.is_greeted = True
        self._is_probing = False
        names = tuple(self._wanted)
        size = self._batch_size
        async with asyncio.timeout(self._io_timeout + len(names) / RESUBSCRIBE_RATE):
            for future in [
                self._ask_on(link, self._subscribe_kind, names[at : at + size])
                for at in range(0, len(names), size)
            ]:
                await future
        if link.lost.done():
            raise EngineError(_GONE)
        self._link = link
        for name in names:
            # Left while it was being subscribed again.
            if name not in self._wanted:
                self._ask(self._unsubscribe_kind, (name,))
        if self._was_lost:
            self._was_lost = False
            self._on_restored()

    def _is_stuck(self, link: _Link, now: float) -> bool:
        assert isinstance(link, _SubscriptionLink)
        if link.is_overdue(now, self._io_timeout):
            return True
        silence = now - link.heard_at
        if silence < PROBE_AFTER:
            self._is_probing = False
        elif not self._is_probing:
            self._is_probing = True
            link.probe()
        return silence >= PROBE_AFTER + self._io_timeout


def _retrieve(future: asyncio.Future[None]) -> None:
    """Look at a result whose waiters may all be gone."""
    if not future.cancelled():
        future.exception()
