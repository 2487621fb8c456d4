"""
Drives the PyPI package ``centrifuge-python`` for the live tests, as ``js/client.mjs`` does the npm package.

    python python_client.py URL json|protobuf

A process of its own, since that package and ours each bring a generated Protobuf module of the same name. Commands
and events are those of ``js/client.mjs``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import centrifuge


URL, FORMAT = sys.argv[1:3]
IS_PROTOBUF = FORMAT == "protobuf"


def emit(event: str, **fields: Any) -> None:
    """Write one event."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def pack(value: Any) -> Any:
    """Make a payload: the JSON text on Protobuf connections."""
    return json.dumps(value).encode() if IS_PROTOBUF else value


def unpack(value: Any) -> Any:
    """Read a payload."""
    if not IS_PROTOBUF:
        return value
    return json.loads(value) if value else None


def info(value: centrifuge.ClientInfo | None) -> dict[str, Any] | None:
    """Describe a client."""
    if value is None:
        return None
    return {
        "user": value.user,
        "client": value.client,
        "conn_info": unpack(value.conn_info),
        "chan_info": unpack(value.chan_info),
    }


def publication(value: centrifuge.Publication) -> dict[str, Any]:
    """Describe a publication."""
    return {
        "data": unpack(value.data),
        "offset": value.offset or 0,
        "tags": dict(value.tags or {}),
        "info": info(value.info),
    }


def subscribed(ctx: Any) -> dict[str, Any]:
    """Describe a subscription's beginning."""
    position = ctx.stream_position
    return {
        "channel": ctx.channel,
        "recoverable": ctx.recoverable,
        "positioned": ctx.positioned,
        "was_recovering": ctx.was_recovering,
        "recovered": ctx.recovered,
        "offset": position.offset if position else 0,
        "epoch": position.epoch if position else "",
        "data": unpack(ctx.data),
    }


def failure(error: BaseException) -> dict[str, Any]:
    """Describe an error; ours have the code that the server sent."""
    return {"code": getattr(error, "code", -1), "message": str(error)}


class Events(centrifuge.ClientEventHandler):
    """Writes what happens to the connection."""

    async def on_connecting(self, ctx: Any) -> None:
        emit("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx: Any) -> None:
        emit("connected", client=ctx.client)

    async def on_disconnected(self, ctx: Any) -> None:
        emit("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx: Any) -> None:
        emit("error", **failure(ctx.error))

    async def on_subscribed(self, ctx: Any) -> None:
        emit("server_subscribed", **subscribed(ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        emit("server_unsubscribed", channel=ctx.channel)

    async def on_publication(self, ctx: Any) -> None:
        emit("server_publication", channel=ctx.channel, **publication(ctx.pub))

    async def on_join(self, ctx: Any) -> None:
        emit("server_join", channel=ctx.channel, info=info(ctx.info))

    async def on_leave(self, ctx: Any) -> None:
        emit("server_leave", channel=ctx.channel, info=info(ctx.info))


class SubscriptionEvents(centrifuge.SubscriptionEventHandler):
    """Writes what happens to a subscription."""

    def __init__(self, channel: str) -> None:
        self.channel = channel

    async def on_subscribing(self, ctx: Any) -> None:
        emit("subscribing", channel=self.channel, code=ctx.code, reason=ctx.reason)

    async def on_subscribed(self, ctx: Any) -> None:
        emit("subscribed", **subscribed(ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        emit("unsubscribed", channel=self.channel, code=ctx.code, reason=ctx.reason)

    async def on_publication(self, ctx: Any) -> None:
        emit("publication", channel=self.channel, **publication(ctx.pub))

    async def on_join(self, ctx: Any) -> None:
        emit("join", channel=self.channel, info=info(ctx.info))

    async def on_leave(self, ctx: Any) -> None:
        emit("leave", channel=self.channel, info=info(ctx.info))

    async def on_error(self, ctx: Any) -> None:
        emit("subscription_error", channel=self.channel, **failure(ctx.error))


class Driver:
    """One client and its subscriptions; each method is one command."""

    def __init__(self) -> None:
        self.client: centrifuge.Client
        self.subscriptions: dict[str, centrifuge.Subscription] = {}
        self.token_waiters: list[asyncio.Future[str]] = []
        self.state_waiters: list[asyncio.Future[centrifuge.StreamPosition]] = []

    async def _ask_for_token(self, kind: str, channel: str = "") -> str:
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.token_waiters.append(waiter)
        emit("get_token", kind=kind, channel=channel)
        return await waiter

    async def _ask_for_state(self, channel: str) -> centrifuge.StreamPosition:
        waiter: asyncio.Future[centrifuge.StreamPosition] = (
            asyncio.get_running_loop().create_future()
        )
        self.state_waiters.append(waiter)
        emit("get_state", channel=channel)
        return await waiter

    async def connect(self, token: str = "", get_token: bool = False, name: str = "python") -> None:
        self.client = centrifuge.Client(
            URL,
            events=Events(),
            token=token,
            get_token=(lambda: self._ask_for_token("connection")) if get_token else None,
            use_protobuf=IS_PROTOBUF,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            name=name,
            proxy=None,
        )
        await self.client.connect()

    async def subscribe(
        self,
        channel: str,
        token: str = "",
        get_token: bool = False,
        get_state: bool = False,
        recoverable: bool = False,
        positioned: bool = False,
        join_leave: bool = False,
        delta: str = "",
        tf: dict[str, Any] | None = None,
    ) -> None:
        subscription = self.client.new_subscription(
            channel,
            events=SubscriptionEvents(channel),
            token=token,
            get_token=(lambda name: self._ask_for_token("subscription", name))
            if get_token
            else None,
            get_state=self._ask_for_state if get_state else None,
            min_resubscribe_delay=0.05,
            max_resubscribe_delay=0.5,
            recoverable=recoverable,
            positioned=positioned,
            join_leave=join_leave,
            delta=centrifuge.DeltaType(delta) if delta else None,
            tags_filter=centrifuge.FilterNode(tf) if tf else None,
        )
        self.subscriptions[channel] = subscription
        await subscription.subscribe()

    async def unsubscribe(self, channel: str) -> None:
        await self.subscriptions[channel].unsubscribe()

    async def disconnect(self) -> None:
        await self.client.disconnect()

    async def connect_again(self) -> None:
        """Connect the same client once more, with what it remembers."""
        await self.client.connect()

    async def kill(self) -> None:
        """End the socket, if there is one, without a close frame, as when a cable is pulled."""
        if self.client._conn is not None:
            self.client._conn.transport.abort()

    async def token(self, token: str = "", refuse: bool = False) -> None:
        waiter = self.token_waiters.pop(0)
        if refuse:
            waiter.set_exception(centrifuge.UnauthorizedError("refused"))
        else:
            waiter.set_result(token)

    async def state(self, offset: int, epoch: str) -> None:
        self.state_waiters.pop(0).set_result(centrifuge.StreamPosition(offset, epoch))

    async def publish(self, channel: str, data: Any) -> dict[str, Any]:
        await self.client.publish(channel, pack(data))
        return {}

    async def presence(self, channel: str) -> dict[str, Any]:
        result = await self.client.presence(channel)
        return {key: info(value) for key, value in result.clients.items()}

    async def presence_stats(self, channel: str) -> dict[str, Any]:
        result = await self.client.presence_stats(channel)
        return {"num_clients": result.num_clients, "num_users": result.num_users}

    async def history(
        self,
        channel: str,
        limit: int = 0,
        reverse: bool = False,
        since: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        result = await self.client.history(
            channel,
            limit=limit,
            reverse=reverse,
            since=centrifuge.StreamPosition(**since) if since else None,
        )
        return {
            "publications": [publication(pub) for pub in result.publications],
            "offset": result.offset,
            "epoch": result.epoch,
        }

    async def rpc(self, method: str, data: Any) -> dict[str, Any]:
        return {"data": unpack((await self.client.rpc(method, pack(data))).data)}


async def run(driver: Driver, op: str, ref: int, arguments: dict[str, Any]) -> None:
    """Carry out one command and write its outcome."""
    try:
        result = await getattr(driver, op)(**arguments)
    except Exception as error:  # noqa: BLE001 -- the test judges it
        emit("result", ref=ref, error=failure(error))
    else:
        emit("result", ref=ref, result=result)


async def main() -> None:
    """Obey until stdin ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    driver = Driver()
    tasks: set[asyncio.Task[None]] = set()
    emit("ready")
    while line := await reader.readline():
        command = json.loads(line)
        task = asyncio.create_task(run(driver, command.pop("op"), command.pop("ref"), command))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
