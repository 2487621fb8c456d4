"""
Tidewire: real-time messaging on Django.

``from realtime import publish`` works in views, tasks and commands. Names are loaded when they are first used, since the
pure rooms below must not bring Django along.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


_SHORTCUTS = (
    "publish", "apublish", "broadcast", "abroadcast", "subscribe", "asubscribe",
    "unsubscribe", "aunsubscribe", "disconnect", "adisconnect", "refresh", "arefresh",
    "presence", "apresence", "presence_stats", "apresence_stats", "history", "ahistory",
    "history_remove", "ahistory_remove", "channels", "achannels", "info", "ainfo",
    "map_publish", "amap_publish", "map_remove", "amap_remove", "map_read_state", "amap_read_state",
    "map_read_stream", "amap_read_stream", "map_stats", "amap_stats", "map_clear", "amap_clear",
    "shared_poll_publish", "ashared_poll_publish", "sign_shared_poll",
)  # fmt: skip
_NAMES = dict.fromkeys(_SHORTCUTS, "realtime.shortcuts") | {
    "ApiError": "realtime.shortcuts",
    "EngineError": "realtime.protocol.errors",
    "ClientError": "realtime.protocol.errors",
    "register_rpc": "realtime.commands",
    "on_cache_empty": "realtime.handlers",
    "on_shared_poll_refresh": "realtime.handlers",
    "CacheEmptyRequest": "realtime.proxies.cache_empty",
    "CacheEmptyResult": "realtime.proxies.cache_empty",
    "PolledItem": "realtime.proxies.shared_poll",
    "SharedPollRefreshRequest": "realtime.proxies.shared_poll",
    "SharedPollRefreshResult": "realtime.proxies.shared_poll",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(module), name)
