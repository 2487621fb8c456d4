"""Who is let in: limits per node, user and connection, the trusted header, the personal channel."""

from __future__ import annotations

import asyncio

import jwt
import msgspec
import pytest

from realtime.protocol.errors import EngineError
from tests.unit.client.conftest import SECRET, Connection


def token(**claims):
    return jwt.encode(claims, SECRET, algorithm="HS256")


@pytest.fixture
def with_client(options):
    """Vary the ``client`` options."""

    def vary(**changes):
        return msgspec.structs.replace(
            options, client=msgspec.structs.replace(options.client, **changes)
        )

    return vary


async def test_a_user_has_so_many_connections(make_node, with_client):
    """One more ends with 3504; another user still comes in."""
    node = await make_node(with_client(user_connection_limit=1))
    first, second, other = (Connection(node, name) for name in ("1", "2", "3"))

    first.send({"id": 1, "connect": {"token": token(sub="u")}})
    second.send({"id": 1, "connect": {"token": token(sub="u")}})
    (reply,) = other.send({"id": 1, "connect": {"token": token(sub="v")}})

    assert first.closed is None
    assert second.closed == (3504, "connection limit")
    assert "connect" in reply


async def test_a_connection_has_so_many_channels(make_node, with_client):
    """Client-side and server-side subscriptions count together."""
    node = await make_node(with_client(channel_limit=2))
    connection, crowded = Connection(node, "1"), Connection(node, "2")
    connection.send({"id": 1, "connect": {"token": token(sub="u", channels=["a"])}})

    (second,) = connection.send({"id": 2, "subscribe": {"channel": "b"}})
    (third,) = connection.send({"id": 3, "subscribe": {"channel": "c"}})
    crowded.send({"id": 1, "connect": {"token": token(sub="u", channels=["a", "b", "c"])}})

    assert "subscribe" in second
    assert third["error"]["code"] == 106
    assert crowded.closed == (3505, "channel limit")


async def test_a_node_admits_so_many_connections(make_node, with_client, clock):
    """The limit counts open ones, the rate the ones of this second."""
    node = await make_node(with_client(connection_limit=2, connection_rate_limit=3))
    assert node.admit()
    one, _two = Connection(node, "1"), Connection(node, "2")

    assert not node.admit()
    one.client.on_close(1006)
    assert node.admit()
    assert node.admit()
    assert not node.admit()
    clock.now += 1
    assert node.admit()


async def test_the_trusted_header_names_the_user(make_node, with_client):
    """It ranks above anonymous, below a token, and brings the personal channel like any user."""
    personal = msgspec.structs.replace(
        with_client().client.subscribe_to_user_personal_channel, enabled=True
    )
    options = with_client(user_id_http_header="X-User", subscribe_to_user_personal_channel=personal)
    node = await make_node(options)

    by_header = Connection(node, "1", user_header="h")
    (reply,) = by_header.send({"id": 1, "connect": {}})
    by_token = Connection(node, "2", user_header="h")
    by_token.send({"id": 1, "connect": {"token": token(sub="t")}})

    assert list(reply["connect"]["subs"]) == ["#h"]
    assert by_header.client.session.user == "h"
    assert by_token.client.session.user == "t"


async def test_single_connection_ends_the_users_others(make_node, with_client):
    """The newest connection stays, the older gets 3504."""
    personal = msgspec.structs.replace(
        with_client().client.subscribe_to_user_personal_channel,
        enabled=True,
        single_connection=True,
        personal_channel_namespace="jl",
    )
    node = await make_node(with_client(subscribe_to_user_personal_channel=personal))
    old, new = Connection(node, "old"), Connection(node, "new")
    old.send({"id": 1, "connect": {"token": token(sub="u")}})

    new.send({"id": 1, "connect": {"token": token(sub="u")}})

    assert old.closed == (3504, "connection limit")
    assert new.closed is None


async def test_insecure_mode_lets_in_and_through_but_not_into_private_channels(
    make_node, with_client
):
    """A token that is sent is verified all the same."""
    node = await make_node(with_client(insecure=True, allow_anonymous_connect_without_token=False))
    connection, liar = Connection(node, "1"), Connection(node, "2")
    connection.send({"id": 1, "connect": {}})

    (allowed,) = connection.send({"id": 2, "subscribe": {"channel": "user:x"}})
    (private,) = connection.send({"id": 3, "subscribe": {"channel": "$p"}})
    liar.send({"id": 1, "connect": {"token": "garbage"}})

    assert "subscribe" in allowed
    assert private["error"]["code"] == 103
    assert liar.closed == (3500, "invalid token")


async def test_without_credentials_nobody_comes_in(make_node, with_client):
    """Neither token nor header nor permission for anonymous ones: 3501."""
    node = await make_node(with_client(allow_anonymous_connect_without_token=False))
    connection = Connection(node, "1")

    connection.send({"id": 1, "connect": {}})

    assert connection.closed == (3501, "bad request")


async def test_connect_subs_are_wishes(connect, node):
    """What is allowed is granted, what is not is left out, an unknown namespace ends the connection."""
    connection, wrong = Connection(node, "1"), Connection(node, "2")

    (reply,) = connection.send(
        {"id": 1, "connect": {"subs": {"hist:a": {}, "user:x": {}, "$p": {}}}}
    )
    wrong.send({"id": 1, "connect": {"subs": {"nope:a": {}}}})

    assert list(reply["connect"]["subs"]) == ["hist:a"]
    assert wrong.closed == (3501, "bad request")


async def test_a_connect_that_fails_in_part_leaves_nothing_behind(node, monkeypatch):
    """With a broker that takes its time: the others have ended before all is rolled back."""
    joined = node.broker.subscribe

    async def subscribe(channel):
        await asyncio.sleep(0 if channel == "bad" else 0.01)
        if channel == "bad":
            raise EngineError("down")
        await joined(channel)

    monkeypatch.setattr(node.broker, "is_reliable", False, raising=False)
    monkeypatch.setattr(node.broker, "subscribe", subscribe)
    connection = Connection(node, "1")

    connection.send_raw(
        msgspec.json.encode(
            {"id": 1, "connect": {"token": token(sub="u", channels=["a", "bad", "jl:a"])}}
        )
    )
    await asyncio.wait([connection.client._task], timeout=30)
    await asyncio.sleep(0.02)  # longer than the slowest join takes, had it gone on

    assert connection.closed == (3004, "internal server error")
    assert (node.hub.num_channels, len(node.hub.clients)) == (0, 0)
    assert not await node.presence.presence("jl:a")
