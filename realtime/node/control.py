"""What nodes ask of each other: messages of the control bus, as JSON with a type tag."""

from __future__ import annotations

import msgspec

from realtime.protocol.messages import StreamPosition
from realtime.session.permissions import Override


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


class NodeInfo(msgspec.Struct, frozen=True):
    """What a node says of itself; ``uptime`` is seconds."""

    uid: str
    name: str
    version: str
    num_clients: int = 0
    num_users: int = 0
    num_channels: int = 0
    num_subs: int = 0
    uptime: int = 0
    metrics: dict[str, float] = {}


ControlCommand = (
    SubscribeUser | UnsubscribeUser | DisconnectUser | RefreshUser | ReloadConfiguration
)

_decoder = msgspec.json.Decoder(ControlCommand)


def encode_control(command: ControlCommand) -> bytes:
    """Encode a control message."""
    return msgspec.json.encode(command)


def decode_control(data: bytes) -> ControlCommand:
    """Decode a control message; raises ``msgspec.MsgspecError``."""
    command: ControlCommand = _decoder.decode(data)
    return command
