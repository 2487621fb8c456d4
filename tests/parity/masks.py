"""
Names for what cannot be equal in two conversations.

A value that a server makes up gets a name when it is first seen, ``<epoch 1>``, and keeps it: so a transcript shows
that two epochs are the same, or that they are not.
"""

from __future__ import annotations

import re
from typing import Any


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# A second may pass between a token's signing and its reading.
_TTL_STEP = 10
_MIN_EPOCH_LENGTH = 4
_MAPS = {"subs", "presence", "channels", "tags"}
_SAY_VERSION = {"connect", "nodes"}
_VERSION = "<version>"


class Shown(str):
    """A text that is sent as it is and written down as something that does not change, such as a token's claims."""

    __slots__ = ("shown",)

    def __new__(cls, text: str, shown: str) -> Shown:
        """Make one."""
        made = super().__new__(cls, text)
        made.shown = shown
        return made

    shown: str


class Masks:
    """
    The names given in one conversation.

    Attributes:
        makes_versions: The server makes up versions: those of a shared poll without any.

    """

    def __init__(self) -> None:
        self.makes_versions = False
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._literals: set[str] = set()

    def sent(self, value: Any) -> Any:
        """Write down what was sent: what a server had made up goes by its name."""
        if isinstance(value, Shown):
            return value.shown
        if isinstance(value, str):
            if value not in self._names:
                self._literals.add(value)
            return self._replace(value)
        if isinstance(value, dict):
            return {self.sent(key): self.sent(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.sent(one) for one in value]
        return value

    def got(self, value: Any, key: str = "") -> Any:
        """Write down what was received."""
        if isinstance(value, dict):
            # Go's maps are in no order, and names are given in the order of what is seen.
            items = sorted(value.items()) if key in _MAPS else value.items()
            fields = {
                self._replace(name): _VERSION
                if name == "version" and key in _SAY_VERSION
                else self._field(name, one)
                for name, one in items
            }
            return dict(sorted(fields.items())) if key in _MAPS else fields
        if isinstance(value, list):
            return [self.got(one, key) for one in value]
        if isinstance(value, str):
            return self._replace(value)
        return value

    def _field(self, name: str, value: Any) -> Any:
        if name == "epoch" and isinstance(value, str) and value not in self._literals:
            return self._name("epoch", value) if len(value) >= _MIN_EPOCH_LENGTH else value
        if name == "ttl" and isinstance(value, int):
            return f"<about {-(-value // _TTL_STEP) * _TTL_STEP}>"
        if name == "version" and self.makes_versions and isinstance(value, int):
            return self._name("version", str(value))
        if name == "time" and isinstance(value, int):
            return "<time>"
        return self.got(value, name)

    def _replace(self, text: str) -> str:
        if text in self._names:
            return self._names[text]
        return _UUID.sub(lambda match: self._name("id", match.group()), text)

    def _name(self, kind: str, value: str) -> str:
        if value not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[value] = f"<{kind} {self._counts[kind]}>"
        return self._names[value]
