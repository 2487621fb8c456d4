"""
Presence in Redis: a hash per channel, whose entries end when they are not refreshed in time.

Each entry is also named in a set of the node that made it, so that survivors can clear up after a dead node at once. In
a cluster that set is in another slot than the channel: it is written before the entry and changed after it, so it may
name more than there is, never less.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence

from realtime.engines.base import PresenceStats
from realtime.engines.redis import scripts
from realtime.engines.redis.encoding import encode_info, read_info
from realtime.engines.redis.keys import ChannelKeys, Naming, shard_of
from realtime.engines.redis.shard import Shard
from realtime.protocol.errors import ConfigError
from realtime.protocol.messages import ClientInfo


KNOWN_CHANNELS = 1 << 14
LOCK_TTL_MS = 30_000  # one that clears up and dies is followed by another
CLEAR_BATCH = 256  # entries that one round trip takes away
_SEPARATOR = b"\n"  # a client id is ours and has none


class RedisPresence:
    """
    Presence manager over Redis.

    Args:
        shards: Started by whoever made them.
        naming: Of keys.
        node_id: Whose entries these are.
        ttl: Seconds that an entry lives unless it is refreshed.
        use_field_ttl: Let Redis expire single entries (Redis 7.4, Valkey 9).
        has_user_mapping: Count users in Redis, so that stats need not read the entries.
        clock: Unix time in seconds.

    """

    def __init__(
        self,
        shards: Sequence[Shard],
        naming: Naming,
        *,
        node_id: str,
        ttl: float = 60.0,
        use_field_ttl: bool = False,
        has_user_mapping: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shards = shards
        self._naming = naming
        self._owner = node_id.encode()
        self._node_key = naming.node_presence(node_id)
        self._ttl = ttl
        self._ttl_ms = int(ttl * 1000)
        self._use_field_ttl = use_field_ttl
        self._has_users = b"1" if has_user_mapping else b"0"
        self._clock = clock
        self._route = functools.lru_cache(KNOWN_CHANNELS)(self._make_route)

    def _make_route(self, channel: str) -> tuple[Shard, tuple[bytes, ...]]:
        keys: ChannelKeys = self._naming.channel(channel)
        shard = self._shards[shard_of(channel, len(self._shards))]
        return shard, (
            keys.presence,
            keys.presence_expire,
            keys.presence_users,
            keys.presence_users_expire,
        )

    async def check_support(self) -> None:
        """Raise ``ConfigError`` where entries are to expire as fields and Redis can't do that."""
        if not self._use_field_ttl:
            return
        for shard in self._shards:
            (known,) = await shard.call(self._node_key, b"COMMAND", b"INFO", b"HPEXPIRE")
            if not known:
                message = (
                    "presence_hash_field_ttl needs Redis 7.4 or newer (HPEXPIRE); "
                    "this server does not have it"
                )
                raise ConfigError(message)

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        """Record or refresh an entry; it ends after the TTL unless it is refreshed."""
        shard, keys = self._route(channel)
        member = _member(channel, client_id)
        if shard.is_cluster:
            # The set first: an entry that no set names would outlive its node by the TTL.
            await shard.run(scripts.PRESENCE_INDEX, (self._node_key,), (member, self._ttl_ms))
        else:
            keys = (*keys, self._node_key)
        arguments = (
            client_id,
            encode_info(info),
            info.user,
            self._ttl_ms,
            int(self._clock() + self._ttl),
            self._has_users,
            b"1" if self._use_field_ttl else b"0",
            member,
        )
        await shard.run(scripts.PRESENCE_ADD, keys, arguments)

    async def remove(self, channel: str, client_id: str, user: str) -> None:
        """Forget an entry; unknown ones are no error."""
        shard, keys = self._route(channel)
        member = _member(channel, client_id)
        if not shard.is_cluster:
            keys = (*keys, self._node_key)
        await shard.run(scripts.PRESENCE_REMOVE, keys, (client_id, self._has_users, member))
        if shard.is_cluster:
            await shard.call(self._node_key, b"SREM", self._node_key, member)

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Return the entries by client id."""
        shard, keys = self._route(channel)
        flat = await shard.run(scripts.PRESENCE_GET, keys, (int(self._clock()), self._has_users))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {client.decode(): read_info(info) for client, info in pairs}

    async def presence_stats(self, channel: str) -> PresenceStats:
        """Count them; without a user mapping that means reading them."""
        if self._has_users == b"0":
            entries = await self.presence(channel)
            return PresenceStats(len(entries), len({info.user for info in entries.values()}))
        shard, keys = self._route(channel)
        clients, users = await shard.run(scripts.PRESENCE_STATS, keys, (int(self._clock()),))
        return PresenceStats(clients, users)

    # --- after a node that died -----------------------------------------------------------------------

    async def remove_node(self, node_id: str) -> Sequence[tuple[str, ClientInfo]]:
        """
        Take away the entries of a node that died.

        Whoever calls this first for a node does the work, shard by shard, and may call again where it failed; to the
        others nothing is returned, and no entry is returned twice.
        """
        removed: list[tuple[str, ClientInfo]] = []
        for shard in self._shards:
            removed += await self._remove_node_from(shard, node_id)
        return removed

    async def _remove_node_from(self, shard: Shard, node_id: str) -> list[tuple[str, ClientInfo]]:
        lock, key = self._naming.node_lock(node_id), self._naming.node_presence(node_id)
        is_first = await shard.call(lock, b"SET", lock, self._owner, b"NX", b"PX", LOCK_TTL_MS)
        if not is_first and await shard.call(lock, b"GET", lock) != self._owner:
            return []
        removed: list[tuple[str, ClientInfo]] = []
        while members := await shard.call(key, b"SPOP", key, CLEAR_BATCH):
            removed += await self._take(members)
        await shard.call(lock, b"DEL", lock)
        return removed

    async def _take(self, members: Sequence[bytes]) -> list[tuple[str, ClientInfo]]:
        entries = [_entry(member) for member in members]
        infos = await asyncio.gather(
            *(self._take_one(channel, client_id) for channel, client_id in entries)
        )
        return [
            (channel, read_info(info))
            for (channel, _), info in zip(entries, infos, strict=True)
            if info is not None
        ]

    async def _take_one(self, channel: str, client_id: str) -> bytes | None:
        shard, keys = self._route(channel)
        info: bytes | None = await shard.run(
            scripts.PRESENCE_REMOVE, keys, (client_id, self._has_users, b"")
        )
        return info


def _member(channel: str, client_id: str) -> bytes:
    return b"%b%b%b" % (client_id.encode(), _SEPARATOR, channel.encode())


def _entry(member: bytes) -> tuple[str, str]:
    client_id, _, channel = member.partition(_SEPARATOR)
    return channel.decode(), client_id.decode()
