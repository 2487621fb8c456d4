"""
What things are called in Redis: keys, PUB/SUB channels, groups, and which shard has them.

The keys are Centrifugo's, so an operator's scripts find them. Where its names run into each other ours do not: the stream
of a channel ``meta.x`` would be the record of ``x``, and the result of channel ``a`` with key ``b.c`` that of ``a.b``
with ``c``. In a cluster all keys of a channel, and its group's PUB/SUB channel, carry the tag ``{group}``, so that one
script may touch them.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from typing import Protocol


_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_LCG_MULTIPLIER = 2862933555777941757
_MASK = 0xFFFFFFFFFFFFFFFF


def group_of(channel: str) -> str:
    """Name a channel's group: layers take 100 characters of ASCII, channels are longer and freer."""
    return blake2b(channel.encode(), digest_size=16).hexdigest()


def shard_of(channel: str, count: int) -> int:
    """
    Choose a channel's shard among ``count``: jump consistent hash over FNV-1a (64 bits).

    One more shard moves only 1/(count + 1) of the channels.

    Source:
        Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm"; ``engines`` 3.5.

    """
    if count == 1:
        return 0
    key = _FNV_OFFSET
    for byte in channel.encode():
        key = ((key ^ byte) * _FNV_PRIME) & _MASK
    bucket, following = -1, 0
    while following < count:
        bucket = following
        key = (key * _LCG_MULTIPLIER + 1) & _MASK
        following = int((bucket + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return bucket


class GroupNames(Protocol):
    """Of a channel's group: its name, and the PUB/SUB channel that it is in Redis."""

    @property
    def group(self) -> str: ...

    @property
    def group_channel(self) -> bytes: ...


class ChannelKeys:
    """
    All names of one channel.

    Keys are named when they are first asked for: a subscribe to a channel without history needs none of them, and all would
    take 6 µs.

    Args:
        prefix: Of all names.
        channel: Whose names they are.
        is_cluster: Whether they must hash to one slot.

    """

    def __init__(self, prefix: str, channel: str, *, is_cluster: bool) -> None:
        self.group = group_of(channel)
        tagged = f"{{{self.group}}}" if is_cluster else self.group
        self.group_channel = f"{prefix}__group__{tagged}".encode()
        self._prefix = prefix
        self._channel = channel
        self._tag = f"{tagged}." if is_cluster else ""

    def _record(self, kind: str) -> bytes:
        return f"{self._prefix}.{kind}.{self._tag}{self._channel}".encode()

    def _stored(self, kind: str) -> bytes:
        # Records are below "meta.": a channel of that name steps aside, and so does one that steps there.
        aside = "." if self._channel.startswith((".", "meta.")) else ""
        return f"{self._prefix}.{kind}.{self._tag}{aside}{self._channel}".encode()

    @cached_property
    def stream(self) -> bytes:
        """The stream."""
        return self._stored("stream")

    @cached_property
    def stream_meta(self) -> bytes:
        """What is known of the stream."""
        return self._record("stream.meta")

    @cached_property
    def list(self) -> bytes:
        """The stream as a list."""
        return self._stored("list")

    @cached_property
    def list_meta(self) -> bytes:
        """What is known of the list."""
        return self._record("list.meta")

    @cached_property
    def presence(self) -> bytes:
        """Who is there."""
        return self._record("presence.data")

    @cached_property
    def presence_expire(self) -> bytes:
        """Until when each is there."""
        return self._record("presence.expire")

    @cached_property
    def presence_users(self) -> bytes:
        """How many connections each user has there."""
        return self._record("presence.user.clients")

    @cached_property
    def presence_users_expire(self) -> bytes:
        """Until when each user is there."""
        return self._record("presence.user.expire")

    def result_of(self, idempotency_key: str) -> bytes:
        """Name the remembered result of a publish."""
        return f"{self._prefix}.result.{self._tag or f'{self.group}.'}{idempotency_key}".encode()


class Naming:
    """
    The names of one deployment.

    Args:
        prefix: Of all names.
        is_cluster: Whether names of one channel must hash to one slot.

    """

    def __init__(self, prefix: str, *, is_cluster: bool = False) -> None:
        self._prefix = prefix
        self._is_cluster = is_cluster
        self.control = f"{prefix}.control".encode()

    def channel(self, channel: str) -> ChannelKeys:
        """Make a channel's names."""
        return ChannelKeys(self._prefix, channel, is_cluster=self._is_cluster)

    def node(self, node_id: str) -> bytes:
        """Name the PUB/SUB channel of one node."""
        return f"{self._prefix}.node.{node_id}".encode()

    def node_presence(self, node_id: str) -> bytes:
        """Name the set of presence entries that a node has made."""
        return f"{self._prefix}.node.{node_id}.presence".encode()

    def node_lock(self, node_id: str) -> bytes:
        """Name the lock of those who would clear up after a node."""
        return f"{self._prefix}.node.{node_id}.lock".encode()
