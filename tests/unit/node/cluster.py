"""
Several nodes in one process, on a backend that they share.

It is the memory engine behind a bus: publications reach the nodes that joined their channel, control messages all of
them or one. A node can be stopped as by SIGSTOP (what is sent to it waits), cut off (what is sent to it is lost, and what it
sends fails), or killed. Time is driven by the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from realtime.auth.tokens import TokenVerifier
from realtime.conf.options import ProcessOptions
from realtime.conf.snapshot import Configuration
from realtime.engines.base import (
    BrokerEvents,
    History,
    HistoryFilter,
    PresenceStats,
    PublishOptions,
    PublishOutcome,
)
from realtime.engines.memory import MemoryEngine
from realtime.engines.memory_maps import MemoryMaps
from realtime.namespaces.table import NamespaceTable
from realtime.node.node import Node
from realtime.protocol.errors import EngineError
from realtime.protocol.messages import ClientInfo, Publication, StreamPosition
from tests.unit.client.conftest import NAMESPACES, OPEN, Clock, Connection


class Backend:
    """What all nodes share; it is the memory engine's listener, and passes on what it hears."""

    def __init__(self, clock: Clock) -> None:
        self.engine = MemoryEngine(clock=clock)
        self.members: dict[str, MemberEngine] = {}
        self.owners: dict[tuple[str, str], str] = {}
        self.leaves: list[tuple[str, str]] = []

    def on_publication(
        self, channel: str, publication: Publication, position: StreamPosition, **facts: Any
    ) -> None:
        self._spread(channel, "on_publication", publication, position, **facts)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self._spread(channel, "on_join", info)

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.leaves.append((channel, info.client))
        self._spread(channel, "on_leave", info)

    def on_control(self, data: bytes) -> None:
        raise AssertionError("control messages go past the engine")

    def on_lost(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("the memory engine loses nothing")

    def _spread(self, channel: str, event: str, *args: Any, **kwargs: Any) -> None:
        for member in self.members.values():
            if channel in member.joined:
                member.deliver(event, channel, *args, **kwargs)

    def send(self, data: bytes, node_id: str) -> None:
        """Hand a control message to its receivers."""
        for uid, member in self.members.items():
            if not node_id or uid == node_id:
                member.deliver("on_control", data)


class MemberEngine:
    """One node's connection to the backend."""

    is_reliable = False
    is_remote = False

    def __init__(self, backend: Backend, node_id: str) -> None:
        self.backend = backend
        self.node_id = node_id
        self.joined: set[str] = set()
        self.received = 0
        self.is_cut_off = False
        self.is_stopped = False
        self.events: BrokerEvents | None = None
        self._waiting: list[Callable[[], None]] = []
        backend.members[node_id] = self

    # --- what reaches the node -------------------------------------------------------------------

    def deliver(self, event: str, *args: Any, **kwargs: Any) -> None:
        """Call the node in a later turn of the loop, as a socket would."""
        if self.is_cut_off:
            return

        def arrive() -> None:
            if self.events is not None:
                self.received += 1
                getattr(self.events, event)(*args, **kwargs)

        if self.is_stopped:
            self._waiting.append(arrive)
        else:
            asyncio.get_running_loop().call_soon(arrive)

    def resume(self) -> None:
        """Read what came meanwhile."""
        self.is_stopped = False
        waiting, self._waiting = self._waiting, []
        for arrive in waiting:
            asyncio.get_running_loop().call_soon(arrive)

    async def _reach(self) -> MemoryEngine:
        await asyncio.sleep(0)
        if self.is_cut_off:
            raise EngineError("the backend is away")
        return self.backend.engine

    # --- broker ----------------------------------------------------------------------------------

    async def start(self, events: BrokerEvents) -> None:
        self.events = events

    async def close(self) -> None:
        self.events = None
        self.backend.members.pop(self.node_id, None)

    def sweep(self, now: float) -> None: ...

    async def subscribe(self, channel: str) -> None:
        await self._reach()
        self.joined.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        await self._reach()
        self.joined.discard(channel)

    async def publish(
        self, channel: str, publication: Publication, options: PublishOptions
    ) -> PublishOutcome:
        return await (await self._reach()).publish(channel, publication, options)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await (await self._reach()).publish_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await (await self._reach()).publish_leave(channel, info)

    async def history(self, channel: str, what: HistoryFilter, meta_ttl: float) -> History:
        return await (await self._reach()).history(channel, what, meta_ttl)

    async def remove_history(self, channel: str) -> None:
        await (await self._reach()).remove_history(channel)

    async def renew(self, channel: str, epoch: str) -> None:
        await (await self._reach()).renew(channel, epoch)

    # --- presence --------------------------------------------------------------------------------

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        await (await self._reach()).add(channel, client_id, info)
        self.backend.owners[channel, client_id] = self.node_id

    async def remove(self, channel: str, client_id: str, user: str) -> None:
        await (await self._reach()).remove(channel, client_id, user)
        self.backend.owners.pop((channel, client_id), None)

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        return await (await self._reach()).presence(channel)

    async def presence_stats(self, channel: str) -> PresenceStats:
        return await (await self._reach()).presence_stats(channel)

    async def remove_node(self, node_id: str) -> Sequence[tuple[str, ClientInfo]]:
        engine = await self._reach()
        owners = self.backend.owners
        keys = [key for key, owner in owners.items() if owner == node_id]
        removed = []
        for channel, client_id in keys:
            del owners[channel, client_id]
            info = (await engine.presence(channel))[client_id]
            await engine.remove(channel, client_id, info.user)
            removed.append((channel, info))
        return removed

    # --- control ---------------------------------------------------------------------------------

    async def publish_control(self, data: bytes, node_id: str = "") -> None:
        await self._reach()
        self.backend.send(data, node_id)


class Cluster:
    """Nodes by name, and the clock that all of them go by."""

    def __init__(self, options: ProcessOptions) -> None:
        self.clock = Clock()
        self.backend = Backend(self.clock)
        self.nodes: dict[str, Node] = {}
        self._options = options
        self._connections = 0

    async def start(self) -> None:
        """Start the backend."""
        await self.backend.engine.start(self.backend)

    async def stop(self) -> None:
        """End all that runs."""
        for name, node in self.nodes.items():
            self.engine(name).is_stopped = False
            await node.stop()

    def engine(self, name: str) -> MemberEngine:
        """The node's connection to the backend."""
        engine = self.nodes[name].broker
        assert isinstance(engine, MemberEngine)
        return engine

    async def add(
        self, name: str, reload: Callable[[], Awaitable[Configuration]] | None = None
    ) -> Node:
        """Start one more node."""
        engine = MemberEngine(self.backend, f"id of {name}")
        verifier = TokenVerifier(self._options.client.token)
        node = Node(
            options=self._options,
            configuration=Configuration(
                1, NamespaceTable(without_namespace=OPEN, namespaces=NAMESPACES), {}
            ),
            broker=engine,
            presence=engine,
            control_bus=engine,
            maps=MemoryMaps(self.clock),
            connection_verifier=verifier,
            subscription_verifier=verifier,
            version="1.2.3",
            name=name,
            node_id=engine.node_id,
            reload=reload,
            clock=self.clock,
            monotonic=self.clock,
        )
        self.nodes[name] = node
        await node.start()
        await settle()
        return node

    async def connect(self, node: Node, *channels: str, token: str = "") -> Connection:
        """Open a connection that is subscribed to channels."""
        self._connections += 1
        connection = Connection(node, f"client-{self._connections}")
        connection.send({"id": 1, "connect": {"token": token} if token else {}})
        for number, channel in enumerate(channels, 2):
            connection.send({"id": number, "subscribe": {"channel": channel}})
        await settle()
        connection.received()
        return connection

    async def advance(self, seconds: int) -> None:
        """Let time pass, in ticks, on all nodes that run."""
        for _ in range(seconds):
            self.clock.now += 1
            for name, node in self.nodes.items():
                if not self.engine(name).is_stopped:
                    node.members.tick()
            await settle()

    def kill(self, name: str) -> None:
        """End a node as kill -9 does: it says and hears nothing any more."""
        engine = self.engine(name)
        engine.is_stopped = engine.is_cut_off = True
        del self.backend.members[engine.node_id]


async def settle() -> None:
    """Let everything that is on its way arrive: no chain of messages here is longer than this."""
    for _ in range(40):
        await asyncio.sleep(0)
