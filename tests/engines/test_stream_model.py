"""Random histories of a stream against a model that is written from the specification alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec import Raw

from realtime.engines.base import HistoryFilter, PublishOptions
from realtime.protocol.messages import Publication, StreamPosition
from tests.engines.backends import EngineFactory, EngineUnderTest


T = TypeVar("T")
# Minutes, which no run takes: a Redis has a clock of its own, which a test can only put forward.
META_TTL = 100 * 60.0
CHANNELS = st.sampled_from(["a", "b"])


@dataclass
class Model:
    """One channel, slowly and plainly: a list, and deadlines."""

    epoch: str = ""
    top: int = 0
    stored: list[tuple[int, bytes]] = field(default_factory=list)
    version: tuple[int, str] | None = None
    list_ends: float = 0
    record_ends: float = 0
    results: dict[str, tuple[int, str, float]] = field(default_factory=dict)

    def settle(self, now: float) -> None:
        if self.record_ends <= now:
            self.epoch, self.top, self.version = "", 0, None
            self.stored = []
        if self.list_ends <= now:
            self.stored = []


class StreamMachine(RuleBasedStateMachine):
    """Publish, read, remove and let time pass on two channels; engine and model must agree."""

    factory: EngineFactory
    loop: asyncio.AbstractEventLoop

    @initialize()
    def open(self) -> None:
        self.now = 0.0
        self.models: dict[str, Model] = {"a": Model(), "b": Model()}
        self.delivered: dict[str, list[tuple[int, bytes]]] = {"a": [], "b": []}
        self.seen_epochs: dict[str, str] = {}
        self.counter = 0
        self.context = self.factory()
        self.engine: EngineUnderTest = self.run(self.context.__aenter__())
        for channel in self.models:
            self.run(self.engine.broker.subscribe(channel))

    def teardown(self) -> None:
        if hasattr(self, "context"):
            self.run(self.context.__aexit__(None, None, None))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @rule(
        channel=CHANNELS,
        size=st.integers(0, 4),
        ttl=st.sampled_from([0, 10 * 60, 30 * 60]),
        key=st.sampled_from(["", "", "k1", "k2"]),
        version=st.sampled_from([0, 0, 1, 2, 3]),
        version_epoch=st.sampled_from(["", "x", "y"]),
    )
    def publish(
        self, channel: str, size: int, ttl: int, key: str, version: int, version_epoch: str
    ) -> None:
        self.counter += 1
        data = b"%d" % self.counter
        options = PublishOptions(size, ttl, META_TTL, key, 40 * 60, False, version, version_epoch)
        expected = self._expect_publish(channel, data, options)

        outcome = self.run(self.engine.broker.publish(channel, Publication(Raw(data)), options))

        offset, suppressed = expected
        assert (outcome.position.offset, outcome.suppressed) == (offset, suppressed)
        if suppressed == "idempotency":
            assert outcome.position.epoch == self.models[channel].results[key][1]
        elif offset:
            self._see_epoch(channel, outcome.position.epoch)
            if key and not suppressed:
                self.models[channel].results[key] = (
                    offset,
                    outcome.position.epoch,
                    self.now + 40 * 60,
                )

    def _expect_publish(
        self, channel: str, data: bytes, options: PublishOptions
    ) -> tuple[int, str]:
        model = self.models[channel]
        known = model.results.get(options.idempotency_key)
        if options.idempotency_key and known is not None and known[2] > self.now:
            return known[0], "idempotency"
        if not (options.history_size and options.history_ttl):
            if options.idempotency_key:
                model.results[options.idempotency_key] = (0, "", self.now + 40 * 60)
            self.delivered[channel].append((0, data))
            return 0, ""
        model.settle(self.now)
        if options.version:
            stale = (
                model.version is not None
                and options.version_epoch in ("", model.version[1])
                and options.version <= model.version[0]
            )
            if stale:
                return model.top, "version"
            model.version = (options.version, options.version_epoch)
        model.top += 1
        model.stored = [*model.stored, (model.top, data)][-options.history_size :]
        model.list_ends = self.now + options.history_ttl
        model.record_ends = self.now + META_TTL
        self.delivered[channel].append((model.top, data))
        return model.top, ""

    @rule(
        channel=CHANNELS,
        limit=st.integers(-1, 5),
        since=st.none() | st.integers(0, 12),
        reverse=st.booleans(),
    )
    def read(self, channel: str, limit: int, since: int | None, reverse: bool) -> None:
        model = self.models[channel]
        model.settle(self.now)
        model.record_ends = self.now + META_TTL
        position = None if since is None else StreamPosition(since)

        history = self.run(
            self.engine.broker.history(channel, HistoryFilter(limit, position, reverse), META_TTL)
        )

        assert history.top.offset == model.top
        self._see_epoch(channel, history.top.epoch)
        wanted = model.stored[::-1] if reverse else model.stored
        if since is not None:
            wanted = [e for e in wanted if (e[0] < since if reverse else e[0] > since)]
            if reverse and since - 1 > model.top and not self.engine.reads_down_from_above:
                wanted = []
        if limit >= 0:
            wanted = wanted[:limit]
        assert [(p.offset, bytes(p.data)) for p in history.publications] == wanted

    @rule(channel=CHANNELS)
    def remove(self, channel: str) -> None:
        self.run(self.engine.broker.remove_history(channel))
        self.models[channel].stored = []

    @rule(minutes=st.sampled_from([1, 9, 31, 101]))
    def wait(self, minutes: int) -> None:
        seconds = 60 * minutes
        self.now += seconds
        self.run(self.engine.pass_time(seconds))

    def _see_epoch(self, channel: str, epoch: str) -> None:
        """An epoch lasts as long as the record, and no two generations share one."""
        model = self.models[channel]
        if model.epoch:
            assert epoch == model.epoch
            return
        model.epoch = epoch
        assert epoch not in self.seen_epochs
        self.seen_epochs[epoch] = channel

    @invariant()
    def subscribers_saw_every_publication_once_in_order(self) -> None:
        if not hasattr(self, "engine"):
            return
        total = sum(map(len, self.delivered.values()))
        self.run(self.engine.node.payloads(total))
        got: dict[str, list[tuple[int, bytes]]] = {"a": [], "b": []}
        for delivery in self.engine.node.deliveries:
            publication = delivery.publication
            got[delivery.channel].append((publication.offset, bytes(publication.data)))
        assert got == self.delivered


def test_streams_do_what_the_model_does(engine_factory: EngineFactory) -> None:
    """No sequence of publishes, reads, removals and waits tells the engine from the model."""
    with asyncio.Runner() as runner:
        machine = type(
            "Machine", (StreamMachine,), {"factory": engine_factory, "loop": runner.get_loop()}
        )
        machine.factory = staticmethod(engine_factory)
        run_state_machine_as_test(
            machine,
            settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
        )
