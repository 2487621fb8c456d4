"""
Patches as what they make.

A document has more than one correct patch, and two servers need not make the same. So a patch is applied to what the
connection received before, by code of a client's library, and the result stands in the transcript: that it is the right
document, and that it came as a patch, is what counts.
"""

from __future__ import annotations

from typing import Any

from centrifuge.fossil import apply_delta

from tests.parity.encodings import payload


_COMMANDS_WITH_PUBLICATIONS = ("subscribe", "sub_refresh")


class Documents:
    """The last document of each channel, or of each key of a map, on one connection."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], bytes] = {}
        self._channels: dict[int, str] = {}

    def asked(self, command: Any) -> None:
        """Note which channel a command is about, since its reply does not say."""
        if isinstance(command, dict):
            for name in _COMMANDS_WITH_PUBLICATIONS:
                if isinstance(request := command.get(name), dict):
                    self._channels[command.get("id", 0)] = request.get("channel", "")

    def has(self, channel: str, document: str) -> None:
        """Note what the client has from before."""
        self._last[channel, ""] = document.encode()

    def read(self, message: dict[str, Any]) -> Any:
        """Return a message with each patch as ``{"patched": document}`` and each payload readable."""
        push = message.get("push", {})
        if "pub" in push:
            self._take(push.get("channel", ""), push["pub"])
        for name in _COMMANDS_WITH_PUBLICATIONS:
            if name in message:
                self._take_all(self._channels.get(message["id"], ""), message[name])
        for channel, result in (message.get("connect") or {}).get("subs", {}).items():
            self._take_all(channel, result)
        return _readable(message)

    def _take_all(self, channel: str, result: dict[str, Any]) -> None:
        for name in ("state", "publications", "items"):
            for publication in result.get(name, ()):
                self._take(channel, publication)

    def _take(self, channel: str, publication: dict[str, Any]) -> None:
        key = (channel, publication.get("key", ""))
        data = publication.get("data", b"")
        if not isinstance(data, str | bytes):
            return
        document = data.encode() if isinstance(data, str) else data
        if publication.get("delta"):
            document = bytes(apply_delta(self._last[key], document))
            made: Any = document.decode() if isinstance(data, str) else payload(document)
            publication["data"] = {"patched": made}
        # One without an offset is no base: it is not in the history that patches lead through.
        if publication.get("offset") or publication.get("key"):
            self._last[key] = document


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return payload(value)
    if isinstance(value, dict):
        return {name: _readable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_readable(one) for one in value]
    return value
