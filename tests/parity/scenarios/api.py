"""The server API over HTTP."""

from __future__ import annotations

from typing import Any

from tests.live.harness import API_KEY
from tests.parity.encodings import JSON, PROTOBUF
from tests.parity.script import scenario
from tests.parity.talk import ABSENT, Differs, Talk


METHODS = (
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "refresh",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "rpc",
    "batch",
    "map_publish",
    "map_remove",
    "map_read_state",
    "map_read_stream",
    "map_stats",
    "map_clear",
    "shared_poll_publish",
)


@scenario()
async def api_bodies_that_are_wrong(talk: Talk) -> None:
    """What cannot be read is 400 in every method."""
    for method in METHODS:
        for text in ("", "{bad", "[]", '"a"', "1", "{} x", "{}{}"):
            await talk.call(method, text)
        if method != "info":
            await talk.call(
                method, '{"channel":1,"channels":1,"user":1,"method":1,"commands":1,"pattern":1}'
            )


@scenario()
async def api_fields_of_wrong_types(talk: Talk) -> None:
    """400, too."""
    channel = talk.channel("open")
    for method, change in (
        ("publish", {"tags": {"a": 1}}),
        ("publish", {"tags": []}),
        ("publish", {"version": -1}),
        ("publish", {"version": 1.5}),
        ("publish", {"version": "1"}),
        ("publish", {"skip_history": 1}),
        ("publish", {"skip_history": "true"}),
        ("publish", {"b64data": 1}),
        ("publish", {"tags": None, "version": None, "skip_history": None, "b64data": None}),
        ("publish", {"Tags": {"a": "b"}, "unknown": 1}),
        ("history", {"limit": "1"}),
        ("history", {"limit": 1.0}),
        ("history", {"limit": 3000000000}),
        ("history", {"since": 1}),
        ("history", {"since": {"offset": -1}}),
        ("history", {"reverse": "x"}),
        ("broadcast", {"channels": [1]}),
        ("broadcast", {"channels": [None]}),
        ("broadcast", {"channels": {}}),
        ("disconnect", {"disconnect": 1}),
        ("disconnect", {"whitelist": "a"}),
        ("subscribe", {"expire_at": "1"}),
        ("subscribe", {"override": {"presence": True}}),
        ("batch", {"commands": {}}),
        ("batch", {"parallel": 1}),
    ):
        await talk.call(method, {"channel": channel, "data": 1, **change})


_NO_CHANNEL = Differs(
    "a call without a channel has no effect, and says so",
    {"body": {"error": {"code": 107, "message": "bad request"}}},
)
_NO_STREAM = Differs(
    "a broadcast checks the type of a namespace as publish does",
    {"body.result.responses": [{"error": {"code": 107, "message": "bad request"}}]},
)


@scenario()
async def api_minimal_bodies(talk: Talk) -> None:
    """Nothing said, ``null``, an unknown namespace, an empty channel, a key that fits no type."""
    for method in METHODS:
        if method in ("info", "channels"):
            continue
        for text in ("{}", "null"):
            if method != "disconnect":
                await talk.call(
                    method, text, differs=_NO_CHANNEL if method == "unsubscribe" else None
                )
        for channel in (
            "nowhere:a",
            "",
            talk.channel("open"),
            talk.channel("board"),
            talk.channel("poll"),
        ):
            if method not in ("rpc", "batch", "disconnect", "refresh") and (method, channel) != (
                "unsubscribe",
                "",
            ):
                body = {
                    "channel": channel,
                    "channels": [channel],
                    "data": 1,
                    "key": "k",
                    "user": "nobody-here",
                }
                is_keyed = channel.startswith(("board", "poll"))
                differs = _NO_STREAM if method == "broadcast" and is_keyed else None
                await talk.call(method, body, differs=differs)


@scenario()
async def api_doors(talk: Talk) -> None:
    """Keys, verbs and paths."""
    body = {"channel": talk.channel("open"), "data": 1}
    for headers, query in (
        ({}, ""),
        ({"X-API-Key": "wrong"}, ""),
        ({"Authorization": f"apikey {API_KEY}"}, ""),
        ({"Authorization": f"Bearer {API_KEY}"}, ""),
        ({"Authorization": "apikey wrong"}, ""),
        ({}, f"?api_key={API_KEY.replace(' ', '%20')}"),
        ({}, "?api_key=wrong"),
        ({"X-API-Key": "wrong"}, f"?api_key={API_KEY.replace(' ', '%20')}"),
        ({"X-API-Key": "wrong", "Authorization": f"apikey {API_KEY}"}, ""),
        ({"X-API-Key": API_KEY, "Content-Type": "text/plain", "Accept": "text/html"}, ""),
    ):
        await talk.call("publish", body, headers=headers, query=query)
    for verb in ("GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"):
        await talk.call("publish", body, verb=verb)
        await talk.call("publish", body, verb=verb, headers={})
    for method in ("nothing", "publish/", "connections", "block_user", "Publish"):
        await talk.call(method, body)


@scenario()
async def api_error_mode(talk: Talk) -> None:
    """Errors as HTTP statuses on request; batch and broadcast stay as they are."""
    headers = {"X-API-Key": API_KEY, "X-Centrifugo-Error-Mode": "transport"}
    for method, body in (
        ("publish", {"channel": ""}),
        ("publish", {"channel": "nowhere:a", "data": 1}),
        ("history", {"channel": talk.channel("open")}),
        ("history", {"channel": talk.channel("hist"), "since": {"offset": 1, "epoch": "x"}}),
        ("rpc", {"method": "x"}),
        ("channels", {"pattern": "["}),
        ("broadcast", {"channels": ["nowhere:a"], "data": 1}),
        ("batch", {"commands": [{"publish": {}}]}),
        ("publish", {"channel": talk.channel("open"), "data": 1}),
    ):
        await talk.call(method, body, headers=headers)
    await talk.call("publish", {}, headers={**headers, "X-Centrifugo-Error-Mode": "Transport"})


@scenario()
async def api_publishing(talk: Talk) -> None:
    """Data and its formats, one channel and many."""
    client = await talk.client()
    channel = talk.channel("plain")
    await client.subscribe(channel)
    for text in (
        '"data":null',
        '"data":""',
        '"data":0',
        '"b64data":"eyJhIjoxfQ=="',
        '"data":1,"b64data":"Mg=="',
        '"data":{"a":"<&>é"},"tags":{"x":"y"}',
    ):
        await talk.call("publish", f'{{"channel":"{channel}",{text}}}')
        await client.push()
    for text in ('"b64data":"!"', '"b64data":"eyJhIjoxfQ"', '"b64data":""', '"tags":{}'):
        await talk.call("publish", f'{{"channel":"{channel}",{text}}}')
    for name in ("json", "objects"):
        for data in (None, 1, [], {}, "text"):
            await talk.call("publish", {"channel": talk.channel(name), "data": data})
            await talk.call("broadcast", {"channels": [talk.channel(name)], "data": data})
        for b64data in ("eyJhIjoxfQ==", "e2JhZA==", "MQ=="):
            await talk.call("publish", {"channel": talk.channel(name), "b64data": b64data})
    await talk.call(
        "broadcast",
        {"channels": [channel, "", "nowhere:a", talk.channel("open")], "data": {"all": 1}},
    )
    await client.push()
    await talk.call("broadcast", {"channels": [], "data": 1})
    await talk.call("broadcast", {"channels": [channel]})
    await talk.call("broadcast", {"channels": [channel], "b64data": "!"})
    await talk.call("history", {"channel": channel, "limit": -1})
    for name in ("open:é", "o" * 300):
        await talk.call("publish", {"channel": name, "data": 1})


@scenario()
async def api_binary_data(talk: Talk) -> None:
    """What is no JSON ends a JSON subscriber, and cannot be read from history."""
    channel = talk.channel("plain")
    client = await talk.client()
    await client.subscribe(channel)
    await talk.call("publish", {"channel": channel, "b64data": "/w=="})
    await client.closed()
    await talk.call("history", {"channel": channel, "limit": 1})


@scenario(JSON, PROTOBUF)
async def api_on_connections(talk: Talk) -> None:
    """Subscribe, unsubscribe, refresh and disconnect, by user and by client."""
    user, channel = f"user-{talk.encoding}", talk.channel("hist")
    await talk.call("publish", {"channel": channel, "data": 1})
    connect = {"token": talk.token(user, exp=1000)}
    one, two = await talk.client("one", connect=connect), await talk.client("two", connect=connect)
    other = await talk.client("other", connect={"token": talk.token("somebody")})
    await talk.call(
        "subscribe", {"user": user, "channel": channel, "data": {"d": 1}, "info": {"i": 1}}
    )
    for client in (one, two):
        await client.push()
    await talk.call("publish", {"channel": channel, "data": 2})
    for client in (one, two):
        await client.push()
    await one.subscribe(channel)
    await talk.call("unsubscribe", {"user": user, "channel": channel})
    for client in (one, two):
        await client.push()
    await one.subscribe(talk.channel("room"))
    await one.push()
    await talk.call("unsubscribe", {"user": user, "channel": talk.channel("room")})
    await one.push()
    await two.push(
        differs=Differs("who has no subscription is not told that it has none", ours=ABSENT)
    )
    override = {"presence": {"value": True}, "force_recovery": {"value": True}}
    await talk.call(
        "subscribe", {"user": user, "channel": talk.channel("plain"), "override": override}
    )
    await talk.call("refresh", {"user": user, "expire_at": 0})
    for client in (one, two):
        await client.pushes(2)
    await talk.call("presence_stats", {"channel": talk.channel("plain")})
    await talk.call("refresh", {"user": "offline", "expired": True})
    await talk.call("disconnect", {"user": "offline"})
    await talk.call(
        "disconnect", {"user": "somebody", "disconnect": {"code": 4321, "reason": "bye"}}
    )
    await other.closed()
    await talk.call("refresh", {"user": user, "expired": True})
    await one.closed()
    await two.closed()


@scenario()
async def api_disconnects(talk: Talk) -> None:
    """The default, a code of one's own, and a whitelist."""
    for body in (
        {},
        {"disconnect": {"code": 4000, "reason": "again"}},
        {"disconnect": {"code": 3500}},
    ):
        client = await talk.client(f"{body}", connect={"token": talk.token("leaver")})
        await talk.call("disconnect", {"user": "leaver", **body})
        await client.closed()
    await talk.call("disconnect", {"user": "", "client": "unknown"})


@scenario()
async def api_recovery_since(talk: Talk) -> None:
    """A server-side subscription with a position and an end."""
    channel = talk.channel("hist")
    for number in (1, 2, 3):
        await talk.call("publish", {"channel": channel, "data": number})
    client = await talk.client(connect={"token": talk.token("since")})
    await talk.call(
        "subscribe",
        {"user": "since", "channel": channel, "recover_since": {"offset": 1, "epoch": ""}},
    )
    await client.push()
    await talk.call("publish", {"channel": channel, "data": 4})
    await client.push()


@scenario()
async def api_presence(talk: Talk) -> None:
    """Who is there, by the API; where there is no presence; nobody."""
    channel = talk.channel("members")
    await talk.call("presence", {"channel": channel})
    await talk.call("presence_stats", {"channel": channel})
    for user in ("ann", "ann", ""):
        connect = {"token": talk.token(user, info={"of": user})}
        await (await talk.client(f"client of {user}", connect=connect)).subscribe(channel)
    await talk.call("presence", {"channel": channel})
    await talk.call("presence_stats", {"channel": channel})
    await talk.call("presence", {"channel": talk.channel("open")})


@scenario()
async def api_channels(talk: Talk) -> None:
    """By pattern; only those with subscribers."""
    first, second = await talk.client("first"), await talk.client("second")
    for suffix in ("-a", "-b", "-ab"):
        await first.subscribe(talk.channel("open", suffix))
    await second.subscribe(talk.channel("open", "-a"))
    base = f"{talk.name}-{talk.encoding}"
    for pattern in (
        f"*{base}*",
        f"open:{base}-?",
        f"open:{base}-[ab]",
        f"open:{base}-[!a]",
        f"open:{base}-{{a,ab}}",
        f"{base}*",
        "nothing",
        "[",
        "open:" + base + "-a",
    ):
        await talk.call("channels", {"pattern": pattern})


@scenario()
async def api_batches(talk: Talk) -> None:
    """Success, errors and what is no command, in one after another and at once."""
    channel = talk.channel("hist")
    commands: list[Any] = [
        {"publish": {"channel": channel, "data": 1}},
        {"publish": {"channel": "nowhere:a", "data": 1}},
        {},
        None,
        {"unknown": {}},
        {"history": {"channel": channel, "limit": 1}},
        {"presence": {"channel": channel}},
        {"history_remove": {"channel": channel}},
        {"rpc": {"method": "x"}},
        {"channels": {"pattern": "nothing"}},
        {"broadcast": {"channels": [channel, ""], "data": 2}},
        {"subscribe": {"user": "offline", "channel": channel}, "unsubscribe": {"user": "offline"}},
        {"map_publish": {"channel": talk.channel("board"), "key": "k", "data": 1}},
        {"map_stats": {"channel": talk.channel("board")}},
        {"shared_poll_publish": {"channel": talk.channel("poll"), "key": "k", "version": 1}},
        {"batch": {"commands": []}},
    ]
    await talk.call("batch", {"commands": commands})
    await talk.call("batch", {"commands": commands[1:5], "parallel": True})
    await talk.call("batch", {"commands": [{"publish": 1}]})
    await talk.call("batch", {"commands": [1]})


@scenario()
async def api_legacy(talk: Talk) -> None:
    """The old stream of commands: what answers to one of them is read here, several are text."""
    channel = talk.channel("hist")
    for text in (
        f'{{"id":1,"method":"publish","params":{{"channel":"{channel}","data":1}}}}',
        f'{{"id":2,"method":"PUBLISH","params":{{"channel":"{channel}","data":1}}}}',
        f'{{"id":3,"params":{{"channel":"{channel}","data":1}}}}',
        f'{{"id":4,"method":6,"params":{{"channel":"{channel}","limit":1}}}}',
        '{"id":5,"method":"nothing","params":{}}',
        '{"id":6,"method":"connections","params":{}}',
        '{"id":7,"method":"publish","params":{"channel":1}}',
        '{"id":8,"method":"publish"}',
        '{"id":9,"method":10,"params":{"method":"x"}}',
        '{"id":10,"method":13,"params":{}}',
        "",
        "[]",
        "null",
        '{"id":11,"method":"rpc","params":{}}\n{"id":12,"method":"nope"}',
        '{"id":13,"method":"rpc","params":{}}{"id":14,"method":37,"params":{"channel":"a"}}',
    ):
        await talk.call("", text)


_AHEAD = Differs(
    "who is ahead of the stream has not what it thinks it has",
    {"body": {"error": {"code": 112, "message": "unrecoverable position"}}},
)


@scenario()
async def api_maps(talk: Talk) -> None:
    """Writing, reading and clearing maps."""
    for namespace in ("board", "rec"):
        channel = talk.channel(namespace)

        async def write(key: str, channel: str = channel, **more: Any) -> None:
            await talk.call(
                "map_publish", {"channel": channel, "key": key, "data": {"of": key}, **more}
            )

        await talk.call("map_stats", {"channel": channel})
        await talk.call("map_read_state", {"channel": channel, "limit": -1})
        await write("a", tags={"t": "1"}, idempotency_key="i")
        await write("b", idempotency_key="i")
        await write("a", key_mode="if_new")
        await write("b", key_mode="if_exists")
        await write("b", key_mode="if_new")
        await write("b", key_mode="if_exists")
        await write("b", key_mode="sometimes")
        for version, epoch in (
            (5, ""),
            (4, ""),
            (5, ""),
            (1, "e"),
            (1, "e"),
            (2, "e"),
            (0, ""),
            (2, "e"),
            (3, ""),
        ):
            await write("v", version=version, version_epoch=epoch)
        await talk.call("map_publish", {"channel": channel, "key": "none"})
        await talk.call(
            "map_publish", {"channel": channel, "key": "b64", "b64data": "eyJhIjoxfQ=="}
        )
        await talk.call("map_publish", {"channel": channel, "key": "b64", "b64data": "!"})
        await talk.call("map_remove", {"channel": channel, "key": "none", "idempotency_key": "r"})
        await talk.call("map_remove", {"channel": channel, "key": "b", "idempotency_key": "r"})
        await talk.call("map_remove", {"channel": channel, "key": "none"})
        epoch = (await talk.call("map_read_state", {"channel": channel}))["result"]["epoch"]
        for more in (
            {"limit": -1},
            {"limit": 2},
            {"limit": 2, "cursor": "a"},
            {"limit": 2, "cursor": "zzz"},
            {"key": "b"},
            {"key": "b", "limit": 1},
            {"key": "nope", "limit": 1},
            {"limit": -1, "asc": True},
            {"limit": -1, "revision_offset": 1, "revision_epoch": epoch},
            {"limit": -1, "revision_epoch": "another"},
        ):
            await talk.call("map_read_state", {"channel": channel, **more})
        for more in (
            {},
            {"limit": -1},
            {"limit": 2},
            {"limit": 2, "reverse": True},
            {"limit": 2, "since_offset": 4, "since_epoch": epoch},
            {"limit": 2, "since_offset": 4, "reverse": True},
            {"limit": 2, "since_offset": 99},
            {"limit": -1, "since_offset": 4, "since_epoch": "another"},
        ):
            ahead = _AHEAD if more.get("since_offset") == 99 else None
            await talk.call("map_read_stream", {"channel": channel, **more}, differs=ahead)
        await talk.call("map_stats", {"channel": channel})
        await talk.call("map_clear", {"channel": channel})
        await talk.call("map_stats", {"channel": channel})
        await write("a", idempotency_key="i")


@scenario()
async def api_ephemeral_maps_have_no_versions(talk: Talk) -> None:
    """Versions need a stream."""
    body = {"channel": talk.channel("eph"), "key": "a", "data": 1}
    await talk.call("map_publish", {**body, "version": 1})
    await talk.call(
        "map_read_state", {"channel": talk.channel("eph"), "limit": -1, "revision_epoch": "x"}
    )
