"""Routes of the project: the admin, and what the apps bring."""

from __future__ import annotations

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path


urlpatterns: list[URLPattern | URLResolver] = [path("admin/", admin.site.urls)]
# The API's own routes stand under `http_api.handler_prefix`, which api.urls knows.
urlpatterns += [
    path("", include(name)) for name in ("api.urls", "realtime.urls") if find_spec(name)
]
