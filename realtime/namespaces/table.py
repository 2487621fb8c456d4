"""
From a channel's name to everything that is known about it, in one look-up.

A table is made of one configuration and never changes; a new configuration is a new table, so what a table remembers
about names can't be out of date.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from realtime.namespaces.names import (
    has_user_boundary,
    is_too_long,
    listed_users,
    split_name,
)
from realtime.namespaces.options import (
    STREAM_TYPE,
    ChannelOptions,
    ChannelRules,
    MapRules,
    StreamOptions,
    map_rules,
)
from realtime.namespaces.patterns import ChannelPattern, PatternError
from realtime.protocol.errors import ConfigError


# Names are chosen by clients, so their number and length are bounded: two generations of this many names, some
# 300 bytes each, are 10 MB at most. A name that isn't remembered costs 2 µs instead of 0.1.
_GENERATION_SIZE = 16384
_MAX_REMEMBERED_LENGTH = 512


class Channel(msgspec.Struct, frozen=True, gc=False, eq=False):
    """
    One channel under one table; compared by identity.

    ``rest`` is the name without its namespace, ``is_valid`` says whether clients may use the name, ``is_plain`` that any
    client may ask for it as a stream: it is valid, not too long and not private,
    ``history_meta_ttl``, ``data_format``, ``publish_options`` and ``map_rules`` have what is inherited filled in. ``granted`` is where
    permissions remember what they worked out for the namespace's options; all its channels share it.
    """

    name: str
    namespace: str  # "" without one
    rest: str
    is_private: bool
    is_valid: bool
    is_plain: bool
    is_user_limited: bool
    options: ChannelOptions
    publish_options: StreamOptions
    map_rules: MapRules
    has_history: bool
    history_meta_ttl: float
    data_format: str
    rules: ChannelRules
    granted: dict[Any, Any]

    @property
    def allowed_users(self) -> tuple[str, ...]:
        """The users in the name of a user-limited channel, as they stand; of any other channel none."""
        return listed_users(self.name, self.rules) if self.is_user_limited else ()

    def is_for_user(self, user: str) -> bool:
        """
        Say whether the channel's name lists ``user``.

        Nobody is listed by an empty id: ``ns:#`` must not be the channel that all anonymous clients share.
        """
        return bool(user) and user in self.allowed_users


class _Namespace:
    """The parts of ``Channel`` that all channels of a namespace have in common."""

    __slots__ = (
        "data_format",
        "granted",
        "has_history",
        "history_meta_ttl",
        "map_rules",
        "options",
        "pattern",
        "publish_options",
    )

    def __init__(self, name: str, options: ChannelOptions, rules: ChannelRules) -> None:
        self.options = options
        self.granted: dict[Any, Any] = {}
        self.history_meta_ttl = options.history_meta_ttl or rules.history_meta_ttl
        self.data_format = options.publication_data_format or rules.publication_data_format
        self.has_history = options.has_history
        self.publish_options = StreamOptions(
            history_size=options.history_size,
            history_ttl=options.history_ttl,
            history_meta_ttl=self.history_meta_ttl,
            delta=options.delta_publish,
        )
        self.map_rules = map_rules(options)
        try:
            self.pattern = ChannelPattern(options.channel_regex) if options.channel_regex else None
        except PatternError as error:
            where = f"namespace {name!r}" if name else "channels without namespace"
            message = f"{where}: channel_regex {options.channel_regex!r}: {error}"
            raise ConfigError(message) from error

    def is_valid_name(self, name: str, rest: str) -> bool:
        if self.pattern is not None:
            return self.pattern.is_found_in(rest)
        return name.isascii()


class NamespaceTable:
    """
    The channel options of one configuration.

    Args:
        without_namespace: For names without a namespace.
        namespaces: By name; the names are taken as they are (``validation`` judges them).
        rules: What holds for all channels.
        revision: The configuration's number.

    Raises:
        ConfigError: A ``channel_regex`` does not compile.

    """

    __slots__ = (
        "_known",
        "_known_before",
        "_namespaces",
        "namespaces",
        "revision",
        "rules",
        "without_namespace",
    )

    def __init__(
        self,
        without_namespace: ChannelOptions = ChannelOptions(),  # noqa: B008 -- frozen
        namespaces: Mapping[str, ChannelOptions] = MappingProxyType({}),
        rules: ChannelRules = ChannelRules(),  # noqa: B008 -- frozen
        revision: int = 0,
    ) -> None:
        self.without_namespace = without_namespace
        self.namespaces: Mapping[str, ChannelOptions] = MappingProxyType(dict(namespaces))
        self.rules = rules
        self.revision = revision
        self._namespaces = {
            name: _Namespace(name, options, rules)
            for name, options in {**namespaces, "": without_namespace}.items()
        }
        self._known: dict[str, Channel] = {}
        self._known_before: dict[str, Channel] = {}

    def resolve(self, channel: str) -> Channel | None:
        """
        Return what is known of a channel, or ``None`` where its namespace is unknown.

        Any text is a channel's name; ``is_valid`` of the result says whether clients may use it.
        """
        known = self._known.get(channel)
        if known is not None:
            return known
        return self._resolve_anew(channel)

    def _resolve_anew(self, name: str) -> Channel | None:
        channel = self._known_before.get(name) or self._make(name)
        if channel is not None and len(name) <= _MAX_REMEMBERED_LENGTH:
            # Two generations instead of a list of recent uses: a hit stays one look-up, and names in use survive.
            if len(self._known) >= _GENERATION_SIZE:
                self._known_before, self._known = self._known, {}
            self._known[name] = channel
        return channel

    def _make(self, name: str) -> Channel | None:
        namespace_name, rest, is_private = split_name(name, self.rules)
        namespace = self._namespaces.get(namespace_name)
        if namespace is None:
            return None
        options = namespace.options
        is_valid = namespace.is_valid_name(name, rest)
        return Channel(
            name=name,
            namespace=namespace_name,
            rest=rest,
            is_private=is_private,
            is_valid=is_valid,
            is_plain=is_valid
            and bool(name)
            and not is_private
            and options.type_number == STREAM_TYPE
            and not is_too_long(name, self.rules),
            is_user_limited=options.allow_user_limited_channels
            and has_user_boundary(name, self.rules),
            options=options,
            publish_options=namespace.publish_options,
            map_rules=namespace.map_rules,
            has_history=namespace.has_history,
            history_meta_ttl=namespace.history_meta_ttl,
            data_format=namespace.data_format,
            rules=self.rules,
            granted=namespace.granted,
        )
