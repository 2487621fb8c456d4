"""Tags filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.parity.encodings import JSON, PROTOBUF
from tests.parity.script import scenario
from tests.parity.talk import Talk


def _leaf(cmp: str, val: str = "", vals: Sequence[str] = (), key: str = "k") -> dict[str, Any]:
    fields = {"key": key, "cmp": cmp, "val": val, "vals": list(vals)}
    return {name: one for name, one in fields.items() if one}


_EQUAL = _leaf("eq", "1")
_BAD: list[dict[str, Any]] = [
    {},
    {"key": "k"},
    {"key": "k", "val": "1"},
    {"key": "k", "cmp": "like", "val": "1"},
    {"op": "xor", "nodes": [_EQUAL]},
    *(
        one
        for cmp in ("eq", "neq", "sw", "ew", "ct", "gt", "gte", "lt", "lte")
        for one in (
            _leaf(cmp),
            _leaf(cmp, "1", key=""),
            _leaf(cmp, "1", ["1"]),
            _leaf(cmp, vals=["1"]),
        )
    ),
    *(
        one
        for cmp in ("in", "nin")
        for one in (
            _leaf(cmp),
            _leaf(cmp, vals=["1"], key=""),
            _leaf(cmp, "1", ["1"]),
            _leaf(cmp, "1"),
        )
    ),
    *(one for cmp in ("ex", "nex") for one in (_leaf(cmp, "1"), _leaf(cmp, vals=["1"]))),
    *({"op": op} for op in ("and", "or", "not")),
    *({"op": op, "nodes": []} for op in ("and", "or", "not")),
    {"op": "not", "nodes": [_EQUAL, _EQUAL]},
    {"op": "and", "nodes": [_EQUAL, {"key": "k"}]},
    {"op": "or", "nodes": [{"op": "not", "nodes": [{"op": "and"}]}]},
]
_GOOD: list[dict[str, Any]] = [
    _leaf("ex", key=""),
    _leaf("nex", key=""),
    _leaf("gt", "many"),
    {**_EQUAL, "nodes": [{"op": "xor"}]},
    {"op": "and", "key": "k", "cmp": "like", "val": "1", "nodes": [_EQUAL]},
    {"op": "not", "nodes": [_EQUAL]},
    _leaf("in", vals=["", "1"]),
]


@scenario(JSON, PROTOBUF)
async def filters_that_are_wrong(talk: Talk) -> None:
    """Each mistake is 107, and the subscription isn't there."""
    channel = talk.channel("loosetags")
    client = await talk.client()
    for wanted in _BAD:
        await client.subscribe(channel, tf=wanted)
    for wanted in _GOOD:
        await client.subscribe(channel, tf=wanted)
        await client.unsubscribe(channel)
    await client.subscribe(talk.channel("open"), tf=_EQUAL)


@scenario()
async def filters_of_wrong_types(talk: Talk) -> None:
    """A frame whose filter cannot be read is the end."""
    channel = talk.channel("loosetags")
    for wanted in (1, [], {"key": 1, "cmp": "eq", "val": "1"}, {"op": "and", "nodes": {}}):
        client = await talk.client()
        await client.subscribe(channel, tf=wanted)
    client = await talk.client()
    await client.subscribe(channel, tf=None)


_TAGS: list[dict[str, str] | None] = [
    None,
    {"k": ""},
    {"k": "abc"},
    {"k": "ABC"},
    {"k": "10"},
    {"k": "+10.0"},
    {"k": "010"},
    {"k": "9.99"},
    {"k": "-10"},
    {"k": "1e1"},
    {"k": ".5"},
    {"k": "5."},
    {"k": " 10"},
    {"k": "0x10"},
    {"k": "inf"},
    {"k": "9007199254740993"},
    {"k": "10.00000000000000000001"},
    {"k": "10.0000000000000000001"},
    {"other": "10"},
]
_WANTED: list[dict[str, Any]] = [
    _leaf("eq", "abc"),
    _leaf("neq", "abc"),
    _leaf("in", vals=["abc", "10"]),
    _leaf("in", vals=["", "10"]),
    _leaf("nin", vals=["abc", "10"]),
    _leaf("nin", vals=["", "10"]),
    _leaf("ex"),
    _leaf("nex"),
    _leaf("sw", "a"),
    _leaf("ew", "C"),
    _leaf("ct", "b"),
    _leaf("gt", "10"),
    _leaf("gte", "10"),
    _leaf("lt", "10"),
    _leaf("lte", "10"),
    _leaf("gt", "9007199254740992"),
    _leaf("lte", "ten"),
    {"op": "and", "nodes": [_leaf("ex"), _leaf("neq", "abc")]},
    {"op": "or", "nodes": [_leaf("nex"), _leaf("eq", "abc")]},
    {"op": "not", "nodes": [{"op": "or", "nodes": [_leaf("nex"), _leaf("eq", "abc")]}]},
]


@scenario()
async def filters_let_through(talk: Talk) -> None:
    """What each comparison takes of every tag; join and leave are not asked."""
    channel = talk.channel("loosetags")
    for wanted in _WANTED:
        client = await talk.client(f"wants {wanted}")
        await client.subscribe(channel, tf=wanted)
    for number, tags in enumerate(_TAGS):
        await talk.call(
            "publish", {"channel": channel, "data": number, **({"tags": tags} if tags else {})}
        )


@scenario(JSON, PROTOBUF)
async def filters_in_recovery(talk: Talk) -> None:
    """Recovered and then filtered; live ones leave holes in the offsets, and history isn't filtered."""
    channel = talk.channel("tagged")
    for color in ("red", "blue", "red"):
        await talk.call("publish", {"channel": channel, "data": color, "tags": {"k": color}})
    for color in ("red", "blue", "black"):
        client = await talk.client(color)
        await client.subscribe(channel, recover=True, tf=_leaf("eq", color))
    for color in ("blue", "red"):
        await talk.call("publish", {"channel": channel, "data": color, "tags": {"k": color}})
    await client.ask({"history": {"channel": channel, "limit": -1}})
    client = await talk.client("lost")
    await client.subscribe(channel, recover=True, offset=9, tf=_leaf("eq", "red"))
