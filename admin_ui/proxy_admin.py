"""The pages on which operators edit the proxies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from admin_ui.changes import RecordingAdmin
from admin_ui.fields import DurationFormField, short_duration
from admin_ui.proxy_forms import MAPS, SECRETS, ProxyForm, header_lines, label_of
from realtime.conf.proxy_rows import MASK
from realtime.models import Proxy, SecondsField


_LATER = "<strong>Stored, imported and exported, but without effect yet.</strong>"


def _tls(prefix: str) -> tuple[str | tuple[str, ...], ...]:
    return (
        (f"{prefix}_enabled", f"{prefix}_insecure_skip_verify"),
        f"{prefix}_server_name",
        f"{prefix}_server_ca_pem",
        f"{prefix}_cert_pem",
        f"{prefix}_key_pem",
        f"{prefix}_client_ca_pem",
    )


@admin.register(Proxy)
class ProxyAdmin(RecordingAdmin[Proxy]):
    """Proxies; a save is validated as the configuration of a server is."""

    form = ProxyForm
    change_form_template = "admin_ui/proxy_form.html"
    delete_confirmation_template = "admin_ui/proxy_delete_confirmation.html"
    delete_selected_confirmation_template = "admin_ui/proxy_delete_selected_confirmation.html"
    formfield_overrides: ClassVar = {SecondsField: {"form_class": DurationFormField}}
    list_display = ("name", "endpoint", "time", "kind", "used_by")
    search_fields = ("name", "endpoint")
    search_help_text = "Part of a proxy's name or endpoint."
    save_on_top = True
    fieldsets: ClassVar[Any] = [
        (None, {"fields": ("name", "endpoint", "timeout")}),
        ("HTTP", {"fields": ("http_static_headers",)}),
        (
            "TLS towards your backend",
            {
                "fields": _tls("http_tls"),
                "classes": ("collapse",),
                "description": (
                    "For <code>https</code> with an authority of your own, a client certificate, or another name "
                    "than the URL's. A public certificate needs none of it."
                ),
            },
        ),
        (
            "Events that a client causes",
            {
                "fields": (
                    "http_headers",
                    "emulated_headers",
                    "grpc_metadata",
                    ("include_connection_meta", "binary_encoding"),
                    "http_status_to_code_transforms",
                ),
                "classes": ("collapse",),
                "description": f"{_LATER} Polled keys, which are asked about, have no client.",
            },
        ),
        (
            "gRPC",
            {
                "fields": (
                    "grpc_compression",
                    "grpc_credentials_key",
                    "grpc_credentials_value",
                    "grpc_static_metadata",
                    *_tls("grpc_tls"),
                ),
                "classes": ("collapse",),
                "description": _LATER,
            },
        ),
    ]

    class Media:
        """Our few rules on top of the admin's."""

        css: ClassVar = {"all": ("admin_ui/tidewire.css",)}

    # --- list ---

    @admin.display(description="timeout", ordering="timeout")
    def time(self, row: Proxy) -> str:
        """Show the timeout as people write it."""
        return short_duration(row.timeout)

    @admin.display(description="by way of")
    def kind(self, row: Proxy) -> str:
        """Say how it is asked."""
        return row.endpoint.partition(":")[0]

    @admin.display(description="used by")
    def used_by(self, row: Proxy) -> str:
        """Name the namespaces."""
        return ", ".join(str(namespace) for namespace in row.namespaces()) or "-"

    # --- form ---

    def get_fieldsets(self, request: HttpRequest, obj: Proxy | None = None) -> Any:
        """Show readers no secret, and durations as text."""
        if obj is None or self.has_change_permission(request, obj):
            return self.fieldsets
        return [
            (title, {**options, "fields": _as_text(options["fields"])})
            for title, options in self.fieldsets
        ]

    # --- deleting ---

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Protect what a namespace names."""
        rows = list(objs)
        objects, counts, permissions, protected = super().get_deleted_objects(rows, request)
        used = [
            f"{'channels' if namespace.is_without_namespace else 'namespace'} {namespace} names {row}"
            for row in rows
            for namespace in row.namespaces()
        ]
        return objects, counts, permissions, [*protected, *used]


def _duration_text(column: str) -> Callable[[Proxy], str]:
    return lambda row: short_duration(getattr(row, column))


def _secret_text(column: str) -> Callable[[Proxy], str]:
    return lambda row: MASK if getattr(row, column) else "-"


def _pairs_text(column: str) -> Callable[[Proxy], SafeString]:
    return lambda row: format_html("<pre>{}</pre>", header_lines(getattr(row, column)) or "-")


_TEXTS: dict[str, Callable[[Proxy], str]] = {
    "timeout": _duration_text("timeout"),
    **{column: _secret_text(column) for column in SECRETS},
    **{column: _pairs_text(column) for column in MAPS},
}


def _method(column: str, show: Callable[[Proxy], str]) -> Callable[[ProxyAdmin, Proxy], str]:
    @admin.display(description=label_of(column))
    def text(_: ProxyAdmin, row: Proxy) -> str:
        return show(row)

    return text


for _column, _show in _TEXTS.items():
    setattr(ProxyAdmin, f"{_column}_text", _method(_column, _show))


def _as_text(fields: Sequence[Any]) -> list[Any]:
    return [
        tuple(_as_text(name))
        if isinstance(name, tuple)
        else f"{name}_text"
        if name in _TEXTS
        else name
        for name in fields
    ]
