"""A lean HTTP client for the server API: one connection that is kept, one request at a time on it."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools

from realtime.bench.messages import Target


class PublisherError(Exception):
    """The connection ended, or what came on it is no HTTP; the text says more."""


def request_head(target: Target, api_key: str) -> bytes:
    """Return the head of a publish request up to the length of its body."""
    return (
        f"POST {target.path}/api/publish HTTP/1.1\r\nHost: {target.authority}\r\nX-API-Key: {api_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()


class Publisher(asyncio.Protocol):
    """
    One connection.

    Args:
        head: From ``request_head``.

    """

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made sets it
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._answer: asyncio.Future[str] | None = None
        self._ending = ""

    async def publish(self, body: bytes) -> str:
        """
        Publish and wait for the answer.

        Args:
            body: The request as JSON.

        Returns:
            What was wrong with the answer; empty if it was a result.

        Raises:
            PublisherError: There is no connection any more.

        """
        if self._ending:
            raise PublisherError(self._ending)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        return await self._answer

    def close(self) -> None:
        """End the connection; may be called again."""
        self._ending = self._ending or "the publisher was closed"
        self._transport.abort()

    # -- asyncio's side

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.connection_lost(error)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._ending = (
            self._ending or f"the API's connection ended: {exc or 'closed by the server'}"
        )
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(PublisherError(self._ending))

    # -- the parser's side

    def on_message_begin(self) -> None:
        """Forget the last answer."""
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self._body += body

    def on_message_complete(self) -> None:
        """Judge the answer."""
        status = self._parser.get_status_code()
        problem = ""
        if status != 200 or not self._body.startswith(b'{"result"'):
            text = self._body[:200].decode(errors="replace").strip()
            problem = f"publish was answered {status}: {text}"
        if not self._parser.should_keep_alive():
            self._ending = "the server does not keep the API's connections"
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(problem)
