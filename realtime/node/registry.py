"""
Which nodes there are, by what this one hears.

Silence has two causes: the other node is gone, or this one is deaf (its bus is away, its process was stopped). Only the
first may cost the other its presence entries, so a node also listens for its *own* announcements. They come back through
the same bus; while they do, the others' would too::

    own announcements   |    |    |    |         a gap of over 4 s: deaf meanwhile, everyone's clock starts anew
    the other's         |    |  - - - - - - ->   over 7 s of silence in a time without gaps: dead

The same gap, when it was long enough for the others to have taken *this* node for dead, says that its presence entries
may be gone. Everything here is a decision on times that are handed in: no clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from realtime.node.control import NodeInfo


ANNOUNCE_INTERVAL = 3.0  # seconds, as in the reference
DEAD_AFTER = 7.0  # seconds of silence: two announcements failed to come
# A deafness this long swallows one announcement at most: the last one heard was then up to 3 s before it.
DEAF_AFTER = DEAD_AFTER - ANNOUNCE_INTERVAL
# Others count from when they heard this node, which is when it heard itself, give or take the way.
AWAY_AFTER = DEAD_AFTER - 0.5


@dataclass(slots=True)
class _Peer:
    info: NodeInfo
    heard_at: float
    is_leaving: bool = False


class Registry:
    """
    The other nodes.

    Args:
        now: When it begins. This and all other times are seconds of one monotonic clock.

    """

    def __init__(self, now: float) -> None:
        self._peers: dict[str, _Peer] = {}
        self._heard_myself_at = now
        self._hearing_since = now

    def hear(self, info: NodeInfo, now: float) -> bool:
        """Take an announcement; say whether the node was unknown."""
        known = self._peers.get(info.uid)
        if known is not None and not info.metrics:
            info = replace(info, metrics=known.info.metrics)
        self._peers[info.uid] = _Peer(info, now)
        return known is None

    def hear_myself(self, now: float) -> bool:
        """Take this node's own announcement; say whether the others may have taken it for dead meanwhile."""
        gap = now - self._heard_myself_at
        self._heard_myself_at = now
        if gap > DEAF_AFTER:
            self._hearing_since = now
        return gap > AWAY_AFTER

    def lose(self, now: float) -> None:
        """The bus says that it may have lost messages: nobody's silence before now counts."""
        self._hearing_since = now

    def leave(self, uid: str, now: float) -> bool:
        """
        Take a shutdown message; say whether the node was listed until now.

        It is listed no more, and counts as dead once it is silent too: what it left behind is then removed.
        """
        peer = self._peers.get(uid)
        if peer is None:
            return False
        was_listed = not peer.is_leaving
        peer.is_leaving, peer.heard_at = True, now
        return was_listed

    def forget(self, uid: str) -> None:
        """A dead node was dealt with."""
        self._peers.pop(uid, None)

    def listed(self, now: float) -> list[NodeInfo]:
        """Return the nodes that were heard lately and don't leave, by name."""
        return sorted(
            (peer.info for peer in self._peers.values() if _is_listed(peer, now)),
            key=lambda info: (info.name, info.uid),
        )

    def is_listed(self, uid: str, now: float) -> bool:
        """Say whether a node counts."""
        peer = self._peers.get(uid)
        return peer is not None and _is_listed(peer, now)

    def dead(self, now: float) -> list[str]:
        """Return the ids of those that are surely gone."""
        if now - self._heard_myself_at > DEAF_AFTER:
            return []
        return [
            uid
            for uid, peer in self._peers.items()
            if now - max(peer.heard_at, self._hearing_since) > DEAD_AFTER
        ]


def _is_listed(peer: _Peer, now: float) -> bool:
    return not peer.is_leaving and now - peer.heard_at <= DEAD_AFTER
