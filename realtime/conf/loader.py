"""
The process options, merged from their sources.

Later wins: defaults, ``settings.REALTIME``, the file named by ``TIDEWIRE_CONFIG``, the environment (``TIDEWIRE_*``,
where command-line flags of ``manage.py serve`` are put too). An error names the option's dotted path and the source.
What is only worth a line in the log comes back as a ``Notice``.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from realtime.conf import schema
from realtime.conf.durations import parse_duration
from realtime.conf.options import ProcessOptions
from realtime.conf.schema import ENVIRONMENT_PREFIX, Leaf, leaves
from realtime.protocol.errors import ConfigError


logger = logging.getLogger(__name__)

# What rows in the database hold: at start a file's are left alone.
DATABASE_KEYS = (
    "channel.namespaces",
    "channel.without_namespace",
    "rpc.namespaces",
    "rpc.without_namespace",
    "proxies",
    "consumers",
)
# Sections and options that do something in this version.
IMPLEMENTED = (
    "http_server.address",
    "http_server.port",
    "log.",
    "node.",
    "shutdown.",
    "pid_file",
    "client.",
    "channel.",
    "http_api.",
    "websocket.",
    "health.",
    "swagger.",
    "engine.type",
    "usage_stats.",
    "demo",
    "api_url",
    "api_key",
)
NOT_IMPLEMENTED = (
    "client.proxy.",
    "client.concurrency",
    "client.connect_code_to_unidirectional_disconnect.",
    "client.token.jwks_public_endpoint",
    "client.subscription_token.jwks_public_endpoint",
    "channel.proxy.",
    "log.file",
    "http_api.external",
)
# To leave one of these out would make the server less safe, or another one than was asked for.
REFUSED = (
    "http_server.tls",
    "http_server.internal_tls",
    "http_server.internal_port",
    "http_server.tls_autocert",
    "grpc_api.tls",
    "client.proxy.connect",
    "client.token.jwks_public_endpoint",
    "client.subscription_token.jwks_public_endpoint",
    "engine.type",
    "broker.enabled",
    "presence_manager.enabled",
    "controller.enabled",
)
_OWN_VARIABLES = frozenset({"TIDEWIRE_CONFIG"})
_FOREIGN_VARIABLE = re.compile(r"TIDEWIRE_VAR_|TIDEWIRE(?:_[A-Z0-9_]+)?_(PORT_|SERVICE_)")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for the log; ``level`` is a ``logging`` level."""

    level: int
    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The options in force and what is to be said about them."""

    options: ProcessOptions
    notices: tuple[Notice, ...]


# --- sources ------------------------------------------------------------------------------------


def read_file(path: Path) -> dict[str, Any]:
    """
    Read a configuration file: JSON, YAML or TOML by its ending.

    Raises:
        ConfigError: It cannot be read or parsed, or is no object.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        if path.suffix == ".toml":
            document: object = tomllib.loads(text)
        elif path.suffix in {".yaml", ".yml"}:
            document = yaml.safe_load(text)
        elif path.suffix == ".json":
            document = json.loads(text)
        else:
            raise ConfigError(f"{path}: expected a name that ends in .json, .yaml, .yml or .toml")
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be parsed: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected an object at the top")
    return document


def load(
    settings: Mapping[str, Any],
    environ: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """
    Merge the sources.

    Args:
        settings: ``settings.REALTIME``: nested, names in lower case; at the top also ``DEMO``, ``API_URL``, ``API_KEY``.
        environ: The process' environment.
        flags: Values by dotted path, above everything else.

    Raises:
        ConfigError: An unknown key in ``settings``, a value of the wrong form, or an option that must not be
            left out.

    """
    notices: list[Notice] = []
    given: dict[str, Any] = {}
    own = {
        key.lower() if key in {"DEMO", "API_URL", "API_KEY"} else key: value
        for key, value in settings.items()
    }
    values, unknown = _flatten(own)
    if unknown:
        raise ConfigError(f"settings.REALTIME: unknown key {unknown[0]!r}")
    _convert_all(given, values, "settings.REALTIME")
    if environ.get("TIDEWIRE_CONFIG"):
        _add_file(given, Path(environ["TIDEWIRE_CONFIG"]), notices)
    _add_environment(given, environ, notices)
    _convert_all(given, dict(flags or {}), "command line")
    _judge(given, notices)
    options = schema.build(given)
    _validate(options)
    return Loaded(options, tuple(notices))


def _add_file(given: dict[str, Any], path: Path, notices: list[Notice]) -> None:
    if not path.exists():
        notices.append(
            Notice(logging.WARNING, f"config file {path} not found, going on without it")
        )
        return
    values, unknown = _flatten(read_file(path))
    in_database = [key for key in DATABASE_KEYS if any(_is_below(path_, key) for path_ in unknown)]
    if in_database:
        notices.append(
            Notice(
                logging.INFO,
                f"{', '.join(in_database)} of {path} live in the database: manage.py importconfig brings them there",
            )
        )
    notices.extend(
        Notice(logging.WARNING, f"unknown key in configuration file: {key}")
        for key in unknown
        if not any(_is_below(key, known) for known in DATABASE_KEYS)
    )
    _convert_all(given, values, str(path))


def _add_environment(
    given: dict[str, Any], environ: Mapping[str, str], notices: list[Notice]
) -> None:
    by_variable = {leaf.env_name: leaf for leaf in leaves().values()}
    in_database = tuple(schema.env_name(key) for key in DATABASE_KEYS)
    for name in sorted(environ):
        value = environ[name]
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _OWN_VARIABLES or not value:
            continue
        leaf = by_variable.get(name)
        if leaf is not None:
            given[leaf.path] = _convert(leaf, value, f"environment variable {name}")
        elif name.startswith(in_database):
            notices.append(
                Notice(
                    logging.INFO, f"{name}: such rows live in the database (manage.py importconfig)"
                )
            )
        elif not _FOREIGN_VARIABLE.match(name):
            notices.append(Notice(logging.WARNING, f"unknown var in environment: {name}"))


def _flatten(document: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the values by dotted path, and the paths that are no options."""
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in document.items():
        path = f"{prefix}{key}"
        if path in leaves():
            values[path] = value
        elif path in schema.sections() and isinstance(value, Mapping):
            inner, strange = _flatten(value, f"{path}.")
            values.update(inner)
            unknown.extend(strange)
        else:
            unknown.append(path)
    return values, unknown


def _is_below(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")


# --- values -------------------------------------------------------------------------------------


def _convert_all(given: dict[str, Any], values: Mapping[str, Any], source: str) -> None:
    for path, value in values.items():
        if value is not None:
            given[path] = _convert(leaves()[path], value, source)


def _convert(leaf: Leaf, value: Any, source: str) -> Any:
    try:
        return _CONVERTERS[leaf.kind](value, leaf)
    except (ValueError, TypeError) as error:
        detail = "a value of the wrong form" if leaf.is_secret else str(error)
        raise ConfigError(f"{leaf.path} ({source}): {detail}") from error


def _bool(value: Any, _: Leaf) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _TRUE | _FALSE:
        return value in _TRUE
    raise ValueError(f"expected true or false, found {value!r}")


def _int(value: Any, _: Leaf) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"expected a whole number, found {value!r}")
    return int(value)


def _float(value: Any, _: Leaf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number, found {value!r}")
    return float(value)


def _str(value: Any, _: Leaf) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {value!r}")
    return value


def _port_text(value: Any, leaf: Leaf) -> str:
    return (
        str(value) if isinstance(value, int) and not isinstance(value, bool) else _str(value, leaf)
    )


def _url_prefix(value: Any, leaf: Leaf) -> str:
    text = _str(value, leaf).rstrip("/")
    return text if not text or text.startswith("/") else f"/{text}"


def _duration(value: Any, _: Leaf) -> float:
    return parse_duration(value)


def _whole_seconds(value: Any, _: Leaf) -> float:
    seconds = parse_duration(value)
    if seconds != int(seconds):
        raise ValueError(f"expected whole seconds, found {value!r}")
    return seconds


def _strings(value: Any, _: Leaf) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise ValueError(f"expected a list of texts, found {value!r}")


def _pem(value: Any, leaf: Leaf) -> str:
    text = _str(value, leaf)
    if not text or "-----BEGIN" in text:
        return text
    try:
        decoded = base64.b64decode(text, validate=True).decode()
        if "-----BEGIN" in decoded:
            return decoded
    except (binascii.Error, UnicodeDecodeError):
        logger.debug("not base64 of PEM, taken for a path")
    try:
        return Path(text).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError("expected PEM, base64 of PEM or the path of a PEM file") from error


def _objects(value: Any, leaf: Leaf) -> tuple[Any, ...]:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, list) or leaf.item is None:
        raise ValueError("expected a list of objects")
    known = {each.path: each for each in schema.fields_of(leaf.item)}
    built = []
    for each in found:
        flat = _flatten_item(each, known)
        built.append(
            schema.build_struct(
                leaf.item,
                {path: _convert(known[path], inner, leaf.path) for path, inner in flat.items()},
            )
        )
    return tuple(built)


def _flatten_item(item: Any, known: Mapping[str, Leaf], prefix: str = "") -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise ValueError(f"expected an object, found {item!r}")
    flat: dict[str, Any] = {}
    for key, value in item.items():
        path = f"{prefix}{key}"
        if path in known:
            flat[path] = value
        elif isinstance(value, Mapping):
            flat.update(_flatten_item(value, known, f"{path}."))
        else:
            raise ValueError(f"unknown key {path!r}")
    return flat


def _string_map(value: Any, _: Leaf) -> dict[str, str]:
    found = json.loads(value) if isinstance(value, str) else value
    if isinstance(found, Mapping):
        return {str(key).lower(): str(each) for key, each in found.items()}
    if isinstance(found, list):
        return {str(each["key"]): str(each["value"]) for each in found}
    raise ValueError("expected an object, or a list of {key, value}")


_CONVERTERS: dict[str, Callable[[Any, Leaf], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "strings": _strings,
    "addresses": _strings,
    "duration": _duration,
    "whole_seconds": _whole_seconds,
    "pem": _pem,
    "port_text": _port_text,
    "url_prefix": _url_prefix,
    "objects": _objects,
    "string_map": _string_map,
}


# --- judgement ----------------------------------------------------------------------------------


def _judge(given: Mapping[str, Any], notices: list[Notice]) -> None:
    """Refuse, or report, what was asked for and does nothing yet."""
    for path, value in given.items():
        if value == leaves()[path].default:
            continue
        is_implemented = path.startswith(IMPLEMENTED) and not path.startswith(NOT_IMPLEMENTED)
        if is_implemented and path != "engine.type":
            continue
        if path.startswith(REFUSED):
            raise ConfigError(
                f"{path} is not implemented yet, and the server is not safe, or not whole, without it"
            )
        notices.append(Notice(logging.ERROR, f"{path} is not implemented yet and has no effect"))


def _validate(options: ProcessOptions) -> None:
    client = options.client
    if client.ping_interval > 0 and client.pong_timeout >= client.ping_interval:
        raise ConfigError("client.pong_timeout must be less than client.ping_interval")
    if client.ping_interval <= 0:
        raise ConfigError("client.ping_interval must be positive")
    if options.http_api.error_mode not in {"", "transport"}:
        raise ConfigError(
            f"http_api.error_mode is {options.http_api.error_mode!r}, expected '' or 'transport'"
        )
    for section in ("token", "subscription_token"):
        token = getattr(client, section)
        for one, other in (("audience", "audience_regex"), ("issuer", "issuer_regex")):
            if getattr(token, one) and getattr(token, other):
                raise ConfigError(f"client.{section}: {one} and {other} exclude each other")
        if token.user_id_claim and not re.fullmatch(r"[a-zA-Z_]+", token.user_id_claim):
            raise ConfigError(
                f"client.{section}.user_id_claim may have letters and underscores only"
            )


# --- this process -------------------------------------------------------------------------------

_loaded: Loaded | None = None


def get_loaded() -> Loaded:
    """Load from Django's settings and the environment, once per process."""
    global _loaded
    if _loaded is None:
        from django.conf import settings

        own: dict[str, Any] = dict(getattr(settings, "REALTIME", {}))
        if "DEMO" not in own and "demo" not in own:
            own["demo"] = bool(settings.DEBUG)
        _loaded = load(own, os.environ)
    return _loaded


def get_options() -> ProcessOptions:
    """Return this process's options; raises ``ConfigError``."""
    return get_loaded().options


def reset() -> None:
    """Forget what is loaded, for tests and for flags that came after."""
    global _loaded
    _loaded = None


def log_notices() -> None:
    """Write what is to be said about the options into the log."""
    for notice in get_loaded().notices:
        logger.log(notice.level, notice.message)
