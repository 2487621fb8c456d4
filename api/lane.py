"""
The direct lane: the API's calls with an API key, answered without Django's request machinery.

The reference point is a DRF view under Django's handler, which costs some 3 ms of CPU; here a publish costs some
10 µs. The lane takes a ``POST`` to a path of the table that shows an API key; all else (sessions, other verbs, unknown
paths) goes to Django, whose views answer the same requests with the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from api.execution import execute, execute_stream
from api.keys import Decision, Verdict, decide, read_credentials
from api.methods import METHODS, Method
from api.replies import FORBIDDEN, UNAUTHORIZED, LaneResponse
from realtime.conf.loader import get_options
from realtime.conf.options import HTTPAPIOptions
from realtime.node.node import Node


__all__ = ["DirectLane", "DirectLaneApp", "LaneResponse"]

logger = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class DirectLane:
    """
    Answers API requests that show an API key.

    Args:
        get_node: Returns the process's node.
        options: Where the API is; by default those of the process.

    """

    __slots__ = ("_get_node", "_targets")

    def __init__(self, get_node: Callable[[], Node], options: HTTPAPIOptions | None = None) -> None:
        if options is None:
            options = get_options().http_api
        self._get_node = get_node
        # None is the legacy stream, whose path is the prefix itself.
        self._targets: dict[bytes, Method | None] = {}
        if not options.disabled:
            prefix = options.handler_prefix.encode()
            self._targets = {prefix: None} if prefix else {}
            self._targets |= {
                b"%b/%b" % (prefix, name.encode()): method for name, method in METHODS.items()
            }

    def matches(self, method: bytes, path: bytes) -> bool:
        """Say whether a request, by its verb and raw path without the query, may be the lane's."""
        return path in self._targets and method == b"POST"

    def takes(self, headers: Headers, query: bytes) -> bool:
        """Say whether a request that matches is the lane's: then ``answer`` does not return ``None``."""
        options = self._get_node().options.http_api
        return options.insecure or read_credentials(headers, query).has_key

    async def answer(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: Headers,
        body: bytes,
    ) -> LaneResponse | None:
        """
        Answer a request for which ``matches`` was true.

        Args:
            method: The verb.
            path: Raw, without the query.
            query: Raw.
            headers: Names in lower case.
            body: The whole of it.

        Returns:
            The answer, or ``None`` for a request that shows no key: Django may know its session.

        """
        target = self._targets[path]
        node = self._get_node()
        options = node.options.http_api
        credentials = read_credentials(headers, query)
        if not (credentials.key or credentials.parameter or options.insecure):
            return None
        name = "" if target is None else target.name
        verdict, caller = decide(options, node.configuration.api_keys, credentials, name)
        if caller is None or verdict is not Verdict.ALLOWED:
            return refusal(node, Decision(verdict, caller), name)
        if target is None:
            return await execute_stream(node, caller, body)
        return await execute(node, target, caller, body, is_transport=credentials.is_transport)


def refusal(node: Node, decision: Decision, method: str) -> LaneResponse:
    """Answer a caller who may not, and log what an operator needs to know of it."""
    if decision.verdict is Verdict.FORBIDDEN and decision.caller is not None:
        facts = {"method": method, "caller": decision.caller.name}
        logger.info("an API key's scopes do not have the method", extra=facts)
        return FORBIDDEN
    if not node.options.http_api.key and not node.configuration.api_keys:
        logger.error("there is no API key: http_api.key is empty and the admin has none either")
    return UNAUTHORIZED


class DirectLaneApp:
    """
    The lane as an ASGI application in front of another one.

    Args:
        inner: Gets what is not the lane's.
        lane: The lane.

    """

    def __init__(self, inner: Application, lane: DirectLane) -> None:
        self._inner = inner
        self._lane = lane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        method = scope["method"].encode()
        path = scope.get("raw_path") or scope["path"].encode()
        headers = scope["headers"]
        query = scope.get("query_string", b"")
        if not (self._lane.matches(method, path) and self._lane.takes(headers, query)):
            await self._inner(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            return
        response = await self._lane.answer(method, path, query, headers, body)
        assert response is not None  # takes() said so
        length = (b"content-length", b"%d" % len(response.body))
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": [*response.headers, length],
            }
        )
        await send({"type": "http.response.body", "body": response.body})


async def _read_body(receive: Receive) -> bytes | None:
    """Collect a body; ``None`` when the client went away in the middle, whom nobody can answer."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
