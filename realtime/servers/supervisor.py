"""
Several workers on one port.

The supervisor serves nobody. It starts the workers as fresh processes, each of which is a node with a loop and listening
sockets of its own (``SO_REUSEPORT``; the kernel deals connections out), puts another in the place of one that ends, passes
signals on, and ends when the last one has.

A worker and its supervisor hold the two ends of a socket pair, the *lifeline*. The worker writes one byte when it serves.
When the supervisor is gone, however that came, the worker reads the end of it and drains as at SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


logger = logging.getLogger(__name__)

# A worker that served for so long did not fail because of how it was started.
SETTLED_AFTER = 10.0
FIRST_DELAY = 0.5  # seconds before a worker that failed early is started again; doubled each time
MAX_DELAY = 30.0
# Beyond shutdown.timeout, at which a worker gives up by itself.
GRACE = 5.0

CommandLine = Callable[[int, int], Sequence[str]]
"""From a worker's number (1 is the first) and the file descriptor of its lifeline to what is executed."""


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """
    How to keep workers.

    Attributes:
        workers: How many.
        shutdown_seconds: How long a worker may take to end.
        settled_after, first_delay, max_delay: When a failure counts as one of the start, and the pauses between
            such failures, in seconds.

    """

    workers: int
    shutdown_seconds: float = 30.0
    settled_after: float = SETTLED_AFTER
    first_delay: float = FIRST_DELAY
    max_delay: float = MAX_DELAY


class _Worker:
    """One worker's process, from its start to its end."""

    def __init__(
        self, number: int, process: asyncio.subprocess.Process, lifeline: socket.socket
    ) -> None:
        self.number = number
        self.process = process
        self.serving_since: float | None = None
        self._lifeline = lifeline
        self._is_to_reload = False

    async def serves(self) -> bool:
        """Wait until the worker serves; False means that it ended before."""
        if self.serving_since is None:
            loop = asyncio.get_running_loop()
            with contextlib.suppress(OSError):  # it died with something unread
                if await loop.sock_recv(self._lifeline, 1):
                    self.serving_since = time.monotonic()
                    if self._is_to_reload:
                        self.send(signal.SIGHUP)
        return self.serving_since is not None

    async def end(self) -> int:
        """Wait for the end; returns the exit status, negative for a signal."""
        status = await self.process.wait()
        self._lifeline.close()
        return status

    def reload(self) -> None:
        """
        Let it read the configuration again.

        One that still starts may have read it already and not listen to the signal yet, which would end it: it is told
        once it serves.
        """
        if self.serving_since is None:
            self._is_to_reload = True
        else:
            self.send(signal.SIGHUP)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is no error."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Supervisor:
    """
    The process above the workers.

    Args:
        command: What a worker is.
        settings: How to keep them.

    """

    def __init__(self, command: CommandLine, settings: SupervisorSettings) -> None:
        self._command = command
        self._settings = settings
        self._workers: dict[int, _Worker] = {}
        self._stopping = asyncio.Event()
        self._statuses: list[int] = []

    async def run(self) -> int:
        """
        Keep the workers until SIGTERM or SIGINT.

        Returns:
            The process's exit status: 0 when all workers ended in order. A first worker that does not come to
            serve is not tried again, and its status is returned.

        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        first = await self._start(1)
        if not await first.serves() and not self._stopping.is_set():
            status = await first.end()
            logger.critical(
                "the first worker did not start (%s): giving up", _describe_status(status)
            )
            return status if status > 0 else 1
        keepers = [
            asyncio.ensure_future(self._keep(number, first if number == 1 else None))
            for number in range(1, self._settings.workers + 1)
        ]
        logger.info("%d workers, kept by process %d", self._settings.workers, os.getpid())
        await self._stopping.wait()
        return await self._finish(keepers)

    async def _start(self, number: int) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command(number, theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # A terminal's Ctrl-C must reach the supervisor alone: a second SIGINT would cut the drain short.
                process_group=0,
            )
        worker = self._workers[number] = _Worker(number, process, ours)
        if self._stopping.is_set():  # it came while this one was being started
            worker.send(signal.SIGTERM)
        return worker

    async def _keep(self, number: int, worker: _Worker | None) -> None:
        """See to it that there is a worker with this number, until the end."""
        failures = 0
        while worker is not None or not self._stopping.is_set():
            if worker is None:
                worker = await self._start(number)
            await worker.serves()
            status = await worker.end()
            del self._workers[number]
            if self._stopping.is_set():
                # One that never served had nobody to send away, and maybe no handler for the signal yet.
                is_in_order = status == 0 or worker.serving_since is None
                self._statuses.append(0 if is_in_order else 1)
                return
            since = worker.serving_since
            has_settled = since and time.monotonic() - since >= self._settings.settled_after
            failures = 0 if has_settled else failures + 1
            delay = self._delay(failures)
            logger.error(
                "worker %d (process %d) ended (%s), another one starts %s",
                number,
                worker.process.pid,
                _describe_status(status),
                f"in {delay:g} s" if delay else "now",
            )
            worker = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
                return

    def _delay(self, failures: int) -> float:
        if not failures:
            return 0
        # Bounded before it is a power, which after hours of failing would be a very long number.
        factor = 1 << min(failures - 1, 16)
        return min(self._settings.first_delay * factor, self._settings.max_delay)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            if number == signal.SIGINT:  # somebody at a terminal is tired of waiting
                self._pass_on(signal.SIGKILL)
            return
        logger.info("shutting down the workers ...")
        self._stopping.set()
        self._pass_on(signal.SIGTERM)

    def _reload(self) -> None:
        for worker in tuple(self._workers.values()):
            worker.reload()

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in tuple(self._workers.values()):
            worker.send(number)

    async def _finish(self, keepers: Sequence[asyncio.Future[None]]) -> int:
        _, late = await asyncio.wait(keepers, timeout=self._settings.shutdown_seconds + GRACE)
        if late:
            logger.critical("%d workers did not end in time and are killed", len(late))
            self._pass_on(signal.SIGKILL)
        await asyncio.gather(*keepers)
        return max(self._statuses, default=0)


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


class Lifeline:
    """
    A worker's end.

    Args:
        descriptor: Of the socket, as the command line says it.
        shutdown_seconds: How long the worker may take to end once its supervisor is gone.

    """

    def __init__(self, descriptor: int, shutdown_seconds: float) -> None:
        self._socket = socket.socket(fileno=descriptor)
        # What the worker itself starts must not hold it.
        self._socket.set_inheritable(False)
        self._shutdown_seconds = shutdown_seconds

    def watch(self) -> None:
        """Drain this process when the supervisor is gone; from a thread, since there may be no loop yet, or no more."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def say_serving(self) -> None:
        """Tell the supervisor that connections are taken."""
        with contextlib.suppress(OSError):  # it is gone, which the thread sees to
            self._socket.send(b"1")

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                continue
        logger.error("the supervisor is gone: shutting down")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._shutdown_seconds + GRACE)
        os._exit(1)  # the loop does not turn any more
