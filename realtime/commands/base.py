"""
What all commands share: the node they run on, and how they look up, read and fail.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

from msgspec import Raw

from realtime.conf.options import ProcessOptions
from realtime.engines.base import (
    History,
    HistoryFilter,
    PresenceManager,
    PublishOptions,
    PublishOutcome,
)
from realtime.engines.maps import MapBroker
from realtime.namespaces.table import Channel, NamespaceTable
from realtime.node.control import ControlCommand, NodeInfo
from realtime.node.eager import run_eagerly
from realtime.node.polls.feeds import KeyPublish
from realtime.protocol import messages
from realtime.protocol.errors import (
    BadRequestError,
    EngineError,
    InternalError,
    UnknownChannelError,
)
from realtime.protocol.messages import EMPTY, payload


logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CONCURRENT = 1024  # commands of one batch or channels of one broadcast, as in the reference


class CommandNode(Protocol):
    """What commands need of a node; ``realtime.node.node.Node`` has it."""

    @property
    def table(self) -> NamespaceTable:
        """The channel options in force."""

    @property
    def presence(self) -> PresenceManager | None:
        """Who is in which channel, where the engine keeps that."""

    @property
    def maps(self) -> MapBroker:
        """The maps."""

    @property
    def options(self) -> ProcessOptions:
        """What the process was started with."""

    def publish(
        self, channel: Channel, publication: messages.Publication, options: PublishOptions
    ) -> Coroutine[Any, Any, PublishOutcome]:
        """Publish; raises ``EngineError``."""

    async def publish_polled(self, value: KeyPublish) -> None:
        """Tell all nodes that track a key of a shared poll its value; raises ``EngineError``."""

    async def history(self, channel: Channel, what: HistoryFilter) -> History:
        """Read a stream; raises ``EngineError``, or 112 where ``what.since`` belongs to another epoch."""

    async def remove_history(self, channel: Channel) -> None:
        """Drop a stream's publications; raises ``EngineError``."""

    async def control(self, command: ControlCommand) -> None:
        """Carry a command out on all nodes; raises ``EngineError``."""

    async def survey_channels(self, pattern: str = "") -> Mapping[str, int]:
        """Return the number of subscribers on all nodes, by channel that matches; raises ``EngineError``, ``GlobError``."""

    async def survey_nodes(self) -> Sequence[NodeInfo]:
        """Return what the nodes say of themselves; raises ``EngineError``."""


def find_channel(node: CommandNode, name: str) -> Channel:
    """Return the channel; raises 107 without a name, 102 where its namespace is unknown."""
    if not name:
        raise BadRequestError
    channel = node.table.resolve(name)
    if channel is None:
        raise UnknownChannelError
    return channel


def read_payload(raw: Raw, base64: str) -> Raw:
    """
    Return the payload; raises 107 where the base64 is broken.

    Base64 wins, and a raw one is cut loose from the request's body, which it would keep alive.
    """
    if base64:
        try:
            return payload(binascii.a2b_base64(base64.translate(_NO_LINE_BREAKS), strict_mode=True))
        except ValueError as error:  # not ASCII, or not base64
            raise BadRequestError from error
    return raw.copy() if raw else EMPTY


# Go's decoder skips them.
_NO_LINE_BREAKS = {ord("\n"): None, ord("\r"): None}


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn a backend's failure into what the caller may know of it."""
    try:
        yield
    except EngineError as error:
        raise internal_error(error) from error


def internal_error(error: EngineError) -> InternalError:
    """Log a backend's failure and return what the caller gets."""
    logger.error("the engine failed: %s", error)
    return InternalError()


async def run_together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines that don't raise; those that suspend wait together, at most 1024 at a time."""
    results: list[T | None] = []
    for start in range(0, len(coroutines), MAX_CONCURRENT):
        waiting: dict[int, asyncio.Task[T]] = {}
        for index, coroutine in enumerate(coroutines[start : start + MAX_CONCURRENT], start):
            result, task = run_eagerly(coroutine)
            results.append(result)
            if task is not None:
                waiting[index] = task
        if waiting:
            for index, result in zip(waiting, await asyncio.gather(*waiting.values()), strict=True):
                results[index] = result
    return cast("list[T]", results)
