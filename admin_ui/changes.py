"""An admin that remembers each option's value before and after, and shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from realtime.conf.transfer import Change, compare, default_state_of, record_change, show, state_of
from realtime.models import ConfigurationChange


RowT = TypeVar("RowT", bound=models.Model)
SOURCE = "admin"
EMPTY: tuple[Any, ...] = (None, "", [])
_PER_PAGE = 50

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin
else:

    class _ModelAdmin(admin.ModelAdmin):
        """Subscriptable at run time, too."""

        def __class_getitem__(cls, _: Any) -> type[_ModelAdmin]:
            return cls


def diff_table(changes: Iterable[Change | list[Any]]) -> SafeString:
    """Show changes as a small table, for pages."""
    rows = format_html_join(
        "",
        '<tr><th scope="row">{}</th><td class="tw-old">{}</td><td class="tw-arrow">→</td>'
        '<td class="tw-new">{}</td></tr>',
        ((path, show(before), show(after)) for path, before, after in changes),
    )
    return format_html('<table class="tw-diff"><tbody>{}</tbody></table>', rows) if rows else rows


def diff_text(changes: Iterable[Change | list[Any]]) -> str:
    """Show changes in one line, for logs and lists."""
    return "; ".join(
        f"{path}: {show(before)} → {show(after)}"
        if before not in EMPTY
        else f"{path}: {show(after)}"
        for path, before, after in changes
    )


class RecordingAdmin(_ModelAdmin[RowT]):
    """
    An admin of configuration rows.

    Each change is recorded as a ``ConfigurationChange`` in its own transaction, and written to Django's log with the
    same words. The history page of a row shows the records, those of other ways to change it included.
    """

    object_history_template = "admin_ui/object_history.html"

    def save_model(
        self, request: HttpRequest, obj: RowT, form: forms.ModelForm[RowT], change: bool
    ) -> None:
        """Save, and record what changed."""
        with transaction.atomic():
            if change:
                before = state_of(self.get_queryset(request).get(pk=obj.pk))
            else:
                before = default_state_of(obj)
            super().save_model(request, obj, form, change)
            # Kept on the form for construct_change_message, which Django calls next and gives nothing else.
            form.changes = compare(before, state_of(obj))  # type: ignore[attr-defined]
            action = ConfigurationChange.Action
            self.record(
                request,
                obj,
                action.CHANGED if change else action.ADDED,
                form.changes,  # type: ignore[attr-defined]
                name=str(before["name"]) if change else "",
            )

    def delete_model(self, request: HttpRequest, obj: RowT) -> None:
        """Delete, and record what there was."""
        with transaction.atomic():
            self._record_deletion(request, obj)
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[RowT]) -> None:
        """Delete several, all or none, and record what there was."""
        with transaction.atomic():
            for row in queryset:
                self._record_deletion(request, row)
            super().delete_queryset(request, queryset)

    def _record_deletion(self, request: HttpRequest, row: RowT) -> None:
        changes = compare(state_of(row), default_state_of(row))
        self.record(request, row, ConfigurationChange.Action.DELETED, changes)

    def record(
        self,
        request: HttpRequest,
        row: models.Model,
        action: ConfigurationChange.Action,
        changes: list[Change],
        name: str = "",
    ) -> None:
        """Remember that the request's user did it."""
        told = [change for change in changes if change[0] != "name" or action == action.CHANGED]
        record_change(
            row,
            action,
            told,
            actor=request.user.get_username(),
            source=SOURCE,
            name=name,
        )

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        """Write old and new values into Django's log."""
        if add or not form.changes:
            return super().construct_change_message(request, form, formsets, add)
        return diff_text(form.changes)

    def history_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the records of a row."""
        row = self.get_object(request, object_id)
        if row is not None and not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        records = ConfigurationChange.objects.filter(kind=self.opts.verbose_name, row_id=object_id)
        page = Paginator(records, _PER_PAGE).get_page(request.GET.get("page"))
        entries = [(record, diff_table(record.changes)) for record in page]
        context = {"records": entries, "records_page": page, **(extra_context or {})}
        return super().history_view(request, object_id, extra_context=context)
