"""Several nodes on one backend: what they know of each other, ask each other, and do when one falls silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jwt
import msgspec
import pytest
from msgspec import Raw

from realtime import commands
from realtime.auth.tokens import TokenVerifier
from realtime.conf.options import ProcessOptions
from realtime.conf.snapshot import Configuration
from realtime.namespaces.globs import GlobError
from realtime.namespaces.table import NamespaceTable
from realtime.node.control import (
    DisconnectUser,
    RefreshUser,
    ReloadConfiguration,
    SubscribeUser,
    SurveyRequest,
    SurveyResponse,
    UnsubscribeUser,
    encode_control,
)
from realtime.node.surveys import SURVEY_TIMEOUT
from realtime.protocol.api_messages import PublishRequest
from realtime.protocol.errors import EngineError
from realtime.protocol.messages import StreamPosition
from realtime.session.grants import Override
from tests.unit.client.conftest import SECRET
from tests.unit.node.cluster import Cluster, settle


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    replace = msgspec.structs.replace
    default = ProcessOptions()
    token = replace(default.client.token, hmac_secret_key=SECRET)
    client = replace(default.client, allow_anonymous_connect_without_token=True, token=token)
    made = Cluster(replace(default, client=client))
    await made.start()
    yield made
    await made.stop()


def token(user: str) -> str:
    return jwt.encode({"sub": user}, SECRET, algorithm="HS256")


async def names(node: Any) -> list[str]:
    return [each.name for each in await node.survey_nodes()]


async def presence(node: Any, channel: str) -> set[str]:
    return set(await node.presence.presence(channel))


def pushes(connection: Any) -> list[dict[str, Any]]:
    return [message["push"] for message in connection.received() if "push" in message]


def told(connection: Any, kind: str) -> list[str]:
    """The client ids of the join or leave pushes since the last look."""
    return [push[kind]["info"]["client"] for push in pushes(connection) if kind in push]


# --- who is there --------------------------------------------------------------------------------


async def test_nodes_know_each_other_from_the_start(cluster: Cluster) -> None:
    """The newcomer's announcement is answered at once, not with the next round."""
    a = await cluster.add("a")
    b = await cluster.add("b")
    c = await cluster.add("c")

    assert await names(a) == ["a", "b", "c"]
    assert await names(b) == ["b", "a", "c"]
    assert await names(c) == ["c", "a", "b"]


async def test_counts_of_other_nodes_lag_by_an_announcement(cluster: Cluster) -> None:
    """Info is the registry: nobody is asked, and what is shown is at most three seconds old."""
    a, b = await cluster.add("a"), await cluster.add("b")
    await cluster.connect(b, "x", "y")

    assert [each.num_clients for each in await a.survey_nodes()] == [0, 0]
    await cluster.advance(3)

    (_, of_b) = await a.survey_nodes()
    assert (of_b.num_clients, of_b.num_users, of_b.num_channels, of_b.num_subs) == (1, 1, 2, 2)
    assert of_b.uptime == 3


async def test_metrics_travel_once_a_minute_and_show_the_growth(cluster: Cluster) -> None:
    """A newcomer has them from the first answer; counters start anew with each interval."""
    a = await cluster.add("a")
    a.publications = 5
    b = await cluster.add("b")
    name = "centrifugo.node.messages_sent_count.type.publication"

    def seen() -> float:
        (of_a,) = b.members.others()
        return of_a.metrics[name]

    assert seen() == 0
    cluster.clock.now += 60
    a._tick()
    await settle()
    assert seen() == 5
    assert a.info().metrics[name] == 5
    a.publications = 7
    await cluster.advance(6)
    assert seen() == 5
    cluster.clock.now += 54
    a._tick()
    await settle()
    assert seen() == 2


async def test_a_node_that_stops_is_removed_at_once(cluster: Cluster) -> None:
    """It says farewell before its clients go, who leave in order and once."""
    a, b = await cluster.add("a"), await cluster.add("b")
    watcher = await cluster.connect(a, "jl:x")
    await cluster.connect(b, "jl:x")
    pushes(watcher)

    draining = asyncio.ensure_future(b.drain(0))
    await settle()
    listed = await names(a)
    await draining
    await settle()
    left = told(watcher, "leave")
    await b.stop()
    await cluster.advance(10)

    assert listed == ["a"]
    assert left == ["client-2"]
    assert told(watcher, "leave") == []
    assert await presence(a, "jl:x") == {"client-1"}


async def test_a_drain_that_takes_long_is_not_a_death(cluster: Cluster) -> None:
    """A leaving node goes on to say so; its entries are its own to remove as long as it does."""
    a, b = await cluster.add("a"), await cluster.add("b")
    await cluster.connect(b, "jl:x")
    b.members.leave()

    await cluster.advance(30)

    assert await presence(a, "jl:x") == {"client-1"}
    assert await names(a) == ["a"]


async def test_what_a_drained_node_left_is_removed_when_it_is_silent(cluster: Cluster) -> None:
    """It was killed in the middle of its farewell."""
    a, b = await cluster.add("a"), await cluster.add("b")
    watcher = await cluster.connect(a, "jl:x")
    await cluster.connect(b, "jl:x")
    pushes(watcher)
    b.members.leave()
    await settle()
    cluster.kill("b")

    await cluster.advance(10)

    assert told(watcher, "leave") == ["client-2"]
    assert await presence(a, "jl:x") == {"client-1"}


# --- who is dead ---------------------------------------------------------------------------------


async def test_a_killed_node_is_buried_once_within_ten_seconds(cluster: Cluster) -> None:
    """One of the survivors removes its presence and tells each leave; the others tell nothing."""
    nodes = [await cluster.add(name) for name in "abcd"]
    watchers = [await cluster.connect(node, "jl:x") for node in nodes[:3]]
    for _ in range(300):
        await cluster.connect(nodes[3], "jl:x")
    await cluster.connect(nodes[3], "jl:y", "x")
    await cluster.advance(2)
    for watcher in watchers:
        watcher.received()
    cluster.kill("d")

    await cluster.advance(10)

    gone = {f"client-{number}" for number in range(4, 304)}
    for watcher in watchers:
        left = told(watcher, "leave")
        assert set(left) == gone
        assert len(left) == len(gone)
    assert sorted(cluster.backend.leaves).count(("jl:y", "client-304")) == 1
    assert await presence(nodes[0], "jl:x") == {"client-1", "client-2", "client-3"}
    assert await presence(nodes[0], "jl:y") == set()
    assert await names(nodes[1]) == ["b", "a", "c"]


async def test_nobody_is_buried_before_seven_seconds(cluster: Cluster) -> None:
    """Two lost announcements are no death."""
    a, b = await cluster.add("a"), await cluster.add("b")
    await cluster.connect(b, "jl:x")
    cluster.engine("b").is_stopped = True

    await cluster.advance(6)
    cluster.engine("b").resume()
    await cluster.advance(10)

    assert cluster.backend.leaves == []
    assert await names(a) == ["a", "b"]


async def test_a_burial_that_fails_is_tried_again(cluster: Cluster) -> None:
    """The backend is away just then."""
    _a, b = await cluster.add("a"), await cluster.add("b")
    await cluster.connect(b, "jl:x")
    engine = cluster.engine("a")
    remove_node = engine.remove_node
    failures = 2

    async def fail_twice(node_id: str) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise EngineError("away")
        return await remove_node(node_id)

    engine.remove_node = fail_twice  # type: ignore[method-assign]
    cluster.kill("b")

    await cluster.advance(12)

    assert failures < 0
    assert cluster.backend.leaves == [("jl:x", "client-1")]


async def test_a_stopped_node_comes_back_with_all_it_had(cluster: Cluster) -> None:
    """After SIGSTOP for longer than the others wait: presence is restored, joins are told after the leaves, and it is listed."""
    a, b = await cluster.add("a"), await cluster.add("b")
    watcher = await cluster.connect(a, "jl:x")
    await cluster.connect(b, "jl:x", "x")
    watcher.received()
    cluster.engine("b").is_stopped = True
    await cluster.advance(12)
    assert await presence(a, "jl:x") == {"client-1"}
    assert await names(a) == ["a"]

    cluster.engine("b").resume()
    await cluster.advance(1)

    assert await presence(a, "jl:x") == {"client-1", "client-2"}
    kinds = [kind for push in pushes(watcher) for kind in push if kind in ("join", "leave")]
    assert kinds == ["leave", "join"]
    assert await names(a) == ["a", "b"]
    assert await names(b) == ["b", "a"]
    assert cluster.backend.owners["jl:x", "client-2"] == "id of b"
    await cluster.advance(20)
    assert cluster.backend.leaves == [("jl:x", "client-2")]


async def test_a_node_that_wakes_between_two_survivors_ticks_is_not_buried_again(
    cluster: Cluster,
) -> None:
    """It is heard before it puts its entries back, so the second survivor has no dead node any more."""
    a, b, c = [await cluster.add(name) for name in "abc"]
    watcher = await cluster.connect(a, "jl:x")
    await cluster.connect(b, "jl:x")
    watcher.received()
    cluster.engine("b").is_stopped = True
    for _ in range(7):
        cluster.clock.now += 1
        for node in (a, c):
            node.members.tick()
        await settle()
    cluster.clock.now += 1
    a.members.tick()
    await settle()
    assert cluster.backend.leaves == [("jl:x", "client-2")]

    cluster.engine("b").resume()
    await settle()
    c.members.tick()
    await settle()

    assert cluster.backend.leaves == [("jl:x", "client-2")]
    assert await presence(c, "jl:x") == {"client-1", "client-2"}
    assert told(watcher, "join") == ["client-2"]


async def test_a_node_that_wakes_does_not_bury_the_living(cluster: Cluster) -> None:
    """It has heard nobody for a minute, but not because they were silent."""
    a, b = await cluster.add("a"), await cluster.add("b")
    await cluster.connect(a, "jl:x")
    cluster.engine("b").is_stopped = True
    cluster.clock.now += 60

    b.members.tick()
    await settle()
    cluster.engine("b").resume()
    await cluster.advance(20)

    assert cluster.backend.leaves == []
    assert await presence(b, "jl:x") == {"client-1"}
    assert await names(a) == ["a", "b"]


async def test_nobody_dies_of_an_outage(cluster: Cluster) -> None:
    """While the backend is away each node knows only itself; afterwards all are there, with their presence."""
    a, b = await cluster.add("a"), await cluster.add("b")
    await cluster.connect(a, "jl:x")
    await cluster.connect(b, "jl:x")
    for name in "ab":
        cluster.engine(name).is_cut_off = True

    await cluster.advance(30)
    assert await names(a) == ["a"]
    with pytest.raises(EngineError):
        await a.survey_channels()
    # As after a restart of a backend that keeps nothing.
    cluster.backend.owners.clear()
    cluster.backend.engine._presence.clear()
    for name in "ab":
        cluster.engine(name).is_cut_off = False
    await cluster.advance(2)

    assert await names(a) == ["a", "b"]
    assert await presence(a, "jl:x") == {"client-1", "client-2"}
    await cluster.advance(20)
    assert cluster.backend.leaves == []


async def test_a_restore_that_fails_is_tried_again(cluster: Cluster) -> None:
    """The backend goes away once more in the middle of it."""
    a = await cluster.add("a")
    await cluster.connect(a, "jl:x")
    engine = cluster.engine("a")
    add, failures = engine.add, 2

    async def fail_twice(*args: Any) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise EngineError("away")
        await add(*args)

    engine.add = fail_twice  # type: ignore[method-assign]
    cluster.backend.engine._presence.clear()

    a.members.on_buried()
    await cluster.advance(3)

    assert failures < 0
    assert await presence(a, "jl:x") == {"client-1"}


# --- surveys -------------------------------------------------------------------------------------


async def test_channels_are_summed_over_the_nodes(cluster: Cluster) -> None:
    """With a pattern, which each node applies to its own."""
    a, b = await cluster.add("a"), await cluster.add("b")
    await cluster.connect(a, "chat", "news")
    await cluster.connect(b, "chat")
    await cluster.connect(b, "chat", "cheese")

    assert await a.survey_channels() == {"chat": 3, "news": 1, "cheese": 1}
    assert await b.survey_channels("ch*") == {"chat": 3, "cheese": 1}
    assert await a.survey_channels("nothing*") == {}


async def test_a_malformed_pattern_asks_nobody(cluster: Cluster) -> None:
    """It is the caller's fault, not a node's."""
    a, _ = await cluster.add("a"), await cluster.add("b")
    before = cluster.engine("b").received

    with pytest.raises(GlobError):
        await a.survey_channels("[")

    await settle()
    assert cluster.engine("b").received == before


async def test_a_silent_node_fails_a_survey_in_time(cluster: Cluster) -> None:
    """Neither a wrong sum nor a call that hangs; the answer that comes too late is dropped."""
    a, _ = await cluster.add("a"), await cluster.add("b")
    a.surveys.timeout = 0.05
    cluster.engine("b").is_stopped = True

    with pytest.raises(EngineError, match="no answer to a survey from nodes id of b"):
        await a.survey_channels()

    cluster.engine("b").resume()
    await settle()
    assert a.surveys._open == {}
    assert await a.survey_channels() == {}


def test_the_timeout_is_the_reference_s() -> None:
    """Ten seconds."""
    assert SURVEY_TIMEOUT == 10


@pytest.mark.parametrize("farewell", [True, False])
async def test_a_node_that_goes_during_a_survey_is_not_waited_for(
    cluster: Cluster, farewell: bool
) -> None:
    """Its clients are gone with it."""
    a, b = await cluster.add("a"), await cluster.add("b")
    c = await cluster.add("c")
    await cluster.connect(c, "x")
    cluster.engine("b").is_stopped = True
    asking = asyncio.ensure_future(a.survey_channels())
    await settle()
    assert not asking.done()

    if farewell:
        b.members.leave()
        await settle()
    else:
        cluster.kill("b")
        await cluster.advance(9)

    assert await asyncio.wait_for(asking, 30) == {"x": 1}


async def test_a_node_that_fails_to_answer_fails_the_survey(cluster: Cluster) -> None:
    """As does one that does not know the operation, which an older version would not."""
    a, _ = await cluster.add("a"), await cluster.add("b")
    a.surveys._operations = {**a.surveys._operations, "newer": lambda _: 1}

    with pytest.raises(EngineError, match="with code 1"):
        await a.surveys.ask("newer", None)


async def test_a_cancelled_survey_leaves_nothing(cluster: Cluster) -> None:
    """The caller hung up."""
    a, _ = await cluster.add("a"), await cluster.add("b")
    cluster.engine("b").is_stopped = True
    asking = asyncio.ensure_future(a.survey_channels())
    await settle()

    asking.cancel()
    await settle()

    assert asking.cancelled()
    assert a.surveys._open == {}


async def test_answers_to_nobody_s_question_are_dropped(cluster: Cluster) -> None:
    """So are messages that this version does not understand."""
    a = await cluster.add("a")

    a.on_control(encode_control("id of b", SurveyResponse(7)))
    a.on_control(b'{"sender":"id of b","body":{"type":"FromTheFuture"}}')
    a.on_control(b"not JSON")

    assert await names(a) == ["a"]


async def test_a_draining_node_answers_no_survey(cluster: Cluster) -> None:
    """Its connections are on their way to other nodes, where they are counted."""
    _a, b = await cluster.add("a"), await cluster.add("b")
    before = cluster.engine("a").received
    b.is_draining = True

    b.on_control(encode_control("id of a", SurveyRequest(1, "channels")))
    await settle()

    assert cluster.engine("a").received == before


# --- commands ------------------------------------------------------------------------------------


async def test_commands_reach_connections_of_every_node(cluster: Cluster) -> None:
    """With everything that they carry."""
    a, b = await cluster.add("a"), await cluster.add("b")
    here = await cluster.connect(a, token=token("ann"))
    there = await cluster.connect(b, token=token("ann"))
    override = Override(presence=True, force_positioning=True)

    await a.control(
        SubscribeUser("ann", "news", info=b'{"i":1}', data=b'{"d":1}', override=override)
    )
    subscribed_here = pushes(here)
    await settle()

    assert subscribed_here == pushes(there)
    (push,) = subscribed_here
    assert push["channel"] == "news"
    assert push["subscribe"]["data"] == {"d": 1}
    assert push["subscribe"]["positioned"] is True
    entries = await a.presence.presence("news")
    assert {bytes(info.chan_info) for info in entries.values()} == {b'{"i":1}'}
    assert len(entries) == 2

    await a.control(UnsubscribeUser("ann", "news", code=2222, reason="enough"))
    await a.control(RefreshUser("ann", expire_at=int(cluster.clock.now) + 60))
    await settle()

    expected = [
        {"channel": "news", "unsubscribe": {"code": 2222, "reason": "enough"}},
        {"refresh": {"expires": True, "ttl": 60}},
    ]
    assert pushes(here) == pushes(there) == expected

    await a.control(DisconnectUser("ann", whitelist=(there.client.session.client_id,), code=4000))
    await settle()

    assert here.closed == (4000, "force disconnect")
    assert there.closed is None


async def test_who_is_subscribed_with_a_position_recovers_from_it_later(cluster: Cluster) -> None:
    """The push has no publications, so it says where those begin that the client misses."""
    a = await cluster.add("a")
    here = await cluster.connect(a, token=token("ann"))
    for _ in range(3):
        await commands.publish(a, PublishRequest(channel="hist:x", data=Raw(b"1")))

    await a.control(SubscribeUser("ann", "hist:x", recover_since=StreamPosition(1, "")))

    (push,) = pushes(here)
    assert push["subscribe"]["offset"] == 1


async def test_a_command_is_done_here_when_the_call_returns(cluster: Cluster) -> None:
    """Also on an engine that takes its time."""
    a = await cluster.add("a")
    here = await cluster.connect(a, token=token("ann"))

    await a.control(SubscribeUser("ann", "jl:x"))

    assert "jl:x" in here.client.session.subscriptions
    assert here.client.session.subscriptions["jl:x"].is_established


async def test_a_command_that_can_not_be_sent_is_done_nowhere(cluster: Cluster) -> None:
    """Not by half, here alone: the caller is told that it failed, and may try again."""
    a = await cluster.add("a")
    here = await cluster.connect(a, "news", token=token("ann"))
    cluster.engine("a").is_cut_off = True

    for command in (
        DisconnectUser("ann"),
        UnsubscribeUser("ann", "news"),
        RefreshUser("ann", expired=True),
        SubscribeUser("ann", "more"),
    ):
        with pytest.raises(EngineError):
            await a.control(command)
    await settle()

    assert here.closed is None
    assert set(here.client.session.subscriptions) == {"news"}
    assert pushes(here) == []
    cluster.engine("a").is_cut_off = False


async def test_a_new_configuration_is_loaded_by_every_node(cluster: Cluster) -> None:
    """Where the bus carries the word, at once."""
    loaded = Configuration(2, NamespaceTable(), {})

    async def reload() -> Configuration:
        return loaded

    a, b = await cluster.add("a", reload), await cluster.add("b", reload)

    await a.control(ReloadConfiguration(2))
    await settle()

    assert a.table is loaded.table
    assert b.table is loaded.table


async def test_options_that_timers_run_on_stay_until_the_next_start(cluster: Cluster) -> None:
    """The others, and the verifiers, are taken at once; clients are told of the pings that they get."""
    a = await cluster.add("a")
    replace = msgspec.structs.replace
    before = a.options.client
    client = replace(before, channel_limit=1, ping_interval=3, pong_timeout=1)
    verifier = TokenVerifier(before.token)

    a.take_options(replace(a.options, client=client), verifier, verifier)

    assert a.options.client.channel_limit == 1
    assert a.options.client.ping_interval == before.ping_interval
    assert a.options.client.pong_timeout == before.pong_timeout
    assert a.connection_verifier is a.subscription_verifier is verifier


async def test_a_node_without_subscribers_gets_nothing_of_a_channel(cluster: Cluster) -> None:
    """What is published for others costs it nothing."""
    a, b = await cluster.add("a"), await cluster.add("b")
    reader = await cluster.connect(a, "news")
    before = cluster.engine("b").received

    for number in range(100):
        request = PublishRequest(channel="news", data=Raw(b"%d" % number))
        await commands.publish(b, request)
    await settle()

    assert [push["pub"]["data"] for push in pushes(reader)] == list(range(100))
    assert cluster.engine("b").received == before
