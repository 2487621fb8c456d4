"""What those who track keys are told, and when the application is asked."""

from __future__ import annotations

import asyncio

from tests.unit.node.polls.world import settle


async def test_a_new_key_is_asked_for_at_once_and_its_value_comes_after_the_reply(
    follow, application
):
    """The reply first, then the value with a version of the node's own."""
    application.values["btc"] = ({"p": 1}, 0)
    follower = follow()

    subscribed = follower.subscribe("plain:a")
    reply = follower.track("plain:a", {"btc": 0})

    assert subscribed["type"] == 4
    assert len(subscribed["epoch"]) == 8
    assert reply["sub_refresh"] == {}
    assert follower.pushed == []
    await settle()
    # A timer of no length is one of the fake timers'.
    assert application.take_calls() == []


async def test_one_call_serves_everybody_and_only_changes_are_pushed(follow, application, timers):
    """However many track a key: one call per interval."""
    application.values["btc"] = ({"p": 1}, 0)
    followers = [follow() for _ in range(20)]
    for follower in followers:
        follower.subscribe("plain:a")
        follower.track("plain:a", {"btc": 0})
    await timers.advance(0)
    assert application.take_calls() == [{"btc": 0}]
    assert [each.pushes() for each in followers] == [
        [{"data": {"p": 1}, "key": "btc", "version": 1}]
    ] * 20

    await timers.advance(10)
    assert application.take_calls() == [{"btc": 0}]
    assert [each.pushes() for each in followers] == [[]] * 20
    application.values["btc"] = ({"p": 2}, 0)
    await timers.advance(10)

    assert len(application.take_calls()) == 1
    assert [each.pushes() for each in followers] == [
        [{"data": {"p": 2}, "key": "btc", "version": 2}]
    ] * 20


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
    assert first.pushes() == second.pushes() == [{"data": {"p": 1}, "key": "btc", "version": 1}]
