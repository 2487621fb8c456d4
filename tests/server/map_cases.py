"""The cases of maps: 8 of the server API, 12.4 to 12.8 of what it means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.server.api_cases import (
    BAD_REQUEST,
    FORBIDDEN,
    SERVER_ERROR,
    STREAM,
    Case,
    b64,
    call,
    error_text,
    ok,
    refused,
    reply,
)
from tests.server.api_world import EPOCH, EVERYTHING_KEY, KEY, NOW, PUBLISH_KEY, Answer, Call


TIME = b'"time":%d' % (NOW * 1000)
METHODS = (
    "map_publish",
    "map_remove",
    "map_read_state",
    "map_read_stream",
    "map_stats",
    "map_clear",
)


def put(key: str, data: Any = 1, channel: str = "map:a", **facts: Any) -> Call:
    """Write a key."""
    return call("map_publish", {"channel": channel, "key": key, "data": data, **facts})


def remove(key: str, channel: str = "map:a", **facts: Any) -> Call:
    """Remove a key."""
    return call("map_remove", {"channel": channel, "key": key, **facts})


def state(channel: str = "map:a", **what: Any) -> Call:
    """Read keys."""
    return call("map_read_state", {"channel": channel, **what})


def stream(channel: str = "map:a", **what: Any) -> Call:
    """Read changes."""
    return call("map_read_stream", {"channel": channel, **what})


def written(offset: int, suppressed: str = "") -> Answer:
    """Expect a position, and why nothing was written."""
    parts = [b'"offset":%d' % offset] if offset else []
    parts.append(STREAM)
    if suppressed:
        parts.append(b'"suppressed":true,"suppress_reason":"%b"' % suppressed.encode())
    return ok(b"{%b}" % b",".join(parts))


def entry(key: str, offset: int, data: bytes = b"1") -> bytes:
    """Write an entry; without data it is a removal."""
    what = b'"data":%b,"offset":%d' if data else b'%b"offset":%d,"removed":true'
    return b'{"key":"%b",%b,%b}' % (key.encode(), what % (data, offset), TIME)


def entries(*parts: bytes, top: int, cursor: str = "") -> Answer:
    """Expect these entries and this position."""
    fields = [b'"entries":[%b]' % b",".join(parts)] if parts else []
    fields += [b'"offset":%d' % top] if top else []
    fields.append(STREAM)
    fields += [b'"cursor":"%b"' % cursor.encode()] if cursor else []
    return ok(b"{%b}" % b",".join(fields))


# Offsets 1 to 4; c is gone and b was written last.
FOUR = (put("a"), put("c"), remove("c"), put("b", 2))
A, B = entry("a", 1), entry("b", 4, b"2")


def map_cases() -> Iterator[Case]:
    """All of them."""
    yield from refusal_cases()
    yield from publish_cases()
    yield from remove_cases()
    yield from state_cases()
    yield from stream_cases()
    yield from other_cases()


def refusal_cases() -> Iterator[Case]:
    """What holds for every method."""
    key = {"key": "k", "data": 1}
    for method in METHODS:
        is_write = method in ("map_publish", "map_remove")
        body = key if is_write else {}
        yield Case(f"{method}: no channel", call(method, body), refused(107))
        for channel, code in (("no_such:a", 102), ("chat", 107), ("hist:a", 107), ("poll:a", 107)):
            request = call(method, {"channel": channel, **body})
            yield Case(f"{method}: channel {channel}", request, refused(code))
        if is_write:
            for name in ("map:a", "no_such:a"):
                request = call(method, {"channel": name, "data": 1})
                yield Case(f"{method}: no key in {name}", request, refused(107))
        request = call(method, {"channel": "map:a", **body})
        yield Case(f"engine failure in {method}", request, refused(100), is_broken=True)
        yield Case(f"malformed {method}", call(method, b'{"channel":1}'), BAD_REQUEST)
        for name, shown, expected in (
            ("a row without the scope", PUBLISH_KEY, FORBIDDEN),
            ("a row for everything", EVERYTHING_KEY, refused(107)),
        ):
            request = call(method, {}, headers={"x-api-key": shown})
            yield Case(f"{method} by {name}", request, expected)
    yield Case(
        "maps in a batch by a row without the scope",
        call(
            "batch",
            {"commands": [{method: {"channel": "map:a", "key": "k"}} for method in METHODS[:2]]},
            headers={"x-api-key": PUBLISH_KEY},
        ),
        reply(b'{"replies":[{"error":%b},{"error":%b}]}' % (error_text(103), error_text(103))),
    )
    asks = {"x-api-key": KEY, "x-centrifugo-error-mode": "transport"}
    yield Case(
        "transport mode and a map that began anew",
        call("map_read_state", {"channel": "map:a", "revision_epoch": "x"}, headers=asks),
        Answer(416, error_text(112)),
    )
    for method, body in (
        ("map_publish", {"version": -1}),
        ("map_publish", {"version": 2**64}),
        ("map_publish", {"score": 2**63}),
        ("map_read_state", {"limit": 2**31}),
        ("map_read_state", {"revision_offset": 2**64}),
        ("map_read_stream", {"since_offset": 2**64}),
        ("map_read_stream", {"since_offset": -1}),
    ):
        yield Case(f"out of range: {method} {body}", call(method, body), BAD_REQUEST)


def publish_cases() -> Iterator[Case]:
    """8.1 and 12.4."""
    for name, request, expected, before in (
        ("first", put("k"), written(1), ()),
        ("second", put("k"), written(2), (put("k"),)),
        ("no data", call("map_publish", {"channel": "map:a", "key": "k"}), written(1), ()),
        (
            "what is not used",
            put("k", score=-5, stream_data=[1], b64stream_data="!"),
            written(1),
            (),
        ),
        ("if_new, new", put("k", key_mode="if_new"), written(1), ()),
        ("if_new, there", put("k", key_mode="if_new"), written(1, "key_exists"), (put("k"),)),
        ("if_new, removed", put("c", key_mode="if_new"), written(5), FOUR),
        ("if_exists, there", put("k", key_mode="if_exists"), written(2), (put("k"),)),
        (
            "if_exists, new",
            put("x", key_mode="if_exists"),
            written(1, "key_not_found"),
            (put("k"),),
        ),
        ("clients", put("id", channel="clients:a"), written(1), ()),
        ("users", put("id", channel="users:a"), written(1), ()),
        ("an object", put("k", {}, channel="objects:a"), written(1), ()),
        ("base64 wins", put("k", 1, channel="objects:a", b64data=b64(b"{}")), written(1), ()),
        ("into nothing kept", put("k", channel="brief:a"), ok(), ()),
        ("delta", put("k", delta=True), written(2), (put("k"),)),
    ):
        yield Case(f"map_publish: {name}", request, expected, before=before)
    for name, facts, code in (
        ("bad key mode", {"key_mode": "if_old"}, 107),
        ("bad key mode in an unknown namespace", {"channel": "no_such:a", "key_mode": "x"}, 102),
        ("bad base64", {"b64data": "!"}, 107),
        ("bad base64 before the namespace", {"channel": "no_such:a", "b64data": "!"}, 107),
        ("no object", {"channel": "objects:a"}, 107),
        ("a version without a stream", {"channel": "brief:a", "version": 1}, 100),
    ):
        yield Case(f"map_publish: {name}", put("k", **facts), refused(code))
    yield Case(
        "map_publish: nothing as an object",
        call("map_publish", {"channel": "objects:a", "key": "k"}),
        refused(107),
    )
    once = put("k", idempotency_key="i")
    yield Case(
        "map_publish: idempotency", once, written(1, "idempotency"), before=(once, put("k", 2))
    )
    five = put("k", version=5, version_epoch="e")
    for name, request, expected in (
        ("stale", put("k", version=5), written(1, "version")),
        ("newer", put("k", version=6), written(2)),
        ("of another epoch", put("k", version=1, version_epoch="f"), written(2)),
        ("of another key", put("l", version=1), written(2)),
    ):
        yield Case(f"map_publish: version, {name}", request, expected, before=(five,))
    yield Case(
        "map_publish: a version is kept by a write without one",
        put("k", version=5),
        written(2, "version"),
        before=(five, put("k")),
    )


def remove_cases() -> Iterator[Case]:
    """12.5."""
    yield Case("map_remove", remove("k"), written(2), before=(put("k"),))
    yield Case(
        "map_remove: not there", remove("x"), written(1, "key_not_found"), before=(put("k"),)
    )
    twice = (put("k"), remove("k"))
    yield Case("map_remove: again", remove("k"), written(2, "key_not_found"), before=twice)
    once = remove("k", idempotency_key="i")
    yield Case(
        "map_remove: idempotency",
        once,
        written(2, "idempotency"),
        before=(put("k"), once, put("k")),
    )
    yield Case(
        "map_remove: without a stream",
        remove("k", "brief:a"),
        ok(),
        before=(put("k", channel="brief:a"),),
    )
    yield Case(
        "map_remove: without a stream, not there",
        remove("k", "brief:a"),
        ok(b'{"suppressed":true,"suppress_reason":"key_not_found"}'),
    )


def state_cases() -> Iterator[Case]:
    """12.7: the keys."""
    for name, what, expected in (
        ("position only", {}, entries(top=4)),
        ("all", {"limit": -1}, entries(A, B, top=4)),
        ("any negative", {"limit": -3}, entries(A, B, top=4)),
        ("first page", {"limit": 1}, entries(A, top=4, cursor="a")),
        ("last page", {"limit": 1, "cursor": "a"}, entries(B, top=4)),
        ("one page", {"limit": 2}, entries(A, B, top=4)),
        ("ascending", {"limit": -1, "asc": True}, entries(A, B, top=4)),
        ("behind the last key", {"limit": 1, "cursor": "b"}, entries(top=4)),
        ("one key", {"key": "b"}, entries(B, top=4)),
        ("one key, whatever the page", {"key": "a", "cursor": "a", "limit": 1}, entries(A, top=4)),
        ("a removed key", {"key": "c"}, entries(top=4)),
        ("an old revision", {"revision_offset": 1, "revision_epoch": EPOCH}, entries(top=4)),
        ("another epoch", {"limit": -1, "revision_epoch": "x"}, refused(112)),
        ("another epoch, position only", {"revision_epoch": "x"}, refused(112)),
        ("another epoch, one key", {"key": "a", "revision_epoch": "x"}, refused(112)),
    ):
        yield Case(f"map_read_state: {name}", state(**what), expected, before=FOUR)
    yield Case("map_read_state: of nothing", state(limit=-1), entries(top=0))
    yield Case(
        "map_read_state: without a stream",
        state("brief:a", limit=-1),
        ok(b'{"entries":[{"key":"k","data":1,%b}]}' % TIME),
        before=(put("k", channel="brief:a"),),
    )
    yield Case(
        "map_read_state: tags, and what must be escaped",
        state(limit=-1),
        ok(
            b'{"entries":[{"key":"\\u003ck\\u003e","data":{"a":1.0},"tags":{"t":"\\u0026"},"offset":1,%b}],"offset":1,%b}'
            % (TIME, STREAM)
        ),
        before=(put("<k>", {"a": 1.0}, tags={"t": "&"}),),
    )
    yield Case(
        "map_read_state: no tags",
        state(limit=-1),
        entries(entry("k", 1), top=1),
        before=(put("k", tags={}),),
    )
    yield Case(
        "map_read_state: data that would break out of its place, in a batch",
        call("batch", {"commands": [{"map_read_state": {"channel": "map:a", "limit": -1}}]}),
        SERVER_ERROR,
        before=(put("k", b64data=b64(b'1},{"data":2')),),
    )
    yield Case(
        "map_read_state: binary data in a JSON reply",
        state(limit=-1),
        SERVER_ERROR,
        before=(put("k", b64data=b64(b"\x00")),),
    )


def stream_cases() -> Iterator[Case]:
    """12.7: the changes; the stream keeps four."""
    changes = [entry("a", 1), entry("c", 2), entry("c", 3, b""), B]
    for name, what, expected in (
        ("position only", {}, entries(top=4)),
        ("all", {"limit": -1}, entries(*changes, top=4)),
        ("the oldest", {"limit": 1}, entries(changes[0], top=4)),
        ("the newest", {"limit": 2, "reverse": True}, entries(changes[3], changes[2], top=4)),
        (
            "since",
            {"limit": -1, "since_offset": 2, "since_epoch": EPOCH},
            entries(*changes[2:], top=4),
        ),
        ("since, any epoch", {"limit": 1, "since_offset": 2}, entries(changes[2], top=4)),
        ("since the top", {"limit": -1, "since_offset": 4}, entries(top=4)),
        (
            "reverse since",
            {"limit": -1, "since_offset": 3, "reverse": True},
            entries(changes[1], changes[0], top=4),
        ),
        (
            "reverse, epoch alone",
            {"limit": 1, "since_epoch": EPOCH, "reverse": True},
            entries(B, top=4),
        ),
        ("since beyond the top", {"limit": -1, "since_offset": 5}, refused(112)),
        ("since beyond the top, position only", {"since_offset": 5}, entries(top=4)),
        ("another epoch", {"limit": -1, "since_offset": 1, "since_epoch": "x"}, refused(112)),
        ("another epoch, position only", {"since_epoch": "x"}, refused(112)),
    ):
        yield Case(f"map_read_stream: {name}", stream(**what), expected, before=FOUR)
    six = (*FOUR, put("d"), put("e"))
    tail = (B, entry("d", 5), entry("e", 6))
    for name, what, expected in (
        ("what is left", {"limit": -1}, entries(changes[2], *tail, top=6)),
        (
            "since what is just left",
            {"limit": -1, "since_offset": 2},
            entries(changes[2], *tail, top=6),
        ),
        ("since what has gone", {"limit": -1, "since_offset": 1}, refused(112)),
        (
            "reverse since what has gone",
            {"limit": -1, "since_offset": 1, "reverse": True},
            entries(top=6),
        ),
    ):
        yield Case(f"map_read_stream: {name}", stream(**what), expected, before=six)
    yield Case("map_read_stream: of nothing", stream(limit=-1), entries(top=0))
    yield Case(
        "map_read_stream: without a stream",
        stream("brief:a", limit=-1),
        ok(),
        before=(put("k", channel="brief:a"),),
    )
    yield Case(
        "map_read_stream: a removal has the tags of what it removes",
        stream(limit=1, reverse=True),
        ok(
            b'{"entries":[{"key":"k","tags":{"t":"1"},"offset":2,"removed":true,%b}],"offset":2,%b}'
            % (TIME, STREAM)
        ),
        before=(put("k", tags={"t": "1"}), remove("k")),
    )


def other_cases() -> Iterator[Case]:
    """Counting, clearing, and maps among other methods."""
    stats = call("map_stats", {"channel": "map:a"})
    clear = call("map_clear", {"channel": "map:a"})
    yield Case("map_stats", stats, ok(b'{"num_keys":2}'), before=FOUR)
    yield Case("map_stats of nothing", stats, ok())
    yield Case("map_clear", clear, ok(), before=FOUR)
    yield Case("map_clear of nothing", clear, ok())
    yield Case("after map_clear: stats", stats, ok(), before=(*FOUR, clear))
    yield Case("after map_clear: stream", stream(limit=-1), entries(top=0), before=(*FOUR, clear))
    yield Case("after map_clear: publish", put("k"), written(1), before=(*FOUR, clear))
    for method in ("history", "history_remove", "presence", "presence_stats"):
        yield Case(f"{method} of a map", call(method, {"channel": "map:a"}), refused(108))
    for channel in ("brief:a", "clients:a", "users:a"):
        body = {"channel": channel, "data": 1}
        yield Case(f"publish into {channel}", call("publish", body), refused(107))
    yield Case(
        "maps in a batch",
        call(
            "batch",
            {
                "commands": [
                    {"map_publish": {"channel": "map:a", "key": "k", "data": 1}},
                    {"map_publish": {"channel": "map:a"}},
                    {"map_read_state": {"channel": "map:a", "limit": -1}},
                    {"map_remove": {"channel": "map:a", "key": "k"}},
                    {"map_read_stream": {"channel": "map:a", "limit": 1, "reverse": True}},
                    {"map_stats": {"channel": "map:a"}},
                    {"map_clear": {"channel": "map:a"}},
                ]
            },
        ),
        reply(
            b'{"replies":[{"map_publish":{"offset":1,%b}},{"error":%b},{"map_read_state":{"entries":[%b],"offset":1,%b}},'
            b'{"map_remove":{"offset":2,%b}},{"map_read_stream":{"entries":[%b],"offset":2,%b}},{"map_stats":{}},{"map_clear":{}}]}'
            % (STREAM, error_text(107), entry("k", 1), STREAM, STREAM, entry("k", 2, b""), STREAM)
        ),
    )
