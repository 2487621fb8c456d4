"""This machine's load, memory and network, read from the operating system."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil


class SystemMeter:
    """
    Measure between one reading and the next.

    ``read()`` returns::

        {"at": Unix time in ms, "cpu": percent of all cores since the last reading, "cores": int,
         "load": [1, 5, 15 minutes], "memory": {"used": bytes, "total": bytes, "percent": float},
         "network": {"in": bytes a second, "out": bytes a second}}

    Network counts every interface, loopback included.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        psutil.cpu_percent()  # the first call has nothing to compare with
        self._network = psutil.net_io_counters()
        self._read_at = monotonic()

    def read(self) -> dict[str, Any]:
        """Return what happened since the last call (or since the meter was made)."""
        now = self._monotonic()
        elapsed = max(now - self._read_at, 1e-3)
        before, self._network, self._read_at = self._network, psutil.net_io_counters(), now
        memory = psutil.virtual_memory()
        return {
            "at": int(self._clock() * 1000),
            "cpu": psutil.cpu_percent(),
            "cores": psutil.cpu_count() or 1,
            "load": [round(value, 2) for value in psutil.getloadavg()],
            "memory": {
                "used": memory.total - memory.available,
                "total": memory.total,
                "percent": memory.percent,
            },
            "network": {
                "in": round((self._network.bytes_recv - before.bytes_recv) / elapsed),
                "out": round((self._network.bytes_sent - before.bytes_sent) / elapsed),
            },
        }
