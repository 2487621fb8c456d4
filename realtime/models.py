"""
The operator's configuration as rows: namespaces, proxies, API keys, and what was changed by whom.

Nothing here is traffic: publications, presence and connections live in the engine. The rows are read by
``realtime.conf.snapshot`` alone, which makes immutable tables of them; no other code of the server asks the ORM.

Every write of a configuration row, single or in bulk, raises the number of the one ``ConfigurationRevision`` in the
same transaction, and announces it with ``configuration_changed`` after the commit. Two writers wait for each other on
that row, so numbers are committed in ascending order.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

import msgspec
from django.apps import AppConfig
from django.apps import apps as installed_apps
from django.apps.registry import Apps
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, router, transaction
from django.db.models.signals import post_migrate, post_save
from django.db.utils import DEFAULT_DB_ALIAS
from django.dispatch import Signal, receiver
from django.utils import timezone

from realtime.namespaces.options import ChannelOptions
from realtime.protocol.errors import ConfigError


Row = TypeVar("Row", bound=models.Model)

configuration_changed = Signal()
"""
Sent after a commit that changed configuration rows, with ``revision: int``; the sender is ``ConfigurationRevision``.

It comes once per write, so a transaction of many writes sends it many times, each time with the revision of that write:
receivers compare with what they have.
"""

WITHOUT_NAMESPACE = ""
"""The name of the row that configures channels without a namespace."""

MAX_NUMBER = 2**31 - 1
"""The largest value of a number among the options."""

API_KEY_PREFIX = "tw_"
API_KEY_BYTES = 32
VISIBLE_KEY_CHARACTERS = (
    11  # "tw_" and 8 of 43 characters: enough to recognise a key, 208 bits stay unknown
)


class ConfigurationRevision(models.Model):
    """The one row that says which state of the configuration is in the database."""

    id = models.SmallAutoField(primary_key=True)
    number = models.BigIntegerField(
        default=0, help_text="Raised by every change of a configuration row; never goes back."
    )
    changed_at = models.DateTimeField(default=timezone.now, help_text="When it was raised last.")

    ONLY: ClassVar[int] = 1

    class Meta:
        """One row at most."""

        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(id=1), name="realtime_revision_is_single")
        ]

    def __str__(self) -> str:
        """Show the number."""
        return str(self.number)

    @classmethod
    def bump(cls, using: str = DEFAULT_DB_ALIAS) -> int:
        """
        Raise the number inside the caller's transaction, and announce it after the commit.

        Returns:
            The new number.

        """
        with transaction.atomic(using=using):
            rows = cls.objects.using(using)
            values = {"number": models.F("number") + 1, "changed_at": timezone.now()}
            if not rows.filter(pk=cls.ONLY).update(**values):  # the migration's row is lost
                rows.get_or_create(pk=cls.ONLY)
                rows.filter(pk=cls.ONLY).update(**values)
            number: int = rows.values_list("number", flat=True).get(pk=cls.ONLY)
            # Robust: a receiver that fails must not make a save that is already committed look failed.
            transaction.on_commit(
                lambda: configuration_changed.send_robust(sender=cls, revision=number),
                using=using,
            )
        return number


class ConfigurationQuerySet(models.QuerySet[Row]):
    """Bulk writes that raise the revision like single ones."""

    def update(self, **values: Any) -> int:
        """Update rows and raise the revision, if any row was hit."""
        with transaction.atomic(using=self.db):
            hit = super().update(**values)
            if hit:
                ConfigurationRevision.bump(self.db)
        return hit

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete rows and raise the revision, if any row was hit."""
        with transaction.atomic(using=self.db):
            deleted = super().delete()
            if deleted[0]:
                ConfigurationRevision.bump(self.db)
        return deleted

    def bulk_create(self, objs: Iterable[Row], *args: Any, **options: Any) -> list[Row]:
        """Insert rows and raise the revision, if there were any."""
        with transaction.atomic(using=self.db):
            made = super().bulk_create(objs, *args, **options)
            if made:
                ConfigurationRevision.bump(self.db)
        return made


class ConfigurationRow(models.Model):
    """A row whose writing raises the revision."""

    class Meta:
        """No table of its own."""

        abstract = True

    def save(self, *args: Any, using: str | None = None, **options: Any) -> None:
        """Save and raise the revision in one transaction."""
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            super().save(*args, using=using, **options)
            ConfigurationRevision.bump(using)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete and raise the revision in one transaction."""
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            deleted = super().delete(using=using, keep_parents=keep_parents)
            ConfigurationRevision.bump(using)
        return deleted


class SecondsField(models.FloatField):  # type: ignore[type-arg]
    """
    A duration as float seconds.

    The column is a number on every database, so that rows read into float seconds without conversion; people enter and
    read ``1h30m``: the admin gives the field a form field of its own.
    """


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


class RecoveryMode(models.TextChoices):
    """How a reconnecting subscriber catches up."""

    DEFAULT = "", "Stream (default)"
    STREAM = "stream", "Stream: everything missed, in order"
    CACHE = "cache", "Cache: the latest publication only"


class DataFormat(models.TextChoices):
    """What a publication's payload has to be."""

    INHERIT = "", "As channel.publication_data_format says (default)"
    JSON = "json", "JSON of any kind"
    JSON_OBJECT = "json_object", "A JSON object"
    BINARY = "binary", "Anything, empty included"


class SubscriptionType(models.TextChoices):
    """What clients subscribe to in a namespace."""

    DEFAULT = "", "Stream (default)"
    STREAM = "stream", "Stream"
    MAP = "map", "Map"
    MAP_CLIENTS = "map_clients", "Map of present connections"
    MAP_USERS = "map_users", "Map of present users"
    SHARED_POLL = "shared_poll", "Shared poll"


class MapMode(models.TextChoices):
    """How long a map's keys live and whether its changes form a stream."""

    UNSET = "", "Not a map"
    EPHEMERAL = "ephemeral", "Ephemeral: keys expire, no change stream"
    RECOVERABLE = "recoverable", "Recoverable: keys expire, change stream"
    PERSISTENT = "persistent", "Persistent: keys stay, change stream"


class MapClientKey(models.TextChoices):
    """Who chooses the key of a client's map write."""

    FREE = "", "The client (default)"
    CLIENT_ID = "client_id", "Always its client ID"
    USER_ID = "user_id", "Always its user ID"


class SharedPollMode(models.TextChoices):
    """Whether the backend's values carry versions."""

    DEFAULT = "", "Versionless (default)"
    VERSIONLESS = "versionless", "Versionless"
    VERSIONED = "versioned", "Versioned"


# A column that was added later is given a db_default: older code, while it still runs, leaves it out of its rows.


def _flag(help_text: str, **options: Any) -> models.BooleanField[bool, bool]:
    return models.BooleanField(default=False, help_text=help_text, **options)


def _text(help_text: str, default: str = "") -> models.CharField[str, str]:
    return models.CharField(max_length=255, blank=True, default=default, help_text=help_text)


def _choice(choices: type[models.TextChoices], help_text: str) -> models.CharField[str, str]:
    return models.CharField(
        max_length=32, blank=True, default="", choices=choices.choices, help_text=help_text
    )


def _seconds(help_text: str, **options: Any) -> SecondsField:
    return SecondsField(default=0.0, help_text=help_text, **options)


def _number(help_text: str, **options: Any) -> models.IntegerField[int, int]:
    # The least range that a database has for the column, and the same on all of them.
    limits = [MinValueValidator(-MAX_NUMBER), MaxValueValidator(MAX_NUMBER)]
    return models.IntegerField(default=0, help_text=help_text, validators=limits, **options)


def _proxy_name() -> models.CharField[str, str]:
    return _text(_PROXY_NAME_HELP, default="default")


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
    subscription_type = _choice(
        SubscriptionType,
        "The only type of subscription that clients may ask for. ",
    )

    # Presence, join and leave
    presence = _flag(
        "Keep a list of who is subscribed to each channel. Needed for the presence and presence "
        "stats calls; costs memory in the engine for each subscriber."
    )
    join_leave = _flag(
        "Publish a message when anybody subscribes to a channel or leaves it. Works without "
        "presence. Keep it off for channels with many short visits: each of them is two messages "
        "to everybody."
    )
    force_push_join_leave = _flag(
        "Every subscriber receives join and leave messages. Otherwise only those who ask for them "
        "and may read presence.",
    )
    map_clients_presence_channel_prefix = _text(
        "Keep presence of connections in the map channel of this prefix."
    )
    map_users_presence_channel_prefix = _text(
        "Keep presence of users in the map channel of this prefix."
    )

    # History, positioning, recovery
    history_size = _number(
        "How many of the latest publications of each channel are kept. 0: no history. "
        "Needs a history TTL."
    )
    history_ttl = _seconds(
        "How long history is kept after the latest publication, in whole seconds, such as "
        "<code>5m</code> or <code>24h</code>. Needs a history size."
    )
    history_meta_ttl = _seconds(
        "How long the position (offset and epoch) of a channel is remembered after the latest "
        "publication, in whole seconds. Empty or 0: <code>channel.history_meta_ttl</code>, 720h "
        "unless changed. Not less than the history TTL."
    )
    force_positioning = _flag(
        "Every subscription is positioned: the server notices when a subscriber missed a "
        "publication and makes it subscribe anew. Needs history."
    )
    allow_positioning = _flag("Subscribers may ask for positioning. Needs history.")
    force_recovery = _flag(
        "Every subscriber recovers what it missed after a short disconnect. Includes positioning; "
        "needs history."
    )
    allow_recovery = _flag("Subscribers may ask for recovery. Needs history.")
    force_recovery_mode = _choice(
        RecoveryMode, "What recovery delivers, to all who recover, whether forced or asked for."
    )
    auto_cache_recover = _flag(
        "A subscriber gets the latest publication with each subscribe, also with the first. "
        "Needs force recovery and the mode cache."
    )

    # Permissions
    allow_subscribe_for_client = _flag("Any user may subscribe.")
    allow_subscribe_for_anonymous = _flag("Connections without a user ID may do so, too.")
    allow_publish_for_client = _flag("Any user may publish, subscribed or not.")
    allow_publish_for_subscriber = _flag(
        "Users may publish to channels that they are subscribed to."
    )
    allow_publish_for_anonymous = _flag(
        "What the other two grant extends to connections without a user ID."
    )
    allow_history_for_client = _flag(
        "Any user may read history, subscribed or not. It also lets subscribers ask for "
        "positioning and recovery."
    )
    allow_history_for_subscriber = _flag(
        "Users may read the history of channels that they are subscribed to, and ask for "
        "positioning and recovery."
    )
    allow_history_for_anonymous = _flag(
        "What the other two grant extends to connections without a user ID."
    )
    allow_presence_for_client = _flag(
        "Any user may see who is present, subscribed or not. It also lets subscribers ask for join "
        "and leave messages."
    )
    allow_presence_for_subscriber = _flag(
        "Users may see who is present in channels that they are subscribed to, and ask for join "
        "and leave messages."
    )
    allow_presence_for_anonymous = _flag(
        "What the other two grant extends to connections without a user ID."
    )
    allow_user_limited_channels = _flag(
        "A <code>#</code> in a channel's name starts the list of users who may subscribe, as in "
        "<code>dialog:room#42,43</code>. Only they may, and need no other permission or token. "
        "Off: <code>#</code> is an ordinary character."
    )
    channel_regex = _text(
        "The part of a channel's name after the namespace has to match this expression (RE2 "
        "syntax, searched anywhere: use <code>^</code> and <code>$</code> for the whole). Empty: "
        "any name of ASCII characters."
    )

    # Payload
    publication_data_format = _choice(
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
    delta_publish = _flag(
        "All publications are sent as differences to the one before, to those who negotiated it. "
    )
    allow_tags_filter = _flag(
        "Subscribers may filter publications by their tags; off: asking for a filter answers "
        "<code>107 bad request</code>."
    )
    keep_latest_publication = _flag(
        "Differences also for subscribers without positioning or recovery, in channels with or without history: each "
        "server process remembers the last publication of its channels.",
        db_default=False,
    )

    # Batching and bandwidth
    batch_max_size = _number(
        "Publications, joins and leaves of a channel are held back until there are so many for a subscriber, and then "
        "leave together. 0: no limit.",
        db_default=0,
    )
    batch_max_delay = _seconds(
        "How long the first of them waits at most. 0 with a size: until the size is reached, which may be never.",
        db_default=0.0,
    )
    batch_flush_latest = _flag(
        "Of the publications that were held back only the last one is sent. Not with positioning, recovery or deltas.",
        db_default=False,
    )
    allow_channel_compaction = _flag(
        "Subscribers that can do so get a short number in place of the channel's name in every message.",
        db_default=False,
    )
    client_publish_debounce_interval = _seconds(
        "Asks SDKs to publish to a channel at most once in so long: the first publication at once, then the latest one. "
        "The server does not enforce it. 0: off.",
        db_default=0.0,
    )

    # Proxies
    subscribe_proxy_enabled = _flag("The application's backend decides who may subscribe.")
    subscribe_proxy_name = _proxy_name()
    publish_proxy_enabled = _flag("The application's backend decides what clients may publish.")
    publish_proxy_name = _proxy_name()
    sub_refresh_proxy_enabled = _flag(
        "The server asks the backend to prolong subscriptions that expire."
    )
    sub_refresh_proxy_name = _proxy_name()
    subscribe_stream_proxy_enabled = _flag(
        "One gRPC stream per subscription to the backend; not together with the proxies above. "
    )
    subscribe_stream_proxy_name = _proxy_name()
    subscribe_stream_proxy_bidirectional = _flag("What clients publish goes into that stream.")

    # Map
    map_mode = _choice(MapMode, "Required for the map types.")
    map_key_ttl = _seconds(
        "How long a key lives after its latest write. Required for ephemeral and recoverable, "
        "0 for persistent."
    )
    map_stream_size = _number("How many changes are kept for reconnecting subscribers. 0: 100.")
    map_stream_ttl = _seconds("How long changes are kept. 0: 1m.")
    map_meta_ttl = _seconds(
        "How long the map's position is remembered. 0: derived from the others."
    )
    map_remove_client_on_unsubscribe = _flag(
        "Remove the key that equals the client ID when that client leaves."
    )
    map_client_key = _choice(MapClientKey, "Who chooses the key of a client's write.")
    map_allow_publish_for_client = _flag("Any user may write keys.")
    map_allow_publish_for_subscriber = _flag("Subscribers may write keys.")
    map_allow_publish_for_anonymous = _flag(
        "What the other two grant extends to connections without a user ID."
    )
    map_allow_remove_for_client = _flag("Any user may remove keys.")
    map_allow_remove_for_subscriber = _flag("Subscribers may remove keys.")
    map_allow_remove_for_anonymous = _flag(
        "What the other two grant extends to connections without a user ID."
    )
    map_publish_proxy_enabled = _flag("The backend decides about client writes.")
    map_publish_proxy_name = _proxy_name()
    map_remove_proxy_enabled = _flag("The backend decides about client removals.")
    map_remove_proxy_name = _proxy_name()
    map_default_page_size = _number("Keys per page where the subscriber names no number. 0: 100.")
    map_min_page_size = _number("The least that a subscriber may ask for. 0: 100.")
    map_max_page_size = _number("The most that a subscriber may ask for. 0: 1000.")
    map_live_transition_max_publication_limit = _number(
        "How many changes a subscriber may catch up with on going live. 0: the largest page."
    )
    map_subscribe_catch_up_timeout = _seconds("How long loading the whole map may take. 0: 5s.")

    # Shared poll
    shared_poll_proxy_name = _text("Which proxy is polled; empty: <code>default</code>.")
    shared_poll_refresh_interval = _seconds("How often it is polled. 0: 10s.")
    shared_poll_refresh_batch_size = _number("Keys per call. 0: 1000.")
    shared_poll_max_keys_per_connection = _number("How many keys a connection may follow. 0: 5000.")
    shared_poll_mode = _choice(SharedPollMode, "Whether the backend's values carry versions.")
    shared_poll_channel_shutdown_delay = _seconds(
        "How long values are kept after the last follower left. 0: 1s, negative: not at all. "
    )
    shared_poll_track_expired_extra_delay = _seconds(
        "Grace after the signature of followed keys expired. 0: 25s."
    )
    shared_poll_publish_enabled = _flag(
        "The server API may push fresh values; needs the mode versioned."
    )
    shared_poll_keep_latest_data = _flag(
        "Each server keeps the latest value of every followed key: followers who come later have it at once (with "
        "the mode versioned in the very reply), and deltas can be made.",
        db_default=False,
    )
    shared_poll_backpressure_max_interval = _seconds(
        "While the backend is slow, poll it less often, down to once in this time. 0: as often as ever.",
        db_default=0.0,
    )
    shared_poll_notification_batch_max_size = _number(
        "Poll keys that notifications name as soon as there are so many. 0: the value of "
        "<code>shared_poll.notification</code> in the process options.",
        db_default=0,
    )
    shared_poll_notification_batch_max_delay = _seconds(
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

    @classmethod
    def column(cls, name: str) -> models.Field[Any, Any]:
        """Return the definition of a column."""
        field = cls._meta.get_field(name)
        if not isinstance(field, models.Field):
            raise FieldDoesNotExist(name)
        return field

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


@receiver(post_save)
def announce_loaded_fixture(sender: type[models.Model], raw: bool, using: str, **_: Any) -> None:
    """Raise the revision for rows of ``loaddata``, which goes past ``save``."""
    if raw and issubclass(sender, ConfigurationRow):
        ConfigurationRevision.bump(using)


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


class ProxyQuerySet(ConfigurationQuerySet["Proxy"]):
    """Proxies; those that a namespace names stay."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """
        Delete proxies.

        Raises:
            ProtectedError: A namespace names one of them; nothing is deleted.

        """
        used: set[models.Model] = {namespace for row in self for namespace in row.namespaces()}
        if used:
            raise models.ProtectedError(_PROXY_IS_USED, used)
        return super().delete()


_PROXY_IS_USED = "a namespace names this proxy"
_PROXY_NAME_COLUMNS = [
    column for column in OPTION_COLUMNS.values() if column.endswith("proxy_name")
]


def _pem(help_text: str) -> models.TextField[str, str]:
    help_text = f"{help_text} PEM text, base64 of it, or the path of a file on each server."
    return models.TextField(blank=True, default="", help_text=help_text)


def _names(help_text: str) -> models.JSONField[Any, Any]:
    return models.JSONField(default=list, blank=True, help_text=help_text)


class Proxy(ConfigurationRow):
    """
    A backend of the application that namespaces name in their ``..._proxy_name`` options.

    Columns are named as the members of a Centrifugo proxy object, with ``_`` between the levels. Values of headers and
    metadata may refer to the environment, ``${TIDEWIRE_VAR_NAME}``; they are kept so, and filled in by each server.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(
        max_length=255,
        unique=True,
        help_text=(
            "What namespaces call it by. At least two of <code>a-z A-Z 0-9 - _ .</code>, and not "
            "<code>default</code>, which is the one of <code>channel.proxy</code> in the process options."
        ),
    )
    endpoint = models.CharField(
        max_length=2000,
        help_text=(
            "Where your backend is asked: a URL, <code>https://app.example.com/poll</code>, which is posted to "
            "exactly as it stands, or a function of this Django project, <code>python:shop.realtime.prices</code>."
        ),
    )
    timeout = SecondsField(
        default=1.0,
        help_text="How long a whole call may take, such as <code>500ms</code> or <code>2s</code>.",
    )
    http_headers = _names(
        "Names of headers of the client's request that are passed on. Events that no client causes have none."
    )
    emulated_headers = _names(
        "Names of headers that clients may make up and that are passed on: do not trust their values."
    )
    grpc_metadata = _names("Keys of a gRPC client's metadata that are passed on.")
    include_connection_meta = _flag("Requests carry what the server keeps about the connection.")
    binary_encoding = _flag("Payloads in requests are base64, for those that are not JSON.")

    http_static_headers = models.JSONField(
        "static headers",
        default=dict,
        blank=True,
        help_text=(
            "Sent with every request. Keep a secret in the environment of the servers, and refer to it: "
            "<code>Authorization: Bearer ${TIDEWIRE_VAR_BACKEND_TOKEN}</code>."
        ),
    )
    http_status_to_code_transforms = models.JSONField(
        "status to code transforms",
        default=list,
        blank=True,
        help_text=(
            "What an HTTP status other than 200 becomes for the client, as a list of <code>{status_code, to_error: "
            "{code, message, temporary}}</code> or <code>{status_code, to_disconnect: {code, reason}}</code>. Polled "
            "keys have no client to tell: there it has no effect."
        ),
    )
    http_tls_enabled = _flag(
        "Use the options below for <code>https</code>. Off: the authorities that this machine trusts."
    )
    http_tls_server_ca_pem = _pem("What your backend's certificate is verified against.")
    http_tls_server_name = _text(
        "The host name in your backend's certificate, where it is not the URL's."
    )
    http_tls_cert_pem = _pem("The certificate that the server shows to your backend.")
    http_tls_key_pem = _pem("The key of that certificate.")
    http_tls_client_ca_pem = _pem("Of no use to a client; kept for files that have it.")
    http_tls_insecure_skip_verify = _flag(
        "<strong>Insecure:</strong> believe any certificate. For development only."
    )

    grpc_tls_enabled = _flag("TLS for gRPC.")
    grpc_tls_server_ca_pem = _pem("What your backend's certificate is verified against.")
    grpc_tls_server_name = _text("The host name in your backend's certificate.")
    grpc_tls_cert_pem = _pem("The certificate that the server shows to your backend.")
    grpc_tls_key_pem = _pem("The key of that certificate.")
    grpc_tls_client_ca_pem = _pem("Of no use to a client; kept for files that have it.")
    grpc_tls_insecure_skip_verify = _flag("<strong>Insecure:</strong> believe any certificate.")
    grpc_credentials_key = _text("Metadata key of a credential that goes with each call.")
    grpc_credentials_value = _text("That credential.")
    grpc_compression = _flag("Compress calls with gzip.")
    grpc_static_metadata = models.JSONField(
        "static metadata", default=dict, blank=True, help_text="Sent with every call."
    )

    objects: ClassVar[ProxyQuerySet] = ProxyQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        """Names are unique, and none is that of the process options' own."""

        ordering: ClassVar = ["name"]
        verbose_name = "proxy"
        verbose_name_plural = "proxies"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(name__regex=r"^[-a-zA-Z0-9_.]{2,}$") & ~models.Q(name="default"),
                name="realtime_proxy_name",
                violation_error_message="use two or more of a-z A-Z 0-9 - _ . and not default",
            ),
        ]

    def __str__(self) -> str:
        """Show the name."""
        return self.name

    @classmethod
    def column(cls, name: str) -> models.Field[Any, Any]:
        """Return the definition of a column."""
        field = cls._meta.get_field(name)
        if not isinstance(field, models.Field):
            raise FieldDoesNotExist(name)
        return field

    def namespaces(self) -> models.QuerySet[Namespace]:
        """Return the namespaces that name it, for whatever event."""
        named = models.Q()
        for column in _PROXY_NAME_COLUMNS:
            named |= models.Q(**{column: self.name})
        return Namespace.objects.filter(named)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """
        Delete a proxy.

        Raises:
            ProtectedError: A namespace names it.

        """
        used: set[models.Model] = set(self.namespaces())
        if used:
            raise models.ProtectedError(_PROXY_IS_USED, used)
        return super().delete(using=using, keep_parents=keep_parents)


class ApiKeyQuerySet(ConfigurationQuerySet["ApiKey"]):
    """API keys."""

    def active(self) -> Self:
        """Those that were not revoked."""
        return self.filter(revoked_at=None)


class ApiKey(ConfigurationRow):
    """
    A key of the server API; the key itself is known to its holder only.

    The row keeps the key's SHA-256: a key is 32 random bytes, so a fast digest without salt is enough, and requests
    find their row by it.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(
        max_length=100, unique=True, help_text="Who uses the key, such as <code>billing</code>."
    )
    prefix = models.CharField(
        max_length=VISIBLE_KEY_CHARACTERS,
        editable=False,
        help_text="The first characters of the key, to recognise it by.",
    )
    digest = models.CharField(
        max_length=64, unique=True, editable=False, help_text="SHA-256 of the key, hexadecimal."
    )
    scopes = models.JSONField(
        default=list,
        help_text=(
            "The API methods that the key may call. Everything includes methods that are added later."
        ),
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(
        max_length=255, blank=True, editable=False, help_text="Name of the user who created it."
    )
    revoked_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="Since when the key is refused. A revoked key cannot be used again.",
    )

    ALL_METHODS: ClassVar[str] = "*"

    objects: ClassVar[ApiKeyQuerySet] = ApiKeyQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        """Found by digest in the snapshot, never by a query."""

        ordering: ClassVar = ["name"]
        verbose_name = "API key"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(digest__regex=r"^[0-9a-f]{64}$"), name="realtime_apikey_digest"
            ),
        ]

    def __str__(self) -> str:
        """Show the name."""
        return self.name

    def clean(self) -> None:
        """Refuse scopes that are not a list of method names."""
        super().clean()
        scopes = self.scopes
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise ValidationError({"scopes": "a list of method names is expected"})

    @classmethod
    def generate(cls, name: str, scopes: Collection[str], created_by: str = "") -> tuple[Self, str]:
        """
        Make a row for a new key.

        Args:
            name: Who will use it.
            scopes: API methods, or ``"*"`` for all.
            created_by: Name of the user, for the record.

        Returns:
            The row, not saved yet, and the key: show it once and forget it.

        """
        key = API_KEY_PREFIX + secrets.token_urlsafe(API_KEY_BYTES)
        row = cls(name=name, scopes=sorted(scopes), created_by=created_by)
        row.take(key)
        return row, key

    def take(self, key: str) -> None:
        """Keep what may be kept of a key: its prefix and its digest."""
        self.prefix = key[:VISIBLE_KEY_CHARACTERS]
        self.digest = hashlib.sha256(key.encode()).hexdigest()

    def revoke(self) -> bool:
        """
        Refuse the key from now on, on all nodes within a second.

        Returns:
            Whether it was valid until now.

        """
        if self.revoked_at is not None:
            return False
        self.revoked_at = timezone.now()
        self.save(update_fields=["revoked_at"])
        return True


class ConfigurationChange(models.Model):
    """
    Who changed which configuration row, when, and each option's value before and after.

    Names are kept as text, so that a record outlives the row and the user's account.
    """

    class Action(models.TextChoices):
        """What happened to the row."""

        ADDED = "added", "added"
        CHANGED = "changed", "changed"
        DELETED = "deleted", "deleted"

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField("time", default=timezone.now, db_index=True)
    actor = models.CharField(
        "who",
        max_length=255,
        blank=True,
        help_text="A user's name, or the system account that ran a command.",
    )
    source = models.CharField(max_length=32, help_text="<code>admin</code>, or the command's name.")
    action = models.CharField("what", max_length=16, choices=Action.choices)
    kind = models.CharField("kind of row", max_length=100)
    row_id = models.CharField("row ID", max_length=64)
    row_name = models.CharField("row", max_length=255)
    changes = models.JSONField(
        default=list, help_text="A list of [option, value before, value after]."
    )

    class Meta:
        """Newest first."""

        ordering: ClassVar = ["-at", "-id"]
        verbose_name = "configuration change"
        indexes: ClassVar = [models.Index(fields=["kind", "row_id"], name="realtime_change_of_row")]

    def __str__(self) -> str:
        """Show what happened."""
        return f"{self.kind} {self.row_name} {self.action}"
