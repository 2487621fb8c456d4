"""
Settings of the project.

What differs between installations comes from the environment, with defaults that are safe rather than
convenient: loopback only, ``DEBUG`` off, a secret key of its own. ``.tidewire/env`` (see ``environment.py``) is
read first; ``ENV_FILE`` names another file, and set to nothing it names none.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import dj_database_url

from project import environment


BASE_DIR = Path(__file__).resolve().parent.parent

_env_file = os.environ.get("ENV_FILE", str(BASE_DIR / ".tidewire" / "env"))
ENV_FILE = Path(_env_file) if _env_file else None
if ENV_FILE is not None:
    environment.load(ENV_FILE, os.environ)


def _flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in {"1", "t", "true", "yes", "on"}


def _words(name: str, default: str) -> list[str]:
    return os.environ.get(name, default).replace(",", " ").split()


def _secret_key() -> str:
    """Take the key from the environment, or make one and keep it so that sessions outlive a restart."""
    key = os.environ.get("SECRET_KEY", "")
    if not key:
        key = secrets.token_urlsafe(50)
        if ENV_FILE is not None:
            environment.add(ENV_FILE, {"SECRET_KEY": key})
    return key


SECRET_KEY = _secret_key()
DEBUG = _flag("DEBUG")
ALLOWED_HOSTS = _words("ALLOWED_HOSTS", "127.0.0.1 localhost [::1]")
CSRF_TRUSTED_ORIGINS = _words("CSRF_TRUSTED_ORIGINS", "")

INSTALLED_APPS = [
    "daphne",  # first: it replaces runserver by its own
    "admin_ui.apps.TidewireAdminConfig",  # django.contrib.admin under our name
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "realtime",
    "api",
    "admin_ui",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "project.static_files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# CHANNEL_LAYERS stays unset: the memory engine needs none, the Redis engine brings its own.

DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL", "") or f"sqlite:///{BASE_DIR / 'db.sqlite3'}",
        conn_max_age=60,
    ),
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Several processes share the file (server, shell, demo): readers must not wait for a writer, and a
    # writer takes its lock at the start, where the timeout is honoured, not in the middle.
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    )
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_validation = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{_validation}.UserAttributeSimilarityValidator"},
    {"NAME": f"{_validation}.MinimumLengthValidator"},
    {"NAME": f"{_validation}.CommonPasswordValidator"},
    {"NAME": f"{_validation}.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

# The path of a site under which a reverse proxy puts all of this, and which it cuts off: "/rt", say.
FORCE_SCRIPT_NAME = os.environ.get("FORCE_SCRIPT_NAME", "").rstrip("/") or None
STATIC_URL = f"{FORCE_SCRIPT_NAME or ''}/static/"
# For those who let a web server deliver the files of `collectstatic`; the process itself finds them in the apps.
STATIC_ROOT = os.environ.get("STATIC_ROOT") or None
WHITENOISE_USE_FINDERS = True

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = _flag("SECURE_COOKIES")
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE
SECURE_CONTENT_TYPE_NOSNIFF = True

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Tidewire server API",
    "DESCRIPTION": "Publish to channels and act on the connections of users.",
    # From the package of static files, so that the page asks nobody else's server.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# Process options of the server, keyed as in Centrifugo's configuration file. A file named by TIDEWIRE_CONFIG
# and variables that begin with TIDEWIRE_ override them; namespaces are edited in the admin.
REALTIME: dict[str, Any] = {
    # Where `make run` serves: what publish() in a shell or a command is posted to. TIDEWIRE_API_URL names another.
    "API_URL": "http://127.0.0.1:8000/api",
}

LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "plain"},
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "realtime": {"level": LOG_LEVEL},
        "api": {"level": LOG_LEVEL},
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        "uvicorn.error": {"level": "INFO"},
        # One line a request is more than a message server can afford; errors are logged elsewhere.
        "uvicorn.access": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
    },
}
