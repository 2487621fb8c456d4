"""Presence, joins and leaves, control messages, and the engine's own life."""

from __future__ import annotations

import pytest
from msgspec import Raw

from realtime.engines.base import NO_OPTIONS, PresenceStats
from realtime.protocol.messages import ClientInfo
from tests.engines.backends import EngineUnderTest
from tests.engines.test_publish import publication


ANN = ClientInfo("ann", "c1", conn_info=Raw(b'{"n":1}'), chan_info=Raw(b"\x00\xff"))
ANN_AGAIN = ClientInfo("ann", "c2")
BOB = ClientInfo("bob", "c3")
NOBODY = ClientInfo("", "c4")
NOBODY_ELSE = ClientInfo("", "c5")


async def test_presence_returns_what_was_added(engine: EngineUnderTest) -> None:
    """By client id, with both infos as they came."""
    for info in (ANN, BOB):
        await engine.presence.add("c", info.client, info)

    assert dict(await engine.presence.presence("c")) == {"c1": ANN, "c3": BOB}


async def test_an_entry_is_refreshed_by_adding_it_again(engine: EngineUnderTest) -> None:
    """The newest info counts, and there is still one entry."""
    await engine.presence.add("c", "c1", ANN)
    changed = ClientInfo("ann", "c1", conn_info=Raw(b"2"))

    await engine.presence.add("c", "c1", changed)

    assert dict(await engine.presence.presence("c")) == {"c1": changed}
    assert await engine.presence.presence_stats("c") == PresenceStats(1, 1)


async def test_removal_forgets_one_entry(engine: EngineUnderTest) -> None:
    """Others stay; removing twice, or an unknown one, is no error."""
    for info in (ANN, ANN_AGAIN, BOB):
        await engine.presence.add("c", info.client, info)

    await engine.presence.remove("c", "c1", "ann")
    await engine.presence.remove("c", "c1", "ann")
    await engine.presence.remove("c", "unknown", "ann")
    await engine.presence.remove("unknown", "c2", "ann")

    assert dict(await engine.presence.presence("c")) == {"c2": ANN_AGAIN, "c3": BOB}
    assert await engine.presence.presence_stats("c") == PresenceStats(2, 2)


async def test_an_empty_channel_has_nobody(engine: EngineUnderTest) -> None:
    """Before the first and after the last."""
    assert dict(await engine.presence.presence("c")) == {}
    await engine.presence.add("c", "c1", ANN)
    await engine.presence.remove("c", "c1", "ann")

    assert dict(await engine.presence.presence("c")) == {}
    assert await engine.presence.presence_stats("c") == PresenceStats(0, 0)


async def test_stats_count_connections_and_users(engine: EngineUnderTest) -> None:
    """Connections of one user are one user, and all anonymous ones together are one."""
    for info in (ANN, ANN_AGAIN, BOB, NOBODY, NOBODY_ELSE):
        await engine.presence.add("c", info.client, info)

    assert await engine.presence.presence_stats("c") == PresenceStats(5, 3)


async def test_presence_belongs_to_its_channel(engine: EngineUnderTest) -> None:
    """One connection may be in several channels."""
    await engine.presence.add("a", "c1", ANN)
    await engine.presence.add("b", "c1", ANN)

    await engine.presence.remove("a", "c1", "ann")

    assert dict(await engine.presence.presence("b")) == {"c1": ANN}


async def test_presence_is_a_copy(engine: EngineUnderTest) -> None:
    """Who holds it is not surprised by later changes."""
    await engine.presence.add("c", "c1", ANN)
    entries = await engine.presence.presence("c")

    await engine.presence.remove("c", "c1", "ann")

    assert dict(entries) == {"c1": ANN}


async def test_entries_that_are_not_refreshed(engine: EngineUnderTest) -> None:
    """They end with the engine's TTL, where it has one; a refreshed one stays."""
    await engine.presence.add("c", "c1", ANN)
    await engine.presence.add("c", "c3", BOB)
    await engine.pass_time(max(engine.presence_ttl - 10, 1))
    await engine.presence.add("c", "c3", BOB)
    await engine.pass_time(11)

    expected = {"c3": BOB} if engine.presence_ttl else {"c1": ANN, "c3": BOB}
    assert dict(await engine.presence.presence("c")) == expected
    assert await engine.presence.presence_stats("c") == PresenceStats(len(expected), len(expected))


async def test_joins_and_leaves_arrive_once_and_in_order(engine: EngineUnderTest) -> None:
    """With the infos as they were given."""
    await engine.broker.subscribe("c")

    await engine.broker.publish_join("c", ANN)
    await engine.broker.publish_join("c", NOBODY)
    await engine.broker.publish_leave("c", ANN)

    await engine.node.until(lambda: bool(engine.node.leaves))
    assert engine.node.joins == [("c", ANN), ("c", NOBODY)]
    assert engine.node.leaves == [("c", ANN)]
    assert engine.node.deliveries == []


async def test_a_join_is_no_presence(engine: EngineUnderTest) -> None:
    """The two are independent."""
    await engine.broker.publish_join("c", ANN)
    await engine.presence.add("d", "c1", ANN)

    assert dict(await engine.presence.presence("c")) == {}


@pytest.mark.parametrize("data", [b"hello", b"", b"\x00\xff\n"])
async def test_control_reaches_this_node_too(engine: EngineUnderTest, data: bytes) -> None:
    """Sent to all, and sent to this node by its id."""
    await engine.control.publish_control(data)
    await engine.control.publish_control(data, engine.node_id)

    await engine.node.until(lambda: len(engine.node.controls) >= 2)
    assert engine.node.controls == [data, data]


async def test_control_for_another_node_is_not_carried_out_here(engine: EngineUnderTest) -> None:
    """Only what was sent afterwards, to all, arrives."""
    await engine.control.publish_control(b"theirs", "another-node")
    await engine.control.publish_control(b"all")

    await engine.node.until(lambda: bool(engine.node.controls))
    assert engine.node.controls == [b"all"]


async def test_subscribing_twice_does_not_double_deliveries(engine: EngineUnderTest) -> None:
    """A node is subscribed or it isn't."""
    await engine.broker.subscribe("c")
    await engine.broker.subscribe("c")

    await engine.broker.publish("c", publication(1), NO_OPTIONS)
    await engine.broker.publish("c", publication(2), NO_OPTIONS)

    assert await engine.node.payloads(2) == [b'{"n":1}', b'{"n":2}']


async def test_unsubscribing_from_an_unknown_channel_is_no_error(engine: EngineUnderTest) -> None:
    """And a channel can be subscribed again after it."""
    await engine.broker.unsubscribe("c")
    await engine.broker.subscribe("c")
    await engine.broker.unsubscribe("c")
    await engine.broker.subscribe("c")

    await engine.broker.publish("c", publication(1), NO_OPTIONS)

    assert await engine.node.payloads(1) == [b'{"n":1}']


async def test_closing_twice_is_closing_once(engine: EngineUnderTest) -> None:
    """Shutdown paths may meet."""
    await engine.broker.close()
    await engine.broker.close()
