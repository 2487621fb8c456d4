"""Publish this machine's counters once a second, from a process of its own."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

import psutil
from django.core.management.base import BaseCommand, CommandParser

from realtime.protocol.errors import ClientError, EngineError
from realtime.shortcuts import publish


logger = logging.getLogger(__name__)

CHANNEL = "demo:system"


class Command(BaseCommand):
    """``manage.py demo``."""

    help = (
        "Publish this machine's load, memory and network counters to demo:system through the API."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between two")
        parser.add_argument("--count", type=int, default=0, help="how many, 0 without end")

    def handle(self, *_: Any, **options: Any) -> None:
        """Publish until told to stop; a server that is away is waited for."""
        stop = threading.Event()

        def end(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        is_away = False
        published = 0
        while not stop.wait(options["interval"]):
            try:
                publish(CHANNEL, measure())
            except (EngineError, ClientError) as error:
                if not is_away:
                    logger.warning("not published, trying on: %s", error)
                is_away = True
                continue
            if is_away:
                logger.warning("publishing again")
            is_away = False
            published += 1
            if published == options["count"]:
                return


def measure() -> dict[str, float]:
    """Read the counters: load (1 minute), CPU and memory in percent, network bytes since boot."""
    network = psutil.net_io_counters()
    return {
        "load": psutil.getloadavg()[0],
        "cpu_percent": psutil.cpu_percent(),
        "memory_percent": psutil.virtual_memory().percent,
        "bytes_sent": network.bytes_sent,
        "bytes_received": network.bytes_recv,
    }
