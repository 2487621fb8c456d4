"""
The messages of the server API, with Centrifugo's names and field names.

One set of types for all doors: HTTP, the legacy command stream, gRPC, queue consumers and Django code. As in
``messages.py`` a payload is a ``msgspec.Raw``; a field with a default is left out of a reply when it has it, one
without is always written. The order of fields is the order in replies.

Requests refuse unknown fields only so that the fast decoder notices them: ``go_json`` then reads the message as
Go's decoder would. Integers have Go's ranges, since one that is too large makes the whole request malformed.

Source: the server API's schema (``server-api`` 4-8, 10.1) and the reference server's replies (1.5).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from realtime.protocol.messages import EMPTY, ClientInfo


Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
# msgspec takes no bound above 2**63 - 1: _check_uint64 adds the upper one.
UInt64 = Annotated[int, Meta(ge=0)]

UINT64_MAX = 2**64 - 1


class _Message(msgspec.Struct, omit_defaults=True, gc=False):
    """Base of results: defaults are omitted."""


class _Request(_Message, forbid_unknown_fields=True):
    """Base of what callers send."""


def _check_uint64(value: int) -> None:
    """Refuse what Go's uint64 can't hold; msgspec turns the error into its own."""
    if value > UINT64_MAX:
        raise ValueError("expected at most 18446744073709551615")


# --- shared parts -------------------------------------------------------------------------------


class Error(_Message):
    """Why a command was refused; this API has no ``temporary``."""

    code: int
    message: str


class StreamPosition(_Request):
    """A place in a stream, as a caller gives it."""

    offset: UInt64 = 0
    epoch: str = ""

    def __post_init__(self) -> None:
        """Complete the range check."""
        _check_uint64(self.offset)


class BoolValue(_Request):
    """A bool that can also be absent."""

    value: bool = False


class SubscribeOptionOverride(_Request):
    """What to do otherwise than the namespace says; an absent member keeps the namespace's value."""

    presence: BoolValue | None = None
    join_leave: BoolValue | None = None
    force_recovery: BoolValue | None = None
    force_positioning: BoolValue | None = None
    force_push_join_leave: BoolValue | None = None


class Disconnect(_Request):
    """How to close a connection; code 0 stands for 3503 ``force disconnect``."""

    code: UInt32 = 0
    reason: str = ""


# --- requests -----------------------------------------------------------------------------------


class PublishRequest(_Request):
    """``data`` or ``b64data`` (base64; it wins) goes to one channel."""

    channel: str = ""
    data: Raw = EMPTY
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] | None = None
    idempotency_key: str = ""
    delta: bool = False
    version: UInt64 = 0
    version_epoch: str = ""

    def __post_init__(self) -> None:
        """Complete the range check."""
        if self.version:
            _check_uint64(self.version)


class BroadcastRequest(_Request):
    """The same data for many channels."""

    channels: list[str] = []
    data: Raw = EMPTY
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] | None = None
    idempotency_key: str = ""
    delta: bool = False
    version: UInt64 = 0
    version_epoch: str = ""

    def __post_init__(self) -> None:
        """Complete the range check."""
        if self.version:
            _check_uint64(self.version)


class SubscribeRequest(_Request):
    """Subscribe a user's live connections; ``expire_at`` is Unix seconds, 0 for never."""

    channel: str = ""
    user: str = ""
    expire_at: Int64 = 0
    info: Raw = EMPTY
    b64info: str = ""
    client: str = ""
    data: Raw = EMPTY
    b64data: str = ""
    recover_since: StreamPosition | None = None
    override: SubscribeOptionOverride | None = None
    session: str = ""


class UnsubscribeRequest(_Request):
    """Unsubscribe a user's live connections."""

    channel: str = ""
    user: str = ""
    client: str = ""
    session: str = ""


class DisconnectRequest(_Request):
    """Close a user's live connections, but for those in ``whitelist`` (client ids)."""

    user: str = ""
    disconnect: Disconnect | None = None
    client: str = ""
    whitelist: list[str] = []
    session: str = ""


class RefreshRequest(_Request):
    """Give a user's live connections a new expiry (Unix seconds, 0 for none), or end them as expired."""

    user: str = ""
    client: str = ""
    expired: bool = False
    expire_at: Int64 = 0
    info: Raw = EMPTY
    session: str = ""


class PresenceRequest(_Request):
    """Ask who is in a channel."""

    channel: str = ""


class PresenceStatsRequest(_Request):
    """Ask how many are in a channel."""

    channel: str = ""


class HistoryRequest(_Request):
    """``limit`` 0 asks for the position only, -1 for everything; ``since`` is exclusive."""

    channel: str = ""
    limit: Int32 = 0
    since: StreamPosition | None = None
    reverse: bool = False


class HistoryRemoveRequest(_Request):
    """Drop a channel's publications; its position stays."""

    channel: str = ""


class ChannelsRequest(_Request):
    """``pattern`` is a glob; empty means all channels."""

    pattern: str = ""


class InfoRequest(_Request):
    """Ask for the nodes."""


class RPCRequest(_Request):
    """Call a function that the application registered."""

    method: str = ""
    params: Raw = EMPTY


class MapPublishRequest(_Request):
    """
    Write one key of a map, with ``data`` or ``b64data`` (base64; it wins), which may be empty.

    ``key_mode`` is ``""``, ``"if_new"`` or ``"if_exists"``. ``stream_data``, ``b64stream_data`` and ``score`` are the schema's;
    they change nothing.
    """

    channel: str = ""
    key: str = ""
    data: Raw = EMPTY
    b64data: str = ""
    stream_data: Raw = EMPTY
    b64stream_data: str = ""
    tags: dict[str, str] | None = None
    idempotency_key: str = ""
    delta: bool = False
    version: UInt64 = 0
    version_epoch: str = ""
    score: Int64 = 0
    key_mode: str = ""

    def __post_init__(self) -> None:
        """Complete the range check."""
        if self.version:
            _check_uint64(self.version)


class MapRemoveRequest(_Request):
    """Remove one key of a map."""

    channel: str = ""
    key: str = ""
    idempotency_key: str = ""


class MapReadStateRequest(_Request):
    """
    Read a map's keys, by pages.

    ``limit`` 0 asks for the position only, -1 for everything; ``cursor`` is the one of the page before. ``key`` asks for one
    key alone. ``revision_epoch`` is the epoch that the map must still have. ``asc`` is for ordered maps, which no namespace has.
    """

    channel: str = ""
    cursor: str = ""
    limit: Int32 = 0
    key: str = ""
    asc: bool = False
    revision_offset: UInt64 = 0
    revision_epoch: str = ""

    def __post_init__(self) -> None:
        """Complete the range check."""
        _check_uint64(self.revision_offset)


class MapReadStreamRequest(_Request):
    """Read a map's changes after ``since_offset``; ``limit`` 0 asks for the position only, -1 for everything."""

    channel: str = ""
    since_offset: UInt64 = 0
    since_epoch: str = ""
    limit: Int32 = 0
    reverse: bool = False

    def __post_init__(self) -> None:
        """Complete the range check."""
        _check_uint64(self.since_offset)


class MapStatsRequest(_Request):
    """Ask how many keys a map has."""

    channel: str = ""


class MapClearRequest(_Request):
    """Drop a map with its position: it begins anew, in another epoch."""

    channel: str = ""


class SharedPollPublishRequest(_Request):
    """Push a key's value, with ``data`` or ``b64data`` (base64; it wins), to who tracks it; ``version`` is at least 1."""

    channel: str = ""
    key: str = ""
    data: Raw = EMPTY
    b64data: str = ""
    version: UInt64 = 0
    epoch: str = ""

    def __post_init__(self) -> None:
        """Complete the range check."""
        if self.version:
            _check_uint64(self.version)


class Command(_Request):
    """
    One command of a batch.

    If several fields are set only one is executed: the first in the order they are declared here, which is the
    order of the reference's executor, not of its schema.
    """

    publish: PublishRequest | None = None
    broadcast: BroadcastRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    disconnect: DisconnectRequest | None = None
    history: HistoryRequest | None = None
    history_remove: HistoryRemoveRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceStatsRequest | None = None
    info: InfoRequest | None = None
    rpc: RPCRequest | None = None
    refresh: RefreshRequest | None = None
    channels: ChannelsRequest | None = None
    map_publish: MapPublishRequest | None = None
    map_remove: MapRemoveRequest | None = None
    map_read_state: MapReadStateRequest | None = None
    map_read_stream: MapReadStreamRequest | None = None
    map_stats: MapStatsRequest | None = None
    map_clear: MapClearRequest | None = None
    shared_poll_publish: SharedPollPublishRequest | None = None


class BatchRequest(_Request):
    """Several commands, answered in their order."""

    commands: list[Command | None] = []
    parallel: bool = False


# --- results ------------------------------------------------------------------------------------


class PublishResult(_Message):
    """The publication's position; empty in a channel without history."""

    offset: int = 0
    epoch: str = ""


class PublishResponse(_Message):
    """One channel's outcome of a broadcast: exactly one of the two is set."""

    error: Error | None = None
    result: PublishResult | None = None


class BroadcastResult(_Message):
    """In the order of ``BroadcastRequest.channels``."""

    responses: list[PublishResponse] = []


class SubscribeResult(_Message):
    """Success, whether or not anybody was there."""


class UnsubscribeResult(_Message):
    """Success, whether or not anybody was there."""


class DisconnectResult(_Message):
    """Success, whether or not anybody was there."""


class RefreshResult(_Message):
    """Success, whether or not anybody was there."""


class PresenceResult(_Message):
    """By client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(_Message):
    """Connections and distinct users."""

    num_clients: int
    num_users: int


class Publication(_Message):
    """A publication as history returns it; ``info`` is set when a client published it."""

    data: Raw = EMPTY
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] | None = None


class HistoryResult(_Message):
    """``epoch`` and ``offset`` are the stream's top, whatever was read."""

    publications: list[Publication]
    epoch: str
    offset: int


class HistoryRemoveResult(_Message):
    """Done."""


class ChannelInfo(_Message):
    """Subscribers on all nodes."""

    num_clients: int = 0


class ChannelsResult(_Message):
    """Channels that have a subscriber, by name."""

    channels: dict[str, ChannelInfo]


class Metrics(_Message):
    """Values aggregated over ``interval`` seconds, by name."""

    interval: float = 0
    items: dict[str, float] | None = None


class Process(_Message):
    """CPU percent and resident bytes."""

    cpu: float = 0
    rss: int = 0


class NodeResult(_Message, kw_only=True):
    """One node; ``uptime`` is seconds. Numbers that are whole must be ``int`` to look like the reference's."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    uptime: int = 0
    metrics: Metrics | None = None
    process: Process | None = None
    num_subs: int


class InfoResult(_Message):
    """All nodes known."""

    nodes: list[NodeResult] = []


class RPCResult(_Message):
    """What the registered function returned."""

    data: Raw = EMPTY


class MapPublishResult(_Message):
    """
    The map's position, empty without a stream of changes.

    ``suppress_reason`` says why nothing was written: ``"key_exists"``, ``"key_not_found"``, ``"version"`` or
    ``"idempotency"``.
    """

    offset: int = 0
    epoch: str = ""
    suppressed: bool = False
    suppress_reason: str = ""


class MapRemoveResult(_Message):
    """As ``MapPublishResult``; the reasons are ``"key_not_found"`` and ``"idempotency"``."""

    offset: int = 0
    epoch: str = ""
    suppressed: bool = False
    suppress_reason: str = ""


class MapEntry(_Message):
    """A key as it stands, or a change of it; ``offset`` is that of the key's last change, ``time`` Unix milliseconds."""

    key: str = ""
    data: Raw = EMPTY
    tags: dict[str, str] | None = None
    offset: int = 0
    score: int = 0
    removed: bool = False
    time: int = 0


class MapReadStateResult(_Message):
    """One page; ``offset`` and ``epoch`` are the map's top. An empty ``cursor`` says that it was the last page."""

    entries: list[MapEntry] = []
    offset: int = 0
    epoch: str = ""
    cursor: str = ""


class MapReadStreamResult(_Message):
    """Changes in the order asked for; ``offset`` and ``epoch`` are the map's top."""

    entries: list[MapEntry] = []
    offset: int = 0
    epoch: str = ""


class MapStatsResult(_Message):
    """Keys, without those that were removed."""

    num_keys: int = 0


class MapClearResult(_Message):
    """Done."""


class SharedPollPublishResult(_Message):
    """Done; it may have been news to some nodes, all or none."""


class Reply(_Message):
    """One command's outcome in a batch: the error, or the result under the method's name."""

    error: Error | None = None
    publish: PublishResult | None = None
    broadcast: BroadcastResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: UnsubscribeResult | None = None
    disconnect: DisconnectResult | None = None
    history: HistoryResult | None = None
    history_remove: HistoryRemoveResult | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    info: InfoResult | None = None
    rpc: RPCResult | None = None
    refresh: RefreshResult | None = None
    channels: ChannelsResult | None = None
    map_publish: MapPublishResult | None = None
    map_remove: MapRemoveResult | None = None
    map_read_state: MapReadStateResult | None = None
    map_read_stream: MapReadStreamResult | None = None
    map_stats: MapStatsResult | None = None
    map_clear: MapClearResult | None = None
    shared_poll_publish: SharedPollPublishResult | None = None


class BatchResponse(_Message):
    """In the order of ``BatchRequest.commands``."""

    replies: list[Reply] = []
