"""Track and untrack: who may, how much, for how long."""

from __future__ import annotations

import asyncio

import jwt
import msgspec
import pytest

from realtime import commands
from realtime.protocol.api_messages import SubscribeRequest
from realtime.protocol.errors import EngineError
from tests.unit.client.conftest import SECRET, Connection
from tests.unit.node.polls.world import KEY
from tests.unit.node.timers import settle


def error_of(reply):
    return reply["error"]["code"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "plain:a", "type": 3}, 107),
        ({"channel": "chat", "type": 4}, 108),
        ({"channel": "plain:a"}, 107),
        ({"channel": "plain:a", "type": 1}, 107),
        ({"channel": "nothing:a", "type": 4}, 102),
    ],
)
async def test_the_type_is_the_namespace_s(follow, request_, code):
    """107 and 108 tell the two mistakes apart."""
    reply = follow().send(subscribe=request_)

    assert error_of(reply) == code


async def test_a_second_subscribe_is_refused(follow):
    """As for any channel."""
    follower = follow()
    follower.subscribe("plain:a")

    assert error_of(follower.send(subscribe={"channel": "plain:a", "type": 4})) == 105


async def test_the_reply_tells_the_epoch_of_the_versions(follow, application, timers):
    """Random where the node makes the versions, the application's where it does."""
    first, second = follow(), follow()

    assert first.subscribe("plain:a")["epoch"] == second.subscribe("plain:a")["epoch"]
    assert first.subscribe("plain:b")["epoch"] != first.subscribe("plain:c")["epoch"]
    assert "epoch" not in first.subscribe("versions:a")


async def test_tracking_needs_the_subscription(follow):
    """And one of this type."""
    follower = follow()

    assert error_of(follower.track("plain:a", {"k": 0})) == 103
    follower.send(subscribe={"channel": "chat"})
    assert error_of(follower.track("chat", {"k": 0})) == 103


@pytest.mark.parametrize(
    "request_",
    [
        {"type": 1},
        {"type": 1, "track": [{"signature": "x", "items": []}]},
        {"type": 2},
        {"type": 2, "untrack": []},
        {"type": 9},
    ],
)
async def test_a_request_without_keys_is_none(follow, request_):
    """107; the subscription goes on."""
    follower = follow()
    follower.subscribe("plain:a")

    assert error_of(follower.send(sub_refresh={"channel": "plain:a", **request_})) == 107
    assert follower.track("plain:a", {"k": 0})["sub_refresh"] == {}


async def test_a_batch_without_its_signature_spoils_the_request(follow, node):
    """None of its keys is tracked."""
    follower = follow()
    follower.subscribe("plain:a")
    good = follower.batch("plain:a", {"a": 0})
    bad = follower.batch("plain:b", {"b": 0})

    reply = follower.send(sub_refresh={"channel": "plain:a", "type": 1, "track": [good, bad]})

    assert error_of(reply) == 103
    assert node.polls.num_keys == 0


async def test_without_a_secret_nothing_can_be_checked(follow, node):
    """100, since it is the operator's mistake."""
    follower = follow()
    follower.subscribe("plain:a")
    batch = follower.batch("plain:a", {"a": 0})
    node.options = type(node.options)()

    reply = follower.send(sub_refresh={"channel": "plain:a", "type": 1, "track": [batch]})

    assert error_of(reply) == 100


async def test_the_ttl_is_that_of_the_first_key_to_end(follow, clock):
    """So the SDK refreshes in time; an expired signature is taken for 5 s, without a ttl."""
    follower = follow()
    follower.subscribe("plain:a")
    now = int(clock.now)
    batches = [
        follower.batch("plain:a", {"a": 0}, expire_at=now + 60),
        follower.batch("plain:a", {"b": 0}, expire_at=now + 30),
        follower.batch("plain:a", {"c": 0}),
    ]

    reply = follower.send(sub_refresh={"channel": "plain:a", "type": 1, "track": batches})

    assert reply["sub_refresh"] == {"expires": True, "ttl": 30}
    assert follower.track("plain:a", {"d": 0}, expire_at=now - 5)["sub_refresh"] == {
        "expires": True
    }
    assert error_of(follower.track("plain:a", {"d": 0}, expire_at=now - 6)) == 109


async def test_a_key_of_two_batches_has_the_last_one_s_version_and_end(
    follow, clock, application, timers
):
    """Whatever the first one said."""
    application.values["a"] = ("x", 5)
    follower = follow()
    follower.subscribe("versions:a")
    follower.track("versions:a", {"a": 0})
    await timers.advance(0)
    follower.pushes()
    batches = [
        follower.batch("versions:a", {"a": 0}, expire_at=int(clock.now) + 60),
        follower.batch("versions:a", {"a": 5}),
    ]

    follower.send(sub_refresh={"channel": "versions:a", "type": 1, "track": batches})
    application.take_calls()
    await timers.advance(0)

    assert application.take_calls() == []
    clock.now += 1000
    follower.connection.client.maintain(clock.now)
    assert follower.node.polls.num_keys == 1


async def test_more_keys_than_allowed_are_refused(follow, node):
    """Those that the request untracks do not count."""
    follower = follow()
    follower.subscribe("small:a")
    follower.track("small:a", {"a": 0, "b": 0, "c": 0, "d": 0})

    assert error_of(follower.track("small:a", {"e": 0, "f": 0})) == 106
    assert node.polls.num_keys == 4
    assert "sub_refresh" in follower.track("small:a", {"d": 0, "e": 0})
    assert "sub_refresh" in follower.track("small:a", {"f": 0}, untrack=["a"])
    assert node.polls.num_keys == 5


async def test_keys_of_a_signed_batch_can_be_left_out(follow, application, timers):
    """The SDK sends whole batches again after a reconnect, and untracks what nobody wants any more."""
    application.values.update(a=("x", 0), b=("y", 0))
    follower = follow()
    follower.subscribe("plain:a")

    reply = follower.track("plain:a", {"a": 0, "b": 0}, untrack=["b", "unknown"])
    await timers.advance(0)

    assert reply["sub_refresh"] == {}
    assert application.take_calls() == [{"a": 0}]
    assert [each["key"] for each in follower.pushes()] == ["a"]


async def test_untracking_ends_pushes(follow, application, timers):
    """Unknown keys are no mistake."""
    application.values["a"] = ("x", 0)
    first, second = follow(), follow()
    for each in (first, second):
        each.subscribe("plain:a")
        each.track("plain:a", {"a": 0})
    await timers.advance(0)
    first.pushes(), second.pushes()

    assert first.untrack("plain:a", "a", "unknown")["sub_refresh"] == {}
    application.values["a"] = ("y", 0)
    await timers.advance(10)

    assert first.pushes() == []
    assert len(second.pushes()) == 1


async def test_what_was_on_its_way_comes_before_the_reply_to_untrack(follow):
    """After the reply nothing of the key comes."""
    follower = follow()
    follower.subscribe("plain:a")
    follower.track("plain:a", {"a": 0})
    client = follower.connection.client
    follower.node.polls.outbox.put(client, b'{"push":{}}')

    request = {"id": 99, "sub_refresh": {"channel": "plain:a", "type": 2, "untrack": ["a"]}}

    assert follower.connection.send(request) == [{"push": {}}, {"id": 99, "sub_refresh": {}}]


@pytest.mark.parametrize("way", ["unsubscribe", "close", "disconnect", "server"])
async def test_who_goes_takes_its_keys_along(follow, application, timers, node, way):
    """Nothing is asked for on behalf of somebody who is gone."""
    follower = follow()
    follower.subscribe("plain:a")
    follower.track("plain:a", {"a": 0, "b": 0})
    await timers.advance(0)
    client = follower.connection.client
    if way == "unsubscribe":
        follower.send(unsubscribe={"channel": "plain:a"})
    elif way == "close":
        client.on_close()
    elif way == "disconnect":
        client.disconnect(3000, "x")
    else:
        client.unsubscribe(client.session.subscriptions["plain:a"], 2000, "x")

    assert node.polls.num_keys == 0
    await timers.advance(2)
    assert node.polls.num_channels == 0
    assert node.hub.num_subs == 0


async def test_expired_keys_are_dropped_in_silence(follow, clock, node):
    """After the signature's end and the grace, on the connection's tick."""
    follower = follow()
    follower.subscribe("plain:a")
    now = int(clock.now)
    follower.track("plain:a", {"a": 0}, expire_at=now + 10)
    follower.track("plain:a", {"b": 0})

    clock.now = now + 35
    follower.connection.client.maintain(clock.now)
    assert node.polls.num_keys == 2
    clock.now = now + 35.5
    follower.connection.client.maintain(clock.now)

    assert node.polls.num_keys == 1
    assert follower.pushes() == []


async def test_a_refreshed_signature_moves_the_end(follow, clock, node):
    """Tracking again is how the SDK does it; nobody is asked."""
    follower = follow()
    follower.subscribe("plain:a")
    now = int(clock.now)
    follower.track("plain:a", {"a": 0}, expire_at=now + 10)
    follower.track("plain:a", {"a": 0}, expire_at=now + 100)

    clock.now = now + 60
    follower.connection.client.maintain(clock.now)

    assert node.polls.num_keys == 1


async def test_a_broker_that_fails_leaves_nothing_behind(follow, node, application, timers):
    """100; the next request is as if there had been none."""
    follower = follow()
    follower.subscribe("versions:a")
    works = node.polls.feeds._broker.subscribe

    async def fails(channel):
        raise EngineError("away")

    node.polls.feeds._broker.subscribe = fails
    try:
        assert error_of(follower.track("versions:a", {"a": 0})) == 100
        assert node.polls.num_keys == 0
    finally:
        node.polls.feeds._broker.subscribe = works
    assert follower.track("versions:a", {"a": 0})["sub_refresh"] == {}


async def test_a_subscription_that_ends_while_the_broker_is_asked_is_refused(
    follow, node, application, timers
):
    """103, and its keys are let go."""
    follower = follow()
    follower.subscribe("versions:a")
    answered = asyncio.Event()

    async def waits(channel):
        await answered.wait()

    node.polls.feeds._broker.subscribe = waits
    assert follower.track("versions:a", {"a": 0}) is None
    client = follower.connection.client
    client.unsubscribe(client.session.subscriptions["versions:a"], 2000, "x")
    answered.set()
    await settle()

    messages = follower.connection.received()
    assert [each.get("error", {}).get("code") for each in messages] == [None, 103]
    assert node.polls.num_keys == 0


async def test_join_leave_and_presence_work(follow):
    """The channel itself is like any other."""
    first, second = follow(), follow()
    first.subscribe("met:a")
    second.subscribe("met:a")

    reply = first.send(presence={"channel": "met:a"})
    pushed = first.pushed
    second.send(unsubscribe={"channel": "met:a"})

    assert set(reply["presence"]["presence"]) == {"client-1", "client-2"}
    joined = [each["join"]["info"]["client"] for each in pushed if "join" in each]
    assert joined[-1:] == ["client-2"]
    left = [each for each in first.connection.received() if "leave" in each.get("push", {})]
    assert [each["push"]["leave"]["info"]["client"] for each in left] == ["client-2"]


async def test_the_secret_s_predecessor_is_taken(follow, node, clock):
    """While keys are changed."""
    follower = follow()
    follower.subscribe("plain:a")
    polls = type(node.options.shared_poll)(
        hmac_secret_key="new",
        hmac_previous_secret_key=KEY,
        hmac_previous_secret_key_valid_until=int(clock.now),
    )
    node.options = msgspec.structs.replace(node.options, shared_poll=polls)

    assert follower.track("plain:a", {"a": 0})["sub_refresh"] == {}
    clock.now += 1
    assert error_of(follower.track("plain:a", {"a": 0})) == 103
    assert follower.track("plain:a", {"a": 0}, secret="new")["sub_refresh"] == {}


async def test_server_side_subscriptions_can_track_nothing(follow, node):
    """They get joins and leaves, as with Centrifugo, which ends a client that tries."""
    follower = follow()
    await commands.subscribe(node, SubscribeRequest(user="", channel="met:a"))
    await settle()
    pushed = [each["push"] for each in follower.connection.received()]
    assert pushed[0] == {"channel": "met:a", "subscribe": {}}

    follower.track("met:a", {"a": 0})

    assert follower.connection.closed == (3501, "bad request")
    assert node.polls.num_channels == 0


async def test_subs_of_a_connect_leave_shared_polls_out(node, application, timers):
    """A unidirectional client has no way to track."""
    connection = Connection(node, "client-9")

    (reply, *_) = connection.send({"id": 1, "connect": {"subs": {"plain:a": {}}}})

    assert "subs" not in reply["connect"]


async def test_a_subscription_s_token_ends_it(follow, node, clock, options):
    """Expiry is told in the reply and looked after as for any channel; the token may come late."""
    token = jwt.encode(
        {"sub": "", "channel": "plain:a", "exp": int(clock.now) + 60}, SECRET, algorithm="HS256"
    )
    follower = follow()

    subscribed = follower.subscribe("plain:a", token=token)
    follower.track("plain:a", {"a": 0})
    clock.now += 100
    follower.connection.client.maintain(clock.now)

    assert (subscribed["expires"], subscribed["ttl"]) == (True, 60)
    (ended,) = follower.pushes()
    assert ended["unsubscribe"]["code"] == 2501
    assert node.polls.num_keys == 0
