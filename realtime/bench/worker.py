"""
A client process: sockets and publishers on one uvloop, told what to do on standard input.

It ends when that ends, so no client outlives the command, however that comes to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import uvloop

from realtime.bench.histogram import Histogram
from realtime.bench.http_client import Publisher, PublisherError, request_head
from realtime.bench.messages import (
    Answer,
    Count,
    Counted,
    Done,
    Finish,
    Inbound,
    Leave,
    Open,
    Outcome,
    Publish,
    Request,
    Setup,
)
from realtime.bench.plan import Plan
from realtime.bench.websocket_client import Socket, SocketError, Tally, upgrade_request


# Commands of a socket that may be unanswered at a time.
IN_FLIGHT = 16
# Latencies are taken at as many sockets as give about so many values.
SAMPLES = 100_000
# An address of the loopback network has some 28,000 ports to connect from.
SOCKETS_PER_ADDRESS = 20_000
MAX_ERRORS = 5
LINE_LIMIT = 256 * 1024 * 1024


class Worker:
    """What one process holds and does."""

    def __init__(self, setup: Setup) -> None:
        self._plan: Plan = setup.plan
        self._target = setup.target
        self._api_key = setup.api_key
        self._position = setup.position
        self._ssl = ssl.create_default_context() if setup.target.is_tls else None
        self._tally = Tally()
        self._sockets: dict[int, Socket] = {}
        self._pad = "x" * setup.plan.size

    async def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        match request:
            case Open(tokens=tokens):
                return await self._open(tokens)
            case Publish(warm_up=count) if count:
                return await self._publish([f"{self._plan.prefix}warm-up"] * count, [0])
            case Publish():
                return await self._publish(None, self._mine(self._plan.publishers))
            case Inbound():
                return await self._publish_inbound()
            case Count():
                return Counted(self._tally.delivered, self._tally.pings)
            case Finish():
                return self._finish()
            case _:
                self._close()
                return Done()

    def _mine(self, total: int) -> range:
        """Return which of ``total`` things are this process's."""
        return range(self._position, total, self._plan.processes)

    # -- sockets

    async def _open(self, tokens: list[str]) -> Done:
        """Connect and subscribe, ``plan.ramp`` at a time over all processes."""
        plan, done, latencies = self._plan, Done(first_ns=time.monotonic_ns()), Histogram()
        upgrade = upgrade_request(
            self._target.authority, f"{self._target.path}/connection/websocket"
        )
        waiting = iter(zip(self._mine(plan.clients), tokens, strict=True))

        async def open_some() -> None:
            for number, token in waiting:
                begun = time.monotonic_ns()
                try:
                    await self._open_one(number, token, upgrade)
                except (OSError, SocketError) as error:
                    done.failed += 1
                    done.errors.append(str(error))
                else:
                    done.count += 1
                    done.last_ns = time.monotonic_ns()
                    latencies.add([done.last_ns - begun])

        share = max(1, plan.ramp // plan.processes)
        await self._in_time(done, (open_some() for _ in range(share)))
        return self._finished(done, latencies)

    async def _open_one(self, number: int, token: str, upgrade: bytes) -> None:
        plan = self._plan
        stride = max(1, plan.deliveries // SAMPLES)
        socket = Socket(
            upgrade,
            token,
            [plan.name_of(channel) for channel in plan.channels_of(number)],
            self._tally,
            is_sampled=not plan.delta
            and number // plan.processes % min(stride, plan.sockets_per_process) == 0,
            request=plan.request_of(number),
        )
        self._sockets[number] = socket
        await asyncio.get_running_loop().create_connection(
            lambda: socket,
            self._target.address,
            self._target.port,
            ssl=self._ssl,
            server_hostname=self._target.host if self._ssl else None,
            local_addr=source_address(number, plan.clients, self._target.address),
        )
        await socket.subscribed

    # -- publications

    async def _publish(self, channels: list[str] | None, publishers: Iterable[int]) -> Done:
        """Publish to ``channels`` in turn, or where the plan says."""
        plan, done, latencies = self._plan, Done(first_ns=time.monotonic_ns()), Histogram()
        begun = done.first_ns / 1e9

        async def publish_some(number: int) -> None:
            count = len(channels) if channels is not None else plan.publications
            step = 1 if channels is not None else plan.publishers
            try:
                connection = await self._connect_publisher()
            except OSError as error:
                done.failed += len(range(number, count, step))
                done.errors.append(f"the API can't be reached: {error}")
                return
            for each in range(number, count, step):
                if plan.rate and channels is None:
                    await asyncio.sleep(begun + each / plan.rate - time.monotonic())
                channel = channels[each] if channels else plan.name_of(each % plan.channels)
                await self._publish_one(connection, channel, done, latencies)
            connection.close()

        await self._in_time(done, map(publish_some, publishers))
        return self._finished(done, latencies)

    async def _connect_publisher(self) -> Publisher:
        head = request_head(self._target, self._api_key)
        _, publisher = await asyncio.get_running_loop().create_connection(
            lambda: Publisher(head),
            self._target.address,
            self._target.port,
            ssl=self._ssl,
            server_hostname=self._target.host if self._ssl else None,
        )
        return publisher

    async def _publish_one(
        self, connection: Publisher, channel: str, done: Done, latencies: Histogram
    ) -> None:
        begun = time.monotonic_ns()
        data = f'{{"ts":{begun},"p":"{self._pad}"}}'
        body = f'{{"channel":"{channel}","data":{data}{self._plan.publish_options}}}'
        try:
            problem = await connection.publish(body.encode())
        except PublisherError as error:
            problem = str(error)
        if problem:
            done.failed += 1
            if len(done.errors) < MAX_ERRORS:
                done.errors.append(problem)
            return
        done.count += 1
        done.last_ns = time.monotonic_ns()
        latencies.add([done.last_ns - begun])

    async def _publish_inbound(self) -> Done:
        """Have each socket publish, each with up to ``IN_FLIGHT`` commands unanswered."""
        done = Done(first_ns=time.monotonic_ns())
        await self._in_time(done, itertools.starmap(self._publish_from, self._sockets.items()))
        done.count = self._tally.replies
        done.last_ns = self._tally.last_ns
        return self._finished(done, Histogram())

    async def _publish_from(self, number: int, socket: Socket) -> None:
        plan = self._plan
        (channel,) = map(plan.name_of, plan.channels_of(number))
        numbers = iter(range(plan.publications))
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        unanswered = 0

        def send_next() -> None:
            nonlocal unanswered
            each = next(numbers, None)
            if each is None:
                if not unanswered and not finished.done():
                    finished.set_result(None)
                return
            unanswered += 1
            socket.send(
                f'{{"id":{each + 2},"publish":{{"channel":"{channel}","data":{{"ts":{time.monotonic_ns()},'
                f'"p":"{self._pad}"}}}}}}'.encode()
            )

        def on_reply() -> None:
            nonlocal unanswered
            unanswered -= 1
            send_next()

        socket.on_reply = on_reply
        for _ in range(min(IN_FLIGHT, plan.publications)):
            send_next()
        await finished

    # -- the end

    async def _in_time(self, done: Done, jobs: Iterable[Awaitable[None]]) -> None:
        """Do all at once; give up when the plan's time is over."""
        try:
            async with asyncio.timeout(self._plan.max_seconds):
                await asyncio.gather(*jobs)
        except TimeoutError:
            done.errors.append(f"gave up after {self._plan.max_seconds:g} s")

    @staticmethod
    def _finished(done: Done, latencies: Histogram) -> Done:
        done.errors = list(dict.fromkeys(done.errors))[:MAX_ERRORS]
        done.latencies = dict(latencies.counts)
        return done

    def _finish(self) -> Outcome:
        outcome = Outcome(last_ns=self._tally.last_ns)
        for number, socket in self._sockets.items():
            owed = self._plan.expected_by(number)
            outcome.delivered += min(owed, socket.delivered)
            outcome.missing += max(0, owed - socket.delivered)
            outcome.surplus += max(0, socket.delivered - owed)
        latencies = Histogram()
        latencies.add(self._tally.latencies_ns)
        outcome.latencies = dict(latencies.counts)
        outcome.errors = list(dict.fromkeys(self._tally.errors))[:MAX_ERRORS]
        return outcome

    def _close(self) -> None:
        for socket in self._sockets.values():
            socket.close()


def source_address(number: int, clients: int, address: str) -> tuple[str, int] | None:
    """Choose where a socket connects from: an address of its own for each 20,000 sockets on Linux's loopback."""
    if clients <= SOCKETS_PER_ADDRESS or not address.startswith("127.") or sys.platform != "linux":
        return None
    return (f"127.0.0.{2 + number // SOCKETS_PER_ADDRESS}", 0)


async def _read(queue: asyncio.Queue[Request], main: asyncio.Task[None]) -> None:
    """Hand on what is asked; at the end of the input end the process, whatever it is at."""
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    decode: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
    while line := await reader.readline():
        queue.put_nowait(decode(line))
    main.cancel()


async def _serve(queue: asyncio.Queue[Request]) -> None:
    encode = msgspec.json.Encoder().encode
    worker: Worker | None = None
    while True:
        request = await queue.get()
        if isinstance(request, Setup):
            worker = Worker(request)
            answer: Answer = Done()
        elif worker is None:
            raise RuntimeError("the first request has to be the setup")
        else:
            answer = await worker.answer(request)
        sys.stdout.buffer.write(encode(answer) + b"\n")
        sys.stdout.buffer.flush()
        if isinstance(request, Leave):
            return


async def _main() -> None:
    # Each request is answered before the next one is sent, so there is one at most.
    queue: asyncio.Queue[Request] = asyncio.Queue(maxsize=1)
    serving = asyncio.create_task(_serve(queue))
    reading = asyncio.create_task(_read(queue, serving))
    # Cancelled is how it ends where nobody waits for answers any more.
    await asyncio.wait([serving, reading], return_when=asyncio.FIRST_COMPLETED)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    uvloop.run(_main())
