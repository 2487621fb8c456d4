"""
What maps are called in Redis.

The keys are Centrifugo's, but for channels that would run into another's names. A map's deadlines are announced in an index
of its shard, in the same step as they are set. In a cluster that takes one index per slot that maps live in, so they live in
few: 64, spread over the slots, so that each of up to a dozen masters has its share, and each node asks 64 indexes a second
what is due.
"""

from __future__ import annotations

import functools
from itertools import count

import msgspec

from realtime.engines.redis.cluster import SLOTS, slot_of
from realtime.engines.redis.keys import group_of, shard_of


PARTITIONS = 64  # what is stored is found by it, so it can't be another number


class MapKeys(msgspec.Struct, frozen=True, gc=False):
    """All names of one map."""

    group: str
    group_channel: bytes
    state: bytes
    order: bytes
    deadlines: bytes
    versions: bytes
    record: bytes
    stream: bytes
    index: bytes
    result: bytes

    def of_script(self, idempotency_key: str = "") -> tuple[bytes, ...]:
        """List them as scripts take them, with the remembered result of a change that has a key for it."""
        names = (
            self.state,
            self.order,
            self.deadlines,
            self.versions,
            self.record,
            self.stream,
            self.index,
        )
        return (*names, self.result + idempotency_key.encode()) if idempotency_key else names


class MapNaming:
    """
    The names of one deployment's maps.

    Args:
        prefix: Of all names.
        is_cluster: Whether names of one channel must hash to one slot.

    """

    def __init__(self, prefix: str, *, is_cluster: bool = False) -> None:
        self._prefix = prefix
        self._tags = tuple(f"{{{tag}}}" for tag in partition_tags()) if is_cluster else ()
        self._index = f"{prefix}:cleanup:channels"
        indexes = [f"{self._index}:{tag}" for tag in self._tags] or [self._index]
        self.indexes = tuple(index.encode() for index in indexes)

    def channel(self, channel: str) -> MapKeys:
        """Make a map's names."""
        prefix, group = self._prefix, group_of(channel)
        place = shard_of(channel, len(self.indexes))
        tag = f"{self._tags[place]}." if self._tags else ""
        named = tag + channel
        # Other keys are below these: a channel of such a name steps aside, and so does one that steps there.
        is_aside = channel.startswith((".", "order:", "expire:", "meta:"))
        names = (
            f"{prefix}__group__{tag}{group}",
            f"{prefix}:state:{tag}{'.' if is_aside else ''}{channel}",
            f"{prefix}:state:order:{named}",
            f"{prefix}:state:expire:{named}",
            f"{prefix}:state:meta:{named}",
            f"{prefix}:meta:{named}",
            f"{prefix}:stream:{named}",
            self._index + (f":{self._tags[place]}" if self._tags else ""),
            f"{prefix}.result.{tag}{group}.",
        )
        return MapKeys(f"{tag}{group}", *[name.encode() for name in names])


@functools.cache
def partition_tags() -> tuple[str, ...]:
    """Find hash tags, one for each of as many equal parts of the slots: the smallest numbers that fall there."""
    found: dict[int, str] = {}
    for number in count():
        tag = str(number)
        found.setdefault(slot_of(tag.encode()) * PARTITIONS // SLOTS, tag)
        if len(found) == PARTITIONS:
            break
    return tuple(found[part] for part in range(PARTITIONS))
