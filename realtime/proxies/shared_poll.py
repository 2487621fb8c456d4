"""
What a node asks the application of the keys that its clients track, and what it is told.

Payloads are raw JSON, or any bytes where the namespace's clients are all binary. A backend is asked for many keys at once and leaves out those
that have nothing new.

Source: Centrifugo's shared poll refresh proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Raw

from realtime.protocol.messages import EMPTY


class PollItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A key that is tracked; ``version`` is the one that the node has, 0 for none and where there are no versions."""

    key: str
    version: int = 0


class SharedPollRefreshRequest(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Ask for ``items`` of one channel; they are sorted by key."""

    channel: str
    items: list[PollItem] = []


class PolledItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """
    A key's value.

    Attributes:
        key: Names it.
        data: The value.
        version: Grows with every change; 0 where the application has none.
        removed: The key is gone; ``data`` counts no longer.
        prev_data: The value of the version before, which a delta can be made from.

    """

    key: str = ""
    data: Raw = EMPTY
    version: int = 0
    removed: bool = False
    prev_data: Raw = EMPTY


class SharedPollRefreshResult(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known of the keys; one that is left out is unchanged. ``epoch`` names the generation of the versions."""

    items: list[PolledItem] = []
    epoch: str = ""


class SharedPollBackend(Protocol):
    """The application, as it is polled. Calls may overlap; each ends within the backend's own timeout."""

    async def refresh(self, request: SharedPollRefreshRequest) -> SharedPollRefreshResult:
        """Return the values; raises ``ProxyError``, and then nothing is changed."""


FindBackend = Callable[[str], SharedPollBackend | None]
"""From ``shared_poll.proxy_name`` (``default`` where that is empty) to who is polled; ``None`` where nobody is."""
