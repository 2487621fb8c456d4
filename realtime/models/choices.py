"""What the options of a namespace that take a word can be."""

from __future__ import annotations

from django.db import models


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
