"""
Which endpoint is on which port, where there is an internal one.

Clients' transports are on the external port, what is for backends and operators on the internal one (operations,
section 8). All else, such as a project's own pages and static files, is on both.

``manage.py serve`` says of each connection which of its listeners took it. Elsewhere the port that the server names tells,
so a Daphne on the internal port serves the internal side, and one on any other port the external.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.contrib.admin.sites import all_sites
from django.urls import NoReverseMatch, reverse
from django.utils import translation

from realtime.conf.options import HTTPServerOptions, ProcessOptions, TLSOptions


SCOPE_KEY = "tidewire.side"

_TRANSPORTS = (
    "websocket",
    "webtransport",
    "http_stream",
    "sse",
    "emulation",
    "uni_websocket",
    "uni_sse",
    "uni_http_stream",
    "init",
)
_INTERNAL = ("prometheus", "debug", "health", "swagger")


class Side(enum.Enum):
    """What a listener serves."""

    ALL = "all"
    EXTERNAL = "external"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Listener:
    """
    Where to listen, and for whom.

    Attributes:
        side: Whose endpoints are there.
        address: Empty means every interface.
        port: 0 means a free one.
        tls: ``enabled`` says whether there is any.
        tls_path: The option that ``tls`` comes from, for errors.

    """

    side: Side
    address: str
    port: int
    tls: TLSOptions
    tls_path: str


def listeners(options: ProcessOptions) -> tuple[Listener, ...]:
    """Return one listener for all, or the external and the internal one."""
    http = options.http_server
    external, internal = _external(http), _internal(http)
    if external == internal:
        return (Listener(Side.ALL, *external, http.tls, "http_server.tls"),)
    tls, tls_path = http.tls, "http_server.tls"
    if http.internal_tls.enabled:
        tls, tls_path = http.internal_tls, "http_server.internal_tls"
    elif http.tls_external:
        tls = TLSOptions()
    return (
        Listener(Side.EXTERNAL, *external, http.tls, "http_server.tls"),
        Listener(Side.INTERNAL, *internal, tls, tls_path),
    )


def is_on(side: Side, name: str, options: ProcessOptions) -> bool:
    """Say whether an endpoint, by the name that the start-up line gives it, is on a side; not whether it is enabled."""
    if side is Side.ALL:
        return True
    if name in _TRANSPORTS:
        return side is Side.EXTERNAL
    if name == "api":
        return side is Side.INTERNAL or options.http_api.external
    if name == "admin":
        return side is Side.INTERNAL or options.admin.external
    return side is Side.INTERNAL or name not in _INTERNAL


class Ports:
    """
    The doorman of an application that may have two ports.

    Args:
        options: Of the process.
        api: Paths of the API, each with all that is below it.

    Attributes:
        is_split: Whether there are two.

    """

    def __init__(self, options: ProcessOptions, *, api: Iterable[str] = ()) -> None:
        http = options.http_server
        self._external, self._internal = _external(http), _internal(http)
        self.is_split = self._external != self._internal
        self._transports = frozenset(_prefixes(options, _TRANSPORTS))
        closed: list[str] = []
        if self.is_split:
            closed += _prefixes(options, _INTERNAL)
            if not is_on(Side.EXTERNAL, "api", options):
                closed += api
            if not is_on(Side.EXTERNAL, "admin", options):
                closed += admin_paths()
        self._inside = tuple(path.rstrip("/") or "/" for path in closed)

    def is_closed(self, scope: Mapping[str, Any]) -> bool:
        """Say whether a request is for something that is not on the port it came to."""
        if not self.is_split:
            return False
        side = scope.get(SCOPE_KEY) or self._side_of(scope.get("server"))
        path = scope["path"]
        script = settings.FORCE_SCRIPT_NAME or scope.get("root_path", "")
        # With the prefix and without: a proxy may have cut it off already, and Django takes both.
        paths = {path, path.removeprefix(script)}
        if side is Side.INTERNAL:
            return not self._transports.isdisjoint(paths)
        return self._transports.isdisjoint(paths) and any(map(self._is_inside, paths))

    def _is_inside(self, path: str) -> bool:
        return any(path == each or path.startswith(f"{each}/") for each in self._inside)

    def _side_of(self, server: tuple[str, int | None] | None) -> Side:
        """Judge by the address that took a connection; one that is not known counts as outside."""
        address, port = server or ("", None)
        is_internal = port == self._internal[1] and (
            self._external[1] != self._internal[1] or address == self._internal[0]
        )
        return Side.INTERNAL if is_internal else Side.EXTERNAL


def admin_paths() -> tuple[str, ...]:
    """Return where Django's admin sites are, in each language where the path depends on it."""
    codes: Iterable[str | None] = (None,)
    if is_language_prefix_patterns_used(settings.ROOT_URLCONF)[0]:
        codes = (code for code, _ in settings.LANGUAGES)
    found = set()
    script = settings.FORCE_SCRIPT_NAME or ""
    for code in codes:
        with translation.override(code):
            for site in all_sites:
                try:
                    path = reverse(f"{site.name}:index")
                except NoReverseMatch:  # a site that no URL leads to
                    continue
                found.add(path.removeprefix(script))
    return tuple(found)


def _prefixes(options: ProcessOptions, names: Iterable[str]) -> list[str]:
    """Return the paths of those endpoints that are on."""
    return [getattr(options, name).handler_prefix for name in names if _is_enabled(options, name)]


def _is_enabled(options: ProcessOptions, name: str) -> bool:
    if name == "websocket":
        return not options.websocket.disabled
    if name == "emulation":
        return options.sse.enabled or options.http_stream.enabled
    return bool(getattr(options, name).enabled)


def _external(http: HTTPServerOptions) -> tuple[str, int]:
    return http.address, http.port


def _internal(http: HTTPServerOptions) -> tuple[str, int]:
    return http.internal_address or http.address, int(http.internal_port or http.port)
