"""
Tidewire in a template.

``{% load realtime %}`` and, in the page's head::

    {% realtime_script token_url="/my/token" %}
    <script type="module">
      import { Tidewire } from "tidewire";
      const tidewire = Tidewire.fromPage();
    </script>
"""

from __future__ import annotations

import json

from django import template
from django.template.context import Context
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.html import format_html, json_script
from django.utils.safestring import SafeString, mark_safe

from realtime.conf.loader import get_options


register = template.Library()

MODULE = "realtime/tidewire.js"
CONFIG_ID = "realtime-config"


@register.simple_tag(takes_context=True)
def realtime_script(
    context: Context,
    *,
    token: str = "",
    token_url: str = "",
    url: str = "",
    importmap: bool = True,
) -> SafeString:
    """
    Make ``import ... from "tidewire"`` work, and tell ``Tidewire.fromPage()`` where to connect.

    Args:
        context: The page's; a CSP nonce is taken from ``csp_nonce`` in it or from ``request.csp_nonce``.
        token: A connection JWT; the first one, if ``token_url`` renews it.
        token_url: Answers a GET with ``{"token": "..."}``, and 401 or 403 to those who get none.
        url: The WebSocket endpoint; by default this server's.
        importmap: ``False`` for a page with an import map of its own, which then maps ``tidewire`` itself.

    Returns:
        The configuration as JSON, the import map, and a hint to load the module early. The map is what makes
        the name work under hashed file names too; it must stand before the page's first module.

    """
    nonce = _nonce_attribute(context)
    config = {
        "url": url or get_script_prefix().rstrip("/") + get_options().websocket.handler_prefix,
        "token": token,
        "tokenUrl": token_url,
    }
    parts = [json_script(config, CONFIG_ID)]
    module = static(MODULE)
    if importmap:
        # What json_script escapes, for a script that has to be of another type.
        imports = json.dumps({"imports": {"tidewire": module}}).replace("<", "\\u003C")
        parts.append(
            format_html('<script type="importmap"{}>{}</script>', nonce, mark_safe(imports))  # noqa: S308
        )
    parts.append(format_html('<link rel="modulepreload" href="{}"{}>', module, nonce))
    return mark_safe("\n".join(parts))  # noqa: S308 -- each part is escaped above


def _nonce_attribute(context: Context) -> SafeString:
    # Compared with None: a nonce that nobody has read yet is false in Django's and in django-csp's lazy objects.
    nonce = context.get("csp_nonce")
    if nonce is None:
        nonce = getattr(context.get("request"), "csp_nonce", None)
    return SafeString("") if nonce is None else format_html(' nonce="{}"', str(nonce))
