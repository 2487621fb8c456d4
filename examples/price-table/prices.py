#!/usr/bin/env python3
"""
Prices that move, for a server to poll and for a page to look at.

    TIDEWIRE_SHARED_POLL_HMAC_SECRET_KEY=... python prices.py [PORT]

    POST /poll    what the server asks: {"channel", "items": [{"key"}]} -> {"result": {"items": [{"key", "data"}]}}
    POST /sign    what the page asks: {"channel", "keys"} -> {"keys", "signature"}, of the keys that it may look at
    GET  /calls   how often the server has asked
    GET  /        the page

It needs nothing but Python, to show what any backend has to do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


SYMBOLS = {
    "BTC": 64_000,
    "ETH": 3_100,
    "SOL": 150,
    "XRP": 0.5,
    "ADA": 0.45,
    "DOT": 7.2,
    "LTC": 84,
    "UNI": 9.9,
}
SIGNATURE_SECONDS = 300


def price(symbol: str, now: float) -> dict[str, float]:
    """Return what a symbol costs at a moment; each moves at its own pace."""
    base, pace = SYMBOLS[symbol], 5 + len(symbol) + sum(symbol.encode()) % 7
    return {"price": round(base * (1 + 0.02 * math.sin(int(now) / pace)), 4)}


def poll(request: dict[str, Any]) -> dict[str, Any]:
    """Answer for the keys that anybody looks at; one that is none is told as removed."""
    now = time.time()
    items = [
        {"key": key, "data": price(key, now)} if key in SYMBOLS else {"key": key, "removed": True}
        for key in (item["key"] for item in request["items"])
    ]
    return {"result": {"items": items}}


def sign(secret: str, request: dict[str, Any], user: str = "") -> dict[str, Any]:
    """
    Allow a user to look at some keys, in this order; anonymous ones have an empty id.

    In Django it is ``realtime.sign_shared_poll(channel, keys, user=...)``.
    """
    keys = [key for key in request["keys"] if key in SYMBOLS]
    now = int(time.time())
    digest = hashlib.sha256("\0".join(keys).encode()).hexdigest()
    fields = [str(now), str(now + SIGNATURE_SECONDS), user, request["channel"], digest]
    mac = hmac.new(secret.encode(), "\0".join(fields).encode(), hashlib.sha256).hexdigest()
    return {"keys": keys, "signature": f"{now}:{now + SIGNATURE_SECONDS}:{mac}"}


class Handler(SimpleHTTPRequestHandler):
    """One request."""

    calls = 0

    def __init__(self, secret: str, *args: Any, **facts: Any) -> None:
        self._secret = secret
        super().__init__(*args, **facts)

    def do_GET(self) -> None:
        """Give the page, or the number of calls."""
        if self.path == "/calls":
            self._answer({"calls": Handler.calls})
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Be polled, or sign."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/poll":
            Handler.calls += 1
            self._answer(poll(request))
        elif self.path == "/sign":
            self._answer(sign(self._secret, request))
        else:
            self.send_error(404)

    def _answer(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: it is asked every second."""


def main() -> None:
    """Serve until it is interrupted."""
    secret = os.environ.get("TIDEWIRE_SHARED_POLL_HMAC_SECRET_KEY")
    if not secret:
        sys.exit(__doc__)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8081
    handler = partial(Handler, secret, directory=str(Path(__file__).parent))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        sys.stdout.write(f"prices on http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
