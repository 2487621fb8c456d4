"""The options of channels: a row per namespace, a column per option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec
from django.apps import AppConfig
from django.apps import apps as installed_apps
from django.apps.registry import Apps
from django.db import models, router
from django.db.models.signals import post_migrate
from django.db.utils import DEFAULT_DB_ALIAS
from django.dispatch import receiver

from realtime.models.choices import (
    DataFormat,
    MapClientKey,
    MapMode,
    RecoveryMode,
    SharedPollMode,
    SubscriptionType,
)
from realtime.models.fields import choice, flag, number, seconds, text
from realtime.models.revision import ConfigurationQuerySet, ConfigurationRow
from realtime.namespaces.options import ChannelOptions
from realtime.protocol.errors import ConfigError


WITHOUT_NAMESPACE = ""
"""The name of the row that configures channels without a namespace."""


def _option_columns() -> Mapping[str, str]:
    return MappingProxyType({path: path.replace(".", "_") for path in _paths(ChannelOptions)})


def _paths(options: type[msgspec.Struct]) -> Iterator[str]:
    for option in msgspec.structs.fields(options):
        if isinstance(option.type, type) and issubclass(option.type, msgspec.Struct):
            yield from (f"{option.name}.{inner}" for inner in _paths(option.type))
        else:
            yield option.name


OPTION_COLUMNS: Mapping[str, str] = _option_columns()
"""Each channel option (``presence``, ``map.key_ttl``) and the column of ``Namespace`` that keeps it (``map_key_ttl``)."""


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make objects of option paths: of ``{"map.key_ttl": 1}`` ``{"map": {"key_ttl": 1}}``."""
    document: dict[str, Any] = {}
    for path, value in settings.items():
        *groups, name = path.split(".")
        place = document
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return document


class NamespaceQuerySet(ConfigurationQuerySet["Namespace"]):
    """Namespaces; the row for channels without one stays."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """
        Delete namespaces.

        Raises:
            ProtectedError: The row for channels without a namespace is among them; nothing is deleted.

        """
        kept = list(self.filter(name=WITHOUT_NAMESPACE))
        if kept:
            raise models.ProtectedError(_CANNOT_DELETE, set(kept))
        return super().delete()


_CANNOT_DELETE = "the options of channels without a namespace cannot be deleted"
_PROXY_NAME_HELP = (
    "Which proxy is asked: <code>default</code> is the one of "
    "<code>channel.proxy</code> in the process options, other names are those of "
    "<code>proxies</code>."
)


def _proxy_name(**options: Any) -> models.CharField[str, str]:
    return text(_PROXY_NAME_HELP, default="default", **options)


class Namespace(ConfigurationRow):
    """
    The options of all channels whose name begins with ``<name>:``, or of all channels without a namespace.

    Columns are named as the options of a Centrifugo configuration file; those of its ``map`` and ``shared_poll``
    objects carry ``map_`` and ``shared_poll_`` before their name. Namespaces inherit nothing from each other.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(
        max_length=255,
        unique=True,
        blank=True,
        help_text=(
            "What stands before the first <code>:</code> of a channel's name. At least two of "
            "<code>a-z A-Z 0-9 - _ .</code> Renaming takes the options away from the channels in "
            "use: their next operation answers <code>102 unknown channel</code>."
        ),
    )

    # What is subscribed to
    subscription_type = choice(
        SubscriptionType,
        "The only type of subscription that clients may ask for. ",
    )

    # Presence, join and leave
    presence = flag(
        "Keep a list of who is subscribed to each channel. Needed for the presence and presence "
        "stats calls; costs memory in the engine for each subscriber."
    )
    join_leave = flag(
        "Publish a message when anybody subscribes to a channel or leaves it. Works without "
        "presence. Keep it off for channels with many short visits: each of them is two messages "
        "to everybody."
    )
    force_push_join_leave = flag(
        "Every subscriber receives join and leave messages. Otherwise only those who ask for them "
        "and may read presence.",
    )
    map_clients_presence_channel_prefix = text(
        "Keep presence of connections in the map channel of this prefix."
    )
    map_users_presence_channel_prefix = text(
        "Keep presence of users in the map channel of this prefix."
    )

    # History, positioning, recovery
    history_size = number(
        "How many of the latest publications of each channel are kept. 0: no history. "
        "Needs a history TTL."
    )
    history_ttl = seconds(
        "How long history is kept after the latest publication, in whole seconds, such as "
        "<code>5m</code> or <code>24h</code>. Needs a history size."
    )
    history_meta_ttl = seconds(
        "How long the position (offset and epoch) of a channel is remembered after the latest "
        "publication, in whole seconds. Empty or 0: <code>channel.history_meta_ttl</code>, 720h "
        "unless changed. Not less than the history TTL."
    )
    force_positioning = flag(
        "Every subscription is positioned: the server notices when a subscriber missed a "
        "publication and makes it subscribe anew. Needs history."
    )
    allow_positioning = flag("Subscribers may ask for positioning. Needs history.")
    force_recovery = flag(
        "Every subscriber recovers what it missed after a short disconnect. Includes positioning; "
        "needs history."
    )
    allow_recovery = flag("Subscribers may ask for recovery. Needs history.")
    force_recovery_mode = choice(
        RecoveryMode, "What recovery delivers, to all who recover, whether forced or asked for."
    )
    auto_cache_recover = flag(
        "A subscriber gets the latest publication with each subscribe, also with the first. "
        "Needs force recovery and the mode cache."
    )

    # Permissions
    allow_subscribe_for_client = flag("Any user may subscribe.")
    allow_subscribe_for_anonymous = flag("Connections without a user ID may do so, too.")
    allow_publish_for_client = flag("Any user may publish, subscribed or not.")
    allow_publish_for_subscriber = flag(
        "Users may publish to channels that they are subscribed to."
    )
    allow_publish_for_anonymous = flag(
        "What the other two grant extends to connections without a user ID."
    )
    allow_history_for_client = flag(
        "Any user may read history, subscribed or not. It also lets subscribers ask for "
        "positioning and recovery."
    )
    allow_history_for_subscriber = flag(
        "Users may read the history of channels that they are subscribed to, and ask for "
        "positioning and recovery."
    )
    allow_history_for_anonymous = flag(
        "What the other two grant extends to connections without a user ID."
    )
    allow_presence_for_client = flag(
        "Any user may see who is present, subscribed or not. It also lets subscribers ask for join "
        "and leave messages."
    )
    allow_presence_for_subscriber = flag(
        "Users may see who is present in channels that they are subscribed to, and ask for join "
        "and leave messages."
    )
    allow_presence_for_anonymous = flag(
        "What the other two grant extends to connections without a user ID."
    )
    allow_user_limited_channels = flag(
        "A <code>#</code> in a channel's name starts the list of users who may subscribe, as in "
        "<code>dialog:room#42,43</code>. Only they may, and need no other permission or token. "
        "Off: <code>#</code> is an ordinary character."
    )
    channel_regex = text(
        "The part of a channel's name after the namespace has to match this expression (RE2 "
        "syntax, searched anywhere: use <code>^</code> and <code>$</code> for the whole). Empty: "
        "any name of ASCII characters."
    )

    # Payload
    publication_data_format = choice(
        DataFormat,
        "What publications have to contain; others are refused with <code>107 bad "
        "request</code>. Holds for clients and the server API.",
    )

    # Delta compression and filters
    allowed_delta_types = models.JSONField(
        default=list,
        blank=True,
        help_text="Delta compression that subscribers may negotiate.",
    )
    delta_publish = flag(
        "All publications are sent as differences to the one before, to those who negotiated it. "
    )
    allow_tags_filter = flag(
        "Subscribers may filter publications by their tags; off: asking for a filter answers "
        "<code>107 bad request</code>."
    )
    keep_latest_publication = flag(
        "Differences also for subscribers without positioning or recovery, in channels with or without history: each "
        "server process remembers the last publication of its channels.",
        db_default=False,
    )

    # Batching and bandwidth
    batch_max_size = number(
        "Publications, joins and leaves of a channel are held back until there are so many for a subscriber, and then "
        "leave together. 0: no limit.",
        db_default=0,
    )
    batch_max_delay = seconds(
        "How long the first of them waits at most. 0 with a size: until the size is reached, which may be never.",
        db_default=0.0,
    )
    batch_flush_latest = flag(
        "Of the publications that were held back only the last one is sent. Not with positioning, recovery or deltas.",
        db_default=False,
    )
    allow_channel_compaction = flag(
        "Subscribers that can do so get a short number in place of the channel's name in every message.",
        db_default=False,
    )
    client_publish_debounce_interval = seconds(
        "Asks SDKs to publish to a channel at most once in so long: the first publication at once, then the latest one. "
        "The server does not enforce it. 0: off.",
        db_default=0.0,
    )

    # Proxies
    subscribe_proxy_enabled = flag("The application's backend decides who may subscribe.")
    subscribe_proxy_name = _proxy_name()
    publish_proxy_enabled = flag("The application's backend decides what clients may publish.")
    publish_proxy_name = _proxy_name()
    sub_refresh_proxy_enabled = flag(
        "The server asks the backend to prolong subscriptions that expire."
    )
    sub_refresh_proxy_name = _proxy_name()
    subscribe_stream_proxy_enabled = flag(
        "One gRPC stream per subscription to the backend; not together with the proxies above. "
    )
    subscribe_stream_proxy_name = _proxy_name()
    subscribe_stream_proxy_bidirectional = flag("What clients publish goes into that stream.")
    cache_empty_proxy_enabled = flag(
        "Where a subscriber recovers in cache mode and there is no publication, the backend is told, and may publish one "
        "before it answers.",
        db_default=False,
    )
    cache_empty_proxy_name = _proxy_name(db_default="default")

    # Map
    map_mode = choice(MapMode, "Required for the map types.")
    map_key_ttl = seconds(
        "How long a key lives after its latest write. Required for ephemeral and recoverable, "
        "0 for persistent."
    )
    map_stream_size = number("How many changes are kept for reconnecting subscribers. 0: 100.")
    map_stream_ttl = seconds("How long changes are kept. 0: 1m.")
    map_meta_ttl = seconds("How long the map's position is remembered. 0: derived from the others.")
    map_remove_client_on_unsubscribe = flag(
        "Remove the key that equals the client ID when that client leaves."
    )
    map_client_key = choice(MapClientKey, "Who chooses the key of a client's write.")
    map_allow_publish_for_client = flag("Any user may write keys.")
    map_allow_publish_for_subscriber = flag("Subscribers may write keys.")
    map_allow_publish_for_anonymous = flag(
        "What the other two grant extends to connections without a user ID."
    )
    map_allow_remove_for_client = flag("Any user may remove keys.")
    map_allow_remove_for_subscriber = flag("Subscribers may remove keys.")
    map_allow_remove_for_anonymous = flag(
        "What the other two grant extends to connections without a user ID."
    )
    map_publish_proxy_enabled = flag("The backend decides about client writes.")
    map_publish_proxy_name = _proxy_name()
    map_remove_proxy_enabled = flag("The backend decides about client removals.")
    map_remove_proxy_name = _proxy_name()
    map_default_page_size = number("Keys per page where the subscriber names no number. 0: 100.")
    map_min_page_size = number("The least that a subscriber may ask for. 0: 100.")
    map_max_page_size = number("The most that a subscriber may ask for. 0: 1000.")
    map_live_transition_max_publication_limit = number(
        "How many changes a subscriber may catch up with on going live. 0: the largest page."
    )
    map_subscribe_catch_up_timeout = seconds("How long loading the whole map may take. 0: 5s.")

    # Shared poll
    shared_poll_proxy_name = text("Which proxy is polled; empty: <code>default</code>.")
    shared_poll_refresh_interval = seconds("How often it is polled. 0: 10s.")
    shared_poll_refresh_batch_size = number("Keys per call. 0: 1000.")
    shared_poll_max_keys_per_connection = number("How many keys a connection may follow. 0: 5000.")
    shared_poll_mode = choice(SharedPollMode, "Whether the backend's values carry versions.")
    shared_poll_channel_shutdown_delay = seconds(
        "How long values are kept after the last follower left. 0: 1s, negative: not at all. "
    )
    shared_poll_track_expired_extra_delay = seconds(
        "Grace after the signature of followed keys expired. 0: 25s."
    )
    shared_poll_publish_enabled = flag(
        "The server API may push fresh values; needs the mode versioned."
    )
    shared_poll_keep_latest_data = flag(
        "Each server keeps the latest value of every followed key: followers who come later have it at once (with "
        "the mode versioned in the very reply), and deltas can be made.",
        db_default=False,
    )
    shared_poll_backpressure_max_interval = seconds(
        "While the backend is slow, poll it less often, down to once in this time. 0: as often as ever.",
        db_default=0.0,
    )
    shared_poll_notification_batch_max_size = number(
        "Poll keys that notifications name as soon as there are so many. 0: the value of "
        "<code>shared_poll.notification</code> in the process options.",
        db_default=0,
    )
    shared_poll_notification_batch_max_delay = seconds(
        "Poll keys that notifications name so late after the first. 0: the value of "
        "<code>shared_poll.notification</code> in the process options.",
        db_default=0.0,
    )

    objects: ClassVar[NamespaceQuerySet] = NamespaceQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        """Names are unique; "" sorts first."""

        ordering: ClassVar = ["name"]
        verbose_name = "namespace"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(name=WITHOUT_NAMESPACE)
                | models.Q(name__regex=r"^[-a-zA-Z0-9_.]{2,}$"),
                name="realtime_namespace_name",
                violation_error_message="use two or more of a-z A-Z 0-9 - _ .",
            ),
        ]

    def __str__(self) -> str:
        """Show the name."""
        return self.name or "(without namespace)"

    @property
    def is_without_namespace(self) -> bool:
        """Whether this is the row of channels that have no namespace."""
        return self.name == WITHOUT_NAMESPACE

    def to_options(self) -> ChannelOptions:
        """
        Return the options as the server uses them.

        An empty or zero column means the option's default: ``ChannelOptions`` has the effective values.

        Raises:
            ConfigError: A column holds what no form or command writes there.

        """
        set_values = {path: getattr(self, column) for path, column in OPTION_COLUMNS.items()}
        values = nested({path: value for path, value in set_values.items() if value})
        try:
            return msgspec.convert(values, ChannelOptions)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{self}: {error}") from error

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """
        Delete a namespace.

        Raises:
            ProtectedError: This is the row for channels without a namespace.

        """
        if self.is_without_namespace:
            raise models.ProtectedError(_CANNOT_DELETE, {self})
        return super().delete(using=using, keep_parents=keep_parents)


@receiver(post_migrate)
def create_without_namespace(
    sender: AppConfig, apps: Apps = installed_apps, using: str = DEFAULT_DB_ALIAS, **_: Any
) -> None:
    """Put the row for channels without a namespace back after ``flush``, which empties the table."""
    if sender.label != "realtime" or not router.allow_migrate(using, "realtime"):
        return
    try:
        model = apps.get_model("realtime", "Namespace")
    except LookupError:  # migrated down to zero
        return
    model._default_manager.using(using).get_or_create(name=WITHOUT_NAMESPACE)  # noqa: SLF001 -- the public name is typed on real models only
