"""The pages that show who changed what."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from admin_ui.changes import diff_table, diff_text
from realtime.models import (
    ConfigurationChange,
)


@admin.register(ConfigurationChange)
class ConfigurationChangeAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Who changed what; nobody edits it."""

    list_display = ("at", "actor", "row", "action", "summary")
    list_display_links = ("at",)
    list_filter = ("kind", "action", "source", "actor")
    search_fields = ("row_name", "actor")
    search_help_text = "Part of a row's or a person's name."
    date_hierarchy = "at"
    list_per_page = 50
    fieldsets = (
        (None, {"fields": ("at", "actor", "source", "kind", "row_name", "action", "diff")}),
    )

    class Media:
        """Our few rules on top of the admin's."""

        css: ClassVar = {"all": ("admin_ui/tidewire.css",)}

    @admin.display(description="row", ordering="row_name")
    def row(self, record: ConfigurationChange) -> str:
        """Say what was changed."""
        return f"{record.kind} {record.row_name}"

    @admin.display(description="changes")
    def summary(self, record: ConfigurationChange) -> str:
        """Show the changes in one line."""
        text = diff_text(record.changes)
        return text if len(text) <= 120 else f"{text[:119]}…"

    @admin.display(description="changes")
    def diff(self, record: ConfigurationChange) -> str:
        """Show the changes as a table."""
        return diff_table(record.changes) or "-"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Records are made by changes."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Records stay as they are."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Records stay."""
        return False
