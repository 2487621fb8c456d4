"""Asks a callable of the application, in this process."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from realtime.handlers import Handler
from realtime.protocol.errors import ClientError, ConfigError, Disconnect, ProxyError
from realtime.proxies.event import Answer, AnswerDisconnect, AnswerError, Event, ResultT


logger = logging.getLogger(__name__)

PREFIX = "python:"

RunInThread = Callable[[Handler, Any], Awaitable[Any]]
"""Runs a function that is not async, with its one argument, outside the event loop."""


def resolve(endpoint: str) -> Handler:
    """
    Import what an endpoint ``python:package.module.name`` names.

    Raises:
        ConfigError: There is no such thing, or it can't be called with a request.

    """
    path = endpoint.removeprefix(PREFIX)
    module, _, name = path.rpartition(".")
    if not module:
        raise ConfigError(f"{endpoint}: expected python:package.module.name")
    try:
        found = getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ConfigError(f"{endpoint}: the module {module} has no {name}") from error
    except Exception as error:  # whatever the application's module does when it is imported
        raise ConfigError(f"{endpoint}: the module can't be imported: {error}") from error
    if inspect.isclass(found):
        raise ConfigError(f"{endpoint}: a class; name an instance of it, or a function")
    if not callable(found):
        raise ConfigError(f"{endpoint}: can't be called")
    handler: Handler = found
    return handler


class PythonCaller:
    """
    Asks one handler.

    Args:
        handler: Awaited where it is async; otherwise it runs in a thread, which goes on after a timeout.
        run_in_thread: Does so.

    """

    protocol = "python"

    def __init__(self, handler: Handler, run_in_thread: RunInThread) -> None:
        self._handler = handler
        self._run_in_thread = run_in_thread
        self._is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 -- an object whose call is a coroutine function
        )

    async def call(self, event: Event[ResultT], request: msgspec.Struct) -> Answer[ResultT]:
        """Ask; ``ClientError`` and ``Disconnect`` are answers, any other exception is a ``ProxyError``."""
        try:
            value = await self._run(request)
            return Answer() if value is None else Answer(event.from_python(value))
        except ClientError as error:
            return Answer(error=AnswerError(error.code, error.message, error.temporary))
        except Disconnect as error:
            return Answer(disconnect=AnswerDisconnect(error.code, error.reason))
        except Exception as error:
            logger.exception("a handler failed", extra={"handler": self._name, "event": event.name})
            raise ProxyError(f"the handler {self._name} failed: {type(error).__name__}") from error

    async def _run(self, request: msgspec.Struct) -> Any:
        if self._is_async:
            return await self._handler(request)
        value = await self._run_in_thread(self._handler, request)
        # A function that only returns another one's coroutine does not look like an async one.
        return await value if inspect.isawaitable(value) else value

    @property
    def _name(self) -> str:
        handler = self._handler
        return (
            f"{handler.__module__}.{getattr(handler, '__qualname__', type(handler).__qualname__)}"
        )

    async def close(self) -> None:
        """Nothing is held."""
