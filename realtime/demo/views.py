"""The demo's page and its token endpoint; both are 404 where the option ``demo`` is off."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import get_script_prefix
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from realtime.conf.loader import get_options
from realtime.conf.options import ProcessOptions
from realtime.demo import visitors
from realtime.demo.namespace import BOARD_CHANNEL, CHAT_CHANNEL, SYSTEM_CHANNEL


View = Callable[[HttpRequest], HttpResponse]


def _only_in_demo(view: View) -> View:
    @functools.wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if not get_options().demo:
            raise Http404
        return view(request)

    return guarded


@_only_in_demo
@require_GET
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Show the demo, with a first token in the page so that it connects without another request."""
    options = get_options()
    visitor = visitors.visitor_of(request) or visitors.new_visitor()
    site = get_script_prefix().rstrip("/")
    api_path = site + options.http_api.handler_prefix.rstrip("/")
    context = {
        "visitor": visitor,
        "token": visitors.mint_token(visitor, options.client.token, time.time()),
        "system_channel": SYSTEM_CHANNEL,
        "chat_channel": CHAT_CHANNEL,
        "board_channel": BOARD_CHANNEL,
        "publish_url": request.build_absolute_uri(f"{api_path}/publish"),
        "demo": {
            "system": SYSTEM_CHANNEL,
            "chat": CHAT_CHANNEL,
            "board": BOARD_CHANNEL,
            "user": visitor.user,
            "transports": _stream_transports(options, site),
        },
    }
    response = render(request, "realtime/demo.html", context)
    if visitor.is_guest:
        visitors.remember(visitor, request, response)
    return response


def _stream_transports(options: ProcessOptions, site: str) -> dict[str, dict[str, str]]:
    """Return the paths of the transports over plain HTTP that are on, by name; ``site`` begins each."""
    return {
        name: {
            "endpoint": site + section.handler_prefix,
            "emulation": site + options.emulation.handler_prefix,
        }
        for name, section in (("http_stream", options.http_stream), ("sse", options.sse))
        if section.enabled
    }


@_only_in_demo
@require_GET
@never_cache
def token(request: HttpRequest) -> HttpResponse:
    """Renew the token of a visitor that is known; others get 403, since one for somebody else is of no use."""
    visitor = visitors.visitor_of(request)
    signed = visitor and visitors.mint_token(visitor, get_options().client.token, time.time())
    if not signed:
        return JsonResponse({"detail": "open the demo page first"}, status=403)
    return JsonResponse({"token": signed})
