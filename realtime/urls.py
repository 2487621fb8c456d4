"""HTTP routes of this app, for the project's ``urlpatterns``."""

from __future__ import annotations

from django.urls import include, path


urlpatterns = [path("", include("realtime.demo.urls"))]
