"""The pages on which operators make API keys and revoke them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_variables

from admin_ui.changes import RecordingAdmin
from admin_ui.forms import (
    ApiKeyForm,
)
from realtime.conf.transfer import compare, state_of
from realtime.models import (
    ApiKey,
    ConfigurationChange,
)


class IsRevokedFilter(admin.SimpleListFilter):
    """Keys that are accepted, or not any more."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Name the two states."""
        return [("active", "Active"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        """Filter by the chosen state."""
        if self.value() in {"active", "revoked"}:
            return queryset.filter(revoked_at__isnull=self.value() == "active")
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(RecordingAdmin[ApiKey]):
    """API keys; a key is shown once, in the answer to the request that made it."""

    form = ApiKeyForm
    change_form_template = "admin_ui/api_key_form.html"
    list_display = ("name", "state", "key", "scope_names", "created_at", "created_by")
    list_filter = (IsRevokedFilter, "created_by")
    search_fields = ("name", "prefix")
    search_help_text = "Part of the name, or the first characters of a key."
    actions = ("revoke_selected",)
    date_hierarchy = "created_at"
    readonly_fields = ("key", "created_at", "created_by", "state", "revoked_at")

    class Media:
        """Our few rules on top of the admin's."""

        css: ClassVar = {"all": ("admin_ui/tidewire.css",)}

    @admin.display(description="key", ordering="prefix")
    def key(self, row: ApiKey) -> SafeString:
        """Show as much of the key as is known."""
        return format_html("<code>{}…</code>", row.prefix)

    @admin.display(description="may call")
    def scope_names(self, row: ApiKey) -> str:
        """Name the methods."""
        if ApiKey.ALL_METHODS in row.scopes:
            return "everything"
        return ", ".join(row.scopes) or "nothing"

    @admin.display(description="state", ordering="revoked_at")
    def state(self, row: ApiKey) -> SafeString:
        """Say whether the key is accepted."""
        if row.revoked_at is None:
            return format_html('<span class="tw-badge tw-yes">{}</span>', "active")
        return format_html('<span class="tw-badge tw-no">{}</span>', "revoked")

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Ask for what a new key needs; show the rest of one that exists."""
        asked = (None, {"fields": ("name", "scopes")})
        if obj is None:
            return [asked]
        return [
            asked,
            ("The key", {"fields": ("key", "state", "created_at", "created_by", "revoked_at")}),
        ]

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Leave revoked keys as they are."""
        if obj is not None and obj.revoked_at is not None:
            return False
        return super().has_change_permission(request, obj)

    @sensitive_variables("key")
    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Save; a new row gets its key."""
        if change:
            super().save_model(request, obj, form, change)
            return
        made, key = ApiKey.generate(obj.name, obj.scopes, request.user.get_username())
        obj.prefix, obj.digest, obj.created_by = made.prefix, made.digest, made.created_by
        super().save_model(request, obj, form, change)
        # Lives as long as the request: response_add, which gets this row and nothing else, shows it.
        obj.shown_key = key  # type: ignore[attr-defined]

    @sensitive_variables("context")
    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the key in the answer itself: no redirect, message or session carries it."""
        context = {
            **self.admin_site.each_context(request),
            "title": "API key created",
            "opts": self.opts,
            "media": self.media,
            "row": obj,
            "scope_names": self.scope_names(obj),
            "key": obj.shown_key,  # type: ignore[attr-defined]
        }
        response = TemplateResponse(request, "admin_ui/api_key_created.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def add_view(self, *args: Any, **options: Any) -> HttpResponse:
        """Offer one button: there is no page to go on to but the one with the key."""
        context = {"show_save_and_add_another": False, "show_save_and_continue": False}
        options["extra_context"] = {**(options.get("extra_context") or {}), **context}
        return super().add_view(*args, **options)

    # --- revoking ---

    def get_urls(self) -> list[URLPattern]:
        """Add the page that asks before it revokes."""
        page = self.admin_site.admin_view(self.revoke_view)
        return [path("revoke/", page, name="realtime_apikey_revoke"), *super().get_urls()]

    @admin.action(description="Revoke selected API keys", permissions=["change"])
    def revoke_selected(
        self, request: HttpRequest, queryset: QuerySet[ApiKey]
    ) -> HttpResponse | None:
        """Ask first: a key can't be brought back."""
        numbers = [str(row.pk) for row in queryset.filter(revoked_at=None)]
        if not numbers:
            self.message_user(request, "These keys were revoked before.", messages.WARNING)
            return None
        url = reverse("admin:realtime_apikey_revoke", current_app=self.admin_site.name)
        return HttpResponseRedirect(f"{url}?ids={','.join(numbers)}")

    def revoke_view(self, request: HttpRequest) -> HttpResponse:
        """Revoke the keys named by ``ids``, after a question."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        source = request.POST if request.method == "POST" else request.GET
        wanted = set(source.get("ids", "").split(","))
        # Compared here, not in SQL: what stands in a URL may be no number, or one that no column holds.
        rows = [
            row
            for row in self.get_queryset(request).filter(revoked_at=None)
            if str(row.pk) in wanted
        ]
        back = reverse("admin:realtime_apikey_changelist", current_app=self.admin_site.name)
        if not rows:
            self.message_user(request, "There is no such key to revoke.", messages.WARNING)
            return HttpResponseRedirect(back)
        if request.method == "POST":
            with transaction.atomic():
                for row in rows:
                    self._revoke(request, row)
            names = ", ".join(str(row) for row in rows)
            self.message_user(request, f"Revoked: {names}.", messages.SUCCESS)
            return HttpResponseRedirect(back)
        context = {
            **self.admin_site.each_context(request),
            "title": "Revoke API keys",
            "opts": self.opts,
            "media": self.media,
            "rows": rows,
            "ids": ",".join(str(row.pk) for row in rows),
        }
        return TemplateResponse(request, "admin_ui/api_key_revoke.html", context)

    def _revoke(self, request: HttpRequest, row: ApiKey) -> None:
        before = state_of(row)
        row.revoke()
        changes = compare(before, state_of(row))
        self.record(request, row, ConfigurationChange.Action.CHANGED, changes)
        self.log_change(request, row, "revoked")
