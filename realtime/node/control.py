"""
What nodes say to each other: messages of the control bus.

Each is JSON: an envelope with the sender's id and one body with a type tag. A node of another version may send a
body that this one doesn't know; it is refused whole (``msgspec.MsgspecError``), and the nodes go on.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from realtime.protocol.messages import StreamPosition
from realtime.session.grants import Override


class _Control(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """Base of the control messages."""


class SubscribeUser(_Control, frozen=True):
    """Subscribe a user's connections to a channel, from the server's side."""

    user: str
    channel: str
    client: str = ""
    session: str = ""
    info: bytes = b""
    data: bytes = b""
    expire_at: int = 0
    recover_since: StreamPosition | None = None
    override: Override | None = None


class UnsubscribeUser(_Control, frozen=True):
    """End a user's subscriptions to a channel."""

    user: str
    channel: str
    client: str = ""
    session: str = ""
    code: int = 2000
    reason: str = "server unsubscribe"


class DisconnectUser(_Control, frozen=True):
    """End a user's connections but for the client ids in ``whitelist``."""

    user: str
    client: str = ""
    session: str = ""
    whitelist: tuple[str, ...] = ()
    code: int = 3503
    reason: str = "force disconnect"


class RefreshUser(_Control, frozen=True):
    """Give a user's connections another expiry (Unix seconds, 0 for none), or end them as expired."""

    user: str
    client: str = ""
    session: str = ""
    expired: bool = False
    expire_at: int = 0
    info: bytes = b""


class ReloadConfiguration(_Control, frozen=True):
    """The configuration's rows have a new revision."""

    revision: int


class NodeInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What a node says of itself.

    Attributes:
        uptime: Seconds.
        metrics: Gauges, and counters over the last aggregation interval. An announcement has them only when they
            are fresh; whoever hears it keeps the ones before.

    """

    uid: str
    name: str
    version: str
    num_clients: int = 0
    num_users: int = 0
    num_channels: int = 0
    num_subs: int = 0
    uptime: int = 0
    metrics: dict[str, float] = {}


class Announcement(_Control, frozen=True):
    """The sender lives. Sent every few seconds, and as an answer to one that the sender didn't know yet."""

    node: NodeInfo


class Shutdown(_Control, frozen=True):
    """The sender sends its clients away; from now on it says this in place of its announcements."""


class Buried(_Control, frozen=True):
    """To a node that was taken for dead: its presence entries were removed, and its clients' leaves told."""


class SurveyRequest(_Control, frozen=True):
    """A question to every node. ``data`` is JSON, whose meaning is the operation's."""

    id: int
    operation: str
    data: Raw = Raw(b"null")


class SurveyResponse(_Control, frozen=True):
    """One node's answer; ``data`` counts only where ``code`` is 0."""

    id: int
    code: int = 0
    data: Raw = Raw(b"null")


ControlCommand = (
    SubscribeUser | UnsubscribeUser | DisconnectUser | RefreshUser | ReloadConfiguration
)
"""What a node does to itself and asks of all others."""

ControlBody = ControlCommand | Announcement | Shutdown | Buried | SurveyRequest | SurveyResponse


class Envelope(msgspec.Struct, frozen=True):
    """``sender`` is the id of the node that speaks."""

    sender: str
    body: ControlBody


_decoder = msgspec.json.Decoder(Envelope)


def encode_control(sender: str, body: ControlBody) -> bytes:
    """Encode a control message."""
    return msgspec.json.encode(Envelope(sender, body))


def decode_control(data: bytes) -> Envelope:
    """Decode a control message; raises ``msgspec.MsgspecError``."""
    return _decoder.decode(data)
