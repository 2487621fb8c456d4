#!/usr/bin/env python3
"""
Publish a file whenever it is saved, and let everybody who looks at it have what changed.

    TIDEWIRE_API_KEY=... python publish.py notes.md [CHANNEL] [URL]

Each save publishes the whole document; the server makes the patches, and only for those who take them.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from pathlib import Path


LOOK_AGAIN_SECONDS = 0.2


def publish(url: str, channel: str, document: object) -> None:
    """Call the server API; an answer with an error ends the program."""
    request = urllib.request.Request(
        f"{url}/api/publish",
        json.dumps({"channel": channel, "data": document, "delta": True}).encode(),
        {"X-API-Key": os.environ["TIDEWIRE_API_KEY"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    if "error" in answer:
        sys.exit(f"not published: {answer['error']}")


def main() -> None:
    """Publish now, and after every save."""
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    given = dict(enumerate(sys.argv))
    channel, url = given.get(2, "demo:document"), given.get(3, "http://127.0.0.1:8000")
    published = None
    while True:
        text = path.read_text(encoding="utf-8")
        if text != published:
            publish(url, channel, {"name": path.name, "text": text})
            published = text
        time.sleep(LOOK_AGAIN_SECONDS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
