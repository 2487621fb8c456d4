"""What an SDK does with a map: one client that loads it page by page, follows it, and comes back to it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Raw

from realtime.engines.maps import EVERYTHING, PLAIN_CHANGE, StateFilter
from realtime.engines.memory_maps import MemoryMaps
from realtime.node.node import Node
from realtime.protocol import fossil
from realtime.protocol.messages import Command, Publication
from realtime.protocol.protobuf_codec import delimit, encode_message
from realtime.protocol.wire import ASGI_JSON, ASGI_PROTOBUF
from tests.unit.client.conftest import Connection
from tests.unit.client.readers import replies_of


UNRECOVERABLE = 112


async def put(node, channel, key, value, change=PLAIN_CHANGE, **fields):
    """Write a key; what isn't bytes is JSON."""
    found = node.table.resolve(channel)
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    publication = Publication(key=key, data=Raw(data), **fields)
    return await node.maps.publish(channel, publication, found.map_rules, change)


async def take(node, channel, key):
    """Remove a key."""
    removal = Publication(key=key, removed=True)
    return await node.maps.remove(
        channel, removal, node.table.resolve(channel).map_rules, PLAIN_CHANGE
    )


async def stored(node, channel):
    """What the map is."""
    rules = node.table.resolve(channel).map_rules
    page = await node.maps.read_state(channel, rules, StateFilter(limit=EVERYTHING))
    return {each.publication.key: bytes(each.publication.data) for each in page.entries}


def text(number):
    """A document that changes little."""
    words = "Ein Absatz, der bleibt: äöü€. " * 4
    return json.dumps({"text": words, "n": number}, ensure_ascii=False).encode()


def use(node, store):
    """Have a node work with another store."""
    node.maps = store
    store._on_publication = node.on_publication
    return store


class MapReader:
    """
    One subscriber of one map.

    Attributes:
        values: What it takes the map to be: the document of each key.
        patches: How many documents came as patches.
        offset, epoch: Where it is; ``epoch`` is ``None`` without a position to come back to.
        results: The subscribe results, in their order.
        errors: The codes of refusals.
        loads: How many times it began with nothing.
        pushes: The publications that came live.

    """

    def __init__(self, node: Node, channel: str, *, is_json: bool = True, **request: Any) -> None:
        self.node = node
        self.channel = channel
        self.is_json = is_json
        self.request = {"type": 1, **request}
        self.values: dict[str, bytes] = {}
        self.patches = 0
        self.offset, self.epoch = 0, None
        self.results: list[dict[str, Any]] = []
        self.errors: list[int] = []
        self.loads = 0
        self.pushes: list[dict[str, Any]] = []
        self.unsubscribed: list[int] = []
        self.connection: Connection
        self._bases: dict[str, bytes] = {}
        self._has_delta = False
        self._is_live = False
        self._count = 0
        self._kept: list[dict[str, Any]] = []

    # --- what an application does ---------------------------------------------------------------------

    def connect(self, **request: Any) -> None:
        """Connect without subscribing."""
        self._count += 1
        wire = ASGI_JSON if self.is_json else ASGI_PROTOBUF
        self.connection = Connection(self.node, f"map-reader-{id(self)}-{self._count}", wire)
        self.send({"id": 1, "connect": request})

    def come(self) -> dict[str, Any]:
        """Connect and subscribe, as an SDK does; return the live result."""
        self.connect()
        return self.subscribe()

    def subscribe(self) -> dict[str, Any]:
        """Recover, or load; begin anew where that can't be."""
        for _ in range(5):
            if self.epoch is not None and self._try({"phase": 1, "recover": True}, []):
                return self.results[-1]
            if self._load():
                return self.results[-1]
        raise AssertionError(self.errors)

    def unsubscribe(self) -> None:
        """Leave the channel; what the SDK remembers stays."""
        self._is_live = False
        self.send({"id": 3, "unsubscribe": {"channel": self.channel}})

    def drop(self) -> None:
        """Lose the connection, with what was not read yet."""
        self._is_live = False
        self.connection.client.on_close()

    def pause(self) -> None:
        """Have the transport report a full buffer."""
        self.connection.client.on_pause()

    def resume(self) -> None:
        """Have it report that there is room again."""
        self.connection.client.on_resume()

    def read(self) -> None:
        """Take what was written."""
        for reply in self.take():
            push = reply.get("push", {})
            if "pub" in push:
                self.pushes.append(push["pub"])
                self._follow(push["pub"])
            elif "unsubscribe" in push:
                self._is_live = False
                self.unsubscribed.append(push["unsubscribe"]["code"])

    # --- the protocol ---------------------------------------------------------------------------------

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one subscribe request and return the reply; what else came stays to be read."""
        self.send({"id": 2, "subscribe": {"channel": self.channel, **self.request, **request}})
        replies = self.take()
        (answer,) = [each for each in replies if each.get("id") == 2]
        self._kept = replies[replies.index(answer) + 1 :]
        return answer

    def send(self, command: dict[str, Any]) -> None:
        """Send a command."""
        if self.is_json:
            self.connection.send_raw(json.dumps(command).encode())
        else:
            message = msgspec.convert(command, Command)
            self.connection.client.on_message(delimit(encode_message(message)), False)

    def take(self) -> list[dict[str, Any]]:
        """Return the messages that came since."""
        self.node.hub.flush()
        written, self.connection.transport.written = self.connection.transport.written, []
        kept, self._kept = self._kept, []
        return kept + replies_of(written, is_json=self.is_json)

    def _load(self) -> bool:
        self.loads += 1
        self.offset, self.epoch = 0, None
        self._bases.clear()
        return self._try({"phase": 2}, [])

    def _try(self, first: dict[str, Any], state: list[dict[str, Any]]) -> bool:
        """Walk through the phases until live; say whether it came to that."""
        request, changes = dict(first), []
        position: dict[str, Any] = {}
        if first.get("recover"):
            position = {"offset": self.offset, "epoch": self.epoch}
        while True:
            answer = self.ask(**request, **position)
            if "error" in answer:
                self.errors.append(answer["error"]["code"])
                assert answer["error"]["code"] == UNRECOVERABLE
                self.epoch = None
                return False
            result = answer["subscribe"]
            self.results.append(result)
            assert result["type"] == 1
            if not result.get("phase"):
                self._begin(result, state, changes, is_load=first["phase"] == 2)
                return True
            state += result.get("state", [])
            changes += result.get("publications", [])
            if not position or result["phase"] == 1:
                position = {"offset": result.get("offset", 0), "epoch": result.get("epoch", "")}
            request = (
                {"phase": 2, "cursor": result["cursor"]} if result.get("cursor") else {"phase": 1}
            )
            if first.get("recover"):
                request["recover"] = True

    def _begin(
        self,
        result: dict[str, Any],
        state: list[dict[str, Any]],
        changes: list[dict[str, Any]],
        *,
        is_load: bool,
    ) -> None:
        self._has_delta = result.get("delta", False)
        if is_load:
            self.values.clear()
        for publication in [
            *state,
            *result.get("state", []),
            *changes,
            *result.get("publications", []),
        ]:
            self._apply(publication)
        if result.get("recoverable"):
            self.offset, self.epoch = result.get("offset", 0), result.get("epoch", "")
        else:
            self.offset, self.epoch = 0, None
        self._is_live = True
        self.read()

    def _follow(self, publication: dict[str, Any]) -> None:
        assert self._is_live
        offset = publication.get("offset", 0)
        if self.epoch is not None:
            if "tf" in self.request:
                assert offset > self.offset
            else:
                assert offset == self.offset + 1, (offset, self.offset)
            self.offset = offset
        else:
            assert not offset
        self._apply(publication)

    def _apply(self, publication: dict[str, Any]) -> None:
        key = publication["key"]
        if publication.get("removed"):
            self.values.pop(key, None)
            self._bases.pop(key, None)
            if self._has_delta and self.is_json:
                assert publication["data"] == "null"
            return
        data = publication.get("data", None if self.is_json else b"")
        if not self._has_delta:
            assert not publication.get("delta")
            self.values[key] = json.dumps(data).encode() if self.is_json else data
            return
        text = data.encode() if self.is_json else data
        if publication.get("delta"):
            self.patches += 1
            text = fossil.apply(self._bases[key], text)
        self.values[key] = self._bases[key] = text


class BusyMaps(MemoryMaps):
    """A store whose every read lets ``meanwhile`` happen first, and then again before the caller goes on."""

    meanwhile: Any = None

    async def read_state(self, channel: Any, rules: Any, what: Any) -> Any:
        await self._let_happen()
        page = await super().read_state(channel, rules, what)
        await self._let_happen()
        return page

    async def read_stream(self, channel: Any, rules: Any, what: Any) -> Any:
        await self._let_happen()
        read = await super().read_stream(channel, rules, what)
        await self._let_happen()
        return read

    async def _let_happen(self) -> None:
        if self.meanwhile is not None:
            await self.meanwhile()
