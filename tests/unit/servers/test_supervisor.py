"""The supervisor, with workers that serve nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


SECONDS = 30.0


class Supervised:
    """A supervisor's process, and what its workers noted."""

    def __init__(self, folder: Path, count: int, *modes: str) -> None:
        self._log = folder / "workers"
        self._log.touch()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.unit.servers.supervised"),
                *(str(self._log), str(count), *modes),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    def noted(self, word: str) -> list[tuple[int, int]]:
        """Number and process of each worker that noted the word, in order."""
        lines = [line.split() for line in self._log.read_text(encoding="ascii").splitlines()]
        return [(int(line[1]), int(line[2])) for line in lines if line[0] == word]

    def wait(self, word: str, count: int) -> list[tuple[int, int]]:
        """Wait until so many workers noted the word."""
        until(lambda: len(self.noted(word)) >= count)
        return self.noted(word)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; returns the exit status and what was logged."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        _, log = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, log


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def make(count: int, *modes: str) -> Supervised:
        made.append(Supervised(tmp_path, count, *modes))
        return made[-1]

    yield make
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate(timeout=SECONDS)
        for _, pid in each.noted("serving"):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


Supervise = Callable[..., Supervised]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_workers_are_told_to_end(supervise: Supervise, number: int) -> None:
    """By SIGTERM, each once; the supervisor ends with status 0."""
    supervised = supervise(3, "serve")
    workers = supervised.wait("serving", 3)

    status, log = supervised.end(number)

    assert status == 0, log
    assert sorted(supervised.noted("term")) == sorted(workers)
    assert {worker for worker, _ in workers} == {1, 2, 3}
    assert not any(is_alive(pid) for _, pid in workers)


@pytest.mark.parametrize("number", [1, 2])
def test_a_dead_worker_is_replaced(supervise: Supervise, number: int) -> None:
    """One that is killed after it has served for a while, at once and under its own number; the others stay."""
    supervised = supervise(2, "serve")
    before = dict(supervised.wait("serving", 2))
    time.sleep(2)  # well beyond what counts as settled here, which the supervisor measures
    os.kill(before[number], signal.SIGKILL)

    third = supervised.wait("serving", 3)[2]

    assert third[0] == number
    assert is_alive(before[3 - number])
    status, log = supervised.end()
    assert status == 0, log
    assert (
        f"worker {number} (process {before[number]}) ended (SIGKILL), another one starts now" in log
    )


def test_a_worker_that_fails_again_and_again_is_given_time(supervise: Supervise) -> None:
    """The pauses grow up to a limit, and the supervisor still ends in the middle of one."""
    supervised = supervise(2, "serve", "fail", "brief", "fail", "fail", "serve")
    supervised.wait("serving", 3)

    status, log = supervised.end()

    assert status == 0, log
    pauses = [line.rpartition("starts ")[2] for line in log.splitlines() if "ERROR worker" in line]
    assert pauses == ["in 0.1 s", "in 0.2 s", "in 0.2 s", "in 0.2 s"]


def test_it_ends_while_a_worker_waits_to_be_started_again(supervise: Supervise) -> None:
    """There is nobody to wait for then."""
    supervised = supervise(2, "serve", "fail")
    supervised.wait("serving", 1)
    time.sleep(0.5)

    status, log = supervised.end()

    assert status == 0, log


def test_a_first_start_that_fails_ends_it(supervise: Supervise) -> None:
    """Nothing else is started, and the status is the worker's."""
    supervised = supervise(3, "fail", "serve")

    status, log = supervised.ended()

    assert status == 3
    assert "CRITICAL the first worker did not start (status 3): giving up" in log
    assert supervised.noted("serving") == []


def test_sighup_reaches_every_worker(supervise: Supervise) -> None:
    """And the supervisor lives on."""
    supervised = supervise(2, "serve")
    workers = supervised.wait("serving", 2)

    supervised.process.send_signal(signal.SIGHUP)

    assert sorted(supervised.wait("hup", 2)) == sorted(workers)
    assert supervised.end()[0] == 0


def test_sighup_reaches_a_worker_that_still_starts(supervise: Supervise) -> None:
    """Once it serves: what it has read may be older, and before it listens the signal would end it."""
    supervised = supervise(2, "serve", "late")
    supervised.wait("starting", 1)

    supervised.process.send_signal(signal.SIGHUP)

    assert {number for number, _ in supervised.wait("hup", 2)} == {1, 2}
    assert len(supervised.noted("serving")) == 2
    assert supervised.end()[0] == 0


def test_workers_end_with_a_killed_supervisor(supervise: Supervise) -> None:
    """They are not left behind on the port: each drains as at SIGTERM."""
    supervised = supervise(2, "serve")
    workers = supervised.wait("serving", 2)

    supervised.process.kill()
    supervised.process.communicate(timeout=SECONDS)

    assert sorted(supervised.wait("term", 2)) == sorted(workers)
    until(lambda: not any(is_alive(pid) for _, pid in workers))


def test_a_worker_that_does_not_end_is_killed(supervise: Supervise) -> None:
    """After the limit of a shutdown, which makes the status 1."""
    supervised = supervise(2, "serve", "stubborn")
    workers = supervised.wait("serving", 2)

    status, log = supervised.end()

    assert status == 1
    assert "1 workers did not end in time and are killed" in log
    assert not any(is_alive(pid) for _, pid in workers)


def test_a_second_interrupt_waits_no_longer(supervise: Supervise) -> None:
    """Somebody pressed Ctrl-C twice."""
    supervised = supervise(1, "stubborn")
    supervised.wait("serving", 1)
    supervised.process.send_signal(signal.SIGINT)
    supervised.wait("term", 1)

    assert supervised.end(signal.SIGINT)[0] == 1
