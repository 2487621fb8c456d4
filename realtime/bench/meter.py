"""What the server's processes use: CPU time and memory."""

from __future__ import annotations

from collections.abc import Sequence

import psutil


class Meter:
    """
    Read processes and all their descendants.

    Args:
        pids: The processes; none makes every reading ``None``.

    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)

    @property
    def pids(self) -> list[int]:
        """All processes that are read, as they are now."""
        return [process.pid for process in self._processes()]

    def cpu_seconds(self) -> float | None:
        """Return user and system time so far; the kernel counts it in ticks of 10 ms."""
        if not self._pids:
            return None
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(each.user + each.system for each in times))

    def memory_bytes(self) -> int | None:
        """Return the resident memory."""
        if not self._pids:
            return None
        return int(sum(process.memory_info().rss for process in self._processes()))

    def _processes(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        for pid in self._pids:
            process = psutil.Process(pid)
            found[pid] = process
            found |= {child.pid: child for child in process.children(recursive=True)}
        return list(found.values())


def listening_pids(port: int) -> list[int]:
    """Return the processes that listen on a port of this machine; none where that may not be seen."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return []
    return sorted(
        {
            each.pid
            for each in connections
            # A socket without an address has an empty tuple for it.
            if each.status == psutil.CONN_LISTEN
            and getattr(each.laddr, "port", None) == port
            and each.pid
        }
    )
