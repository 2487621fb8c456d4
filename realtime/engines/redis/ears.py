"""What is heard in the groups of channels, told to the node."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from realtime.engines.base import NO_POSITION, BrokerEvents
from realtime.engines.redis.channel_layer import NodeEars
from realtime.engines.redis.encoding import (
    ChangeMessage,
    JoinMessage,
    LeaveMessage,
    PublicationMessage,
    client_info,
    decode_group_message,
    read_stored,
    read_value,
)
from realtime.protocol.messages import Publication, StreamPosition, payload


logger = logging.getLogger(__name__)


class BrokerEars(NodeEars):
    """Tells the node what the layer hears."""

    def __init__(self, events: BrokerEvents) -> None:
        self._events = events
        self._on_publication = events.on_publication

    def on_group_message(self, channel: str, data: bytes) -> None:
        """Take a group's message apart: the hot path of every delivery."""
        try:
            message = decode_group_message(data)
        except msgspec.MsgspecError:
            # Anybody can speak to a group, and other programs' messages are theirs.
            logger.debug("a group's message is not ours", extra={"channel": channel})
            return
        if not isinstance(message, PublicationMessage):
            self._hear_other(channel, message)
            return
        offset, epoch, info, previous = (
            message.offset,
            message.epoch,
            message.info,
            message.previous,
        )
        publication = Publication(
            payload(message.data),
            None if info is None else client_info(info),
            offset,
            message.tags,
            epoch=epoch if offset == 1 else "",
            version=message.version,
        )
        self._on_publication(
            channel,
            publication,
            StreamPosition(offset, epoch) if offset else NO_POSITION,
            delta=message.delta,
            previous=None if previous is None else read_stored(previous, offset - 1),
            published_at=message.time,
        )

    def _hear_other(
        self, channel: str, message: JoinMessage | LeaveMessage | ChangeMessage
    ) -> None:
        if isinstance(message, ChangeMessage):
            self._hear_change(channel, message)
        elif isinstance(message, JoinMessage):
            self._events.on_join(channel, client_info(message.info))
        else:
            self._events.on_leave(channel, client_info(message.info))

    def _hear_change(self, channel: str, message: ChangeMessage) -> None:
        offset, epoch, previous = message.offset, message.epoch, message.previous
        publication = Publication(
            payload(message.data),
            None if message.info is None else client_info(message.info),
            offset,
            message.tags,
            key=message.key,
            removed=message.removed,
            epoch=epoch if offset == 1 else "",
            version=message.version,
        )
        self._on_publication(
            channel,
            publication,
            StreamPosition(offset, epoch) if offset else NO_POSITION,
            delta=message.delta,
            previous=None if previous is None else read_value(message.key, previous).publication,
            published_at=message.time,
        )

    def on_control(self, data: bytes) -> None:
        """Pass it on."""
        self._events.on_control(data)

    def on_restored(self, channels: Sequence[str] | None) -> None:
        """Have the node check its positions."""
        self._events.on_lost(channels)
