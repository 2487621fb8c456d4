"""History, positions, recovery and caches of streams."""

from __future__ import annotations

from typing import Any

from tests.parity.encodings import JSON, PROTOBUF
from tests.parity.script import scenario
from tests.parity.talk import Talk


async def _publish(talk: Talk, channel: str, count: int, **more: Any) -> None:
    for number in range(1, count + 1):
        await talk.call("publish", {"channel": channel, "data": {"i": number}, **more})


async def _recover_at(talk: Talk, channel: str, offset: int, epoch: str, **more: Any) -> None:
    """Subscribe from a position by a connection of its own, which then leaves."""
    client = await talk.client(f"at {offset}")
    request: dict[str, Any] = {"recover": True, "offset": offset, "epoch": epoch, **more}
    await client.subscribe(channel, **{name: one for name, one in request.items() if one})
    await client.unsubscribe(channel)


@scenario(JSON, PROTOBUF)
async def recovery(talk: Talk) -> None:
    """From each position: everything, some, nothing, ahead, without an epoch, of another generation."""
    channel = talk.channel("hist")
    await _publish(talk, channel, 3)
    first = await talk.client()
    epoch = (await first.subscribe(channel))["epoch"]
    for offset in (0, 2, 3, 4):
        await _recover_at(talk, channel, offset, epoch)
        await _recover_at(talk, channel, offset, "")
    await _recover_at(talk, channel, 1, "another")
    # What an SDK sends when its state was invalidated.
    await _recover_at(talk, channel, 0, "_")
    await _publish(talk, channel, 1)
    await first.push()


@scenario()
async def recovery_beyond_the_limit(talk: Talk) -> None:
    """More missed than a recovery may bring, and exactly as many; then more than history holds."""
    channel = talk.channel("hist")
    await _publish(talk, channel, 7)
    for offset in (0, 1, 2, 7):
        await _recover_at(talk, channel, offset, "")
    await _publish(talk, channel, 10)
    await _recover_at(talk, channel, 5, "")


@scenario()
async def recovery_of_a_new_channel(talk: Talk) -> None:
    """An empty stream has an epoch, and the first publication after it tells it once more."""
    channel = talk.channel("hist")
    client = await talk.client()
    epoch = (await client.subscribe(channel, recover=True))["epoch"]
    await talk.call("publish", {"channel": channel, "data": 1})
    await client.push()
    await talk.call("publish", {"channel": channel, "data": 2})
    await client.push()
    await _recover_at(talk, channel, 0, epoch)


@scenario()
async def recovery_after_history_is_removed(talk: Talk) -> None:
    """At the top all is well, below it nothing is."""
    channel = talk.channel("hist")
    await _publish(talk, channel, 2)
    await talk.call("history_remove", {"channel": channel})
    epoch = (await talk.call("history", {"channel": channel, "limit": -1}))["result"]["epoch"]
    await _recover_at(talk, channel, 2, epoch)
    await _recover_at(talk, channel, 1, epoch)


@scenario()
async def unrecovered_is_an_error_on_request(talk: Talk) -> None:
    """The second bit of ``flag``: 112 in the place of ``recovered: false``; the subscription isn't there."""
    channel = talk.channel("hist")
    await _publish(talk, channel, 2)
    client = await talk.client()
    await client.subscribe(channel, recover=True, offset=1, epoch="another", flag=3)
    await client.subscribe(channel, recover=True, offset=5, flag=2)
    await client.subscribe(channel, recover=True, offset=1, flag=2)
    await client.unsubscribe(channel)
    await client.subscribe(channel, flag=2)
    cache = talk.channel("cache")
    await client.subscribe(cache, recover=True, offset=9, epoch="another", flag=2)


@scenario()
async def positions(talk: Talk) -> None:
    """What each kind of channel says about positions, asked for and not."""
    client = await talk.client()
    for namespace in ("open", "plain", "positioned", "hist", "asked"):
        channel = talk.channel(namespace)
        await talk.call("publish", {"channel": channel, "data": {}})
        for number, request in enumerate(
            ({}, {"positioned": True}, {"recoverable": True}, {"recover": True}), 1
        ):
            await client.subscribe(channel, **request)
            await talk.call("publish", {"channel": channel, "data": number})
            await client.push()
            await client.unsubscribe(channel)


@scenario()
async def publications_without_history(talk: Talk) -> None:
    """They have no offset and move no position."""
    channel = talk.channel("hist")
    client = await talk.client()
    await client.subscribe(channel)
    await talk.call("publish", {"channel": channel, "data": 1, "skip_history": True})
    await client.push()
    await talk.call("publish", {"channel": channel, "data": 2})
    await client.push()
    await talk.call("publish", {"channel": channel, "data": 3, "skip_history": True})
    await client.push()
    await _recover_at(talk, channel, 0, "")


@scenario(JSON, PROTOBUF)
async def tags_and_versions(talk: Talk) -> None:
    """They come with live and recovered publications; a stale version is dropped in silence."""
    channel = talk.channel("hist")
    client = await talk.client()
    await client.subscribe(channel)
    await talk.call("publish", {"channel": channel, "data": 1, "tags": {"a": "b"}, "version": 5})
    await client.push()
    for version, epoch in ((4, ""), (5, ""), (4, "e1"), (4, "e1"), (5, "e1"), (6, ""), (6, "e2")):
        await talk.call(
            "publish",
            {"channel": channel, "data": version, "version": version, "version_epoch": epoch},
        )
    await client.pushes(4)
    await client.ask({"history": {"channel": channel, "limit": -1}})
    await talk.call("history", {"channel": channel, "limit": -1})
    await _recover_at(talk, channel, 0, "")


@scenario()
async def versions_without_version_between(talk: Talk) -> None:
    """A publication without a version, and then an old one."""
    channel = talk.channel("plain")
    await talk.call("publish", {"channel": channel, "data": 1, "version": 5})
    await talk.call("publish", {"channel": channel, "data": 2})
    await talk.call("publish", {"channel": talk.channel("open"), "data": 1, "version": 5})
    await talk.call("publish", {"channel": talk.channel("open"), "data": 1, "version": 4})


@scenario()
async def idempotency(talk: Talk) -> None:
    """A repeated key answers as the first time and sends nothing; it counts for its channel only."""
    client = await talk.client()
    for namespace in ("hist", "open"):
        channel, other = talk.channel(namespace), talk.channel(namespace, "-2")
        await client.subscribe(channel)
        await client.subscribe(other)
        for data in (1, 2):
            await talk.call(
                "publish", {"channel": channel, "data": data, "idempotency_key": "k", "version": 1}
            )
        await talk.call(
            "broadcast", {"channels": [channel, other], "data": 3, "idempotency_key": "k"}
        )
        await client.pushes(2)


@scenario(JSON, PROTOBUF)
async def history(talk: Talk) -> None:
    """Every combination of limit, since and reverse, for a client and for the API, which has no cap."""
    channel = talk.channel("hist")
    await _publish(talk, channel, 12)
    client = await talk.client()
    epoch = (await client.ask({"history": {"channel": channel}}))["epoch"]
    for limit in (0, -1, 2, 7):
        for reverse in (False, True):
            for offset, of in (
                (None, ""),
                (5, epoch),
                (12, epoch),
                (1, ""),
                (0, ""),
                (20, epoch),
                (5, "x"),
            ):
                request: dict[str, Any] = {"channel": channel, "limit": limit, "reverse": reverse}
                if offset is not None:
                    request["since"] = {"offset": offset, "epoch": of}
                if talk.encoding == JSON:
                    await talk.call("history", request)
                await client.ask({"history": request})


@scenario(JSON, PROTOBUF)
async def batches_of_publications(talk: Talk) -> None:
    """Held back for a while, they come in the same order and say the same."""
    channel = talk.channel("batched")
    client, positioned = await talk.client(), await talk.client("positioned")
    await client.subscribe(channel)
    await positioned.subscribe(channel, recoverable=True)
    await _publish(talk, channel, 7, tags={"t": "1"})
    for one in (client, positioned):
        await one.pushes(7)


@scenario()
async def caches(talk: Talk) -> None:
    """Recovery of the newest publication only: first, at it, behind it, ahead, of another generation, after removal."""
    channel = talk.channel("cache")
    await _recover_at(talk, channel, 0, "")
    await _publish(talk, channel, 3)
    epoch = (await talk.call("history", {"channel": talk.channel("hist")}))["result"]["epoch"]
    first = await talk.client()
    epoch = (await first.subscribe(channel))["epoch"]
    for offset in (0, 1, 2, 3, 4):
        await _recover_at(talk, channel, offset, epoch)
    await _recover_at(talk, channel, 3, "")
    await _recover_at(talk, channel, 3, "another")
    await talk.call("history_remove", {"channel": channel})
    for offset in (0, 2, 3, 4):
        await _recover_at(talk, channel, offset, epoch)
    await _recover_at(talk, channel, 3, "another")
    await _publish(talk, channel, 1)
    await first.push()


@scenario()
async def automatic_cache_recovery(talk: Talk) -> None:
    """It needs no request; also for subscriptions of a token."""
    channel = talk.channel("autocache")
    client = await talk.client()
    await client.subscribe(channel)
    await client.unsubscribe(channel)
    await _publish(talk, channel, 2)
    result = await client.subscribe(channel)
    await client.unsubscribe(channel)
    await client.subscribe(channel, offset=2, epoch=result["epoch"])
    token = talk.token("ann", channels=[channel])
    await talk.client("server side", connect={"token": token})
    await talk.client(
        "again",
        connect={
            "token": token,
            "subs": {channel: {"recover": True, "offset": 2, "epoch": result["epoch"]}},
        },
    )


@scenario()
async def filtered_caches(talk: Talk) -> None:
    """The newest publication that passes."""
    channel = talk.channel("cache")
    for color in ("red", "blue", "green"):
        await talk.call("publish", {"channel": channel, "data": color, "tags": {"color": color}})
    for color in ("red", "green", "black"):
        wanted = {"key": "color", "cmp": "eq", "val": color}
        await _recover_at(talk, channel, 0, "", tf=wanted)
        await _recover_at(talk, channel, 3, "", tf=wanted)


@scenario()
async def server_side_recovery(talk: Talk) -> None:
    """Channels of a token with the positions of ``subs``."""
    channel, other = talk.channel("hist"), talk.channel("cache")
    await _publish(talk, channel, 3)
    await _publish(talk, other, 2)
    token = talk.token("ann", channels=[channel, other])
    first = await talk.client("first", connect={"token": token})
    await talk.call("publish", {"channel": channel, "data": "live"})
    await first.push()
    for offset, epoch in ((1, ""), (4, ""), (9, ""), (1, "another")):
        position = {"recover": True, "offset": offset, "epoch": epoch}
        await talk.client(
            f"at {offset}", connect={"token": token, "subs": {channel: position, other: position}}
        )
