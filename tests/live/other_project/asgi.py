"""A project that has a WebSocket route of its own, by an ordinary consumer of Channels, beside Tidewire's."""

from __future__ import annotations

from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer

from project.asgi import application as tidewire


class Shout(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Echoes in upper case; ``bye`` ends it."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer."""
        if text_data == "bye":
            await self.close(4321, "as you wish")
        elif text_data is not None:
            await self.send(text_data=text_data.upper())
        else:
            await self.send(bytes_data=bytes_data)


_shout = Shout.as_asgi()


class Application:
    """What ``serve`` is given."""

    direct_lane = tidewire.direct_lane

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope."""
        is_shout = scope["type"] == "websocket" and scope["path"] == "/shout"
        await (_shout if is_shout else tidewire)(scope, receive, send)


application = Application()
