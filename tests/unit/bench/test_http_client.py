"""The publisher on a connection that a test holds the other end of."""

from __future__ import annotations

import asyncio

import pytest

from realtime.bench.http_client import Publisher, PublisherError, request_head
from realtime.bench.messages import Target


HEAD = request_head(Target("127.0.0.1", "127.0.0.1", 8000, path="/rt"), "key")


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written += data

    def abort(self) -> None:
        """Nothing is left to do."""


async def begin() -> tuple[Publisher, Transport, asyncio.Task[str]]:
    publisher, transport = Publisher(HEAD), Transport()
    publisher.connection_made(transport)
    task = asyncio.create_task(publisher.publish(b"{}"))
    await asyncio.sleep(0)
    return publisher, transport, task


def response(status: str, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        status.encode(),
        headers,
        len(body),
        body,
    )


async def test_a_request_is_whole_and_its_answer_is_read_in_pieces():
    """The next goes over the same connection."""
    publisher, transport, task = await begin()
    answer = response("200 OK", b'{"result":{}}')

    for at in range(len(answer)):
        assert not task.done()
        publisher.data_received(answer[at : at + 1])

    assert await task == ""
    head, _, body = transport.written.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /rt/api/publish HTTP/1.1"
    assert {b"Host: 127.0.0.1:8000", b"X-API-Key: key", b"Content-Length: 2"} <= set(lines)
    assert body == b"{}"
    again = asyncio.create_task(publisher.publish(b"{}"))
    await asyncio.sleep(0)
    publisher.data_received(answer)
    assert await again == ""


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (response("401 Unauthorized", b"no key"), "answered 401: no key"),
        (response("200 OK", b'{"error":{"code":102}}'), 'answered 200: {"error":{"code":102}}'),
    ],
)
async def test_an_answer_without_a_result_is_a_failure(answer, text):
    """An error comes with status 200, too."""
    publisher, _, task = await begin()

    publisher.data_received(answer)

    assert text in await task


@pytest.mark.parametrize("is_broken", [True, False])
async def test_a_connection_that_ends_fails_the_request_and_those_after_it(is_broken):
    """By an end, or by bytes that are no HTTP."""
    publisher, _, task = await begin()

    if is_broken:
        publisher.data_received(b"no HTTP\r\n\r\n")
    else:
        publisher.connection_lost(None)

    with pytest.raises(PublisherError):
        await task
    with pytest.raises(PublisherError):
        await publisher.publish(b"{}")


async def test_a_server_that_does_not_keep_connections_is_told_of():
    """The answer is good, and the last one."""
    publisher, _, task = await begin()

    publisher.data_received(response("200 OK", b'{"result":{}}', b"connection: close\r\n"))

    assert await task == ""
    with pytest.raises(PublisherError, match="does not keep"):
        await publisher.publish(b"{}")
