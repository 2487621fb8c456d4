"""
Settings of the server that ``manage.py bench`` starts: the project's own, on a scratch database and without ``REALTIME``.

Whatever a project's settings say of its database, the benchmark must not migrate it or put its namespaces there.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from realtime.bench import DATABASE_VARIABLE, SETTINGS_VARIABLE


def _project_settings() -> dict[str, Any]:
    module = importlib.import_module(os.environ[SETTINGS_VARIABLE])
    return {name: value for name, value in vars(module).items() if name.isupper()}


globals().update(_project_settings())

DEBUG = False
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ[DATABASE_VARIABLE],
        "OPTIONS": {"timeout": 20},
    }
}
DATABASE_ROUTERS: list[str] = []
# What it runs with stands in the file that TIDEWIRE_CONFIG names.
REALTIME: dict[str, Any] = {}
