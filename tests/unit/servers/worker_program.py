"""
A worker for the supervisor's tests: it logs to a file what it is told, and serves nobody.

    python worker_program.py NUMBER LIFELINE LOG MODE

Modes: ``serve`` until SIGTERM; ``fail`` at once with status 3; ``mortal`` serves and ends on SIGUSR1 with status 4;
``stubborn`` ignores SIGTERM; ``brief`` serves and fails at once; ``late`` takes a second to serve.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[3]))

from realtime.servers.supervisor import Lifeline


NUMBER, LIFELINE, LOG, MODE = sys.argv[1:5]


def note(word: str) -> None:
    """Write one line: the word, the worker's number and its process."""
    with Path(LOG).open("a", encoding="ascii") as log:
        log.write(f"{word} {NUMBER} {os.getpid()}\n")


def on_term(*_: object) -> None:
    note("term")
    if MODE != "stubborn":
        raise SystemExit(0)


def on_usr1(*_: object) -> None:
    raise SystemExit(4)


lifeline = Lifeline(int(LIFELINE), 30)
lifeline.watch()
if MODE == "fail":
    raise SystemExit(3)
if MODE == "late":
    note("starting")
    time.sleep(1)
signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGHUP, lambda *_: note("hup"))
signal.signal(signal.SIGUSR1, on_usr1)
lifeline.say_serving()
note("serving")
if MODE == "brief":
    raise SystemExit(5)
while True:
    time.sleep(0.1)
