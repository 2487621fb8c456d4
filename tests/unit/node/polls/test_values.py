"""What those who track keys are told, and when the application is asked."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from realtime.proxies.shared_poll import PolledItem, SharedPollRefreshResult
from tests.unit.node.polls.world import with_polls
from tests.unit.node.timers import settle


def value(data, version=1, key="btc", **more):
    return {"data": data, "key": key, "version": version, **more}


async def test_the_value_comes_after_the_reply(follow, application, timers):
    """A new key is asked for at once; the value has a version of the node's own."""
    application.values["btc"] = ({"p": 1}, 0)
    follower = follow()

    subscribed = follower.subscribe("plain:a")
    reply = follower.track("plain:a", {"btc": 0})

    assert subscribed["type"] == 4
    assert len(subscribed["epoch"]) == 8
    assert "delta" not in subscribed
    assert reply["sub_refresh"] == {}
    assert follower.pushed == []
    await timers.advance(0)
    assert application.take_calls() == [{"btc": 0}]
    assert follower.pushes() == [value({"p": 1})]


async def test_one_call_serves_everybody_and_only_changes_are_pushed(follow, application, timers):
    """However many track a key: one call per interval."""
    application.values["btc"] = ({"p": 1}, 0)
    followers = [follow() for _ in range(20)]
    for follower in followers:
        follower.subscribe("plain:a")
        follower.track("plain:a", {"btc": 0})
    await timers.advance(0)
    assert application.take_calls() == [{"btc": 0}]
    assert [each.pushes() for each in followers] == [[value({"p": 1})]] * 20

    await timers.advance(10)
    assert application.take_calls() == [{"btc": 0}]
    assert [each.pushes() for each in followers] == [[]] * 20
    application.values["btc"] = ({"p": 2}, 0)
    await timers.advance(10)

    assert len(application.take_calls()) == 1
    assert [each.pushes() for each in followers] == [[value({"p": 2}, 2)]] * 20


async def test_who_comes_while_the_application_works_waits_for_that_answer(
    follow, application, timers
):
    """At most one call per key and wave."""
    application.values["btc"] = ({"p": 1}, 0)
    application.gate = asyncio.Event()
    first, second = follow(), follow()
    for follower in (first, second):
        follower.subscribe("plain:a")
    first.track("plain:a", {"btc": 0})
    await timers.advance(0)
    second.track("plain:a", {"btc": 0})
    await timers.advance(0)

    application.gate.set()
    await settle()

    assert len(application.take_calls()) == 1
    assert first.pushes() == second.pushes() == [value({"p": 1})]


async def test_who_comes_late_is_told_by_one_more_call(follow, application, timers):
    """The value is not kept, so the application says it again; the version is the one that others have."""
    application.values["btc"] = ({"p": 1}, 0)
    first, second, third = follow(), follow(), follow()
    for each in (first, second, third):
        each.subscribe("plain:a")
    first.track("plain:a", {"btc": 0})
    await timers.advance(0)
    first.pushes()
    application.take_calls()

    second.track("plain:a", {"btc": 0})
    third.track("plain:a", {"btc": 0})
    await timers.advance(0)

    assert application.take_calls() == [{"btc": 0}]
    assert first.pushes() == []
    assert second.pushes() == third.pushes() == [value({"p": 1})]


async def test_who_has_the_value_is_sent_nothing(follow, application, timers):
    """After a reconnect the SDK says which version it has."""
    application.values["btc"] = ({"p": 1}, 0)
    first, second = follow(), follow()
    first.subscribe("plain:a")
    second.subscribe("plain:a")
    first.track("plain:a", {"btc": 0})
    await timers.advance(0)
    application.take_calls()

    second.track("plain:a", {"btc": 1})
    await timers.advance(0)

    assert application.take_calls() == []
    assert second.pushes() == []


async def test_a_new_key_with_a_version_waits_for_the_cycle(follow, application, timers):
    """Nothing is urgent for who has something."""
    application.values["btc"] = ({"p": 1}, 7)
    follower = follow()
    follower.subscribe("versions:a")
    follower.track("versions:a", {"btc": 6})

    await timers.advance(9)
    assert application.take_calls() == []
    await timers.advance(1)

    assert application.take_calls() == [{"btc": 0}]
    assert follower.pushes() == [value({"p": 1}, 7)]


async def test_a_restarted_node_s_versions_do_not_hide_its_values(follow, application, timers):
    """A channel that was forgotten and is polled anew goes on counting, since clients keep what they had."""
    application.values["btc"] = ({"p": 1}, 0)
    first, second = follow(), follow()
    first.subscribe("plain:a")
    second.subscribe("plain:a")
    first.track("plain:a", {"btc": 0})
    await timers.advance(0)
    first.untrack("plain:a", "btc")
    await timers.advance(60)
    application.values["btc"] = ({"p": 2}, 0)

    second.track("plain:a", {"btc": 1})
    await timers.advance(10)

    assert second.pushes() == [value({"p": 2}, 2)]


async def test_removed_keys_are_told_and_forgotten(follow, application, timers):
    """Who wants it again has to track it again."""
    application.values["btc"] = ({"p": 1}, 0)
    first, second = follow(), follow()
    for each in (first, second):
        each.subscribe("plain:a")
        each.track("plain:a", {"btc": 0, "eth": 0})
    await timers.advance(0)
    first.pushes(), second.pushes()
    application.removed.add("btc")
    await timers.advance(10)

    gone = {"key": "btc", "removed": True}
    assert first.pushes() == second.pushes() == [gone]
    application.take_calls()
    await timers.advance(10)
    assert application.take_calls() == [{"eth": 0}]

    application.removed.clear()
    first.track("plain:a", {"btc": 0})
    await timers.advance(0)
    assert first.pushes() == [value({"p": 1}, 2)]
    assert second.pushes() == []


async def test_versioned_answers_are_asked_for_by_version(follow, application, timers):
    """The application leaves out what the node has."""
    application.values.update(btc=({"p": 1}, 5), eth=({"p": 9}, 1))
    follower = follow()
    follower.subscribe("versions:a")
    follower.track("versions:a", {"btc": 0, "eth": 0})
    await timers.advance(0)
    assert application.take_calls() == [{"btc": 0, "eth": 0}]
    assert follower.pushes() == [value({"p": 1}, 5), value({"p": 9}, 1, "eth")]

    application.values["btc"] = ({"p": 2}, 6)
    await timers.advance(10)

    assert application.take_calls() == [{"btc": 5, "eth": 1}]
    assert follower.pushes() == [value({"p": 2}, 6)]


async def test_late_versioned_followers_are_asked_for_without_a_version(
    follow, application, timers
):
    """Else the application would leave the key out."""
    application.values["btc"] = ({"p": 1}, 5)
    first, second = follow(), follow()
    first.subscribe("versions:a")
    second.subscribe("versions:a")
    first.track("versions:a", {"btc": 0})
    await timers.advance(0)
    first.pushes()
    application.take_calls()

    second.track("versions:a", {"btc": 3})
    await timers.advance(0)

    assert application.take_calls() == [{"btc": 0}]
    assert second.pushes() == [value({"p": 1}, 5)]
    assert first.pushes() == []


async def test_who_comes_while_late_followers_are_asked_for_is_served_with_them(
    follow, application, timers
):
    """That call has no version, so it is answered whatever happened before."""
    application.values["btc"] = ({"p": 1}, 5)
    first, second, third = follow(), follow(), follow()
    for each in (first, second, third):
        each.subscribe("versions:a")
    first.track("versions:a", {"btc": 0})
    await timers.advance(0)
    application.take_calls()
    application.gate = asyncio.Event()
    second.track("versions:a", {"btc": 1})
    await timers.advance(0)
    third.track("versions:a", {"btc": 1})
    await timers.advance(0)
    assert len(application.take_calls()) == 1

    application.gate.set()
    await settle()
    await timers.advance(0)

    assert second.pushes() == third.pushes() == [value({"p": 1}, 5)]


async def test_a_versionless_item_with_a_version_is_taken_as_versioned(follow, application, timers):
    """The reference does so; an older one is no change."""
    application.values["btc"] = ({"p": 1}, 50)
    follower = follow()
    follower.subscribe("plain:a")
    follower.track("plain:a", {"btc": 0})
    await timers.advance(0)
    application.values["btc"] = ({"p": 2}, 49)
    await timers.advance(10)

    assert follower.pushes() == [value({"p": 1}, 50)]


async def test_answers_that_overtake_each_other_do_not_bring_back_an_old_value(
    follow, application, timers, node
):
    """Where there are no versions the later call counts."""
    application.values["btc"] = ({"p": 1}, 0)
    follower = follow()
    follower.subscribe("plain:a")
    application.gate = slow = asyncio.Event()
    follower.track("plain:a", {"btc": 0})
    await timers.advance(0)
    application.gate = None
    application.values["btc"] = ({"p": 2}, 0)
    node.polls.on_notice(b'{"items":[{"channel":"plain:a","key":"btc"}]}')
    await timers.advance(0)
    slow.set()
    await settle()

    assert follower.pushes() == [value({"p": 2})]


async def test_an_outage_costs_its_cycles_and_nothing_else(follow, application, timers, caplog):
    """One line in the log, one when it is over; nothing is removed."""
    application.values["btc"] = ({"p": 1}, 0)
    follower = follow()
    follower.subscribe("plain:a")
    application.is_down = True
    follower.track("plain:a", {"btc": 0})
    await timers.advance(30)
    assert len(application.take_calls()) == 4
    assert follower.pushes() == []

    application.is_down = False
    with caplog.at_level("INFO"):
        await timers.advance(10)

    assert follower.pushes() == [value({"p": 1})]
    assert [each.message for each in caplog.records if "shared poll" in each.message] == [
        "a shared poll failed: it is down",
        "a shared poll is answered again",
    ]


async def test_a_namespace_without_a_backend_says_so(follow, node, timers, caplog):
    """The proxy may come with the next configuration."""
    node.polls.find_backend = lambda _name: None
    follower = follow()
    follower.subscribe("plain:a")
    node.polls.find_backend = lambda _name: None
    follower.track("plain:a", {"btc": 0})

    await timers.advance(0)

    assert "there is no proxy 'default' for shared polls" in caplog.text


async def test_batches_are_sorted_and_spread_over_the_interval(follow, application, timers):
    """Two keys per call, three calls in 10 s."""
    follower = follow()
    follower.subscribe("small:a")
    follower.track("small:a", {"e": 0, "d": 0, "c": 0, "b": 0, "a": 0})
    await timers.advance(0)
    assert [set(call) for call in application.take_calls()] == [{"a", "b"}, {"c", "d"}, {"e"}]

    await timers.advance(10)
    assert [set(call) for call in application.take_calls()] == [{"a", "b"}]
    await timers.advance(10 / 3)
    assert [set(call) for call in application.take_calls()] == [{"c", "d"}]
    await timers.advance(10 / 3)
    assert [set(call) for call in application.take_calls()] == [{"e"}]


async def test_no_more_calls_are_under_way_than_allowed(follow, application, timers, node):
    """By all channels of the node together."""
    node.options = with_polls(node.options, concurrency_limit=2)
    application.gate = asyncio.Event()
    for number in range(5):
        follower = follow()
        follower.subscribe(f"plain:{number}")
        follower.track(f"plain:{number}", {"btc": 0})
    await timers.advance(0)
    assert application.under_way == 2

    application.gate.set()
    await settle()

    assert len(application.asked) == 5
    assert application.most_under_way == 2


async def test_a_slow_application_is_asked_less_often(follow, application, timers):
    """The interval doubles while calls take longer than it, and comes back."""
    follower = follow()
    follower.subscribe("paced:a")
    follower.track("paced:a", {"btc": 0})
    await timers.advance(0)
    application.take_calls()
    application.gate = asyncio.Event()
    await timers.advance(10)
    await timers.advance(12)
    application.gate.set()
    application.gate = None
    await settle()
    assert len(application.take_calls()) == 1

    await timers.advance(7)
    assert application.take_calls() == []
    await timers.advance(1)
    assert len(application.take_calls()) == 1
    await timers.advance(14)
    assert application.take_calls() == []
    await timers.advance(1)
    assert len(application.take_calls()) == 1


async def test_a_channel_that_nobody_tracks_is_asked_for_no_more(follow, application, timers, node):
    """After its delay; until then who comes back is in time."""
    follower = follow()
    follower.subscribe("plain:a")
    follower.track("plain:a", {"btc": 0})
    await timers.advance(0)
    follower.untrack("plain:a", "btc")
    assert node.polls.num_keys == 0
    assert node.polls.num_channels == 1

    await timers.advance(1)

    assert node.polls.num_channels == 0
    application.take_calls()
    await timers.advance(30)
    assert application.take_calls() == []


async def test_who_subscribes_and_tracks_nothing_leaves_nothing(follow, timers, node):
    """A channel's name is a client's choice, so it is not kept for ever."""
    follower = follow()
    for number in range(20):
        follower.subscribe(f"plain:{number}")

    await timers.advance(10)

    assert node.polls.num_channels == 0


async def test_a_payload_that_is_no_json_ends_json_connections(follow, application, timers):
    """As with any publication; others go on."""

    class Broken:
        async def refresh(self, request):
            return SharedPollRefreshResult([PolledItem("btc", Raw(b"\xff{"))])

    follower = follow()
    follower.node.polls.find_backend = lambda _name: Broken()
    follower.subscribe("plain:a")
    follower.track("plain:a", {"btc": 0})

    await timers.advance(0)

    assert follower.connection.closed == (3506, "inappropriate protocol")
