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
from api.keys import Caller, Credentials, Decision, Verdict, decide, read_credentials
from api.methods import METHODS, Method
from api.replies import FORBIDDEN, UNAUTHORIZED, LaneResponse
from realtime.conf.loader import get_options
from realtime.conf.options import HTTPAPIOptions
from realtime.conf.snapshot import Configuration
from realtime.node.node import Node


__all__ = ["DirectLane", "DirectLaneApp", "LaneResponse"]

logger = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def api_paths(options: HTTPAPIOptions) -> tuple[str, ...]:
    """Return the paths that the API, with all that is below them, takes up."""
    if options.disabled:
        return ()
    return (options.handler_prefix,) if options.handler_prefix else tuple(f"/{n}" for n in METHODS)


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

    def open(self, path: bytes, query: bytes, headers: Headers) -> LaneCall | None:
        """
        Take a request for which ``matches`` was true, or return ``None`` for one that shows no key.

        Django may know the session of the latter.

        Args:
            path: Raw, without the query.
            query: Raw.
            headers: Names in lower case.

        """
        credentials = read_credentials(headers, query)
        if credentials.has_key or self._get_node().options.http_api.insecure:
            return LaneCall(self._get_node, self._targets[path], credentials)
        return None


class LaneCall:
    """
    A request's head, read: who calls what. It serves every request that has the same head.

    Attributes:
        is_trusted: Whether the last answer was one to a caller whose key is good for the method.

    """

    __slots__ = (
        "_caller",
        "_credentials",
        "_get_node",
        "_judged",
        "_name",
        "_target",
        "is_trusted",
    )

    def __init__(
        self, get_node: Callable[[], Node], target: Method | None, credentials: Credentials
    ) -> None:
        self._get_node = get_node
        self._target = target
        self._name = "" if target is None else target.name
        self._credentials = credentials
        self._judged: Configuration | None = None
        self._caller: Caller | None = None
        self.is_trusted = False

    async def answer(self, body: bytes) -> LaneResponse:
        """Answer a request with this head and ``body``."""
        node = self._get_node()
        if node.configuration is not self._judged:
            # Once per snapshot: it is immutable, and so are the options of the process.
            refused = self._judge(node)
            if refused is not None:
                return refused
        assert self._caller is not None
        if self._target is None:
            return await execute_stream(node, self._caller, body)
        return await execute(
            node, self._target, self._caller, body, is_transport=self._credentials.is_transport
        )

    def _judge(self, node: Node) -> LaneResponse | None:
        self._judged = None
        self.is_trusted = False
        decision = decide(
            node.options.http_api, node.configuration.api_keys, self._credentials, self._name
        )
        if decision.caller is None or decision.verdict is not Verdict.ALLOWED:
            return refusal(node, decision, self._name)
        self._judged, self._caller, self.is_trusted = node.configuration, decision.caller, True
        return None


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
        call = self._lane.open(path, query, headers) if self._lane.matches(method, path) else None
        if call is None:
            await self._inner(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            return
        response = await call.answer(body)
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
