"""The outermost application: the node's life, and requests that should have been upgrades."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from realtime.conf.options import ProcessOptions
from realtime.servers.application import NodeApplication, OnSide, refuse_unknown_path
from realtime.servers.ports import Ports, Side


class Port:
    """A listener that notes what it is told, in the harness's log."""

    def __init__(self, name: str, log: list[str], *, is_taken: bool = False) -> None:
        self._name = name
        self._log = log
        self._is_taken = is_taken

    async def start(self) -> None:
        self._log.append(f"{self._name} start")
        if self._is_taken:
            raise RuntimeError("the port is taken")

    async def stop(self, grace: float) -> None:
        self._log.append(f"{self._name} stop {grace:g}")


class Harness:
    """An application whose node only counts."""

    def __init__(self, *, failures: int = 0, ports: str = "", taken: str = "") -> None:
        self.log: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self._failures = failures
        self.application = NodeApplication(
            self._inner,
            start=self._start,
            stop=self._stop,
            websocket_paths=("/ws",),
            drain=self._drain,
            listeners=[Port(name, self.log, is_taken=name == taken) for name in ports],
        )

    async def _inner(self, scope: Any, receive: Any, send: Any) -> None:
        self.log.append(f"{scope['type']} {scope['path']}")

    async def _start(self) -> None:
        self.log.append("start")
        await asyncio.sleep(0)
        if self._failures:
            self._failures -= 1
            raise RuntimeError("no database")

    async def _stop(self) -> None:
        self.log.append("stop")

    async def _drain(self, seconds: float) -> None:
        self.log.append(f"drain {seconds:g}")

    async def call(self, kind: str, path: str = "/", method: str = "GET") -> None:
        """Serve one scope."""
        scope = {"type": kind, "path": path, "method": method}
        await self.application(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        return {"type": "lifespan.event"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def test_a_lifespan_starts_and_stops_the_node() -> None:
    """Requests in between don't start another."""
    harness = Harness()

    await harness.call("lifespan")

    assert harness.log == ["start", "stop"]
    assert [message["type"] for message in harness.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_the_first_scopes_start_the_node_once() -> None:
    """However many come at the same time, and none is served before it runs."""
    harness = Harness()

    await asyncio.gather(*(harness.call("http", f"/{n}") for n in range(3)))
    await harness.call("websocket", "/x")

    assert harness.log == ["start", "http /0", "http /1", "http /2", "websocket /x"]


async def test_a_start_that_fails_is_tried_again() -> None:
    """The first request gets the error, a later one may succeed."""
    harness = Harness(failures=1)

    with pytest.raises(RuntimeError, match="no database"):
        await harness.call("http", "/1")
    await harness.call("http", "/2")

    assert harness.log == ["start", "start", "http /2"]


async def test_a_lifespan_that_can_not_start_says_why() -> None:
    """The server then ends."""
    harness = Harness(failures=1)

    await harness.call("lifespan")

    assert harness.sent == [{"type": "lifespan.startup.failed", "message": "no database"}]


async def test_one_who_waits_for_the_start_may_be_cancelled() -> None:
    """The others get their node."""
    harness = Harness()
    first = asyncio.ensure_future(harness.call("http", "/1"))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(harness.call("http", "/2"))

    first.cancel()
    await second

    assert harness.log == ["start", "http /2"]


async def test_a_node_that_never_started_is_not_stopped() -> None:
    """Nor one that was stopped."""
    harness = Harness()

    await harness.application.stop()
    await harness.application.start()
    await harness.application.stop()
    await harness.application.stop()

    assert harness.log == ["start", "stop"]


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [("GET", 400, b"Bad Request"), ("POST", 405, b"Method Not Allowed"), ("HEAD", 405, b"")],
)
async def test_a_websockets_path_takes_no_plain_request(
    method: str, status: int, body: bytes
) -> None:
    """400, or 405 with the method that is allowed."""
    harness = Harness()

    await harness.call("http", "/ws", method)

    assert harness.log == ["start"]
    assert harness.sent[0]["status"] == status
    assert ((b"allow", b"GET") in harness.sent[0]["headers"]) == (status == 405)
    assert harness.sent[1]["body"] == body


@pytest.mark.parametrize(
    ("extensions", "answer"),
    [
        ({"websocket.http.response": {}}, "websocket.http.response.start"),
        ({}, "websocket.close"),
    ],
)
async def test_an_unknown_path_is_not_found(extensions: dict[str, Any], answer: str) -> None:
    """404 where the server can say that."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await refuse_unknown_path({"type": "websocket", "extensions": extensions}, receive, send)

    assert sent[0]["type"] == answer
    assert sent[0].get("status", 404) == 404


@pytest.mark.parametrize(
    ("scope", "status", "body"),
    [
        ({"type": "http", "method": "GET", "path": "/api/info"}, 404, b"Not Found"),
        ({"type": "http", "method": "HEAD", "path": "/api/info"}, 404, b""),
        ({"type": "http", "method": "GET", "path": "/page"}, 200, b"inner"),
        ({"type": "websocket", "path": "/connection/websocket"}, 200, b"inner"),
    ],
)
async def test_what_is_not_on_the_port_is_not_found(
    scope: dict[str, Any], status: int, body: bytes
) -> None:
    """The application behind never hears of it."""
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"inner"})

    async def nothing() -> None:
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    options = msgspec.convert(
        {"http_server": {"port": 8000, "internal_port": "9000"}}, ProcessOptions
    )
    application = NodeApplication(
        inner, start=nothing, stop=nothing, ports=Ports(options, api=["/api"])
    )
    await OnSide(application, Side.EXTERNAL)(scope, cast("Any", nothing), send)

    assert sent[0]["status"] == status
    assert sent[1]["body"] == body


async def test_listeners_are_started_after_the_node_and_stopped_before_it() -> None:
    """They answer out of the node, so none takes a call without it."""
    harness = Harness(ports="ab")

    await harness.call("lifespan")

    assert harness.log == ["start", "a start", "b start", "a stop 1", "b stop 1", "stop"]


async def test_a_listener_that_can_not_start_takes_everything_back() -> None:
    """The node, and the listeners before it."""
    harness = Harness(ports="abc", taken="b")

    await harness.call("lifespan")

    assert harness.log == [
        "start",
        "a start",
        "b start",
        "a stop 0",
        "b stop 0",
        "c stop 0",
        "stop",
    ]
    assert [message["type"] for message in harness.sent] == ["lifespan.startup.failed"]


async def test_a_drain_closes_the_ports_while_the_clients_leave() -> None:
    """A port's calls have as long as the clients, and a second more."""
    harness = Harness(ports="a")
    await harness.application.start()

    await harness.application.drain(2)

    assert harness.log == ["start", "a start", "a stop 3", "drain 2"]


@pytest.mark.parametrize(("ports", "log"), [("", []), ("a", ["start", "a start"])])
async def test_a_server_without_a_lifespan_starts_early_for_the_sake_of_ports(
    ports: str, log: list[str]
) -> None:
    """Nobody would find them before the first request; without them that one starts the node."""
    harness = Harness(ports=ports)

    await harness.application.start_early()

    assert harness.log == log
