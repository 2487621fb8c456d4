"""
A small ASGI application that shows what a server does, and an entry point that serves it as ``manage.py serve`` would.

WebSocket paths under ``/connection/``:

``echo``
    Attaches, and echoes.
``actor``
    Attaches, and does what it is told: ``close CODE REASON``, ``fail``, ``fill BYTES`` (write so much at once), ``pause``
    (reading, for 0.2 s), ``frames`` (use the extension's own write methods). It echoes everything else.
``plain``
    Echoes through ASGI.
``deny``, ``teapot``, ``crash``, ``mute``
    Refuses with a close, with status 418, fails before accepting, never accepts.

``/other/echo`` echoes through ASGI too and is not ours. ``GET /events`` is what the handlers were told, as JSON.
``/api/...`` is the lane's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from realtime.conf.options import TLSOptions
from realtime.protocol.errors import SHUTDOWN
from realtime.protocol.wire import frame
from realtime.servers import production
from realtime.servers.application import NodeApplication
from realtime.servers.connections import HTTPSettings
from realtime.servers.extension import EXTENSION, FramesConnection, FramesSettings
from realtime.servers.tls import server_context


EVENTS: list[list[Any]] = []
CONNECTIONS: set[Echo] = set()


class Echo:
    """The handler of one attached connection."""

    def __init__(self) -> None:
        self.connection: FramesConnection | None = None
        CONNECTIONS.add(self)

    def on_message(self, data: bytes, is_text: bool) -> None:
        """Echo."""
        assert self.connection is not None
        self.connection.write_message(data, 1 if is_text else 2)

    def on_close(self, code: int) -> None:
        """Note it."""
        CONNECTIONS.discard(self)
        EVENTS.append(["close", code])

    def on_pause(self) -> None:
        """Note it."""
        EVENTS.append(["pause"])

    def on_resume(self) -> None:
        """Note it."""
        EVENTS.append(["resume"])

    def on_pong(self) -> None:
        """Take no notice."""


class Actor(Echo):
    """One that does what it is told."""

    def on_message(self, data: bytes, is_text: bool) -> None:
        """Do what the message says, or echo it."""
        assert self.connection is not None
        word, _, rest = data.partition(b" ")
        if word == b"close":
            code, _, reason = rest.partition(b" ")
            self.connection.write_message(b"before")
            self.connection.close(int(code), reason.decode())
            self.connection.write_message(b"after")
        elif word == b"fail":
            raise RuntimeError("asked to")
        elif word == b"fill":
            self.connection.write_message(b"x" * int(rest), 2)
            EVENTS.append(["buffer", self.connection.buffer_size() >= 0])
        elif word == b"pause":
            self.connection.pause_reading()
            self.connection.write_message(b"paused")
            asyncio.get_running_loop().call_later(0.2, self._resume)
        elif word == b"frames":
            self.connection.write(frame(b"collected"))
            self.connection.uncork()
            self.connection.direct_write(frame(b"direct"))
            self.connection.write(self.connection.compress_frame(b"compressed" * 10))
        else:
            super().on_message(data, is_text)

    def _resume(self) -> None:
        assert self.connection is not None
        self.connection.write_message(b"resumed")
        self.connection.resume_reading()


async def _websocket(scope: Any, receive: Any, send: Any) -> None:
    name = scope["path"].rpartition("/")[2]
    assert (await receive())["type"] == "websocket.connect"
    if name == "deny":
        await send({"type": "websocket.close"})
        return
    if name == "teapot":
        headers = [(b"x-pot", b"tea")]
        await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"short ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"and stout"})
        return
    if name == "crash":
        raise RuntimeError("asked to")
    if name == "mute":
        EVENTS.append([(await receive())["type"]])
        return
    await send(
        {
            "type": "websocket.accept",
            "subprotocol": next(iter(scope["subprotocols"]), None),
            "headers": [(b"x-query", scope["query_string"])],
        }
    )
    if name in ("echo", "actor") and EXTENSION in scope.get("extensions", {}):
        handler = Echo() if name == "echo" else Actor()
        handler.connection = scope["extensions"][EXTENSION].attach(handler)
        return
    await _plain(receive, send)


async def _plain(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            EVENTS.append(["disconnect", message["code"]])
            return
        text, data = message.get("text"), message.get("bytes")
        if text is not None and text.startswith("close "):
            _, code, reason = text.split(" ", 2)
            await send({"type": "websocket.close", "code": int(code), "reason": reason})
        elif text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": data})


async def _http(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/events":
        answer = json.dumps(EVENTS).encode()
        if b"clear" in scope["query_string"]:
            EVENTS.clear()
    else:
        seconds = parse_qs(scope["query_string"]).get(b"wait", [b"0"])[0]
        await asyncio.sleep(float(seconds))
        answer = b"asgi %s %s %d" % (scope["method"].encode(), scope["raw_path"], len(body))
    headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _inner(scope: Any, receive: Any, send: Any) -> None:
    await (_websocket if scope["type"] == "websocket" else _http)(scope, receive, send)


class _Response:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.headers = ((b"content-type", b"application/json"),)
        self.body = body


class EchoLane:
    """Answers ``/api/now`` on the spot and ``/api/wait`` later; ``/api/pass*`` isn't its own after all."""

    def matches(self, method: bytes, path: bytes) -> bool:
        """Take what begins with ``/api/``."""
        return path.startswith(b"/api/") and method != b"OPTIONS"

    def open(self, path: bytes, query: bytes, headers: Any) -> EchoCall | None:
        """Leave what ends in ``pass`` to the application."""
        return None if path.endswith(b"pass") else EchoCall(path, query)


class EchoCall:
    """Answers with what was asked."""

    is_trusted = True

    def __init__(self, path: bytes, query: bytes) -> None:
        self.path = path
        self.query = query

    async def answer(self, body: bytes) -> _Response:
        """Answer, or fail where that was asked for."""
        name = self.path.removeprefix(b"/api/")
        if name.startswith(b"wait"):
            await asyncio.sleep(0.05)
        if name.endswith(b"fail"):
            raise RuntimeError("asked to")
        return _Response(200, b"lane %s %s %d" % (self.path, self.query, len(body)))


async def _drain(_: float) -> None:
    for handler in list(CONNECTIONS):
        if handler.connection is not None:
            handler.connection.close(*SHUTDOWN)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _start() -> None:
    EVENTS.append(["start"])


async def _stop() -> None:
    _say("stopped")


application = NodeApplication(
    _inner,
    start=_start,
    stop=_stop,
    websocket_paths=("/connection/echo",),
    direct_lane=EchoLane(),
)


def _tls(paths: list[str]) -> ssl.SSLContext:
    certificate, key = (Path(path).read_text(encoding="ascii") for path in paths)
    return server_context(TLSOptions(enabled=True, cert_pem=certificate, key_pem=key))


def main() -> None:
    """Serve on a port of the loopback interface; ``ready PORT`` on standard output says where."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--limit", type=int, default=65536)
    parser.add_argument("--body-limit", type=int, default=0)
    parser.add_argument("--compression", action="store_true")
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--hanging-drain", action="store_true")
    parser.add_argument("--shutdown-seconds", type=float, default=30)
    parser.add_argument("--keep-alive", type=int, default=5)
    parser.add_argument("--pid-file", default="")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    sockets = production.listen("127.0.0.1", arguments.port, is_shared=arguments.shared)
    door = production.Door(
        application=application,
        http=HTTPSettings(
            lane=application.direct_lane,
            max_body_bytes=arguments.body_limit,
            frames=FramesSettings(
                max_message_bytes=arguments.limit, has_compression=arguments.compression
            ),
        ),
        sockets=sockets,
        tls=(lambda: _tls(arguments.tls)) if arguments.tls else None,
    )
    settings = production.ServeSettings(
        shutdown_seconds=arguments.shutdown_seconds, keep_alive_seconds=arguments.keep_alive
    )

    async def hang(_: float) -> None:
        await asyncio.sleep(60)

    server = production.TidewireServer(
        [door],
        settings,
        drain=hang if arguments.hanging_drain else _drain,
        on_started=lambda: _say(f"ready {sockets[0].getsockname()[1]}"),
    )
    raise SystemExit(production.run(server, arguments.pid_file))


if os.environ.get("ECHO_ON_DAPHNE"):
    from realtime.servers.daphne import DaphneHooks, install

    install(
        DaphneHooks(
            frames=FramesSettings(max_message_bytes=int(os.environ.get("ECHO_LIMIT", "65536"))),
            drain=_drain,
            stop=application.stop,
        )
    )

if __name__ == "__main__":
    main()
