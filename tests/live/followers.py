"""
Clients and publishers that keep account, for tests in which things fail.

A ``Follower`` does what an SDK does: it connects again, subscribes again and recovers from where it was. What it
received is kept by channel, and so is every time it was told that it could not be given everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import websockets

from tests.live.harness import API_KEY, Server


EVENTUALLY_SECONDS = 40.0
ANSWER_SECONDS = 10.0  # nothing may take longer, whatever is broken
RETRY_SECONDS = (0.05, 0.3)
INSUFFICIENT_STATE = (2500, 3010)


async def eventually(
    holds: Callable[[], bool], what: str = "", seconds: float = EVENTUALLY_SECONDS
) -> None:
    """Return once ``holds()``; nothing tells of it, so it is looked at again and again."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what or holds}") from None


class Follower:
    """
    A client that wants the whole of its channels.

    Attributes:
        received: The payloads by channel, in their order.
        offsets: The offset that each came with, by channel.
        positions: Offset and epoch by channel, from the first subscription on.
        told: How often a channel could not be recovered in full.
        ended: How often a subscription was ended with insufficient state.
        faults: What must never happen: a hole, a repeat, a payload without an offset.
        closes: Close codes, in their order.

    """

    def __init__(self, server: Server, channels: Iterable[str]) -> None:
        self.server = server
        self.channels = list(channels)
        self.received: dict[str, list[int]] = defaultdict(list)
        self.offsets: dict[str, dict[int, int]] = defaultdict(dict)
        self.positions: dict[str, tuple[int, str]] = {}
        self.subscribed: set[str] = set()
        self.told: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.faults: list[str] = []
        self.closes: list[int] = []
        self._socket: websockets.ClientConnection | None = None
        self._asked: dict[int, str] = {}
        self._number = 1
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._live())
        await self.until_subscribed()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def until_subscribed(self) -> None:
        """Wait until all channels are subscribed."""
        await eventually(lambda: self.subscribed >= set(self.channels), "all channels subscribed")

    async def subscribe(self, channel: str) -> None:
        """Want one more channel, from now on."""
        self.channels.append(channel)
        if self._socket is not None:
            await self._ask(channel)

    def cut(self) -> None:
        """Pull the cable."""
        if self._socket is not None:
            self._socket.transport.abort()

    # --- life ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
                async with websockets.connect(
                    self.server.websocket_url, proxy=None, ping_interval=None, max_size=None
                ) as socket:
                    try:
                        await self._converse(socket)
                    finally:
                        self._socket = None
                        self.subscribed.clear()
                        self._asked.clear()
                        self.closes.append(socket.close_code or 0)
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))

    async def _converse(self, socket: websockets.ClientConnection) -> None:
        await socket.send('{"id":1,"connect":{}}')
        self._number = 1
        async for frame in socket:
            assert isinstance(frame, str)
            for line in frame.split("\n"):
                message = json.loads(line)
                if not message:
                    await socket.send("{}")
                elif "push" in message:
                    await self._on_push(message["push"])
                elif "connect" in message:
                    self._socket = socket
                    for channel in self.channels:
                        await self._ask(channel)
                else:
                    await self._on_reply(message)

    async def _ask(self, channel: str) -> None:
        request: dict[str, Any] = {"channel": channel}
        if channel in self.positions:
            offset, epoch = self.positions[channel]
            request |= {"recover": True, "offset": offset, "epoch": epoch}
        self._number += 1
        self._asked[self._number] = channel
        if self._socket is not None:
            await self._socket.send(json.dumps({"id": self._number, "subscribe": request}))

    async def _on_reply(self, reply: dict[str, Any]) -> None:
        channel = self._asked.pop(reply["id"])
        if "error" in reply:
            self.refused[reply["error"]["code"]] += 1
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))
            await self._ask(channel)
            return
        result = reply["subscribe"]
        offset, epoch = result.get("offset", 0), result.get("epoch", "")
        if channel not in self.positions or not result.get("recovered"):
            self.told[channel] += channel in self.positions
            self.positions[channel] = (offset, epoch)
        else:  # where another server goes on with the stream, in an epoch of its own
            self.positions[channel] = (self.positions[channel][0], epoch)
        for publication in result.get("publications", ()):
            self._take(channel, publication)
        self.subscribed.add(channel)

    async def _on_push(self, push: dict[str, Any]) -> None:
        channel = push.get("channel", "")
        if "pub" in push:
            self._take(channel, push["pub"])
        elif "unsubscribe" in push:
            self.subscribed.discard(channel)
            assert push["unsubscribe"]["code"] in INSUFFICIENT_STATE, push
            self.ended[channel] += 1
            await self._ask(channel)

    def _take(self, channel: str, publication: dict[str, Any]) -> None:
        offset, epoch = self.positions[channel]
        if epoch and publication.get("offset") != offset + 1:
            self.faults.append(f"{channel}: {publication} after {offset}")
        self.positions[channel] = (publication.get("offset", 0), epoch)
        self.received[channel].append(publication["data"]["n"])
        self.offsets[channel][publication["data"]["n"]] = publication.get("offset", 0)


class Publishers:
    """
    Publishes numbers to channels over the API, through all servers in turn, each channel in its own order.

    Attributes:
        done: What was reported as done, by channel, in order.
        offsets: The reported offset of each success, by channel.
        failed: What was reported as failed; it may have been carried out all the same.
        slowest: Seconds that the slowest answer took.

    """

    def __init__(
        self,
        servers: Sequence[Server],
        channels: Sequence[str],
        pause: float = 0.02,
        padding: int = 0,
    ) -> None:
        self.servers = servers
        self.channels = channels
        self.done: dict[str, list[int]] = defaultdict(list)
        self.failed: dict[str, list[int]] = defaultdict(list)
        self.offsets: dict[str, dict[int, int]] = defaultdict(dict)
        self.errors: Counter[str] = Counter()
        self.slowest = 0.0
        self._pause = pause
        self._padding = "x" * padding
        self._is_open = True
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        self._http = aiohttp.ClientSession(timeout=timeout, connector=connector)
        self._tasks = [
            asyncio.create_task(self._publish_to(channel, number))
            for number, channel in enumerate(self.channels)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End with the publishes under way; may be called twice."""
        self._is_open = False
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*tasks)
        await self._http.close()

    async def until_done(self, more: int = 3) -> None:
        """Wait until every channel has so many more successes."""
        before = {channel: len(self.done[channel]) for channel in self.channels}
        await eventually(
            lambda: all(len(self.done[name]) >= before[name] + more for name in self.channels),
            f"publishes that succeed; so far {self.errors}",
        )

    async def until_failed(self) -> None:
        """Wait until a publish fails."""
        before = sum(map(len, self.failed.values()))
        await eventually(lambda: sum(map(len, self.failed.values())) > before, "a failure")

    async def publish(self, channel: str, number: int, server: Server) -> bool:
        """Publish once; say whether it was reported as done."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with self._http.post(
            f"{server.url}/api/publish",
            json={"channel": channel, "data": {"n": number, "padding": self._padding}},
            headers={"X-API-Key": API_KEY},
        ) as response:
            answer = json.loads(await response.read())
        self.slowest = max(self.slowest, loop.time() - begin)
        if "error" in answer:
            self.failed[channel].append(number)
            self.errors[answer["error"]["message"]] += 1
            return False
        self.done[channel].append(number)
        self.offsets[channel][number] = answer["result"].get("offset", 0)
        return True

    async def _publish_to(self, channel: str, turn: int) -> None:
        number = 0
        while self._is_open:
            number += 1
            turn += 1
            await self.publish(channel, number, self.servers[turn % len(self.servers)])
            await asyncio.sleep(self._pause)


async def until_caught_up(publishers: Publishers, followers: Sequence[Follower]) -> None:
    """Wait until every follower has the last success of each of its channels; publishers have to have stopped."""

    def lacking(follower: Follower) -> list[str]:
        return [
            channel
            for channel in follower.channels
            if publishers.done[channel]
            and publishers.done[channel][-1] not in follower.received[channel][-5:]
        ]

    for follower in followers:
        await eventually(
            lambda follower=follower: (
                not lacking(follower) and not (set(follower.channels) - follower.subscribed)
            ),
            f"{follower.server.port} caught up",
        )


def assert_whole(publishers: Publishers, followers: Sequence[Follower]) -> int:
    """
    Every follower has every success of its channels, in order and once, and was never told that it hasn't.

    Returns:
        How many publications were received.

    """
    count = 0
    for follower in followers:
        assert follower.faults == []
        assert follower.told == Counter()
        for channel in follower.channels:
            done, received = publishers.done[channel], follower.received[channel]
            failed = set(publishers.failed[channel])
            wrong = {
                n: (offset, follower.offsets[channel].get(n))
                for n, offset in publishers.offsets[channel].items()
                if offset != follower.offsets[channel].get(n)
            }
            assert wrong == {}, f"{channel}: reported and received offsets differ"
            # What failed may have been carried out, and even after its successor: it lay in a socket of a Redis that hung.
            assert [n for n in received if n not in failed] == done, channel
            assert len(set(received)) == len(received), channel
            count += len(received)
    return count


def assert_whole_or_told(publishers: Publishers, followers: Sequence[Follower]) -> None:
    """Every follower has every success, but of the channels of which it was told otherwise."""
    for follower in followers:
        assert follower.faults == []
        for channel in follower.channels:
            received = follower.received[channel]
            if not follower.told[channel]:
                failed = set(publishers.failed[channel])
                assert [n for n in received if n not in failed] == publishers.done[channel]
            assert len(set(received)) == len(received), channel
