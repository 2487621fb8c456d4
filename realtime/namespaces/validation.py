"""
Say what is wrong with a configuration of channels: everything, at once, each at the field that is wrong.

A configuration is accepted as a whole or refused as a whole. To save one namespace, build the ``Candidate`` that would
result and look at all its problems: an edit can break another namespace.

Source: the checks that Centrifugo v6 makes when it loads a configuration; its "accepted although questionable" cases are
warnings here. Refused here although Centrifugo starts with them: negative or non-finite durations, and map
settings with which every operation fails (a persistent map with ``meta_ttl``, a ``meta_ttl`` shorter than ``key_ttl``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from realtime.namespaces.names import is_namespace_name, split_name
from realtime.namespaces.options import (
    MAP_MAX_PAGE_SIZE,
    MAP_MIN_PAGE_SIZE,
    MAP_PAGE_SIZE,
    STREAM_TYPE,
    SUBSCRIPTION_TYPES,
    ChannelOptions,
    ChannelRules,
    MapOptions,
)
from realtime.namespaces.patterns import ChannelPattern, PatternError


RECOVERY_MODES = ("", "stream", "cache")
DATA_FORMATS = ("", "json", "json_object", "binary")
DELTA_TYPES = ("fossil",)
MAP_MODES = ("", "ephemeral", "recoverable", "persistent")
MAP_CLIENT_KEYS = ("", "client_id", "user_id")
SHARED_POLL_MODES = ("", "versionless", "versioned")
DEFAULT_PROXY = "default"

_PERSONAL = "client.subscribe_to_user_personal_channel"
_DEFAULT_MAP_STREAM_TTL = 60.0
_SHORTEST_DURATION = 0.001
_MAY_BE_NEGATIVE = (
    "shared_poll.channel_shutdown_delay",  # at once
    "map.subscribe_catch_up_timeout",  # no limit
)
_COUNTING = ("force_recovery", "force_positioning", "allow_recovery", "allow_positioning")


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing that is wrong.

    ``namespace`` is empty for the channels without one, and for the configuration as a whole. ``field`` is the
    option's name, with a dot for nested ones (``map.key_ttl``), or ``name``; an option of the whole configuration has
    its full path (``channel.publication_data_format``, ``client.subscribe_to_user_personal_channel.enabled``).
    A warning does not stand in the way of the configuration.
    """

    namespace: str
    field: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class PersonalChannel:
    """``client.subscribe_to_user_personal_channel``."""

    enabled: bool = False
    namespace: str = ""
    single_connection: bool = False


@dataclass(frozen=True, slots=True)
class Proxies:
    """
    The proxies that exist.

    ``names`` are those of the list of proxies, which may be asked of any kind of event; ``default`` is not one of them.
    ``defaults`` are the kinds (``subscribe``, ``publish``, ``sub_refresh``, ``subscribe_stream``, ``map_publish``,
    ``map_remove``, ``shared_poll_refresh``) whose ``default`` proxy has an endpoint and a timeout. ``asked`` are the kinds
    that the server asks; ``None`` means all. A namespace that relies on another one gets a warning, and needs no
    ``default`` proxy. ``handled`` has the names of the application's handlers by kind, which answer for that one only.
    """

    names: Collection[str] = ()
    defaults: Collection[str] = ()
    asked: Collection[str] | None = None
    handled: Mapping[str, Collection[str]] = field(default_factory=dict)

    def asks(self, kind: str) -> bool:
        """Say whether the server asks about this kind of event."""
        return self.asked is None or kind in self.asked

    def problem(self, kind: str, name: str) -> str:
        """Say why this kind of event can't be asked of a named proxy; empty if it can."""
        if name in self.names or name in self.handled.get(kind, ()):
            return ""
        others = sorted(other for other, names in self.handled.items() if name in names)
        handles = f", but a handler of {' and '.join(others)}" if others else ""
        return f"there is no proxy {name!r}{handles}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A configuration that may or may not be right.

    Args:
        without_namespace: Options of the channels without a namespace.
        namespaces: By name, or as pairs where a name may be there twice.
        rules: What holds for all channels.
        proxies: ``None`` where there can't be any: then a namespace that relies on one gets a warning.
        has_shared_poll_secret: Whether ``shared_poll.hmac_secret_key`` is set.
        personal_channel: Refers to a namespace.

    """

    without_namespace: ChannelOptions = field(default_factory=ChannelOptions)
    namespaces: Mapping[str, ChannelOptions] | Sequence[tuple[str, ChannelOptions]] = ()
    rules: ChannelRules = field(default_factory=ChannelRules)
    proxies: Proxies | None = None
    has_shared_poll_secret: bool = True
    personal_channel: PersonalChannel = field(default_factory=PersonalChannel)

    def named(self) -> list[tuple[str, ChannelOptions]]:
        """Return the namespaces as pairs."""
        pairs = self.namespaces
        return list(pairs.items() if isinstance(pairs, Mapping) else pairs)


def validate(candidate: Candidate) -> list[Problem]:
    """Return all problems and warnings; the candidate may become a table if none is a problem."""
    named = candidate.named()
    found = [*_check_names(named, candidate.rules), *_check_rules(candidate.rules)]
    by_name = {**dict(named), "": candidate.without_namespace}
    for name, options in [("", candidate.without_namespace), *named]:
        checks = _NamespaceChecks(options, candidate, by_name)
        found += [Problem(name, where, message) for where, message in checks.problems()]
        found += [
            Problem(name, where, message, is_warning=True) for where, message in checks.warnings()
        ]
    return found + list(_check_personal_channel(candidate.personal_channel, by_name))


def _check_names(
    named: Sequence[tuple[str, ChannelOptions]], rules: ChannelRules
) -> Iterator[Problem]:
    boundary, prefix = rules.namespace_boundary, rules.private_prefix
    for name, count in Counter(name for name, _ in named).items():
        if not is_namespace_name(name):
            message = "must be two or more of ASCII letters, digits, '-', '_' and '.'"
            yield Problem(name, "name", message)
        if count > 1:
            yield Problem(name, "name", "there is another namespace of this name")
        if (boundary and boundary in name) or (prefix and name.startswith(prefix)):
            message = "no channel can be in this namespace: its name has a special character in it"
            yield Problem(name, "name", message, is_warning=True)


def _check_rules(rules: ChannelRules) -> Iterator[Problem]:
    if rules.publication_data_format not in DATA_FORMATS:
        message = _one_of(rules.publication_data_format, DATA_FORMATS)
        yield Problem("", "channel.publication_data_format", message)


def _check_personal_channel(
    personal: PersonalChannel, by_name: Mapping[str, ChannelOptions]
) -> Iterator[Problem]:
    if not personal.enabled:
        return
    options = by_name.get(personal.namespace)
    if options is None:
        message = f"there is no namespace {personal.namespace!r}"
        yield Problem("", f"{_PERSONAL}.personal_channel_namespace", message)
    elif personal.single_connection and not options.presence:
        where = (
            f"namespace {personal.namespace!r}"
            if personal.namespace
            else "channels without a namespace"
        )
        yield Problem("", f"{_PERSONAL}.single_connection", f"needs presence in {where}")


def _one_of(value: str, allowed: Collection[str]) -> str:
    listed = ", ".join(name or "empty" for name in allowed)
    return f"unknown value {value!r}, expected one of: {listed}"


_Found = Iterator[tuple[str, str]]  # (field, message)


@dataclass(frozen=True, slots=True)
class _NamespaceChecks:
    """The checks of one namespace; each yields ``(field, message)``."""

    options: ChannelOptions
    candidate: Candidate
    by_name: Mapping[str, ChannelOptions]

    def problems(self) -> _Found:
        yield from self._values()
        yield from self._durations()
        yield from self._history()
        yield from self._batches()
        yield from self._regex()
        yield from self._proxies()
        yield from self._map()
        yield from self._map_pages()
        yield from self._map_presence()
        yield from self._shared_poll()

    def warnings(self) -> _Found:
        yield from self._useless_streams()
        yield from self._useless_bandwidth()
        yield from self._useless_access()
        yield from self._useless_in_maps()
        yield from self._not_supported()

    # --- problems ---

    def _values(self) -> _Found:
        options = self.options
        known = (
            ("force_recovery_mode", options.force_recovery_mode, RECOVERY_MODES),
            ("publication_data_format", options.publication_data_format, DATA_FORMATS),
            ("subscription_type", options.subscription_type, SUBSCRIPTION_TYPES),
            ("map.mode", options.map.mode, MAP_MODES),
            ("map.client_key", options.map.client_key, MAP_CLIENT_KEYS),
            ("shared_poll.mode", options.shared_poll.mode, SHARED_POLL_MODES),
        )
        for where, value, allowed in known:
            if value not in allowed:
                yield where, _one_of(value, allowed)
        for value in options.allowed_delta_types:
            if value not in DELTA_TYPES:
                yield "allowed_delta_types", _one_of(value, DELTA_TYPES)

    def _durations(self) -> _Found:
        options = self.options
        durations = {
            "history_ttl": options.history_ttl,
            "history_meta_ttl": options.history_meta_ttl,
            "batch_max_delay": options.batch_max_delay,
            "client_publish_debounce_interval": options.client_publish_debounce_interval,
            "map.key_ttl": options.map.key_ttl,
            "map.stream_ttl": options.map.stream_ttl,
            "map.meta_ttl": options.map.meta_ttl,
            "map.subscribe_catch_up_timeout": options.map.subscribe_catch_up_timeout,
            "shared_poll.refresh_interval": options.shared_poll.refresh_interval,
            "shared_poll.channel_shutdown_delay": options.shared_poll.channel_shutdown_delay,
            "shared_poll.track_expired_extra_delay": options.shared_poll.track_expired_extra_delay,
            "shared_poll.backpressure_max_interval": options.shared_poll.backpressure_max_interval,
            "shared_poll.notification.batch_max_delay": (
                options.shared_poll.notification.batch_max_delay
            ),
        }
        for where, seconds in durations.items():
            if not math.isfinite(seconds):
                yield where, "must be a finite duration"
            elif seconds < 0 and where not in _MAY_BE_NEGATIVE:
                yield where, "must not be negative"
            elif 0 < seconds < _SHORTEST_DURATION:
                yield where, "must be at least 1ms"
            elif where in ("history_ttl", "history_meta_ttl") and seconds != int(seconds):
                yield where, "must be a whole number of seconds"

    def _history(self) -> _Found:
        options = self.options
        if options.history_size and not options.history_ttl:
            yield "history_ttl", "must be set together with history_size"
        if options.history_ttl and not options.history_size:
            yield "history_size", "must be set together with history_ttl"
        meta_ttl = options.history_meta_ttl or self.candidate.rules.history_meta_ttl
        if meta_ttl < options.history_ttl:
            if options.history_meta_ttl:
                yield (
                    "history_meta_ttl",
                    f"must not be shorter than history_ttl ({options.history_ttl:g}s)",
                )
            else:
                yield (
                    "history_ttl",
                    f"must not be longer than channel.history_meta_ttl ({meta_ttl:g}s)",
                )
        if options.force_recovery and not options.has_history:
            yield "force_recovery", "needs history: history_size and history_ttl"
        if options.auto_cache_recover:
            if not options.force_recovery:
                yield "auto_cache_recover", "needs force_recovery"
            if options.force_recovery_mode != "cache":
                yield "auto_cache_recover", "needs force_recovery_mode 'cache'"

    def _batches(self) -> _Found:
        options = self.options
        if options.batch_max_size < 0:
            yield "batch_max_size", "must not be negative"
        if not options.batch_flush_latest:
            return
        if not options.has_batches:
            yield "batch_flush_latest", "needs batch_max_size or batch_max_delay"
        if options.allowed_delta_types:
            yield "batch_flush_latest", "excludes allowed_delta_types: a patch needs the one before"
        if options.type_number == STREAM_TYPE and options.force_recovery_mode != "cache":
            counted = [name for name in _COUNTING if getattr(options, name)]
            if counted:
                message = f"excludes {' and '.join(counted)}: what is left out would be missing"
                yield "batch_flush_latest", message

    def _regex(self) -> _Found:
        if self.options.channel_regex:
            try:
                ChannelPattern(self.options.channel_regex)
            except PatternError as error:
                yield "channel_regex", f"is no regular expression of Go's dialect: {error}"

    def _proxy_uses(self) -> Iterator[tuple[str, str, bool, str]]:
        """Yield ``(kind, option without its ending, is enabled, name)``."""
        options = self.options
        yield (
            "subscribe",
            "subscribe_proxy",
            options.subscribe_proxy_enabled,
            options.subscribe_proxy_name,
        )
        yield "publish", "publish_proxy", options.publish_proxy_enabled, options.publish_proxy_name
        yield (
            "sub_refresh",
            "sub_refresh_proxy",
            options.sub_refresh_proxy_enabled,
            options.sub_refresh_proxy_name,
        )
        yield (
            "subscribe_stream",
            "subscribe_stream_proxy",
            options.subscribe_stream_proxy_enabled,
            options.subscribe_stream_proxy_name,
        )
        yield (
            "cache_empty",
            "cache_empty_proxy",
            options.cache_empty_proxy_enabled,
            options.cache_empty_proxy_name,
        )
        maps = options.map
        yield (
            "map_publish",
            "map.publish_proxy",
            maps.publish_proxy_enabled,
            maps.publish_proxy_name,
        )
        yield "map_remove", "map.remove_proxy", maps.remove_proxy_enabled, maps.remove_proxy_name

    def _proxies(self) -> _Found:
        options = self.options
        if options.subscribe_stream_proxy_enabled:
            others = {
                "subscribe_proxy_enabled": options.subscribe_proxy_enabled,
                "publish_proxy_enabled": options.publish_proxy_enabled,
                "sub_refresh_proxy_enabled": options.sub_refresh_proxy_enabled,
            }
            clashing = [name for name, is_enabled in others.items() if is_enabled]
            if clashing:
                yield "subscribe_stream_proxy_enabled", f"excludes {' and '.join(clashing)}"
        proxies = self.candidate.proxies
        if proxies is None:
            return
        for kind, prefix, is_enabled, name in self._proxy_uses():
            yield from self._proxy(
                proxies, kind, name, f"{prefix}_name", f"{prefix}_enabled", is_enabled
            )

    def _proxy(
        self,
        proxies: Proxies,
        kind: str,
        name: str,
        name_field: str,
        use_field: str,
        is_enabled: bool,
    ) -> _Found:
        if name != DEFAULT_PROXY:
            if problem := proxies.problem(kind, name):
                yield name_field, problem
        elif is_enabled and kind not in proxies.defaults and proxies.asks(kind):
            yield use_field, f"channel.proxy.{kind} needs an endpoint and a timeout"

    def _map(self) -> _Found:
        options, maps = self.options, self.options.map
        if options.is_map and not maps.mode:
            yield "map.mode", "is required for the map types"
        if maps.mode in ("ephemeral", "recoverable") and maps.key_ttl <= 0:
            yield "map.key_ttl", f"is required in mode {maps.mode}"
        if maps.mode == "persistent":
            yield from self._persistent_map(maps)
        if maps.mode == "ephemeral":
            for where in ("stream_size", "stream_ttl", "meta_ttl"):
                if getattr(maps, where):
                    yield f"map.{where}", "must be 0 in mode ephemeral, which has no stream"
        elif 0 < maps.meta_ttl < (maps.stream_ttl or _DEFAULT_MAP_STREAM_TTL):
            limit = maps.stream_ttl or _DEFAULT_MAP_STREAM_TTL
            yield "map.meta_ttl", f"must not be shorter than map.stream_ttl ({limit:g}s)"
        if maps.mode == "recoverable" and 0 < maps.meta_ttl < maps.key_ttl:
            yield "map.meta_ttl", f"must not be shorter than map.key_ttl ({maps.key_ttl:g}s)"
        if maps.remove_client_on_unsubscribe and not options.is_map:
            yield "map.remove_client_on_unsubscribe", "needs one of the map types"
        if maps.client_key and (maps.publish_proxy_enabled or maps.remove_proxy_enabled):
            yield (
                "map.client_key",
                "excludes a publish or remove proxy, which decides on the key itself",
            )
        if maps.stream_size < 0:
            yield "map.stream_size", "must not be negative"

    def _persistent_map(self, maps: MapOptions) -> _Found:
        kind = self.options.subscription_type
        if maps.key_ttl:
            yield "map.key_ttl", "must be 0 in mode persistent, whose keys never expire"
        if maps.meta_ttl:
            yield "map.meta_ttl", "must be 0 in mode persistent, which never expires"
        if kind in ("map_clients", "map_users"):
            yield "map.mode", f"persistent is impossible with {kind}: its keys must expire"

    def _map_pages(self) -> _Found:
        maps = self.options.map
        sizes = {
            "min_page_size": maps.min_page_size,
            "default_page_size": maps.default_page_size,
            "max_page_size": maps.max_page_size,
            "live_transition_max_publication_limit": maps.live_transition_max_publication_limit,
        }
        negative = [where for where, size in sizes.items() if size < 0]
        for where in negative:
            yield f"map.{where}", "must not be negative"
        if negative:
            return
        smallest = maps.min_page_size or MAP_MIN_PAGE_SIZE
        default = maps.default_page_size or MAP_PAGE_SIZE
        largest = maps.max_page_size or MAP_MAX_PAGE_SIZE
        if not smallest <= default <= largest:
            message = f"must be from min_page_size to max_page_size, {smallest} to {largest}, and is {default}"
            yield "map.default_page_size", message

    def _map_presence(self) -> _Found:
        options, rules = self.options, self.candidate.rules
        prefixes = (
            ("map_clients", options.map_clients_presence_channel_prefix),
            ("map_users", options.map_users_presence_channel_prefix),
        )
        for kind, prefix in prefixes:
            if not prefix:
                continue
            where = f"{kind}_presence_channel_prefix"
            if rules.namespace_boundary and rules.namespace_boundary not in prefix:
                yield where, f"must name a namespace and end like 'name{rules.namespace_boundary}'"
                continue
            name = split_name(prefix, rules).namespace
            target = self.by_name.get(name)
            if target is None:
                yield where, f"there is no namespace {name!r}"
            elif target.subscription_type != kind:
                yield where, f"namespace {name!r} is not of type {kind}"

    def _shared_poll(self) -> _Found:
        options, poll = self.options, self.options.shared_poll
        counts = {
            "refresh_batch_size": poll.refresh_batch_size,
            "max_keys_per_connection": poll.max_keys_per_connection,
            "notification.batch_max_size": poll.notification.batch_max_size,
        }
        for where, count in counts.items():
            if count < 0:
                yield f"shared_poll.{where}", "must not be negative"
        if options.subscription_type != "shared_poll":
            return
        if not self.candidate.has_shared_poll_secret:
            yield "subscription_type", "shared_poll needs shared_poll.hmac_secret_key"
        if poll.publish_enabled and poll.mode != "versioned":
            yield "shared_poll.publish_enabled", "needs shared_poll.mode 'versioned'"
        slowest = poll.backpressure_max_interval
        if slowest and slowest < poll.refresh_interval:
            message = "must not be shorter than shared_poll.refresh_interval"
            yield "shared_poll.backpressure_max_interval", message
        proxies = self.candidate.proxies
        if proxies is not None:
            name = poll.proxy_name or DEFAULT_PROXY
            where = "shared_poll.proxy_name"
            yield from self._proxy(
                proxies, "shared_poll_refresh", name, where, where, is_enabled=True
            )

    # --- warnings ---

    def _useless_streams(self) -> _Found:
        options = self.options
        if not options.has_history:
            for where in ("force_positioning", "allow_positioning", "allow_recovery"):
                if getattr(options, where):
                    yield where, "has no use without history: positions never advance"
        if options.history_size < 0 and options.history_ttl:
            yield "history_size", "a negative size switches history off"
        if options.cache_empty_proxy_enabled and options.force_recovery_mode != "cache":
            yield "cache_empty_proxy_enabled", "has no effect without force_recovery_mode 'cache'"
        if options.delta_publish and not options.allowed_delta_types:
            yield "delta_publish", "has no effect without allowed_delta_types"
        if options.allowed_delta_types and not options.delta_publish:
            message = "without delta_publish there are deltas only where an API call asks for them"
            yield "allowed_delta_types", message
        if options.allow_tags_filter and options.allowed_delta_types:
            yield "allow_tags_filter", "a subscription can't have both a tags filter and deltas"
        if options.force_push_join_leave and not options.join_leave:
            yield "force_push_join_leave", "has no effect without join_leave"

    def _useless_bandwidth(self) -> _Found:
        options = self.options
        if options.batch_max_size > 0 and not options.batch_max_delay:
            message = "without batch_max_delay the last messages may wait for ever"
            yield "batch_max_size", message
        if options.keep_latest_publication:
            if options.type_number != STREAM_TYPE:
                yield "keep_latest_publication", "has no effect on other types than stream"
            elif not options.allowed_delta_types:
                yield "keep_latest_publication", "has no effect without allowed_delta_types"

    def _useless_access(self) -> _Found:
        options = self.options
        pairs = (
            (options, "", ("subscribe", "publish", "history", "presence")),
            (options.map, "map.", ("publish", "remove")),
        )
        for flags, prefix, operations in pairs:
            for operation in operations:
                anonymous = f"allow_{operation}_for_anonymous"
                others = [f"allow_{operation}_for_client", f"allow_{operation}_for_subscriber"]
                others = [name for name in others if hasattr(flags, name)]
                if getattr(flags, anonymous) and not any(getattr(flags, name) for name in others):
                    yield f"{prefix}{anonymous}", f"has no effect without {' or '.join(others)}"
        for operation, is_on in (("presence", options.presence), ("history", options.has_history)):
            for who in ("client", "subscriber"):
                where = f"allow_{operation}_for_{who}"
                if getattr(options, where) and not is_on:
                    yield where, f"{operation} is off: calls are answered with 108"

    def _useless_in_maps(self) -> _Found:
        options = self.options
        if not options.is_map:
            return
        for where in ("history_size", "force_recovery", "force_positioning"):
            if getattr(options, where):
                yield where, "has no effect on maps: map.mode decides"
        for where in ("allow_publish_for_client", "allow_publish_for_subscriber"):
            if getattr(options, where):
                yield where, f"has no effect on maps: map.{where} does that"

    def _not_supported(self) -> _Found:
        proxies = self.candidate.proxies
        for kind, prefix, is_enabled, _ in self._proxy_uses():
            if is_enabled and (proxies is None or not proxies.asks(kind)):
                effect = (
                    "has no effect" if kind == "sub_refresh" else "refuses what it would decide"
                )
                yield (
                    f"{prefix}_enabled",
                    f"this proxy comes with a later version, until then it {effect}",
                )
