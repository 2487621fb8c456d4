"""Servers for the script: each is started once, with the configuration that its scenarios want."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parity.servers import centrifugo, our_server
from tests.parity.talk import Place


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give our server."""
    with our_server(tmp_path_factory.mktemp("ours")) as place:
        yield place


@pytest.fixture(scope="module")
def our_hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give our server with little patience."""
    with our_server(tmp_path_factory.mktemp("hasty"), hasty=True) as place:
        yield place


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give Centrifugo."""
    with centrifugo(tmp_path_factory.mktemp("theirs")) as place:
        yield place


@pytest.fixture(scope="module")
def their_hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give Centrifugo with little patience."""
    with centrifugo(tmp_path_factory.mktemp("their-hasty"), hasty=True) as place:
        yield place
