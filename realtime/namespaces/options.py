"""
Every channel option, with Centrifugo's names and defaults.

A namespace is one ``ChannelOptions``; nothing is inherited from another namespace, and only ``history_meta_ttl`` and
``publication_data_format`` fall back to the values in ``ChannelRules``. All values are frozen; durations are
float seconds. ``validation`` says which combinations make sense; these types accept anything.

Source: Centrifugo's channel options; of those of its commercial edition the ones that save bandwidth, for shared polls and empty caches.
"""

from __future__ import annotations

import functools

import msgspec


# How a subscribe request names the types (``SubscribeRequest.type``); "" is "stream".
SUBSCRIPTION_TYPES = {
    "": 0,
    "stream": 0,
    "map": 1,
    "map_clients": 2,
    "map_users": 3,
    "shared_poll": 4,
}
STREAM_TYPE = 0
MAP_KINDS = ("map", "map_clients", "map_users")
MAP_TYPES = frozenset(SUBSCRIPTION_TYPES[kind] for kind in MAP_KINDS)
SHARED_POLL_TYPE = 4


class _Values(msgspec.Struct, frozen=True, gc=False):
    """Base of the option sets; ``gc=False`` since none of them can refer back to itself."""


class MapOptions(_Values, frozen=True):
    """
    ``ChannelOptions.map``: for the subscription types ``map``, ``map_clients`` and ``map_users``.

    A 0 in ``stream_size``, ``stream_ttl``, ``meta_ttl``, the page sizes, ``live_transition_max_publication_limit``
    and ``subscribe_catch_up_timeout`` means automatic.
    """

    mode: str = ""  # "ephemeral", "recoverable", "persistent"
    key_ttl: float = 0.0
    stream_size: int = 0
    stream_ttl: float = 0.0
    meta_ttl: float = 0.0
    remove_client_on_unsubscribe: bool = False
    client_key: str = ""  # "", "client_id", "user_id"
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_remove_for_client: bool = False
    allow_remove_for_subscriber: bool = False
    allow_remove_for_anonymous: bool = False
    publish_proxy_enabled: bool = False
    publish_proxy_name: str = "default"
    remove_proxy_enabled: bool = False
    remove_proxy_name: str = "default"
    default_page_size: int = 0
    min_page_size: int = 0
    max_page_size: int = 0
    live_transition_max_publication_limit: int = 0
    subscribe_catch_up_timeout: float = 0.0


class NotificationOptions(_Values, frozen=True):
    """When keys of notifications are polled: as soon as there are so many, or so late; 0 is the value for all namespaces."""

    batch_max_size: int = 0
    batch_max_delay: float = 0.0


class SharedPollOptions(_Values, frozen=True):
    """``ChannelOptions.shared_poll``: for the subscription type ``shared_poll``."""

    proxy_name: str = ""  # "" is "default"
    refresh_interval: float = 10.0
    refresh_batch_size: int = 1000
    max_keys_per_connection: int = 5000
    mode: str = ""  # "" is "versionless"; "versioned"
    channel_shutdown_delay: float = 1.0  # negative: at once
    track_expired_extra_delay: float = 25.0
    publish_enabled: bool = False
    keep_latest_data: bool = False
    backpressure_max_interval: float = 0.0  # 0: the interval is not adapted
    notification: NotificationOptions = NotificationOptions()


class ChannelOptions(_Values, frozen=True):
    """The options of one namespace, or of the channels without one. By default nothing is allowed."""

    # presence, join and leave
    presence: bool = False
    join_leave: bool = False
    force_push_join_leave: bool = False
    map_clients_presence_channel_prefix: str = ""
    map_users_presence_channel_prefix: str = ""
    # history, positioning, recovery
    history_size: int = 0
    history_ttl: float = 0.0
    history_meta_ttl: float = 0.0  # 0: ``ChannelRules.history_meta_ttl``
    force_positioning: bool = False
    allow_positioning: bool = False
    force_recovery: bool = False
    allow_recovery: bool = False
    force_recovery_mode: str = ""  # "" is "stream"; "cache"
    auto_cache_recover: bool = False
    # delta, filtering, payload
    allowed_delta_types: tuple[str, ...] = ()  # of "fossil"
    delta_publish: bool = False
    allow_tags_filter: bool = False
    publication_data_format: str = ""  # "": ``ChannelRules.publication_data_format``
    # batching and bandwidth
    batch_max_size: int = 0
    batch_max_delay: float = 0.0
    batch_flush_latest: bool = False
    keep_latest_publication: bool = False
    allow_channel_compaction: bool = False
    client_publish_debounce_interval: float = 0.0
    # access
    allow_subscribe_for_client: bool = False
    allow_subscribe_for_anonymous: bool = False
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_history_for_client: bool = False
    allow_history_for_subscriber: bool = False
    allow_history_for_anonymous: bool = False
    allow_presence_for_client: bool = False
    allow_presence_for_subscriber: bool = False
    allow_presence_for_anonymous: bool = False
    allow_user_limited_channels: bool = False
    channel_regex: str = ""
    # proxies
    subscribe_proxy_enabled: bool = False
    subscribe_proxy_name: str = "default"
    publish_proxy_enabled: bool = False
    publish_proxy_name: str = "default"
    sub_refresh_proxy_enabled: bool = False
    sub_refresh_proxy_name: str = "default"
    subscribe_stream_proxy_enabled: bool = False
    subscribe_stream_proxy_name: str = "default"
    subscribe_stream_proxy_bidirectional: bool = False
    cache_empty_proxy_enabled: bool = False
    cache_empty_proxy_name: str = "default"
    # subscription type
    subscription_type: str = ""  # a key of SUBSCRIPTION_TYPES
    map: MapOptions = MapOptions()
    shared_poll: SharedPollOptions = SharedPollOptions()

    @property
    def has_history(self) -> bool:
        """Say whether publications are kept."""
        return self.history_size > 0 and self.history_ttl > 0

    @property
    def has_batches(self) -> bool:
        """Say whether messages are gathered before they are sent."""
        return self.batch_max_size > 0 or self.batch_max_delay > 0

    @property
    def is_map(self) -> bool:
        """Say whether the subscription type is one of the three map types."""
        return self.subscription_type in MAP_KINDS

    @property
    def type_number(self) -> int:
        """Return the number that a subscribe request must carry, -1 for an unknown type (nobody can ask for it)."""
        return SUBSCRIPTION_TYPES.get(self.subscription_type, -1)


class ChannelRules(_Values, frozen=True):
    """
    What holds for the channels of all namespaces (``channel.*`` of the process options).

    Each special character may be empty, which switches its feature off; ``max_length`` counts bytes of UTF-8,
    and 0 means no limit.
    """

    max_length: int = 255
    private_prefix: str = "$"
    namespace_boundary: str = ":"
    user_boundary: str = "#"
    user_separator: str = ","
    history_meta_ttl: float = 2592000.0  # 720 h
    publication_data_format: str = ""


class StreamOptions(_Values, frozen=True, cache_hash=True):
    """How a channel's publications are kept, with what is inherited filled in: the values for ``PublishOptions``."""

    history_size: int = 0
    history_ttl: float = 0.0
    history_meta_ttl: float = 0.0
    delta: bool = False

    @property
    def has_history(self) -> bool:
        """Say whether publications are kept."""
        return self.history_size > 0 and self.history_ttl > 0


class MapRules(_Values, frozen=True):
    """
    How a channel's map is kept, with what is automatic filled in.

    ``stream_size`` 0 is a map without a stream of changes (mode ``ephemeral``: no offsets, no versions). ``key_ttl`` 0
    keeps keys for ever, ``meta_ttl`` 0 the map's position.
    """

    key_ttl: float = 0.0
    stream_size: int = 0
    stream_ttl: float = 0.0
    meta_ttl: float = 0.0
    delta: bool = False

    @property
    def has_stream(self) -> bool:
        """Say whether changes have offsets and can be caught up with."""
        return self.stream_size > 0


_MAP_STREAM_SIZE = 100
_MAP_STREAM_TTL = 60.0


def map_rules(options: ChannelOptions) -> MapRules:
    """Work out how the maps of a namespace are kept; of one that is no map's it means nothing."""
    maps = options.map
    if maps.mode == "ephemeral":
        return MapRules(key_ttl=maps.key_ttl, delta=options.delta_publish)
    stream_ttl = maps.stream_ttl or _MAP_STREAM_TTL
    is_persistent = maps.mode == "persistent"
    return MapRules(
        key_ttl=0.0 if is_persistent else maps.key_ttl,
        stream_size=maps.stream_size or _MAP_STREAM_SIZE,
        stream_ttl=stream_ttl,
        meta_ttl=0.0 if is_persistent else maps.meta_ttl or max(10 * stream_ttl, maps.key_ttl),
        delta=options.delta_publish,
    )


MAP_PAGE_SIZE = 100
MAP_MIN_PAGE_SIZE = 100
MAP_MAX_PAGE_SIZE = 1000
_MAP_CATCH_UP_TIMEOUT = 5.0


class MapPaging(_Values, frozen=True):
    """
    How clients load a map, with what is automatic filled in.

    Sizes count keys or changes, ``catch_up_timeout`` is seconds from the first page to the last, and a negative one is
    no limit. ``live_limit`` is how many changes a client that goes live may have missed.
    """

    default_size: int = MAP_PAGE_SIZE
    min_size: int = MAP_MIN_PAGE_SIZE
    max_size: int = MAP_MAX_PAGE_SIZE
    live_limit: int = MAP_MAX_PAGE_SIZE
    catch_up_timeout: float = _MAP_CATCH_UP_TIMEOUT

    def size(self, limit: int) -> int:
        """Return how much a request for ``limit`` gets; 0 and less ask for the default."""
        return min(max(limit if limit > 0 else self.default_size, self.min_size), self.max_size)


@functools.lru_cache(maxsize=256)
def map_paging(maps: MapOptions) -> MapPaging:
    """Work out how a namespace's maps are loaded."""
    max_size = maps.max_page_size or MAP_MAX_PAGE_SIZE
    return MapPaging(
        default_size=maps.default_page_size or MAP_PAGE_SIZE,
        min_size=maps.min_page_size or MAP_MIN_PAGE_SIZE,
        max_size=max_size,
        live_limit=maps.live_transition_max_publication_limit or max_size,
        catch_up_timeout=maps.subscribe_catch_up_timeout or _MAP_CATCH_UP_TIMEOUT,
    )
