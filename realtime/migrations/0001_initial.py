"""Make the tables of the configuration, and the row for channels without a namespace."""

import django.core.validators
import django.utils.timezone
from django.db import migrations, models

import realtime.models


def create_rows(apps, schema_editor):
    """Put in what always exists: channels without a namespace, with everything off, and the revision."""
    alias = schema_editor.connection.alias
    apps.get_model("realtime", "Namespace").objects.using(alias).get_or_create(name="")
    apps.get_model("realtime", "ConfigurationRevision").objects.using(alias).get_or_create(pk=1)


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "name",
                    models.CharField(
                        help_text="Who uses the key, such as <code>billing</code>.",
                        max_length=100,
                        unique=True,
                    ),
                ),
                (
                    "prefix",
                    models.CharField(
                        editable=False,
                        help_text="The first characters of the key, to recognise it by.",
                        max_length=11,
                    ),
                ),
                (
                    "digest",
                    models.CharField(
                        editable=False,
                        help_text="SHA-256 of the key, hexadecimal.",
                        max_length=64,
                        unique=True,
                    ),
                ),
                (
                    "scopes",
                    models.JSONField(
                        default=list,
                        help_text="The API methods that the key may call. Everything includes methods that are added later.",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                (
                    "created_by",
                    models.CharField(
                        blank=True,
                        editable=False,
                        help_text="Name of the user who created it.",
                        max_length=255,
                    ),
                ),
                (
                    "revoked_at",
                    models.DateTimeField(
                        blank=True,
                        editable=False,
                        help_text="Since when the key is refused. A revoked key cannot be used again.",
                        null=True,
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
                "ordering": ["name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("digest__regex", "^[0-9a-f]{64}$")),
                        name="realtime_apikey_digest",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ConfigurationChange",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="time"
                    ),
                ),
                (
                    "actor",
                    models.CharField(
                        blank=True,
                        help_text="A user's name, or the system account that ran a command.",
                        max_length=255,
                        verbose_name="who",
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        help_text="<code>admin</code>, or the command's name.", max_length=32
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[
                            ("added", "added"),
                            ("changed", "changed"),
                            ("deleted", "deleted"),
                        ],
                        max_length=16,
                        verbose_name="what",
                    ),
                ),
                ("kind", models.CharField(max_length=100, verbose_name="kind of row")),
                ("row_id", models.CharField(max_length=64, verbose_name="row ID")),
                ("row_name", models.CharField(max_length=255, verbose_name="row")),
                (
                    "changes",
                    models.JSONField(
                        default=list, help_text="A list of [option, value before, value after]."
                    ),
                ),
            ],
            options={
                "verbose_name": "configuration change",
                "ordering": ["-at", "-id"],
                "indexes": [models.Index(fields=["kind", "row_id"], name="realtime_change_of_row")],
            },
        ),
        migrations.CreateModel(
            name="ConfigurationRevision",
            fields=[
                ("id", models.SmallAutoField(primary_key=True, serialize=False)),
                (
                    "number",
                    models.BigIntegerField(
                        default=0,
                        help_text="Raised by every change of a configuration row; never goes back.",
                    ),
                ),
                (
                    "changed_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, help_text="When it was raised last."
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="realtime_revision_is_single"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Namespace",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "name",
                    models.CharField(
                        blank=True,
                        help_text="What stands before the first <code>:</code> of a channel's name. At least two of <code>a-z A-Z 0-9 - _ .</code> Renaming takes the options away from the channels in use: their next operation answers <code>102 unknown channel</code>.",
                        max_length=255,
                        unique=True,
                    ),
                ),
                (
                    "subscription_type",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "Stream (default)"),
                            ("stream", "Stream"),
                            ("map", "Map"),
                            ("map_clients", "Map of present connections"),
                            ("map_users", "Map of present users"),
                            ("shared_poll", "Shared poll"),
                        ],
                        default="",
                        help_text="The only type of subscription that clients may ask for. ",
                        max_length=32,
                    ),
                ),
                (
                    "presence",
                    models.BooleanField(
                        default=False,
                        help_text="Keep a list of who is subscribed to each channel. Needed for the presence and presence stats calls; costs memory in the engine for each subscriber.",
                    ),
                ),
                (
                    "join_leave",
                    models.BooleanField(
                        default=False,
                        help_text="Publish a message when anybody subscribes to a channel or leaves it. Works without presence. Keep it off for channels with many short visits: each of them is two messages to everybody.",
                    ),
                ),
                (
                    "force_push_join_leave",
                    models.BooleanField(
                        default=False,
                        help_text="Every subscriber receives join and leave messages. Otherwise only those who ask for them and may read presence.",
                    ),
                ),
                (
                    "map_clients_presence_channel_prefix",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Keep presence of connections in the map channel of this prefix.",
                        max_length=255,
                    ),
                ),
                (
                    "map_users_presence_channel_prefix",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Keep presence of users in the map channel of this prefix.",
                        max_length=255,
                    ),
                ),
                (
                    "history_size",
                    models.IntegerField(
                        default=0,
                        help_text="How many of the latest publications of each channel are kept. 0: no history. Needs a history TTL.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "history_ttl",
                    realtime.models.SecondsField(
                        default=0.0,
                        help_text="How long history is kept after the latest publication, in whole seconds, such as <code>5m</code> or <code>24h</code>. Needs a history size.",
                    ),
                ),
                (
                    "history_meta_ttl",
                    realtime.models.SecondsField(
                        default=0.0,
                        help_text="How long the position (offset and epoch) of a channel is remembered after the latest publication, in whole seconds. Empty or 0: <code>channel.history_meta_ttl</code>, 720h unless changed. Not less than the history TTL.",
                    ),
                ),
                (
                    "force_positioning",
                    models.BooleanField(
                        default=False,
                        help_text="Every subscription is positioned: the server notices when a subscriber missed a publication and makes it subscribe anew. Needs history.",
                    ),
                ),
                (
                    "allow_positioning",
                    models.BooleanField(
                        default=False,
                        help_text="Subscribers may ask for positioning. Needs history.",
                    ),
                ),
                (
                    "force_recovery",
                    models.BooleanField(
                        default=False,
                        help_text="Every subscriber recovers what it missed after a short disconnect. Includes positioning; needs history.",
                    ),
                ),
                (
                    "allow_recovery",
                    models.BooleanField(
                        default=False, help_text="Subscribers may ask for recovery. Needs history."
                    ),
                ),
                (
                    "force_recovery_mode",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "Stream (default)"),
                            ("stream", "Stream: everything missed, in order"),
                            ("cache", "Cache: the latest publication only"),
                        ],
                        default="",
                        help_text="What recovery delivers, to all who recover, whether forced or asked for.",
                        max_length=32,
                    ),
                ),
                (
                    "auto_cache_recover",
                    models.BooleanField(
                        default=False,
                        help_text="A subscriber gets the latest publication with each subscribe, also with the first. Needs force recovery and the mode cache.",
                    ),
                ),
                (
                    "allow_subscribe_for_client",
                    models.BooleanField(default=False, help_text="Any user may subscribe."),
                ),
                (
                    "allow_subscribe_for_anonymous",
                    models.BooleanField(
                        default=False, help_text="Connections without a user ID may do so, too."
                    ),
                ),
                (
                    "allow_publish_for_client",
                    models.BooleanField(
                        default=False, help_text="Any user may publish, subscribed or not."
                    ),
                ),
                (
                    "allow_publish_for_subscriber",
                    models.BooleanField(
                        default=False,
                        help_text="Users may publish to channels that they are subscribed to.",
                    ),
                ),
                (
                    "allow_publish_for_anonymous",
                    models.BooleanField(
                        default=False,
                        help_text="What the other two grant extends to connections without a user ID.",
                    ),
                ),
                (
                    "allow_history_for_client",
                    models.BooleanField(
                        default=False,
                        help_text="Any user may read history, subscribed or not. It also lets subscribers ask for positioning and recovery.",
                    ),
                ),
                (
                    "allow_history_for_subscriber",
                    models.BooleanField(
                        default=False,
                        help_text="Users may read the history of channels that they are subscribed to, and ask for positioning and recovery.",
                    ),
                ),
                (
                    "allow_history_for_anonymous",
                    models.BooleanField(
                        default=False,
                        help_text="What the other two grant extends to connections without a user ID.",
                    ),
                ),
                (
                    "allow_presence_for_client",
                    models.BooleanField(
                        default=False,
                        help_text="Any user may see who is present, subscribed or not. It also lets subscribers ask for join and leave messages.",
                    ),
                ),
                (
                    "allow_presence_for_subscriber",
                    models.BooleanField(
                        default=False,
                        help_text="Users may see who is present in channels that they are subscribed to, and ask for join and leave messages.",
                    ),
                ),
                (
                    "allow_presence_for_anonymous",
                    models.BooleanField(
                        default=False,
                        help_text="What the other two grant extends to connections without a user ID.",
                    ),
                ),
                (
                    "allow_user_limited_channels",
                    models.BooleanField(
                        default=False,
                        help_text="A <code>#</code> in a channel's name starts the list of users who may subscribe, as in <code>dialog:room#42,43</code>. Only they may, and need no other permission or token. Off: <code>#</code> is an ordinary character.",
                    ),
                ),
                (
                    "channel_regex",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="The part of a channel's name after the namespace has to match this expression (RE2 syntax, searched anywhere: use <code>^</code> and <code>$</code> for the whole). Empty: any name of ASCII characters.",
                        max_length=255,
                    ),
                ),
                (
                    "publication_data_format",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "As channel.publication_data_format says (default)"),
                            ("json", "JSON of any kind"),
                            ("json_object", "A JSON object"),
                            ("binary", "Anything, empty included"),
                        ],
                        default="",
                        help_text="What publications have to contain; others are refused with <code>107 bad request</code>. Holds for clients and the server API.",
                        max_length=32,
                    ),
                ),
                (
                    "allowed_delta_types",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="Delta compression that subscribers may negotiate.",
                    ),
                ),
                (
                    "delta_publish",
                    models.BooleanField(
                        default=False,
                        help_text="All publications are sent as differences to the one before, to those who negotiated it. ",
                    ),
                ),
                (
                    "allow_tags_filter",
                    models.BooleanField(
                        default=False,
                        help_text="Subscribers may filter publications by their tags; off: asking for a filter answers <code>107 bad request</code>.",
                    ),
                ),
                (
                    "subscribe_proxy_enabled",
                    models.BooleanField(
                        default=False,
                        help_text="The application's backend decides who may subscribe.",
                    ),
                ),
                (
                    "subscribe_proxy_name",
                    models.CharField(
                        blank=True,
                        default="default",
                        help_text="Which proxy is asked: <code>default</code> is the one of <code>channel.proxy</code> in the process options, other names are those of <code>proxies</code>.",
                        max_length=255,
                    ),
                ),
                (
                    "publish_proxy_enabled",
                    models.BooleanField(
                        default=False,
                        help_text="The application's backend decides what clients may publish.",
                    ),
                ),
                (
                    "publish_proxy_name",
                    models.CharField(
                        blank=True,
                        default="default",
                        help_text="Which proxy is asked: <code>default</code> is the one of <code>channel.proxy</code> in the process options, other names are those of <code>proxies</code>.",
                        max_length=255,
                    ),
                ),
                (
                    "sub_refresh_proxy_enabled",
                    models.BooleanField(
                        default=False,
                        help_text="The server asks the backend to prolong subscriptions that expire.",
                    ),
                ),
                (
                    "sub_refresh_proxy_name",
                    models.CharField(
                        blank=True,
                        default="default",
                        help_text="Which proxy is asked: <code>default</code> is the one of <code>channel.proxy</code> in the process options, other names are those of <code>proxies</code>.",
                        max_length=255,
                    ),
                ),
                (
                    "subscribe_stream_proxy_enabled",
                    models.BooleanField(
                        default=False,
                        help_text="One gRPC stream per subscription to the backend; not together with the proxies above. ",
                    ),
                ),
                (
                    "subscribe_stream_proxy_name",
                    models.CharField(
                        blank=True,
                        default="default",
                        help_text="Which proxy is asked: <code>default</code> is the one of <code>channel.proxy</code> in the process options, other names are those of <code>proxies</code>.",
                        max_length=255,
                    ),
                ),
                (
                    "subscribe_stream_proxy_bidirectional",
                    models.BooleanField(
                        default=False, help_text="What clients publish goes into that stream."
                    ),
                ),
                (
                    "map_mode",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "Not a map"),
                            ("ephemeral", "Ephemeral: keys expire, no change stream"),
                            ("recoverable", "Recoverable: keys expire, change stream"),
                            ("persistent", "Persistent: keys stay, change stream"),
                        ],
                        default="",
                        help_text="Required for the map types.",
                        max_length=32,
                    ),
                ),
                (
                    "map_key_ttl",
                    realtime.models.SecondsField(
                        default=0.0,
                        help_text="How long a key lives after its latest write. Required for ephemeral and recoverable, 0 for persistent.",
                    ),
                ),
                (
                    "map_stream_size",
                    models.IntegerField(
                        default=0,
                        help_text="How many changes are kept for reconnecting subscribers. 0: 100.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "map_stream_ttl",
                    realtime.models.SecondsField(
                        default=0.0, help_text="How long changes are kept. 0: 1m."
                    ),
                ),
                (
                    "map_meta_ttl",
                    realtime.models.SecondsField(
                        default=0.0,
                        help_text="How long the map's position is remembered. 0: derived from the others.",
                    ),
                ),
                (
                    "map_remove_client_on_unsubscribe",
                    models.BooleanField(
                        default=False,
                        help_text="Remove the key that equals the client ID when that client leaves.",
                    ),
                ),
                (
                    "map_client_key",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "The client (default)"),
                            ("client_id", "Always its client ID"),
                            ("user_id", "Always its user ID"),
                        ],
                        default="",
                        help_text="Who chooses the key of a client's write.",
                        max_length=32,
                    ),
                ),
                (
                    "map_allow_publish_for_client",
                    models.BooleanField(default=False, help_text="Any user may write keys."),
                ),
                (
                    "map_allow_publish_for_subscriber",
                    models.BooleanField(default=False, help_text="Subscribers may write keys."),
                ),
                (
                    "map_allow_publish_for_anonymous",
                    models.BooleanField(
                        default=False,
                        help_text="What the other two grant extends to connections without a user ID.",
                    ),
                ),
                (
                    "map_allow_remove_for_client",
                    models.BooleanField(default=False, help_text="Any user may remove keys."),
                ),
                (
                    "map_allow_remove_for_subscriber",
                    models.BooleanField(default=False, help_text="Subscribers may remove keys."),
                ),
                (
                    "map_allow_remove_for_anonymous",
                    models.BooleanField(
                        default=False,
                        help_text="What the other two grant extends to connections without a user ID.",
                    ),
                ),
                (
                    "map_publish_proxy_enabled",
                    models.BooleanField(
                        default=False, help_text="The backend decides about client writes."
                    ),
                ),
                (
                    "map_publish_proxy_name",
                    models.CharField(
                        blank=True,
                        default="default",
                        help_text="Which proxy is asked: <code>default</code> is the one of <code>channel.proxy</code> in the process options, other names are those of <code>proxies</code>.",
                        max_length=255,
                    ),
                ),
                (
                    "map_remove_proxy_enabled",
                    models.BooleanField(
                        default=False, help_text="The backend decides about client removals."
                    ),
                ),
                (
                    "map_remove_proxy_name",
                    models.CharField(
                        blank=True,
                        default="default",
                        help_text="Which proxy is asked: <code>default</code> is the one of <code>channel.proxy</code> in the process options, other names are those of <code>proxies</code>.",
                        max_length=255,
                    ),
                ),
                (
                    "map_default_page_size",
                    models.IntegerField(
                        default=0,
                        help_text="Keys per page where the subscriber names no number. 0: 100.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "map_min_page_size",
                    models.IntegerField(
                        default=0,
                        help_text="The least that a subscriber may ask for. 0: 100.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "map_max_page_size",
                    models.IntegerField(
                        default=0,
                        help_text="The most that a subscriber may ask for. 0: 1000.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "map_live_transition_max_publication_limit",
                    models.IntegerField(
                        default=0,
                        help_text="How many changes a subscriber may catch up with on going live. 0: the largest page.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "map_subscribe_catch_up_timeout",
                    realtime.models.SecondsField(
                        default=0.0, help_text="How long loading the whole map may take. 0: 5s."
                    ),
                ),
                (
                    "shared_poll_proxy_name",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Which proxy is polled; empty: <code>default</code>.",
                        max_length=255,
                    ),
                ),
                (
                    "shared_poll_refresh_interval",
                    realtime.models.SecondsField(
                        default=0.0, help_text="How often it is polled. 0: 10s."
                    ),
                ),
                (
                    "shared_poll_refresh_batch_size",
                    models.IntegerField(
                        default=0,
                        help_text="Keys per call. 0: 1000.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "shared_poll_max_keys_per_connection",
                    models.IntegerField(
                        default=0,
                        help_text="How many keys a connection may follow. 0: 5000.",
                        validators=[
                            django.core.validators.MinValueValidator(-2147483647),
                            django.core.validators.MaxValueValidator(2147483647),
                        ],
                    ),
                ),
                (
                    "shared_poll_mode",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "Versionless (default)"),
                            ("versionless", "Versionless"),
                            ("versioned", "Versioned"),
                        ],
                        default="",
                        help_text="Whether the backend's values carry versions.",
                        max_length=32,
                    ),
                ),
                (
                    "shared_poll_channel_shutdown_delay",
                    realtime.models.SecondsField(
                        default=0.0,
                        help_text="How long values are kept after the last follower left. 0: 1s, negative: not at all. ",
                    ),
                ),
                (
                    "shared_poll_track_expired_extra_delay",
                    realtime.models.SecondsField(
                        default=0.0,
                        help_text="Grace after the signature of followed keys expired. 0: 25s.",
                    ),
                ),
                (
                    "shared_poll_publish_enabled",
                    models.BooleanField(
                        default=False,
                        help_text="The server API may push fresh values; needs the mode versioned.",
                    ),
                ),
            ],
            options={
                "verbose_name": "namespace",
                "ordering": ["name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("name", ""), ("name__regex", "^[-a-zA-Z0-9_.]{2,}$"), _connector="OR"
                        ),
                        name="realtime_namespace_name",
                        violation_error_message="use two or more of a-z A-Z 0-9 - _ .",
                    )
                ],
            },
        ),
        migrations.RunPython(create_rows, migrations.RunPython.noop),
    ]
