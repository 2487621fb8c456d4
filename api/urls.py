"""
The API's routes, with the health check and the interactive document where they are switched on.

Prefixes are options, so they stand here and not in the project: include this module at the root. The API's routes have no
trailing slash, and whatever else is under its prefix is answered here too, so ``APPEND_SLASH`` never redirects it.
"""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, re_path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.permissions import AllowAny

from api.health import health
from api.replies import LaneResponse
from api.schema import SETTINGS
from api.views import METHOD_VIEWS, LegacyView, to_django, unknown_path
from realtime.conf.loader import get_options
from realtime.conf.options import ProcessOptions


def api_routes(options: ProcessOptions) -> list[URLPattern]:
    """Make a route per method, one for the legacy stream, and one for what is left under the prefix."""
    if options.http_api.disabled:
        return []
    prefix = options.http_api.handler_prefix.strip("/")
    routes = method_routes(options)
    if prefix:
        routes.append(path(prefix, LegacyView.as_view(), name="api-legacy"))
        rest = rf"^{re.escape(prefix)}/[\s\S]*\Z"
        routes.append(re_path(rest, csrf_exempt(unknown_path)))
    return routes


def method_routes(options: ProcessOptions) -> list[URLPattern]:
    """Make a route per method: what the document describes."""
    prefix = options.http_api.handler_prefix.strip("/")
    root = f"{prefix}/" if prefix else ""
    return [
        path(f"{root}{name}", view.as_view(), name=f"api-{name}")
        for name, view in METHOD_VIEWS.items()
    ]


def health_routes(options: ProcessOptions) -> list[URLPattern]:
    """Make the health check's route if it is on."""
    if not options.health.enabled:
        return []
    return [path(options.health.handler_prefix.strip("/"), health, name="health")]


def swagger_routes(options: ProcessOptions) -> list[URLPattern]:
    """Make the interactive document's routes if it is on."""
    if not options.swagger.enabled:
        return []
    prefix = options.swagger.handler_prefix.strip("/")
    patterns = method_routes(options)
    document = SpectacularAPIView.as_view(
        patterns=patterns, custom_settings=SETTINGS, permission_classes=[AllowAny]
    )
    page = SpectacularSwaggerView.as_view(url_name="api-schema", permission_classes=[AllowAny])
    return [
        path(prefix, _to_page, name="api-swagger-redirect"),
        path(f"{prefix}/", page, name="api-swagger"),
        path(f"{prefix}/openapi.json", document, name="api-schema"),
    ]


async def _to_page(request: HttpRequest) -> HttpResponse:
    return to_django(LaneResponse(307, ((b"location", request.path.encode() + b"/"),), b""))


_options = get_options()
urlpatterns = [
    *api_routes(_options),
    *health_routes(_options),
    *swagger_routes(_options),
]
