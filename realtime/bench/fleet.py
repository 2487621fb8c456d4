"""The client processes, from the command's side: started, asked all at once, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeVar

import msgspec

from realtime.bench import BenchError
from realtime.bench.messages import Answer, Done, Leave, Request, Setup, Target
from realtime.bench.plan import Plan
from realtime.bench.worker import LINE_LIMIT


AnswerT = TypeVar("AnswerT", bound=Answer)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answer).decode
# A process that has nothing more to do ends within milliseconds.
_END_SECONDS = 5.0


class FleetError(BenchError):
    """A client process ended, or does not answer; the text says more."""


class Fleet:
    """
    Client processes for one scenario, as an asynchronous context.

    Args:
        plan: Says how many.
        target: The server.
        api_key: For publications.

    """

    def __init__(self, plan: Plan, target: Target, api_key: str) -> None:
        self._plan = plan
        self._target = target
        self._api_key = api_key
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes]

    async def __aenter__(self) -> Self:
        """Start them."""
        try:
            for _ in range(self._plan.processes):
                self._processes.append(await _start())
            await self.ask(
                [
                    Setup(self._plan, self._target, self._api_key, position)
                    for position in range(self._plan.processes)
                ],
                Done,
            )
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End them; after an error without asking."""
        try:
            if kind is None:
                await self.ask(Leave(), Done)
        finally:
            await self._end()

    async def ask(
        self,
        request: Request | Sequence[Request],
        kind: type[AnswerT],
        only: Iterable[int] | None = None,
    ) -> list[AnswerT]:
        """
        Ask the processes at once.

        Args:
            request: For all of them, or one for each.
            kind: What they answer.
            only: Positions of those to ask.

        Returns:
            Their answers, in order.

        Raises:
            FleetError: One of them ended or does not answer in time.

        """
        asked = list(only) if only is not None else range(len(self._processes))
        requests = request if isinstance(request, Sequence) else [request] * len(asked)
        pairs = zip(asked, requests, strict=True)
        answers = await asyncio.gather(
            *(self._ask(self._processes[at], each) for at, each in pairs)
        )
        for answer in answers:
            if not isinstance(answer, kind):
                raise FleetError(f"a client process answered {answer!r}, expected {kind.__name__}")
        return answers

    async def _ask(self, process: asyncio.subprocess.Process, request: Request) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            # The process has a limit of its own, and answers what it has until then.
            async with asyncio.timeout(self._plan.max_seconds + 10):
                process.stdin.write(_encode(request) + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise FleetError(f"client process {process.pid} does not answer") from error
        except ConnectionError as error:
            raise FleetError(f"client process {process.pid} ended") from error
        if not line:
            raise FleetError(f"client process {process.pid} ended")
        return _decode(line)

    async def _end(self) -> None:
        for process in self._processes:
            # Its sign to end, whatever it is at.
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._processes.clear()


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "realtime.bench.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
        limit=LINE_LIMIT,
    )
