"""Maps: how a client loads, follows and comes back to one, and that it has what the publisher wrote whatever happens."""

from __future__ import annotations

import asyncio
import json
import random

import jwt
import pytest
from msgspec.structs import replace

from realtime.namespaces.table import NamespaceTable
from realtime.node.control import UnsubscribeUser
from realtime.protocol.errors import EngineError
from tests.unit.client.conftest import NAMESPACES, OPEN, SECRET
from tests.unit.client.map_readers import BusyMaps, MapReader, put, stored, take, use


ENCODINGS = pytest.mark.parametrize("is_json", [True, False], ids=["json", "protobuf"])
ODD = {"key": "kind", "cmp": "eq", "val": "odd"}


# --- loading ------------------------------------------------------------------------------------------


@ENCODINGS
@pytest.mark.parametrize("channel", ["board:a", "things:a", "cursors:a"])
async def test_a_small_map_comes_in_one_reply(node, channel, is_json):
    """State, position and what the mode has; then changes come live, removals too."""
    for number in range(3):
        await put(node, channel, f"k{number}", number)
    reader = MapReader(node, channel, is_json=is_json)

    result = reader.come()

    assert "phase" not in result
    assert len(reader.results) == 1
    has_stream = not channel.startswith("cursors")
    assert result.get("recoverable", False) is has_stream
    assert "positioned" not in result
    assert result.get("offset", 0) == (3 if has_stream else 0)
    assert bool(result.get("epoch")) is has_stream
    await put(node, channel, "k1", "other")
    await put(node, channel, "new", {"a": 1})
    await take(node, channel, "k0")
    await take(node, channel, "not there")
    reader.read()
    assert {key: json.loads(value) for key, value in reader.values.items()} == {
        "k1": "other",
        "k2": 2,
        "new": {"a": 1},
    }
    assert len(reader.pushes) == 3
    assert reader.pushes[-1] == {"key": "k0", "removed": True} | (
        {"offset": 6} if has_stream else {}
    )


@ENCODINGS
async def test_a_map_comes_in_pages_from_one_position(node, is_json):
    """Every page tells the first one's offset; what changed since is in none of them, and follows."""
    for number in range(8):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a", is_json=is_json)
    reader.connect()
    first = reader.ask(phase=2)["subscribe"]
    await put(node, "board:a", "k7", "changed")
    await put(node, "board:a", "k9", "new")
    await take(node, "board:a", "k3")
    position = {"offset": first["offset"], "epoch": first["epoch"]}

    second = reader.ask(phase=2, cursor=first["cursor"], **position)["subscribe"]
    third = reader.ask(phase=2, cursor=second["cursor"], **position)["subscribe"]

    assert [each["key"] for each in first["state"]] == ["k0", "k1", "k2"]
    assert [each["key"] for each in second["state"]] == ["k4", "k5", "k6"]
    assert second["offset"] == first["offset"] == 8
    assert (first["phase"], second["phase"], third.get("phase", 0)) == (2, 2, 0)
    assert "state" not in third
    assert [(each["key"], each["offset"]) for each in third["publications"]] == [
        ("k7", 9),
        ("k9", 10),
        ("k3", 11),
    ]
    assert third["offset"] == 11


@pytest.mark.parametrize(
    ("limit", "size"), [(0, 3), (-1, 3), (1, 1), (5, 5), (10, 10), (11, 10), (1000, 10)]
)
async def test_a_page_is_as_large_as_asked_within_bounds(node, limit, size):
    """The namespace has a default, a least and a most."""
    for number in range(15):
        await put(node, "board:a", f"k{number:02}", number)
    reader = MapReader(node, "board:a")
    reader.connect()

    result = reader.ask(phase=2, limit=limit)["subscribe"]

    assert len(result["state"]) == size


async def test_who_is_far_behind_catches_up_in_pages(node):
    """After the last page of state there are pages of changes, up to where the stream was at the first of them."""
    for number in range(4):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a", limit=3)
    reader.connect()
    page = reader.ask(phase=2)["subscribe"]
    position = {"offset": page["offset"], "epoch": page["epoch"]}
    for number in range(10):
        await put(node, "board:a", f"k{number % 4}", number)

    last = reader.ask(phase=2, cursor=page["cursor"], **position)["subscribe"]
    assert (last["phase"], last.get("cursor", "")) == (2, "")
    offsets = []
    while True:
        step = reader.ask(phase=1, **position)["subscribe"]
        position["offset"] = step["offset"]
        offsets.append([each["offset"] for each in step["publications"]])
        assert step["epoch"] == page["epoch"]
        if not step.get("phase"):
            break
        assert "recoverable" not in step
        await put(node, "board:a", "busy", position["offset"])

    # The goal is where the stream was then (14): what came after it came with the last page.
    assert offsets == [[5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16, 17]]
    assert step["recoverable"]
    assert not step.get("recovered")


@pytest.mark.parametrize("channel", ["board:a", "things:a", "cursors:a"])
async def test_a_map_that_changes_while_it_is_read_ends_right(node, clock, channel):
    """Between any two steps of the server keys come, change and go; nothing is seen twice or missed."""
    rng = random.Random(7)
    store = use(node, BusyMaps(clock))
    for number in range(25):
        await put(node, channel, f"k{number:02}", number)

    async def happen():
        key = f"k{rng.randrange(30):02}"
        if rng.random() < 0.3:
            await take(node, channel, key)
        else:
            await put(node, channel, key, rng.randrange(1000))

    store.meanwhile = happen
    for _ in range(20):
        reader = MapReader(node, channel)
        reader.come()
        reader.read()
        store.meanwhile, before = None, store.meanwhile
        assert reader.values == await stored(node, channel)
        await put(node, channel, "k00", "last")
        reader.read()
        assert reader.values == await stored(node, channel)
        store.meanwhile = before
        reader.drop()


async def test_more_changes_than_are_caught_up_with_begin_the_load_anew(node):
    """More than the limit of a transition, while the last page is read: 112, and then from nothing."""
    for number in range(4):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a", limit=10)
    reader.connect()
    page = reader.ask(phase=2, limit=3)["subscribe"]
    for number in range(21):
        await put(node, "board:a", "busy", number)

    answer = reader.ask(phase=0, offset=page["offset"], epoch=page["epoch"])

    assert answer["error"]["code"] == 112
    assert not reader.connection.client.session.subscriptions
    reader.subscribe()
    assert reader.values == await stored(node, "board:a")


@pytest.mark.parametrize("when", ["state", "changes", "live"])
async def test_a_map_that_is_cleared_while_it_is_read_is_read_anew(node, when):
    """Every step notices another epoch."""
    for number in range(4):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.connect()
    page = reader.ask(phase=2)["subscribe"]
    position = {"offset": page["offset"], "epoch": page["epoch"]}
    await node.maps.clear("board:a")
    await put(node, "board:a", "x", 1)
    request = {
        "state": {"phase": 2, "cursor": page["cursor"]},
        "changes": {"phase": 1},
        "live": {"phase": 0},
    }[when]

    assert reader.ask(**request, **position)["error"]["code"] == 112
    assert not reader.connection.client.session.subscriptions
    assert not node.hub.rooms


async def test_a_namespace_that_keeps_maps_otherwise_has_loads_begin_anew(node):
    """Both who loads and who follows: a store must not be told of rules that were."""
    for number in range(5):
        await put(node, "things:a", f"k{number}", number)
    loading, live = MapReader(node, "things:a"), MapReader(node, "things:a")
    live.come()
    loading.connect()
    page = loading.ask(phase=2)["subscribe"]
    persistent = replace(NAMESPACES["board"], subscription_type="map")
    node.table = NamespaceTable(OPEN, {**NAMESPACES, "things": persistent})

    answer = loading.ask(phase=2, cursor=page["cursor"], offset=page["offset"], epoch=page["epoch"])

    assert answer["error"]["code"] == 112
    assert await node.positions.is_in_step("things:a")
    for other in (NAMESPACES["cursors"], NAMESPACES["hist"]):
        node.table = NamespaceTable(OPEN, {**NAMESPACES, "things": other})
        assert not await node.positions.is_in_step("things:a")
    node.table = NamespaceTable(OPEN, NAMESPACES)
    assert len(await stored(node, "things:a")) == 5


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "request_", "code"),
    [
        ("board:a", {"phase": 2, "cursor": "x"}, 103),
        ("board:a", {"phase": 1}, 103),
        ("board:a", {"phase": 3}, 107),
        ("board:a", {"phase": -1}, 107),
        ("board:a", {"phase": 0}, 112),
        ("board:a", {"phase": 0, "epoch": "other"}, 112),
        ("board:a", {"phase": 1, "recover": True}, 112),
        ("board:a", {"phase": 1, "recover": True, "epoch": "other"}, 112),
        ("board:a", {"phase": 2, "type": 2}, 103),
        ("board:a", {"phase": 2, "type": 0}, 103),
        ("hist:a", {"phase": 2}, 103),
        ("clients:a", {"phase": 2, "type": 3}, 103),
        ("nowhere:a", {"phase": 2}, 102),
        ("board:ä", {"phase": 2}, 107),
        ("cursors:a", {"phase": 1}, 107),
        ("cursors:a", {"phase": 1, "recover": True}, 107),
        ("cursors:a", {"phase": 0, "recover": True, "epoch": "x"}, 112),
        ("things:a", {"phase": 2, "tf": ODD}, 107),
        ("board:a", {"phase": 2, "tf": {}}, 107),
        ("$board:a", {"phase": 2}, 103),
    ],
)
async def test_what_makes_no_sense_is_refused_and_leaves_nothing(node, channel, request_, code):
    """With the reference's codes."""
    reader = MapReader(node, channel)
    reader.connect()

    assert reader.ask(**request_)["error"]["code"] == code
    assert not reader.connection.client.session.subscriptions
    assert not node.hub.rooms


async def test_an_unknown_delta_ends_the_connection(node):
    """Whatever the step."""
    reader = MapReader(node, "board:a")
    reader.connect()

    reader.send({"id": 2, "subscribe": {"channel": "board:a", "type": 1, "phase": 2, "delta": "x"}})

    assert reader.connection.closed[0] == 3501


async def test_one_that_is_there_or_coming_is_not_begun_again(node):
    """105 while a load goes on, which it does afterwards, and when it is live."""
    for number in range(5):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.connect()
    page = reader.ask(phase=2)["subscribe"]

    assert reader.ask(phase=2)["error"]["code"] == 105
    position = {"offset": page["offset"], "epoch": page["epoch"]}
    assert "subscribe" in reader.ask(phase=2, cursor=page["cursor"], **position)
    for request in ({"phase": 2}, {"phase": 1}, {"phase": 0}, {"phase": 2, "cursor": "k1"}):
        assert reader.ask(**request)["error"]["code"] == 105


async def test_loads_count_for_the_limit_of_channels(make_node, options):
    """As channels do."""
    node = await make_node(replace(options, client=replace(options.client, channel_limit=2)))
    for number in range(5):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.connect()
    reader.ask(phase=2)
    reader.ask(phase=2, channel="board:b")

    assert reader.ask(phase=2, channel="board:c")["error"]["code"] == 106


async def test_what_was_granted_first_holds_for_the_whole_load(node, connect):
    """A token is asked for once: the pages after the first carry none, or an old one."""
    for number in range(5):
        await put(node, "$board:a", f"k{number}", number)
    claims = {"channel": "$board:a", "exp": int(node.clock()) + 100, "b64data": "eyJhIjoxfQ=="}
    reader = MapReader(node, "$board:a")
    reader.connect()
    token = jwt.encode(claims, SECRET, algorithm="HS256")

    page = reader.ask(phase=2, token=token)["subscribe"]
    last = reader.ask(
        phase=2, token="old", cursor=page["cursor"], offset=page["offset"], epoch=page["epoch"]
    )["subscribe"]

    assert (last["expires"], last["ttl"], last["data"]) == (True, 100, {"a": 1})
    assert "expires" not in page


async def test_a_load_that_takes_too_long_ends_the_connection_when_it_goes_on(node, clock):
    """3008 for the one that is continued; the others go in silence when another map is asked for."""
    for name in "abc":
        for number in range(5):
            await put(node, f"board:{name}", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.connect()
    pages = {name: reader.ask(phase=2, channel=f"board:{name}")["subscribe"] for name in "ab"}
    clock.now += 5.5

    assert "subscribe" in reader.ask(phase=2, channel="board:c")
    assert set(reader.connection.client.session.subscriptions) == {"board:c"}
    reader.ask(phase=2)
    clock.now += 5.5
    reader.send(
        {
            "id": 9,
            "subscribe": {
                "channel": "board:a",
                "type": 1,
                "phase": 2,
                "cursor": pages["a"]["cursor"],
            },
        }
    )

    assert reader.connection.closed == (3008, "slow")


async def test_a_late_load_may_begin_anew(node, clock):
    """Its client gave it up; nothing of it is left to say 105."""
    for number in range(5):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.connect()
    reader.ask(phase=2)
    clock.now += 6

    assert len(reader.ask(phase=2)["subscribe"]["state"]) == 3


async def test_leaving_while_it_loads_is_answered_at_once(node):
    """And the channel may be asked for again."""
    for number in range(5):
        await put(node, "cursors:a", f"k{number}", number)
    reader = MapReader(node, "cursors:a")
    reader.connect()
    reader.ask(phase=2)
    assert node.hub.rooms

    reader.send({"id": 3, "unsubscribe": {"channel": "cursors:a"}})

    assert reader.take() == [{"id": 3, "unsubscribe": {}}]
    assert not node.hub.rooms
    assert "subscribe" in reader.ask(phase=2)


async def test_nothing_is_held_back_for_ever_for_who_does_not_go_on(node, clock):
    """The connection's tick stops that; its client is told all the same when it goes on."""
    for number in range(5):
        await put(node, "cursors:a", f"k{number}", number)
    reader = MapReader(node, "cursors:a")
    reader.connect()
    page = reader.ask(phase=2)["subscribe"]
    for number in range(500):
        await put(node, "cursors:a", f"k{number % 5}", number)
    (subscription,) = reader.connection.client.session.subscriptions.values()
    assert len(list(subscription.buffer)) == 5
    clock.now += 6

    reader.connection.client.maintain(clock.now)

    assert not node.hub.rooms
    reader.send(
        {
            "id": 9,
            "subscribe": {"channel": "cursors:a", "type": 1, "phase": 2, "cursor": page["cursor"]},
        }
    )
    assert reader.connection.closed == (3008, "slow")


async def test_a_backend_that_fails_is_no_end_of_the_connection(node, clock, monkeypatch):
    """A temporary error, after which the SDK tries again; nothing is left behind."""

    async def fail(*arguments):
        raise EngineError("away")

    monkeypatch.setattr(node.maps, "read_state", fail)
    reader = MapReader(node, "board:a")
    reader.connect()

    answer = reader.ask(phase=2)

    assert answer["error"] == {"code": 100, "message": "internal server error", "temporary": True}
    assert not reader.connection.client.session.subscriptions
    assert reader.connection.closed is None


# --- coming back --------------------------------------------------------------------------------------


@ENCODINGS
@pytest.mark.parametrize("channel", ["board:a", "things:a"])
async def test_who_was_away_gets_what_changed(node, channel, is_json):
    """Only that, in one reply that says so; and nothing where nothing did."""
    for number in range(9):
        await put(node, channel, f"k{number}", number)
    reader = MapReader(node, channel, is_json=is_json)
    reader.come()
    reader.drop()
    await put(node, channel, "k1", "other")
    await take(node, channel, "k2")

    result = reader.come()

    assert (result["recovered"], result["was_recovering"]) == (True, True)
    assert "state" not in result
    assert result["offset"] == 11
    assert len(result["publications"]) == 2
    assert reader.loads == 1
    reader.drop()
    assert reader.come()["recovered"] is True
    await put(node, channel, "k3", "live")
    reader.read()
    assert reader.values == await stored(node, channel)


async def test_who_was_away_for_long_gets_pages_of_changes(node):
    """As many as it takes; the last one says that it is recovered."""
    reader = MapReader(node, "board:a", limit=5)
    reader.come()
    reader.drop()
    for number in range(23):
        await put(node, "board:a", f"k{number}", number)

    result = reader.come()

    assert result["recovered"] is True
    assert [len(each["publications"]) for each in reader.results[1:]] == [5, 5, 5, 5, 3]
    assert reader.values == await stored(node, "board:a")


async def test_phase_zero_recovers_too(node):
    """Straight to live, with at most as much as may be missed."""
    reader = MapReader(node, "board:a")
    reader.come()
    offset, epoch = reader.offset, reader.epoch
    reader.drop()
    for number in range(20):
        await put(node, "board:a", f"k{number}", number)
    reader.connect()

    result = reader.ask(phase=0, recover=True, offset=offset, epoch=epoch)["subscribe"]

    assert result["recovered"] is True
    assert len(result["publications"]) == 20


async def test_the_last_request_says_whether_it_recovers(node):
    """Whatever the load began with."""
    for number in range(3):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.connect()
    page = reader.ask(phase=2, limit=1)["subscribe"]

    result = reader.ask(phase=0, recover=True, offset=page["offset"], epoch=page["epoch"])

    assert result["subscribe"]["recovered"] is True
    assert result["subscribe"]["was_recovering"] is True


async def test_phase_zero_without_recovering_joins_where_the_client_is(node):
    """With the map's epoch it is let in, and nobody says recovered."""
    await put(node, "board:a", "k", 1)
    reader = MapReader(node, "board:a")
    reader.connect()
    epoch = (await put(node, "board:a", "k", 2)).position.epoch

    result = reader.ask(phase=0, offset=1, epoch=epoch)["subscribe"]

    assert [each["offset"] for each in result["publications"]] == [2]
    assert "recovered" not in result
    assert "was_recovering" not in result


async def test_a_map_without_stream_may_be_joined_without_state(node):
    """What changes from then on."""
    await put(node, "cursors:a", "k", 1)
    reader = MapReader(node, "cursors:a")
    reader.connect()

    assert reader.ask(phase=0)["subscribe"] == {"type": 1}
    await put(node, "cursors:a", "k", 2)
    (push,) = reader.take()
    assert push["push"]["pub"] == {"key": "k", "data": 2}


@pytest.mark.parametrize("loss", ["clear", "restart", "size", "time", "all time", "ahead"])
async def test_who_can_not_be_brought_back_begins_anew(node, clock, loss):
    """Whatever the reason, also where the stream has nothing left at all: nobody is told that it recovered."""
    for number in range(4):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.come()
    reader.drop()
    if loss == "ahead":
        reader.offset += 5
    elif loss == "size":
        for number in range(60):
            await put(node, "board:a", "k1", number)
    else:
        await put(node, "board:a", "k1", "missed")
        if loss == "clear":
            await node.maps.clear("board:a")
        elif loss == "restart":
            use(node, BusyMaps(clock))
        else:
            clock.now += 61
            node.maps.sweep(clock.now)
        if loss in ("clear", "restart", "time"):
            await put(node, "board:a", "k2", "after")

    result = reader.come()

    assert reader.errors == [112]
    assert reader.loads == 2
    assert "recovered" not in result
    assert reader.values == await stored(node, "board:a")


# --- live ---------------------------------------------------------------------------------------------


async def test_a_key_that_expires_is_removed_live(node, clock):
    """Its removal is a change like others."""
    await put(node, "things:a", "k", 1)
    reader = MapReader(node, "things:a")
    reader.come()
    clock.now += 61

    node.maps.sweep(clock.now)

    reader.read()
    assert reader.values == {}
    assert reader.offset == 2


async def test_a_map_that_lost_a_change_is_told_by_the_next(node):
    """2500, after which the SDK recovers what the stream has."""
    reader = MapReader(node, "board:a")
    reader.come()
    node.maps._on_publication = lambda *a, **k: None
    await put(node, "board:a", "lost", 1)
    use(node, node.maps)
    await put(node, "board:a", "next", 2)

    reader.read()

    assert reader.unsubscribed == [2500]
    assert reader.subscribe()["recovered"] is True
    assert reader.values == await stored(node, "board:a")


@pytest.mark.parametrize("what", ["lost", "cleared", "fell back"])
async def test_a_quiet_map_is_compared_with_its_stream(node, clock, monkeypatch, what):
    """Within the delay of the check; a map that fell back gets another epoch, so that nobody recovers over it."""
    monkeypatch.setattr("realtime.node.positions.RECHECK_DELAY", 0)
    for number in range(3):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.come()
    epoch = reader.epoch
    node.positions.forget("board:a")
    await node._keep_house()
    if what == "lost":
        node.maps._on_publication = lambda *a, **k: None
        await put(node, "board:a", "lost", 1)
        use(node, node.maps)
    elif what == "cleared":
        await node.maps.clear("board:a")
    else:
        node.hub.rooms["board:a"].offset += 1
    await node._keep_house()
    reader.read()
    assert reader.unsubscribed == []
    clock.now += node.options.client.channel_position_check_delay + 1

    await node._keep_house()

    reader.read()
    assert reader.unsubscribed == [2500]
    reader.subscribe()
    assert reader.values == await stored(node, "board:a")
    assert (reader.epoch == epoch) is (what == "lost")


async def test_what_may_be_lost_of_a_map_without_positions_is_loaded_again(node):
    """Nobody could tell afterwards. Who loads at that moment is told when it is live; others are left alone."""
    for number in range(5):
        await put(node, "cursors:a", f"k{number}", number)
    live, loading = MapReader(node, "cursors:a", limit=10), MapReader(node, "cursors:a")
    board = MapReader(node, "board:a")
    live.come()
    board.come()
    loading.connect()
    page = loading.ask(phase=2)["subscribe"]

    node.on_lost(("board:a", "cursors:a", "hist:a"))

    live.read()
    assert live.unsubscribed == [2500]
    loading.ask(phase=2, cursor=page["cursor"])
    loading._is_live = True
    loading.read()
    assert loading.unsubscribed == [2500]
    board.read()
    assert board.unsubscribed == []


async def test_joins_and_presence_of_a_map_are_those_of_any_channel(make_node, options):
    """A subscriber is in presence, and its join is told to those before it."""
    node = await make_node(options)
    social = replace(
        NAMESPACES["board"], presence=True, join_leave=True, force_push_join_leave=True
    )
    node.table = NamespaceTable(OPEN, {"social": social})
    first, second = MapReader(node, "social:a"), MapReader(node, "social:a")
    first.come()
    second.come()
    (push,) = first.take()
    assert push["push"]["join"]["info"]["client"] == second.connection.client.session.client_id
    assert len(await node.presence.presence("social:a")) == 2

    second.drop()

    (push,) = first.take()
    assert "leave" in push["push"]
    assert len(await node.presence.presence("social:a")) == 1


# --- while a backend takes its time -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "read"),
    [("board:a", "read_state"), ("board:a", "read_stream"), ("cursors:a", "read_state")],
)
async def test_a_connection_that_goes_while_a_map_is_read_leaves_nothing(
    node, monkeypatch, channel, read
):
    """Whichever read it is, and whether changes are held back by then."""
    await put(node, channel, "k", 1)
    reached = asyncio.Event()

    async def wait(*arguments):
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(node.maps, read, wait)
    reader = MapReader(node, channel)
    reader.connect()
    reader.send({"id": 2, "subscribe": {"channel": channel, "type": 1, "phase": 2}})
    await reached.wait()
    assert bool(node.hub.rooms) is (read == "read_stream" or channel == "cursors:a")

    reader.drop()

    await asyncio.sleep(0)
    assert not node.hub.rooms
    assert not reader.connection.client.session.subscriptions
    await put(node, channel, "k", 2)


async def test_what_comes_while_the_stream_is_read_is_joined_to_it(node, monkeypatch):
    """Changes that are in both are sent once; a hole between the two ends the connection."""
    await put(node, "board:a", "k", 1)
    going = asyncio.Event()
    read_stream = node.maps.read_stream

    async def slow(*arguments):
        read = await read_stream(*arguments)
        await going.wait()
        return read

    monkeypatch.setattr(node.maps, "read_stream", slow)
    readers = [MapReader(node, "board:a") for _ in range(2)]
    for reader in readers:
        reader.connect()
        reader.take()
        reader.send({"id": 2, "subscribe": {"channel": "board:a", "type": 1, "phase": 2}})
    await put(node, "board:a", "k", 2)
    await put(node, "board:a", "l", 3)
    (lossy,) = [
        each
        for client, each in node.hub.rooms["board:a"].held.items()
        if client is readers[1].connection.client
    ]
    del lossy.buffer[0]

    going.set()
    for _ in range(5):
        await asyncio.sleep(0)

    (reply,) = readers[0].take()
    result = reply["subscribe"]
    assert [each["offset"] for each in result["state"]] == [1]
    assert [each["offset"] for each in result["publications"]] == [2, 3]
    assert result["offset"] == 3
    assert readers[1].connection.closed == (3010, "insufficient state")


async def test_one_that_is_ended_while_it_loads_ends_when_it_is_live(node):
    """The API's unsubscribe between two pages: the client learns of it once it has something to leave."""
    for number in range(5):
        await put(node, "board:a", f"k{number}", number)
    reader = MapReader(node, "board:a")
    reader.connect()
    page = reader.ask(phase=2)["subscribe"]
    await node.control(UnsubscribeUser(user="", channel="board:a"))

    reader.ask(phase=2, cursor=page["cursor"], offset=page["offset"], epoch=page["epoch"])

    (push,) = reader.take()
    assert push["push"]["unsubscribe"]["code"] == 2000
    assert not node.hub.rooms
