"""
Every code and text that leaves the server when something goes wrong.

No number is written elsewhere. The first split is whose fault it is and what survives::

    Exception
    ├── ClientError          the command failed, the connection lives (``Reply.error``)
    │   ├── InternalError 100 (temporary)   ├── NotAvailableError 108
    │   ├── UnauthorizedError 101           ├── TokenExpiredError 109
    │   ├── UnknownChannelError 102         ├── ExpiredError 110
    │   ├── PermissionDeniedError 103       ├── TooManyRequestsError 111 (temporary)
    │   ├── MethodNotFoundError 104         ├── UnrecoverablePositionError 112
    │   │   └── NotFoundError 104 (API)     ├── ConcurrentPaginationError 113 (temporary)
    │   ├── AlreadySubscribedError 105      └── ConflictError 113 (API)
    │   ├── LimitExceededError 106
    │   └── BadRequestError 107
    ├── Disconnect           the connection ends (close code and reason)
    ├── EngineError          a backend failed; the driver's error is ``__cause__``
    ├── ProxyError           an application's backend failed
    └── ConfigError          the operator's configuration is wrong

Codes 100-399 of ``ClientError`` are ours, 400-1999 the application's. Disconnect codes 3000-3499 and
4000-4499 ask the SDK to reconnect; 3500-3999 and 4500-4999 are terminal.
"""

from __future__ import annotations


class ClientError(Exception):
    """
    A command failed; the connection (or API caller) goes on.

    Args:
        code: Overrides the class's code; for application errors (400-1999).
        message: Overrides the class's text.
        temporary: Overrides whether a retry may help.

    """

    code: int = 100
    message: str = "internal server error"
    temporary: bool = False

    def __init__(
        self,
        code: int | None = None,
        message: str | None = None,
        *,
        temporary: bool | None = None,
    ) -> None:
        if code is not None:
            self.code = code
        if message is not None:
            self.message = message
        if temporary is not None:
            self.temporary = temporary
        super().__init__(f"{self.code}: {self.message}")


class InternalError(ClientError):
    """Something failed here; a retry may help."""

    code = 100
    message = "internal server error"
    temporary = True


class UnauthorizedError(ClientError):
    """Reserved for applications."""

    code = 101
    message = "unauthorized"


class UnknownChannelError(ClientError):
    """The channel's namespace is not configured."""

    code = 102
    message = "unknown channel"


class PermissionDeniedError(ClientError):
    """The client may not do this with this channel."""

    code = 103
    message = "permission denied"


class MethodNotFoundError(ClientError):
    """The RPC method's namespace is unknown."""

    code = 104
    message = "method not found"


class NotFoundError(MethodNotFoundError):
    """The server API has no such method (its text differs from the client protocol's)."""

    message = "not found"


class AlreadySubscribedError(ClientError):
    """The connection is subscribed to the channel, or about to be."""

    code = 105
    message = "already subscribed"


class LimitExceededError(ClientError):
    """The connection has as many channels as it may have."""

    code = 106
    message = "limit exceeded"


class BadRequestError(ClientError):
    """The request is well-formed and makes no sense."""

    code = 107
    message = "bad request"


class NotAvailableError(ClientError):
    """The feature is off here."""

    code = 108
    message = "not available"


class TokenExpiredError(ClientError):
    """The token expired or is not valid yet; SDKs fetch a new one."""

    code = 109
    message = "token expired"


class ExpiredError(ClientError):
    """An expiration time given otherwise than by a token's ``exp`` is past."""

    code = 110
    message = "expired"


class TooManyRequestsError(ClientError):
    """A rate limit was hit."""

    code = 111
    message = "too many requests"
    temporary = True


class UnrecoverablePositionError(ClientError):
    """The stream position given belongs to another epoch."""

    code = 112
    message = "unrecoverable position"


class ConcurrentPaginationError(ClientError):
    """Two pages of one map subscription were asked for at once."""

    code = 113
    message = "concurrent pagination"
    temporary = True


class ConflictError(ClientError):
    """The server API's 113."""

    code = 113
    message = "conflict"


class Disconnect(Exception):  # noqa: N818 -- the protocol's word, and a close is no error of ours
    """
    End the connection with a close code and reason.

    Attributes:
        code: A WebSocket close code, 3000-4999.
        reason: Non-empty, at most 123 bytes of UTF-8, never valid JSON: SDKs decide by it.

    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        """Two disconnects are equal when the client sees the same."""
        if not isinstance(other, Disconnect):
            return NotImplemented
        return (self.code, self.reason) == (other.code, other.reason)

    def __hash__(self) -> int:
        """Hash what ``__eq__`` compares."""
        return hash((self.code, self.reason))


CONNECTION_CLOSED = (3000, "connection closed")  # internal: the client went away; never sent
SHUTDOWN = (3001, "shutdown")
SERVER_ERROR = (3004, "internal server error")
CONNECTION_EXPIRED = (3005, "connection expired")
SUBSCRIPTION_EXPIRED = (3006, "subscription expired")
SLOW = (3008, "slow")
WRITE_ERROR = (3009, "write error")
INSUFFICIENT_STATE = (3010, "insufficient state")
FORCE_RECONNECT = (3011, "force reconnect")
NO_PONG = (3012, "no pong")
TOO_MANY_REQUESTS = (3013, "too many requests")
STATE_INVALIDATED = (3014, "state invalidated")
INVALID_TOKEN = (3500, "invalid token")
BAD_REQUEST = (3501, "bad request")
STALE = (3502, "stale")
FORCE_DISCONNECT = (3503, "force disconnect")
CONNECTION_LIMIT = (3504, "connection limit")
CHANNEL_LIMIT = (3505, "channel limit")
INAPPROPRIATE_PROTOCOL = (3506, "inappropriate protocol")
PERMISSION_DENIED = (3507, "permission denied")
NOT_AVAILABLE = (3508, "not available")
TOO_MANY_ERRORS = (3509, "too many errors")

# Unsubscribe pushes: below 2500 the SDK stops, from 2500 on it subscribes again.
UNSUBSCRIBED_BY_SERVER = (2000, "server unsubscribe")
UNSUBSCRIBED_INSUFFICIENT = (2500, "insufficient state")
UNSUBSCRIBED_EXPIRED = (2501, "subscription expired")
UNSUBSCRIBED_INVALIDATED = (2502, "state invalidated")
UNSUBSCRIBED_FILTER_CHANGED = (2502, "server tags filter changed")


class EngineError(Exception):
    """A broker, presence or control backend failed; nothing is known of the outcome."""


class ProxyError(Exception):
    """The application's backend could not be asked."""


class ConfigError(Exception):
    """The operator's configuration is wrong; the text says where and how to mend it."""
