"""Random command sequences: whatever clients do, the session holds what it promises."""

from __future__ import annotations

import asyncio

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.conf.options import ProcessOptions
from realtime.node.node import Node
from tests.unit.client.conftest import Clock, Connection, build_node


CHANNELS = ("a", "hist:a", "jl:a", "cache:a")

steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # which client
        st.sampled_from(
            (
                "subscribe",
                "unsubscribe",
                "publish",
                "presence",
                "history",
                "pause",
                "resume",
                "drop",
                "recover",
            )
        ),
        st.sampled_from(CHANNELS),
    ),
    max_size=60,
)


class Watched:
    """A client that checks what it is told."""

    def __init__(self, node: Node, name: str) -> None:
        self.connection = Connection(node, name)
        self.next_id = 1
        self.subscribed: set[str] = set()
        self.offsets: dict[str, int] = {}
        self.epochs: dict[str, str] = {}
        self.send({"connect": {}})

    def send(self, command: dict[str, object]) -> None:
        self.next_id += 1
        self.connection.send_raw(msgspec.json.encode({"id": self.next_id, **command}))
        self.check(self.next_id)

    def check(self, expected_id: int | None = None) -> None:
        """Every reply is due, every push belongs to a subscription, and offsets rise by one."""
        for message in self.connection.received():
            if "push" in message:
                self.check_push(message["push"])
                continue
            assert message["id"] == expected_id
            expected_id = None
            if "subscribe" in message:
                self.check_subscribed(message["subscribe"])
            if "unsubscribe" in message:
                self.subscribed.discard(self.channel)
        assert expected_id is None, "a command was not answered"

    def check_subscribed(self, result: dict[str, object]) -> None:
        channel = self.channel
        assert channel not in self.subscribed
        self.subscribed.add(channel)
        if result.get("positioned"):
            recovered = result.get("publications", [])
            offset = result.get("offset", 0)
            if channel.startswith("hist"):
                for publication in recovered:
                    offset += 1
                    assert publication["offset"] == offset
            elif recovered:
                offset = recovered[-1]["offset"]
            self.offsets[channel], self.epochs[channel] = offset, result["epoch"]

    def check_push(self, push: dict[str, object]) -> None:
        channel = push["channel"]
        assert channel in self.subscribed, f"a push of {channel} without a subscription"
        if "pub" in push and channel in self.offsets:
            assert push["pub"]["offset"] == self.offsets[channel] + 1
            self.offsets[channel] += 1

    channel = ""

    def act(self, operation: str, channel: str) -> None:
        self.channel = channel
        client = self.connection.client
        if operation == "pause":
            client.on_pause()
        elif operation == "resume":
            client.on_resume()
        elif operation == "publish":
            self.send({"publish": {"channel": channel, "data": {"n": self.next_id}}})
        elif operation == "history":
            self.send({"history": {"channel": channel, "limit": 3}})
        elif operation == "recover":
            position = {
                "offset": self.offsets.get(channel, 0),
                "epoch": self.epochs.get(channel, ""),
            }
            self.send({"subscribe": {"channel": channel, "recover": True, **position}})
        else:
            self.send({operation: {"channel": channel}})


async def run(sequence) -> None:
    options = ProcessOptions()
    client = msgspec.structs.replace(options.client, allow_anonymous_connect_without_token=True)
    options = msgspec.structs.replace(options, client=client)
    node = build_node(options, Clock())
    await node.start()
    watched = [Watched(node, f"client-{number}") for number in range(3)]
    for number, operation, channel in sequence:
        if operation == "drop":
            watched[number].connection.client.on_close(1006)
            watched[number] = Watched(node, f"client-{number}")
        else:
            watched[number].act(operation, channel)
        for each in watched:
            each.check()
    assert all(each.connection.closed is None for each in watched)
    assert node.hub.num_subs == sum(len(each.subscribed) for each in watched)
    for each in watched:
        each.connection.client.on_close(1006)
    assert (node.hub.num_channels, len(node.hub.clients), len(node.connections)) == (0, 0, 0)
    await node.stop()


@settings(deadline=None, max_examples=60)
@given(steps)
def test_no_sequence_of_commands_breaks_the_promises(sequence):
    """Replies come once each, pushes to subscribers only, offsets one by one, and nothing is left behind."""
    asyncio.run(run(sequence))
