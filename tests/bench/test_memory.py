"""What an idle socket costs, and that all of very many are still reached."""

from __future__ import annotations

import resource
import sys

import pytest

from realtime.bench.plan import Plan
from realtime.bench.server import OTHER_FILES
from tests.bench.conftest import Bench, Record


pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

SOCKETS = 20_000
# A process may not have fewer, or the figure says nothing of the many.
LEAST_SOCKETS = 10_000
MAX_KB = 20
# Above the 25 s between two pings, so that each socket has had one and its answer is digested.
HOLD_SECONDS = 30


def possible_sockets() -> int:
    """Return 20,000, or what this machine lets a process have (``ulimit -Hn``)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard - OTHER_FILES - 1
    return min(SOCKETS, most)


async def test_twenty_thousand_idle_sockets_are_held_by_one_process(bench: Bench, record: Record):
    """Each is connected, subscribed and pinged, takes at most 20 KB, and gets what is published."""
    sockets = possible_sockets()
    assert sockets >= LEAST_SOCKETS, f"a process may have {sockets} sockets here: raise ulimit -Hn"
    plan = Plan("fanout", sockets, 1, 3, publishers=1, hold=HOLD_SECONDS, max_seconds=300)

    result = await bench.run(plan)

    assert len(result.pids) == 1
    assert result.delivered == 3 * sockets
    assert result.pings >= sockets
    assert result.kb_per_socket is not None
    record("memory", {"sockets": sockets, "kb_per_socket": round(result.kb_per_socket, 2)})
    assert result.kb_per_socket <= MAX_KB
