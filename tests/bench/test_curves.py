"""What a message costs does not grow with the audience, nor with the channels of others."""

from __future__ import annotations

import pytest

from realtime.bench.plan import Plan
from tests.bench.conftest import Bench, Record


pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

# CPU time of equal work varies by a third between runs on a machine that others use, too, and 50,000 channels fit no cache
# of a processor. What these curves are to find grows with the audience: ten times as much for ten times as many.
TOLERANCE = 2.0
# The least of so many runs: what disturbs a run only ever adds.
ROUNDS = 2

# Subscribers, publications: at least a second of CPU time, which is counted in ticks of 10 ms.
SUBSCRIBERS = ((1, 20_000), (10, 15_000), (100, 5_000), (1_000, 500), (10_000, 60))
CHANNELS = (1, 10, 100, 1_000, 10_000, 50_000)
# Each holds as many of the channels as are left to it, a hundred at most: clients may have 128 by default.
SOCKETS = 500


async def least(bench: Bench, plan: Plan) -> float:
    """Return the CPU time of a unit in microseconds, the least of several runs."""
    costs = [(await bench.run(plan)).cpu_us for _ in range(ROUNDS)]
    return min(cost for cost in costs if cost is not None)


def assert_flat_or_falling(points: list[dict[str, float]]) -> None:
    """No point is far above the lowest one before it."""
    for number, point in enumerate(points[1:], start=1):
        lowest = min(before["cpu_us"] for before in points[:number])
        assert point["cpu_us"] <= lowest * TOLERANCE, points


async def test_a_delivery_costs_less_the_more_subscribers_a_channel_has(
    bench: Bench, record: Record
):
    """What a publication costs once is shared by more of them: from 1 to 10,000."""
    points = []
    for clients, publications in SUBSCRIBERS:
        plan = Plan("fanout", clients, 1, publications, publishers=4, max_seconds=300)
        points.append({"x": clients, "cpu_us": round(await least(bench, plan), 2)})

    record("subscribers", points)
    assert_flat_or_falling(points)
    assert points[-1]["cpu_us"] < points[0]["cpu_us"] / 4


async def test_a_publication_costs_the_same_however_many_channels_there_are(
    bench: Bench, record: Record
):
    """
    From one channel to 50,000, each with one subscriber.

    There is one publisher, so no two publications leave in one write, which would favour few channels.
    """
    points = []
    for channels in CHANNELS:
        plan = Plan(
            "channels", min(channels, SOCKETS), channels, 20_000, publishers=1, max_seconds=300
        )
        points.append({"x": channels, "cpu_us": round(await least(bench, plan), 2)})

    record("channels", points)
    assert_flat_or_falling(points)
