"""
Sessions whose commands come by requests of their own, on whichever node such a request lands.

A stream goes from the server to the client; what the client says is a ``POST`` that names the session and its node. The node that
gets it hands it in, or asks the one that has the session to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from realtime.protocol.errors import EngineError


if TYPE_CHECKING:
    from realtime.node.node import Node

Deliver = Callable[[bytes], None]


class UnknownNodeError(Exception):
    """There is no such node, or no more."""


class Emulated(msgspec.Struct, frozen=True, array_like=True):
    """Framed commands for a session, from node to node."""

    session: str
    data: bytes


class Emulation:
    """This node's sessions, by their secret names."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sessions: dict[str, Deliver] = {}

    def add(self, session_id: str, deliver: Deliver) -> None:
        """Have ``deliver`` called with each request's framed commands."""
        self._sessions[session_id] = deliver

    def discard(self, session_id: str) -> None:
        """Forget a session; unknown ones are no error."""
        self._sessions.pop(session_id, None)

    def deliver(self, session_id: str, data: bytes) -> None:
        """Hand commands to a session of this node; those for one that is gone are dropped, as on a closing socket."""
        deliver = self._sessions.get(session_id)
        if deliver is not None:
            deliver(data)

    async def forward(self, node_id: str, session_id: str, data: bytes) -> None:
        """
        Hand commands to a session of any node, and return when they have begun to be carried out.

        Raises:
            UnknownNodeError: No node has this id.
            EngineError: The node can't be reached, or gave no answer in time.

        """
        if node_id == self._node.id:
            self.deliver(session_id, data)
            return
        if not self._is_known(node_id):
            raise UnknownNodeError(node_id)
        try:
            await self._node.surveys.ask_one(node_id, "emulation", Emulated(session_id, data))
        except EngineError as error:
            if self._is_known(node_id):
                raise
            raise UnknownNodeError(node_id) from error

    def answer(self, question: Raw) -> None:
        """Take commands that another node was sent."""
        emulated = msgspec.json.decode(question, type=Emulated)
        self.deliver(emulated.session, emulated.data)

    def _is_known(self, node_id: str) -> bool:
        return any(each.uid == node_id for each in self._node.members.others())
