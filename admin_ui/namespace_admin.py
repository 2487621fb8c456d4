"""The pages on which operators edit namespaces, and see why somebody may do something in a channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.debug import sensitive_variables

from admin_ui.changes import RecordingAdmin
from admin_ui.explain import Question, explain, features
from admin_ui.fields import DurationFormField, short_duration
from admin_ui.forms import (
    ExplainForm,
    NamespaceForm,
    label_of,
    new_errors,
    stored_options,
)
from realtime.conf.loader import get_options
from realtime.conf.snapshot import describe, load_configuration
from realtime.models import (
    OPTION_COLUMNS,
    WITHOUT_NAMESPACE,
    Namespace,
    SecondsField,
)
from realtime.namespaces.options import MAP_KINDS
from realtime.protocol.errors import ConfigError


DURATION_COLUMNS = frozenset(
    column
    for column in OPTION_COLUMNS.values()
    if isinstance(Namespace.column(column), SecondsField)
)
NOBODY = "-"
_LATER = "<strong>Stored, imported and exported, but without effect yet.</strong>"


def _columns(*paths: str | tuple[str, ...]) -> dict[str, Any]:
    return {"fields": paths}


def _group(prefix: str) -> tuple[str, ...]:
    return tuple(column for path, column in OPTION_COLUMNS.items() if path.startswith(prefix))


def _access(operation: str) -> tuple[str, ...]:
    who = ("client", "subscriber", "anonymous")
    names = [f"allow_{operation}_for_{name}" for name in who]
    return tuple(name for name in names if name in OPTION_COLUMNS)


@admin.register(Namespace)
class NamespaceAdmin(RecordingAdmin[Namespace]):
    """Namespaces; a save is validated as part of the whole configuration."""

    form = NamespaceForm
    change_form_template = "admin_ui/namespace_form.html"
    change_list_template = "admin_ui/namespace_list.html"
    delete_confirmation_template = "admin_ui/delete_confirmation.html"
    delete_selected_confirmation_template = "admin_ui/delete_selected_confirmation.html"
    formfield_overrides: ClassVar = {SecondsField: {"form_class": DurationFormField}}
    list_display = (
        "title",
        "subscribe",
        "publish",
        "history",
        "recovery",
        "presence",
        "join_leave",
    )
    list_filter = ("presence", "join_leave", "force_recovery", "allow_user_limited_channels")
    search_fields = ("name", "channel_regex")
    search_help_text = "Part of a namespace's name or of its channel_regex."
    save_on_top = True
    fieldsets: ClassVar[Any] = [
        (None, _columns("name")),
        (
            "Presence, join and leave",
            _columns("presence", "join_leave", "force_push_join_leave"),
        ),
        (
            "History and recovery",
            {
                "fields": (
                    "history_size",
                    "history_ttl",
                    "history_meta_ttl",
                    ("force_recovery", "allow_recovery"),
                    "force_recovery_mode",
                    "auto_cache_recover",
                    ("force_positioning", "allow_positioning"),
                ),
                "description": "Keep publications for those who come back, and notice gaps.",
            },
        ),
        (
            "Who may subscribe",
            {
                "fields": (_access("subscribe"), "allow_user_limited_channels", "channel_regex"),
                "description": (
                    "Whoever has a subscription token for a channel needs none of these. Channels "
                    "that begin with <code>$</code> can be had with a token only."
                ),
            },
        ),
        ("Who may publish", _columns(_access("publish"), "publication_data_format")),
        ("Who may read history", _columns(_access("history"))),
        ("Who may read presence", _columns(_access("presence"))),
        (
            "Delta compression and filters",
            {
                "fields": (
                    ("allowed_delta_types", "delta_publish"),
                    "keep_latest_publication",
                    "allow_tags_filter",
                ),
                "description": (
                    "Send what differs from the publication before, and let subscribers choose by tags. "
                    "A subscription has one or the other."
                ),
            },
        ),
        (
            "Batching and bandwidth",
            {
                "fields": (
                    ("batch_max_size", "batch_max_delay"),
                    "batch_flush_latest",
                    "allow_channel_compaction",
                    "client_publish_debounce_interval",
                ),
                "description": "Fewer and smaller messages, for channels with many of them.",
            },
        ),
        (
            "Proxies",
            {
                "fields": (
                    ("subscribe_proxy_enabled", "subscribe_proxy_name"),
                    ("publish_proxy_enabled", "publish_proxy_name"),
                    ("sub_refresh_proxy_enabled", "sub_refresh_proxy_name"),
                    (
                        "subscribe_stream_proxy_enabled",
                        "subscribe_stream_proxy_name",
                        "subscribe_stream_proxy_bidirectional",
                    ),
                    ("cache_empty_proxy_enabled", "cache_empty_proxy_name"),
                ),
                "classes": ("collapse",),
                "description": (
                    f"But for the last line: {_LATER} No backend is asked: while a subscribe, publish or stream "
                    "proxy is enabled, what it would decide is refused with <code>108 not available</code>."
                ),
            },
        ),
        (
            "Map subscriptions",
            {
                "fields": (
                    "subscription_type",
                    "map_clients_presence_channel_prefix",
                    "map_users_presence_channel_prefix",
                    *_group("map."),
                ),
                "classes": ("collapse",),
                "description": (
                    "Channels that keep a value by key: subscribers load all keys and follow what changes. The prefixes "
                    "put the subscribers of any channel down in such a map. Without effect yet are "
                    "<code>map.publish_proxy_enabled</code> and <code>map.remove_proxy_enabled</code>: what "
                    "they would decide is refused with <code>108 not available</code>."
                ),
            },
        ),
        (
            "Shared poll subscriptions",
            {
                "fields": _group("shared_poll."),
                "classes": ("collapse",),
                "description": (
                    "Clients name the keys of a channel that they follow, and each server asks the backend for all of "
                    "them together. Choose the type <code>shared_poll</code> above; it needs "
                    "<code>shared_poll.hmac_secret_key</code> in the process options."
                ),
            },
        ),
    ]

    class Media:
        """Our few rules on top of the admin's."""

        css: ClassVar = {"all": ("admin_ui/tidewire.css",)}

    # --- list ---

    @admin.display(description="namespace", ordering="name")
    def title(self, row: Namespace) -> str:
        """Show a name for the row without one, too."""
        return str(row)

    @admin.display(description="subscribe")
    def subscribe(self, row: Namespace) -> str:
        """Say who may subscribe without a token."""
        if row.subscribe_proxy_enabled or row.subscribe_stream_proxy_enabled:
            return "proxy"
        who = _who(row, "subscribe")
        if not row.allow_user_limited_channels:
            return who
        return "listed users" if who == NOBODY else f"{who}, listed users"

    @admin.display(description="publish")
    def publish(self, row: Namespace) -> str:
        """Say which clients may publish, or write keys."""
        if row.subscription_type in MAP_KINDS:
            return "proxy" if row.map_publish_proxy_enabled else _who(row, "publish", "map_")
        return "proxy" if row.publish_proxy_enabled else _who(row, "publish")

    @admin.display(description="history", ordering="history_size")
    def history(self, row: Namespace) -> str:
        """Say how much history is kept."""
        if row.history_size <= 0 or row.history_ttl <= 0:
            return "-"
        return f"{row.history_size} in {short_duration(row.history_ttl)}"

    @admin.display(description="recovery")
    def recovery(self, row: Namespace) -> str:
        """Say whether subscribers recover."""
        if row.subscription_type in MAP_KINDS:
            return "-" if row.map_mode == "ephemeral" else "always (map)"
        if row.force_recovery or row.allow_recovery:
            mode = row.force_recovery_mode or "stream"
            return f"{'always' if row.force_recovery else 'on request'} ({mode})"
        if row.force_positioning or row.allow_positioning:
            return "positions only"
        return "-"

    # --- form ---

    def get_fieldsets(self, request: HttpRequest, obj: Namespace | None = None) -> Any:
        """Leave the name out where the row has none, and show durations as text to readers."""
        fieldsets = self.fieldsets
        if obj is not None and obj.is_without_namespace:
            fieldsets = fieldsets[1:]
        is_reader = obj is not None and not self.has_change_permission(request, obj)
        return [
            (title, {**options, "fields": _as_text(options["fields"])})
            if is_reader
            else (title, options)
            for title, options in fieldsets
        ]

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any
    ) -> type[ModelForm[Namespace]]:
        """Keep the name of the row without one out of the form."""
        if obj is not None and obj.is_without_namespace:
            options["exclude"] = ("name",)
        form: type[ModelForm[Namespace]] = super().get_form(request, obj, change=change, **options)
        return form

    def save_model(self, request: HttpRequest, obj: Namespace, form: Any, change: bool) -> None:
        """Save, and show what is questionable about the configuration that was saved."""
        super().save_model(request, obj, form, change)
        for warning in form.warnings:
            messages.warning(request, f"Namespace {obj}: {warning}")

    def has_delete_permission(self, request: HttpRequest, obj: Namespace | None = None) -> bool:
        """Keep the row for channels without a namespace."""
        if obj is not None and obj.is_without_namespace:
            return False
        return super().has_delete_permission(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Protect what the rest of the configuration needs."""
        rows = list(objs)
        objects, counts, permissions, protected = super().get_deleted_objects(rows, request)
        names = {row.name for row in rows}
        if WITHOUT_NAMESPACE in names:
            protected = [*protected, "The options of channels without a namespace always exist."]
            permissions = set()
        before, _ = stored_options()
        after = {name: options for name, options in before.items() if name not in names}
        protected = [*protected, *(describe(problem) for problem in new_errors(before, after))]
        return objects, counts, permissions, protected

    # --- explain ---

    def get_urls(self) -> list[URLPattern]:
        """Add the page that explains decisions."""
        page = self.admin_site.admin_view(self.explain_view)
        return [path("explain/", page, name="realtime_namespace_explain"), *super().get_urls()]

    @sensitive_variables("form", "question")
    def explain_view(self, request: HttpRequest) -> HttpResponse:
        """Explain why a client may or may not do something."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = ExplainForm(
            request.POST if request.method == "POST" else None,
            initial={"channel": request.GET.get("channel", ""), "operation": "subscribe"},
        )
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Explain a decision",
            "opts": self.opts,
            "form": form,
            "media": self.media,
        }
        if request.method == "POST" and form.is_valid():
            context.update(self._explain(form.cleaned_data))
            # A token is a secret: it came in the body of a POST and does not go back into the page.
            shown = {**form.cleaned_data, "connection_token": "", "subscription_token": ""}
            context["form"] = ExplainForm(initial=shown)
        response = TemplateResponse(request, "admin_ui/explain.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @sensitive_variables("asked", "question")
    def _explain(self, asked: dict[str, Any]) -> dict[str, Any]:
        question = Question(
            operation=asked["operation"],
            channel=asked["channel"],
            user=asked["user"],
            connection_token=asked["connection_token"],
            subscription_token=asked["subscription_token"],
            is_subscribed=asked["is_subscribed"],
            data=asked["payload"].encode(),
        )
        options = get_options()
        try:
            table = load_configuration(options).table
            answer = explain(question, table, options, time.time())
        except ConfigError as error:
            return {"problem": str(error)}
        name = answer.channel.namespace if answer.channel else None
        row = Namespace.objects.filter(name=name).first() if name is not None else None
        return {
            "answer": answer,
            "asked": asked,
            "operation": dict(ExplainForm.OPERATIONS)[question.operation].lower(),
            "namespace": row,
            "features": features(answer.granted) if answer.granted else (),
        }


def _duration_text(column: str) -> Callable[[NamespaceAdmin, Namespace], str]:
    @admin.display(description=label_of(column))
    def show_duration(_: NamespaceAdmin, row: Namespace) -> str:
        return short_duration(getattr(row, column))

    return show_duration


# Readers see "5m", not the 300.0 of a number's read-only widget.
for _column in DURATION_COLUMNS:
    setattr(NamespaceAdmin, f"{_column}_text", _duration_text(_column))


def _as_text(fields: Sequence[Any]) -> list[Any]:
    return [
        tuple(_as_text(name))
        if isinstance(name, tuple)
        else f"{name}_text"
        if name in DURATION_COLUMNS
        else name
        for name in fields
    ]


def _who(row: Namespace, operation: str, prefix: str = "") -> str:
    """Name whom the flags of an operation let in."""
    if getattr(row, f"{prefix}allow_{operation}_for_client"):
        who = "any user"
    elif getattr(row, f"{prefix}allow_{operation}_for_subscriber", False):
        who = "subscribers"
    else:
        return NOBODY
    if getattr(row, f"{prefix}allow_{operation}_for_anonymous"):
        return "anybody" if who == "any user" else "subscribers, also anonymous"
    return who
