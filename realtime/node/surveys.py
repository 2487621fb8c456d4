"""
Questions to all nodes, answered together, and to one.

A node answers on its loop and at once, from what it has in memory. The answers of nodes that this one doesn't know yet
count too if they come in time; those of a node that is found to be gone are no longer waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from realtime.node.control import SurveyRequest, SurveyResponse
from realtime.protocol.errors import EngineError


if TYPE_CHECKING:
    from realtime.node.node import Node

logger = logging.getLogger(__name__)

SURVEY_TIMEOUT = 10.0  # seconds, as in the reference
_FAILED = 1

Answer = Callable[[Raw], Any]
"""From the question's JSON to something that ``msgspec`` encodes as JSON; synchronous."""


class _Survey:
    """One question on its way; ``answered`` ends when nobody is waited for."""

    __slots__ = ("answered", "answers", "missing")

    def __init__(self, missing: Collection[str], answered: asyncio.Future[None]) -> None:
        self.missing = set(missing)
        self.answers: list[Raw] = []
        self.answered = answered

    def take(self, uid: str, response: SurveyResponse) -> None:
        if self.answered.done():
            return
        if response.code:
            self.fail(f"node {uid} answered a survey with code {response.code}")
            return
        self.answers.append(response.data.copy())
        self.leave_out({uid})

    def leave_out(self, uids: Collection[str]) -> None:
        self.missing.difference_update(uids)
        if not self.missing and not self.answered.done():
            self.answered.set_result(None)

    def fail(self, message: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(EngineError(message))

    def expire(self) -> None:
        self.fail(f"no answer to a survey from nodes {', '.join(sorted(self.missing))}")


class Surveys:
    """
    A node's questions and answers.

    Args:
        node: Whose.
        operations: How this node answers, by the operation's name.
        timeout: Seconds that a question waits for all answers.

    """

    def __init__(
        self, node: Node, operations: Mapping[str, Answer], timeout: float = SURVEY_TIMEOUT
    ) -> None:
        self.timeout = timeout
        self._node = node
        self._operations = operations
        self._ids = itertools.count(1)
        self._open: dict[int, _Survey] = {}

    async def ask(self, operation: str, question: Any) -> list[Raw]:
        """
        Ask all nodes, this one included.

        Args:
            operation: Its name.
            question: Something that ``msgspec`` encodes as JSON.

        Returns:
            The answers' JSON, in no order.

        Raises:
            EngineError: The question can't be sent, a node failed, or one that is known gave no answer in time.

        """
        data = Raw(msgspec.json.encode(question))
        own = Raw(msgspec.json.encode(self._operations[operation](data)))
        # To nobody too: an engine that is away must not pass for a cluster of one.
        others = [each.uid for each in self._node.members.others()]
        return [own, *await self._ask(others, operation, data)]

    async def ask_one(self, uid: str, operation: str, question: Any) -> Raw:
        """
        Ask another node.

        Args:
            uid: The node's id.
            operation: Its name.
            question: Something that ``msgspec`` encodes as JSON.

        Raises:
            EngineError: The question can't be sent, or the node failed, is gone, or gave no answer in time.

        """
        answers = await self._ask((uid,), operation, Raw(msgspec.json.encode(question)), uid)
        if not answers:
            message = f"node {uid} went before it answered a survey"
            raise EngineError(message)
        return answers[0]

    async def _ask(
        self, missing: Collection[str], operation: str, data: Raw, to: str = ""
    ) -> list[Raw]:
        """Wait for the answers of ``missing``; ``to`` is who hears the question, everybody if empty."""
        loop = asyncio.get_running_loop()
        survey = _Survey(missing, loop.create_future())
        request = SurveyRequest(next(self._ids), operation, data)
        self._open[request.id] = survey
        # No asyncio.timeout: this may be driven without a task of its own.
        timer = loop.call_later(self.timeout, survey.expire)
        try:
            await self._node.tell(request, to)
            survey.leave_out(())
            await survey.answered
        finally:
            timer.cancel()
            survey.answered.cancel()
            del self._open[request.id]
        return survey.answers

    async def answer(self, sender: str, request: SurveyRequest) -> None:
        """Answer another node."""
        try:
            answer = self._operations[request.operation](request.data)
            response = SurveyResponse(request.id, data=Raw(msgspec.json.encode(answer)))
        except Exception:
            logger.exception("a survey was not answered", extra={"operation": request.operation})
            response = SurveyResponse(request.id, code=_FAILED)
        try:
            await self._node.tell(response, sender)
        except EngineError:
            logger.warning("the answer to a survey was not sent", exc_info=True)

    def on_response(self, sender: str, response: SurveyResponse) -> None:
        """Take another node's answer; one that comes too late is dropped."""
        survey = self._open.get(response.id)
        if survey is not None:
            survey.take(sender, response)

    def expect_only(self, uids: Collection[str]) -> None:
        """Wait no longer for nodes other than these."""
        for survey in tuple(self._open.values()):
            survey.leave_out(survey.missing.difference(uids))
