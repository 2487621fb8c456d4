"""One lock per channel, for as long as somebody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections import deque


class ChannelLocks:
    """
    Keep what is done about one channel from overlapping.

    A lock is forgotten with its last user, however that ends: forgotten earlier, a newcomer would make a second
    one while others still wait for the first.
    """

    def __init__(self) -> None:
        self._locks: dict[str, ChannelLock] = {}

    def __len__(self) -> int:
        return len(self._locks)

    def of(self, channel: str) -> ChannelLock:
        """Return what holds the channel's lock in an ``async with``, to be entered at once."""
        lock = self._locks.get(channel)
        if lock is None:
            lock = self._locks[channel] = ChannelLock(self._locks, channel)
        return lock


class ChannelLock:
    """
    One channel's lock; a free one is taken without suspending.

    Mostly nobody waits: what ``asyncio.Lock`` would cost for that is 3 µs of a subscribe.
    """

    __slots__ = ("_channel", "_is_held", "_locks", "_waiters")

    def __init__(self, locks: dict[str, ChannelLock], channel: str) -> None:
        self._locks = locks
        self._channel = channel
        self._is_held = False
        self._waiters: deque[asyncio.Future[None]] | None = None

    async def __aenter__(self) -> None:
        if not self._is_held:
            self._is_held = True
            return
        if self._waiters is None:
            self._waiters = deque()
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was ours already
                self._pass_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._locks[self._channel]
