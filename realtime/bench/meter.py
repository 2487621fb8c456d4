"""What the server's processes use: CPU time and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil

from realtime.bench import BenchError


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
        """
        Return user and system time so far; the kernel counts it in ticks of 10 ms.

        Raises:
            BenchError: A process ended or may not be looked at.

        """
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def memory_bytes(self) -> float | None:
        """Return the resident memory; raises as ``cpu_seconds`` does."""
        return self._sum(lambda process: process.memory_info().rss)

    def _sum(self, read: Callable[[psutil.Process], float]) -> float | None:
        if not self._pids:
            return None
        try:
            return sum(map(read, self._processes()))
        except psutil.Error as error:
            raise BenchError(f"the server can't be measured: {error}") from error

    def _processes(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        try:
            for pid in self._pids:
                process = psutil.Process(pid)
                found[pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
        except psutil.Error as error:
            raise BenchError(f"the server can't be measured: {error}") from error
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
