"""Delta compression."""

from __future__ import annotations

import json

from tests.parity.encodings import JSON, PROTOBUF
from tests.parity.script import scenario
from tests.parity.talk import ABSENT, Differs, Talk


def _document(number: int, tail: str = "") -> dict[str, object]:
    return {
        "text": "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor",
        "n": number,
        "tail": tail,
    }


async def _publish(talk: Talk, channel: str, *numbers: int, **more: object) -> None:
    for number in numbers:
        await talk.call("publish", {"channel": channel, "data": _document(number), **more})


@scenario(JSON, PROTOBUF)
async def deltas_live(talk: Talk) -> None:
    """First full, then patches; full again where a patch were longer; others get all in full."""
    channel = talk.channel("doc")
    taker, other = await talk.client("taker"), await talk.client("other")
    await taker.subscribe(channel, delta="fossil")
    await other.subscribe(channel)
    await _publish(talk, channel, 1, 2, 3)
    await talk.call("publish", {"channel": channel, "data": "short"})
    await _publish(talk, channel, 4)
    await talk.call("publish", {"channel": channel, "data": _document(5, "é")})
    await talk.call("publish", {"channel": channel, "data": _document(5, "ü<&>")})
    for client in (taker, other):
        await client.pushes(7)
    await taker.ask({"history": {"channel": channel, "limit": 2}})


@scenario()
async def deltas_join_late(talk: Talk) -> None:
    """The first publication after a subscribe is full, whatever is in history."""
    channel = talk.channel("doc")
    await _publish(talk, channel, 1)
    client = await talk.client()
    await client.subscribe(channel, delta="fossil")
    await _publish(talk, channel, 2, 3)
    await client.pushes(2)


@scenario(JSON, PROTOBUF)
async def deltas_in_recovery(talk: Talk) -> None:
    """The first recovered one is full, the others are patches, and so is the next live one, also after none."""
    channel = talk.channel("doc")
    await _publish(talk, channel, 1, 2, 3)
    one, none, lost = [await talk.client(name) for name in ("one", "none", "lost")]
    await one.subscribe(channel, delta="fossil", recover=True)
    await none.subscribe(channel, delta="fossil", recover=True, offset=3)
    none.documents.has(channel, json.dumps(_document(3)))
    await lost.subscribe(channel, delta="fossil", recover=True, offset=9)
    await _publish(talk, channel, 4)
    await one.push()
    document = json.dumps(_document(4)) if talk.encoding == JSON else _document(4)
    await none.push(
        differs=Differs(
            "whole documents are always right, and a client that named a position may not have its document",
            {"push.pub.data": document, "push.pub.delta": ABSENT},
        )
    )
    await lost.push()


@scenario()
async def deltas_on_request_of_the_publisher(talk: Talk) -> None:
    """Where the namespace doesn't publish deltas, ``delta`` of a call does; a client's publish doesn't."""
    channel = talk.channel("asksdelta")
    client = await talk.client()
    await client.subscribe(channel, delta="fossil")
    await _publish(talk, channel, 1, 2)
    await _publish(talk, channel, 3, 4, delta=True)
    await _publish(talk, channel, 5)
    await talk.call("broadcast", {"channels": [channel], "data": _document(6), "delta": True})
    await client.pushes(6)


@scenario()
async def deltas_refused(talk: Talk) -> None:
    """Not allowed in the namespace: everything in full and no word of it; of an unknown kind: the end."""
    client = await talk.client()
    await client.subscribe(talk.channel("hist"), delta="fossil")
    await _publish(talk, talk.channel("hist"), 1, 2)
    await client.pushes(2)
    await client.subscribe(talk.channel("doc"), delta="xdelta")


@scenario(JSON, PROTOBUF)
async def deltas_without_positions(talk: Talk) -> None:
    """Negotiated, but every publication is full: there is no history, or the subscription has no position."""
    client = await talk.client()
    for namespace in ("loosedoc", "nohistdoc"):
        await client.subscribe(talk.channel(namespace), delta="fossil")
        await _publish(talk, talk.channel(namespace), 1, 2)
        await client.pushes(2)


@scenario()
async def deltas_of_caches(talk: Talk) -> None:
    """The recovered one is full, the next a patch against it."""
    channel = talk.channel("cachedoc")
    await _publish(talk, channel, 1, 2)
    client = await talk.client()
    await client.subscribe(channel, delta="fossil", recover=True)
    await _publish(talk, channel, 3, 4)
    await client.pushes(2)


@scenario()
async def deltas_of_server_side_subscriptions(talk: Talk) -> None:
    """``subs`` may ask for them."""
    channel = talk.channel("doc")
    await _publish(talk, channel, 1)
    token = talk.token("ann", channels=[channel])
    client = await talk.client(
        connect={"token": token, "subs": {channel: {"delta": "fossil", "recover": True}}}
    )
    await _publish(talk, channel, 2, 3)
    await client.pushes(2)
