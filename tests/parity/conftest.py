"""Servers for the script: each is started once, with the configuration that its scenarios want."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.polled import PolledApplication, polled_application
from tests.parity.servers import centrifugo, our_database, our_server
from tests.parity.talk import Place


@pytest.fixture(scope="module")
def polled() -> Iterator[PolledApplication]:
    """Give the application that is asked for the keys of shared polls."""
    with polled_application() as application:
        yield application


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, polled: PolledApplication) -> Path:
    """Give the database of our servers, to be copied."""
    return our_database(tmp_path_factory.mktemp("database"), polled)


@pytest.fixture(scope="module")
def ours(
    tmp_path_factory: pytest.TempPathFactory, database: Path, polled: PolledApplication
) -> Iterator[Place]:
    """Give our server."""
    with our_server(database, tmp_path_factory.mktemp("ours"), polled) as place:
        yield place


@pytest.fixture(scope="module")
def our_hasty(
    tmp_path_factory: pytest.TempPathFactory, database: Path, polled: PolledApplication
) -> Iterator[Place]:
    """Give our server with little patience."""
    with our_server(database, tmp_path_factory.mktemp("hasty"), polled, hasty=True) as place:
        yield place


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, polled: PolledApplication) -> Iterator[Place]:
    """Give Centrifugo."""
    with centrifugo(tmp_path_factory.mktemp("theirs"), polled) as place:
        yield place


@pytest.fixture(scope="module")
def their_hasty(
    tmp_path_factory: pytest.TempPathFactory, polled: PolledApplication
) -> Iterator[Place]:
    """Give Centrifugo with little patience."""
    with centrifugo(tmp_path_factory.mktemp("their-hasty"), polled, hasty=True) as place:
        yield place
