"""What ``make run`` puts into an empty database."""

from __future__ import annotations

from typing import Any


# Centrifugo's option names; durations as in its configuration files.
DEMO_NAMESPACE: dict[str, Any] = {
    "name": "demo",
    "presence": True,
    "join_leave": True,
    "history_size": 100,
    "history_ttl": "10m",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "allow_presence_for_subscriber": True,
}
