"""Maps with patches and filters, and whatever happens to those who follow them."""

from __future__ import annotations

import json
import random

import jwt
import pytest
from msgspec import Raw

from realtime.engines.maps import MapChange
from realtime.protocol.messages import Publication
from tests.unit.client.conftest import SECRET
from tests.unit.client.map_readers import BusyMaps, MapReader, put, stored, take, text, use
from tests.unit.client.test_maps import ENCODINGS, ODD


# --- deltas -------------------------------------------------------------------------------------------

DELTA = {"delta": "fossil"}
ALLOWED = MapChange(delta=True)


@ENCODINGS
async def test_a_key_s_changes_are_patches_to_its_own(node, is_json):
    """From the first one on: the client has every key from the state. New keys and those after a removal are whole."""
    await put(node, "board:a", "a", text(1))
    await put(node, "board:a", "b", text(2))
    reader = MapReader(node, "board:a", is_json=is_json, **DELTA)
    plain = MapReader(node, "board:a", is_json=is_json)

    assert reader.come()["delta"] is True
    assert "delta" not in plain.come()
    for key, number in (("b", 3), ("a", 4), ("b", 5), ("new", 6), ("new", 7)):
        await put(node, "board:a", key, text(number), ALLOWED)
    await take(node, "board:a", "a")
    await put(node, "board:a", "a", text(8), ALLOWED)
    await put(node, "board:a", "b", text(9))  # the publisher does not allow it
    reader.read()
    plain.read()

    assert reader.values == await stored(node, "board:a")
    assert [bool(each.get("delta")) for each in reader.pushes] == [
        *(True, True, True, False, True),
        *(False, False, False),
    ]
    assert reader.patches == node.hub.patched == 4
    assert {key: json.loads(each) for key, each in plain.values.items()} == {
        key: json.loads(each) for key, each in reader.values.items()
    }


@ENCODINGS
async def test_who_comes_back_gets_patches_to_what_it_surely_has(node, is_json):
    """A key's first change after that is whole: it may have come with a position and nothing else."""
    for key in "abc":
        await put(node, "board:a", key, text(0))
    reader = MapReader(node, "board:a", is_json=is_json, **DELTA)
    steady = MapReader(node, "board:a", is_json=is_json, **DELTA)
    reader.come()
    steady.come()
    reader.drop()
    for number in (1, 2):
        await put(node, "board:a", "a", text(number), ALLOWED)
    result = reader.come()
    assert [bool(each.get("delta")) for each in result["publications"]] == [False, True]

    for key, number in (("a", 3), ("b", 4), ("b", 5)):
        await put(node, "board:a", key, text(number), ALLOWED)

    reader.read()
    steady.read()
    assert [bool(each.get("delta")) for each in reader.pushes] == [True, False, True]
    assert [bool(each.get("delta")) for each in steady.pushes] == [True] * 5
    assert reader.values == steady.values == await stored(node, "board:a")


@ENCODINGS
async def test_a_slow_reader_goes_on_with_patches(node, is_json):
    """What is written to it alone, and what it is owed when it is back among the others."""
    for key in "ab":
        await put(node, "board:a", key, text(0))
    reader = MapReader(node, "board:a", is_json=is_json, **DELTA)
    reader.come()
    for number, step in enumerate([None, reader.pause, None, reader.resume, None]):
        if step:
            step()
        await put(node, "board:a", "a", text(number), ALLOWED)
    reader.read()

    assert reader.values == await stored(node, "board:a")
    assert reader.patches == 5


async def test_what_was_delivered_otherwise_is_no_base(node):
    """After a failover a key may have had another value than was told: then the next one is whole."""
    reader = MapReader(node, "board:a", **DELTA)
    reader.come()
    await put(node, "board:a", "a", text(1), ALLOWED)
    previous = Publication(key="a", data=Raw(text(99)), offset=1)
    position = (await put(node, "board:b", "x", 1)).position
    reader.read()
    epoch = node.hub.rooms["board:a"].epoch

    change = Publication(key="a", data=Raw(text(2)), offset=2)
    node.hub.publish("board:a", change, type(position)(2, epoch), previous)

    reader.read()
    assert reader.patches == 0
    assert reader.values == {"a": text(2)}


@ENCODINGS
async def test_without_positions_there_are_documents(node, is_json):
    """Negotiated all the same, and on JSON a string; keys without data too."""
    await put(node, "cursors:a", "a", text(1))
    reader = MapReader(node, "cursors:a", is_json=is_json, **DELTA)

    assert reader.come()["delta"] is True
    for number in (2, 3):
        await put(node, "cursors:a", "a", text(number), ALLOWED)
    await put(node, "cursors:a", "nothing", b"", ALLOWED)
    reader.read()
    await take(node, "cursors:a", "nothing")
    reader.read()

    assert reader.patches == 0
    assert reader.values == {"a": text(3)}


async def test_binary_data_ends_json_connections_and_no_others(node):
    """In the state, in what was missed and live."""
    binary = MapReader(node, "board:a", is_json=False)
    binary.come()
    live = MapReader(node, "board:a")
    live.come()
    away = MapReader(node, "board:a")
    away.come()
    away.drop()
    await put(node, "board:a", "a", b"\xff\x00")
    node.hub.flush()
    assert live.connection.closed[0] == 3506

    for reader in (away, MapReader(node, "board:a")):
        reader.connect()
        request = {"recover": True, "offset": away.offset, "epoch": away.epoch, "phase": 1}
        step = request if reader is away else {"phase": 2}
        reader.send({"id": 2, "subscribe": {"channel": "board:a", "type": 1, **step}})
        assert reader.connection.closed[0] == 3506

    binary.read()
    assert binary.values == {"a": b"\xff\x00"}


# --- filters ------------------------------------------------------------------------------------------


@ENCODINGS
@pytest.mark.parametrize("channel", ["board:a", "cursors:a"])
async def test_a_filter_holds_in_every_phase(node, channel, is_json):
    """State, changes and live; a removal is one of what was removed. The position moves on all the same."""

    async def publish(number):
        tags = {"kind": "odd" if number % 2 else "even"}
        await put(node, channel, f"k{number:02}", number, tags=tags)

    for number in range(8):
        await publish(number)
    reader = MapReader(node, channel, is_json=is_json, tf=ODD, delta="fossil")
    reader.connect()
    page = reader.ask(phase=2)["subscribe"]
    assert [each["key"] for each in page["state"]] == ["k01"]
    reader.unsubscribe()
    reader.take()
    result = reader.subscribe()
    assert "delta" not in result
    assert set(reader.values) == {"k01", "k03", "k05", "k07"}
    for number in (8, 9):
        await publish(number)
    for key in ("k00", "k01", "k08"):
        await take(node, channel, key)
    reader.read()
    assert [each["key"] for each in reader.pushes] == ["k09", "k01"]
    reader.drop()
    for number in range(10, 30):
        await publish(number)
    await take(node, channel, "k03")
    await take(node, channel, "k02")

    reader.come()

    expected = {f"k{number:02}" for number in range(5, 30, 2)}
    assert set(reader.values) == expected
    if channel == "board:a":
        assert reader.loads == 1
        assert reader.offset == 35


async def test_another_filter_of_the_server_has_the_map_loaded_anew(node, clock):
    """A token with another filter: 2502. One with the same, or none, changes nothing."""

    def token(kind):
        claims = {"channel": "$board:a", "exp": int(clock()) + 1000}
        if kind:
            claims["server_tags_filter"] = {"key": "kind", "cmp": "eq", "val": kind}
        return jwt.encode(claims, SECRET, algorithm="HS256")

    for number in range(4):
        await put(
            node, "$board:a", f"k{number}", number, tags={"kind": "odd" if number % 2 else "even"}
        )
    reader = MapReader(node, "$board:a", token=token("odd"))
    reader.come()
    assert set(reader.values) == {"k1", "k3"}
    for kind in ("odd", ""):
        reader.send({"id": 5, "sub_refresh": {"channel": "$board:a", "token": token(kind)}})
        assert [each["id"] for each in reader.take()] == [5]

    reader.send({"id": 6, "sub_refresh": {"channel": "$board:a", "token": token("even")}})

    reply, push = reader.take()
    assert reply["sub_refresh"] == {"expires": True, "ttl": 1000}
    assert push["push"]["unsubscribe"] == {"code": 2502, "reason": "server tags filter changed"}
    assert not node.hub.rooms


# --- whatever happens ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_readers_that_come_go_and_lag_end_with_the_publishers_map(node, clock, seed):
    """A seeded run on every mode and encoding: pages, drops, pauses, clears and losses, and the map is right in the end."""
    rng = random.Random(seed)
    store = use(node, BusyMaps(clock))
    channels = ["board:a", "things:a", "cursors:a"]
    readers = [
        MapReader(node, channel, is_json=is_json, limit=limit, **options)
        for channel in channels
        for is_json in (True, False)
        for limit, options in ((1, DELTA), (4, {}), (10, DELTA))
    ]
    for reader in readers:
        reader.come()
    away: set[MapReader] = set()
    lagging: set[MapReader] = set()

    async def change():
        channel, key = rng.choice(channels), f"k{rng.randrange(12)}"
        match rng.randrange(12):
            case 0 | 1 | 2:
                await take(node, channel, key)
            case _:
                await put(node, channel, key, text(rng.randrange(100)), ALLOWED)

    store.meanwhile = change
    for step in range(400):
        for _ in range(rng.randrange(4)):
            await change()
        reader = rng.choice(readers)
        match rng.randrange(8):
            case 0 if reader not in away:
                reader.drop()
                away.add(reader)
                lagging.discard(reader)
            case 1 | 2 if reader in away:
                away.discard(reader)
                reader.come()
            case 3 if reader not in away | lagging:
                reader.pause()
                lagging.add(reader)
            case 4 if reader in lagging:
                reader.resume()
                lagging.discard(reader)
            case 5 if step % 97 == 0:
                await node.maps.clear("board:a")
                await change()
            case 6 if rng.random() < 0.1:
                node.on_lost(None)
            case 7:
                clock.now += rng.choice([0.1, 0.5, 3])
                node.maps.sweep(clock.now)
        for each in readers:
            if each not in away:
                each.read()
                if each.unsubscribed:
                    each.unsubscribed.clear()
                    lagging.discard(each)
                    if each.connection.client.is_paused:
                        each.resume()
                    each.subscribe()
    store.meanwhile = None
    for each in lagging:
        each.resume()
    for each in away:
        each.come()
    for _ in range(2):
        for channel in channels:
            await put(node, channel, "last", text(1), ALLOWED)
        for each in readers:
            each.read()
            if each.unsubscribed:
                each.unsubscribed.clear()
                each.subscribe()

    for each in readers:
        truth = await stored(node, each.channel)
        assert {key: json.loads(value) for key, value in each.values.items()} == {
            key: json.loads(value) for key, value in truth.items()
        }
    assert sum(each.patches for each in readers) > 100
    assert any(each.loads > 1 for each in readers)
