"""One configuration, as the file that both servers read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.live.harness import API_KEY, HMAC_KEY
from tests.parity.talk import POLL_SECRET


_OPEN = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
_HISTORY = {"history_size": 10, "history_ttl": "300s"}
_READ_HISTORY = {"allow_history_for_client": True, "allow_history_for_anonymous": True}
_DELTA = {"allowed_delta_types": ["fossil"], "delta_publish": True}
_MAP_WRITES = {
    f"allow_{verb}_for_{whom}": True
    for verb in ("publish", "remove")
    for whom in ("client", "anonymous")
}


def _map(name: str, mode: str, *, options: Mapping[str, Any] = {}, **more: Any) -> dict[str, Any]:
    key_ttl = {} if mode == "persistent" else {"key_ttl": "600s"}
    return {
        "name": name,
        "subscription_type": "map",
        **_OPEN,
        "map": {"mode": mode, **key_ttl, **_MAP_WRITES, **options},
        **more,
    }


def _poll(name: str, *, options: Mapping[str, Any] = {}, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subscription_type": "shared_poll",
        **_OPEN,
        "shared_poll": {"refresh_interval": "1s", **options},
        **more,
    }


NAMESPACES: list[dict[str, Any]] = [
    {
        "name": "open",
        **_OPEN,
        "allow_publish_for_client": True,
        "allow_publish_for_anonymous": True,
    },
    {"name": "closed"},
    {"name": "named", "allow_subscribe_for_client": True, "allow_publish_for_client": True},
    {
        "name": "members",
        **_OPEN,
        **_HISTORY,
        "presence": True,
        "allow_publish_for_subscriber": True,
        "allow_publish_for_anonymous": True,
        "allow_history_for_subscriber": True,
        "allow_history_for_anonymous": True,
        "allow_presence_for_subscriber": True,
        "allow_presence_for_anonymous": True,
    },
    {"name": "users", "allow_user_limited_channels": True},
    {"name": "digits", **_OPEN, "channel_regex": "^[0-9]+$"},
    {
        "name": "json",
        **_OPEN,
        "publication_data_format": "json",
        "allow_publish_for_client": True,
        "allow_publish_for_anonymous": True,
    },
    {
        "name": "objects",
        **_OPEN,
        "publication_data_format": "json_object",
        "allow_publish_for_client": True,
        "allow_publish_for_anonymous": True,
    },
    {
        "name": "room",
        **_OPEN,
        "presence": True,
        "join_leave": True,
        "force_push_join_leave": True,
        "allow_presence_for_client": True,
        "allow_presence_for_anonymous": True,
    },
    {
        "name": "asked",
        **_OPEN,
        **_HISTORY,
        "presence": True,
        "join_leave": True,
        "allow_positioning": True,
        "allow_recovery": True,
        "allow_presence_for_client": True,
        "allow_presence_for_anonymous": True,
    },
    {"name": "plain", **_OPEN, **_HISTORY, **_READ_HISTORY},
    {
        "name": "hist",
        **_OPEN,
        **_HISTORY,
        **_READ_HISTORY,
        "force_recovery": True,
        "allow_publish_for_client": True,
        "allow_publish_for_anonymous": True,
    },
    {"name": "positioned", **_OPEN, **_HISTORY, "force_positioning": True},
    {
        "name": "cache",
        **_OPEN,
        **_HISTORY,
        "force_recovery": True,
        "force_recovery_mode": "cache",
        "allow_tags_filter": True,
    },
    {
        "name": "autocache",
        **_OPEN,
        **_HISTORY,
        "force_recovery": True,
        "force_recovery_mode": "cache",
        "auto_cache_recover": True,
    },
    {"name": "doc", **_OPEN, **_HISTORY, **_READ_HISTORY, **_DELTA, "force_recovery": True},
    {
        "name": "asksdelta",
        **_OPEN,
        **_HISTORY,
        "force_recovery": True,
        "allowed_delta_types": ["fossil"],
    },
    {
        "name": "cachedoc",
        **_OPEN,
        **_HISTORY,
        **_DELTA,
        "force_recovery": True,
        "force_recovery_mode": "cache",
    },
    {"name": "loosedoc", **_OPEN, **_HISTORY, **_DELTA},
    {"name": "nohistdoc", **_OPEN, **_DELTA},
    {
        "name": "tagged",
        **_OPEN,
        **_HISTORY,
        **_READ_HISTORY,
        "force_recovery": True,
        "allow_tags_filter": True,
    },
    {"name": "loosetags", **_OPEN, "allow_tags_filter": True},
    {
        "name": "taggeddoc",
        **_OPEN,
        **_HISTORY,
        **_DELTA,
        "force_recovery": True,
        "allow_tags_filter": True,
    },
    # What Centrifugo doesn't know it ignores: its publications come one by one.
    {"name": "batched", **_OPEN, **_HISTORY, "batch_max_size": 3, "batch_max_delay": "50ms"},
    _map(
        "impatient",
        "persistent",
        options={"min_page_size": 1, "subscribe_catch_up_timeout": "500ms"},
    ),
    _map("eph", "ephemeral", options={"min_page_size": 2}),
    _map(
        "board",
        "persistent",
        options={"min_page_size": 2, "default_page_size": 3, "max_page_size": 4},
    ),
    _map("rec", "recoverable", options={"stream_size": 5, "min_page_size": 1}),
    _map("mapdoc", "persistent", options={"min_page_size": 1}, **_DELTA),
    _map("maptags", "persistent", options={"min_page_size": 1}, allow_tags_filter=True),
    _map(
        "byclient",
        "persistent",
        options={"client_key": "client_id", "remove_client_on_unsubscribe": True},
    ),
    _map("byuser", "persistent", options={"client_key": "user_id"}),
    {"name": "mapclosed", "subscription_type": "map", **_OPEN, "map": {"mode": "persistent"}},
    {
        "name": "mapmembers",
        "subscription_type": "map",
        **_OPEN,
        "map": {
            "mode": "persistent",
            "allow_publish_for_subscriber": True,
            "allow_remove_for_subscriber": True,
        },
    },
    {
        "name": "mapclients",
        "subscription_type": "map_clients",
        **_OPEN,
        "map": {"mode": "recoverable", "key_ttl": "600s"},
    },
    {
        "name": "mapusers",
        "subscription_type": "map_users",
        **_OPEN,
        "map": {"mode": "recoverable", "key_ttl": "600s"},
    },
    {
        "name": "watched",
        **_OPEN,
        "map_clients_presence_channel_prefix": "mapclients:",
        "map_users_presence_channel_prefix": "mapusers:",
    },
    _poll("poll", allowed_delta_types=["fossil"]),
    _poll(
        "versions",
        options={"mode": "versioned", "publish_enabled": True, "max_keys_per_connection": 3},
        allowed_delta_types=["fossil"],
    ),
]


def configuration(poll_url: str, *, hasty: bool = False) -> dict[str, Any]:
    """Return it; the hasty one has short pings and little patience."""
    client: dict[str, Any] = {
        "token": {"hmac_secret_key": HMAC_KEY},
        "allowed_origins": ["http://app.example"],
        "allow_anonymous_connect_without_token": True,
        "channel_limit": 8,
        "history_max_publication_limit": 5,
        "recovery_max_publication_limit": 5,
    }
    if hasty:
        client |= {
            "ping_interval": "2s",
            "pong_timeout": "1s",
            "presence_update_interval": "1s",
            "expired_close_delay": "0s",
            "expired_sub_close_delay": "0s",
            "stale_close_delay": "1s",
            "allow_anonymous_connect_without_token": False,
            "connect_include_server_time": True,
            "subscribe_to_user_personal_channel": {"enabled": True},
            "user_connection_limit": 2,
        }
    return {
        "client": client,
        "http_api": {"key": API_KEY},
        "health": {"enabled": True},
        "shared_poll": {"hmac_secret_key": POLL_SECRET},
        "channel": {
            "proxy": {"shared_poll_refresh": {"endpoint": poll_url}},
            "max_length": 80,
            "without_namespace": {
                **_OPEN,
                "allow_publish_for_client": True,
                "allow_publish_for_anonymous": True,
            },
            "namespaces": NAMESPACES,
        },
    }
