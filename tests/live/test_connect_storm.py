"""Everybody comes back at once; ``tests/bench`` does the same with five times as many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.live import storm
from tests.live.harness import Server


pytestmark = pytest.mark.live

# Clients, and seconds between two publications. Under Daphne either costs some 2 ms of CPU, so that a storm of 1,000 and 100
# publications a second would be more than it can do on a busy machine.
LOADS = {"serve": (1000, 0.01), "daphne": (300, 0.1)}


async def test_all_come_back_at_once_and_others_go_on_listening(
    make_server: Callable[[Mapping[str, str]], Server],
) -> None:
    """Nobody is refused, everybody recovers, and a subscriber who stayed waits less than a second (p99)."""
    storm.allow_many_files()
    server = await asyncio.to_thread(make_server, {})

    clients, interval = LOADS[server.shape]
    outcome = await storm.run(server, clients, interval=interval)

    storm.check(outcome)
