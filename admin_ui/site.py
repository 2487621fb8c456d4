"""Django's admin site under Tidewire's name."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.utils.safestring import SafeString, mark_safe


# Two waves, drawn with the colour of the text beside them, so that they fit every theme.
_LOGO = mark_safe(
    '<svg width="26" height="18" viewBox="0 0 26 18" fill="none" stroke="currentColor" stroke-width="2.5" '
    'stroke-linecap="round" aria-hidden="true" style="vertical-align:-2px;margin-right:8px">'
    '<path d="M2 6c3.5-5 7.5-5 11 0s7.5 5 11 0"/><path opacity=".55" d="M2 13c3.5-5 7.5-5 11 0s7.5 5 11 0"/></svg>'
)


class TidewireAdminSite(AdminSite):
    """The admin with our name, and tools beside the list of models."""

    site_header: Any = _LOGO + SafeString("Tidewire")
    site_title = "Tidewire"
    index_title = "Configuration"
    index_template = "admin_ui/index.html"
