"""
Publishes of one connection that wait for their broker while commands behind them are carried out already.

A broker's answer takes a round trip. Of a client that sends publish after publish each used to wait for the one before: a
task, a write to the broker, a write to the client and some turns of the loop for each, 57 µs over Redis, where 10 are the
work. On their way together they share all that. The broker says where nobody can overtake (``takes_ahead``); replies are written
in the order of the commands, and any command but a publish waits until all publishes before it have ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from realtime.engines.prompt import PromptFuture
from realtime.protocol.errors import InternalError
from realtime.protocol.messages import Command


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.node.eager import Driven

MOST = 64  # publishes of one connection
MOST_BYTES = 1024  # of a payload: all of them take no more than one large message, which any client may have on its way


class Ahead:
    """The publishes of ``client`` that are not answered yet; false when there is none."""

    __slots__ = ("_client", "_is_answering", "_loop", "_publishes", "_turn")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = client.node.loop or asyncio.get_running_loop()
        self._publishes: deque[_Publish] = deque()
        self._turn: PromptFuture[None] | None = None
        self._is_answering = False

    def __len__(self) -> int:
        return len(self._publishes)

    def add(self, command: Command, driven: Driven[bytes]) -> bool:
        """Take a publish that waits; say whether the next command may be carried out meanwhile."""
        publish = _Publish(self, command)
        driven.on_end = publish.end
        self._publishes.append(publish)
        request, node = command.publish, self._client.node
        assert request is not None
        if request.type or len(request.data) > MOST_BYTES or len(self._publishes) >= MOST:
            return False
        channel = node.table.resolve(request.channel)
        return channel is not None and node.broker.takes_ahead(channel.name, channel.has_history)

    def put(self, command: Command, reply: bytes) -> None:
        """Take the reply of a publish that did not wait, to write it behind the others."""
        publish = _Publish(self, command)
        self._publishes.append(publish)
        publish.end(reply, None)

    async def ended(self) -> None:
        """Return when all have ended and are answered; one caller at a time."""
        if self._publishes:
            self._turn = PromptFuture(loop=self._loop)
            await self._turn

    def refusal(self, command: Command, failure: BaseException) -> bytes:
        """Encode the reply to a publish that failed."""
        client = self._client
        if not isinstance(failure, Exception):
            failure = InternalError()  # it was cancelled, as the loop ends
        return client.refusal(command, "publish", failure)

    def answer_soon(self) -> None:
        """Write the replies that are due with the loop's next turn: until then more will be."""
        if not self._is_answering:
            self._is_answering = True
            self._loop.call_soon(self.answer)

    def answer(self) -> None:
        """Write the replies that are due, and let go on who waits for all of them."""
        self._is_answering = False
        due = self.take()
        if due:
            self._client.write_checked(due)
        if not self._publishes and self._turn is not None:
            turn, self._turn = self._turn, None
            turn.settle(None)

    def take(self) -> bytes:
        """Return the replies that are due, joined, and forget them."""
        publishes = self._publishes
        due: list[bytes] = []
        while publishes and (reply := publishes[0].reply) is not None:
            publishes.popleft()
            due.append(reply)
        return self._client.wire.separator.join(due)


class _Publish:
    """One publish; ``reply`` is there when it has ended."""

    __slots__ = ("_ahead", "_command", "reply")

    def __init__(self, ahead: Ahead, command: Command) -> None:
        self._ahead = ahead
        self._command = command
        self.reply: bytes | None = None

    def end(self, reply: bytes | None, failure: BaseException | None) -> None:
        """Note the outcome."""
        ahead = self._ahead
        if failure is not None:
            reply = ahead.refusal(self._command, failure)
        self.reply = reply
        ahead.answer_soon()
