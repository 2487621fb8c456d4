"""Deltas: who gets a patch, who the whole document, and that a client has the publisher's document whatever happens."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from msgspec import Raw

from realtime.engines.base import PublishOptions
from realtime.protocol.messages import Publication
from tests.unit.client.readers import Reader


pytestmark = pytest.mark.parametrize("is_json", [True, False], ids=["json", "protobuf"])
DELTA = {"delta": "fossil", "recoverable": True, "positioned": True}
HISTORY = PublishOptions(history_size=20, history_ttl=60, history_meta_ttl=600, delta=True)


def document(number: int) -> bytes:
    text = "Ein Absatz, der bleibt: \u00e4\u00f6\u00fc\u20ac. " * 4
    return json.dumps({"text": text, "n": number}, ensure_ascii=False).encode()


async def publish(node, channel, data, options=HISTORY, **fields):
    found = node.table.resolve(channel)
    await node.publish(found, Publication(data=Raw(data), **fields), options)


async def test_the_first_is_whole_and_the_next_are_patches(node, is_json):
    """Two subscribers that came at different times are in step from their second publication on."""
    first = Reader(node, "doc:a", is_json=is_json, **DELTA)
    assert first.come()["delta"] is True
    await publish(node, "doc:a", document(1))
    second = Reader(node, "doc:a", is_json=is_json, **DELTA)
    second.come()
    for number in (2, 3, 4):
        await publish(node, "doc:a", document(number))
    first.read()
    second.read()

    assert first.documents == [document(number) for number in (1, 2, 3, 4)]
    assert second.documents == [document(number) for number in (2, 3, 4)]
    assert (first.patches, second.patches) == (3, 2)


async def test_the_counters_say_what_was_saved(node, is_json):
    """A patch of each of two subscribers counts twice."""
    readers = [Reader(node, "doc:a", is_json=is_json, **DELTA) for _ in range(2)]
    for reader in readers:
        reader.come()
    for number in (1, 2):
        await publish(node, "doc:a", document(number))
        for reader in readers:
            reader.read()

    assert node.hub.patched == 2
    assert node.hub.bytes_saved > len(document(1))


async def test_who_did_not_ask_gets_documents_as_they_are(node, is_json):
    """The same publications, beside those who asked; the history has no patches either."""
    plain = Reader(node, "doc:a", is_json=is_json, recoverable=True)
    patched = Reader(node, "doc:a", is_json=is_json, **DELTA)
    assert "delta" not in plain.come()
    patched.come()
    for number in (1, 2):
        await publish(node, "doc:a", document(number))
    plain.read()
    patched.read()

    assert [json.loads(each)["n"] for each in plain.documents] == [1, 2]
    assert (plain.patches, patched.patches) == (0, 1)


async def test_what_is_not_allowed_is_left_out_in_silence(node, is_json):
    """A namespace without the type: no error, and documents as they are."""
    reader = Reader(node, "hist:a", is_json=is_json, **DELTA)

    assert "delta" not in reader.come()

    await publish(node, "hist:a", b'{"n":1}')
    reader.read()
    assert json.loads(reader.documents[0]) == {"n": 1}


async def test_who_counts_no_offsets_gets_documents(node, is_json):
    """Negotiated all the same, and on JSON a string."""
    reader = Reader(node, "doc:a", is_json=is_json, delta="fossil")

    assert reader.come()["delta"] is True

    for number in (1, 2, 3):
        await publish(node, "doc:a", document(number))
    reader.read()
    assert reader.documents == [document(number) for number in (1, 2, 3)]
    assert reader.patches == 0


async def test_a_publish_without_delta_is_whole_and_the_base_of_the_next(node, is_json):
    """The publisher decides for each."""
    reader = Reader(node, "doc:a", is_json=is_json, **DELTA)
    reader.come()
    plain = PublishOptions(history_size=20, history_ttl=60)
    await publish(node, "doc:a", document(1))
    await publish(node, "doc:a", document(2), plain)
    reader.read()
    assert reader.patches == 0

    await publish(node, "doc:a", document(3))

    reader.read()
    assert reader.documents[-1] == document(3)
    assert reader.patches == 1


async def test_what_skips_the_history_is_whole_and_so_is_what_follows(node, is_json):
    """An SDK takes what it received last as the base, which what is stored is not."""
    reader = Reader(node, "doc:a", is_json=is_json, **DELTA)
    reader.come()
    for number in (1, 2):
        await publish(node, "doc:a", document(number))
    await publish(node, "doc:a", b'{"aside":1}', PublishOptions(delta=True))
    await publish(node, "doc:a", document(3))
    reader.read()
    assert reader.patches == 1

    await publish(node, "doc:a", document(4))

    reader.read()
    assert reader.documents[2:] == [b'{"aside":1}', document(3), document(4)]
    assert reader.patches == 2


async def test_a_recovery_is_a_chain_that_goes_on(node, is_json):
    """The first missed one is whole, the others and the next live one are patches."""
    reader = Reader(node, "doc:a", is_json=is_json, **DELTA)
    reader.come()
    await publish(node, "doc:a", document(1))
    reader.read()
    reader.drop()
    for number in (2, 3, 4):
        await publish(node, "doc:a", document(number))

    result = reader.come()

    assert result["recovered"] is True
    assert [each.get("delta", False) for each in result["publications"]] == [False, True, True]
    await publish(node, "doc:a", document(5))
    reader.read()
    assert reader.documents == [document(number) for number in (1, 2, 3, 4, 5)]
    assert reader.patches == 3


async def test_a_recovery_of_nothing_is_followed_by_a_whole_one(node, is_json):
    """The client may have given a position of its own and have no document at all."""
    await publish(node, "doc:a", document(1))
    early = Reader(node, "doc:a", is_json=is_json, **DELTA)
    early.come()
    reader = Reader(node, "doc:a", is_json=is_json, **DELTA)
    reader.offset, reader.epoch = early.offset, early.epoch

    assert reader.come()["recovered"] is True

    for number in (2, 3):
        await publish(node, "doc:a", document(number))
    reader.read()
    assert reader.documents == [document(2), document(3)]
    assert reader.patches == 1


async def test_a_slow_reader_gets_patches_of_its_own(node, is_json):
    """It leaves the others and comes back, in step all the time."""
    slow, fast = (Reader(node, "doc:a", is_json=is_json, **DELTA) for _ in range(2))
    slow.come()
    fast.come()
    await publish(node, "doc:a", document(1))
    slow.pause()
    for number in (2, 3):
        await publish(node, "doc:a", document(number))
    slow.resume()
    await publish(node, "doc:a", document(4))
    for reader in (slow, fast):
        reader.read()

    assert slow.documents == fast.documents == [document(number) for number in (1, 2, 3, 4)]
    assert slow.patches == fast.patches == 3


async def test_the_base_is_what_was_delivered_and_not_what_is_stored(node, is_json):
    """A stream that lost its end has something else under an offset: no patch to that."""
    reader = Reader(node, "doc:a", is_json=is_json, **DELTA)
    reader.come()
    await publish(node, "doc:a", document(1))
    stream = node.broker._streams["doc:a"]
    stream.publications[-1] = Publication(data=Raw(document(77)), offset=1)

    await publish(node, "doc:a", document(2))

    reader.read()
    assert reader.documents == [document(1), document(2)]
    assert reader.patches == 0


async def test_a_cache_brings_the_newest_whole_and_goes_on_with_patches(node, is_json):
    """One publication in the reply, whatever came before it."""
    for number in (1, 2):
        await publish(node, "cachedoc:a", document(number))
    reader = Reader(node, "cachedoc:a", is_json=is_json, delta="fossil", recover=True)

    result = reader.come()

    assert result["recovered"] is True
    assert len(result["publications"]) == 1
    await publish(node, "cachedoc:a", document(3))
    reader.read()
    assert reader.documents == [document(2), document(3)]
    assert reader.patches == 1


async def test_binary_data_ends_json_subscribers(node, is_json):
    """As without deltas; Protobuf takes anything, patches of it too."""
    reader = Reader(node, "doc:a", is_json=is_json, **DELTA)
    reader.come()
    rng = random.Random(1)
    noise = rng.randbytes(2000)
    await publish(node, "doc:a", noise)
    if is_json:
        assert reader.connection.closed is not None
        assert reader.connection.closed[0] == 3506
        return

    await publish(node, "doc:a", noise[:900] + b"!" + noise[901:])

    reader.read()
    assert reader.documents[-1] == noise[:900] + b"!" + noise[901:]
    assert reader.patches == 1


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_every_client_has_the_publishers_document(node, is_json, seed):
    """Clients come, drop, leave, pause and recover while documents are published in every way."""
    rng = random.Random(f"{seed} {is_json}")
    readers = [
        Reader(node, "doc:a", is_json=bool(index % 2) is is_json, **DELTA) for index in range(8)
    ]
    states = dict.fromkeys(readers, "away")
    current = {"rows": [{"name": f"row \u20ac {n}", "value": n} for n in range(12)]}
    published: list[bytes] = []

    for _ in range(1500):
        reader = rng.choice(readers)
        state = states[reader]
        match rng.choice(
            ["publish"] * 6 + ["come", "drop", "leave", "pause", "read", "aside", "tick"]
        ):
            case "publish":
                current["rows"][rng.randrange(12)]["value"] = rng.random()
                if rng.random() < 0.1:
                    rng.shuffle(current["rows"])
                published.append(json.dumps(current, ensure_ascii=False).encode())
                options = (
                    HISTORY
                    if rng.random() < 0.9
                    else PublishOptions(history_size=20, history_ttl=60)
                )
                await publish(node, "doc:a", published[-1], options)
            case "aside":
                await publish(node, "doc:a", b'{"aside":%d}' % rng.randrange(99), PublishOptions())
            case "come" if state == "away":
                reader.come()
                states[reader] = "live"
            case "come" if state == "left":
                reader.subscribe()
                states[reader] = "live"
            case "drop" if state != "away":
                if rng.random() < 0.5:
                    reader.read()
                reader.drop()
                states[reader] = "away"
            case "leave" if state in ("live", "paused"):
                reader.unsubscribe()
                if state == "paused":
                    reader.resume()
                states[reader] = "left"
            case "pause" if state == "live":
                reader.pause()
                states[reader] = "paused"
            case "pause" if state == "paused":
                reader.resume()
                states[reader] = "live"
            case "read" if state in ("live", "paused"):
                reader.read()
            case "tick":
                await asyncio.sleep(0)
    for reader in readers:
        if states[reader] == "away":
            reader.come()
        elif states[reader] == "left":
            reader.subscribe()
        elif states[reader] == "paused":
            reader.resume()
    await publish(node, "doc:a", document(0))
    await publish(node, "doc:a", document(1))

    for reader in readers:
        reader.read()
        assert reader.documents[-2:] == [document(0), document(1)]
        stored = [each for each in reader.documents if not each.startswith(b'{"aside"')]
        assert set(stored[:-2]) <= set(published)
        assert reader.patches > 20
        assert not reader.unsubscribed
