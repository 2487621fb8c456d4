"""
Servers and clients as processes, for tests that see only what a user would see.

A ``Server`` is the real command on a free port of the loopback interface, with a database and an environment of its
own. An ``Sdk`` is one client of a package that was not written here, driven over its standard input and output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jwt
import websockets

from tests.live.go_client import go_client


ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
API_KEY = "a key for live tests"
HMAC_KEY = "a secret of at least thirty-two bytes"
START_SECONDS = 60.0
WAIT_SECONDS = 30.0
SHAPES = ("serve", "daphne")

OPTIONS: Mapping[str, str] = {
    "TIDEWIRE_HTTP_API_KEY": API_KEY,
    "TIDEWIRE_CLIENT_TOKEN_HMAC_SECRET_KEY": HMAC_KEY,
    "TIDEWIRE_CLIENT_ALLOW_ANONYMOUS_CONNECT_WITHOUT_TOKEN": "true",
    "TIDEWIRE_CLIENT_ALLOWED_ORIGINS": "http://app.example",
    "TIDEWIRE_HTTP_STREAM_ENABLED": "true",
    "TIDEWIRE_SSE_ENABLED": "true",
}
"""Options of every server here; a test adds its own."""


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def environment(database: Path, options: Mapping[str, str] = {}) -> dict[str, str]:
    """Make the environment of a process: nothing of this checkout's own secrets or options reaches it."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TIDEWIRE_") and name != "DJANGO_SETTINGS_MODULE"
    }
    return {
        **inherited,
        "ENV_FILE": "",
        "SECRET_KEY": "a key for live tests, as long as Django would have it, which is fifty",
        "DATABASE_URL": f"sqlite:///{database}",
        "PYTHONUNBUFFERED": "1",
        **options,
    }


def manage(database: Path, *arguments: str, options: Mapping[str, str] = {}) -> str:
    """Run a management command to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments],
        cwd=ROOT,
        env=environment(database, options),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"manage.py {arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_token(user: str, /, *, lifetime: float | None = None, **claims: Any) -> str:
    """Sign a connection or subscription token as an application's backend would; a claim may replace the user."""
    payload: dict[str, Any] = {"sub": user, **claims}
    if lifetime is not None:
        payload["exp"] = int(time.time() + lifetime)
    return jwt.encode(payload, HMAC_KEY, algorithm="HS256")


class Answer:
    """What the API answered."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


class Server:
    """One server process."""

    def __init__(
        self,
        shape: str,
        folder: Path,
        options: Mapping[str, str] = {},
        *,
        flags: Sequence[str] = (),
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.shape = shape
        self.port = free_port()
        self.trust = trust
        self._flags = flags
        self._options = options
        self.log_path = folder / f"{shape}-{self.port}.log"
        self.database = folder / "db.sqlite3"
        self._environment = environment(self.database, {**OPTIONS, **options})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where HTTP is answered."""
        scheme = "https" if self._is_on("TLS_ENABLED") else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """Where the API is: on the internal port where there is one."""
        port = self._options.get("TIDEWIRE_HTTP_SERVER_INTERNAL_PORT")
        if port is None:
            return self.url
        has_tls = self._is_on("TLS_ENABLED") and not self._is_on("TLS_EXTERNAL")
        scheme = "https" if has_tls or self._is_on("INTERNAL_TLS_ENABLED") else "http"
        return f"{scheme}://127.0.0.1:{port}"

    @property
    def websocket_url(self) -> str:
        """Where clients connect."""
        return self.url.replace("http", "ws", 1) + "/connection/websocket"

    def _is_on(self, option: str) -> bool:
        return self._options.get(f"TIDEWIRE_HTTP_SERVER_{option}") == "true"

    @property
    def log(self) -> str:
        """What the process wrote so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        command = {
            "serve": [
                str(ROOT / "manage.py"),
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                *self._flags,
            ],
            "daphne": [
                "-m",
                "daphne",
                "-b",
                "127.0.0.1",
                "-p",
                str(self.port),
                "project.asgi:application",
            ],
        }[self.shape]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended at its start:\n{self.log}")
            with contextlib.suppress(OSError):
                # A whole answer, not only an open port: the node may still be starting.
                if self.api("info", {}).status == 200:
                    return self
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"the server did not answer within {START_SECONDS} s:\n{self.log}")

    def terminate(self) -> None:
        """Send SIGTERM and go on."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float = 40.0) -> int:
        """Wait for the end and return the exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> int:
        """End the process as an operator would; killed if it does not follow."""
        assert self._process is not None
        if self._process.poll() is None:
            self.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end on SIGTERM:\n{self.log}") from None

    def kill(self) -> None:
        """End the process at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def request(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = {},
        method: str = "",
        base: str = "",
    ) -> Answer:
        """Send one HTTP request, to ``base`` in the place of the usual port."""
        request = urllib.request.Request(
            (base or self.url) + path,
            data=body,
            headers=dict(headers),
            method=method or ("GET" if body is None else "POST"),
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.trust) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def api(self, method: str, parameters: Any, headers: Mapping[str, str] = {}) -> Answer:
        """Call a method of the server API with the key."""
        return self.request(
            f"/api/{method}",
            json.dumps(parameters).encode(),
            {"X-API-Key": API_KEY, **headers},
            base=self.api_url,
        )

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the server API and return its result, which must be one."""
        answer = self.api(method, parameters)
        assert answer.status == 200, (answer.status, answer.body, self.log)
        assert "result" in answer.json, answer.body
        return answer.json["result"]

    def publish(self, channel: str, data: Any, **parameters: Any) -> Any:
        """Publish over the server API."""
        return self.call("publish", channel=channel, data=data, **parameters)


class SdkError(Exception):
    """An operation of the SDK failed."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Sdk:
    """One client process; see ``js/client.mjs`` for its commands and events."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._refs = 0
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._arrived = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())
        self._ended = False
        self.events: list[dict[str, Any]] = []
        self._taken: set[int] = set()

    @classmethod
    async def start(cls, kind: str, url: str, *, emulation: str = "") -> Self:
        """
        Start ``js-json``, ``js-protobuf``, or ``python-`` or ``go-`` with either.

        JavaScript's may have a transport at their end, and another address for its commands.
        """
        language, encoding, *transport = kind.split("-")
        match language:
            case "js":
                program = ["node", str(HERE / "js" / "client.mjs")]
            case "python":
                program = [sys.executable, str(HERE / "python_client.py")]
            case "go":
                program = [str(await asyncio.to_thread(go_client))]
            case _:
                raise ValueError(f"no SDK {language}")
        process = await asyncio.create_subprocess_exec(
            *program,
            url,
            encoding,
            *transport,
            *filter(None, (emulation,)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=HERE / "js",
            limit=16 * 1024 * 1024,
        )
        sdk = cls(process)
        await sdk.wait("ready")
        return sdk

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            event = json.loads(line)
            if event["event"] == "result":
                future = self._results.pop(event["ref"])
                if future.done():
                    continue
                if "error" in event:
                    future.set_exception(
                        SdkError(event["error"]["code"], event["error"]["message"])
                    )
                else:
                    future.set_result(event["result"])
                continue
            async with self._arrived:
                self.events.append(event)
                self._arrived.notify_all()
        async with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    async def do(self, op: str, **arguments: Any) -> Any:
        """Carry out a command and return its result; ``SdkError`` if it failed."""
        self._refs += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._results[self._refs] = future
        assert self._process.stdin is not None
        line = json.dumps({"op": op, "ref": self._refs, **arguments})
        self._process.stdin.write(line.encode() + b"\n")
        return await asyncio.wait_for(future, WAIT_SECONDS)

    def seen(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """All events so far of a kind, with these fields, in their order."""
        wanted = {"event": event, **fields}
        return [one for one in self.events if wanted.items() <= one.items()]

    async def wait(self, event: str, *, seconds: float = WAIT_SECONDS, **fields: Any) -> Any:
        """Take the first event of a kind, with these fields, that was not taken yet."""
        wanted = {"event": event, **fields}

        def find() -> int | None:
            for index, one in enumerate(self.events):
                if index not in self._taken and wanted.items() <= one.items():
                    return index
            return None

        async with self._arrived:
            try:
                async with asyncio.timeout(seconds):
                    while (index := find()) is None:
                        assert not self._ended, f"the client ended; it saw {self.events}"
                        await self._arrived.wait()
            except TimeoutError:
                raise AssertionError(
                    f"no {wanted} within {seconds} s; seen: {self.events}"
                ) from None
        self._taken.add(index)
        return self.events[index]

    async def connect(self, **arguments: Any) -> Any:
        """Connect and wait for it."""
        await self.do("connect", **arguments)
        return await self.wait("connected")

    async def subscribe(self, channel: str, **arguments: Any) -> Any:
        """Subscribe and wait for it."""
        await self.do("subscribe", channel=channel, **arguments)
        return await self.wait("subscribed", channel=channel)

    async def close(self) -> None:
        """End the client."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(30):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader


class Raw:
    """A WebSocket and the JSON frames on it, without any SDK."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self._messages: list[Any] = []

    async def send(self, *commands: Any) -> None:
        """Send commands in one frame; a string goes as it is."""
        texts = [one if isinstance(one, str) else json.dumps(one) for one in commands]
        await self.socket.send("\n".join(texts))

    async def receive(self, seconds: float = WAIT_SECONDS) -> Any:
        """Return the next reply or push."""
        while not self._messages:
            async with asyncio.timeout(seconds):
                frame = await self.socket.recv()
            assert isinstance(frame, str), f"binary frame {frame!r} on a JSON connection"
            self._messages = [json.loads(line) for line in frame.split("\n")]
        return self._messages.pop(0)

    async def connect(self, **parameters: Any) -> Any:
        """Connect and return the result."""
        await self.send({"id": 1, "connect": parameters})
        reply = await self.receive()
        assert "connect" in reply, reply
        return reply["connect"]

    async def ask(self, command: Any) -> Any:
        """Send one command and return the next message."""
        await self.send(command)
        return await self.receive()

    async def closed(self, seconds: float = WAIT_SECONDS) -> tuple[int, str]:
        """Wait for the close and return code and reason; messages before it are dropped."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await self.socket.recv()
        return self.socket.close_code or 0, self.socket.close_reason or ""


@contextlib.asynccontextmanager
async def raw(server: Server, **arguments: Any) -> AsyncIterator[Raw]:
    """Open a WebSocket to a server, nothing sent yet."""
    async with websockets.connect(
        server.websocket_url, proxy=None, ping_interval=None, **arguments
    ) as socket:
        yield Raw(socket)
