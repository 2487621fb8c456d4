"""Shared polls: keys whose values an application is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.parity.encodings import JSON, PROTOBUF
from tests.parity.script import scenario
from tests.parity.talk import Client, Talk


async def _track(
    talk: Talk,
    client: Client,
    channel: str,
    *keys: str,
    untrack: Sequence[str] = (),
    ttl: int = 0,
    **versions: int,
) -> Any:
    items = [
        {"key": key, **({"version": versions[key]} if key in versions else {})} for key in keys
    ]
    batch = {"signature": talk.signature(channel, *keys, ttl=ttl), "items": items}
    request: dict[str, Any] = {"channel": channel, "type": 1, "track": [batch]}
    if untrack:
        request["untrack"] = list(untrack)
    return await client.ask({"sub_refresh": request})


@scenario(JSON, PROTOBUF)
async def polls_of_plain_values(talk: Talk) -> None:
    """At once for a new key; then when a value changes or goes."""
    channel = talk.channel("poll")
    key = f"key-{talk.encoding}"
    values, removed = talk.place.polled.values, talk.place.polled.removed
    talk.place.polled.epoch = ""
    talk.masks.makes_versions = True
    values[key] = ({"p": 1}, 0)
    client = await talk.client()
    await client.subscribe(channel, type=4)
    await _track(talk, client, channel, key)
    await client.push()
    values[key] = ({"p": 2}, 0)
    await client.push()
    removed.add(key)
    await client.push()
    removed.discard(key)


@scenario(JSON, PROTOBUF)
async def polls_of_versions(talk: Talk) -> None:
    """Only what is newer; one that has the newest gets nothing, one that is behind gets it at once."""
    channel = talk.channel("versions")
    key = f"v-{talk.encoding}"
    values = talk.place.polled.values
    talk.place.polled.epoch = ""
    values[key] = ({"p": 5}, 5)
    client = await talk.client()
    await client.subscribe(channel, type=4)
    await _track(talk, client, channel, key)
    await client.push()
    current, behind = await talk.client("current"), await talk.client("behind")
    await current.subscribe(channel, type=4)
    await _track(talk, current, channel, key, **{key: 5})
    await behind.subscribe(channel, type=4)
    await _track(talk, behind, channel, key, **{key: 4})
    await behind.push()
    values[key] = ({"p": 6}, 6)
    for one in (client, current, behind):
        await one.push()


@scenario()
async def polls_published_to(talk: Talk) -> None:
    """A version by the API comes without a poll; an older one is dropped; a removed tracker gets nothing."""
    channel = talk.channel("versions")
    talk.place.polled.epoch = ""
    client, gone = await talk.client(), await talk.client("gone")
    for one in (client, gone):
        await one.subscribe(channel, type=4)
        await _track(talk, one, channel, "pub-a", "pub-b", **{"pub-a": 1})
    await gone.ask({"sub_refresh": {"channel": channel, "type": 2, "untrack": ["pub-a", "never"]}})
    for version in (2, 2, 1, 3):
        await talk.call(
            "shared_poll_publish",
            {"channel": channel, "key": "pub-a", "version": version, "data": {"v": version}},
        )
    await client.pushes(2)


@scenario()
async def polls_published_wrongly(talk: Talk) -> None:
    """What the API refuses."""
    channel = talk.channel("versions")
    good = {"channel": channel, "key": "k", "version": 1, "data": 1}
    for change in (
        {"channel": ""},
        {"channel": talk.channel("nowhere")},
        {"channel": talk.channel("poll")},
        {"channel": talk.channel("hist")},
        {"channel": talk.channel("board")},
        {"key": ""},
        {"version": 0},
        {"version": -1},
        {"version": "1"},
        {"b64data": "!"},
        {"b64data": "e30="},
        {},
    ):
        await talk.call("shared_poll_publish", {**good, **change})
    await talk.call("shared_poll_publish", {"channel": channel, "key": "k", "version": 2})


@scenario()
async def poll_epochs(talk: Talk) -> None:
    """Another epoch of the application: all trackers have to start again."""
    channel = talk.channel("versions")
    talk.place.polled.epoch = ""
    client = await talk.client()
    await client.subscribe(channel, type=4)
    await _track(talk, client, channel, "epoch-a", **{"epoch-a": 3})
    await talk.call(
        "shared_poll_publish",
        {"channel": channel, "key": "epoch-a", "version": 1, "data": 1, "epoch": "second"},
    )
    await client.push()
    talk.place.polled.epoch = "second"
    await client.subscribe(channel, type=4)
    talk.place.polled.values["epoch-a"] = ({"p": 9}, 9)
    await _track(talk, client, channel, "epoch-a")
    await client.push()
    talk.place.polled.epoch = ""


@scenario(JSON, PROTOBUF)
async def poll_signatures(talk: Talk) -> None:
    """Each reason to refuse a batch, and how long a good one is good for."""
    channel = talk.channel("versions")
    talk.place.polled.epoch = ""
    client = await talk.client()
    await client.subscribe(channel, type=4)

    async def ask(**request: Any) -> None:
        await client.ask({"sub_refresh": {"channel": channel, "type": 1, **request}})

    def batch(signature: str, *keys: str) -> dict[str, Any]:
        return {"signature": signature, "items": [{"key": key, "version": 9} for key in keys]}

    good = talk.signature(channel, "a")
    await ask()
    await ask(track=[])
    await ask(track=[batch(good)])
    await ask(track=[batch(good, "b")])
    await ask(track=[batch(good, "a", "b")])
    await ask(track=[batch("", "a")])
    await ask(track=[batch("1:2", "a")])
    await ask(track=[batch("x:y:z", "a")])
    await ask(track=[batch(talk.signature(channel, "a", key="another secret"), "a")])
    await ask(track=[batch(talk.signature(channel, "a", user="ann"), "a")])
    await ask(track=[batch(talk.signature(talk.channel("poll"), "a"), "a")])
    await ask(track=[batch(talk.signature(channel, "a", ttl=-60), "a")])
    await ask(track=[batch(talk.signature(channel, "b", "a"), "a", "b")])
    await ask(track=[batch(good, "a"), batch(talk.signature(channel, "b", ttl=-60), "b")])
    await ask(track=[batch(good, "a")])
    await ask(track=[batch(talk.signature(channel, "a", ttl=100), "a")])
    await ask(
        track=[
            batch(talk.signature(channel, "a", ttl=100), "a"),
            batch(talk.signature(channel, "b", ttl=50), "b"),
        ]
    )
    await ask(track=[batch(talk.signature(channel, "c", "d"), "c", "d")])
    await ask(track=[batch(talk.signature(channel, "c", "d"), "c", "d")], untrack=["a"])
    await ask(type=2)
    await ask(type=2, untrack=[])
    await ask(type=2, untrack=["zzz"])
    await ask(type=3)
    other = {"channel": talk.channel("poll"), "type": 1, "track": [batch(good, "a")]}
    await client.ask({"sub_refresh": other})
    await client.ask({"sub_refresh": {"channel": channel, "type": 0}})


@scenario()
async def poll_subscriptions(talk: Talk) -> None:
    """Types that do not fit, twice, and what a plain publish or a map's method does."""
    channel = talk.channel("poll")
    client = await talk.client()
    for kind in (0, 1, 2, 3, 5):
        await (await talk.client(f"type {kind}")).subscribe(channel, type=kind)
    await client.subscribe(talk.channel("hist"), type=4)
    await client.subscribe(talk.channel("board"), type=4)
    await client.subscribe(channel, type=4, delta="fossil")
    await client.subscribe(channel, type=4)
    await client.ask({"publish": {"channel": channel, "data": 1}})
    await client.ask({"publish": {"channel": channel, "data": 1, "type": 1, "key": "k"}})
    await client.ask({"history": {"channel": channel}})
    await talk.call("publish", {"channel": channel, "data": 1})
    await talk.call("map_publish", {"channel": channel, "key": "a", "data": 1})
    await client.unsubscribe(channel)


@scenario(JSON, PROTOBUF)
async def poll_deltas_and_epochs(talk: Talk) -> None:
    """What a publication says of the epoch, with deltas and without."""
    channel = talk.channel("versions")
    key = f"both-{talk.encoding}"
    publish = {"channel": channel, "key": key, "epoch": "first"}
    for delta in ("fossil", ""):
        client = await talk.client(delta or "plain")
        await client.subscribe(channel, type=4, **({"delta": delta} if delta else {}))
        await _track(talk, client, channel, key, **{key: 1})
        if delta:
            await talk.call("shared_poll_publish", {**publish, "version": 2, "data": {"v": 2}})
            await client.push()
            talk.place.polled.epoch = "first"
            await client.subscribe(channel, type=4, delta=delta)
            await _track(talk, client, channel, key, **{key: 1})
        await talk.call("shared_poll_publish", {**publish, "version": 3 + (not delta), "data": {}})
        await client.push()
        await client.unsubscribe(channel)
    talk.place.polled.epoch = ""


@scenario(JSON, PROTOBUF)
async def poll_deltas(talk: Talk) -> None:
    """Negotiated: the value as text, and full while the server keeps no former one."""
    channel = talk.channel("versions")
    key = f"delta-{talk.encoding}"
    talk.place.polled.epoch = ""
    client = await talk.client()
    await client.subscribe(channel, type=4, delta="fossil")
    await _track(talk, client, channel, key, **{key: 1})
    for version in (2, 3):
        await talk.call(
            "shared_poll_publish",
            {
                "channel": channel,
                "key": key,
                "version": version,
                "data": {"v": version, "text": "x" * 99},
            },
        )
    await client.pushes(2)
