"""
Where the master is, asked of sentinels.

All sentinels are asked at once, what most of them name comes first, and only a server that says of itself that it is a
master is taken: right after a failover one sentinel may be behind, and a master that was demoted may still be named. A
new master is noticed by what the sentinels publish, and by asking again every five seconds should that get lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from realtime.engines.redis.addresses import Deployment, Endpoint
from realtime.engines.redis.connection import RedisError, SubscriptionConnection
from realtime.engines.redis.inquiry import call_once
from realtime.engines.redis.shard import ShardListener, SingleShard
from realtime.protocol.errors import EngineError


logger = logging.getLogger(__name__)

RECHECK_SECONDS = 5.0  # the reference's
SWITCHED = b"+switch-master"

Address = tuple[str, int]


class SentinelResolver:
    """
    Finds the master; one for all connections of a shard.

    Args:
        deployment: Of kind ``sentinel``.
        on_switch: Called on the loop when the sentinels name another master than ``resolve`` said last, or ``resolve`` does:
            connections to that one have to be dropped even if they work.

    """

    def __init__(self, deployment: Deployment, on_switch: Callable[[], None]) -> None:
        self._deployment = deployment
        self._on_switch = on_switch
        self._master: Address | None = None
        self._watch = SubscriptionConnection(
            _Rotation(deployment.seeds),
            self._on_message,
            on_lost=_nothing,
            on_restored=_nothing,
            connect_timeout=deployment.connect_timeout,
            io_timeout=deployment.io_timeout,
            force_resp2=deployment.force_resp2,
        )
        self._watch.want([SWITCHED])
        self._recheck: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch; does not fail when no sentinel answers."""
        if self._recheck is None:
            self._recheck = asyncio.get_running_loop().create_task(self._keep_checking())
            await self._watch.start()

    async def close(self) -> None:
        """Stop watching; may be called twice."""
        task, self._recheck = self._recheck, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._watch.close()

    async def resolve(self) -> Endpoint:
        """Return the master; raises ``EngineError`` when no sentinel names a server that is one."""
        for address in await self._candidates():
            if await self._is_master(address):
                before, self._master = self._master, address
                if before not in (None, address):
                    # The other connection may be where this one was, and a server that nobody can reach but us keeps it.
                    self._on_switch()
                return self._deployment.data.at(*address)
        raise EngineError(f"no sentinel names a master {self._deployment.master_name!r}")

    async def _candidates(self) -> list[Address]:
        """Return what sentinels name, by how many of them."""
        answers = await asyncio.gather(*map(self._ask_sentinel, self._deployment.seeds))
        votes = Counter(answer for answer in answers if answer is not None)
        return [address for address, _ in votes.most_common()]

    async def _ask_sentinel(self, sentinel: Endpoint) -> Address | None:
        try:
            answer = await self._call(
                sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._deployment.master_name
            )
        except (OSError, EngineError, TimeoutError) as error:
            logger.debug(
                "a sentinel did not answer", extra={"redis": sentinel.label, "error": error}
            )
            return None
        # Nothing: it doesn't know such a master.
        return (answer[0].decode(), int(answer[1])) if answer else None

    async def _is_master(self, address: Address) -> bool:
        endpoint = self._deployment.data.at(*address)
        try:
            role = await self._call(endpoint, "ROLE")
        except RedisError as error:
            # A user that may not ask: then the sentinels are believed.
            return error.code == "NOPERM"
        except (OSError, EngineError, TimeoutError):
            return False
        return bool(role[0] == b"master")

    async def _call(self, endpoint: Endpoint, *command: str) -> Any:
        deployment = self._deployment
        return await call_once(
            endpoint,
            *command,
            # An answer takes as long as a connection here: there is nothing to compute.
            connect_timeout=deployment.connect_timeout,
            io_timeout=deployment.connect_timeout,
            force_resp2=deployment.force_resp2,
        )

    # --- a new master ------------------------------------------------------------------------------

    def _on_message(self, _: bytes, payload: bytes) -> None:
        """Read ``<name> <old host> <old port> <new host> <new port>``."""
        words = payload.decode(errors="replace").split(" ")
        if len(words) == 5 and words[0] == self._deployment.master_name and words[4].isdecimal():
            self._compare((words[3], int(words[4])))

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            candidates = await self._candidates()
            if candidates:
                self._compare(candidates[0])

    def _compare(self, named: Address) -> None:
        if self._master is not None and named != self._master:
            logger.warning(
                "the master is another one now",
                extra={"master": self._deployment.master_name, "redis": f"{named[0]}:{named[1]}"},
            )
            self._master = None  # until it is resolved anew, there is nothing to compare with
            self._on_switch()


class SentinelShard(SingleShard):
    """
    The master that sentinels name, as one shard.

    Args:
        deployment: Of kind ``sentinel``.
        listener: Is told.

    """

    def __init__(self, deployment: Deployment, listener: ShardListener) -> None:
        self._resolver = SentinelResolver(deployment, self.reset)
        super().__init__(
            self._resolver,
            listener,
            connect_timeout=deployment.connect_timeout,
            io_timeout=deployment.io_timeout,
            force_resp2=deployment.force_resp2,
        )

    async def start(self, names: Sequence[bytes] = ()) -> None:
        """Begin to watch the sentinels and to connect."""
        await self._resolver.start()
        await super().start(names)

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        await super().close()
        await self._resolver.close()


class _Rotation:
    """The sentinels in turn: one that doesn't answer is passed over."""

    def __init__(self, seeds: Sequence[Endpoint]) -> None:
        self._turn = itertools.cycle(seeds)

    async def resolve(self) -> Endpoint:
        return next(self._turn)


def _nothing() -> None:
    """What is lost on the watch is found by the recheck."""
