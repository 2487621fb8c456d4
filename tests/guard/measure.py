"""
Measure the hot paths in this process and print them as multiples of the calibration's work: ``python -m tests.guard.measure``.

Why ratios of CPU time, and why the least of many: seconds differ between machines, and on a shared one everything that
disturbs (another tenant, a cache that was emptied, a lower clock) makes work slower, never faster. Batches of a few
milliseconds are measured in turn, so that a slow phase meets the paths and the calibration alike, and the least of each is
what the work costs when nothing disturbs it. Counting instructions would have less noise, but under valgrind the imports alone
take longer than all of this, a compiled package may use instructions that it doesn't know, and the counts of two versions of
Python differ as much as their times.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable

import django


ROUNDS = 150


async def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Return each path's CPU time per batch, in batches of the calibration."""
    from tests.guard import paths  # what it imports needs Django to be set up

    node = paths.make_node()
    await node.start()
    calibration = paths.calibration()
    batches = {
        "api_publish": paths.api_publish(node),
        "fan_out": paths.fan_out(node),
        "connect": paths.connect(node),
        "inbound_publish": await paths.inbound_publish(node),
        "redis_publish": paths.redis_publish(),
        "redis_delivery": paths.redis_delivery(node),
    }
    least = dict.fromkeys((*batches, "calibration"), sys.maxsize)
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(rounds):
        for name, batch in batches.items():
            least["calibration"] = min(least["calibration"], _time(calibration))
            least[name] = min(least[name], _time(batch))
        gc.collect()
        await asyncio.sleep(0)  # what the paths put off until the next round of the loop
    gc.enable()
    gc.unfreeze()
    await node.stop()
    return {name: least[name] / least["calibration"] for name in batches}


def _time(batch: Callable[[], None]) -> int:
    start = time.thread_time_ns()
    batch()
    return time.thread_time_ns() - start


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    sys.stdout.write(json.dumps(asyncio.run(measure())))
