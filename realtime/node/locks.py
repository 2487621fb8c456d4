"""One lock per channel, for as long as somebody holds it or waits for it."""

from __future__ import annotations

import asyncio


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
        """Return what holds the channel's lock in an ``async with``; a free one is taken without suspending."""
        lock = self._locks.get(channel)
        if lock is None:
            lock = self._locks[channel] = ChannelLock(self._locks, channel)
        return lock


class ChannelLock:
    """One channel's lock; a class, since a generator's context costs 4 µs per subscribe."""

    __slots__ = ("_channel", "_lock", "_locks", "_users")

    def __init__(self, locks: dict[str, ChannelLock], channel: str) -> None:
        self._locks = locks
        self._channel = channel
        self._lock = asyncio.Lock()
        self._users = 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except BaseException:  # cancelled while it waited
            self._forget()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._forget()

    def _forget(self) -> None:
        self._users -= 1
        if not self._users:
            del self._locks[self._channel]
