"""Bodies, verbs and keys that the server API must refuse, and how it does."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.live.harness import API_KEY, Server


pytestmark = pytest.mark.live

KEY: Mapping[str, str] = {"X-API-Key": API_KEY}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b'"text"',
        b"7",
        b'{"channel":"a","data":1} more',
        b'{"channel":"a","data":1}{}',
        b'{"channel":7,"data":1}',
        b'{"channel":"a","data":1,"version":-1}',
        b'{"channel":"a","data":1,"version":1.5}',
        b'{"channel":"a","data":1,"version":"1"}',
        b'{"channel":"a","data":1,"tags":{"k":1}}',
        b'{"channel":"a","data":1,"tags":[]}',
        b'{"channel":"a","data":{"broken":}}',
        b'{"channel":"a","data":1,"skip_history":"yes"}',
        b'{"channel":"\xff","data":nul}',
        b"\x00\x01\x02",
        b"[" * 100_000,
    ],
)
def test_malformed_body(server: Server, body: bytes) -> None:
    """What is no request object answers 400 in plain text, without a word about why."""
    answer = server.request("/api/publish", body, KEY)

    assert answer.status == 400
    assert answer.body == b"Bad Request\n"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "parameters", "code"),
    [
        ("publish", {}, 107),
        ("publish", None, 107),
        ("publish", {"channel": "a"}, 107),
        ("publish", {"data": 1}, 107),
        ("publish", {"channel": "", "data": 1}, 107),
        ("publish", {"channel": "a", "b64data": "***"}, 107),
        ("publish", {"channel": "nope:a", "data": 1}, 102),
        ("broadcast", {"channels": [], "data": 1}, 107),
        ("subscribe", {"user": "u"}, 107),
        ("subscribe", {"user": "u", "channel": "nope:a"}, 102),
        ("unsubscribe", {"user": "u"}, 107),
        ("unsubscribe", {"user": "u", "channel": "nope:a"}, 102),
        ("presence", {"channel": "hist:a"}, 108),
        ("presence", {}, 107),
        ("presence_stats", {"channel": "hist:a"}, 108),
        ("history", {"channel": "room:a"}, 108),
        ("history", {}, 107),
        ("history_remove", {"channel": "room:a"}, 108),
        ("rpc", {"method": "no"}, 104),
    ],
)
def test_refused_request(server: Server, method: str, parameters: object, code: int) -> None:
    """An error is 200 with a code, or the code's HTTP status where the caller asks for that."""
    answer = server.api(method, parameters)
    mapped = server.api(method, parameters, {"X-Centrifugo-Error-Mode": "transport"})

    assert answer.status == 200
    assert answer.json["error"]["code"] == code
    assert answer.json["error"]["message"]
    assert mapped.status == {102: 404, 104: 404, 107: 400, 108: 400}[code]
    assert mapped.json == answer.json["error"]


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_verbs(server: Server, verb: str) -> None:
    """Only POST is taken, whatever the key."""
    for headers in ({}, KEY):
        answer = server.request("/api/publish", None, headers, verb)

        assert answer.status == 405
        assert answer.body == b""


@pytest.mark.parametrize("path", ["/api/nothing", "/api/", "/api/publish/", "/api/connections"])
def test_unknown_path(server: Server, path: str) -> None:
    """What is no method is 404."""
    answer = server.request(path, b"{}", KEY)

    assert answer.status == 404
    assert answer.body.strip() == b"404 page not found"


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"X-API-Key": API_KEY}, "", 200),
        ({"Authorization": f"apikey {API_KEY}"}, "", 401),  # our key has spaces
        ({"Authorization": f"Bearer {API_KEY}"}, "", 401),
        ({}, "?api_key=a+key+for+live+tests", 200),
        ({"X-API-Key": "wrong"}, "?api_key=a+key+for+live+tests", 200),
        ({"X-API-Key": "wrong", "Authorization": f"apikey {API_KEY}"}, "", 401),
        ({"X-API-Key": "wrong"}, "", 401),
        ({"X-API-Key": ""}, "", 401),
        ({}, "", 401),
        ({}, "?api_key=", 401),
    ],
)
def test_key(server: Server, headers: Mapping[str, str], query: str, status: int) -> None:
    """The key comes in a header or the query; nothing is said to who has none."""
    answer = server.request(f"/api/info{query}", b"{}", headers)

    assert answer.status == status
    if status == 401:
        assert answer.body == b""


def test_batch(server: Server) -> None:
    """Replies stand in the order of the commands, in the form of each method."""
    answer = server.api(
        "batch",
        {
            "commands": [
                {"publish": {"channel": "a", "data": {}}},
                {"publish": {"channel": "nope:a", "data": {}}},
                {"presence_stats": {"channel": "room:empty"}},
            ]
        },
    )

    assert answer.body == (
        b'{"replies":[{"publish":{}},{"error":{"code":102,"message":"unknown channel"}},'
        b'{"presence_stats":{"num_clients":0,"num_users":0}}]}'
    )


def test_reply_is_the_same_whatever_is_accepted(server: Server) -> None:
    """Neither Accept nor Content-Type changes an answer."""
    body = json.dumps({"channel": "a", "data": 1}).encode()
    answers = [
        server.request("/api/publish", body, {**KEY, **headers})
        for headers in (
            {},
            {"Accept": "text/html"},
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/xml"},
        )
    ]

    assert {(answer.status, answer.body) for answer in answers} == {(200, b'{"result":{}}')}
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/json"}
