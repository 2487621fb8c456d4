"""One suite over every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.engines.backends import ENGINES, EngineFactory, EngineUnderTest
from tests.engines.map_backends import MAP_STORES, MapsFactory, MapsUnderTest


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


@pytest.fixture(params=MAP_STORES)
def maps_factory(request: pytest.FixtureRequest) -> MapsFactory:
    """Open a fresh store of maps."""
    factory: MapsFactory = request.param
    return factory


@pytest_asyncio.fixture
async def store(maps_factory: MapsFactory) -> AsyncIterator[MapsUnderTest]:
    """Give a started store of maps with nothing in it."""
    async with maps_factory() as under_test:
        yield under_test
