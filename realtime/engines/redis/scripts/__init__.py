"""
The Lua scripts, each one atomic step.

They run by their hash; a Redis that does not know one gets its text. All keys are declared, and without Lua's
``cmsgpack``, which makes text of bytes.
"""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files

import msgspec


class Script(msgspec.Struct, frozen=True):
    """
    A script and the hash that Redis knows it by.

    ``is_told_server``: behind its own arguments it gets the server as the connection knows it (``server.lua``).
    """

    text: bytes
    sha: bytes
    is_told_server: bool


def _load(*names: str) -> Script:
    text = b"".join(files(__name__).joinpath(f"{name}.lua").read_bytes() for name in names)
    sha = sha1(text, usedforsecurity=False).hexdigest().encode()
    return Script(text, sha, is_told_server="server" in names)


PUBLISH_STREAM = _load("server", "publish_stream")
PUBLISH_LIST = _load("server", "publish_list")
PUBLISH_ONCE = _load("publish_once")
HISTORY_STREAM = _load("server", "history_stream")
HISTORY_LIST = _load("server", "history_list")
RENEW = _load("renew")
PRESENCE_ADD = _load("presence_add")
PRESENCE_INDEX = _load("presence_index")
PRESENCE_REMOVE = _load("presence_user", "presence_remove")
PRESENCE_GET = _load("presence_user", "presence_overdue", "presence_get")
PRESENCE_STATS = _load("presence_user", "presence_overdue", "presence_stats")
MAP_WRITE = _load("server", "map_record", "map_change", "map_write")
MAP_REMOVE = _load("server", "map_record", "map_change", "map_remove")
MAP_SWEEP = _load("server", "map_record", "map_change", "map_sweep")
MAP_STATE = _load("server", "map_record", "map_state")
MAP_STREAM = _load("server", "map_record", "map_stream")
MAP_DUE = _load("map_due")
MAP_CLEAR = _load("map_clear")
