"""The contract between an HTTP connection and who answers API requests without ASGI."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol


class LaneResponse(Protocol):
    """A whole response; ``content-length`` is not among its headers."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers, names in lower case."""

    @property
    def body(self) -> bytes:
        """The body."""


class LaneCall(Protocol):
    """A request's head, judged by the lane; serves every request that has the same."""

    @property
    def is_trusted(self) -> bool:
        """Say whether the last answer was one to a caller whose key is good."""

    def answer(self, body: bytes) -> Coroutine[Any, Any, LaneResponse]:
        """Answer a request with this head and ``body``."""


class Lane(Protocol):
    """Who answers API requests without ASGI; ``api.lane.DirectLane`` is one."""

    def matches(self, method: bytes, path: bytes) -> bool:
        """Say whether a request, by method and raw path without the query, may be the lane's."""

    def open(
        self, path: bytes, query: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> LaneCall | None:
        """Take a request that ``matches``, or return ``None`` to send it the usual way after all."""
