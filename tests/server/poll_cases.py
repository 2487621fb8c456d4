"""The cases of shared polls: 8 of the server API, 13.8 of what it means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.server.api_cases import (
    BAD_REQUEST,
    FORBIDDEN,
    Case,
    b64,
    call,
    error_text,
    ok,
    refused,
    reply,
)
from tests.server.api_world import PUBLISH_KEY, Call


def push(**facts: Any) -> Call:
    """Publish a value."""
    request = {"channel": "rates:a", "key": "k", "data": {"p": 1}, "version": 1}
    return call("shared_poll_publish", {**request, **facts})


def poll_cases() -> Iterator[Case]:
    """Yield all."""
    yield Case("shared_poll_publish", push(), ok())
    yield Case("shared_poll_publish: base64", push(b64data=b64(b"\xff")), ok())
    yield Case("shared_poll_publish: an epoch", push(epoch="e", version=2**64 - 1), ok())
    yield Case("shared_poll_publish: an old version", push(), ok(), before=(push(version=5),))
    for name, facts, error in (
        ("no channel", {"channel": ""}, 107),
        ("no key", {"key": ""}, 107),
        ("no version", {"version": 0}, 107),
        ("broken base64", {"b64data": "%"}, 107),
        ("a stream", {"channel": "chat"}, 107),
        ("a map", {"channel": "map:a"}, 107),
        ("unknown namespace", {"channel": "nothing:a"}, 102),
        ("not enabled", {"channel": "poll:a"}, 108),
    ):
        yield Case(f"shared_poll_publish: {name}", push(**facts), refused(error))
    yield Case(
        "shared_poll_publish in a batch",
        call(
            "batch",
            {
                "commands": [
                    {
                        "shared_poll_publish": {
                            "channel": "rates:a",
                            "key": "k",
                            "data": 1,
                            "version": 1,
                        }
                    },
                    {"shared_poll_publish": {}},
                ]
            },
        ),
        reply(b'{"replies":[{"shared_poll_publish":{}},{"error":%b}]}' % error_text(107)),
    )
    yield Case(
        "shared_poll_publish: by another method's key",
        call("shared_poll_publish", {}, headers={"x-api-key": PUBLISH_KEY}),
        FORBIDDEN,
    )
    yield Case(
        "malformed shared_poll_publish", call("shared_poll_publish", b'{"version":-1}'), BAD_REQUEST
    )
    yield Case("engine failure in shared_poll_publish", push(), refused(100), is_broken=True)
