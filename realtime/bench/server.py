"""The server that is measured: one of our own on a scratch database, or one that runs already."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import resource
import secrets
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from realtime.bench import DATABASE_VARIABLE, SETTINGS_VARIABLE, BenchError
from realtime.bench.messages import Target
from realtime.bench.meter import listening_pids
from realtime.bench.plan import Plan


START_SECONDS = 30.0
# The clients have left by then, so there is nobody to send away.
END_SECONDS = 10.0

# Beside sockets a process has its libraries, logs, pipes and listeners open.
OTHER_FILES = 100

NAMESPACE = "bench"
HISTORY_NAMESPACE = "benchhist"
_OPEN = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_client": True,
    # Without effect for those who don't ask.
    "allow_tags_filter": True,
    "allowed_delta_types": ["fossil"],
    "keep_latest_publication": True,
}
_NAMESPACES = [
    {"name": NAMESPACE, **_OPEN},
    {
        "name": HISTORY_NAMESPACE,
        **_OPEN,
        "history_size": 100,
        "history_ttl": "300s",
        # A stream's position outlives it by so much; nobody comes back to these.
        "history_meta_ttl": "600s",
        "force_recovery": True,
    },
]
# What of this project's configuration the measured server shares. The rest has its default: limits, proxies and
# TLS have nothing to do with its speed, or call services that nobody wants to have under load.
_SECTIONS = ("engine", "broker", "presence_manager", "websocket")


def parse_target(url: str, *, allow_remote: bool) -> Target:
    """
    Read a server's URL.

    Args:
        url: ``http://`` or ``https://``, a host, perhaps a port and a path that all endpoints stand under.
        allow_remote: Whether it may be another machine.

    Raises:
        BenchError: It is no such URL, its host is unknown, or it is another machine and may not be.

    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BenchError(f"{url}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BenchError(f"{url}: expected http://host:port or https://host:port")
    if parts.query or parts.fragment or parts.username is not None:
        raise BenchError(f"{parts.hostname}: the URL may have a path and nothing after or besides")
    port = port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BenchError(f"{parts.hostname}: {error.strerror or error}") from error
    addresses = [str(each[4][0]) for each in found]
    if not allow_remote and not all(map(_is_loopback, addresses)):
        raise BenchError(
            f"{parts.hostname} is not this machine's loopback. A benchmark is load, and for whom it is not "
            "meant an attack; if it is your server, say so with --allow-remote."
        )
    return Target(
        address=addresses[0],
        host=parts.hostname,
        port=port,
        is_tls=parts.scheme == "https",
        path=parts.path.rstrip("/"),
    )


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def allow_open_files(plans: Sequence[Plan]) -> None:
    """
    Raise this process's limit of open files, which its children inherit, to what the plans need.

    Raises:
        BenchError: It may not be raised so far.

    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(plan.clients + plan.publishers for plan in plans) + OTHER_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise BenchError(
            f"{max(plan.clients for plan in plans):,} sockets need {needed:,} open files in the server, and a process "
            f"may have {hard:,} here (ulimit -Hn)"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class RunningServer:
    """
    A server that runs already.

    Args:
        target: Where.
        api_key: Of its HTTP API.
        token_secret: Its ``client.token.hmac_secret_key``.
        pids: Its processes; none given, those that listen on the port if it is this machine.

    """

    engine = ""

    def __init__(self, target: Target, api_key: str, token_secret: str, pids: list[int]) -> None:
        self.target = target
        self.api_key = api_key
        self.token_secret = token_secret
        self.pids = pids or (listening_pids(target.port) if _is_loopback(target.address) else [])

    async def __aenter__(self) -> Self:
        """See whether it answers to the key."""
        problem = await asyncio.to_thread(_ask_for_info, self.target, self.api_key)
        if problem:
            raise BenchError(f"{self.target.url}: {problem}")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave it alone."""


class ScratchServer:
    """
    A server of our own: ``manage.py serve`` on a free loopback port, with a database, a key and a secret of its own.

    ``async with`` it for each scenario: each one gets a fresh process.

    Args:
        folder: For its database and configuration; must outlive this object.
        document: This project's options as nested objects, of which ``_SECTIONS`` are taken over.
        settings_module: The project's.
        arguments: For ``serve``, after its own.

    Attributes:
        pids: Of the running process.
        engine: ``engine.type``.

    """

    def __init__(
        self,
        folder: Path,
        document: Mapping[str, Any],
        settings_module: str,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.api_key = secrets.token_urlsafe(32)
        self.token_secret = secrets.token_urlsafe(32)
        self.engine = str(document["engine"]["type"])
        self.target = Target("127.0.0.1", "127.0.0.1", 0)
        self.pids: list[int] = []
        self._folder = folder
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        config = scratch_configuration(document, self.api_key, self.token_secret)
        self._config = folder / "config.json"
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps(config), encoding="utf-8")
        self._log = folder / "server.log"
        self._environment = _environment(self._config, folder / "db.sqlite3", settings_module)

    async def prepare(self) -> None:
        """Make the database and its namespaces; once, before the first start."""
        await self._run("migrate", "--verbosity", "0")
        await self._run("importconfig", str(self._config))

    async def _run(self, *arguments: str) -> None:
        process = await self._spawn(*arguments)
        try:
            status = await process.wait()
        finally:
            await _end(process)
        if status:
            raise BenchError(f"{arguments[0]} failed:\n{self._tail()}")

    async def __aenter__(self) -> Self:
        """Start it and wait until it answers."""
        port = _free_port()
        self.target = Target("127.0.0.1", "127.0.0.1", port)
        self._process = process = await self._spawn(
            "serve", "--host", "127.0.0.1", "--port", str(port), *self._arguments
        )
        try:
            await self._wait_for_answer(process)
        except BaseException:
            await _end(process)
            raise
        self.pids = [process.pid]
        return self

    async def _wait_for_answer(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + START_SECONDS
        while problem := await asyncio.to_thread(_ask_for_info, self.target, self.api_key):
            if process.returncode is not None:
                raise BenchError(f"the server ended at its start:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise BenchError(f"no server after {START_SECONDS:g} s: {problem}\n{self._tail()}")
            await asyncio.sleep(0.05)

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        if self._process is not None:
            await _end(self._process)
            self._process = None

    async def _spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        with self._log.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "django",
                *arguments,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C at a terminal is for the command, which ends this process in its turn.
                start_new_session=True,
            )

    def _tail(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that only this user may look into; it goes when the context ends."""
    return tempfile.TemporaryDirectory(prefix="tidewire-bench-", ignore_cleanup_errors=True)


def scratch_configuration(
    document: Mapping[str, Any], api_key: str, token_secret: str
) -> dict[str, Any]:
    """
    Make the configuration of a scratch server, as a file has it.

    Engines are reached under a prefix of their own, so that neither a production's nodes nor its streams are met.
    """
    config = {name: json.loads(json.dumps(document[name])) for name in _SECTIONS}
    _set_prefixes(config["engine"], config["broker"], config["presence_manager"])
    return {
        **config,
        "websocket": {
            **config["websocket"],
            "disabled": False,
            "handler_prefix": "/connection/websocket",
        },
        "client": {
            "token": {"hmac_secret_key": token_secret},
            "user_connection_limit": 0,
            "channel_limit": 1_000_000,
        },
        "http_api": {"key": api_key},
        "channel": {"namespaces": _NAMESPACES},
    }


def _set_prefixes(*sections: dict[str, Any]) -> None:
    """Rename what the sections in use begin their keys with; for the others the server would only warn."""
    own = f"tidewire-bench-{secrets.token_hex(4)}"
    waiting = [
        section[section["type"]]
        for section in sections
        if section.get("enabled", True) and section["type"] in section
    ]
    while waiting:
        section = waiting.pop()
        if "prefix" in section:
            section["prefix"] = own
        waiting.extend(each for each in section.values() if isinstance(each, dict))


def _environment(config: Path, database: Path, settings_module: str) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TIDEWIRE_")
    }
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONUNBUFFERED": "1",
        # The project's own file of secrets was read by this process and is not for that one.
        "ENV_FILE": "",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DJANGO_SETTINGS_MODULE": "realtime.bench.scratch_settings",
        SETTINGS_VARIABLE: settings_module,
        DATABASE_VARIABLE: str(database),
        "TIDEWIRE_CONFIG": str(config),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ask_for_info(target: Target, api_key: str) -> str:
    """Ask the server who it is; return what is wrong, nothing if it answers well."""
    request = urllib.request.Request(  # noqa: S310 -- http or https, see parse_target
        f"{target.url}/api/info", data=b"{}", headers={"X-API-Key": api_key}
    )
    # A proxy in the environment is not what is measured.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            hint = "; is the API key right?" if error.code in (401, 403) else ""
            return f"/api/info was answered {error.code}{hint}"
    except OSError as error:
        return f"can't be reached: {getattr(error, 'reason', error)}"
    return "" if body.startswith(b'{"result"') else f"/api/info was answered {body[:200]!r}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process: SIGTERM, and SIGKILL if it does not follow."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
