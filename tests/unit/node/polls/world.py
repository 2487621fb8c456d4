"""An application that is polled, timers that move when told, and a node whose clients track keys."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
from msgspec import Raw

from realtime.auth.poll_signatures import sign_batch
from realtime.conf.options import ProcessOptions, SharedPollGlobalOptions
from realtime.namespaces.options import (
    ChannelOptions,
    NotificationOptions,
    SharedPollOptions,
)
from realtime.node.node import Node
from realtime.protocol.errors import ProxyError
from realtime.proxies.shared_poll import (
    PolledItem,
    SharedPollRefreshRequest,
    SharedPollRefreshResult,
)
from tests.unit.client.conftest import NAMESPACES, SECRET, Clock, Connection


KEY = "what signs batches, in tests"


def _poll(**options: Any) -> ChannelOptions:
    channel = options.pop("channel", {})
    return ChannelOptions(
        **channel,
        subscription_type="shared_poll",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allowed_delta_types=("fossil",),
        shared_poll=SharedPollOptions(**options),
    )


POLLS = {
    "plain": _poll(),
    "kept": _poll(keep_latest_data=True),
    "versions": _poll(mode="versioned", publish_enabled=True),
    "keptversions": _poll(mode="versioned", publish_enabled=True, keep_latest_data=True),
    "small": _poll(refresh_batch_size=2, max_keys_per_connection=5),
    "hurried": _poll(channel_shutdown_delay=-1.0, mode="versioned"),
    "paced": _poll(backpressure_max_interval=40.0),
    "batched": _poll(notification=NotificationOptions(batch_max_size=3, batch_max_delay=2.0)),
    "sized": _poll(notification=NotificationOptions(batch_max_size=3)),
}
POLLS["met"] = _poll(
    channel={
        "presence": True,
        "join_leave": True,
        "force_push_join_leave": True,
        "allow_presence_for_subscriber": True,
        "allow_presence_for_anonymous": True,
    }
)
NAMESPACES.update(POLLS)


def with_polls(options: ProcessOptions, **values: Any) -> ProcessOptions:
    """Give process options the key that signatures are made with."""
    polls = SharedPollGlobalOptions(hmac_secret_key=KEY, **values)
    return msgspec.structs.replace(options, shared_poll=polls)


class Application:
    """
    Answers polls from a dict.

    Attributes:
        values: By key: (data, version); a key that is not there is left out.
        asked: The requests, in order.
        is_down: It fails.
        gate: While it is set to an event, answers wait for it.

    """

    def __init__(self) -> None:
        self.values: dict[str, tuple[Any, int]] = {}
        self.removed: set[str] = set()
        self.epoch = ""
        self.asked: list[SharedPollRefreshRequest] = []
        self.is_down = False
        self.gate: asyncio.Event | None = None
        self.under_way = 0
        self.most_under_way = 0

    async def refresh(self, request: SharedPollRefreshRequest) -> SharedPollRefreshResult:
        self.asked.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        answer = self._answer(request)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.is_down:
                message = "it is down"
                raise ProxyError(message)
        finally:
            self.under_way -= 1
        return answer

    def _answer(self, request: SharedPollRefreshRequest) -> SharedPollRefreshResult:
        items = []
        for item in request.items:
            if item.key in self.removed:
                items.append(PolledItem(item.key, removed=True))
            elif item.key in self.values:
                data, version = self.values[item.key]
                if not version or version > item.version:
                    items.append(PolledItem(item.key, Raw(msgspec.json.encode(data)), version))
        return SharedPollRefreshResult(items, self.epoch)

    def take_calls(self) -> list[dict[str, int]]:
        """Return what was asked since the last look: per call, the versions by key."""
        asked, self.asked = self.asked, []
        return [{item.key: item.version for item in each.items} for each in asked]


class Follower:
    """A connected client that speaks of shared polls."""

    def __init__(self, node: Node, connection: Connection, clock: Clock, user: str = "") -> None:
        self.node = node
        self.connection = connection
        self.user = user
        self._clock = clock
        self._ids = itertools.count(2)

    def send(self, **command: Any) -> Any:
        """Send a command; returns its reply, or ``None`` while there is none."""
        number = next(self._ids)
        messages = self.connection.send({"id": number, **command})
        self.pushed = [each["push"] for each in messages if "push" in each]
        return next((each for each in messages if each.get("id") == number), None)

    def subscribe(self, channel: str, **more: Any) -> Any:
        return self.send(subscribe={"channel": channel, "type": 4, **more})["subscribe"]

    def batch(self, channel: str, keys: dict[str, int], *, expire_at: int = 0, secret: str = KEY):
        signature = sign_batch(
            secret,
            issued_at=int(self._clock()),
            expire_at=expire_at,
            user=self.user,
            channel=channel,
            keys=list(keys),
        )
        items = [{"key": key, "version": version} for key, version in keys.items()]
        return {"signature": signature, "items": items}

    def track(self, channel: str, keys: dict[str, int], *, untrack: Any = (), **more: Any) -> Any:
        batches = [self.batch(channel, keys, **more)]
        request = {"channel": channel, "type": 1, "track": batches, "untrack": list(untrack)}
        return self.send(sub_refresh=request)

    def untrack(self, channel: str, *keys: str) -> Any:
        return self.send(sub_refresh={"channel": channel, "type": 2, "untrack": list(keys)})

    def pushes(self) -> list[Any]:
        """Return the publications since the last look, without their channel."""
        self.node.polls.outbox.flush()
        return [
            each["push"].get("pub") or each["push"]
            for each in self.connection.received()
            if "push" in each
        ]


__all__ = ["KEY", "SECRET", "Application", "Follower", "with_polls"]
