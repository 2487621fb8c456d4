"""
One shard on a Redis Cluster: who has which slot, and what to do when that changes.

Each master has a connection for commands and one for sharded PUB/SUB. Where a slot is, is learnt from ``CLUSTER SLOTS``
(every five seconds, and at once when something points to a change) and from redirections: a command that is answered
MOVED or ASK was not carried out, so it is sent again to where it belongs. A name's subscription lives on its slot's
owner; when that changes it is subscribed anew there, and the node is told that messages of it may be missing. Names
without a hash tag (control messages) are ordinary PUB/SUB, which the cluster carries to all of its servers.

A name counts as wanted from a ``subscribe`` that succeeded until its ``unsubscribe``, whatever happens to its owner.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

from realtime.engines.redis.addresses import Deployment, Endpoint
from realtime.engines.redis.connection import (
    CommandConnection,
    FixedResolver,
    RedisError,
    SubscriptionConnection,
    UnsupportedServerError,
)
from realtime.engines.redis.inquiry import call_once
from realtime.engines.redis.scripts import Script
from realtime.engines.redis.shard import AfterCommands, ShardListener
from realtime.protocol.errors import EngineError


logger = logging.getLogger(__name__)

SLOTS = 16384
REFRESH_SECONDS = 5.0
RETRY_SECONDS = 0.25  # while something is amiss; also the least time between two rounds
REDIRECTIONS = 5  # for one command; a slot between two masters takes one
TRY_AGAIN_SECONDS = 0.02
REHOUSED_AT_ONCE = 512


def slot_of(name: bytes) -> int:
    """Return the slot of a key or a sharded PUB/SUB channel: only the hash tag counts if there is one."""
    begin = name.find(b"{")
    if begin >= 0:
        end = name.find(b"}", begin + 1)
        if end > begin + 1:
            name = name[begin + 1 : end]
    return binascii.crc_hqx(name, 0) % SLOTS  # CRC16 as XMODEM has it, which is the cluster's


class ClusterShard:
    """
    A cluster as one shard; see ``shard.Shard`` for what it promises.

    Args:
        deployment: Of kind ``cluster``.
        listener: Told of messages and losses, on the loop.

    """

    is_cluster = True
    publish_command = b"SPUBLISH"
    lane = None  # what is redirected is carried out later than what was sent behind it

    def __init__(self, deployment: Deployment, listener: ShardListener) -> None:
        self.deployment = deployment
        self.listener = listener
        self._masters: dict[tuple[str, int], _Master] = {}
        self._owners: list[_Master | None] = [None] * SLOTS
        self._wanted: set[bytes] = set()
        self._homes: dict[bytes, _Master] = {}
        self._homeless: dict[bytes, None] = {}
        self._missed: set[bytes] = set()
        self._was_lost = False
        self._turn = itertools.count()
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._plain = SubscriptionConnection(
            _AnyServer(self),
            listener.on_message,
            on_lost=self.on_lost,
            on_restored=self.wake,
            **self.settings,
        )

    @property
    def timeouts(self) -> dict[str, Any]:
        """What every question is asked with."""
        return {
            "connect_timeout": self.deployment.connect_timeout,
            "io_timeout": self.deployment.io_timeout,
            "force_resp2": self.deployment.force_resp2,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What all lasting connections are made with."""
        return {**self.timeouts, "is_in_cluster": True}

    # --- life ------------------------------------------------------------------------------------

    async def start(self, names: Sequence[bytes] = ()) -> None:
        """
        Learn who has what and connect; returns with the first attempt's outcome, whichever it is.

        Raises:
            UnsupportedServerError: The seed is no cluster's.

        """
        if self._keeper is not None:
            return
        self._plain.want(names)
        try:
            await self._refresh()
        except EngineError as error:
            if isinstance(error.__cause__, RedisError) and "cluster support" in str(error):
                text = f"Redis at {self.deployment.seeds[0].label} is no cluster"
                raise UnsupportedServerError(text) from error
            # One line and no traceback: an outage at the start is an outage like any other.
            logger.error("the cluster is away (%s), trying again", error)  # noqa: TRY400
            self._was_lost = True
        await self._plain.start()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        masters, self._masters = list(self._masters.values()), {}
        self._owners = [None] * SLOTS
        await asyncio.gather(self._plain.close(), *(master.close() for master in masters))

    async def check(self) -> None:
        """Raise ``EngineError`` unless all slots are served and all subscriptions are in force."""
        if None in self._owners:
            raise EngineError("not all slots of the cluster are served")
        if not self._is_whole():
            raise EngineError("the cluster is not connected with all that it had")
        await asyncio.gather(*(master.commands.call("PING") for master in self._masters.values()))

    # --- commands ----------------------------------------------------------------------------------

    def call(self, key: bytes, *args: bytes | str | float) -> Awaitable[Any]:
        """Send a command to the owner of ``key``; its reply, ``RedisError`` or ``EngineError``."""
        return self._routed(slot_of(key), args)

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | float]
    ) -> Any:
        """Run a script on keys of one slot, by its hash, or by its text where a server doesn't know it."""
        slot, rest = slot_of(keys[0]), (len(keys), *keys, *args)
        try:
            return await self._routed(
                slot, ("EVALSHA", script.sha, *rest), is_told_server=script.is_told_server
            )
        except RedisError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self._routed(
            slot, ("EVAL", script.text, *rest), is_told_server=script.is_told_server
        )

    async def _routed(
        self, slot: int, command: tuple[bytes | str | float, ...], *, is_told_server: bool = False
    ) -> Any:
        master, is_asking = self._owner(slot), False
        redirections = 0
        deadline = asyncio.get_running_loop().time() + self.deployment.io_timeout
        while redirections < REDIRECTIONS:
            args = (*command, master.commands.run_id) if is_told_server else command
            try:
                if is_asking:
                    return await self._ask(master, args)
                return await master.commands.call(*args)
            except RedisError as error:
                match error.code:
                    case "MOVED" | "ASK":
                        redirections += 1
                        is_asking = error.code == "ASK"
                        master = await self._redirected(error, master, slot)
                    case "TRYAGAIN" if asyncio.get_running_loop().time() < deadline:
                        # Of a slot on its way some keys have gone and some have not.
                        await asyncio.sleep(TRY_AGAIN_SECONDS)
                    case _:
                        self.wake()  # a cluster that is down, or a master that is none any more
                        raise
        raise EngineError(f"a command was redirected {REDIRECTIONS} times")

    @staticmethod
    async def _ask(master: _Master, args: tuple[bytes | str | float, ...]) -> Any:
        """Send to a server that a slot is on its way to; both leave together, since ASKING is for the next command."""
        asking, reply = master.commands.call("ASKING"), master.commands.call(*args)
        _, result = await asyncio.gather(asking, reply)
        return result

    async def _redirected(self, error: RedisError, before: _Master, slot: int) -> _Master:
        """Find the server that a redirection (``MOVED <slot> <host>:<port>``) names."""
        host, _, port = str(error).split(" ")[-1].rpartition(":")
        # An empty host is the one that answered.
        master = await self._master_at(host or before.endpoint.host, int(port))
        if error.code == "MOVED":
            self._owners[slot] = master
            self.wake()
        return master

    def _owner(self, slot: int) -> _Master:
        master = self._owners[slot]
        if master is None:
            self.wake()
            raise EngineError(f"nobody is known to serve slot {slot}")
        return master

    # --- PUB/SUB -----------------------------------------------------------------------------------

    async def publish(self, name: bytes, payload: bytes) -> None:
        """Publish; raises ``EngineError``."""
        if _is_sharded(name):
            await self.call(name, "SPUBLISH", name, payload)
            return
        for master in self._connected():
            await master.commands.call("PUBLISH", name, payload)
            return
        raise EngineError("no connection to any server of the cluster")

    async def subscribe(self, name: bytes) -> None:
        """Return when the owner has confirmed; raises ``EngineError``, and then the name is not subscribed."""
        if not _is_sharded(name):
            await self._plain.subscribe(name)
            return
        self._wanted.add(name)
        try:
            await self._house(name)
        except BaseException:
            # Somebody else may have brought it home meanwhile: the keeper.
            if name not in self._homes:
                self._give_up(name)
                raise
        self._homeless.pop(name, None)

    async def unsubscribe(self, name: bytes) -> None:
        """Return when it is out of force."""
        if not _is_sharded(name):
            await self._plain.unsubscribe(name)
            return
        home = self._homes.pop(name, None)
        self._give_up(name)
        if home is not None:
            await home.subscriptions.unsubscribe(name)

    def _give_up(self, name: bytes) -> None:
        self._wanted.discard(name)
        self._homeless.pop(name, None)
        self._missed.discard(name)

    async def _house(self, name: bytes) -> None:
        """Subscribe a sharded name where its slot is."""
        slot = slot_of(name)
        master = self._owner(slot)
        for _ in range(REDIRECTIONS):
            try:
                await master.subscriptions.subscribe(name)
            except RedisError as error:
                if error.code != "MOVED":
                    raise
                master = await self._redirected(error, master, slot)
            else:
                if self._owners[slot] is master and master.subscriptions.keeps(name):
                    self._homes[name] = master
                    return
                # The slot moved before this was told of the confirmation: nobody would look for the name here.
                with contextlib.suppress(EngineError):
                    await master.subscriptions.unsubscribe(name)
                master = self._owner(slot)
        raise EngineError(f"a subscription was redirected {REDIRECTIONS} times")

    # --- what the masters tell ---------------------------------------------------------------------

    def wake(self) -> None:
        """Have everything looked after now."""
        self._wake.set()

    def on_dropped(self, name: bytes) -> None:
        """Look for the new owner of a name that its server took away."""
        self._homes.pop(name, None)
        if name in self._wanted:
            self._homeless[name] = None
            self._missed.add(name)
            self.wake()

    def on_lost(self) -> None:
        """Tell that messages may be missed from now on."""
        if not self._was_lost:
            self._was_lost = True
            self.listener.on_lost(self)
        self.wake()

    # --- looking after it ----------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Follow the cluster for ever: one task, so that no two rounds meet."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS if self._is_whole() else RETRY_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._refresh()
                await self._rehouse()
            except EngineError as error:
                logger.debug("the cluster is not in order", extra={"error": str(error)})
            except Exception:
                logger.exception("the cluster was not looked after")
            self._tell()
            await asyncio.sleep(RETRY_SECONDS)

    def _tell(self) -> None:
        """Say that all is in force again, and what may be missing, once it is so."""
        if not self._is_whole():
            return
        missed, self._missed = self._missed, set()
        if self._was_lost:
            self._was_lost = False
            self.listener.on_restored(self)
        elif missed:
            self.listener.on_restored(self, missed)

    def _is_whole(self) -> bool:
        return (
            not self._homeless
            and None not in self._owners
            and self._plain.is_connected
            and all(master.is_connected for master in self._masters.values())
        )

    async def _refresh(self) -> None:
        """Take over who has which slot, and let go of who has none."""
        owners: list[_Master | None] = [None] * SLOTS
        for first, last, host, port in await self._ask_slots():
            master = await self._master_at(host, port)
            owners[first : last + 1] = [master] * (last - first + 1)
        if owners == self._owners:
            return
        self._owners = owners
        homes = self._homes.items()
        moved = [(name, home) for name, home in homes if owners[slot_of(name)] is not home]
        for name, _ in moved:
            self.on_dropped(name)
        # Names are left before they are joined elsewhere, so that no message comes twice: those of a master that has no
        # slots any more by closing, since it may be one that doesn't answer.
        serving = {id(master) for master in owners}
        for address, master in list(self._masters.items()):
            if id(master) not in serving:
                del self._masters[address]
                await master.close()
        for name, home in moved:
            if id(home) in serving:
                with contextlib.suppress(EngineError):
                    await home.subscriptions.unsubscribe(name)

    async def _ask_slots(self) -> list[tuple[int, int, str, int]]:
        """Return ranges with their owner's address: first slot, last slot, host, port."""
        for master in self._connected():
            with contextlib.suppress(EngineError):
                reply = await master.commands.call("CLUSTER", "SLOTS")
                return _read_slots(reply, master.endpoint.host)
        # Seeds in turn: one that hangs costs its timeout, and only in its own round.
        seeds = self.deployment.seeds
        begin = next(self._turn)
        failure: Exception = EngineError("the cluster has no seeds")
        for number in range(len(seeds)):
            seed = seeds[(begin + number) % len(seeds)]
            try:
                reply = await call_once(seed, "CLUSTER", "SLOTS", **self.timeouts)
                return _read_slots(reply, seed.host)
            except (OSError, EngineError, TimeoutError) as error:
                failure = error
        raise EngineError(str(failure) or type(failure).__name__) from failure

    async def _rehouse(self) -> None:
        """Subscribe what lost its owner, as far as that goes now."""
        names = list(self._homeless)
        for begin in range(0, len(names), REHOUSED_AT_ONCE):
            batch = names[begin : begin + REHOUSED_AT_ONCE]
            await asyncio.gather(*map(self._rehouse_one, batch))

    async def _rehouse_one(self, name: bytes) -> None:
        if name not in self._homeless:
            return
        try:
            await self._house(name)
        except EngineError:
            return  # it stays homeless, and the next round tries again
        self._homeless.pop(name, None)
        if name not in self._wanted:
            # Left by the node while it was on its way.
            await self.unsubscribe(name)

    # --- connections -------------------------------------------------------------------------------

    def _connected(self) -> list[_Master]:
        """List the masters that can be asked, another one first each time."""
        masters = [one for one in self._masters.values() if one.commands.is_connected]
        begin = next(self._turn) % len(masters) if masters else 0
        return masters[begin:] + masters[:begin]

    async def _master_at(self, host: str, port: int) -> _Master:
        """Return the master at an address, connected if that goes."""
        master = self._masters.get((host, port))
        if master is None:
            master = _Master(self, self.deployment.data.at(host, port))
            self._masters[host, port] = master
        await master.start()
        return master

    def endpoints(self) -> list[Endpoint]:
        """List where any server may be found: the masters that answer, then the seeds."""
        known = [master.endpoint for master in self._connected()]
        return [*known, *(seed for seed in self.deployment.seeds if seed not in known)]


class _Master:
    """The two connections to one server."""

    def __init__(self, shard: ClusterShard, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._shard = shard
        resolver = FixedResolver(endpoint)
        settings = shard.settings
        self.commands = CommandConnection(resolver, on_connected=self._on_connected, **settings)
        self.subscriptions = SubscriptionConnection(
            AfterCommands(self.commands, resolver),
            shard.listener.on_message,
            on_lost=shard.on_lost,
            on_restored=shard.wake,
            on_dropped=shard.on_dropped,
            is_sharded=True,
            **settings,
        )
        self._starting: asyncio.Future[Any] | None = None

    @property
    def is_connected(self) -> bool:
        return self.commands.is_connected and self.subscriptions.is_connected

    async def start(self) -> None:
        """Connect; whoever else asks meanwhile waits for the same attempt."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self.commands.start()
        await self.subscriptions.start()

    def _on_connected(self) -> None:
        self.subscriptions.hurry()
        self._shard.wake()

    async def close(self) -> None:
        await asyncio.gather(self.commands.close(), self.subscriptions.close())


class _AnyServer:
    """Any server of the cluster: ordinary PUB/SUB reaches all of them."""

    def __init__(self, shard: ClusterShard) -> None:
        self._shard = shard
        self._attempts = itertools.count()

    async def resolve(self) -> Endpoint:
        endpoints = self._shard.endpoints()
        return endpoints[next(self._attempts) % len(endpoints)]


def _is_sharded(name: bytes) -> bool:
    return b"{" in name


def _read_slots(reply: Any, asked: str) -> list[tuple[int, int, str, int]]:
    """Read ``CLUSTER SLOTS``: first, last, [host, port, ...] of the master, then of replicas."""
    # A server that does not know its own address leaves the host out.
    return [
        (first, last, (master[0] or b"").decode() or asked, master[1])
        for first, last, master, *_ in reply
    ]
