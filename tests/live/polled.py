"""An application that is polled over HTTP, and followers by an SDK that was not written here."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from realtime.auth.poll_signatures import sign_batch
from tests.live.harness import WAIT_SECONDS, Sdk, Server, manage


SECRET = "what signs batches of live tests"


class PolledApplication:
    """
    The values, and the requests of all servers.

    Attributes:
        values: By key: (data, version); what is not there is left out of answers.
        removed: Keys that are gone.
        is_down: It answers 500.
        calls: Per request its keys.

    """

    def __init__(self) -> None:
        self.values: dict[str, tuple[Any, int]] = {}
        self.removed: set[str] = set()
        self.epoch = ""
        self.is_down = False
        self.calls: list[list[str]] = []
        self.url = ""
        self._called = threading.Condition()

    async def after_calls(self, count: int, seconds: float = WAIT_SECONDS) -> None:
        """Return when so many requests more have come."""
        target = len(self.calls) + count
        async with asyncio.timeout(seconds):
            await asyncio.to_thread(self._wait_for, target)

    def _wait_for(self, target: int) -> None:
        with self._called:
            self._called.wait_for(lambda: len(self.calls) >= target, WAIT_SECONDS)

    def answer(self, request: Mapping[str, Any]) -> bytes:
        """Take a request and answer it."""
        asked = {item["key"]: int(item.get("version", 0)) for item in request.get("items", ())}
        with self._called:
            self.calls.append(sorted(asked))
            self._called.notify_all()
        items: list[dict[str, Any]] = [
            {"key": key, "removed": True} for key in asked if key in self.removed
        ]
        for key, known in asked.items():
            if key in self.values and key not in self.removed:
                data, version = self.values[key]
                if not version or version > known:
                    items.append({"key": key, "data": data, "version": version})
        return json.dumps({"result": {"items": items, "epoch": self.epoch}}).encode()


@contextlib.contextmanager
def answering(answer: Callable[[Any], tuple[int, bytes]]) -> Iterator[str]:
    """Serve an application on a free port of the loopback interface; gives its URL, and the bodies to ``answer``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, data = answer(json.loads(body))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/poll"
        finally:
            # Also after a failure: a thread that serves a closed socket never ends, and the run with it.
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def polled_application() -> Iterator[PolledApplication]:
    """Serve one."""
    application = PolledApplication()

    def answer(request: Any) -> tuple[int, bytes]:
        data = application.answer(request)
        return (500 if application.is_down else 200), data

    with answering(answer) as application.url:
        yield application


def polled_options(application: PolledApplication, **more: str) -> Mapping[str, str]:
    """Return the options of a server that polls it."""
    return {
        "TIDEWIRE_SHARED_POLL_HMAC_SECRET_KEY": SECRET,
        "TIDEWIRE_CHANNEL_PROXY_SHARED_POLL_REFRESH_ENDPOINT": application.url,
        **more,
    }


def _namespace(name: str, **options: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subscription_type": "shared_poll",
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        "allowed_delta_types": ["fossil"],
        "shared_poll": {"refresh_interval": "1s", **options},
    }


NAMESPACES = [
    _namespace("plain"),
    _namespace("kept", keep_latest_data=True),
    _namespace("versions", mode="versioned", publish_enabled=True),
    _namespace("slow", mode="versioned", publish_enabled=True, refresh_interval="60s"),
]


def polled_database(folder: Path, application: PolledApplication) -> Path:
    """Make a database with these namespaces."""
    path, config = folder / "db.sqlite3", folder / "config.json"
    config.write_text(json.dumps({"channel": {"namespaces": NAMESPACES}}))
    options = polled_options(application)
    manage(path, "migrate", "--verbosity", "0", options=options)
    manage(path, "importconfig", str(config), options=options)
    return path


class SdkFollower:
    """One client of the SDK that follows keys; the test signs what it asks for."""

    def __init__(self, sdk: Sdk, channel: str) -> None:
        self.sdk = sdk
        self.channel = channel

    @classmethod
    async def start(cls, kind: str, server: Server, channel: str, delta: str = "") -> SdkFollower:
        """Connect and subscribe."""
        sdk = await Sdk.start(kind, server.websocket_url)
        await sdk.connect()
        await sdk.do("poll", channel=channel, delta=delta)
        await sdk.wait("subscribed", channel=channel)
        return cls(sdk, channel)

    async def track(self, *keys: str, ttl: int = 0) -> None:
        """Follow keys, with a signature that is good for ``ttl`` seconds (0: for ever)."""
        await self.sdk.do("track", channel=self.channel, keys=list(keys))
        await self.sign(ttl=ttl)

    async def sign(self, *, ttl: int = 0, seconds: float = WAIT_SECONDS) -> list[str]:
        """Answer the SDK's next wish for a signature; returns the keys."""
        wish = await self.sdk.wait("get_signature", channel=self.channel, seconds=seconds)
        keys: list[str] = wish["keys"]
        now = int(time.time())
        signature = sign_batch(
            SECRET,
            issued_at=now,
            expire_at=now + ttl if ttl else 0,
            user="",
            channel=self.channel,
            keys=keys,
        )
        await self.sdk.do("signature", keys=keys, signature=signature)
        return keys

    async def untrack(self, *keys: str) -> None:
        """Follow keys no more."""
        await self.sdk.do("untrack", channel=self.channel, keys=list(keys))

    async def update(self, key: str, **fields: Any) -> dict[str, Any]:
        """Take the next update of a key, with these fields."""
        event: dict[str, Any] = await self.sdk.wait(
            "update", channel=self.channel, key=key, **fields
        )
        return event

    def updates(self, key: str) -> list[dict[str, Any]]:
        """Return all updates of a key so far."""
        return self.sdk.seen("update", channel=self.channel, key=key)
