"""Routes that begin with a language, for a test."""

from __future__ import annotations

from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.urls import path


urlpatterns = i18n_patterns(path("office/", admin.site.urls))
