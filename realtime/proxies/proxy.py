"""One endpoint of the application, asked within its time and counted."""

from __future__ import annotations

import asyncio
import time

import msgspec

from realtime.protocol.errors import ProxyError
from realtime.proxies.event import Answer, Caller, Event, ResultT
from realtime.proxies.figures import ProxyFigures


class Proxy:
    """
    Where the application is asked.

    Args:
        name: ``default``, or that of a named proxy; for figures.
        caller: Carries the requests.
        timeout: Seconds for a whole call.
        figures: What is counted in.

    """

    def __init__(self, name: str, caller: Caller, timeout: float, figures: ProxyFigures) -> None:
        self.name = name
        self._caller = caller
        self._timeout = timeout
        self._figures = figures

    async def ask(self, event: Event[ResultT], request: msgspec.Struct) -> Answer[ResultT]:
        """
        Ask the application.

        Raises:
            ProxyError: It gave no answer in time, or none that can be read. An answer that refuses is none of these.

        """
        figure = self._figures.of(self.name, self._caller.protocol, event.name)
        figure.inflight += 1
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._caller.call(event, request)
        except TimeoutError as error:
            figure.errors += 1
            raise ProxyError(f"no answer within {self._timeout:g}s") from error
        except ProxyError:
            figure.errors += 1
            raise
        finally:
            figure.inflight -= 1
            figure.calls += 1
            figure.seconds += time.perf_counter() - started

    async def close(self) -> None:
        """Let go of the endpoint; may be called twice."""
        await self._caller.close()
