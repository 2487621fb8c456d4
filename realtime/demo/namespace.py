"""What the demo needs of the configuration; ``manage.py bootstrap`` makes rows of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


SYSTEM_CHANNEL = "demo:system"
CHAT_CHANNEL = "demo-chat:lobby"

_COMMON: dict[str, Any] = {
    # One recovery holds 300 publications by default; at one a second that makes good a drop of five minutes.
    "history_size": 300,
    "history_ttl": 600.0,
    "force_recovery": True,
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_presence_for_subscriber": True,
    "allow_presence_for_anonymous": True,
    "allow_history_for_subscriber": True,
    "allow_history_for_anonymous": True,
}

# Clients only listen here, so that what the page shows is what the machine measured.
DEMO_NAMESPACE: Mapping[str, Any] = MappingProxyType({"name": "demo", **_COMMON})

# Here they talk, those with a name.
DEMO_CHAT_NAMESPACE: Mapping[str, Any] = MappingProxyType(
    {
        "name": "demo-chat",
        **_COMMON,
        "allow_publish_for_subscriber": True,
        "publication_data_format": "json_object",
    }
)

DEMO_NAMESPACES = (DEMO_NAMESPACE, DEMO_CHAT_NAMESPACE)
