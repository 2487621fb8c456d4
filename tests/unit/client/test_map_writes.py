"""What clients write to maps, and who is put down in maps of who is there."""

from __future__ import annotations

import asyncio

import jwt
import pytest
from msgspec import Raw
from msgspec.structs import replace

from realtime.engines.maps import EVERYTHING, PLAIN_CHANGE, StateFilter
from realtime.namespaces.options import ChannelOptions, MapOptions
from realtime.namespaces.table import NamespaceTable
from realtime.node.control import SubscribeUser, UnsubscribeUser
from realtime.protocol.errors import EngineError
from realtime.protocol.messages import Publication
from tests.unit.client.conftest import NAMESPACES, OPEN, SECRET, Connection
from tests.unit.client.map_readers import MapReader, put


PERSISTENT = MapOptions(mode="persistent")


def token(**claims):
    return jwt.encode(claims, SECRET, algorithm="HS256")


async def settle():
    """Let what was begun in the background end."""
    for _ in range(3):
        await asyncio.sleep(0)


async def entries(node, channel):
    """The map's publications by key."""
    await settle()
    rules = node.table.resolve(channel).map_rules
    page = await node.maps.read_state(channel, rules, StateFilter(limit=EVERYTHING))
    return {each.publication.key: each.publication for each in page.entries}


def allow(node, **options):
    """Give a node one namespace of maps, ``map``, and nothing else."""
    maps = MapOptions(mode="persistent", **options.pop("map", {}))
    made = ChannelOptions(
        subscription_type="map",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        map=maps,
        **options,
    )
    node.table = NamespaceTable(OPEN, {"map": made, "hist": NAMESPACES["hist"]})


def write(connection, **request):
    """Send a write and return its outcome, ``"ok"`` or an error's code."""
    asked = {"channel": "map:a", "type": 1, "key": "k", "data": {}} | request
    replies = connection.send({"id": 9, "publish": asked})
    (reply,) = [each for each in replies if each.get("id") == 9]
    assert "error" in reply or reply["publish"] == {}
    return reply["error"]["code"] if "error" in reply else "ok"


# --- writes -------------------------------------------------------------------------------------------


async def test_a_client_writes_and_removes_keys(node, connect):
    """Subscribers get them, with who wrote; removing what is not there is no error."""
    allow(
        node,
        map={
            "allow_publish_for_client": True,
            "allow_publish_for_anonymous": True,
            "allow_remove_for_client": True,
            "allow_remove_for_anonymous": True,
        },
    )
    connection = connect()
    reader = MapReader(node, "map:a")
    reader.come()

    assert write(connection, data={"a": 1}) == "ok"
    assert write(connection, key="empty", data=None) == "ok"
    assert write(connection, removed=True) == "ok"
    assert write(connection, removed=True) == "ok"

    reader.read()
    client_id = connection.client.session.client_id
    info = {"user": "", "client": client_id}
    assert reader.pushes == [
        {"key": "k", "data": {"a": 1}, "offset": 1, "epoch": reader.epoch, "info": info},
        {"key": "empty", "data": None, "offset": 2, "info": info},
        {"key": "k", "removed": True, "offset": 3},
    ]


FLAGS = [
    # flags, user, subscribed -> publish or remove
    ({}, "u", True, 103),
    ({"client"}, "u", False, "ok"),
    ({"client"}, "", False, 103),
    ({"client", "anonymous"}, "", False, "ok"),
    ({"subscriber"}, "u", False, 103),
    ({"subscriber"}, "u", True, "ok"),
    ({"subscriber"}, "", True, 103),
    ({"subscriber", "anonymous"}, "", True, "ok"),
    ({"anonymous"}, "", True, 103),
]


@pytest.mark.parametrize("removed", [False, True], ids=["publish", "remove"])
@pytest.mark.parametrize(("flags", "user", "is_subscribed", "outcome"), FLAGS)
async def test_who_may_write(node, connect, removed, flags, user, is_subscribed, outcome):
    """The flags of one verb say nothing of the other."""
    verbs = ("remove", "publish") if removed else ("publish", "remove")
    allow(node, map={f"allow_{verbs[0]}_for_{who}": True for who in flags})
    connection = connect(token(sub=user) if user else "")
    if is_subscribed:
        connection.send({"id": 2, "subscribe": {"channel": "map:a", "type": 1, "phase": 2}})

    assert write(connection, removed=removed) == outcome
    assert write(connection, removed=not removed) == 103


async def test_insecure_mode_lets_everybody_write(make_node, options):
    """As it does with streams; a key that is the user's needs a user even so."""
    node = await make_node(replace(options, client=replace(options.client, insecure=True)))
    allow(node, map={"client_key": "user_id"})
    node_table = node.table
    connection = Connection(node, "c")
    connection.send({"id": 1, "connect": {}})
    assert write(connection) == 103
    allow(node)

    assert write(connection) == "ok"
    assert node_table is not node.table


@pytest.mark.parametrize(
    ("rule", "user", "key"),
    [("", "u", "k"), ("client_id", "u", "client-1"), ("user_id", "u", "u"), ("user_id", "", None)],
)
@pytest.mark.parametrize("removed", [False, True], ids=["publish", "remove"])
async def test_whose_key_it_is(node, connect, rule, user, key, removed):
    """What the client asks for counts only where the namespace sets no key."""
    verb = "remove" if removed else "publish"
    flags = {f"allow_{verb}_for_{who}": True for who in ("client", "anonymous")}
    allow(node, map={"client_key": rule, **flags})
    connection = connect(token(sub=user) if user else "")
    for each in ("k", "client-1", "u"):
        if removed:
            await put(node, "map:a", each, 1)
    before = set(await entries(node, "map:a"))

    outcome = write(connection, removed=removed)

    assert outcome == (103 if key is None else "ok")
    assert set(await entries(node, "map:a")) ^ before == ({key} if key else set())


@pytest.mark.parametrize(
    ("namespace", "request_", "code"),
    [
        ({}, {"key": ""}, 107),
        ({}, {"key": "", "removed": True}, 107),
        ({}, {"channel": "hist:a"}, 103),
        ({}, {"channel": "nowhere:a"}, 102),
        ({}, {"channel": "map:ä"}, 107),
        ({}, {"type": 0}, 107),
        ({}, {"type": 2}, 107),
        ({"publication_data_format": "json_object"}, {"data": 1}, 107),
        ({"publication_data_format": "json"}, {"data": None}, "ok"),
        ({"publication_data_format": "json_object"}, {"data": {}}, "ok"),
        ({"publication_data_format": "json_object"}, {"removed": True, "data": 1}, "ok"),
        ({"map": {"publish_proxy_enabled": True}}, {}, 108),
        ({"map": {"publish_proxy_enabled": True}}, {"removed": True}, "ok"),
        ({"map": {"remove_proxy_enabled": True}}, {"removed": True}, 108),
        ({"map": {"remove_proxy_enabled": True}}, {}, "ok"),
    ],
)
async def test_what_is_refused(node, connect, namespace, request_, code):
    """A stream's publish is no way into a map, and a namespace's format holds for what is written."""
    everybody = {
        f"allow_{verb}_for_{who}": True
        for verb in ("publish", "remove")
        for who in ("client", "anonymous")
    }
    allow(
        node,
        **namespace | {"map": everybody | namespace.get("map", {})},
        allow_publish_for_client=True,
        allow_publish_for_anonymous=True,
    )
    connection = connect()

    assert write(connection, **request_) == code


async def test_a_channel_without_a_name_ends_the_connection(node, connect):
    """As everywhere."""
    connection = connect()

    connection.send({"id": 9, "publish": {"channel": "", "type": 1, "key": "k"}})

    assert connection.closed == (3501, "bad request")


# --- maps of who is there -----------------------------------------------------------------------------


async def test_who_subscribes_is_put_down_by_connection_and_by_user(node, connect):
    """A connection with its info, a user by name alone; watchers are told, and anonymous ones are no users."""
    watcher = MapReader(node, "clients:watched:a", type=2)
    users = MapReader(node, "users:watched:a", type=3)
    assert "error" not in watcher.come()
    users.come()
    one = connect(token(sub="u", info={"n": 1}))
    nobody = connect()
    for each in (one, nobody):
        each.send({"id": 2, "subscribe": {"channel": "watched:a"}})

    await settle()
    watcher.read()
    users.read()

    info = {"user": "u", "client": one.client.session.client_id, "conn_info": {"n": 1}}
    assert watcher.pushes[0] == {"key": info["client"], "info": info}
    assert set(watcher.values) == {each.client.session.client_id for each in (one, nobody)}
    assert users.pushes == [{"key": "u", "offset": 1, "epoch": users.epoch}]


async def test_a_connection_goes_with_its_subscription_and_a_user_with_time(node, clock, connect):
    """By unsubscribe, by disconnect, and for users by the time of their key."""
    watcher = MapReader(node, "clients:watched:a", type=2)
    users = MapReader(node, "users:watched:a", type=3)
    watcher.come()
    users.come()
    leaving, dropping = connect(token(sub="u")), connect(token(sub="v"))
    for each in (leaving, dropping):
        each.send({"id": 2, "subscribe": {"channel": "watched:a"}})
    await settle()

    leaving.send({"id": 3, "unsubscribe": {"channel": "watched:a"}})
    dropping.client.on_close()

    await settle()
    watcher.read()
    users.read()
    assert watcher.values == {}
    assert [each.get("removed", False) for each in watcher.pushes] == [False, False, True, True]
    assert set(users.values) == {"u", "v"}
    clock.now += 61
    node.maps.sweep(clock.now)
    await settle()
    users.read()
    assert users.values == {}


async def test_who_stays_is_prolonged_on_the_connections_tick(node, clock, connect):
    """Without a change that anybody is told; who is gone without a word runs out."""
    users = MapReader(node, "users:watched:a", type=3)
    users.come()
    staying = connect(token(sub="u"))
    staying.send({"id": 2, "subscribe": {"channel": "watched:a"}})
    await settle()
    users.read()
    for _ in range(4):
        clock.now += 27
        staying.client.maintain(clock.now)
        await settle()
        node.maps.sweep(clock.now)

    assert set(await entries(node, "users:watched:a")) == {"u"}
    assert set(await entries(node, "clients:watched:a")) == {staying.client.session.client_id}
    await settle()
    users.read()
    assert len(users.pushes) == 1
    clock.now += 61
    node.maps.sweep(clock.now)
    assert not await entries(node, "clients:watched:a")


@pytest.mark.parametrize("way", ["token", "connection token", "server api", "map"])
async def test_it_is_so_by_whatever_right_the_subscription_exists(node, connect, way):
    """The namespace's settings are not lost on the way of a token or of the server's own subscriptions."""
    name = "$watched:a" if way == "token" else "watched:a"
    if way == "map":
        both = replace(
            NAMESPACES["board"],
            map_clients_presence_channel_prefix="clients:",
            map_users_presence_channel_prefix="users:",
        )
        node.table = NamespaceTable(OPEN, {**NAMESPACES, "watched": both})
    connection = connect(
        token(sub="u", **({"subs": {name: {}}} if way == "connection token" else {}))
    )
    match way:
        case "token":
            granted = token(sub="u", channel=name)
            connection.send({"id": 2, "subscribe": {"channel": name, "token": granted}})
        case "server api":
            await connection.client.subscribe_from_server(SubscribeUser(user="u", channel=name))
        case "map":
            connection.send({"id": 2, "subscribe": {"channel": name, "type": 1, "phase": 2}})

    client_id = connection.client.session.client_id
    assert set(await entries(node, f"clients:{name}")) == {client_id}
    assert set(await entries(node, f"users:{name}")) == {"u"}

    await node.control(UnsubscribeUser(user="u", channel=name))

    assert not await entries(node, f"clients:{name}")


async def test_who_is_still_loading_is_not_put_down(node, connect):
    """Only who is subscribed; one that gives up leaves nothing."""
    paged = replace(NAMESPACES["board"], map_clients_presence_channel_prefix="clients:")
    node.table = NamespaceTable(OPEN, {**NAMESPACES, "watched": paged})
    for number in range(5):
        await put(node, "watched:a", f"k{number}", number)
    reader = MapReader(node, "watched:a")
    reader.connect()
    reader.ask(phase=2)
    assert not await entries(node, "clients:watched:a")

    reader.drop()

    assert not await entries(node, "clients:watched:a")


async def test_a_clients_own_key_goes_with_its_subscription(node):
    """``remove_client_on_unsubscribe``: others are told; keys of others stay."""
    reader, other = MapReader(node, "own:a"), MapReader(node, "own:a")
    reader.come()
    other.come()
    for each in (reader, other):
        each.send({"id": 9, "publish": {"channel": "own:a", "type": 1, "data": 1}})

    reader.drop()

    await settle()
    other.read()
    client_id = reader.connection.client.session.client_id
    assert other.pushes[-1] == {"key": client_id, "removed": True, "offset": 3}
    assert set(other.values) == {other.connection.client.session.client_id}


async def test_one_that_ends_by_a_publication_takes_its_key_out_afterwards(node):
    """A JSON client that can't take a value: others get that value first, and then that it went."""
    ending = MapReader(node, "own:a")
    others = [MapReader(node, "own:a", is_json=False) for _ in range(2)]
    for each in (ending, *others):
        each.come()
    ending.send({"id": 9, "publish": {"channel": "own:a", "type": 1, "data": 1}})
    others[1].pause()

    await put(node, "own:a", "x", b"\xff")
    await settle()

    client_id = ending.connection.client.session.client_id
    for each in others:
        each.read()
        assert [(push["key"], push["offset"]) for push in each.pushes] == [
            (client_id, 1),
            ("x", 2),
            (client_id, 3),
        ]


async def test_failures_are_logged_and_nothing_else(node, connect, monkeypatch, caplog):
    """A store that is away, and a namespace that is gone: the subscription begins and ends as ever."""

    async def fail(*arguments):
        raise EngineError("away")

    monkeypatch.setattr(node.maps, "publish", fail)
    monkeypatch.setattr(node.maps, "remove", fail)
    connection = connect(token(sub="u"))
    (reply,) = connection.send({"id": 2, "subscribe": {"channel": "watched:a"}})
    await settle()
    connection.client.maintain(node.clock())
    await settle()
    node.table = NamespaceTable(OPEN, {"watched": NAMESPACES["watched"]})
    connection.client.maintain(node.clock())
    await settle()
    (left,) = connection.send({"id": 3, "unsubscribe": {"channel": "watched:a"}})

    await settle()
    assert reply == {"id": 2, "subscribe": {}}
    assert left == {"id": 3, "unsubscribe": {}}
    messages = {record.message for record in caplog.records}
    assert messages == {"a map's key was not kept", "there is no such map"}


# --- subscriptions that the server makes --------------------------------------------------------------


@pytest.mark.parametrize("way", ["connection token", "server api"])
async def test_one_that_the_server_subscribes_is_told_what_changes(node, connect, way):
    """As with Centrifugo: without state and positions, whatever the map's mode."""
    await put(node, "board:a", "k", 1)
    connection = connect(
        token(sub="u", **({"subs": {"board:a": {}}} if way == "connection token" else {}))
    )
    if way == "server api":
        await connection.client.subscribe_from_server(SubscribeUser(user="u", channel="board:a"))
        (push,) = connection.received()
        assert push["push"]["subscribe"] == {}

    await put(node, "board:a", "k", 2)

    (push,) = connection.received()
    assert push["push"]["pub"] == {"key": "k", "data": 2, "offset": 2}
    node.on_lost(None)
    assert connection.closed is None


async def test_a_connect_request_reaches_no_map(node, connect):
    """Its wishes are subscriptions without state, which a map's are not; it is left out in silence."""
    connection = connect(subs={"board:a": {"type": 1, "phase": 2}, "hist:a": {}})

    assert set(connection.client.session.subscriptions) == {"hist:a"}


async def test_one_channel_is_left_when_nobody_is_there(node, clock):
    """The node's own subscription at the store goes with the last one's, after a while."""
    left = []

    async def unsubscribe(channel):
        left.append(channel)

    node.maps.unsubscribe = unsubscribe
    first, second = MapReader(node, "board:a"), MapReader(node, "board:a")
    first.come()
    second.come()
    first.drop()
    clock.now += 2
    await node._keep_house()
    assert left == []
    second.drop()
    clock.now += 2

    await node._keep_house()

    assert left == ["board:a"]
    assert not node._joined_maps
    third = MapReader(node, "board:a")
    third.come()
    await node.maps.publish(
        "board:a",
        Publication(key="k", data=Raw(b"1")),
        node.table.resolve("board:a").map_rules,
        PLAIN_CHANGE,
    )
    third.read()
    assert third.values == {"k": b"1"}
