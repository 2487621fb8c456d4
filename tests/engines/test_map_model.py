"""Random histories of maps against a model that is written from the specification alone: a dict, a list and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Raw

from realtime.engines.base import HistoryFilter
from realtime.engines.maps import IF_EXISTS, IF_NEW, MapChange, MapEntry, MapOutcome, StateFilter
from realtime.namespaces.options import MapRules
from realtime.protocol.messages import Publication, StreamPosition
from tests.engines.map_backends import MapsFactory, MapsUnderTest


T = TypeVar("T")
# Minutes, which no run takes: a Redis has a clock of its own, which a test can only put forward.
STREAM_SIZE, STREAM_TTL, META_TTL, RESULT_TTL = 4, 25 * 60, 100 * 60, 40 * 60
HUGE = 2**60
NEVER = float("inf")

CHANNELS = st.sampled_from(["map:a", "map:b"])
KEYS = st.sampled_from(["k1", "k2", "k3", "é", "k10"])
RESULTS = st.sampled_from(["", "", "", "i1", "i2"])
TAGS = st.sampled_from([None, {"t": "1"}, {"t": "2", "u": "3"}])

Change = tuple[int, str, bool, bytes, dict[str, str] | None]
"""Offset, key, whether it was removed, payload, tags."""


@dataclass
class Value:
    offset: int
    data: bytes
    tags: dict[str, str] | None
    ends: float
    version: tuple[int, str] | None


@dataclass
class Model:
    """One map."""

    epoch: str = ""
    top: int = 0
    keys: dict[str, Value] = field(default_factory=dict)
    stream: list[Change] = field(default_factory=list)
    stream_ends: float = NEVER
    record_ends: float = NEVER
    results: dict[str, tuple[int, float]] = field(default_factory=dict)

    def touch(self, now: float) -> None:
        """Let go of what ended; while there are keys the record has no end."""
        if not self.keys and self.record_ends <= now:
            self.epoch, self.top, self.stream, self.results = "", 0, [], {}
        if self.stream_ends <= now:
            self.stream, self.stream_ends = [], NEVER
        self.record_ends = now + META_TTL

    def append(self, key: str, data: bytes, tags: dict[str, str] | None, now: float) -> Change:
        self.top += 1
        change = (self.top, key, not data, data, tags)
        self.stream = [*self.stream, change][-STREAM_SIZE:]
        self.stream_ends = now + STREAM_TTL
        return change


def facts(publication: Publication) -> Change:
    return (
        publication.offset,
        publication.key,
        publication.removed,
        bytes(publication.data),
        publication.tags,
    )


class MapMachine(RuleBasedStateMachine):
    """Write, remove, read, clear, wait and sweep on two maps; store and model must agree."""

    factory: MapsFactory
    loop: asyncio.AbstractEventLoop
    has_stream: bool

    @initialize()
    def open(self) -> None:
        self.now = 0.0
        self.models = {"map:a": Model(), "map:b": Model()}
        self.told: dict[str, list[Change]] = {"map:a": [], "map:b": []}
        self.bases: list[bytes | None] = []
        self.epochs: set[str] = set()
        self.counter = 0
        self.context = self.factory()
        self.store: MapsUnderTest = self.run(self.context.__aenter__())
        for channel in self.models:
            self.run(self.store.maps.subscribe(channel))

    def teardown(self) -> None:
        if hasattr(self, "context"):
            self.run(self.context.__aexit__(None, None, None))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def how(self, key_ttl: int) -> MapRules:
        if self.has_stream:
            return MapRules(key_ttl, STREAM_SIZE, STREAM_TTL, META_TTL)
        return MapRules(key_ttl)

    def model(self, channel: str) -> Model:
        model = self.models[channel]
        if self.has_stream:
            model.touch(self.now)
        return model

    def tell(self, channel: str, change: Change) -> None:
        self.told[channel].append(change if self.has_stream else (0, *change[1:]))

    @rule(
        channel=CHANNELS,
        key=KEYS,
        tags=TAGS,
        key_ttl=st.sampled_from([0, 20 * 60, 30 * 60]),
        mode=st.sampled_from(["", "", IF_NEW, IF_EXISTS]),
        refresh=st.booleans(),
        delta=st.booleans(),
        result=RESULTS,
        version=st.sampled_from([0, 0, 1, HUGE, HUGE + 1]),
        version_epoch=st.sampled_from(["", "x"]),
        expected=st.sampled_from([None, None, None, "right", "wrong"]),
    )
    def publish(
        self,
        channel: str,
        key: str,
        tags: dict[str, str] | None,
        key_ttl: int,
        mode: str,
        refresh: bool,
        delta: bool,
        result: str,
        version: int,
        version_epoch: str,
        expected: str | None,
    ) -> None:
        self.counter += 1
        model = self.model(channel)
        change = MapChange(
            key_mode=mode,
            refresh_ttl=refresh,
            expected=self._position(model, key, expected),
            idempotency_key=result,
            idempotency_ttl=RESULT_TTL,
            delta=delta,
            version=version if self.has_stream else 0,
            version_epoch=version_epoch,
        )
        data = b"%d" % self.counter
        reason = self._write(model, channel, key, data, tags, key_ttl, change)

        outcome = self.run(
            self.store.maps.publish(
                channel,
                Publication(key=key, data=Raw(data), tags=tags),
                self.how(key_ttl),
                change,
            )
        )

        self._check(channel, key, outcome, reason, result)

    def _write(
        self,
        model: Model,
        channel: str,
        key: str,
        data: bytes,
        tags: dict[str, str] | None,
        key_ttl: int,
        change: MapChange,
    ) -> str:
        value = model.keys.get(key)
        ends = self.now + key_ttl if key_ttl else NEVER
        known = model.results.get(change.idempotency_key)
        if known is not None and known[1] > self.now:
            return "idempotency"
        if change.version and value is not None and value.version is not None:
            number, epoch = value.version
            if change.version_epoch in ("", epoch) and change.version <= number:
                return "version"
        if change.key_mode == IF_NEW and value is not None:
            if change.refresh_ttl:
                value.ends = ends
            return "key_exists"
        if change.key_mode == IF_EXISTS and value is None:
            return "key_not_found"
        if self._is_mismatch(model, value, change):
            return "position_mismatch"
        appended = model.append(key, data, tags, self.now)
        version = value.version if value is not None else None
        if change.version:
            version = (change.version, change.version_epoch)
        model.keys[key] = Value(model.top, data, tags, ends, version)
        self.tell(channel, appended)
        self.bases.append(value.data if change.delta and value is not None else None)
        return ""

    @rule(
        channel=CHANNELS,
        key=KEYS,
        tags=TAGS,
        result=RESULTS,
        expected=st.sampled_from([None, None, None, "right", "wrong"]),
    )
    def remove(
        self,
        channel: str,
        key: str,
        tags: dict[str, str] | None,
        result: str,
        expected: str | None,
    ) -> None:
        model = self.model(channel)
        change = MapChange(
            expected=self._position(model, key, expected),
            idempotency_key=result,
            idempotency_ttl=RESULT_TTL,
        )
        value = model.keys.get(key)
        known = model.results.get(result)
        if known is not None and known[1] > self.now:
            reason = "idempotency"
        elif self._is_mismatch(model, value, change):
            reason = "position_mismatch"
        elif value is None:
            reason = "key_not_found"
        else:
            reason = ""
            del model.keys[key]
            self.tell(channel, model.append(key, b"", tags or value.tags, self.now))
            self.bases.append(None)

        outcome = self.run(
            self.store.maps.remove(channel, Publication(key=key, tags=tags), self.how(20), change)
        )

        self._check(channel, key, outcome, reason, result)

    def _position(self, model: Model, key: str, expected: str | None) -> StreamPosition | None:
        if expected is None or not self.has_stream:
            return None
        value = model.keys.get(key)
        offset = value.offset if value is not None else 1
        return StreamPosition(offset if expected == "right" else offset + 1, model.epoch)

    @staticmethod
    def _is_mismatch(model: Model, value: Value | None, change: MapChange) -> bool:
        position = change.expected
        return position is not None and (value is None or value.offset != position.offset)

    def _check(self, channel: str, key: str, outcome: MapOutcome, reason: str, result: str) -> None:
        model = self.models[channel]
        assert outcome.suppressed == reason
        offset = model.results[result][0] if reason == "idempotency" else model.top
        self._see(channel, outcome.position, offset)
        if reason == "position_mismatch":
            value = model.keys.get(key)
            assert (outcome.current is None) == (value is None)
            if value is not None and outcome.current is not None:
                assert bytes(outcome.current.publication.data) == value.data
        if result and not reason:
            model.results[result] = (model.top, self.now + RESULT_TTL)

    def _see(self, channel: str, position: StreamPosition, offset: int) -> None:
        """An epoch lasts as long as the record, and no two maps share one."""
        if not self.has_stream:
            assert position == StreamPosition()
            return
        assert position.offset == offset
        model = self.models[channel]
        if model.epoch:
            assert position.epoch == model.epoch
            return
        model.epoch = position.epoch
        assert position.epoch not in self.epochs
        self.epochs.add(position.epoch)

    @rule(channel=CHANNELS, limit=st.integers(1, 4))
    def page(self, channel: str, limit: int) -> None:
        model = self.model(channel)
        found: list[MapEntry] = []
        what = StateFilter(limit)
        while True:
            state = self.run(self.store.maps.read_state(channel, self.how(20), what))
            self._see(channel, state.top, model.top)
            assert len(state.entries) <= limit
            found += state.entries
            what = StateFilter(limit, state.cursor)
            if not state.cursor:
                break

        assert [facts(entry.publication) for entry in found] == [
            (value.offset if self.has_stream else 0, key, False, value.data, value.tags)
            for key, value in sorted(model.keys.items())
        ]
        assert self.run(self.store.maps.count(channel)) == len(model.keys)

    @precondition(lambda self: self.has_stream)
    @rule(channel=CHANNELS, limit=st.integers(-1, 5), since=st.none() | st.integers(0, 9))
    def read(self, channel: str, limit: int, since: int | None) -> None:
        model = self.model(channel)
        position = None if since is None else StreamPosition(since)

        found = self.run(
            self.store.maps.read_stream(channel, self.how(20), HistoryFilter(limit, position))
        )

        self._see(channel, found.top, model.top)
        wanted = [change for change in model.stream if change[0] > (since or 0)]
        assert [facts(entry.publication) for entry in found.entries] == (
            wanted if limit < 0 else wanted[:limit]
        )

    @rule(channel=CHANNELS)
    def clear(self, channel: str) -> None:
        model = self.models[channel]
        # Where there is no epoch that a result could belong to, it may outlive the map.
        results = {} if self.has_stream else model.results
        if not self.has_stream and any(ends > self.now for _, ends in results.values()):
            return
        self.run(self.store.maps.clear(channel))
        self.models[channel] = Model(results=results)

    @rule(minutes=st.sampled_from([1, 9, 21, 101]))
    def wait(self, minutes: int) -> None:
        seconds = 60 * minutes
        self.now += seconds
        self.run(self.store.pass_time(seconds))

    @rule()
    def sweep(self) -> None:
        """Due keys go by their deadlines, those of one moment in any order: what subscribers were told says which."""
        due = {
            channel: {key: value for key, value in model.keys.items() if value.ends <= self.now}
            for channel, model in self.models.items()
        }
        before = sum(map(len, self.told.values()))

        self.run(self.store.sweep())
        self.run(self.store.node.payloads(before + sum(map(len, due.values()))))

        for delivery in self.store.node.deliveries[before:]:
            model, keys = self.models[delivery.channel], due[delivery.channel]
            value = keys.pop(delivery.publication.key)
            assert value.ends == min([value.ends, *(other.ends for other in keys.values())])
            if self.has_stream and model.stream_ends <= self.now:
                model.stream = []
            del model.keys[delivery.publication.key]
            change = model.append(delivery.publication.key, b"", value.tags, self.now)
            model.record_ends = self.now + META_TTL
            self.tell(delivery.channel, change)
            self.bases.append(None)
        assert not any(due.values())

    @invariant()
    def subscribers_saw_every_change_once_in_order(self) -> None:
        if not hasattr(self, "store"):
            return
        self.run(self.store.node.payloads(sum(map(len, self.told.values()))))
        got: dict[str, list[Change]] = {"map:a": [], "map:b": []}
        for delivery in self.store.node.deliveries:
            assert delivery.position.offset == delivery.publication.offset
            got[delivery.channel].append(facts(delivery.publication))
        assert got == self.told
        assert sorted(self._bases_told(), key=repr) == sorted(self.bases, key=repr)

    def _bases_told(self) -> list[bytes | None]:
        return [
            None if delivery.previous is None else bytes(delivery.previous.data)
            for delivery in self.store.node.deliveries
        ]


@pytest.mark.parametrize("has_stream", [True, False], ids=["stream", "ephemeral"])
def test_maps_do_what_the_model_does(maps_factory: MapsFactory, has_stream: bool) -> None:
    """No sequence of writes, removals, reads, clears, waits and sweeps tells the store from the model."""
    with asyncio.Runner() as runner:
        machine = type(
            "Machine",
            (MapMachine,),
            {
                "factory": staticmethod(maps_factory),
                "loop": runner.get_loop(),
                "has_stream": has_stream,
            },
        )
        run_state_machine_as_test(
            machine,
            settings=settings(max_examples=60, stateful_step_count=40, deadline=None),
        )
