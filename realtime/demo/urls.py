"""Where the demo lives; its views answer 404 unless the option ``demo`` is on."""

from __future__ import annotations

from django.urls import path

from realtime.demo import views


app_name = "realtime-demo"
urlpatterns = [
    path("", views.page, name="page"),
    path("demo/token", views.token, name="token"),
]
