"""
``make run``: a server to try, with everything it needs, and the demo's process beside it.

It makes the secrets of this checkout once, brings the database up to date, starts both processes and ends both
when it is interrupted or when either ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from project import environment


BASE_DIR = Path(__file__).resolve().parent.parent
ENV_FILE = BASE_DIR / ".tidewire" / "env"
# The server drains its clients within shutdown.timeout (30 s); what takes longer than that hangs.
STOP_SECONDS = 35.0


class Interrupted(Exception):  # noqa: N818 -- no error: the usual end
    """Somebody asked for the end."""


def child_environment(environ: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """
    Make the secrets that are missing, and say what the processes are to be told.

    What stands in ``environ`` wins over the file, and the file over what HOST and PORT suggest.
    """
    port = environ.get("PORT") or "8000"
    api_key = secrets.token_urlsafe(32)
    new = environment.add(
        env_file,
        {
            "SECRET_KEY": secrets.token_urlsafe(50),
            "TIDEWIRE_CLIENT_TOKEN_HMAC_SECRET_KEY": secrets.token_urlsafe(32),
            "TIDEWIRE_SHARED_POLL_HMAC_SECRET_KEY": secrets.token_urlsafe(32),
            "TIDEWIRE_HTTP_API_KEY": api_key,
            "TIDEWIRE_API_KEY": api_key,
        },
    )
    if "TIDEWIRE_HTTP_API_KEY" in new:
        print(f"Made secrets in {env_file}. The API key is {api_key}", flush=True)
    result = dict(environ)
    environment.load(env_file, result)
    result.setdefault(
        "TIDEWIRE_CLIENT_ALLOWED_ORIGINS", f"http://127.0.0.1:{port} http://localhost:{port}"
    )
    result.setdefault("TIDEWIRE_API_URL", f"http://127.0.0.1:{port}/api")
    result.setdefault("TIDEWIRE_DEMO", "true")
    # The demo lets one switch to these.
    result.setdefault("TIDEWIRE_HTTP_STREAM_ENABLED", "true")
    result.setdefault("TIDEWIRE_SSE_ENABLED", "true")
    return result


def _manage(*arguments: str) -> list[str]:
    return [sys.executable, str(BASE_DIR / "manage.py"), *arguments]


def _start(arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches us alone, and each process is told once, by SIGTERM.
    return subprocess.Popen(arguments, env=dict(environ), start_new_session=True)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end has begun; a second Ctrl-C must not tear it
    raise Interrupted


def main() -> int:
    """Run until interrupted; the status is that of the server, or of what failed before it."""
    host = os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("PORT") or "8000"
    environ = child_environment(os.environ, ENV_FILE)
    prepared = subprocess.run(_manage("bootstrap"), env=environ, check=False)
    if prepared.returncode:
        return prepared.returncode
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        server = _start(_manage("serve", "--host", host, "--port", port), environ)
        processes.append(server)
        processes.append(_start(_manage("demo"), environ))
        print(f"Admin: http://{host}:{port}/admin/  Stop with Ctrl-C.", flush=True)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except Interrupted:
        pass
    _stop(processes)
    return max((abs(process.returncode) for process in processes), default=0)


if __name__ == "__main__":
    sys.exit(main())
