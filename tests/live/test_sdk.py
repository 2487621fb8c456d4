"""
What an application does, with SDKs that were not written here.

Every test runs with the npm package ``centrifuge``, the PyPI package ``centrifuge-python`` and the Go module
``centrifuge-go``, each in JSON and in Protobuf, against both servers.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping

import pytest

from tests.live.conftest import MakeSdk
from tests.live.harness import SdkError, Server, make_token


pytestmark = pytest.mark.live

_numbers = itertools.count()


@pytest.fixture
def name(sdk_kind: str, shape: str) -> str:
    """Give a name that no other test uses: servers are shared."""
    return f"{sdk_kind}-{shape}-{next(_numbers)}"


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.time()))


async def _publish(server: Server, channel: str, data: object, **parameters: object) -> None:
    await asyncio.to_thread(server.publish, channel, data, **parameters)


async def test_publication_from_the_api_arrives(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """A subscriber gets what the backend publishes, with tags, in order."""
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(name)

    await _publish(server, name, {"text": "h\xe9"}, tags={"t": "1"})
    await _publish(server, name, [1, 2.5, None, True])

    first = await client.wait("publication", channel=name)
    second = await client.wait("publication", channel=name)
    assert first["data"] == {"text": "h\xe9"}
    assert first["tags"] == {"t": "1"}
    assert first["info"] is None
    assert second["data"] == [1, 2.5, None, True]


async def test_publication_from_a_client_arrives_with_its_author(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """A subscriber publishes: the others see who did, and the publisher gets its own too."""
    channel = f"room:{name}"
    author, reader = await make_sdk(server), await make_sdk(server)
    identity = await author.connect(token=make_token("ann", info={"name": "Ann"}))
    await reader.connect(token=make_token("bob"))
    for client in (author, reader):
        await client.subscribe(channel)

    await author.do("publish", channel=channel, data={"hello": 1})

    for client in (author, reader):
        event = await client.wait("publication", channel=channel)
        assert event["data"] == {"hello": 1}
        assert event["info"]["user"] == "ann"
        assert event["info"]["client"] == identity["client"]
        assert event["info"]["conn_info"] == {"name": "Ann"}


async def test_presence_join_and_leave(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """Who is there is told on request, and who comes and goes as it happens."""
    channel = f"room:{name}"
    first, second = await make_sdk(server), await make_sdk(server)
    one = await first.connect(token=make_token("ann", info={"name": "Ann"}))
    two = await second.connect(token=make_token("bob"))
    await first.subscribe(channel)
    await second.subscribe(channel)

    join = await first.wait("join", channel=channel)
    while join["info"]["client"] != two["client"]:
        join = await first.wait("join", channel=channel)
    assert join["info"]["user"] == "bob"
    presence = await first.do("presence", channel=channel)
    assert set(presence) == {one["client"], two["client"]}
    assert presence[one["client"]]["user"] == "ann"
    assert presence[one["client"]]["conn_info"] == {"name": "Ann"}
    assert await second.do("presence_stats", channel=channel) == {
        "num_clients": 2,
        "num_users": 2,
    }

    await second.do("unsubscribe", channel=channel)
    await second.wait("unsubscribed", channel=channel)

    leave = await first.wait("leave", channel=channel)
    assert leave["info"]["client"] == two["client"]
    assert set(await first.do("presence", channel=channel)) == {one["client"]}


async def test_leave_of_a_client_that_vanishes(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """A socket that ends without a word is a leave as well."""
    channel = f"room:{name}"
    first, second = await make_sdk(server), await make_sdk(server)
    await first.connect()
    two = await second.connect()
    await first.subscribe(channel)
    await second.subscribe(channel)

    await second.do("kill")

    leave = await first.wait("leave", channel=channel)
    assert leave["info"]["client"] == two["client"]


async def test_history(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """History is read forwards, backwards, from a position and in part."""
    channel = f"hist:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel)
    for number in range(1, 6):
        await _publish(server, channel, {"n": number})

    def numbers(history: dict) -> list[int]:
        return [publication["data"]["n"] for publication in history["publications"]]

    top = await client.do("history", channel=channel)
    assert numbers(top) == []
    assert top["offset"] == 5
    assert top["epoch"]
    assert numbers(await client.do("history", channel=channel, limit=-1)) == [1, 2, 3, 4, 5]
    assert numbers(await client.do("history", channel=channel, limit=2)) == [1, 2]
    assert numbers(await client.do("history", channel=channel, limit=2, reverse=True)) == [5, 4]
    since = {"offset": 2, "epoch": top["epoch"]}
    assert numbers(await client.do("history", channel=channel, limit=2, since=since)) == [3, 4]
    with pytest.raises(SdkError) as refusal:
        await client.do("history", channel=channel, limit=1, since={"offset": 2, "epoch": "other"})
    assert refusal.value.code == 112


async def test_nothing_is_missing_and_nothing_comes_twice_after_a_killed_connection(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """A connection is cut again and again while the backend publishes: offsets still rise by one."""
    channel = f"hist:{name}"
    client = await make_sdk(server)
    await client.connect()
    assert (await client.subscribe(channel))["recoverable"] is True

    async def publish_all() -> None:
        for number in range(1, 61):
            await _publish(server, channel, {"n": number})
            await asyncio.sleep(0.01)

    publishing = asyncio.create_task(publish_all())
    for cut in range(3):
        await client.wait("publication", channel=channel, offset=5 + 15 * cut)
        await client.do("kill")
        await client.wait("connected")
        again = await client.wait("subscribed", channel=channel)
        assert again["was_recovering"] is True
        assert again["recovered"] is True
    await publishing
    await client.wait("publication", channel=channel, offset=60)

    seen = client.seen("publication", channel=channel)
    assert [event["offset"] for event in seen] == list(range(1, 61))
    assert [event["data"]["n"] for event in seen] == list(range(1, 61))


async def test_recovery_says_when_it_failed(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """What fell out of history can't be recovered: the subscriber is told, and goes on from the top."""
    channel = f"hist:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel)
    await _publish(server, channel, 0)
    await client.wait("publication", channel=channel, offset=1)
    await client.do("disconnect")
    await client.wait("disconnected")
    for number in range(1, 120):
        await _publish(server, channel, number)

    await client.do("connect_again")

    again = await client.wait("subscribed", channel=channel)
    assert again["was_recovering"] is True
    assert again["recovered"] is False
    assert client.seen("publication", channel=channel)[1:] == []
    await _publish(server, channel, "live")
    live = await client.wait("publication", channel=channel, offset=121)
    assert live["data"] == "live"


async def test_recovery_in_cache_mode_brings_the_latest(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """In cache mode a new subscriber starts with the latest publication."""
    channel = f"cache:{name}"
    for number in range(3):
        await _publish(server, channel, number)
    client = await make_sdk(server)
    await client.connect()

    await client.subscribe(channel, recoverable=True)
    await client.do("kill")
    await _publish(server, channel, "missed")
    await _publish(server, channel, "latest")

    event = await client.wait("publication", channel=channel, data="latest")
    assert event["offset"] == 5


async def test_expired_connection_token_is_replaced(server: Server, make_sdk: MakeSdk) -> None:
    """A connect with an expired token is refused with 109, and the SDK fetches another."""
    client = await make_sdk(server)
    await client.do("connect", token=make_token("ann", lifetime=-60), get_token=True)
    await client.wait("get_token", kind="connection")

    await client.do("token", token=make_token("ann", lifetime=600))

    await client.wait("connected")


async def test_connection_is_refreshed_before_its_token_expires(
    make_server: Callable[[Mapping[str, str]], Server], make_sdk: MakeSdk, name: str
) -> None:
    """The SDK refreshes in time, so the connection outlives its first token."""
    server = await asyncio.to_thread(make_server, {"TIDEWIRE_CLIENT_EXPIRED_CLOSE_DELAY": "1s"})
    client = await make_sdk(server)
    first_end = time.time() + 2
    await client.do("connect", token=make_token("ann", lifetime=2), get_token=True)
    # On a slow machine the token may have expired before it is shown.
    await client.wait("get_token", kind="connection")

    await client.do("token", token=make_token("ann", lifetime=600))
    await client.wait("connected")
    await client.subscribe(f"room:{name}")
    await _until(
        first_end + 1.5
    )  # a connection not refreshed is closed one second after its token's end

    assert await client.do("presence_stats", channel=f"room:{name}") == {
        "num_clients": 1,
        "num_users": 1,
    }
    assert client.seen("disconnected") == []
    assert len(client.seen("connected")) == 1


async def test_invalid_connection_token_is_the_end(server: Server, make_sdk: MakeSdk) -> None:
    """A forged token closes with 3500: the SDK does not come back."""
    client = await make_sdk(server)
    await client.do("connect", token=make_token("ann")[:-4] + "AAAA", get_token=True)

    event = await client.wait("disconnected")

    assert (event["code"], event["reason"]) == (3500, "invalid token")


async def test_private_channel_needs_a_token(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """A channel of the private prefix takes subscribers with a token for it, and no others."""
    channel = f"${name}"
    client = await make_sdk(server)
    await client.connect(token=make_token("ann"))
    token = make_token("ann", channel=channel)
    assert (await client.subscribe(channel, token=token))["channel"] == channel
    await _publish(server, channel, "secret")
    assert (await client.wait("publication", channel=channel))["data"] == "secret"

    await client.do("subscribe", channel=f"{channel}2")

    event = await client.wait("unsubscribed", channel=f"{channel}2")
    assert (event["code"], event["reason"]) == (103, "permission denied")


async def test_expired_subscription_token_is_replaced(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """A subscribe with an expired token is refused with 109, and the SDK fetches another."""
    channel = f"${name}"
    client = await make_sdk(server)
    await client.connect(token=make_token("ann"))
    expired = make_token("ann", channel=channel, lifetime=-60)
    await client.do("subscribe", channel=channel, token=expired, get_token=True)
    await client.wait("get_token", kind="subscription", channel=channel)

    await client.do("token", token=make_token("ann", channel=channel, lifetime=600))

    await client.wait("subscribed", channel=channel)


async def test_subscription_is_refreshed_before_its_token_expires(
    make_server: Callable[[Mapping[str, str]], Server], make_sdk: MakeSdk, name: str
) -> None:
    """The SDK refreshes in time; a subscription that is not refreshed ends and starts again."""
    server = await asyncio.to_thread(
        make_server,
        {
            "TIDEWIRE_CLIENT_EXPIRED_SUB_CLOSE_DELAY": "1s",
            # Expiry is looked after in the presence tick.
            "TIDEWIRE_CLIENT_PRESENCE_UPDATE_INTERVAL": "1s",
        },
    )
    channel = f"${name}"
    client = await make_sdk(server)
    await client.connect(token=make_token("ann"))
    first_end = time.time() + 2
    token = make_token("ann", channel=channel, lifetime=2)
    await client.do("subscribe", channel=channel, token=token, get_token=True)
    await client.wait("get_token", kind="subscription", channel=channel)

    await client.do("token", token=make_token("ann", channel=channel, lifetime=600))
    await client.wait("subscribed", channel=channel)
    await _until(first_end + 3)  # one second of grace, and one from tick to tick
    await _publish(server, channel, "still here")

    event = await client.wait("publication", channel=channel)
    assert event["data"] == "still here"
    assert len(client.seen("subscribed", channel=channel)) == 1


@pytest.mark.parametrize(
    ("channel", "code"),
    [("closed:a", 103), ("nope:a", 102), ("users:#someone-else", 103), ("a" * 256, 107)],
    ids=["not allowed", "unknown", "another user's", "too long"],
)
async def test_subscription_that_is_refused(
    server: Server, make_sdk: MakeSdk, channel: str, code: int
) -> None:
    """A refused subscription ends with the server's code."""
    client = await make_sdk(server)
    await client.connect(token=make_token("ann"))

    await client.do("subscribe", channel=channel)

    assert (await client.wait("unsubscribed", channel=channel))["code"] == code


async def test_operations_that_are_refused(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """Publish, presence, history and RPC fail with the code that says why."""
    client = await make_sdk(server)
    await client.connect(token=make_token("ann"))
    await client.subscribe(f"hist:{name}")
    await client.subscribe(f"room:{name}")

    async def code(op: str, **arguments: object) -> int:
        with pytest.raises(SdkError) as refusal:
            await client.do(op, **arguments)
        return refusal.value.code

    assert await code("publish", channel=f"hist:{name}", data=1) == 103
    assert await code("publish", channel=f"room:{name}-other", data=1) == 103
    assert await code("publish", channel="nope:a", data=1) == 102
    assert await code("presence", channel=f"hist:{name}") == 108
    assert await code("presence_stats", channel=f"room:{name}-other") == 103
    assert await code("history", channel=f"room:{name}", limit=1) == 108
    assert await code("rpc", method="anything", data={}) == 108
    # Nothing of that ended the connection.
    await client.do("publish", channel=f"room:{name}", data="fine")
    assert client.seen("disconnected") == []


async def test_channel_of_a_user(server: Server, make_sdk: MakeSdk) -> None:
    """A user-limited channel takes the users it names."""
    client = await make_sdk(server)
    await client.connect(token=make_token("ann"))

    await client.subscribe("users:room#ann,bob")

    await _publish(server, "users:room#ann,bob", 1)
    await client.wait("publication", channel="users:room#ann,bob")


async def test_server_side_subscription_by_token(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """Channels of the token are subscribed at connect, and recovered after a cut like others."""
    channel = f"hist:{name}"
    client = await make_sdk(server)
    await client.connect(token=make_token("ann", channels=[channel]))
    assert (await client.wait("server_subscribed", channel=channel))["recoverable"] is True
    await _publish(server, channel, 1)
    await client.wait("server_publication", channel=channel, offset=1)

    await client.do("kill")
    await _publish(server, channel, 2)
    await _publish(server, channel, 3)

    await client.wait("server_publication", channel=channel, offset=3)
    offsets = [event["offset"] for event in client.seen("server_publication", channel=channel)]
    assert offsets == [1, 2, 3]


async def test_server_side_subscription_by_the_api(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """The backend subscribes a user's connections, publishes, and unsubscribes them."""
    user, channel = f"user-{name}", f"closed:{name}"
    client = await make_sdk(server)
    await client.connect(token=make_token(user))

    await asyncio.to_thread(
        server.call, "subscribe", user=user, channel=channel, data={"why": "api"}
    )
    event = await client.wait("server_subscribed", channel=channel)
    assert event["data"] == {"why": "api"}
    await _publish(server, channel, "for you")
    assert (await client.wait("server_publication", channel=channel))["data"] == "for you"
    await asyncio.to_thread(server.call, "unsubscribe", user=user, channel=channel)

    await client.wait("server_unsubscribed", channel=channel)


async def test_personal_channel(
    make_server: Callable[[Mapping[str, str]], Server], make_sdk: MakeSdk
) -> None:
    """With the option on, every user is subscribed to a channel of their own."""
    server = await asyncio.to_thread(
        make_server,
        {
            "TIDEWIRE_CLIENT_SUBSCRIBE_TO_USER_PERSONAL_CHANNEL_ENABLED": "true",
            "TIDEWIRE_CLIENT_SUBSCRIBE_TO_USER_PERSONAL_CHANNEL_PERSONAL_CHANNEL_NAMESPACE": (
                "personal"
            ),
        },
    )
    ann, bob = await make_sdk(server), await make_sdk(server)
    await ann.connect(token=make_token("ann"))
    await bob.connect(token=make_token("bob"))
    await ann.wait("server_subscribed", channel="personal:#ann")

    await _publish(server, "personal:#ann", "private")

    event = await ann.wait("server_publication", channel="personal:#ann")
    assert event["data"] == "private"
    assert bob.seen("server_publication") == []


async def test_api_unsubscribe_is_final(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """The backend ends a client's subscription: the SDK does not subscribe again."""
    user, channel = f"user-{name}", f"room:{name}"
    client = await make_sdk(server)
    await client.connect(token=make_token(user))
    await client.subscribe(channel)

    await asyncio.to_thread(server.call, "unsubscribe", user=user, channel=channel)

    event = await client.wait("unsubscribed", channel=channel)
    assert (event["code"], event["reason"]) == (2000, "server unsubscribe")


async def test_api_disconnect_is_final(server: Server, make_sdk: MakeSdk, name: str) -> None:
    """The backend disconnects a user with 3503: the SDK does not come back."""
    user = f"user-{name}"
    client = await make_sdk(server)
    await client.connect(token=make_token(user))

    await asyncio.to_thread(server.call, "disconnect", user=user)

    event = await client.wait("disconnected")
    assert (event["code"], event["reason"]) == (3503, "force disconnect")


async def test_api_disconnect_with_a_code_that_lets_come_back(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """A code of the application between 4000 and 4499 makes the SDK connect again."""
    user = f"user-{name}"
    client = await make_sdk(server)
    first = await client.connect(token=make_token(user))

    await asyncio.to_thread(
        server.call, "disconnect", user=user, disconnect={"code": 4001, "reason": "move on"}
    )

    # The first "connecting" was that of connect itself.
    event = await client.wait("connecting", code=4001)
    assert event["reason"] == "move on"
    assert (await client.wait("connected"))["client"] != first["client"]


async def test_shutdown_lets_come_back_and_nothing_is_lost_meanwhile(
    make_server: Callable[[Mapping[str, str]], Server], make_sdk: MakeSdk, name: str
) -> None:
    """SIGTERM disconnects with 3001, on which the SDK tries again and finds the next server."""
    server = await asyncio.to_thread(make_server, {})
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(name)

    assert await asyncio.to_thread(server.stop) == 0
    event = await client.wait("connecting", code=3001)
    assert event["reason"] == "shutdown"
    await asyncio.to_thread(server.start)

    await client.wait("connected")
    await client.wait("subscribed", channel=name)
    await _publish(server, name, "again")
    assert (await client.wait("publication", channel=name))["data"] == "again"
