"""
One deployment of Redis, as broker, presence and control use it.

A shard routes by key where that means something, runs scripts by their hash, and tells its listener what was said and
when something may have been missed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Coroutine, Sequence
from typing import Any, Protocol

from realtime.engines.redis.addresses import Endpoint
from realtime.engines.redis.connection import (
    AWAY,
    CommandConnection,
    RedisError,
    Resolver,
    SubscriptionConnection,
)
from realtime.engines.redis.scripts import Script
from realtime.protocol.errors import EngineError


class ShardListener(Protocol):
    """What a shard tells, synchronously and on the loop that it was started on."""

    def on_message(self, name: bytes, payload: bytes) -> None:
        """Take what was published to a subscribed name; per name in the order of publication."""

    def on_lost(self, shard: Shard) -> None:
        """Messages may be missed from now on."""

    def on_restored(self, shard: Shard, names: Collection[bytes] | None = None) -> None:
        """
        All names are subscribed again and commands are carried out: time to check what was missed.

        ``names``: only of these something may have been; ``None``: of any.
        """


class Shard(Protocol):
    """
    One deployment.

    ``is_cluster`` says that the names of one channel must carry its tag (``keys.Naming``); ``publish_command`` is what a
    script must publish with. Everything raises ``EngineError`` at once while Redis is away.
    """

    is_cluster: bool
    publish_command: bytes

    async def start(self, names: Sequence[bytes] = ()) -> None:
        """
        Begin to connect; ``names`` are subscribed with each connection from the first one on.

        Returns with the first attempt's outcome, whichever it is; raises ``ConfigError`` for a server that can't be used.
        """

    async def close(self) -> None:
        """Disconnect; may be called twice."""

    def call(self, key: bytes, *args: bytes | str | float) -> Awaitable[Any]:
        """Carry out a command about ``key``; raises ``RedisError`` where Redis refuses it."""

    def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | float]
    ) -> Awaitable[Any]:
        """Run a script; there is at least one key, and all are of one slot."""

    @property
    def lane(self) -> CommandConnection | None:
        """Return the connection that carries out all commands in the order they are sent, if there is one and few wait."""

    def publish(self, name: bytes, payload: bytes) -> Awaitable[Any]:
        """Publish to a PUB/SUB channel."""

    def subscribe(self, name: bytes) -> Coroutine[Any, Any, None]:
        """Return when Redis has confirmed; from then on the name is kept subscribed."""

    async def unsubscribe(self, name: bytes) -> None:
        """Stop getting what is published to the name."""

    async def check(self) -> None:
        """Raise ``EngineError`` unless commands are answered and all subscriptions are in force."""


class SingleShard:
    """
    A Redis, or the master that Sentinels name.

    Args:
        resolver: Where to connect; asked before each attempt.
        listener: Is told.
        connect_timeout: Of one attempt, in seconds.
        io_timeout: Of one answer, in seconds.
        force_resp2: Do not try RESP3.

    """

    is_cluster = False
    publish_command = b"PUBLISH"

    def __init__(
        self,
        resolver: Resolver,
        listener: ShardListener,
        *,
        connect_timeout: float = 1.0,
        io_timeout: float = 4.0,
        force_resp2: bool = False,
    ) -> None:
        self._listener = listener
        self._is_catching_up = False
        self._commands = CommandConnection(
            resolver,
            connect_timeout=connect_timeout,
            io_timeout=io_timeout,
            force_resp2=force_resp2,
            on_connected=self._on_connected,
        )
        self._subscriptions = SubscriptionConnection(
            AfterCommands(self._commands, resolver),
            listener.on_message,
            on_lost=self._on_lost,
            on_restored=self._on_restored,
            connect_timeout=connect_timeout,
            io_timeout=io_timeout,
            force_resp2=force_resp2,
        )

    async def start(self, names: Sequence[bytes] = ()) -> None:
        """Begin to connect."""
        self._subscriptions.want(names)
        await self._commands.start()
        await self._subscriptions.start()

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        await self._subscriptions.close()
        await self._commands.close()

    def reset(self) -> None:
        """Connect anew: the resolver knows another place."""
        self._commands.reset()
        self._subscriptions.reset()

    def call(self, key: bytes, *args: bytes | str | float) -> Awaitable[Any]:
        """Carry out a command; one Redis has all keys."""
        return self._commands.call(*args)

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | float]
    ) -> Any:
        """Run a script by its hash, or by its text where Redis has forgotten it."""
        if script.is_told_server:
            args = (*args, self._commands.run_id)
        try:
            return await self._commands.call(b"EVALSHA", script.sha, len(keys), *keys, *args)
        except RedisError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self._commands.call(b"EVAL", script.text, len(keys), *keys, *args)

    @property
    def lane(self) -> CommandConnection | None:
        """Return the only connection there is; away, it has room for an error."""
        return None if self._commands.is_busy else self._commands

    def publish(self, name: bytes, payload: bytes) -> Awaitable[Any]:
        """Publish."""
        return self._commands.call(b"PUBLISH", name, payload)

    def subscribe(self, name: bytes) -> Coroutine[Any, Any, None]:
        """Return when Redis has confirmed."""
        return self._subscriptions.subscribe(name)

    async def unsubscribe(self, name: bytes) -> None:
        """Stop."""
        await self._subscriptions.unsubscribe(name)

    async def check(self) -> None:
        """Ask for a sign of life."""
        if not self._subscriptions.is_connected:
            message = "subscriptions in Redis are not in force"
            raise EngineError(message)
        await self._commands.call(b"PING")

    def _on_connected(self) -> None:
        self._subscriptions.hurry()
        self._catch_up()

    def _on_lost(self) -> None:
        self._listener.on_lost(self)

    def _on_restored(self) -> None:
        self._is_catching_up = True
        self._catch_up()

    def _catch_up(self) -> None:
        """Tell that positions can be checked, once both connections are there to do it."""
        if self._is_catching_up and self._commands.is_connected:
            self._is_catching_up = False
            self._listener.on_restored(self)


class AfterCommands:
    """
    Where subscriptions connect, once commands are carried out there.

    A message behind a hole sends its subscribers to read history: while that can't be done they would be disconnected.
    """

    def __init__(self, commands: CommandConnection, resolver: Resolver) -> None:
        self._commands = commands
        self._resolver = resolver

    async def resolve(self) -> Endpoint:
        """Return the address; raises ``EngineError`` as long as commands are not there."""
        if not self._commands.is_connected:
            raise EngineError(AWAY) from self._commands.failure
        return await self._resolver.resolve()
