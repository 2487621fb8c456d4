"""Connecting and the commands of a connection."""

from __future__ import annotations

from typing import Any

from tests.parity.encodings import JSON, PROTOBUF
from tests.parity.script import scenario
from tests.parity.talk import Differs, Talk


ANOTHER_KEY = "another secret, as long as it has to be"


@scenario()
async def frames_that_end_it(talk: Talk) -> None:
    """What cannot be read, or does not belong there: 3501, each on a connection of its own."""
    for text in (
        '{"id":1,"subscribe":{"channel":"a"}}',
        "{}",
        '{"connect":{}}',
        "",
        "{bad",
        "[]",
        "null",
        "1",
        '{"id":"1","connect":{}}',
        '{"id":-1,"connect":{}}',
        '{"id":1,"connect":[]}',
        '{"id":1,"connect":{"token":1}}',
    ):
        client = await talk.client(f"first {text}", connect=None)
        await client.send(text)
        await client.closed()
    for text in (
        '{"id":2,"connect":{}}',
        "{}",
        "",
        "\n",
        "{bad",
        "[]",
        '{"id":2}',
        '{"id":2,"ping":{}}',
        '{"id":2,"foo":{}}',
        '{"subscribe":{"channel":"a"}}',
        '{"id":2,"subscribe":{}}',
        '{"id":2,"subscribe":{"channel":1}}',
        '{"id":2,"subscribe":{"channel":"a","offset":-1}}',
        '{"id":2,"subscribe":{"channel":"a","offset":1.5}}',
        '{"id":2,"unsubscribe":{}}',
        '{"id":2,"publish":{"data":1}}',
        '{"id":2,"history":{}}',
        '{"id":2,"presence":{}}',
        '{"id":2,"presence_stats":{}}',
        '{"id":2,"sub_refresh":{"token":"x"}}',
        '{"id":2,"refresh":{}}',
        '{"id":2,"refresh":{"token":"x"}}',
        '{"send":{"data":{}}}',
        '{"id":2,"send":{"data":{}}}',
        '{"id":2,"unsubscribe":{"channel":"a"}}\n\n{"id":3,"unsubscribe":{"channel":"a"}}',
        '{"id":2,"unsubscribe":{"channel":"a"}}\n{"id":3}\n{"id":4,"unsubscribe":{"channel":"a"}}',
    ):
        client = await talk.client(f"later {text}")
        await client.send(text)
        await client.closed()


@scenario()
async def frames_that_are_read(talk: Talk) -> None:
    """What is forgiven: names in capitals, unknown fields, nulls, separators, several commands at once."""
    client = await talk.client(connect=None)
    await client.send(
        '{"ID":1,"Connect":{"unknown":1,"token":null,"subs":null}}\r\n'
        '{"id":2,"unsubscribe":{"channel":"a"},"more":[]}\n'
    )
    await client.next()
    await client.next()
    await client.send('{"id":3,"unsubscribe":{"channel":"a"},"publish":{"channel":"a"}}')
    await client.reply(3)
    await client.send('{"id":3,"rpc":{"method":"x"},"history":{"channel":"nowhere:a"}}')
    await client.reply(3)
    await client.send('  {"id":0,"id":4,"unsubscribe":{"channel":"a","channel":"b"}}  ')
    await client.reply(4)


@scenario(JSON, PROTOBUF)
async def commands_without_handlers(talk: Talk) -> None:
    """RPC and send."""
    client = await talk.client()
    await client.ask({"rpc": {"method": "x", "data": {"a": 1}}})
    await client.ask({"rpc": {"method": "ns:x", "data": {"a": 1}}})
    await client.ask({"rpc": {"method": ""}})
    await client.send({"send": {"data": {"a": 1}}})
    await client.closed()


@scenario(JSON, PROTOBUF)
async def connects(talk: Talk) -> None:
    """With every kind of token, and channels that it names."""
    hist, room, secret = talk.channel("hist"), talk.channel("room"), talk.channel("closed")
    await talk.client("nobody", connect={"name": "test", "version": "1", "data": {"a": 1}})
    tokens = {
        "plain": talk.token("ann"),
        "with an end": talk.token("ann", exp=1000, info={"name": "Ann"}),
        "without a user": talk.token(""),
        "channels": talk.token("ann", channels=[hist, room, secret]),
        "subs": talk.token(
            "ann",
            subs={
                hist: {"info": {"i": 1}, "data": {"d": 1}},
                secret: {"override": {"presence": {"value": True}}},
            },
        ),
        "expired": talk.token("ann", exp=-60),
        "not yet": talk.token("ann", nbf=60),
        "another key": talk.token("ann", key=ANOTHER_KEY),
        "rubbish": "rubbish",
        "three parts": "a.b.c",
        "unknown namespace": talk.token("ann", channels=["nowhere:a"]),
        "empty channel": talk.token("ann", channels=[""]),
        "many channels": talk.token("ann", channels=[f"open:{number}" for number in range(9)]),
        "expire_at": talk.token("ann", exp=-60, expire_at=600),
    }
    for name, token in tokens.items():
        await talk.client(name, connect={"token": token})


@scenario()
async def claims_of_wrong_types(talk: Talk) -> None:
    """A token whose claims cannot be read is invalid."""
    for claims in (
        {"channels": "a"},
        {"channels": [1]},
        {"subs": []},
        {"subs": {"open:a": 1}},
        {"info": "text"},
        {"b64info": "e30="},
        {"b64info": "!"},
        {"aud": "x"},
        {"iss": "x"},
        {"meta": {"a": 1}},
    ):
        why = "a token that cannot be read is invalid; an internal error would have the client try it for ever"
        differs = Differs(why, ours=(3500, "invalid token")) if claims == {"b64info": "!"} else None
        token = talk.token("ann", **claims)
        await talk.client(f"{claims}", connect={"token": token}, differs=differs)


@scenario()
async def wishes_at_connect(talk: Talk) -> None:
    """``subs`` of a connect: what may be subscribed is, the rest is left out; an unknown namespace is the end."""
    names = ("open", "hist", "closed", "named", "room")
    wishes: dict[str, Any] = {talk.channel(name): {"recover": name == "hist"} for name in names}
    await talk.client("nobody", connect={"subs": wishes})
    await talk.client("ann", connect={"token": talk.token("ann"), "subs": wishes})
    await talk.client("private", connect={"subs": {"$open:a": {}, "users:a#ann": {}}})
    mine = {"users:a#ann": {}, "users:a#bob": {}, "users:a#bob,ann": {}}
    await talk.client("limited", connect={"token": talk.token("ann"), "subs": mine})
    await talk.client("unknown", connect={"subs": {"nowhere:a": {}}})
    await talk.client("too many", connect={"subs": {f"open:{number}": {} for number in range(9)}})


@scenario(hasty=True)
async def refused_connection_is_of_no_use(talk: Talk) -> None:
    """After an error reply to a connect nothing is carried out, not even of the same frame; then it is stale."""
    client = await talk.client(connect=None)
    token = talk.token("ann", exp=-60)
    await client.send(
        {"id": 1, "connect": {"token": token}}, {"id": 2, "unsubscribe": {"channel": "a"}}
    )
    await client.reply(1)
    await client.closed()


@scenario(JSON, PROTOBUF)
async def subscribes(talk: Talk) -> None:
    """Each permission, and each reason to refuse."""
    private = f"${talk.channel('open')}"
    channels = [
        *(
            talk.channel(name)
            for name in ("open", "closed", "named", "members", "digits", "nowhere")
        ),
        f"plain-{talk.encoding}",
        "digits:123",
        "open:é",
        "open:a b",
        "open:",
        ":open",
        "nowhere",
        private,
        "users:a#ann",
        "users:a#bob",
        "users:a#bob,ann",
        "users:a#",
        "open:a#bob",
        "o" * 80,
        "o" * 81,
    ]
    for user in ("", "ann"):
        client = await talk.client(
            user or "nobody", connect={"token": talk.token(user)} if user else {}
        )
        for channel in channels:
            why = "nobody is not on a list of users, though an empty name is"
            error = {"code": 103, "message": "permission denied"}
            if not user and channel == "users:a#":
                await (await talk.client("of an empty name")).subscribe(
                    channel, differs=Differs(why, ours={"id": 2, "error": error})
                )
            elif (await client.subscribe(channel)) is not None:
                await client.subscribe(channel)
                await client.unsubscribe(channel)
                await client.unsubscribe(channel)
    error = {"code": 107, "message": "bad request"}
    for kind in (5, -1):
        await (await talk.client(f"type {kind}")).subscribe(
            talk.channel("open"),
            type=kind,
            differs=Differs(
                "a type that is none ends no connection", ours={"id": 2, "error": error}
            ),
        )


@scenario()
async def too_many_channels(talk: Talk) -> None:
    """Eight are allowed here."""
    client = await talk.client()
    for number in range(9):
        await client.subscribe(talk.channel("open", f"-{number}"))
    await client.unsubscribe(talk.channel("open", "-0"))
    await client.subscribe(talk.channel("open", "-9"))


@scenario(JSON, PROTOBUF)
async def subscription_tokens(talk: Talk) -> None:
    """Good ones, and each that is not; one for somebody else is the end."""
    channel = f"${talk.channel('closed')}"
    good: dict[str, Any] = {"channel": channel}
    tokens = {
        "good": talk.token("ann", **good),
        "with an end": talk.token("ann", **good, exp=1000),
        "data": talk.token("ann", **good, info={"i": 1}, data={"d": 1}),
        "expired": talk.token("ann", **good, exp=-60),
        "not yet": talk.token("ann", **good, nbf=60),
        "another key": talk.token("ann", **good, key=ANOTHER_KEY),
        "rubbish": "rubbish",
        "another channel": talk.token("ann", channel="$closed:b"),
        "another user": talk.token("bob", **good),
        "another client": talk.token("ann", **good, client="c"),
        "no channel": talk.token("ann"),
        "expire_at": talk.token("ann", **good, exp=-60, expire_at=600),
        "expire_at over": talk.token("ann", **good, exp=600, expire_at=-60),
        "override": talk.token(
            "ann", **good, override={"presence": {"value": True}, "force_recovery": {"value": True}}
        ),
    }
    for name, token in tokens.items():
        client = await talk.client(name, connect={"token": talk.token("ann")})
        await client.subscribe(channel, token=token)


@scenario(JSON, PROTOBUF)
async def refreshes(talk: Talk) -> None:
    """Of the connection's token."""
    client = await talk.client(connect={"token": talk.token("ann", exp=1000)})
    await client.ask({"refresh": {"token": talk.token("ann", exp=2000)}})
    await client.ask({"refresh": {"token": talk.token("ann")}})
    for name, token in (
        ("expired", talk.token("ann", exp=-60)),
        ("another key", talk.token("ann", key=ANOTHER_KEY)),
        ("another user", talk.token("bob", exp=1000)),
        ("rubbish", "rubbish"),
        ("empty", ""),
        ("more channels", talk.token("ann", exp=1000, channels=[talk.channel("open")])),
    ):
        client = await talk.client(name, connect={"token": talk.token("ann", exp=1000)})
        await client.ask({"refresh": {"token": token}})
    client = await talk.client("nobody")
    await client.ask({"refresh": {"token": talk.token("", exp=1000)}})
    token = talk.token("ann", exp=1000, channels=[talk.channel("open")])
    client = await talk.client("fewer channels", connect={"token": token})
    await client.ask({"refresh": {"token": talk.token("ann", exp=1000)}})


@scenario(JSON, PROTOBUF)
async def subscription_refreshes(talk: Talk) -> None:
    """Of a subscription's token."""
    channel = f"${talk.channel('closed')}"
    good = {"channel": channel}

    async def start(name: str) -> Any:
        client = await talk.client(name, connect={"token": talk.token("ann")})
        await client.subscribe(channel, token=talk.token("ann", **good, exp=1000))
        return client

    client = await start("good")
    await client.ask(
        {"sub_refresh": {"channel": channel, "token": talk.token("ann", **good, exp=2000)}}
    )
    await client.ask({"sub_refresh": {"channel": channel, "token": talk.token("ann", **good)}})
    await client.ask({"sub_refresh": {"channel": channel}})
    await client.ask(
        {"sub_refresh": {"channel": "other", "token": talk.token("ann", channel="other")}}
    )
    for name, token in (
        ("another key", talk.token("ann", **good, key=ANOTHER_KEY)),
        ("another user", talk.token("bob", **good)),
        ("another channel", talk.token("ann", channel="$closed:b")),
        ("another client", talk.token("ann", **good, client="c")),
        ("rubbish", "rubbish"),
    ):
        client = await start(name)
        await client.ask({"sub_refresh": {"channel": channel, "token": token}})
    client = await talk.client("without a token", connect={"token": talk.token("ann")})
    await client.subscribe(talk.channel("open"))
    token = talk.token("ann", channel=talk.channel("open"), exp=1000)
    await client.ask({"sub_refresh": {"channel": talk.channel("open"), "token": token}})


@scenario()
async def subscription_refresh_with_an_old_token(talk: Talk) -> None:
    """Centrifugo takes it and forgets the end; here it is an error."""
    channel = f"${talk.channel('closed')}"
    client = await talk.client(connect={"token": talk.token("ann")})
    await client.subscribe(channel, token=talk.token("ann", channel=channel, exp=1000))
    token = talk.token("ann", channel=channel, exp=-60)
    await client.ask(
        {"sub_refresh": {"channel": channel, "token": token}},
        differs=Differs(
            "a token that is over does not make a subscription endless",
            ours={"id": 3, "error": {"code": 109, "message": "token expired"}},
        ),
    )


@scenario(JSON, PROTOBUF)
async def publishes(talk: Talk) -> None:
    """Permissions, formats, and who published."""
    info = {"name": "Ann"}
    for user in ("", "ann"):
        connect = {"token": talk.token(user, info=info)} if user else {}
        client = await talk.client(user or "nobody", connect=connect)
        for name in ("open", "closed", "named", "members", "nowhere", "digits", "room"):
            await client.ask({"publish": {"channel": talk.channel(name), "data": {"a": 1}}})
        await client.subscribe(talk.channel("members"))
        await client.ask({"publish": {"channel": talk.channel("members"), "data": {"a": 1}}})
        await client.push()
        await client.unsubscribe(talk.channel("members"))
        for name in ("open", "json", "objects"):
            channel = talk.channel(name)
            await client.ask({"publish": {"channel": channel}})
            for data in (None, 1, "", [], {}):
                if talk.encoding == JSON or data is not None:
                    await client.ask({"publish": {"channel": channel, "data": data}})
        await client.ask({"publish": {"channel": "open:é", "data": 1}})
        await client.ask({"publish": {"channel": "o" * 200, "data": 1}})
    token = talk.token("ann", channel="$closed:a", info={"chan": 1})
    client = await talk.client("informed", connect={"token": talk.token("ann", info=info)})
    channel = f"${talk.channel('members')}"
    await client.subscribe(channel, token=talk.token("ann", channel=channel, info={"chan": 1}))
    await client.ask({"publish": {"channel": channel, "data": 1}})
    await client.push()
    await client.ask({"history": {"channel": channel, "limit": 1}})
    await client.ask(
        {
            "publish": {"channel": "$closed:a", "data": 1, "token": token}
            if talk.encoding == JSON
            else {"channel": "$closed:a", "data": 1}
        }
    )


@scenario(JSON, PROTOBUF)
async def presence_and_history_permissions(talk: Talk) -> None:
    """Who may ask what where."""
    for user in ("", "ann"):
        connect = {"token": talk.token(user)} if user else {}
        client = await talk.client(user or "nobody", connect=connect)
        for name in (
            "open",
            "closed",
            "members",
            "room",
            "asked",
            "plain",
            "nowhere",
            "board",
            "poll",
        ):
            channel = talk.channel(name)
            for command in ("presence", "presence_stats", "history"):
                await client.ask({command: {"channel": channel}})
        await client.subscribe(talk.channel("members"))
        for command in ("presence", "presence_stats", "history"):
            await client.ask({command: {"channel": talk.channel("members")}})
            await client.ask({command: {"channel": "members:é"}})
        await client.unsubscribe(talk.channel("members"))


@scenario(JSON, PROTOBUF)
async def joins_and_leaves(talk: Talk) -> None:
    """Forced upon a subscriber, and asked for; its own join comes after its reply, its own leave not at all."""
    for name in ("room", "asked", "open"):
        channel = talk.channel(name)
        first = await talk.client(f"first in {name}")
        await first.subscribe(channel, join_leave=True)
        if name != "open":
            await first.push()
        silent = await talk.client(f"silent in {name}")
        await silent.subscribe(channel)
        ann = await talk.client(
            f"ann in {name}", connect={"token": talk.token("ann", info={"n": 1})}
        )
        await ann.subscribe(channel, join_leave=True)
        if name != "open":
            await ann.push()
            await first.pushes(2)
        for command in ("presence", "presence_stats"):
            await talk.call(command, {"channel": channel})
            await first.ask({command: {"channel": channel}})
        await ann.unsubscribe(channel)
        if name != "open":
            await first.push()
        await ann.ask({"presence_stats": {"channel": channel}})


@scenario()
async def order_of_replies_and_pushes(talk: Talk) -> None:
    """A subscribe's reply comes before its join and publications; commands of a frame are answered in order."""
    channel = talk.channel("room")
    client = await talk.client()
    await client.send(
        {"id": 2, "subscribe": {"channel": channel}},
        {"id": 3, "presence_stats": {"channel": channel}},
        {"id": 4, "unsubscribe": {"channel": channel}},
        {"id": 5, "history": {"channel": channel}},
    )
    for _ in range(5):
        await client.next()


@scenario()
async def payloads_stay_as_they_are(talk: Talk) -> None:
    """Numbers, escapes and blanks of JSON, one by one, as text within the text."""
    channel = talk.channel("doc")
    client = await talk.client()
    await client.subscribe(channel, delta="fossil")
    for text in (
        "1.0",
        "1e3",
        "12345678901234567890",
        '"\\u00e9\\u2028<&>"',
        '"é\u2028<&>"',
        '{"b": 1,\t"a" : [ ]}',
        "null",
        '""',
    ):
        await talk.call("publish", f'{{"channel":"{channel}","data":{text}}}')
        await client.push()


@scenario(hasty=True)
async def pings(talk: Talk) -> None:
    """A ping comes, a pong is awaited; one that nobody asked for is the end, and so is none."""
    answers, twice, silent = [
        await talk.client(name, connect={"token": talk.token(name)}, answers_pings=False)
        for name in ("answers", "twice", "silent")
    ]
    await answers.next()
    await answers.send({})
    await twice.next()
    await twice.send({})
    await twice.send({})
    await twice.closed()
    await silent.closed()
    await answers.ask({"unsubscribe": {"channel": "a"}})


@scenario(hasty=True)
async def connections_that_end(talk: Talk) -> None:
    """Nothing sent; a token that is over; nobody; more connections of a user than allowed."""
    stale = await talk.client("stale", connect=None)
    await talk.client("nobody")
    expires = await talk.client("expires", connect={"token": talk.token("expires", exp=1)})
    token = talk.token("many")
    for number in range(3):
        await talk.client(f"connection {number}", connect={"token": token})
    await expires.closed()
    await stale.closed()


@scenario(hasty=True)
async def subscriptions_that_end(talk: Talk) -> None:
    """A client's is taken back, one of the server's ends the connection."""
    channel = f"${talk.channel('closed')}"
    client = await talk.client("own", connect={"token": talk.token("sub-own")})
    await client.subscribe(channel, token=talk.token("sub-own", channel=channel, exp=1))
    theirs = await talk.client(
        "server's", connect={"token": talk.token("sub-theirs", subs={talk.channel("open"): {}})}
    )
    await talk.call("unsubscribe", {"user": "sub-theirs", "channel": talk.channel("open")})
    await theirs.push()
    await client.push()
