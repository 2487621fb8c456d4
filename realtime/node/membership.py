"""
A node among others: it announces itself, buries the dead, and comes back when it was taken for one.

What is known is in ``registry``; here it is acted upon, once a second. Whoever finds a node dead asks the presence
manager for what it left; one survivor gets it and tells the leaves. A node that was only stopped or cut off puts its
entries back as soon as it hears itself again, and tells the joins anew when it learns that its leaves were told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from realtime.node.control import Announcement, Buried, ControlBody, NodeInfo, Shutdown
from realtime.node.registry import ANNOUNCE_INTERVAL, Registry
from realtime.protocol.errors import EngineError


if TYPE_CHECKING:
    from realtime.node.node import Node
    from realtime.protocol.messages import ClientInfo

logger = logging.getLogger(__name__)

# What one engine gets at once: enough to fill its pipeline, too little to keep others waiting.
BATCH = 256


class Membership:
    """
    The other nodes, and this one's standing among them.

    Args:
        node: This one.
        clock: Monotonic seconds.

    """

    def __init__(self, node: Node, clock: Callable[[], float]) -> None:
        self._node = node
        self._clock = clock
        self._registry = Registry(clock())
        self._announced_at = -ANNOUNCE_INTERVAL
        self._is_leaving = False
        self._is_cut_off = False
        self._has_fresh_metrics = True
        self._has_to_restore = False
        self._has_to_rejoin = False
        self._busy: set[str] = set()

    def others(self) -> list[NodeInfo]:
        """Return the other nodes that live, by name."""
        return self._registry.listed(self._clock())

    # --- what this node says ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin to hear, and announce this node."""
        self._registry = Registry(self._clock())
        self._work("announce", self._announce())

    def leave(self) -> None:
        """Tell the others that this node's clients are sent away."""
        if not self._is_leaving:
            self._is_leaving = True
            self._node.spawn(self._say_once(Shutdown()))

    def tell_metrics(self) -> None:
        """Put the metrics into the next announcement."""
        self._has_fresh_metrics = True

    async def _announce(self) -> None:
        started_at = self._clock()
        has_metrics = self._has_fresh_metrics
        body: ControlBody = Shutdown()
        if not self._is_leaving:
            body = Announcement(self._node.info(has_metrics=has_metrics))
        try:
            await self._node.tell(body)
        except EngineError:
            # One line for an outage, not one a second.
            level = logging.DEBUG if self._is_cut_off else logging.WARNING
            self._is_cut_off = True
            logger.log(level, "this node was not announced", exc_info=True)
            return  # the next tick tries again
        self._is_cut_off = False
        self._announced_at = started_at
        if has_metrics:
            self._has_fresh_metrics = False

    async def _say_once(self, body: ControlBody, uid: str = "") -> None:
        try:
            await self._node.tell(body, uid)
        except EngineError:
            logger.warning("a message to other nodes was not sent", exc_info=True)

    # --- what it hears ---------------------------------------------------------------------------

    def on_announcement(self, info: NodeInfo) -> None:
        """Take one from another node; one that is new here learns of this node at once."""
        if self._registry.hear(info, self._clock()) and not self._is_leaving:
            logger.info("a node came", extra={"node": info.name})
            self._node.spawn(self._say_once(Announcement(self._node.info()), info.uid))

    def on_own_message(self) -> None:
        """Take this node's own announcement, back from the bus."""
        was_away = self._registry.hear_myself(self._clock())
        if self._has_to_restore:
            self._work("restore", self._restore())
        elif was_away:
            logger.warning("this node was cut off or stopped: its presence entries are put back")
            self._come_back()

    def on_shutdown(self, uid: str) -> None:
        """Take another node's farewell."""
        if self._registry.leave(uid, self._clock()):
            logger.info("a node shuts down", extra={"node_id": uid})
            self._expect_answers()

    def on_buried(self) -> None:
        """Others took this node for dead and told its clients' leaves."""
        logger.warning("other nodes took this one for dead: its presence entries are put back")
        self._has_to_rejoin = True
        self._come_back()

    def _come_back(self) -> None:
        # Once this node is heard again: entries that come earlier could be buried by another survivor, whose turn is
        # a second later. What is heard here next was said after this moment, or it is old news that comes in order.
        self._has_to_restore = True
        self._work("announce", self._announce())

    def on_lost(self) -> None:
        """The bus may have lost messages."""
        self._registry.lose(self._clock())

    # --- once a second ---------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock()
        # A tick comes a little early or late; half of one is the tolerance.
        if now - self._announced_at >= ANNOUNCE_INTERVAL - 0.5 or self._has_to_restore:
            self._work("announce", self._announce())
        for uid in self._registry.dead(now):
            self._work(uid, self._bury(uid))
        self._expect_answers()

    def _expect_answers(self) -> None:
        self._node.surveys.expect_only({each.uid for each in self.others()})

    def _work(self, what: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something unless it runs already: a slow engine must not pile up rounds."""
        if what in self._busy:
            coroutine.close()
            return
        self._busy.add(what)
        self._node.spawn(self._until_done(what, coroutine))

    async def _until_done(self, what: str, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        finally:
            self._busy.discard(what)

    # --- the dead --------------------------------------------------------------------------------

    async def _bury(self, uid: str) -> None:
        """Remove what a dead node left, and tell the leaves if this node is the one that got it."""
        try:
            left = await self._node.presence.remove_node(uid)
        except EngineError:
            logger.warning("the presence of a dead node was not removed", exc_info=True)
            return  # the next tick tries again
        self._registry.forget(uid)
        logger.info("a node is gone", extra={"node_id": uid, "entries": len(left)})
        if not left:
            return
        try:
            await _in_batches(self._tell_leave(channel, info) for channel, info in left)
        except EngineError:
            logger.warning("leaves of a dead node were not published", exc_info=True)
        # After the leaves: if it does live, its joins must come later.
        await self._say_once(Buried(), uid)

    async def _tell_leave(self, channel: str, info: ClientInfo) -> None:
        found = self._node.table.resolve(channel)
        if found is not None and found.options.join_leave:
            await self._node.broker.publish_leave(channel, info)

    async def _restore(self) -> None:
        """Put this node's presence entries back, and tell the joins if the leaves were told."""
        with_joins = self._has_to_rejoin
        self._has_to_restore = self._has_to_rejoin = False
        clients = tuple(self._node.hub.clients)
        try:
            await _in_batches(client.restore_presence(with_joins=with_joins) for client in clients)
        except EngineError:
            logger.warning("presence entries were not put back", exc_info=True)
            self._has_to_restore = True
            self._has_to_rejoin |= with_joins


async def _in_batches(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all, some at a time; raises the first error of a batch once the batch has ended."""
    remaining = iter(work)
    while batch := tuple(islice(remaining, BATCH)):
        _raise_first(await asyncio.gather(*batch, return_exceptions=True))


def _raise_first(outcomes: Sequence[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
