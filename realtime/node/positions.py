"""
Whether a node's rooms are where their streams are: a message that was lost leaves no other trace in a quiet channel.

A publication that comes is checked by the hub. Here the streams are read: of channels whose last check is a while ago, and
of all that may have missed something.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from realtime.engines.base import HistoryFilter
from realtime.protocol.errors import EngineError
from realtime.session.subscription import MapSubscription


if TYPE_CHECKING:
    from realtime.engines.base import Broker
    from realtime.engines.maps import MapBroker
    from realtime.node.node import Node

logger = logging.getLogger(__name__)

CHECKED_AT_ONCE = 256  # positions; after an outage all are due
RECHECK_DELAY = 0.5  # a stream may be ahead of its own PUB/SUB message for so long


class Positions:
    """The checks of a node's rooms, and when each was."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._checked_at: dict[str, float] = {}

    def forget(self, channel: str) -> None:
        """Have the delay of a channel's check begin anew; its subscribers went."""
        self._checked_at.pop(channel, None)

    async def check_due(self, channels: Iterable[str], now: float) -> None:
        """Check those whose last check is ``channel_position_check_delay`` ago; a first one only begins the delay."""
        delay = self._node.options.client.channel_position_check_delay
        rooms = self._node.hub.rooms
        due = [
            name
            for name in channels
            if name in rooms
            and rooms[name].positioned
            and self._checked_at.setdefault(name, now) + delay <= now
        ]
        if due:
            await self.check(due)

    async def check(self, channels: Iterable[str] | None) -> None:
        """Compare rooms with their streams, all with ``None``; those that stay behind are told that they lost something."""
        rooms = [room.channel for room in self._node.hub.every_room(channels) if room.positioned]
        behind = await self._out_of_step(rooms)
        if behind:
            await asyncio.sleep(RECHECK_DELAY)
            for channel in await self._out_of_step(behind):
                self._node.hub.lose_room(channel)

    async def _out_of_step(self, channels: Sequence[str]) -> list[str]:
        """Return those whose room is not where their stream is; what can't be read is due at the next tick."""
        found: list[str] = []
        failure: EngineError | None = None
        for begin in range(0, len(channels), CHECKED_AT_ONCE):
            batch = channels[begin : begin + CHECKED_AT_ONCE]
            answers = await asyncio.gather(*map(self.is_in_step, batch), return_exceptions=True)
            for channel, answer in zip(batch, answers, strict=True):
                if isinstance(answer, EngineError):
                    failure = answer
                    if channel in self._node.hub.rooms:
                        self._checked_at[channel] = -math.inf
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    if channel in self._node.hub.rooms:
                        self._checked_at[channel] = self._node.clock()
                    if not answer:
                        found.append(channel)
        if failure is not None:
            logger.warning("positions were not checked: %s", failure)
        return found

    async def is_in_step(self, channel: str) -> bool:
        """Say whether a channel's room is where its stream is; one that moves meanwhile is. Raises ``EngineError``."""
        room = self._node.hub.rooms.get(channel)
        if room is None or not room.positioned or room.epoch is None:
            return True
        before = room.offset
        follower = next(iter(room.positioned.values()))
        store: Broker | MapBroker
        if isinstance(follower, MapSubscription):
            # By the rules of now: a store that is told others takes them over.
            known = self._node.table.resolve(channel)
            if known is None or not (known.options.is_map and known.map_rules.has_stream):
                return False
            store = self._node.maps
            top = (await store.read_stream(channel, known.map_rules, HistoryFilter(limit=0))).top
        else:
            store, meta_ttl = self._node.broker, follower.options.history_meta_ttl
            top = (await store.history(channel, HistoryFilter(limit=0), meta_ttl)).top
        if room.offset != before:
            return True  # it moves, so each publication checks it
        if top.epoch == room.epoch and top.offset < room.offset:
            # A master that died before its replica had everything: what was delivered is not in the stream.
            logger.warning("a stream fell back", extra={"channel": channel})
            await store.renew(channel, top.epoch)
            return False
        return (top.offset, top.epoch) == (room.offset, room.epoch)
