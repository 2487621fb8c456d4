"""One scenario, from the first socket to the last delivery, with the server's CPU time and memory before and after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from realtime.bench import BenchError
from realtime.bench.fleet import Fleet
from realtime.bench.histogram import Histogram
from realtime.bench.messages import (
    Count,
    Counted,
    Done,
    Finish,
    Inbound,
    Open,
    Outcome,
    Publish,
    Target,
)
from realtime.bench.meter import Meter
from realtime.bench.plan import Plan
from realtime.bench.report import Result


# So that lazy imports and first allocations are not counted.
_WARM_UP = 50
# The server's loop is idle and its memory has settled by then.
_SETTLE_SECONDS = 0.5
_POLL_SECONDS = 0.05
# What does not arrive within that is lost.
_PATIENCE_SECONDS = 5.0

MakeTokens = Callable[[Sequence[int]], list[str]]


class Measured(Protocol):
    """A server that runs."""

    target: Target
    api_key: str
    pids: list[int]


async def run(plan: Plan, server: Measured, make_tokens: MakeTokens) -> Result:
    """
    Carry a plan out.

    Args:
        plan: What to do.
        server: Runs and is reachable.
        make_tokens: Returns a connection JWT for each of the sockets named.

    Returns:
        The figures. What failed or is missing stands in them; it raises nothing.

    Raises:
        BenchError: There are no figures.

    """
    meter = Meter(server.pids)
    async with Fleet(plan, server.target, server.api_key) as fleet:
        await _warm_up(fleet)
        run = _Run(plan, meter, Meter(fleet.pids), fleet)
        if plan.scenario == "connect":
            await run.measure_connects(make_tokens)
        else:
            await run.measure_publications(make_tokens)
        return run.result


async def _warm_up(fleet: Fleet) -> None:
    (done,) = await fleet.ask(Publish(warm_up=_WARM_UP), Done, only=[0])
    if done.failed:
        raise BenchError(f"the server does not take publications: {_first(done.errors)}")


class _Run:
    """The steps, and what they found."""

    def __init__(self, plan: Plan, meter: Meter, client_meter: Meter, fleet: Fleet) -> None:
        self._plan = plan
        self._meter = meter
        self._client_meter = client_meter
        self._fleet = fleet
        self._cpu_before: float | None = None
        self._client_cpu_before = 0.0
        self.result = Result.of(plan, meter.pids)

    async def measure_connects(self, make_tokens: MakeTokens) -> None:
        memory_before = self._meter.memory_bytes()
        tokens = self._tokens(make_tokens)
        self._start_clock()
        opened = await self._fleet.ask(tokens, Done)
        self._stop_clock()
        self._count(opened)
        await self._measure_memory(memory_before)

    async def measure_publications(self, make_tokens: MakeTokens) -> None:
        plan = self._plan
        if plan.scenario != "publish":
            await self._open(make_tokens)
        self._start_clock()
        done = await self._fleet.ask(Inbound() if plan.scenario == "inbound" else Publish(), Done)
        await self._wait_for_deliveries()
        self._stop_clock()
        self._count(done)
        if plan.scenario != "publish":
            self._count_deliveries(done, await self._fleet.ask(Finish(), Outcome))

    async def _open(self, make_tokens: MakeTokens) -> None:
        memory_before = self._meter.memory_bytes()
        opened = await self._fleet.ask(self._tokens(make_tokens), Done)
        failed = self._plan.clients - sum(each.count for each in opened)
        if failed:
            errors = [error for each in opened for error in each.errors]
            raise BenchError(
                f"{self._plan.scenario}: {failed} of {self._plan.clients} sockets could not connect and "
                f"subscribe: {_first(errors)}"
            )
        await self._measure_memory(memory_before)

    def _tokens(self, make_tokens: MakeTokens) -> list[Open]:
        plan = self._plan
        return [
            Open(make_tokens(range(position, plan.clients, plan.processes)))
            for position in range(plan.processes)
        ]

    async def _wait_for_deliveries(self) -> None:
        """Wait until all has arrived, or nothing more arrives."""
        owed, before, since = self._plan.deliveries, -1, time.monotonic()
        while True:
            counted = await self._fleet.ask(Count(), Counted)
            arrived = sum(each.delivered for each in counted)
            if arrived >= owed:
                return
            if arrived > before:
                before, since = arrived, time.monotonic()
            elif time.monotonic() - since > _PATIENCE_SECONDS:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _start_clock(self) -> None:
        self._cpu_before = self._meter.cpu_seconds()
        self._client_cpu_before = self._client_meter.cpu_seconds() or 0.0

    def _stop_clock(self) -> None:
        client_after = self._client_meter.cpu_seconds() or 0.0
        self.result.client_cpu_seconds = client_after - self._client_cpu_before
        after = self._meter.cpu_seconds()
        if after is not None and self._cpu_before is not None:
            self.result.cpu_seconds = after - self._cpu_before

    async def _measure_memory(self, before: float | None) -> None:
        await asyncio.sleep(_SETTLE_SECONDS + self._plan.hold)
        counted = await self._fleet.ask(Count(), Counted)
        self.result.pings = sum(each.pings for each in counted)
        after = self._meter.memory_bytes()
        if after is not None and before is not None:
            self.result.kb_per_socket = (after - before) / 1024 / self._plan.clients

    def _count(self, answers: Sequence[Done]) -> None:
        result = self.result
        result.done = sum(each.count for each in answers)
        result.failed = result.asked - result.done
        result.add_errors(error for each in answers for error in each.errors)
        result.seconds = _span(answers, (each.last_ns for each in answers))
        result.set_latencies(_merged(each.latencies for each in answers))

    def _count_deliveries(self, done: Sequence[Done], outcomes: Sequence[Outcome]) -> None:
        result = self.result
        result.delivered = sum(each.delivered for each in outcomes)
        result.missing = sum(each.missing for each in outcomes)
        result.surplus = sum(each.surplus for each in outcomes)
        result.add_errors(error for each in outcomes for error in each.errors)
        result.seconds = _span(done, (each.last_ns for each in outcomes))
        result.set_latencies(_merged(each.latencies for each in outcomes))


def _span(answers: Iterable[Done], last: Iterable[int]) -> float:
    """Return the seconds from the first that was sent to the last that came."""
    begun = min(each.first_ns for each in answers)
    return max(0, *last, begun) / 1e9 - begun / 1e9


def _merged(latencies: Iterable[dict[int, int]]) -> Histogram:
    histogram = Histogram()
    for each in latencies:
        histogram.merge(each)
    return histogram


def _first(errors: Sequence[str]) -> str:
    return errors[0] if errors else "no reason was given"
