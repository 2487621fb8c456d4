"""
The messages of the client protocol, v2, with Centrifugo's field names.

A payload (``data``, ``conn_info``, ``chan_info``) is a ``msgspec.Raw``: the text of a JSON value kept as it
came, or any bytes on a Protobuf connection. Fields with a default are left out on the wire when they have it;
fields without one are always written. Both codecs use these types; ``protocol/json_codec.py`` encodes them as they
stand, ``protocol/protobuf_codec.py`` by the numbers in ``client.proto``.

Source: the protocol's schema, and the reference server's JSON.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Raw


EMPTY = Raw(b"")
# A uint64 in the schema: what is below 0 cannot be read. (Its upper end is out of reach of msgspec's constraints.)
_Unsigned = Annotated[int, msgspec.Meta(ge=0)]


def payload(data: bytes) -> Raw:
    """Wrap a payload; nothing at all is ``EMPTY`` itself, which is how an encoder knows to leave it out."""
    return Raw(data) if data else EMPTY


class _Message(msgspec.Struct, omit_defaults=True, gc=False):
    """Base of all messages: defaults are omitted; ``gc=False`` since none of them refers back to itself."""


class _Value(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """Base of what is shared between connections and kept in streams, and so never changed."""


class _Request(_Message, forbid_unknown_fields=True):
    """
    Base of what clients send.

    An unknown field is an error of the fast decoder only: ``protocol/go_json.py`` rewrites such a message,
    more slowly, with exact names and without what is unknown.
    """


class Error(_Message):
    """Why a command failed."""

    code: int
    message: str
    temporary: bool = False


class StreamPosition(_Value, frozen=True, forbid_unknown_fields=True):
    """A place in a stream: ``offset`` counts from 1, ``epoch`` names the stream's generation."""

    offset: _Unsigned = 0
    epoch: str = ""


class ClientInfo(_Value, frozen=True):
    """Who is in a channel, or published; ``user`` and ``client`` are always written."""

    user: str
    client: str
    conn_info: Raw = EMPTY
    chan_info: Raw = EMPTY


class Publication(_Value, frozen=True):
    """
    One message in a channel.

    ``offset`` is 0 in a channel without history; ``epoch`` is set where ``offset`` is 1; ``delta`` says that
    ``data`` is a patch. The publish time is not part of it: it is never sent.
    """

    data: Raw = EMPTY
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] | None = None
    delta: bool = False
    channel: str = ""
    key: str = ""
    removed: bool = False
    score: int = 0
    epoch: str = ""
    version: int = 0


class FilterNode(_Request):
    """A node of a tags filter."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list[FilterNode] = []


# --- what clients ask ---------------------------------------------------------------------------


class SubscribeRequest(_Request):
    """Subscribe to a channel; in ``ConnectRequest.subs`` the channel is the map's key."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: _Unsigned = 0
    data: Raw = EMPTY
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: FilterNode | None = None
    flag: int = 0
    type: int = 0
    phase: int = 0
    cursor: str = ""
    limit: int = 0
    asc: bool = False


class ConnectRequest(_Request):
    """The first command of a connection."""

    token: str = ""
    data: Raw = EMPTY
    subs: dict[str, SubscribeRequest] | None = None
    name: str = ""
    version: str = ""
    headers: dict[str, str] | None = None
    flag: int = 0
    dictionary: str = msgspec.field(default="", name="dict")
    profile: str = ""


class UnsubscribeRequest(_Request):
    channel: str = ""


class PublishRequest(_Request):
    """``type`` 0 is a stream's publication, 1 a map's."""

    channel: str = ""
    data: Raw = EMPTY
    type: int = 0
    key: str = ""
    removed: bool = False


class PresenceRequest(_Request):
    channel: str = ""


class PresenceStatsRequest(_Request):
    channel: str = ""


class HistoryRequest(_Request):
    """``limit`` 0 asks for the position only."""

    channel: str = ""
    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


class PingRequest(_Request):
    pass


class SendRequest(_Request):
    data: Raw = EMPTY


class RPCRequest(_Request):
    data: Raw = EMPTY
    method: str = ""


class RefreshRequest(_Request):
    token: str = ""


class KeyedItem(_Request):
    key: str = ""
    version: _Unsigned = 0


class TrackBatch(_Request):
    signature: str = ""
    items: list[KeyedItem] = []


class SubRefreshRequest(_Request):
    """``type`` 0 refreshes the token, 1 tracks and 2 untracks keys of a shared poll."""

    channel: str = ""
    token: str = ""
    type: int = 0
    track: list[TrackBatch] = []
    untrack: list[str] = []


class Command(_Request):
    """What a client sends. ``id``, a uint32, 0 without ``send`` is a pong."""

    id: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    publish: PublishRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceStatsRequest | None = None
    history: HistoryRequest | None = None
    ping: PingRequest | None = None
    send: SendRequest | None = None
    rpc: RPCRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None


# --- what they are answered ---------------------------------------------------------------------


class SubscribeResult(_Message):
    """When ``recovered``, ``offset`` is the one that was asked for; otherwise the stream's top."""

    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Publication] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Raw = EMPTY
    was_recovering: bool = False
    delta: bool = False
    id: int = 0
    type: int = 0
    phase: int = 0
    cursor: str = ""
    state: list[Publication] = []
    publish_debounce: int = 0


class ConnectResult(_Message):
    """``ping`` and ``ttl`` are seconds, ``time`` is milliseconds of Unix time."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Raw = EMPTY
    subs: dict[str, SubscribeResult] | None = None
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0


class UnsubscribeResult(_Message):
    pass


class PublishResult(_Message):
    pass


class PresenceResult(_Message):
    """By client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(_Message):
    num_clients: int
    num_users: int


class HistoryResult(_Message):
    """``epoch`` and ``offset`` are the stream's top, not the last publication's."""

    publications: list[Publication]
    epoch: str
    offset: int


class PingResult(_Message):
    pass


class RPCResult(_Message):
    data: Raw = EMPTY


class RefreshResult(_Message):
    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(_Message):
    expires: bool = False
    ttl: int = 0
    items: list[Publication] = []


# --- what they are told -------------------------------------------------------------------------


class Join(_Message):
    info: ClientInfo


class Leave(_Message):
    info: ClientInfo


class Unsubscribe(_Message):
    code: int
    reason: str


class Subscribe(_Message):
    """A server-side subscription that began after connect."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw = EMPTY


class MessagePush(_Message):
    data: Raw = EMPTY


class DisconnectPush(_Message):
    code: int
    reason: str
    reconnect: bool = False


class Refresh(_Message):
    expires: bool = False
    ttl: int = 0


class Push(_Message):
    """``channel`` is empty for message, connect, disconnect and refresh."""

    id: int = 0
    channel: str = ""
    pub: Publication | None = None
    join: Join | None = None
    leave: Leave | None = None
    unsubscribe: Unsubscribe | None = None
    message: MessagePush | None = None
    subscribe: Subscribe | None = None
    connect: ConnectResult | None = None
    disconnect: DisconnectPush | None = None
    refresh: Refresh | None = None


class Reply(_Message):
    """What the server sends; without ``id`` it is a push, and empty it is a ping."""

    id: int = 0
    error: Error | None = None
    push: Push | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: UnsubscribeResult | None = None
    publish: PublishResult | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    ping: PingResult | None = None
    rpc: RPCResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: SubRefreshResult | None = None


class EmulationRequest(_Request):
    """The client-to-server half of a stream transport; ``data`` holds framed commands."""

    node: str = ""
    session: str = ""
    data: Raw = EMPTY
