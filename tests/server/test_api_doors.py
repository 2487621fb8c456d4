"""Every case through every door: the same status, headers that matter, and body, byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from realtime import commands
from realtime.node.control import DisconnectUser, RefreshUser, SubscribeUser, UnsubscribeUser
from realtime.protocol.errors import ClientError
from realtime.protocol.messages import StreamPosition
from realtime.session.grants import Override
from tests.server.api_cases import (
    BAD_REQUEST,
    FORBIDDEN,
    NO_METHOD,
    NOT_FOUND,
    SERVER_ERROR,
    STREAM,
    UNAUTHORIZED,
    Case,
    b64,
    call,
    error_text,
    ok,
    refused,
    reply,
)
from tests.server.api_world import (
    DOORS,
    EPOCH,
    EVERYTHING_KEY,
    KEY,
    PUBLISH_KEY,
    Answer,
    Call,
    make_options,
    open_world,
)
from tests.server.grpc_door import is_expressible, through_grpc
from tests.server.map_cases import map_cases
from tests.server.poll_cases import poll_cases


HELLO = {"channel": "chat", "data": {"text": "hi"}}
IN_HISTORY = b'{"channel":"hist:a","data":%d}'
THREE = tuple(call("publish", IN_HISTORY % number) for number in (1, 2, 3))


def publications(*offsets: int) -> bytes:
    """Write the publications of THREE with these offsets."""
    return b",".join(b'{"data":%d,"offset":%d}' % (offset, offset) for offset in offsets)


def history_of(*offsets: int, top: int = 3) -> Answer:
    """Expect these publications."""
    return ok(b'{"publications":[%b],%b,"offset":%d}' % (publications(*offsets), STREAM, top))


def transport_cases() -> Iterator[Case]:
    """1.1: paths and verbs."""
    for path in (
        "/api/nothing",
        "/api/",
        "/api/publish/",
        "/api/connections",
        "/api/block_user",
        "/api/publish%0a",
    ):
        yield Case(f"unknown path {path}", Call(path, b"{}"), NOT_FOUND, lane=False)
    yield Case("no key and unknown path", Call("/api/nope", headers={}), NOT_FOUND, lane=False)
    for path, query, location in (
        ("/api//publish", "", "/api/publish"),
        ("/api//publish", "a=1&b=2", "/api/publish?a=1&b=2"),
        ("/api//publish", f"a=1&api_key={KEY}&%61pi_key={KEY}", "/api/publish?a=1"),
        ("/api/./publish", "", "/api/publish"),
        ("/api/x/../publish", "", "/api/publish"),
        ("/api///publish//", "", "/api/publish/"),
        ("/api/..//evil.example", "", "/evil.example"),
    ):
        yield Case(
            f"unclean path {path}?{query}",
            Call(path, b"{}", query=query),
            Answer(307, b"", "", location),
            lane=False,
        )
    for verb in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"):
        for path in ("/api/publish", "/api"):
            yield Case(f"{verb} {path}", Call(path, headers={}, verb=verb), NO_METHOD, lane=False)
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
    ):
        headers = {"x-api-key": KEY, "content-type": content_type}
        yield Case(f"content type {content_type!r}", call("publish", HELLO, headers=headers), ok())
    for accept in ("text/html", "application/xml;q=0.9", "nonsense"):
        headers = {"x-api-key": KEY, "accept": accept}
        yield Case(f"accept {accept}", call("publish", HELLO, headers=headers), ok())
    yield Case("format parameter", call("publish", HELLO, query="format=api"), ok())


def key_cases() -> Iterator[Case]:
    """1.3: authentication."""
    good: list[tuple[str, dict[str, str], str]] = [
        ("X-API-Key", {"x-api-key": KEY}, ""),
        ("apikey", {"authorization": f"apikey {KEY}"}, ""),
        ("APIKEY", {"authorization": f"APIKEY {KEY}"}, ""),
        ("ApiKey and blanks", {"authorization": f"  ApiKey \t {KEY} "}, ""),
        (
            "empty X-API-Key, right Authorization",
            {"x-api-key": "", "authorization": f"apikey {KEY}"},
            "",
        ),
        ("parameter", {}, f"api_key={KEY}"),
        ("parameter among others", {}, f"x=1&api_key={KEY}"),
        ("encoded parameter", {}, "%61pi_key=process%2Dkey"),
        ("wrong header, right parameter", {"x-api-key": "wrong"}, f"api_key={KEY}"),
        (
            "wrong Authorization, right parameter",
            {"authorization": "apikey wrong"},
            f"api_key={KEY}",
        ),
        ("row", {"x-api-key": PUBLISH_KEY}, ""),
        ("row by parameter", {}, f"api_key={EVERYTHING_KEY}"),
    ]
    for name, headers, query in good:
        yield Case(f"good key: {name}", call("publish", HELLO, headers=headers, query=query), ok())
    shown: list[tuple[str, dict[str, str], str]] = [
        ("wrong", {"x-api-key": "wrong"}, ""),
        ("prefix of the key", {"x-api-key": KEY[:-1]}, ""),
        ("key with more", {"x-api-key": KEY + "x"}, ""),
        ("not ASCII", {"x-api-key": "ключ"}, ""),
        (
            "wrong header, right Authorization",
            {"x-api-key": "wrong", "authorization": f"apikey {KEY}"},
            "",
        ),
        ("wrong parameter", {}, "api_key=wrong"),
        ("first of two parameters counts", {}, f"api_key=wrong&api_key={KEY}"),
    ]
    for name, headers, query in shown:
        yield Case(
            f"bad key: {name}", call("publish", HELLO, headers=headers, query=query), UNAUTHORIZED
        )
    hidden: list[tuple[str, dict[str, str], str]] = [
        ("none", {}, ""),
        ("Bearer", {"authorization": f"Bearer {KEY}"}, ""),
        ("one field", {"authorization": "apikey"}, ""),
        ("three fields", {"authorization": f"apikey {KEY} x"}, ""),
        ("empty parameter", {}, "api_key="),
    ]
    for name, headers, query in hidden:
        yield Case(
            f"no key: {name}",
            call("publish", HELLO, headers=headers, query=query),
            UNAUTHORIZED,
            lane=False,
        )
    yield Case(
        "auth before the body",
        call("publish", b"nonsense", headers={"x-api-key": "no"}),
        UNAUTHORIZED,
    )
    yield Case(
        "server without any key",
        call("publish", HELLO),
        UNAUTHORIZED,
        options={"key": ""},
        has_rows=False,
    )
    yield Case(
        "empty key against an empty key",
        call("publish", HELLO, headers={"x-api-key": ""}, query="api_key="),
        UNAUTHORIZED,
        options={"key": ""},
        lane=False,
    )
    yield Case(
        "insecure", call("publish", HELLO, headers={}), ok(), options={"insecure": True, "key": ""}
    )
    yield Case(
        "insecure with a wrong key",
        call("publish", HELLO, headers={"x-api-key": "x"}),
        ok(),
        options={"insecure": True},
    )
    only = {"x-api-key": PUBLISH_KEY}
    yield Case("row without the scope", call("info", b"{}", headers=only), FORBIDDEN)
    yield Case("scope before the body", call("info", b"nonsense", headers=only), FORBIDDEN)
    yield Case(
        "batch by a row",
        call("batch", {"commands": [{"publish": HELLO}, {"info": {}}]}, headers=only),
        reply(b'{"replies":[{"publish":{}},{"error":%b}]}' % error_text(103)),
    )
    yield Case(
        "stream by a row",
        Call(
            "/api",
            b'{"params":{"channel":"a","data":1}}{"method":"info","params":{}}',
            headers=only,
        ),
        reply(b'{"result":{}}\n{"error":%b}' % error_text(103)),
    )


def parsing_cases() -> Iterator[Case]:
    """1.4: what a body may be."""
    good = {
        "unknown fields": b'{"channel":"a","data":1,"nope":{"x":[1,{"y":null}]}}',
        "other letter case": b'{"Channel":"a","DATA":1}',
        "null for a field": b'{"channel":"a","data":1,"tags":null,"b64data":null,"version":null,"delta":null}',
        "null data": b'{"channel":"a","data":null}',
        "empty string as data": b'{"channel":"a","data":""}',
        "null as a tag": b'{"channel":"a","data":1,"tags":{"x":null}}',
        "white space around": b' \r\n\t{"channel" : "a" , "data" : 1 } \n',
        "repeated key": b'{"channel":"no_such:x","channel":"a","data":1}',
        "repeated key in another case": b'{"channel":"no_such:x","CHANNEL":"a","data":1}',
        "null after a value": b'{"channel":"a","channel":null,"data":1}',
        "largest version": b'{"channel":"a","data":1,"version":18446744073709551615}',
        "big number in data": b'{"channel":"a","data":%b}' % (b"9" * 5000),
        "half a surrogate pair": b'{"channel":"\\ud800","data":"\\ud800"}',
        "not UTF-8": b'{"channel":"\xff","data":"\xff"}',
        "deep data": b'{"channel":"a","data":%b%b}' % (b"[" * 400, b"]" * 400),
    }
    for name, body in good.items():
        yield Case(f"body: {name}", call("publish", body), ok())
    bad = {
        "nothing": b"",
        "blanks": b" \n",
        "not JSON": b"channel=a",
        "cut short": b'{"channel":"a","data":1',
        "an array": b"[]",
        "a string": b'"a"',
        "a number": b"1",
        "something after it": b'{"channel":"a","data":1} x',
        "two objects": b'{"channel":"a","data":1}{}',
        "number for a string": b'{"channel":1,"data":1}',
        "string for a number": b'{"channel":"a","data":1,"version":"1"}',
        "string for a bool": b'{"channel":"a","data":1,"delta":"true"}',
        "number as a tag": b'{"channel":"a","data":1,"tags":{"x":1}}',
        "array for tags": b'{"channel":"a","data":1,"tags":[]}',
        "negative version": b'{"channel":"a","data":1,"version":-1}',
        "fractional version": b'{"channel":"a","data":1,"version":1.5}',
        "whole version with a point": b'{"channel":"a","data":1,"version":1.0}',
        "version too large": b'{"channel":"a","data":1,"version":18446744073709551616}',
        "trailing comma": b'{"channel":"a","data":1,}',
        "malformed data": b'{"channel":"a","data":{"x":}}',
        "NaN": b'{"channel":"a","data":NaN}',
        "control character": b'{"channel":"a\n","data":1}',
        "bad escape": b'{"channel":"a","data":"\\x"}',
        "byte order mark": b'\xef\xbb\xbf{"channel":"a","data":1}',
        "bottomless data": b'{"channel":"a","data":%b%b}' % (b"[" * 100_000, b"]" * 100_000),
        "wrong type in another case": b'{"Channel":1,"data":1}',
    }
    for name, body in bad.items():
        yield Case(f"malformed: {name}", call("publish", body), BAD_REQUEST)
    yield Case("null body", call("publish", b"null"), refused(107))
    yield Case("empty object", call("publish", b"{}"), refused(107))
    yield Case("info by null", call("channels", b"null"), ok(b'{"channels":{}}'))
    for method in ("info", "batch", "channels", "rpc"):
        yield Case(f"empty body for {method}", call(method, b""), BAD_REQUEST)
    yield Case(
        "limit too large", call("history", b'{"channel":"hist:a","limit":2147483648}'), BAD_REQUEST
    )
    yield Case(
        "expire_at too large", call("refresh", b'{"expire_at":9223372036854775808}'), BAD_REQUEST
    )
    yield Case(
        "code too large", call("disconnect", b'{"disconnect":{"code":4294967296}}'), BAD_REQUEST
    )
    yield Case(
        "wrong type in a nested object",
        call("history", b'{"channel":"hist:a","since":{"offset":"1"}}'),
        BAD_REQUEST,
    )
    yield Case(
        "nested names in another case",
        call("history", b'{"channel":"hist:a","Since":{"OFFSET":1,"x":2},"Limit":-1}'),
        history_of(2, 3),
        before=THREE,
    )
    yield Case(
        "null among channels",
        call("broadcast", b'{"channels":["a",null],"data":1}'),
        ok(b'{"responses":[{"result":{}},{"error":%b}]}' % error_text(107)),
    )


def _round_trip(name: str, data: bytes, returned: bytes) -> Case:
    return Case(
        f"payload: {name}",
        call("history", {"channel": "hist:a", "limit": -1}),
        ok(b'{"publications":[{"data":%b,"offset":1}],%b,"offset":1}' % (returned, STREAM)),
        before=(call("publish", b'{"channel":"hist:a","data":%b}' % data),),
    )


def reply_cases() -> Iterator[Case]:
    """1.5: how replies are written."""
    for name, data, returned in (
        ("null", b"null", b"null"),
        ("empty string", b'""', b'""'),
        ("number spelling", b"[1.0, 1e3 ,12345678901234567890]", b"[1.0,1e3,12345678901234567890]"),
        ("white space", b'{ "a" : [ 1 ,\n2 ] , "b c" : " d " }', b'{"a":[1,2],"b c":" d "}'),
        ("key order and repeats", b'{"b":1,"a":2,"b":3}', b'{"b":1,"a":2,"b":3}'),
        ("escapes stay", b'"\\u00e9\\/\\n"', b'"\\u00e9\\/\\n"'),
        ("HTML", b'"<a&b>"', b'"\\u003ca\\u0026b\\u003e"'),
        ("line separators", b'"\xe2\x80\xa8\xe2\x80\xa9"', b'"\\u2028\\u2029"'),
        ("other non-ASCII", '"é€😀"'.encode(), '"é€😀"'.encode()),
        (
            "half a surrogate pair",
            b'"\\\\ud800 \\ud83d\\ude00 \\ud800"',
            b'"\\\\ud800 \\ud83d\\ude00 \\ufffd"',
        ),
        ("not UTF-8", b'"a\xffb"', b'"a\xef\xbf\xbdb"'),
    ):
        yield _round_trip(name, data, returned)
    yield Case(
        "binary data in a JSON reply",
        call("history", {"channel": "hist:a", "limit": -1}),
        SERVER_ERROR,
        before=(call("publish", {"channel": "hist:a", "b64data": b64(b"\x00\x01")}),),
    )
    yield Case(
        "data that would break out of its place",
        call("history", {"channel": "hist:a", "limit": -1}),
        SERVER_ERROR,
        before=(call("publish", {"channel": "hist:a", "b64data": b64(b'1},{"data":2')}),),
    )
    yield Case(
        "binary data in a batch's reply",
        call("batch", {"commands": [{"history": {"channel": "hist:a", "limit": -1}}]}),
        SERVER_ERROR,
        before=(call("publish", {"channel": "hist:a", "b64data": b64(b"\xff")}),),
    )
    yield Case(
        "empty data and tags",
        call("history", {"channel": "binary:a", "limit": -1}),
        ok(b'{"publications":[{"offset":1}],%b,"offset":1}' % STREAM),
        before=(call("publish", {"channel": "binary:a", "tags": {}}),),
    )
    yield Case(
        "tags",
        call("history", {"channel": "hist:a", "limit": -1}),
        ok(
            b'{"publications":[{"data":1,"offset":1,"tags":{"k":"\\u003cv\\u003e"}}],%b,"offset":1}'
            % STREAM
        ),
        before=(call("publish", {"channel": "hist:a", "data": 1, "tags": {"k": "<v>"}}),),
    )
    yield Case(
        "presence, sorted by nothing, with compacted payloads",
        call("presence", {"channel": "pres:room"}),
        ok(
            b'{"presence":{"c1":{"user":"u1","client":"c1","conn_info":{"a":1.0},'
            b'"chan_info":"\\u003c\\u0026\\u003e"},"c2":{"user":"","client":"c2"}}}'
        ),
    )
    yield Case("empty presence", call("presence", {"channel": "pres:none"}), ok(b'{"presence":{}}'))
    yield Case(
        "stats",
        call("presence_stats", {"channel": "pres:room"}),
        ok(b'{"num_clients":2,"num_users":2}'),
    )
    yield Case(
        "zero stats",
        call("presence_stats", {"channel": "pres:none"}),
        ok(b'{"num_clients":0,"num_users":0}'),
    )


def error_mode_cases() -> Iterator[Case]:
    """3.3: the transport error mode."""
    asks = {"x-api-key": KEY, "x-centrifugo-error-mode": "transport"}
    by_code: dict[int, tuple[int, Call]] = {
        102: (404, call("publish", {"channel": "no_such:x", "data": 1}, headers=asks)),
        104: (404, call("rpc", {"method": "no_such"}, headers=asks)),
        107: (400, call("publish", {"channel": "a"}, headers=asks)),
        108: (400, call("presence", {"channel": "a"}, headers=asks)),
        112: (416, call("history", {"channel": "hist:a", "since": {"epoch": "x"}}, headers=asks)),
        100: (500, call("channels", {"pattern": "["}, headers=asks)),
    }
    for code, (status, request) in by_code.items():
        yield Case(f"transport mode {code}", request, Answer(status, error_text(code)))
    yield Case(
        "transport mode by option",
        call("publish", {"channel": ""}),
        Answer(400, error_text(107)),
        options={"error_mode": "transport"},
    )
    yield Case("transport mode and success", call("publish", HELLO, headers=asks), ok())
    yield Case(
        "transport mode, other code",
        call("rpc", {"method": "fails"}, headers=asks),
        Answer(500, b'{"code":1234,"message":"no \\u003cbeer\\u003e"}'),
    )
    yield Case(
        "other mode",
        call(
            "publish",
            {"channel": ""},
            headers={"x-api-key": KEY, "x-centrifugo-error-mode": "Transport"},
        ),
        refused(107),
    )
    yield Case(
        "transport mode and batch",
        call("batch", {"commands": [{"publish": {}}]}, headers=asks),
        reply(b'{"replies":[{"error":%b}]}' % error_text(107)),
    )
    yield Case(
        "transport mode and broadcast",
        call("broadcast", {"channels": ["no_such:x"], "data": 1}, headers=asks),
        ok(b'{"responses":[{"error":%b}]}' % error_text(102)),
    )
    yield Case(
        "transport mode and the stream",
        Call("/api", b'{"params":{}}', headers=asks),
        reply(b'{"error":%b}' % error_text(107)),
        options={"error_mode": "transport"},
    )
    for method, body in (
        ("publish", HELLO),
        ("unsubscribe", {"channel": "a"}),
        ("history", {"channel": "hist:a"}),
        ("presence", {"channel": "pres:a"}),
    ):
        yield Case(f"engine failure in {method}", call(method, body), refused(100), is_broken=True)


def publish_cases() -> Iterator[Case]:
    """4: publish and broadcast."""
    yield Case("publish without history", call("publish", HELLO), ok())
    yield Case("publish with history", THREE[0], ok(b'{"offset":1,%b}' % STREAM))
    yield Case("second publish", THREE[1], ok(b'{"offset":2,%b}' % STREAM), before=THREE[:1])
    yield Case(
        "skip history",
        call("publish", {"channel": "hist:a", "data": 1, "skip_history": True}),
        ok(),
    )
    for name, body, code in (
        ("no channel", {"data": 1}, 107),
        ("no data", {"channel": "a"}, 107),
        ("unknown namespace", {"channel": "no_such:a", "data": 1}, 102),
        ("no data in an unknown namespace", {"channel": "no_such:a"}, 102),
        ("bad base64", {"channel": "a", "b64data": "!"}, 107),
        ("bad base64 before the namespace", {"channel": "no_such:a", "b64data": "!"}, 107),
        ("base64 without padding", {"channel": "a", "b64data": "YQ"}, 107),
        ("base64 of the URL alphabet", {"channel": "a", "b64data": "_-8="}, 107),
        ("base64 that is not ASCII", {"channel": "a", "b64data": "é==="}, 107),
        ("map namespace", {"channel": "map:a", "data": 1}, 107),
        ("shared poll namespace", {"channel": "poll:a", "data": 1}, 107),
        ("nothing as json", {"channel": "json:a"}, 107),
        ("binary as json", {"channel": "json:a", "b64data": b64(b"\x00")}, 107),
        ("array as json_object", {"channel": "object:a", "data": []}, 107),
        ("nothing as json_object", {"channel": "object:a"}, 107),
    ):
        yield Case(f"publish: {name}", call("publish", body), refused(code))
    for name, body in (
        ("base64 wins", {"channel": "object:a", "data": 1, "b64data": b64(b"{}")}),
        ("base64 with line breaks", {"channel": "a", "b64data": "YW\r\nJj"}),
        ("a number as json", {"channel": "json:a", "data": 0}),
        ("an object as json_object", {"channel": "object:a", "data": {}}),
        ("a version without history", {"channel": "a", "data": 1, "version": 3}),
    ):
        yield Case(f"publish: {name}", call("publish", body), ok())
    binary = ok(b'{"offset":1,%b}' % STREAM)
    yield Case("nothing as binary", call("publish", {"channel": "binary:a"}), binary)
    once = call("publish", {"channel": "hist:a", "data": 1, "idempotency_key": "k"})
    yield Case("idempotency", once, ok(b'{"offset":1,%b}' % STREAM), before=(once, THREE[0]))

    def versioned(version: int, epoch: str = "") -> Call:
        body = {"channel": "hist:a", "data": 1, "version": version, "version_epoch": epoch}
        return call("publish", body)

    first = versioned(5, "a")
    yield Case("stale version", versioned(4), ok(b'{"offset":1,%b}' % STREAM), before=(first,))
    yield Case("newer version", versioned(6), ok(b'{"offset":2,%b}' % STREAM), before=(first,))
    yield Case(
        "other version epoch", versioned(1, "b"), ok(b'{"offset":2,%b}' % STREAM), before=(first,)
    )

    yield Case(
        "broadcast",
        call(
            "broadcast",
            {"channels": ["a", "no_such:b", "", "hist:c", "map:d", "object:e"], "data": 1},
        ),
        ok(
            b'{"responses":[{"result":{}},{"error":%b},{"error":%b},{"result":{"offset":1,%b}},{"error":%b},{"error":%b}]}'
            % (error_text(102), error_text(107), STREAM, error_text(107), error_text(107))
        ),
    )
    yield Case("broadcast to nobody", call("broadcast", {"data": 1}), refused(107))
    yield Case(
        "broadcast with bad base64",
        call("broadcast", {"channels": ["a"], "b64data": "!"}),
        refused(107),
    )
    yield Case(
        "broadcast without data",
        call("broadcast", {"channels": ["a"]}),
        ok(b'{"responses":[{"error":%b}]}' % error_text(107)),
    )
    repeated = {"channels": ["hist:a", "hist:b", "hist:a"], "data": 1, "idempotency_key": "k"}
    position = b'{"result":{"offset":1,%b}}' % STREAM
    yield Case(
        "broadcast: idempotency by channel",
        call("broadcast", repeated),
        ok(b'{"responses":[%b]}' % b",".join([position] * 3)),
    )


def connection_cases() -> Iterator[Case]:
    """5: acting on connections."""
    whole = {
        "channel": "chat",
        "user": "u",
        "client": "c",
        "session": "s",
        "info": {"a": 1},
        "b64data": b64(b"raw"),
        "expire_at": 5,
        "recover_since": {"offset": 3, "epoch": "e"},
        "override": {
            "presence": {"value": True},
            "join_leave": {"value": False},
            "force_recovery": {},
            "force_positioning": None,
        },
    }
    yield Case(
        "subscribe",
        call("subscribe", whole),
        ok(),
        sent=(
            SubscribeUser(
                user="u",
                channel="chat",
                client="c",
                session="s",
                info=b'{"a": 1}',
                data=b"raw",
                expire_at=5,
                recover_since=StreamPosition(3, "e"),
                override=Override(presence=True, join_leave=False, force_recovery=False),
            ),
        ),
    )
    yield Case(
        "subscribe, the least",
        call("subscribe", {"channel": "a"}),
        ok(),
        sent=(SubscribeUser(user="", channel="a"),),
    )
    for name, method, body, code in (
        ("no channel", "subscribe", {"user": "u"}, 107),
        ("unknown namespace", "subscribe", {"channel": "no_such:a"}, 102),
        ("bad info", "subscribe", {"channel": "a", "b64info": "!"}, 107),
        ("bad data", "subscribe", {"channel": "a", "b64data": "!"}, 107),
        ("no channel", "unsubscribe", {"user": "u"}, 107),
        ("unknown namespace", "unsubscribe", {"channel": "no_such:a"}, 102),
        ("a code that doesn't fit", "disconnect", {"disconnect": {"code": 65536}}, 107),
    ):
        yield Case(f"{method}: {name}", call(method, body), refused(code), sent=())
    yield Case(
        "unsubscribe",
        call("unsubscribe", {"channel": "a", "user": "u", "client": "c", "session": "s"}),
        ok(),
        sent=(UnsubscribeUser(user="u", channel="a", client="c", session="s"),),
    )
    for name, body, command in (
        ("by default", {"user": "u"}, DisconnectUser(user="u")),
        ("empty", {"user": "u", "disconnect": {}}, DisconnectUser(user="u")),
        (
            "code 0",
            {"disconnect": {"code": 0, "reason": "why"}},
            DisconnectUser(user="", reason="why"),
        ),
        (
            "custom",
            {
                "user": "u",
                "client": "c",
                "session": "s",
                "whitelist": ["x", "y"],
                "disconnect": {"code": 4001, "reason": "bye"},
            },
            DisconnectUser(
                user="u", client="c", session="s", whitelist=("x", "y"), code=4001, reason="bye"
            ),
        ),
        (
            "long reason",
            {"disconnect": {"code": 4001, "reason": "é" * 100}},
            DisconnectUser(user="", code=4001, reason="é" * 61),
        ),
    ):
        yield Case(f"disconnect: {name}", call("disconnect", body), ok(), sent=(command,))
    yield Case(
        "refresh",
        call(
            "refresh",
            {
                "user": "u",
                "client": "c",
                "session": "s",
                "expired": True,
                "expire_at": 7,
                "info": [1],
            },
        ),
        ok(),
        sent=(
            RefreshUser(user="u", client="c", session="s", expired=True, expire_at=7, info=b"[1]"),
        ),
    )
    yield Case("refresh, the least", call("refresh", {}), ok(), sent=(RefreshUser(user=""),))


def state_cases() -> Iterator[Case]:
    """6: reading a channel's state."""
    for method in ("presence", "presence_stats", "history", "history_remove"):
        yield Case(f"{method}: no channel", call(method, {}), refused(107))
        yield Case(
            f"{method}: unknown namespace", call(method, {"channel": "no_such:a"}), refused(102)
        )
        yield Case(f"{method}: not available", call(method, {"channel": "a"}), refused(108))
    since = {"offset": 1, "epoch": EPOCH}
    table: list[tuple[str, dict[str, Any], Answer]] = [
        ("position only", {}, history_of()),
        ("all", {"limit": -1}, history_of(1, 2, 3)),
        ("any negative", {"limit": -7}, history_of(1, 2, 3)),
        ("two oldest", {"limit": 2}, history_of(1, 2)),
        ("two newest", {"limit": 2, "reverse": True}, history_of(3, 2)),
        ("since", {"limit": -1, "since": since}, history_of(2, 3)),
        ("since, one", {"limit": 1, "since": since}, history_of(2)),
        (
            "since in reverse",
            {"limit": -1, "since": {"offset": 3, "epoch": EPOCH}, "reverse": True},
            history_of(2, 1),
        ),
        ("any epoch", {"limit": -1, "since": {"offset": 1}}, history_of(2, 3)),
        ("empty since", {"limit": -1, "since": {}}, history_of(1, 2, 3)),
        ("wrong epoch", {"limit": -1, "since": {"offset": 1, "epoch": "x"}}, refused(112)),
        ("wrong epoch, position only", {"since": {"epoch": "x"}}, refused(112)),
        ("above the top", {"limit": -1, "since": {"offset": 9, "epoch": EPOCH}}, history_of()),
        ("reverse from 0", {"limit": -1, "since": {"offset": 0}, "reverse": True}, refused(100)),
    ]
    for name, body, expected in table:
        yield Case(
            f"history: {name}",
            call("history", {"channel": "hist:a", **body}),
            expected,
            before=THREE,
        )
    yield Case(
        "empty history", call("history", {"channel": "hist:a", "limit": -1}), history_of(top=0)
    )
    remove = call("history_remove", {"channel": "hist:a"})
    yield Case("history_remove", remove, ok(), before=THREE)
    yield Case(
        "after history_remove",
        call("history", {"channel": "hist:a", "limit": -1}),
        history_of(),
        before=(*THREE, remove),
    )
    yield Case("channels", call("channels", {}), ok(b'{"channels":{}}'))
    # The other nodes can't be asked, so nobody knows.
    yield Case("channels of a broken engine", call("channels", {}), refused(100), is_broken=True)
    for pattern in ("[", "{a", "a\\", "[z-a]", "[]"):
        yield Case(f"bad pattern {pattern}", call("channels", {"pattern": pattern}), refused(100))
    yield Case(
        "info",
        call("info", b"{}"),
        ok(
            b'{"nodes":[{"uid":"node-id","name":"here","version":"1.2.3","num_clients":0,"num_users":0,"num_channels":0,'
            b'"metrics":{"interval":60,"items":{"centrifugo.node.num_clients":0,"centrifugo.node.num_users":0,'
            b'"centrifugo.node.num_channels":0,"centrifugo.node.num_subscriptions":0,'
            b'"centrifugo.node.messages_sent_count.type.publication":0,'
            b'"centrifugo.broadcast.publications_delivered":0,'
            b'"centrifugo.broadcast.delta_publications_delivered":0,'
            b'"centrifugo.broadcast.delta_bytes_saved":0,'
            b'"centrifugo.broadcast.tags_filter_dropped_publications":0}},"num_subs":0}]}'
        ),
    )


def rpc_and_batch_cases() -> Iterator[Case]:
    """7: rpc and batch."""
    for name, body, expected in (
        ("async", {"method": "echo", "params": {"a": [1]}}, ok(b'{"data":{"a":[1]}}')),
        ("sync", {"method": "size", "params": "x"}, ok(b'{"data":{"size":3}}')),
        ("null params", {"method": "echo", "params": None}, ok(b'{"data":null}')),
        ("no params", {"method": "size"}, ok(b'{"data":{"size":0}}')),
        ("no data", {"method": "nothing"}, ok(b"{}")),
        ("no method", {}, refused(107)),
        ("unknown method", {"method": "no_such"}, refused(104)),
        (
            "own error",
            {"method": "fails"},
            reply(b'{"error":{"code":1234,"message":"no \\u003cbeer\\u003e"}}'),
        ),
        ("crash", {"method": "crashes"}, refused(100)),
        ("not JSON", {"method": "garbage"}, SERVER_ERROR),
    ):
        yield Case(f"rpc: {name}", call("rpc", body), expected)
    publish = {"publish": {"channel": "hist:a", "data": 1}}
    position = b'{"publish":{"offset":%d,%b}}'
    for name, parallel in (("sequential", False), ("parallel", True)):
        yield Case(
            f"batch, {name}",
            call(
                "batch",
                {
                    "commands": [
                        publish,
                        {"publish": {}},
                        None,
                        {},
                        {"nope": {}},
                        {"block_user": {}},
                        {"batch": {"commands": []}},
                        publish,
                        {"presence_stats": {"channel": "pres:room"}},
                        {"history_remove": {"channel": "hist:a"}},
                        {"rpc": {"method": "size", "params": 1}},
                    ],
                    "parallel": parallel,
                },
            ),
            reply(
                b'{"replies":[%b,{"error":%b},{"error":%b},{"error":%b},{"error":%b},{"error":%b},{"error":%b},%b,'
                b'{"presence_stats":{"num_clients":2,"num_users":2}},{"history_remove":{}},{"rpc":{"data":{"size":1}}}]}'
                % (
                    position % (1, STREAM),
                    error_text(107),
                    error_text(107),
                    error_text(104),
                    error_text(104),
                    error_text(104),
                    error_text(104),
                    position % (2, STREAM),
                )
            ),
        )
    for body in ({}, {"commands": []}, {"commands": None}, {"parallel": True}):
        yield Case(f"batch of nothing: {body}", call("batch", body), reply(b"{}"))
    yield Case("batch by null", call("batch", b"null"), reply(b"{}"))
    yield Case(
        "batch with a wrong type",
        call("batch", b'{"commands":[{"publish":{"channel":1}}]}'),
        BAD_REQUEST,
    )
    yield Case("batch with a wrong command", call("batch", b'{"commands":[1]}'), BAD_REQUEST)
    yield Case(
        "batch command null",
        call("batch", b'{"commands":[{"publish":null}]}'),
        reply(b'{"replies":[{"error":%b}]}' % error_text(104)),
    )
    several = {
        "commands": [
            {"info": {}, "presence": {"channel": "pres:none"}, "history": {"channel": "a"}}
        ]
    }
    yield Case(
        "several commands in one",
        call("batch", several),
        reply(b'{"replies":[{"error":%b}]}' % error_text(108)),
    )
    yield Case(
        "names in another case",
        call("batch", b'{"Commands":[{"Publish":{"CHANNEL":"a","data":1}}]}'),
        reply(b'{"replies":[{"publish":{}}]}'),
    )
    yield Case(
        "a history in a batch",
        call("batch", {"commands": [{"history": {"channel": "hist:a", "limit": 1}}]}),
        reply(
            b'{"replies":[{"history":{"publications":[%b],%b,"offset":3}}]}'
            % (publications(1), STREAM)
        ),
        before=THREE,
    )
    yield Case(
        "a broken engine in a batch",
        call("batch", {"commands": [publish, {"rpc": {"method": "nothing"}}]}),
        reply(b'{"replies":[{"error":%b},{"rpc":{}}]}' % error_text(100)),
        is_broken=True,
    )


def legacy_cases() -> Iterator[Case]:
    """9: the legacy stream."""
    publish = b'{"channel":"hist:a","data":1}'

    def stream(name: str, body: bytes, expected: Answer, **facts: Any) -> Case:
        return Case(f"stream: {name}", Call("/api", body), expected, **facts)

    yield stream(
        "three commands",
        b'{"id":1,"method":"publish","params":%b}{"id":2,"method":6,"params":{"channel":"hist:a","limit":1}}\n {"id":3,"method":"INFOX","params":{}}'.replace(
            b"INFOX", b"CHANNELS"
        )
        % publish,
        reply(
            b'{"id":1,"result":{"offset":1,%b}}\n{"id":2,"result":{"publications":[{"data":1,"offset":1}],%b,"offset":1}}\n'
            b'{"id":3,"result":{"channels":{}}}' % (STREAM, STREAM)
        ),
    )
    yield stream(
        "no id, no method",
        b'{"params":%b}' % publish,
        reply(b'{"result":{"offset":1,%b}}' % STREAM),
    )
    yield stream(
        "null method",
        b'{"method":null,"params":%b}' % publish,
        reply(b'{"result":{"offset":1,%b}}' % STREAM),
    )
    yield stream(
        "method 0",
        b'{"method":0,"params":%b}' % publish,
        reply(b'{"result":{"offset":1,%b}}' % STREAM),
    )
    yield stream(
        "names in another case",
        b'{"ID":4,"Method":"Publish","PARAMS":%b,"x":1}' % publish,
        reply(b'{"id":4,"result":{"offset":1,%b}}' % STREAM),
    )
    numbers = {
        1: "broadcast",
        2: "unsubscribe",
        4: "presence",
        5: "presence_stats",
        6: "history",
        7: "history_remove",
        10: "rpc",
        11: "subscribe",
        33: "map_publish",
        34: "map_remove",
        35: "map_read_state",
        36: "map_read_stream",
        37: "map_stats",
        38: "map_clear",
        39: "shared_poll_publish",
    }
    for number, name in numbers.items():
        for method in (str(number), f'"{name.title()}"'):
            yield stream(
                f"method {method}",
                b'{"id":9,"method":%b,"params":{}}' % method.encode(),
                reply(b'{"id":9,"error":%b}' % error_text(107)),
            )
    for number in (3, 12):
        yield stream(
            f"method {number}",
            b'{"id":9,"method":%d,"params":{}}' % number,
            reply(b'{"id":9,"result":{}}'),
        )
    yield stream("method 8", b'{"method":8,"params":null}', reply(b'{"result":{"channels":{}}}'))
    for method in (
        "14",
        "32",
        "13",
        "99",
        '"connections"',
        '"Block_User"',
        '"cancel_push"',
    ):
        yield stream(
            f"unsupported method {method}",
            b'{"id":1,"method":%b,"params":{}}' % method.encode(),
            reply(b'{"id":1,"error":%b}' % error_text(104)),
        )
    for params in (b"", b',"params":[]', b',"params":{"channel":1}', b',"params":"x"'):
        yield stream(
            f"bad params {params!r}",
            b'{"id":1,"method":"publish"%b}' % params,
            reply(b'{"id":1,"error":%b}' % error_text(107)),
        )
    good = b'{"id":1,"method":"publish","params":%b}' % publish
    for name, body in (
        ("nothing", b""),
        ("blanks", b"\n "),
        ("unknown method", b'{"id":1,"method":"nope","params":{}}'),
        ("batch", b'{"id":1,"method":"batch","params":{}}'),
        ("method of another type", b'{"id":1,"method":[],"params":{}}'),
        ("fractional method", b'{"id":1,"method":1.5,"params":{}}'),
        ("negative id", b'{"id":-1,"method":"info","params":{}}'),
        ("id too large", b'{"id":4294967296,"method":"info","params":{}}'),
        ("an array", b"[]"),
        ("something behind", good + b"x"),
        ("cut short", good + b"{"),
        ("unknown method behind a good one", good + b'{"id":1,"method":"nope","params":{}}'),
        ("bottomless", b"[" * 100_000),
    ):
        yield stream(f"malformed: {name}", body, BAD_REQUEST)
    yield stream(
        "binary data",
        b'{"method":"history","params":{"channel":"hist:a","limit":-1}}',
        SERVER_ERROR,
        before=(call("publish", {"channel": "hist:a", "b64data": b64(b"\xff")}),),
    )


CASES = [
    *transport_cases(),
    *key_cases(),
    *parsing_cases(),
    *reply_cases(),
    *error_mode_cases(),
    *publish_cases(),
    *connection_cases(),
    *state_cases(),
    *map_cases(),
    *poll_cases(),
    *rpc_and_batch_cases(),
    *legacy_cases(),
]


@pytest.fixture(autouse=True)
def _rpc_functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The runner in force looks at database connections, which these tests may not have.
    monkeypatch.setattr(commands.functions, "_thread_runner", asyncio.to_thread)

    async def echo(params: bytes) -> bytes:
        return params

    def fails(params: bytes) -> None:
        raise ClientError(1234, "no <beer>")

    def crashes(params: bytes) -> None:
        message = "what nobody but the log may see"
        raise RuntimeError(message)

    functions: dict[str, commands.RPCFunction] = {
        "echo": echo,
        "size": lambda params: {"size": len(params)},
        "nothing": lambda params: None,
        "fails": fails,
        "crashes": crashes,
        "garbage": lambda params: b"{not json",
    }
    for name, function in functions.items():
        commands.register_rpc(name, function)
    yield
    for name in functions:
        commands.unregister_rpc(name)


def test_case_names_are_unique() -> None:
    """No case hides another one in the report."""
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_door_gives_the_answer(case: Case, door: str) -> None:
    """Status, content type, location and body are the expected ones, whichever way the request comes in."""
    async with open_world(make_options(**case.options), has_rows=case.has_rows) as world:
        for earlier in case.before:
            await DOORS["views"](world, earlier)
        world.engine.is_broken = case.is_broken

        answer = await DOORS[door](world, case.call)

        if door == "lane" and not case.lane:
            assert answer is None
        else:
            assert answer == case.expected
            if case.sent is not None:
                assert tuple(world.engine.commands) == case.sent


# Without a key HTTP lets nobody in, and gRPC everybody. What is no JSON fits a bytes field.
GRPC_CASES = [
    case
    for case in CASES
    if is_expressible(case.call)
    and (case.options.get("key") != "" or case.options.get("insecure"))
    and case.expected != SERVER_ERROR
]


def test_most_cases_go_through_grpc() -> None:
    """What is left out is what gRPC does not have: paths, verbs, bodies, queries, the legacy stream."""
    assert len(GRPC_CASES) > len(CASES) / 2


@pytest.mark.parametrize("case", GRPC_CASES, ids=lambda case: case.name)
async def test_the_grpc_door_gives_the_same_answer(case: Case) -> None:
    """The result or error is that of HTTP, and the status the one that belongs to it."""
    async with open_world(make_options(**case.options), has_rows=case.has_rows) as world:
        for earlier in case.before:
            await DOORS["views"](world, earlier)
        world.engine.is_broken = case.is_broken

        answer = await through_grpc(world, case.call)

        assert answer is not None
        if answer.status == 200 and case.call.path in ("/api/info", "/api/presence"):
            # Numbers are doubles there, and maps have no order.
            assert json.loads(answer.body) == json.loads(case.expected.body)
        else:
            assert answer == case.expected
        if case.sent is not None:
            assert tuple(world.engine.commands) == case.sent


@pytest.mark.parametrize("door", ["views", "lane application", "lane"])
async def test_a_draining_node_refuses_the_stream(door: str) -> None:
    """The legacy stream answers 503 while the server shuts down."""
    async with open_world(make_options()) as world:
        world.node.is_draining = True

        answer = await DOORS[door](world, Call("/api", b'{"method":"info","params":{}}'))

        assert answer == Answer(503, b"", "")
