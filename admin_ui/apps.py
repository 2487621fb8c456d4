"""
The Django apps.

``admin_ui`` registers Tidewire's models with whatever admin site the project has. A project that has none of its own
lists ``admin_ui.apps.TidewireAdminConfig`` in place of ``django.contrib.admin``: the same admin with our name on it.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class AdminUIConfig(AppConfig):
    """Pages to edit the configuration rows."""

    name = "admin_ui"
    verbose_name = "Tidewire's admin"
    default = True


class TidewireAdminConfig(admin_apps.AdminConfig):
    """Django's admin with Tidewire's site as the default one."""

    default = False
    default_site = "admin_ui.site.TidewireAdminSite"
