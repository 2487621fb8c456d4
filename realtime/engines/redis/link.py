"""
One socket to a Redis: commands out, replies in, until it is lost.

Commands of one tick leave in one write and replies come back in order, so on a socket that owes an answer everything
behind that answer is owed, too. Reading is hiredis' in ``data_received``; subscriptions have no queue and no task between
the socket and who is told.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from hiredis import Reader, ReplyError, pack_command

from realtime.engines.base import Answer
from realtime.engines.prompt import PromptFuture
from realtime.engines.redis.addresses import Endpoint
from realtime.protocol.errors import ConfigError, EngineError


logger = logging.getLogger(__name__)

MAX_PENDING = (
    1 << 15
)  # commands; beyond it Redis is seconds behind, and the caller should hear of it
MAX_UNSENT = 16 << 20  # bytes
BUSY = MAX_PENDING >> 2  # commands; the rest is for those whose callers can't wait with them
MINIMUM_VERSION = (6, 2)
GONE = "the connection to Redis is gone"

_NOTHING: Any = object()
_CONFIRMATIONS = frozenset((b"subscribe", b"ssubscribe", b"unsubscribe", b"sunsubscribe"))


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


class LinkOwner(Protocol):
    """Who uses a link."""

    def on_link_lost(self, link: Link, cause: Exception | None) -> None:
        """Stop using it; its socket is gone and what waits for it fails next."""


class SubscriptionOwner(LinkOwner, Protocol):
    """Who uses a link for subscriptions; ``message_kind`` is how its messages begin."""

    message_kind: bytes

    def on_message(self, name: bytes, payload: bytes) -> None:
        """Take what was published."""

    def on_confirmed(self, kind: bytes, name: bytes) -> int:
        """Note a confirmation; returns how many commands are answered by it."""

    def on_refused(self, error: RedisError) -> None:
        """Fail the oldest command."""


pack: Callable[[Sequence[bytes | str | float]], bytes] = pack_command  # type: ignore[assignment]  # its annotation has tuples of one
"""Writes a command as Redis reads it; given as a tuple."""

_PING = pack(("PING",))


# --- one socket -------------------------------------------------------------------------------------


class Link(asyncio.Protocol):
    """
    One socket, from connect to loss; commands in, replies out in order.

    Attributes:
        lost: Done when the socket is gone.

    """

    def __init__(self, owner: LinkOwner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(notEnoughData=_NOTHING)
        self._pending: deque[Answer] = deque()
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
        # First, since who hears of a failure may have something else to send.
        self._owner.on_link_lost(self, exc)
        pending, self._pending = self._pending, deque()
        for answer in pending:
            answer.fail(gone(exc))

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
            answer = take()
            if isinstance(reply, ReplyError):
                answer.fail(RedisError(str(reply)))
            else:
                answer.settle(reply)
        self._received += count

    def call(self, *args: bytes | str | float) -> asyncio.Future[Any]:
        """Do as ``send``; returns what its answer settles."""
        future: PromptFuture[Any] = PromptFuture(loop=self._loop)
        self.send(future, args)
        return future

    def send(self, answer: Answer, args: Sequence[bytes | str | float]) -> None:
        """Send a command with the others of this tick; raises ``EngineError`` when too much is waiting."""
        pending = self._pending
        if self._is_full or len(pending) >= MAX_PENDING:
            message = f"{len(pending)} commands are waiting for Redis already"
            raise EngineError(message)
        packed = pack(args)
        pending.append(answer)
        self._send(packed)
        self._sent += 1

    @property
    def is_busy(self) -> bool:
        """Whether many commands wait."""
        return self._is_full or len(self._pending) >= BUSY

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


def gone(cause: Exception | None) -> EngineError:
    error = EngineError(GONE)
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


class SubscriptionLink(Link):
    """A socket that carries PUB/SUB messages once it is greeted."""

    _owner: SubscriptionOwner

    def __init__(self, owner: SubscriptionOwner) -> None:
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


# --- connecting -------------------------------------------------------------------------------------

LinkT = TypeVar("LinkT", bound=Link)


async def open_link(endpoint: Endpoint, make_link: Callable[[], LinkT]) -> LinkT:
    """Connect, nothing said yet; raises ``OSError``."""
    loop = asyncio.get_running_loop()
    if endpoint.path:
        _, link = await loop.create_unix_connection(
            make_link, endpoint.path, ssl=endpoint.ssl_context
        )
        return link
    name = (endpoint.server_name or endpoint.host) if endpoint.ssl_context else None
    _, link = await loop.create_connection(
        make_link, endpoint.host, endpoint.port, ssl=endpoint.ssl_context, server_hostname=name
    )
    return link


async def greet(link: Link, endpoint: Endpoint, *, force_resp2: bool) -> dict[str, Any]:
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
            server = _texts(await link.call(*command))
        except RedisError as error:
            # A server or a proxy of before RESP3; a refusal of the credentials is final.
            if error.code not in ("ERR", "NOPROTO"):
                raise
    if not server:
        server = await _greet_resp2(link, endpoint)
    if endpoint.db:
        await link.call("SELECT", endpoint.db)
    return server


async def _greet_resp2(link: Link, endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.password:
        names = (endpoint.username,) if endpoint.username else ()
        await link.call("AUTH", *names, endpoint.password)
    if endpoint.client_name:
        await link.call("CLIENT", "SETNAME", endpoint.client_name)
    facts = await _facts(link)
    if not facts:
        return {}
    return {
        "version": facts.get("redis_version", ""),
        "mode": facts.get("redis_mode", ""),
    }


async def run_id(link: Link) -> bytes:
    """Ask what this run of the server is called, cut to 16 digits as ``server.lua`` has it; empty where it can't say."""
    return (await _facts(link)).get("run_id", "")[:16].encode()


async def _facts(link: Link) -> dict[str, str]:
    try:
        text = await link.call("INFO", "server")
    except RedisError:
        return {}  # some hosted offerings have no INFO: go on without knowing
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}


def _texts(reply: Any) -> dict[str, Any]:
    """Read the reply to ``HELLO``, which is a map or, by some servers, a flat list."""
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=False))
    return {
        key.decode(): value.decode(errors="replace") if isinstance(value, bytes) else value
        for key, value in reply.items()
    }


def check_server(server: dict[str, Any], endpoint: Endpoint, *, is_in_cluster: bool) -> None:
    """Raise ``UnsupportedServerError`` where the engine can't work with what a server says of itself."""
    if server.get("mode") == "cluster" and not is_in_cluster:
        message = (
            f"Redis at {endpoint.label} is a cluster and was away when this was found out at start: "
            "start again, or name it in cluster_address"
        )
        raise UnsupportedServerError(message)
    numbers = str(server.get("version", "")).split(".")
    if not all(number.isdigit() for number in numbers[:2]):
        return
    version = tuple(int(number) for number in numbers[:2])
    if version < MINIMUM_VERSION:
        message = f"Redis at {endpoint.label} is {server['version']}, expected 6.2 or newer"
        raise UnsupportedServerError(message)
