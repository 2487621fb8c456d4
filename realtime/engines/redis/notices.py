"""What others publish to one PUB/SUB channel of a Redis: hints, which an outage may swallow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from realtime.engines.redis.addresses import Deployment
from realtime.engines.redis.engine import make_shards
from realtime.engines.redis.shard import Shard


class RedisNotices:
    """
    Listens to a channel on each of some deployments.

    Args:
        places: Of one configuration section: a publisher uses any of them.
        channel: The channel's whole name, without a prefix.

    """

    def __init__(self, places: Sequence[Deployment], channel: str) -> None:
        self._channel = channel.encode()
        self._hear: Callable[[bytes], None] | None = None
        self._shards = make_shards(places, self)

    async def start(self, hear: Callable[[bytes], None]) -> None:
        """Connect; an outage at this time is logged, and it is tried again."""
        self._hear = hear
        for shard in self._shards:
            await shard.start((self._channel,))

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        self._hear = None
        for shard in self._shards:
            await shard.close()

    def on_message(self, name: bytes, payload: bytes) -> None:
        """Pass a message on."""
        if self._hear is not None and name == self._channel:
            self._hear(payload)

    def on_lost(self, shard: Shard) -> None:
        """Nothing: who hints is not asked to repeat it."""

    def on_restored(self, shard: Shard, names: Collection[bytes] | None = None) -> None:
        """Nothing: what was missed is found by the next cycle."""
