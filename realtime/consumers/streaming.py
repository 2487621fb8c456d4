"""
Responses that stay open: the HTTP side that all stream transports share.

``StreamTransport`` is such a response as a client's transport. What is written waits in one bounded queue, which the request's
own task empties; a second task waits for the peer to leave. ``send`` of the servers waits while the peer doesn't
read, so a wait there is how a slow reader is found.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from realtime.consumers.origins import is_origin_allowed
from realtime.consumers.scopes import header
from realtime.node.eager import run_eagerly
from realtime.protocol import errors
from realtime.protocol.messages import DisconnectPush, Push


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.node.node import Node
    from realtime.protocol.wire import Wire

Headers = Sequence[tuple[bytes, bytes]]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]

ABORT = "tidewire.abort"
"""The scope extension of our servers' HTTP requests: a callable that drops the connection with all that it holds."""

WRITE_TIMEOUT = (
    1.0  # seconds for the server's buffer to have room again, as on WebSockets by default
)
BODY_TIMEOUT = 30.0  # seconds until a request's body is there (operations: read 30 s)
_CHUNK_BYTES = 65536  # joined at most; what the servers' buffers hold before a send waits
_FAREWELL = 1.0  # seconds for a server to notice its own abort

STREAM_HEADERS: Headers = (
    (b"cache-control", b"private, no-cache, no-store, must-revalidate, max-age=0"),
    (b"pragma", b"no-cache"),
    (b"expire", b"0"),  # sic: the reference's name
    (b"x-accel-buffering", b"no"),
)
SSE_CONTENT_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
SSE_PREAMBLE = b"\r\n"  # lets a browser's EventSource call onopen before there is an event

_PREFLIGHT: Headers = (
    (b"access-control-max-age", b"300"),
    (b"access-control-allow-methods", b"POST, OPTIONS"),
)


class QueueTransport:
    """
    A transport whose messages wait in one bounded queue for a task that sends them.

    Args:
        node: Has the limits.
        wire: Encodes the disconnect push, the last message of a stream.

    Attributes:
        client: Whose transport it is; to be set before anything is written.

    """

    def __init__(self, node: Node, wire: Wire) -> None:
        self.client: Client | None = None
        self._node = node
        self._wire = wire
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._wakeup = asyncio.Event()
        self._is_closing = False

    def write(self, framed: bytes) -> None:
        """Queue a message; a queue over its limit ends the connection."""
        if self._is_closing:
            return
        self._queue.append(framed)
        self._size += len(framed)
        self._wakeup.set()
        if self._size > self._node.options.client.queue_max_size and self.client is not None:
            self.client.disconnect(*errors.SLOW)

    direct_write = write

    def uncork(self) -> None:
        """Do nothing: all writes take the same queue."""

    def close(self, code: int, reason: str) -> None:
        """End the response after what is queued and a disconnect push; a reader that is too slow gets the push alone."""
        if self._is_closing:
            return
        if code == errors.SLOW[0]:
            self._queue.clear()
            self._size = 0
        push = Push(disconnect=DisconnectPush(code=code, reason=reason))
        message = self._wire.encode_push(push)
        self._queue.append(message)
        self._size += len(message)
        self._is_closing = True
        self._wakeup.set()

    def buffer_size(self) -> int:
        """Return the bytes that wait."""
        return self._size

    def pause_reading(self) -> None:
        """Do nothing: a request's body has been read before it is carried out."""

    def resume_reading(self) -> None:
        """Do nothing."""


class StreamTransport(QueueTransport):
    """
    An HTTP response that stays open, as the transport of a client.

    Args:
        node, wire: As a ``QueueTransport`` has them.
        scope: The request's.
        receive: The request's; its body has been read.
        send: The request's; nothing has been sent.

    """

    def __init__(self, node: Node, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(node, wire)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_gone = False

    async def serve(
        self,
        begin: Callable[[], object] | None = None,
        *,
        headers: Headers = (),
        preamble: bytes = b"",
    ) -> None:
        """
        Send the response until one side ends it.

        Args:
            begin: Called once the head is out: what the body asks for is carried out in here.
            headers: Besides those that every stream has.
            preamble: Sent before any message.

        """
        assert self.client is not None
        watcher = asyncio.ensure_future(self._watch())
        try:
            await self._send_in_time(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [*STREAM_HEADERS, *_keep_alive(self._scope), *headers],
                }
            )
            # Daphne holds the head back until there is a body, be it an empty one.
            await self._send_in_time(_part(preamble))
            if begin is not None:
                begin()
            await self._write_out()
        except (OSError, RuntimeError, TimeoutError):
            # The peer went away (some servers say so by an error of their own), or doesn't read.
            self.client.disconnect(*errors.WRITE_ERROR)
            await self._abort(watcher)
        finally:
            self.client.on_close()
            watcher.cancel()

    async def _write_out(self) -> None:
        while not self._is_gone:
            while self._queue and not self._is_gone:
                await self._send_in_time(_part(self._next_chunk()))
            if self._is_closing:
                await self._send_in_time({"type": "http.response.body", "body": b""})
                return
            await self._wakeup.wait()
            self._wakeup.clear()

    async def _send_in_time(self, event: dict[str, Any]) -> None:
        # A timer for each send would cost as much as the send, which hardly ever waits.
        _, task = run_eagerly(self._send(event))
        if task is not None:
            await asyncio.wait_for(task, WRITE_TIMEOUT)

    def _next_chunk(self) -> bytes:
        """Take messages out, whole ones: SDKs decode each chunk on its own."""
        messages = [self._queue.popleft()]
        size = len(messages[0])
        while self._queue and size + len(self._queue[0]) <= _CHUNK_BYTES:
            messages.append(self._queue.popleft())
            size += len(messages[-1])
        self._size -= size
        return b"".join(messages)

    async def _watch(self) -> None:
        """Wait for the peer to leave."""
        while (await self._receive())["type"] != "http.disconnect":
            pass  # the body's end, again, from servers that repeat it
        self._is_gone = True
        self._wakeup.set()
        if self.client is not None:
            self.client.on_close()

    async def _abort(self, watcher: asyncio.Future[None]) -> None:
        """Drop the connection: a close would keep what the peer never reads."""
        self._is_gone = True
        abort = self._scope.get("extensions", {}).get(ABORT)
        if abort is not None:
            abort()
            # The server takes a response without an end for a fault until it has heard of the abort.
            await asyncio.wait([watcher], timeout=_FAREWELL)


def _part(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


def _keep_alive(scope: Scope) -> Headers:
    """Return the header that proxies like to see; it has no meaning, and no place, in other versions of HTTP."""
    if scope.get("http_version") != "1.1" or "close" in (header(scope, b"connection") or ""):
        return ()
    return ((b"connection", b"keep-alive"),)


# --- requests ---------------------------------------------------------------------------------------


class BodyError(Exception):
    """A request's body can't be taken; ``status`` is the answer."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"a request's body is refused with {status}")


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes | None:
    """
    Collect a request's body.

    Returns:
        The body; ``None`` when the peer left in the middle, so that nobody needs an answer.

    Raises:
        BodyError: It has more than ``max_bytes`` (413), or is not there in time (408).

    """
    announced = header(scope, b"content-length") or ""
    if announced.isdecimal() and int(announced) > max_bytes:
        raise BodyError(413)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    return None
                chunks.append(event.get("body", b""))
                size += len(chunks[-1])
                if size > max_bytes:
                    raise BodyError(413)
                if not event.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise BodyError(408) from error


async def respond(send: Send, status: int, headers: Headers = (), body: bytes = b"") -> None:
    """Send a whole response."""
    length = () if status == 204 else ((b"content-length", b"%d" % len(body)),)
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, *length]},
    )
    await send({"type": "http.response.body", "body": body})


def cors_headers(node: Node, scope: Scope) -> Headers:
    """Return the headers that let a web page read the response: none for pages that ``client.allowed_origins`` lacks."""
    origin = header(scope, b"origin")
    if not is_origin_allowed(origin, node.options.client.allowed_origins):
        return ()
    headers = [
        (b"access-control-allow-origin", (origin or "").encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
    ]
    asked = header(scope, b"access-control-request-headers")
    if asked and asked != "null":
        headers.append((b"access-control-allow-headers", asked.encode("latin-1")))
    return headers


async def answer_preflight(send: Send, cors: Headers) -> None:
    """Answer a browser's ``OPTIONS``."""
    await respond(send, 204, (*_PREFLIGHT, *cors))


async def refuse_method(send: Send, cors: Headers, *allowed: bytes) -> None:
    """Answer a method that the path doesn't have."""
    await respond(
        send,
        405,
        ((b"allow", b", ".join(allowed)), (b"content-type", b"text/plain; charset=utf-8"), *cors),
        b"Method Not Allowed\n",
    )


async def take_post(
    node: Node,
    scope: Scope,
    receive: Receive,
    send: Send,
    max_bytes: int,
    *,
    is_session: bool = True,
) -> bytes | None:
    """
    Take the body of a ``POST``; a browser's ``OPTIONS`` is answered, and other methods are refused.

    Args:
        node: This process's.
        scope: The request's.
        receive: The request's.
        send: The request's.
        max_bytes: Of the body.
        is_session: Whether it begins a session, which the node's limits may refuse.

    Returns:
        The body; ``None`` where the request has been answered, or its peer has left.

    """
    cors = cors_headers(node, scope)
    if scope["method"] == "OPTIONS":
        await answer_preflight(send, cors)
        return None
    if scope["method"] != "POST":
        await refuse_method(send, cors, b"POST", b"OPTIONS")
        return None
    if is_session and not node.admit():
        await respond(send, 503, cors)
        return None
    return await _take_body(scope, receive, send, cors, max_bytes)


async def take_event_source(
    node: Node,
    scope: Scope,
    receive: Receive,
    send: Send,
    max_bytes: int,
    *,
    default: bytes | None = None,
) -> bytes | None:
    """
    Take what begins a session by SSE: the body of a ``POST``, or the query's ``cf_connect``.

    Args:
        node: This process's.
        scope: The request's.
        receive: The request's.
        send: The request's.
        max_bytes: Of the body.
        default: What a ``GET`` without ``cf_connect`` means; by default it is a bad request.

    Returns:
        The text; ``None`` where the request has been answered, or its peer has left.

    """
    cors = cors_headers(node, scope)
    if scope["method"] not in {"GET", "POST"}:
        await refuse_method(send, cors, b"GET", b"POST")
        return None
    if not node.admit():
        await respond(send, 503, cors)
        return None
    # The body is read with GET too, so that its end isn't taken for the peer's.
    body = await _take_body(scope, receive, send, cors, max_bytes)
    if body is None or scope["method"] == "POST":
        return body
    query: bytes = scope.get("query_string", b"")
    found = parse_qs(query.decode("latin-1")).get("cf_connect")
    text = default if found is None else found[0].encode()
    if text is None:
        await respond(send, 400, cors)
    return text


async def _take_body(
    scope: Scope, receive: Receive, send: Send, cors: Headers, max_bytes: int
) -> bytes | None:
    try:
        return await read_body(scope, receive, max_bytes)
    except BodyError as error:
        await respond(send, error.status, cors)
        return None
