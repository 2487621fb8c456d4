"""Messages from node to node, by PUB/SUB."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from realtime.engines.redis.keys import Naming
from realtime.engines.redis.shard import Shard
from realtime.protocol.errors import EngineError


class RedisControlBus:
    """
    Control bus over Redis; every node listens on all shards, so any of them will do to speak.

    Args:
        shards: Started by whoever made them.
        naming: Of PUB/SUB channels.

    """

    def __init__(self, shards: Sequence[Shard], naming: Naming) -> None:
        self._naming = naming
        self._turns = itertools.cycle(shards)
        self._count = len(shards)

    async def publish_control(self, data: bytes, node_id: str = "") -> None:
        """
        Hand ``data`` to one node, or to all, this one included; raises ``EngineError``.

        A shard that fails is passed over, so a message may arrive twice where its answer was lost; nodes bear that.
        """
        name = self._naming.node(node_id) if node_id else self._naming.control
        failure: EngineError | None = None
        for _ in range(self._count):
            try:
                await next(self._turns).publish(name, data)
            except EngineError as error:
                failure = error
            else:
                return
        assert failure is not None
        raise failure
