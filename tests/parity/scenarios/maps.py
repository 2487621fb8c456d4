"""Maps: subscribing by phases, writing, presence."""

from __future__ import annotations

from typing import Any

from tests.parity.encodings import JSON, PROTOBUF
from tests.parity.script import scenario
from tests.parity.talk import ABSENT, Client, Differs, Talk


STREAM, LIVE, STATE = 1, 0, 2


async def _fill(talk: Talk, channel: str, *keys: str, **more: Any) -> None:
    for key in keys:
        await talk.call(
            "map_publish", {"channel": channel, "key": key, "data": {"of": key}, **more}
        )


async def _ask(
    client: Client, channel: str, phase: int, *, differs: Differs | None = None, **request: Any
) -> Any:
    filled = {name: one for name, one in {"phase": phase, **request}.items() if one}
    return await client.subscribe(channel, differs=differs, **{"type": 1, **filled})


@scenario(JSON, PROTOBUF)
async def maps_at_once(talk: Talk) -> None:
    """A map of one page goes live with its state, in each mode; then come changes and removals."""
    for namespace in ("rec", "board"):
        channel = talk.channel(namespace)
        client = await talk.client(namespace)
        await _ask(client, channel, STATE)
        await _fill(talk, channel, "a", "b", tags={"t": "1"})
        await talk.call("map_remove", {"channel": channel, "key": "a"})
        await talk.call("map_remove", {"channel": channel, "key": "a"})
        await client.pushes(3)
        await client.unsubscribe(channel)
        await _ask(client, channel, STATE, limit=100)


@scenario()
async def maps_by_pages(talk: Talk) -> None:
    """Cursors lead through the state; what changes meanwhile comes with the last page."""
    channel = talk.channel("board")
    await _fill(talk, channel, "a", "b", "c", "d", "e")
    client = await talk.client()
    page = await _ask(client, channel, STATE, limit=2)
    await _fill(talk, channel, "a", "bb", "e")
    position = {"offset": page["offset"], "epoch": page["epoch"]}
    while page and page.get("cursor"):
        page = await _ask(client, channel, STATE, limit=2, cursor=page["cursor"], **position)
    await _stream_until_live(client, channel, page, 2)
    await _fill(talk, channel, "f")
    await client.push()


async def _stream_until_live(client: Client, channel: str, page: Any, limit: int) -> None:
    while page and page.get("phase"):
        page = await _ask(
            client, channel, STREAM, limit=limit, offset=page["offset"], epoch=page["epoch"]
        )


@scenario(JSON, PROTOBUF)
async def maps_by_pages_of_the_stream(talk: Talk) -> None:
    """So much changed since the first page that the stream is read by pages, too."""
    channel = talk.channel("board")
    await _fill(talk, channel, "a", "b", "c", "d")
    client = await talk.client()
    page = await _ask(client, channel, STATE, limit=2)
    await _fill(talk, channel, *"efghijk")
    await talk.call("map_remove", {"channel": channel, "key": "e"})
    position = {"offset": page["offset"], "epoch": page["epoch"]}
    page = await _ask(client, channel, STATE, limit=2, cursor=page["cursor"], **position)
    await _stream_until_live(client, channel, page, 2)


@scenario()
async def map_page_sizes(talk: Talk) -> None:
    """The default, the smallest and the largest page."""
    channel = talk.channel("board")
    await _fill(talk, channel, *"abcdef")
    for limit in (0, 1, 2, 3, 100, -1):
        client = await talk.client(f"limit {limit}")
        await _ask(client, channel, STATE, limit=limit)


def _no_epoch(path: str) -> Differs:
    why = "an ephemeral map has no epoch with any engine here; with Centrifugo's Redis it has none either"
    return Differs(why, {f"{path}.epoch": ABSENT})


_NO_EPOCH_IN_REPLY = _no_epoch("subscribe")
_NO_EPOCH_IN_RESULT = _no_epoch("body.result")


_HELD_BACK = Differs(
    "what was written while pages were read is not lost; Centrifugo holds back only what has an offset",
    {
        "subscribe.epoch": ABSENT,
        "subscribe.publications": [
            {"data": 2, "key": "a"},
            {"data": 2, "key": "z"},
            {"tags": {"t": "1"}, "key": "c", "removed": True},
        ],
    },
)


@scenario(JSON, PROTOBUF)
async def maps_without_a_stream(talk: Talk) -> None:
    """An ephemeral one: the last page is live whatever happened meanwhile, and nothing recovers."""
    channel = talk.channel("eph")

    async def write(method: str, **change: Any) -> None:
        await talk.call(method, {"channel": channel, **change}, differs=_NO_EPOCH_IN_RESULT)

    for key in "abcdef":
        await write("map_publish", key=key, data={"of": key}, tags={"t": "1"})
    client = await talk.client()
    request: dict[str, Any] = {"type": 1, "phase": STATE, "limit": 2}
    page = await client.subscribe(channel, **request, differs=_NO_EPOCH_IN_REPLY)
    await write("map_publish", key="a", data=2)
    await write("map_publish", key="z", data=2)
    await write("map_remove", key="c")
    await write("map_remove", key="c")
    while page and page.get("cursor"):
        position = {"cursor": page["cursor"]}
        page = await client.subscribe(
            channel,
            **request,
            **position,
            # The pages lead from "b" to "d" to "f".
            differs=_HELD_BACK if position["cursor"] >= "d" else _NO_EPOCH_IN_REPLY,
        )
    await write("map_publish", key="y", data=2)
    await client.push()
    await write("map_remove", key="y")
    await client.push()
    await write("map_read_state", limit=-1)
    await write("map_read_stream", limit=-1)
    await _ask(await talk.client("stream"), channel, STREAM)
    await _ask(await talk.client("recovers"), channel, STREAM, recover=True)
    straight = await talk.client("straight")
    await straight.subscribe(channel, type=1)


_AHEAD = Differs(
    "a client that is ahead of the stream, or behind one that lost all, has not what it thinks it has",
    ours={"id": 2, "error": {"code": 112, "message": "unrecoverable position"}},
)


@scenario()
async def maps_recovered(talk: Talk) -> None:
    """A reconnect continues from its position: by the stream and straight."""
    channel = talk.channel("board")
    await _fill(talk, channel, *"abc")
    client = await talk.client()
    epoch = (await _ask(client, channel, STATE, limit=4))["epoch"]
    await client.unsubscribe(channel)
    for phase in (STREAM, LIVE):
        for offset in (0, 1, 2, 3, 4):
            again = await talk.client(f"phase {phase} at {offset}")
            await _ask(
                again,
                channel,
                phase,
                recover=True,
                offset=offset,
                epoch=epoch,
                differs=_AHEAD if offset == 4 else None,
            )
            await again.unsubscribe(channel)
    await _fill(talk, channel, *"defgh")
    for phase in (STREAM, LIVE):
        again = await talk.client(f"later, phase {phase}")
        page = await _ask(again, channel, phase, recover=True, offset=1, epoch=epoch, limit=2)
        await _stream_until_live(again, channel, page, 2)


@scenario()
async def maps_unrecoverable(talk: Talk) -> None:
    """Another epoch, none, and a stream that no longer reaches back: 112."""
    channel = talk.channel("rec")
    await _fill(talk, channel, *"abcdefgh")
    epoch = (await talk.call("map_read_state", {"channel": channel}))["result"]["epoch"]
    for phase in (STREAM, LIVE):
        for offset, of in ((8, "another"), (2, epoch), (3, epoch), (7, epoch), (8, ""), (7, "")):
            client = await talk.client(f"phase {phase} at {offset}")
            await _ask(client, channel, phase, recover=True, offset=offset, epoch=of)
    client = await talk.client("straight without an epoch")
    await _ask(client, channel, LIVE, offset=8)
    client = await talk.client("straight with the epoch")
    await _ask(client, channel, LIVE, offset=8, epoch=epoch)
    client = await talk.client("straight with another")
    await _ask(client, channel, LIVE, offset=8, epoch="another")


@scenario()
async def map_loads_that_break(talk: Talk) -> None:
    """Continuations that do not fit: no load, another epoch, an initial request again, unknown phases and types."""
    channel = talk.channel("board")
    await _fill(talk, channel, *"abcde")
    client = await talk.client()
    await _ask(client, channel, STATE, cursor="a")
    await _ask(client, channel, STREAM)
    await _ask(client, channel, STREAM, offset=1)
    await _ask(client, channel, 7)
    await _ask(client, channel, STATE, type=2)
    await _ask(client, channel, STATE, type=3)
    await client.subscribe(channel)
    await _ask(client, channel, STATE, type=4)
    await _ask(client, talk.channel("hist"), STATE)
    await _ask(client, talk.channel("nowhere"), STATE)
    await _ask(client, talk.channel("closed"), STATE)
    await _ask(client, talk.channel("board", "x" * 80), STATE)
    page = await _ask(client, channel, STATE, limit=2)
    await _ask(client, channel, STATE, limit=2)
    await _ask(client, channel, LIVE, recover=True, offset=5, epoch=page["epoch"])
    client = await talk.client("another epoch")
    page = await _ask(client, channel, STATE, limit=2)
    await _ask(client, channel, STATE, limit=2, cursor=page["cursor"], offset=5, epoch="another")
    await _ask(
        client, channel, STATE, limit=2, cursor=page["cursor"], offset=5, epoch=page["epoch"]
    )
    client = await talk.client("leaves while loading")
    page = await _ask(client, channel, STATE, limit=2)
    await talk.call("map_clear", {"channel": channel})
    await _ask(
        client, channel, STATE, limit=2, cursor=page["cursor"], offset=5, epoch=page["epoch"]
    )


@scenario()
async def maps_subscribed_twice(talk: Talk) -> None:
    """105, and the limit of channels counts loads."""
    client = await talk.client()
    for number in range(8):
        await _ask(client, talk.channel("board", f"-{number}"), STATE)
    await _ask(client, talk.channel("board", "-0"), STATE)
    await _ask(client, talk.channel("board", "-8"), STATE)


@scenario(JSON, PROTOBUF)
async def maps_written_by_clients(talk: Talk) -> None:
    """Publishing and removing keys; what is missing, and plain publications into a map."""
    channel = talk.channel("board")
    client, other = await talk.client(), await talk.client("other")
    await _ask(client, channel, STATE)
    await other.ask({"publish": {"channel": channel, "type": 1, "key": "k", "data": {"a": 1}}})
    await client.push()
    await client.ask({"publish": {"channel": channel, "type": 1, "key": "k", "removed": True}})
    await client.push()
    await client.ask({"publish": {"channel": channel, "type": 1, "key": "k", "removed": True}})
    await client.ask({"publish": {"channel": channel, "type": 1, "data": {"a": 1}}})
    await client.ask({"publish": {"channel": channel, "type": 1, "removed": True}})
    await client.ask({"publish": {"channel": channel, "type": 1, "key": "empty"}})
    await client.push()
    await client.ask(
        {"publish": {"channel": talk.channel("open"), "type": 1, "key": "k", "data": 1}}
    )
    await client.ask(
        {"publish": {"channel": talk.channel("nowhere"), "type": 1, "key": "k", "data": 1}}
    )
    await talk.call("map_read_state", {"channel": channel, "limit": -1})


@scenario()
async def maps_closed_to_writers(talk: Talk) -> None:
    """103 without a permission; a subscriber's permission, which doesn't reach anonymous ones."""
    for namespace in ("mapclosed", "mapmembers"):
        channel = talk.channel(namespace)
        for user in ("", "ann"):
            token = talk.token(user)
            client = await talk.client(
                f"{user or 'nobody'} of {namespace}", connect={"token": token}
            )
            for _ in range(2):
                for request in ({"data": 1}, {"removed": True}):
                    await client.ask(
                        {"publish": {"channel": channel, "type": 1, "key": "k", **request}}
                    )
                if await _ask(client, channel, STATE) is None:
                    break


@scenario()
async def map_keys_of_clients(talk: Talk) -> None:
    """The server chooses the key: the client, which takes it away with its subscription, or the user."""
    channel = talk.channel("byclient")
    watcher = await talk.client("watcher")
    await _ask(watcher, channel, STATE)
    client = await talk.client()
    await _ask(client, channel, STATE)
    await client.ask({"publish": {"channel": channel, "type": 1, "key": "mine", "data": 1}})
    await watcher.push()
    await client.push()
    await client.unsubscribe(channel)
    await watcher.push()
    channel = talk.channel("byuser")
    await client.ask({"publish": {"channel": channel, "type": 1, "key": "mine", "data": 1}})
    ann = await talk.client("ann", connect={"token": talk.token("ann", info={"name": "Ann"})})
    await ann.ask({"publish": {"channel": channel, "type": 1, "key": "mine", "data": 1}})
    await ann.ask({"publish": {"channel": channel, "type": 1, "data": 2}})
    await talk.call("map_read_state", {"channel": channel, "limit": -1})


@scenario(JSON, PROTOBUF)
async def map_presence(talk: Talk) -> None:
    """Who is in a channel, as a map of clients and as one of users."""
    suffix = talk.channel("watched").partition(":")[2]
    channel = f"watched:{suffix}"
    clients, users = f"mapclients:watched:{suffix}", f"mapusers:watched:{suffix}"
    watcher = await talk.client("watcher")
    await watcher.subscribe(clients, type=2, phase=STATE)
    await watcher.subscribe(users, type=3, phase=STATE)
    ann = await talk.client("ann", connect={"token": talk.token("ann", info={"name": "Ann"})})
    await ann.subscribe(channel)
    await watcher.pushes(2)
    nobody = await talk.client("nobody")
    await nobody.subscribe(channel)
    await watcher.push()
    await talk.call("map_stats", {"channel": clients})
    await talk.call("map_read_state", {"channel": users, "limit": -1})
    await ann.ask({"unsubscribe": {"channel": channel}})
    await watcher.push()
    late = await talk.client("late")
    await late.subscribe(clients, type=2, phase=STATE)
    await late.subscribe(users, type=3, phase=STATE)
    await late.ask({"publish": {"channel": clients, "type": 1, "key": "k", "data": 1}})


def _null(talk: Talk, path: str) -> Differs | None:
    why = "centrifuge-js 5.7 stops at a removal whose data it cannot parse"
    return Differs(why, {path: "null"}) if talk.encoding == JSON else None


@scenario(JSON, PROTOBUF)
async def map_deltas(talk: Talk) -> None:
    """Patches to the same key's value; the state is full, a removal ends the chain."""
    channel = talk.channel("mapdoc")
    text = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor"

    async def write(*changes: tuple[str, int]) -> None:
        for key, number in changes:
            await talk.call(
                "map_publish",
                {"channel": channel, "key": key, "data": {"text": text, "key": key, "n": number}},
            )

    await write(("a", 1))
    client = await talk.client()
    epoch = (await _ask(client, channel, STATE, delta="fossil"))["epoch"]
    await write(("a", 2), ("b", 1), ("b", 2), ("a", 3))
    await client.pushes(4)
    await talk.call("map_remove", {"channel": channel, "key": "a"})
    await client.push(differs=_null(talk, "push.pub.data"))
    await write(("a", 4))
    await client.push()
    again = await talk.client("again")
    await _ask(
        again,
        channel,
        STREAM,
        recover=True,
        offset=1,
        epoch=epoch,
        delta="fossil",
        differs=_null(talk, "subscribe.publications.4.data"),
    )
    await write(("a", 5), ("c", 1))
    await again.pushes(2)
    await client.pushes(2)


@scenario()
async def map_filters(talk: Talk) -> None:
    """In the state, in the stream, live; a removal has the tags of what it removes."""
    channel = talk.channel("maptags")
    wanted = {"key": "t", "cmp": "eq", "val": "1"}
    await _fill(talk, channel, "a", "b", tags={"t": "1"})
    await _fill(talk, channel, "c", tags={"t": "2"})
    client = await talk.client()
    epoch = (await _ask(client, channel, STATE, tf=wanted))["epoch"]
    await _fill(talk, channel, "d", tags={"t": "2"})
    await _fill(talk, channel, "e", tags={"t": "1"})
    await client.push()
    await talk.call("map_remove", {"channel": channel, "key": "c"})
    await talk.call("map_remove", {"channel": channel, "key": "a"})
    await client.push()
    again = await talk.client("again")
    await _ask(again, channel, STREAM, recover=True, offset=3, epoch=epoch, tf=wanted)
    wrong = await talk.client("wrong")
    await _ask(wrong, channel, STATE, tf={"op": "and"})
    await _ask(wrong, talk.channel("board"), STATE, tf=wanted)


@scenario()
async def maps_cleared(talk: Talk) -> None:
    """A new generation: who follows the old one is told at the next change."""
    channel = talk.channel("board")
    await _fill(talk, channel, "a")
    client = await talk.client()
    await _ask(client, channel, STATE)
    await talk.call("map_clear", {"channel": channel})
    await _fill(talk, channel, "b")
    await client.push()
    await _ask(client, channel, STATE)


@scenario()
async def map_tokens(talk: Talk) -> None:
    """A subscription token opens a map, too."""
    channel = talk.channel("mapclosed")
    client = await talk.client(connect={"token": talk.token("ann")})
    for token in (
        talk.token("ann", channel=channel, exp=-60),
        talk.token("ann", channel=channel, key="another secret, as long as it has to be"),
    ):
        await _ask(client, channel, STATE, token=token)
    why = "a subscription that ends says when, so that its token can be refreshed"
    changes = {
        "subscribe.expires": True,
        "subscribe.ttl": "<about 100>",
        "subscribe.data": {"a": 1},
    }
    await _ask(
        client,
        channel,
        STATE,
        token=talk.token("ann", channel=channel, exp=100, data={"a": 1}),
        differs=Differs(why, changes),
    )


@scenario(hasty=True)
async def maps_loaded_too_slowly(talk: Talk) -> None:
    """A load that is continued too late ends the connection; whoever pings is the clock."""
    channel = talk.channel("impatient")
    await _fill(talk, channel, "a", "b", "c")
    connect = {"token": talk.token("slow")}
    clock = await talk.client("clock", connect=connect, answers_pings=False)
    client = await talk.client(connect=connect)
    page = await _ask(client, channel, STATE, limit=1)
    await clock.next()
    await clock.send({})
    position = {"offset": page["offset"], "epoch": page["epoch"]}
    await _ask(client, channel, STATE, limit=1, cursor=page["cursor"], **position)
