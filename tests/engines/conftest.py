"""One suite over every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.engines.backends import ENGINES, EngineFactory, EngineUnderTest


@pytest.fixture(params=ENGINES)
def engine_factory(request: pytest.FixtureRequest) -> EngineFactory:
    """Open a fresh engine; for tests that need several."""
    factory: EngineFactory = request.param
    return factory


@pytest_asyncio.fixture
async def engine(engine_factory: EngineFactory) -> AsyncIterator[EngineUnderTest]:
    """Give a started engine with nothing in it."""
    async with engine_factory() as under_test:
        yield under_test
