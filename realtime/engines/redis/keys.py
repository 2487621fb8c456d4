"""
What things are called in Redis: keys, PUB/SUB channels, groups, and which shard has them.

The keys are Centrifugo's, so an operator's scripts find them. Where its names run into each other ours do not: the stream
of a channel ``meta.x`` would be the record of ``x``, and the result of channel ``a`` with key ``b.c`` that of ``a.b``
with ``c``. In a cluster all keys of a channel, and its group's PUB/SUB channel, carry the tag ``{group}``, so that one
script may touch them.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec


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


class GroupNames(msgspec.Struct, frozen=True, gc=False):
    """Of a channel's group: its name, and the PUB/SUB channel that it is in Redis."""

    group: str
    group_channel: bytes


class ChannelKeys(GroupNames, frozen=True, gc=False):
    """All names of one channel."""

    stream: bytes
    stream_meta: bytes
    list: bytes
    list_meta: bytes
    result: bytes
    presence: bytes
    presence_expire: bytes
    presence_users: bytes
    presence_users_expire: bytes

    def result_of(self, idempotency_key: str) -> bytes:
        """Name the remembered result of a publish."""
        return self.result + idempotency_key.encode()


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
        prefix, group = self._prefix, group_of(channel)
        tag = f"{{{group}}}." if self._is_cluster else ""
        named = tag + channel
        # The records are below "meta.": a channel of that name steps aside, and so does one that steps there.
        stored = tag + (f".{channel}" if channel.startswith((".", "meta.")) else channel)
        names = (
            f"{prefix}__group__{{{group}}}" if self._is_cluster else f"{prefix}__group__{group}",
            f"{prefix}.stream.{stored}",
            f"{prefix}.stream.meta.{named}",
            f"{prefix}.list.{stored}",
            f"{prefix}.list.meta.{named}",
            f"{prefix}.result.{{{group}}}." if self._is_cluster else f"{prefix}.result.{group}.",
            f"{prefix}.presence.data.{named}",
            f"{prefix}.presence.expire.{named}",
            f"{prefix}.presence.user.clients.{named}",
            f"{prefix}.presence.user.expire.{named}",
        )
        return ChannelKeys(group, *[name.encode() for name in names])

    def node(self, node_id: str) -> bytes:
        """Name the PUB/SUB channel of one node."""
        return f"{self._prefix}.node.{node_id}".encode()

    def node_presence(self, node_id: str) -> bytes:
        """Name the set of presence entries that a node has made."""
        return f"{self._prefix}.node.{node_id}.presence".encode()

    def node_lock(self, node_id: str) -> bytes:
        """Name the lock of those who would clear up after a node."""
        return f"{self._prefix}.node.{node_id}.lock".encode()
