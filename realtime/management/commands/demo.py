"""``manage.py demo``: the process behind the demo page's live numbers."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import time
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from realtime.demo.board import Board
from realtime.demo.feed import Feed
from realtime.demo.namespace import BOARD_CHANNEL, SYSTEM_CHANNEL
from realtime.demo.system import SystemMeter
from realtime.shortcuts import publish


logger = logging.getLogger(__name__)


class _Stopped(Exception):  # noqa: N818 -- no error: the usual end
    """Somebody asked for the end."""


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0.05):
        message = f"{text} is not a number of seconds from 0.05 on"
        raise argparse.ArgumentTypeError(message)
    return value


def _whole_number(text: str) -> int:
    value = int(text)
    if value < 0:
        message = f"{text} is below 0"
        raise argparse.ArgumentTypeError(message)
    return value


class Command(BaseCommand):
    """Publish this machine's load, memory and network from a process of its own, as a backend service would."""

    help = (
        f"Publish this machine's load, memory and network to {SYSTEM_CHANNEL} once a second, and a "
        f"document that changes to {BOARD_CHANNEL}. "
        "It runs beside the server, outlives the server's restarts, and ends on SIGTERM or Ctrl-C."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add ``--interval`` and ``--count``."""
        parser.add_argument(
            "--interval", type=_seconds, default=1.0, help="Seconds between two measurements (1)."
        )
        parser.add_argument(
            "--count",
            type=_whole_number,
            default=0,
            help="End after so many measurements were published (0: go on).",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Publish until told to stop."""
        board = Board(seed=time.time_ns())

        def publish_both(measurement: dict[str, Any]) -> None:
            publish(SYSTEM_CHANNEL, measurement)
            publish(BOARD_CHANNEL, board.step())

        feed = Feed(
            SystemMeter().read,
            publish_both,
            interval=options["interval"],
            monotonic=time.monotonic,
            sleep=time.sleep,
        )
        before = {
            number: signal.signal(number, _on_signal) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            logger.info("publishing to %s every %g s", SYSTEM_CHANNEL, options["interval"])
            feed.run(options["count"])
        except _Stopped:
            logger.info("stopped")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
