"""A node with an application that it polls."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime.conf.options import ProcessOptions
from realtime.node.node import Node
from tests.unit.client.conftest import (  # noqa: F401 -- fixtures
    Clock,
    Connection,
    clock,
    make_node,
    node,
)
from tests.unit.client.conftest import options as plain_options  # noqa: F401 -- a fixture
from tests.unit.node.polls.world import Application, Follower, with_polls
from tests.unit.node.timers import FakeTimers


@pytest.fixture
def options(plain_options: ProcessOptions) -> ProcessOptions:  # noqa: F811 -- the fixture
    return with_polls(plain_options)


@pytest.fixture
def application(node: Node) -> Application:  # noqa: F811 -- the fixture
    made = Application()
    node.polls.find_backend = lambda name: made if name == "default" else None
    return made


@pytest.fixture
def timers(node: Node, monkeypatch: pytest.MonkeyPatch) -> FakeTimers:  # noqa: F811 -- the fixture
    made = FakeTimers()
    node.polls.run_on(made)
    return made


@pytest.fixture
def follow(
    node: Node,  # noqa: F811 -- the fixture
    clock: Clock,  # noqa: F811 -- the fixture
    application: Application,
    timers: FakeTimers,
) -> Callable[..., Follower]:
    """Connect anonymous clients."""
    count = 0

    def connected(**facts: object) -> Follower:
        nonlocal count
        count += 1
        connection = Connection(node, f"client-{count}", **facts)
        connection.send({"id": 1, "connect": {}})
        return Follower(node, connection, clock)

    return connected
