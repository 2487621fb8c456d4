"""The project's settings, with another ASGI application."""

from __future__ import annotations

from project.settings import *  # noqa: F403


ASGI_APPLICATION = "tests.live.other_project.asgi.application"
