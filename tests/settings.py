"""Settings under test: those of the project, on a database in memory and without this checkout's secrets."""

from __future__ import annotations

import os


# Before the project's settings are read: a developer's own secrets and options must not reach a test.
os.environ["ENV_FILE"] = ""
for _name in [name for name in os.environ if name.startswith("TIDEWIRE_")]:
    del os.environ[_name]
os.environ.pop("DATABASE_URL", None)
os.environ.setdefault("SECRET_KEY", "a key for tests only")

from project.settings import *  # noqa: E402, F403


DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
