"""What a client may ask for before it connects, so that a load balancer sets its cookie."""

from __future__ import annotations

from typing import Any

from realtime import bootstrap
from realtime.consumers.streaming import cors_headers, refuse_method, respond


async def init(scope: Any, _: Any, send: Any) -> None:
    """``/connection/init``: an empty object, which web pages of allowed origins may read."""
    cors = cors_headers(await bootstrap.ensure_node(), scope)
    if scope["method"] != "GET":
        await refuse_method(send, cors, b"GET")
        return
    await respond(send, 200, ((b"content-type", b"application/json"), *cors), b"{}")
