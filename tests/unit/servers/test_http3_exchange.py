"""A plain request over HTTP/3 as ASGI has it, on a connection that records."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from realtime.consumers.streaming import ABORT
from realtime.servers.http3_exchange import Exchange


class Connection:
    """Writes down what an exchange does."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.unsent = 0
        self.is_over = asyncio.Event()

    def write_head(self, stream_id: int, headers: Any, *, is_last: bool = False) -> None:
        self.done.append(("head", dict(headers), is_last))

    def write_body(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        self.done.append(("body", data, is_last))

    def reset(self, stream_id: int, code: int) -> None:
        self.done.append(("reset", code))

    def unsent_bytes(self, stream_id: int) -> int:
        return self.unsent

    def pause_reading(self, stream_id: int) -> None:
        self.done.append(("pause",))

    def resume_reading(self, stream_id: int) -> None:
        self.done.append(("resume",))

    def forget_exchange(self, stream_id: int) -> None:
        self.is_over.set()


async def _run(application: Any, *, method: str = "GET", body: bytes = b"") -> Connection:
    connection = Connection()
    exchange = Exchange(connection, 0, {"method": method, "extensions": {}})
    exchange.begin(application)
    exchange.on_body(body, is_last=True)
    await asyncio.wait_for(connection.is_over.wait(), 30)
    return connection


async def _answer(send: Any, *parts: bytes, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def test_an_answer_to_head_has_no_body() -> None:
    """Its headers are the whole answer's, without those of a connection."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await _answer(send, b"ab", headers=[(b"Content-Length", b"2"), (b"Connection", b"close")])

    connection = await _run(application, method="HEAD")

    head, *bodies = connection.done
    assert head == ("head", {b":status": b"200", b"content-length": b"2"}, False)
    assert [body[1] for body in bodies] == [b"", b""]
    assert bodies[-1][2]


async def test_an_application_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """500 before the head is out, a reset after it."""

    async def early(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise LookupError

    assert (await _run(early)).done == [("head", {b":status": b"500"}, True)]
    assert (await _run(late)).done[-1] == ("reset", 0x102)
    assert len(caplog.records) == 2


async def test_a_body_that_nobody_takes_is_held_back() -> None:
    """And let in again by the application's reading."""
    taken: list[bytes] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        taken.append((await receive())["body"])
        await _answer(send)
        assert (await receive())["type"] == "http.disconnect"

    connection = await _run(application, body=b"x" * 70_000)

    assert [len(body) for body in taken] == [70_000]
    assert connection.done[:2] == [("pause",), ("resume",)]


async def test_a_peer_that_does_not_read_makes_send_wait() -> None:
    """Until there is room, or it is gone."""
    connection = Connection()
    connection.unsent = 100_000
    sent = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await _answer(send, b"1", b"2")
        sent.set()

    exchange = Exchange(connection, 0, {"method": "GET", "extensions": {}})
    exchange.begin(application)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    exchange.on_transmitted()
    assert [each[1] for each in connection.done if each[0] == "body"] == [b"1"]

    exchange.on_lost()
    await asyncio.wait_for(sent.wait(), 30)
    assert [each[1] for each in connection.done if each[0] == "body"] == [b"1"]


async def test_an_abort_drops_the_stream() -> None:
    """As the stream transports do with a reader that is too slow."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["extensions"][ABORT]()
        assert (await receive())["type"] == "http.disconnect"

    connection = await _run(application)

    assert connection.done[1:] == [("reset", 0x10C)]
