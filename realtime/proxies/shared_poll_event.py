"""
How answers about polled keys are read, those of HTTP backends and those of handlers in this process.

Beside ``data`` and ``prev_data`` an item may have ``b64data`` and ``b64prev_data``, for payloads that are no JSON; these two
are not in the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from realtime.handlers import SHARED_POLL_REFRESH
from realtime.protocol.messages import EMPTY, payload
from realtime.proxies.event import Event, Uint64, choose_payload, decode_object
from realtime.proxies.proxy import Proxy
from realtime.proxies.shared_poll import (
    PolledItem,
    SharedPollRefreshRequest,
    SharedPollRefreshResult,
)


class _WireItem(msgspec.Struct, frozen=True):
    """
    An item as it comes; a null is what is left out.

    The strict decoder has to take nulls: the laxer one, which would skip them, needs 29 ms for 1,000 items in place of 1.
    """

    key: str | None = None
    data: Raw = EMPTY
    version: Uint64 | None = None
    removed: bool | None = None
    prev_data: Raw = EMPTY
    b64data: str | None = None
    b64prev_data: str | None = None


class _WireResult(msgspec.Struct, frozen=True):
    items: list[_WireItem] | None = None
    epoch: str | None = None


def _from_json(text: bytes) -> SharedPollRefreshResult:
    result = decode_object(_WireResult, text, "the result")
    items = [_polled(item) for item in result.items or ()]
    return SharedPollRefreshResult(items, result.epoch or "")


def _polled(item: _WireItem) -> PolledItem:
    # ``null`` is a value like any other, but no value of the version before.
    prev_data = EMPTY if bytes(item.prev_data) == b"null" else item.prev_data
    return PolledItem(
        key=item.key or "",
        data=choose_payload(item.data, item.b64data),
        version=item.version or 0,
        removed=item.removed or False,
        prev_data=choose_payload(prev_data, item.b64prev_data),
    )


def _from_python(value: Any) -> SharedPollRefreshResult:
    items: Any
    epoch: Any = ""
    if isinstance(value, SharedPollRefreshResult):
        items, epoch = value.items, value.epoch
    elif isinstance(value, Mapping):
        items, epoch = value.get("items") or (), value.get("epoch") or ""
        if unknown := sorted(set(value) - {"items", "epoch"}):
            raise ValueError(f"a result has items and epoch, and not {', '.join(unknown)}")
    else:
        items = value
    if not isinstance(items, Sequence) or isinstance(items, str | bytes) or type(epoch) is not str:
        raise TypeError(
            "expected a SharedPollRefreshResult, a dict with items and epoch, or a list of items, "
            f"got {type(value).__name__}"
        )
    return SharedPollRefreshResult([_handed_over(item) for item in items], epoch)


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a handler's item is checked as it stands."""

    key: str
    version: Uint64 = 0
    removed: bool = False


def _handed_over(item: Any) -> PolledItem:
    if isinstance(item, PolledItem):
        item = msgspec.structs.asdict(item)
    elif not isinstance(item, Mapping):
        raise TypeError(f"expected a PolledItem or a dict, got {type(item).__name__}")
    values = dict(item)
    data = _payload_of(values.pop("data", EMPTY))
    prev_data = _payload_of(values.pop("prev_data", EMPTY))
    facts = msgspec.convert(values, _Facts)
    return PolledItem(facts.key, data, facts.version, facts.removed, prev_data)


def _payload_of(value: Any) -> Raw:
    """Return bytes as they are, and the JSON of anything else."""
    if isinstance(value, Raw | bytes | bytearray | memoryview):
        return payload(bytes(value))
    return Raw(msgspec.json.encode(value))


EVENT = Event(SHARED_POLL_REFRESH, _from_json, _from_python, is_repeatable=True)


class SharedPollProxy:
    """A proxy as the node polls it: a ``SharedPollBackend``."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def refresh(self, request: SharedPollRefreshRequest) -> SharedPollRefreshResult:
        """
        Return the values.

        Raises:
            ProxyError: The application could not be asked, or refused: this batch is lost until the next cycle.

        """
        answer = await self._proxy.ask(EVENT, request)
        answer.check_accepted()
        return answer.result or SharedPollRefreshResult()
