"""
Direct publishes on their way to all nodes that track a key: one broker channel per key.

Its name begins with a NUL, so that it is in no namespace: nobody can subscribe to it or publish into it but the nodes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from realtime.engines.base import NO_OPTIONS
from realtime.node.eager import run_eagerly
from realtime.node.locks import ChannelLocks
from realtime.protocol.errors import EngineError
from realtime.protocol.messages import Publication


if TYPE_CHECKING:
    from realtime.engines.base import Broker

logger = logging.getLogger(__name__)

AT_ONCE = 256  # subscriptions asked of the broker: enough to fill its pipeline, too little to keep others waiting


class KeyPublish(msgspec.Struct, frozen=True, array_like=True):
    """A value on its way; ``data`` is the payload."""

    channel: str
    key: str
    data: bytes
    version: int
    epoch: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(KeyPublish)


def feed_name(channel: str, key: str) -> str:
    """Return the broker's channel of a key; its length in front keeps two of them apart."""
    return f"\0{len(channel)}:{channel}{key}"


async def publish_key(broker: Broker, value: KeyPublish) -> None:
    """Tell all nodes that track the key; raises ``EngineError``."""
    publication = Publication(data=Raw(_encode(value)))
    await broker.publish(feed_name(value.channel, value.key), publication, NO_OPTIONS)


def read_publish(publication: Publication) -> KeyPublish:
    """Read what a feed brought; raises ``msgspec.MsgspecError``."""
    return _decoder.decode(publication.data)


class Feeds:
    """
    The feeds that this node hears.

    Args:
        broker: Brings them.

    Attributes:
        joined: Their names.

    """

    def __init__(self, broker: Broker) -> None:
        self.joined: set[str] = set()
        self._broker = broker
        self._locks = ChannelLocks()
        self._leaving: set[str] = set()

    async def join(self, channel: str, keys: Sequence[str]) -> None:
        """Return when the values of keys surely come from now on; raises ``EngineError``, and then some do."""
        names = [feed_name(channel, key) for key in keys]
        self._leaving.difference_update(names)
        missing = [name for name in names if name not in self.joined]
        for begin in range(0, len(missing), AT_ONCE):
            batch = missing[begin : begin + AT_ONCE]
            _raise_first(await _together(self._join, batch))

    async def _join(self, name: str) -> None:
        async with self._locks.of(name):
            if name not in self.joined:
                await self._broker.subscribe(name)
                self.joined.add(name)

    def leave(self, channel: str, keys: Iterable[str]) -> None:
        """Have keys left with the next ``tidy``, unless they are joined again until then."""
        self._leaving.update(
            name for key in keys if (name := feed_name(channel, key)) in self.joined
        )

    async def tidy(self) -> None:
        """Leave what nobody tracks any more."""
        while self._leaving:
            batch = [self._leaving.pop() for _ in range(min(AT_ONCE, len(self._leaving)))]
            outcomes = await _together(self._leave, batch)
            failed = [
                name
                for name, outcome in zip(batch, outcomes, strict=True)
                if isinstance(outcome, EngineError)
            ]
            if failed:
                self._leaving.update(failed)  # the next round tries again
                logger.warning("%d keys of shared polls were not left", len(failed))
                return

    async def _leave(self, name: str) -> None:
        async with self._locks.of(name):
            # Before the wait: who comes meanwhile must not take it for joined, but wait for its turn.
            self.joined.discard(name)
            try:
                await self._broker.unsubscribe(name)
            except EngineError:
                self.joined.add(name)
                raise


async def _together(
    work: Callable[[str], Coroutine[Any, Any, None]], names: Sequence[str]
) -> list[BaseException | None]:
    """Run work for names at once, without a task for what does not suspend; returns what each raised."""
    outcomes: list[BaseException | None] = [None] * len(names)
    waiting: dict[int, asyncio.Task[None]] = {}
    for number, name in enumerate(names):
        try:
            _, task = run_eagerly(work(name))
        except EngineError as error:
            outcomes[number] = error
            continue
        if task is not None:
            waiting[number] = task
    ended = await asyncio.gather(*waiting.values(), return_exceptions=True) if waiting else ()
    for number, outcome in zip(waiting, ended, strict=True):
        outcomes[number] = outcome
    return outcomes


def _raise_first(outcomes: Iterable[BaseException | None]) -> None:
    for outcome in outcomes:
        if outcome is not None:
            raise outcome
