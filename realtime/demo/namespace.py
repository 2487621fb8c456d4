"""What the demo needs of the configuration; ``manage.py bootstrap`` makes rows of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


SYSTEM_CHANNEL = "demo:system"
CHAT_CHANNEL = "demo:chat"
BOARD_CHANNEL = "demo:board"

DEMO_NAMESPACE: Mapping[str, Any] = MappingProxyType(
    {
        "name": "demo",
        # One recovery holds 300 publications by default; at one a second that makes good a drop of five minutes.
        "history_size": 300,
        "history_ttl": 600.0,
        "force_recovery": True,
        "presence": True,
        "join_leave": True,
        "force_push_join_leave": True,
        # For the board, of which a page may take patches.
        "allowed_delta_types": ["fossil"],
        "delta_publish": True,
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        # For the chat. The page tells a visitor's publication from the server's by its `info`, and draws only the
        # server's where the machine's numbers are.
        "allow_publish_for_subscriber": True,
        "allow_presence_for_subscriber": True,
        "allow_presence_for_anonymous": True,
        "allow_history_for_subscriber": True,
        "allow_history_for_anonymous": True,
    }
)
