"""Backends, and proxies that ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from realtime import handlers
from realtime.engines.tls import client_context
from realtime.proxies.figures import ProxyFigures
from realtime.proxies.registry import ProxyRegistry
from tests.unit.proxies.backend import Backend, open_backend


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[Backend]:
    """Give a backend over HTTP."""
    async with open_backend() as opened:
        yield opened


@pytest.fixture
def figures() -> ProxyFigures:
    """Give what the proxies count in."""
    return ProxyFigures()


@pytest_asyncio.fixture
async def registry(figures: ProxyFigures) -> AsyncIterator[ProxyRegistry]:
    """Give a registry without proxies; it is closed afterwards."""
    made = ProxyRegistry(
        make_context=client_context, run_in_thread=asyncio.to_thread, figures=figures
    )
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what a test registers."""
    monkeypatch.setattr(handlers, "_handlers", {})
