"""
The state of one connection, without I/O.

::

    CONNECTING ──connect accepted──► CONNECTED ──► CLOSED
        └──connect refused──► UNUSABLE ──────────────┘

``CONNECTING`` accepts a connect command only, ``UNUSABLE`` (the connect failed; the SDK will close) nothing at all.
"""

from __future__ import annotations

import enum

from msgspec import Raw

from realtime.protocol import errors
from realtime.protocol.errors import Disconnect
from realtime.protocol.messages import EMPTY, ClientInfo, Command
from realtime.session.subscription import Subscription


class SessionState(enum.IntEnum):
    """Where a connection is in its life."""

    CONNECTING = 0
    CONNECTED = 1
    UNUSABLE = 2
    CLOSED = 3


# The first one that a command has is carried out; the rest of it is ignored.
METHODS = (
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
)
PONG = "pong"


class Session:
    """
    Who is connected, to what, until when.

    Attributes:
        client_id: Names the connection; a UUID, public.
        session_id: The connection's secret name on stream and unidirectional transports, else empty.
        user: Empty for an anonymous connection, and until the connect.
        info: ``conn_info`` as raw JSON.
        meta: What tokens and proxies keep about the connection; never sent to clients.
        expire_at: Unix seconds, 0 for never.
        subscriptions: By channel, those in flight included.
        is_pong_due: A ping is out and not answered yet.
        takes_numbers: Whether its SDK can find a subscription by a number in place of the channel's name.

    """

    __slots__ = (
        "client_id",
        "expire_at",
        "info",
        "is_pong_due",
        "meta",
        "session_id",
        "state",
        "subscriptions",
        "takes_numbers",
        "user",
    )

    def __init__(self, client_id: str, session_id: str = "") -> None:
        self.client_id = client_id
        self.session_id = session_id
        self.state = SessionState.CONNECTING
        self.user = ""
        self.info: Raw = EMPTY
        self.meta: bytes = b""
        self.expire_at = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.is_pong_due = False
        self.takes_numbers = True

    def route(self, command: Command) -> str:
        """
        Say which method a command is for, or ``PONG``.

        Raises:
            Disconnect: 3501 for what the protocol does not allow at this moment.

        """
        if self.state is not SessionState.CONNECTED:
            if (
                self.state is not SessionState.CONNECTING
                or command.connect is None
                or not command.id
            ):
                raise Disconnect(*errors.BAD_REQUEST)
            return "connect"
        if command.id == 0 and command.send is None:
            if not self.is_pong_due:
                raise Disconnect(*errors.BAD_REQUEST)
            self.is_pong_due = False
            return PONG
        if (  # what most frames are, 0.4 µs sooner
            command.publish is not None
            and command.connect is None
            and command.subscribe is None
            and command.unsubscribe is None
        ):
            return "publish"
        for method in METHODS:
            if getattr(command, method) is not None:
                if method == "connect":
                    break
                return method
        raise Disconnect(*errors.BAD_REQUEST)

    def is_subscribed(self, channel: str) -> bool:
        """Say whether the client was told that it is subscribed to a channel."""
        subscription = self.subscriptions.get(channel)
        return subscription is not None and subscription.is_established

    def client_info(self, channel: str = "") -> ClientInfo:
        """Describe the client to others; with ``chan_info`` where it is subscribed to ``channel``."""
        subscription = self.subscriptions.get(channel)
        return ClientInfo(
            user=self.user,
            client=self.client_id,
            conn_info=self.info,
            chan_info=subscription.info if subscription is not None else EMPTY,
        )
