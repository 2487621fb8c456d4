"""Commands for a session reach the node that has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from realtime.conf.options import ProcessOptions
from realtime.node.emulation import UnknownNodeError
from realtime.node.node import Node
from realtime.protocol.errors import EngineError
from tests.unit.node.cluster import Cluster, settle


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Give nodes a and b, which know each other."""
    options = ProcessOptions()
    client = msgspec.structs.replace(options.client, allow_anonymous_connect_without_token=True)
    made = Cluster(msgspec.structs.replace(options, client=client))
    await made.start()
    for name in "ab":
        await made.add(name)
    yield made
    await made.stop()


def listen(node: Node, session: str) -> list[bytes]:
    heard: list[bytes] = []
    node.emulation.add(session, heard.append)
    return heard


@pytest.mark.parametrize("sender", ["a", "b"])
async def test_commands_reach_a_session_of_any_node(cluster: Cluster, sender: str) -> None:
    """Any bytes arrive as they were, at the named session alone."""
    owner = cluster.nodes["a"]
    heard, other = listen(owner, "s"), listen(owner, "t")

    await cluster.nodes[sender].emulation.forward(owner.id, "s", b"\x00\xff\n{}")

    assert heard == [b"\x00\xff\n{}"]
    assert other == []


@pytest.mark.parametrize("sender", ["a", "b"])
async def test_a_session_that_is_gone_is_no_error(cluster: Cluster, sender: str) -> None:
    """As with bytes on a closing socket, the sender learns of it by the end of its stream."""
    owner = cluster.nodes["a"]
    heard = listen(owner, "s")
    owner.emulation.discard("s")

    await cluster.nodes[sender].emulation.forward(owner.id, "s", b"{}")

    assert heard == []


async def test_an_unknown_node_is_told_from_one_that_fails(cluster: Cluster) -> None:
    """404 sends the SDK to connect anew; a backend that is away may be back for the next command."""
    sender = cluster.nodes["b"]
    with pytest.raises(UnknownNodeError):
        await sender.emulation.forward("nobody", "s", b"{}")

    cluster.engine("b").is_cut_off = True
    with pytest.raises(EngineError):
        await sender.emulation.forward(cluster.nodes["a"].id, "s", b"{}")


async def test_a_node_that_dies_meanwhile_is_unknown(cluster: Cluster) -> None:
    """Who waits for its answer is told when it is found dead, not after the whole timeout."""
    dead, sender = cluster.nodes["a"].id, cluster.nodes["b"]
    cluster.kill("a")
    asked = asyncio.ensure_future(sender.emulation.forward(dead, "s", b"{}"))
    await settle()
    assert not asked.done()

    for _ in range(60):
        await cluster.advance(1)
        if asked.done():
            break

    with pytest.raises(UnknownNodeError):
        await asked
