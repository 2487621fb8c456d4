"""
A script's conversation with one server, and its record.

A scenario asks for clients and for the API, sends and awaits. What it awaits it awaits by kind: a reply by its
command's id, pushes in their order. Whether a push comes before a reply that another connection caused is nobody's
promise, so it is not written down, but where a scenario takes messages by ``next``.

At its end each connection is asked once more, and what came and was not awaited is written down, too: that nothing
else was sent is part of every transcript.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import websockets

from realtime.auth.poll_signatures import sign_batch
from tests.live.harness import API_KEY, HMAC_KEY
from tests.live.polled import PolledApplication
from tests.parity.documents import Documents
from tests.parity.encodings import JSON, PROTOBUF, decode, encode
from tests.parity.masks import Masks, Shown


WAIT_SECONDS = 30.0
POLL_SECRET = "what signs batches of parity"
_FENCE = "fence"


class Absent:
    """What stands for a field that is not there; for a whole answer it is that nothing comes."""

    def __repr__(self) -> str:
        """Name it in a report."""
        return "<absent>"


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Differs:
    """
    What our server answers where it differs on purpose, masked as a transcript is.

    Attributes:
        why: The reason, for a reader.
        changes: What is other than in Centrifugo's answer, by path: ``{"subscribe.state.0.epoch": ABSENT}``.
        ours: The whole answer, in place of ``changes``: a message, the end of the connection as ``(code, reason)``, or
            ``ABSENT``.
        only_ours: Centrifugo answers nothing.

    """

    why: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    ours: Any = None
    only_ours: bool = False


@dataclass(slots=True)
class Line:
    """One entry of a transcript: who sent or got what."""

    entry: dict[str, Any]
    differs: Differs | None = None


@dataclass(slots=True)
class Place:
    """A server to talk to."""

    url: str
    polled: PolledApplication
    is_ours: bool


@dataclass(slots=True)
class Talk:
    """One scenario with one server, and what was said."""

    place: Place
    name: str
    encoding: str = JSON
    lines: list[Line] = field(default_factory=list)
    masks: Masks = field(default_factory=Masks)
    _clients: list[Client] = field(default_factory=list)
    _http: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=WAIT_SECONDS, trust_env=False)
    )

    def channel(self, namespace: str, suffix: str = "") -> str:
        """Name a channel that no other scenario uses."""
        return f"{namespace}:{self.name}-{self.encoding}{suffix}"

    def note(self, who: str, what: str, value: Any, differs: Differs | None = None) -> None:
        """Write a line."""
        masked = self.masks.sent(value) if what == "sent" else self.masks.got(value)
        self.lines.append(Line({"who": who, what: masked}, differs))

    def skips(self, differs: Differs | None) -> bool:
        """Tell whether nothing is to be awaited from this server."""
        if differs is None:
            return False
        return differs.ours is ABSENT if self.place.is_ours else differs.only_ours

    async def client(
        self,
        name: str = "client",
        *,
        connect: Mapping[str, Any] | None = {},
        answers_pings: bool = True,
        differs: Differs | None = None,
    ) -> Client:
        """
        Open a connection; it sends ``connect`` and takes the reply, or nothing if that is ``None``.

        One that answers pings keeps them out of the transcript: when they come is chance.
        """
        options = "?cf_protocol=protobuf" if self.encoding == PROTOBUF else ""
        socket = await websockets.connect(
            self.place.url.replace("http", "ws", 1) + "/connection/websocket" + options,
            proxy=None,
            ping_interval=None,
        )
        client = Client(self, name, socket, answers_pings=answers_pings)
        self._clients.append(client)
        if connect is not None:
            await client.ask({"connect": connect}, differs=differs)
        return client

    async def call(
        self,
        method: str,
        parameters: Any,
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "",
        verb: str = "POST",
        differs: Differs | None = None,
    ) -> Any:
        """Call the server API; ``parameters`` as text go as they are. Returns the body, read where it is JSON."""
        path = f"/api/{method}" if method else "/api"
        body = parameters if isinstance(parameters, str) else json.dumps(parameters)
        answer = await self._http.request(
            verb,
            self.place.url + path + query,
            content=body,
            headers={"X-API-Key": API_KEY} if headers is None else headers,
        )
        sent: dict[str, Any] = {method or "(legacy)": parameters}
        if verb != "POST":
            sent["verb"] = verb
        if headers is not None:
            sent["headers"] = dict(headers)
        if query:
            sent["query"] = query
        self.note("api", "sent", sent)
        return self._answered(answer, differs)

    def _answered(self, answer: httpx.Response, differs: Differs | None) -> Any:
        got: dict[str, Any] = {} if answer.status_code == 200 else {"status": answer.status_code}
        value: Any = None
        try:
            value = json.loads(answer.content)
        except ValueError:
            if answer.content:
                got["text"] = answer.text
        else:
            got["body"] = value
        if answer.content and (kind := answer.headers.get("content-type")) != "application/json":
            got["type"] = kind
        self.note("api", "got", got, differs)
        return value

    def token(self, user: str = "", *, key: str = HMAC_KEY, **claims: Any) -> Shown:
        """Sign a token; ``exp`` and ``nbf`` are seconds from now."""
        shown = {"sub": user, **claims}
        payload = {
            name: int(time.time() + value) if name in ("exp", "nbf", "expire_at") else value
            for name, value in shown.items()
            if value != "" or name != "sub"
        }
        note = "" if key == HMAC_KEY else " by another key"
        return Shown(
            jwt.encode(payload, key, algorithm="HS256"), f"<token{note} {json.dumps(shown)}>"
        )

    def signature(
        self,
        channel: str,
        *keys: str,
        user: str = "",
        ttl: int = 0,
        key: str = POLL_SECRET,
    ) -> Shown:
        """Sign keys of a shared poll; ``ttl`` in seconds, negative for one that is over, 0 for ever."""
        now = int(time.time())
        text = sign_batch(
            key,
            issued_at=now,
            expire_at=now + ttl if ttl else 0,
            user=user,
            channel=channel,
            keys=keys,
        )
        note = "" if key == POLL_SECRET else " by another key"
        return Shown(text, f"<signature{note} of {','.join(keys)} for {ttl} s>")

    async def end(self) -> None:
        """Write down what nobody awaited and close."""
        for client in self._clients:
            await client.fence()

    async def close(self) -> None:
        """Close what is open; may be called whatever happened."""
        for client in self._clients:
            await client.close()
        await self._http.aclose()


class Client:
    """One connection."""

    def __init__(
        self, talk: Talk, name: str, socket: websockets.ClientConnection, *, answers_pings: bool
    ) -> None:
        self._talk = talk
        self._socket = socket
        self._ids = 0
        self._waiting: list[Any] = []
        self._arrived = asyncio.Condition()
        self._close: tuple[int, str] | None = None
        self._is_close_taken = False
        self._is_refused = False
        self._answers_pings = answers_pings
        self.documents = Documents()
        self._reader = asyncio.create_task(self._read())
        self.name = name

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                for message in decode(self._talk.encoding, await self._socket.recv()):
                    if not message and self._answers_pings:
                        await self._socket.send(encode(self._talk.encoding, [{}]))
                        continue
                    async with self._arrived:
                        self._waiting.append(self.documents.read(message))
                        self._arrived.notify_all()
        async with self._arrived:
            self._close = (self._socket.close_code or 0, self._socket.close_reason or "")
            self._arrived.notify_all()

    def note(self, what: str, value: Any, differs: Differs | None = None) -> None:
        """Write a line about this connection."""
        self._talk.note(self.name, what, value, differs)

    async def _take(self, wanted: Any) -> Any:
        """Take the first message that fits, or ``None`` when the connection was closed instead."""

        def find() -> int | None:
            return next((i for i, one in enumerate(self._waiting) if wanted(one)), None)

        async with self._arrived:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    while (index := find()) is None and self._close is None:
                        await self._arrived.wait()
            except TimeoutError:
                raise AssertionError(
                    f"{self.name} got nothing that fits; waiting: {self._waiting}, "
                    f"so far: {[line.entry for line in self._talk.lines]}"
                ) from None
        return None if index is None else self._waiting.pop(index)

    async def _get(self, wanted: Any, differs: Differs | None) -> Any:
        if self._talk.skips(differs):
            self.note("got", None, differs)
            return None
        message = await self._take(wanted)
        if message is None:
            self._is_close_taken = True
            self.note("closed", list(self._close or ()), differs)
        else:
            self.note("got", message, differs)
        return message

    async def send(self, *commands: Any) -> None:
        """Send commands in one frame, ids and all; a text goes as it is."""
        self.note("sent", list(commands) if len(commands) != 1 else commands[0])
        for command in commands:
            self.documents.asked(command)
        with contextlib.suppress(websockets.ConnectionClosed):
            await self._socket.send(encode(self._talk.encoding, list(commands)))

    async def ask(self, command: dict[str, Any], *, differs: Differs | None = None) -> Any:
        """Send a command under the next id and take its reply: returns what stands under the command's name."""
        self._ids += 1
        number = self._ids
        await self.send({"id": number, **command})
        reply = await self._get(lambda one: one.get("id") == number, differs)
        # Nothing answers on it any more.
        self._is_refused = reply is not None and "connect" in command and "error" in reply
        return None if reply is None else reply.get(next(iter(command)))

    async def reply(self, number: int, *, differs: Differs | None = None) -> Any:
        """Take the reply to a command of ``send``."""
        self._ids = max(self._ids, number)
        return await self._get(lambda one: one.get("id") == number, differs)

    async def push(self, *, differs: Differs | None = None) -> Any:
        """Take the next push."""
        return await self._get(lambda one: "push" in one, differs)

    async def pushes(self, count: int) -> None:
        """Take so many."""
        for _ in range(count):
            await self.push()

    async def next(self) -> Any:
        """Take the next message, whatever it is."""
        return await self._get(lambda _one: True, None)

    async def closed(self, *, differs: Differs | None = None) -> None:
        """Take the end of the connection; what came before it is written down."""
        if self._talk.skips(differs):
            self.note("closed", None, differs)
            return
        while (message := await self._take(lambda _one: True)) is not None:
            self.note("got", message)
        self._is_close_taken = True
        self.note("closed", list(self._close or ()), differs)

    async def subscribe(
        self, channel: str, *, differs: Differs | None = None, **request: Any
    ) -> Any:
        """Subscribe."""
        return await self.ask({"subscribe": {"channel": channel, **request}}, differs=differs)

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe."""
        await self.ask({"unsubscribe": {"channel": channel}})

    async def fence(self) -> None:
        """Have a command answered, and write down what came before that and nobody took."""
        if self._close is None and not self._is_refused:
            self._ids += 1
            number = self._ids
            frame = encode(
                self._talk.encoding, [{"id": number, "unsubscribe": {"channel": _FENCE}}]
            )
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._socket.send(frame)
            await self._take(lambda one: one.get("id") == number)
        for message in self._waiting:
            self.note("left over", message)
        self._waiting.clear()
        if self._close is not None and not self._is_close_taken:
            self._is_close_taken = True
            self.note("closed", list(self._close))

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()
        await self._reader
