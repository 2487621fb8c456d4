"""A supervisor of ``worker_program.py`` as a process: ``python -m tests.unit.servers.supervised LOG COUNT MODE MODE...``."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from realtime.servers.supervisor import Supervisor, SupervisorSettings


PROGRAM = Path(__file__).with_name("worker_program.py")


async def main(log: str, count: str, *modes: str) -> int:
    """Keep workers; the one with the highest number has the last mode, as have those that are started again."""
    starts = 0

    def command(number: int, lifeline: int) -> list[str]:
        nonlocal starts
        mode = modes[min(starts, len(modes) - 1)]
        starts += 1
        return [sys.executable, str(PROGRAM), str(number), str(lifeline), log, mode]

    settings = SupervisorSettings(
        int(count), shutdown_seconds=-4, settled_after=0.5, first_delay=0.1, max_delay=0.2
    )
    return await Supervisor(command, settings).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    raise SystemExit(asyncio.run(main(*sys.argv[1:])))
