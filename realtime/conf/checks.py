"""
System checks: what an operator can get wrong in the process options, each with a hint.

======  =====================================================================================
E001    a value is malformed, or a source can't be read
E002    ``settings.REALTIME`` has an option that does not exist
E003    options contradict each other, or a value is out of range
E004    an option is not implemented yet, and it is not safe to go on without it
W001    an HMAC secret is shorter than its hash
W002    ``client.allowed_origins`` lets every web page connect
W003    an ``insecure`` mode is on
W004    ``client.allowed_origins`` is empty: no browser can connect
W005    an entry of ``client.allowed_origins`` can't match any origin
W006    a file or the environment has an option that does not exist
W007    an option is set that is not implemented yet and has no effect
W008    the demo page is served although ``DEBUG`` is off
W009    (``--deploy``) the configuration has no API key of its own
W010    (``--deploy``) ``DEBUG`` is on and the server listens to more than this machine
======  =====================================================================================

Each check is a function of what was loaded; the registered ones read this process's own options.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.core.checks import register as register_check

from realtime.conf.loader import (
    Fault,
    InvalidConfigError,
    Loaded,
    Problem,
    get_loaded,
)
from realtime.conf.options import ProcessOptions
from realtime.protocol.errors import ConfigError


MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: as long as the output of HS256's hash

_HINTS = {
    Fault.VALUE: ("realtime.E001", "Correct the value where it comes from (in parentheses)."),
    Fault.UNKNOWN: (
        "realtime.E002",
        "Look for a typing error; `manage.py defaultconfig --dry-run` prints every option.",
    ),
    Fault.RULE: ("realtime.E003", "Change one of the options that are named."),
    Fault.UNAVAILABLE: ("realtime.E004", "Take the option out and provide for it in another way."),
}


def register() -> None:
    """Register the checks; called by the app's ``ready``."""
    register_check(check_options, Tags.security)
    register_check(check_deployment, Tags.security, deploy=True)


def check_options(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Check the options of this process."""
    try:
        loaded = get_loaded()
    except InvalidConfigError as error:
        return [describe_problem(problem) for problem in error.problems]
    except ConfigError as error:
        return [Error(str(error), hint="Correct the source that is named.", id="realtime.E001")]
    return list(find_warnings(loaded, is_debug=settings.DEBUG))


def check_deployment(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Check what matters only where strangers can reach the server."""
    try:
        loaded = get_loaded()
    except ConfigError:
        return []  # check_options has told
    return list(find_deployment_warnings(loaded.options, is_debug=settings.DEBUG))


def describe_problem(problem: Problem) -> CheckMessage:
    """Make a check's error of a problem of the loader's."""
    check_id, hint = _HINTS[problem.fault]
    return Error(str(problem), hint=hint, id=check_id)


def find_warnings(loaded: Loaded, *, is_debug: bool) -> Iterator[CheckMessage]:
    """List what is legal and probably not meant."""
    for find in (_short_secrets, _origins, _insecure_modes):
        yield from find(loaded.options)
    yield from _notices(loaded)
    if loaded.options.demo and not is_debug:
        yield Warning(
            "demo is on although DEBUG is off: anybody gets a token from the demo page.",
            hint="Set demo to false, unless this server is there for showing.",
            id="realtime.W008",
        )


def find_deployment_warnings(options: ProcessOptions, *, is_debug: bool) -> Iterator[CheckMessage]:
    """List what is fine on a developer's machine."""
    api = options.http_api
    if not api.key and not api.disabled and not api.insecure:
        yield Warning(
            "http_api.key is empty: the server API takes keys that are rows in the admin only.",
            hint="Set http_api.key or add a key in the admin; silence this check if you have one there.",
            id="realtime.W009",
        )
    if is_debug and not _is_loopback(options.http_server.address):
        where = options.http_server.address or "every interface"
        yield Warning(
            f"DEBUG is on and http_server.address is {where}: errors show settings to strangers.",
            hint="Set DEBUG to False, or http_server.address to 127.0.0.1.",
            id="realtime.W010",
        )


def _short_secrets(options: ProcessOptions) -> Iterator[CheckMessage]:
    sections = {"client.token": options.client.token}
    if options.client.subscription_token.enabled:
        sections["client.subscription_token"] = options.client.subscription_token
    for path, section in sections.items():
        for name in ("hmac_secret_key", "hmac_previous_secret_key"):
            size = len(getattr(section, name).encode())
            if 0 < size < MIN_SECRET_BYTES:
                yield Warning(
                    f"{path}.{name} has {size} bytes, fewer than {MIN_SECRET_BYTES}: it can be guessed.",
                    hint="`manage.py genconfig` makes a good one; so does secrets.token_urlsafe(64).",
                    id="realtime.W001",
                )


def _origins(options: ProcessOptions) -> Iterator[CheckMessage]:
    origins = options.client.allowed_origins
    if not origins:
        yield Warning(
            "client.allowed_origins is empty: no web page can connect, not even one of this host.",
            hint='List the origins of your pages, as in ["https://example.com"].',
            id="realtime.W004",
        )
    if "*" in origins:
        yield Warning(
            'client.allowed_origins has "*": any web page may connect with its visitor\'s cookies.',
            hint="List the origins of your pages.",
            id="realtime.W002",
        )
    for origin in origins:
        if reason := _why_no_match(origin):
            yield Warning(
                f'client.allowed_origins: "{origin}" matches no origin: {reason}.',
                hint='An origin is scheme, host and port in lower case, as in "https://example.com".',
                id="realtime.W005",
            )


def _why_no_match(origin: str) -> str:
    """Say why a pattern can't match what browsers send; empty if it can."""
    if origin != origin.lower():
        return "it has upper-case letters"
    if "://" not in origin and "*" not in origin and origin != "null":
        return "it has no scheme"
    if "://" in origin and "/" in origin.partition("://")[2]:
        return "it has a path"
    return ""


def _insecure_modes(options: ProcessOptions) -> Iterator[CheckMessage]:
    for path, is_on in (
        ("client.insecure", options.client.insecure),
        (
            "client.insecure_skip_token_signature_verify",
            options.client.insecure_skip_token_signature_verify,
        ),
        ("http_api.insecure", options.http_api.insecure),
    ):
        if is_on:
            yield Warning(
                f"{path} is on.",
                hint="It is for development: switch it off where others can reach the server.",
                id="realtime.W003",
            )
    if options.grpc_api.enabled and not options.grpc_api.key:
        yield Warning(
            "grpc_api is enabled and grpc_api.key is empty.",
            hint="Whoever reaches its port may call everything: set a key.",
            id="realtime.W003",
        )


def _notices(loaded: Loaded) -> Iterator[CheckMessage]:
    for notice in loaded.notices:
        if notice.level == logging.ERROR:
            yield Warning(
                f"{notice.message}.",
                hint="Take it out, or wait for the release that has it.",
                id="realtime.W007",
            )
        elif notice.level == logging.WARNING and notice.is_unknown_name:
            yield Warning(
                f"{notice.message}.",
                hint="Look for a typing error; `manage.py defaultconfig --dry-run` prints every option.",
                id="realtime.W006",
            )


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False  # empty is every interface; a name may be anything
