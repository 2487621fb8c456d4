"""
One connection that only listens: a connect request lets it in, and from then on it gets bare pushes.

The transport reads the request in whatever way it comes, and hands it over decoded. The connect's reply is a push, so is the
disconnect that ends the connection; that last one is the transport's to write in ``close``, which knows whether anything may
follow it (a close frame, the end of a body). Everything else is as on any other connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from realtime.client import connecting
from realtime.client.client import Client, Transport
from realtime.node.eager import run_eagerly, run_promptly
from realtime.protocol import errors
from realtime.protocol.errors import (
    ClientError,
    Disconnect,
    ExpiredError,
    PermissionDeniedError,
    TokenExpiredError,
    TooManyRequestsError,
)
from realtime.protocol.messages import Command, ConnectRequest, ConnectResult, Push
from realtime.session.session import Session, SessionState


if TYPE_CHECKING:
    from realtime.conf.options import ClientOptions
    from realtime.node.node import Node
    from realtime.protocol.wire import Wire

Refusal = ClientError | Disconnect
"""Why a client is not let in."""

# There is no reply that could carry an error, so a refused connect ends the connection. Any other error is a 3004.
_DISCONNECTS: Mapping[int, tuple[int, str]] = MappingProxyType(
    {
        TokenExpiredError.code: errors.CONNECTION_EXPIRED,
        ExpiredError.code: errors.CONNECTION_EXPIRED,
        TooManyRequestsError.code: errors.TOO_MANY_REQUESTS,
        PermissionDeniedError.code: errors.PERMISSION_DENIED,
    }
)


def disconnect_for(refusal: Refusal, options: ClientOptions) -> tuple[int, str]:
    """Return the code and reason that end a refused connection; the operator may have set others for an error's code."""
    if isinstance(refusal, Disconnect):
        return refusal.code, refusal.reason
    transforms = options.connect_code_to_unidirectional_disconnect
    if transforms.enabled:
        for each in transforms.transforms:
            if each.code == refusal.code:
                return each.to.code, each.to.reason
    return _DISCONNECTS.get(refusal.code, errors.SERVER_ERROR)


class UnidirectionalClient(Client):
    """
    One connection that only listens.

    Args:
        node, transport_name, user_header: As a ``Client`` has them.
        session: With a ``session_id``, which the client is told.
        wire: A unidirectional one.
        transport: Its ``close`` writes the disconnect push.
        frame_ping: A PING frame that goes with each of the protocol's pings and is answered, where the transport has such.
        write_timeout: Seconds that a reader whose transport reports pauses may stay behind.

    Attributes:
        has_request: Whether the connect request has come.

    """

    __slots__ = ("_write_timeout", "has_request")

    is_unidirectional: ClassVar[bool] = True

    def __init__(
        self,
        node: Node,
        session: Session,
        wire: Wire,
        transport: Transport,
        *,
        transport_name: str,
        user_header: str = "",
        frame_ping: bytes = b"",
        write_timeout: float = 1.0,
    ) -> None:
        super().__init__(
            node,
            session,
            wire,
            transport,
            transport_name=transport_name,
            user_header=user_header,
            frame_ping=frame_ping,
        )
        self.has_request = False
        self._write_timeout = write_timeout

    def connect(self, request: ConnectRequest) -> None:
        """Let the client in, now or soon; a refusal disconnects it. Requests after the first are ignored."""
        if self.has_request or self.is_closed:
            return
        self.has_request = True
        _, driven = run_promptly(self._connect_or_end(request))
        if driven is not None:
            self._task = driven
            driven.on_end = self._continue

    async def let_in(self, request: ConnectRequest) -> Refusal | None:
        """
        Let the client in, and leave a refusal to the caller, who ends the connection.

        Returns:
            The refusal; ``None`` when the client is in, and also when it was disconnected meanwhile.

        """
        self.has_request = True
        refusal, task = run_eagerly(self._attempt(request))
        if task is None:
            return refusal
        self._task = task
        try:
            await asyncio.wait([task])
        finally:
            self._task = None
            task.cancel()  # the caller was cancelled: nobody waits for the client any more
        return None if task.cancelled() else task.result()

    async def _connect_or_end(self, request: ConnectRequest) -> None:
        refusal = await self._attempt(request)
        if refusal is not None:
            self.disconnect(*disconnect_for(refusal, self.node.options.client))

    async def _attempt(self, request: ConnectRequest) -> Refusal | None:
        try:
            await connecting.connect(self, Command(id=1, connect=request))
        except Disconnect as end:
            refusal: Refusal = end
        except Exception as error:  # noqa: BLE001 -- judge logs what is no refusal
            refusal = self.judge(error, "connect")
        else:
            return None
        self.session.state = SessionState.UNUSABLE
        return refusal

    # --- what differs from a connection that talks -----------------------------------------------

    def answer_connect(self, command: Command, result: ConnectResult) -> None:
        """Tell the client that it is in."""
        self.push(Push(connect=result))

    @property
    def write_timeout(self) -> float:
        """How many seconds a reader may stay behind."""
        return self._write_timeout

    def on_message(self, data: bytes, is_text: bool = True) -> None:
        """Ignore what comes after the request."""

    def ping(self) -> None:
        """Send a ping; only a PING frame has to be answered."""
        if self.is_closed:
            return
        if self.frame_ping:
            self.session.is_pong_due = True
            self.write(self.frame_ping)
        self.write(self.wire.ping)
