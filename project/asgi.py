"""
The ASGI application, for ``manage.py serve``, Daphne and any other ASGI server.

HTTP goes by the stream transports and the direct API lane to Django, WebSockets by ``realtime.routing``. The classes that Daphne is to
use are put in place on import, which comes before its server is built.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

from django.core.asgi import get_asgi_application


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
_django = get_asgi_application()  # sets Django up, which the imports below need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import re_path  # noqa: E402

from api.lane import DirectLane, DirectLaneApp, api_paths  # noqa: E402
from project.listeners import make_listeners  # noqa: E402
from realtime import bootstrap  # noqa: E402
from realtime.conf.loader import get_options  # noqa: E402
from realtime.routing import StreamRoutes, direct_websockets, websocket_urlpatterns  # noqa: E402
from realtime.servers.application import NodeApplication, refuse_unknown_path  # noqa: E402
from realtime.servers.limits import (  # noqa: E402
    frames_by_path,
    frames_settings,
    ignored_by_daphne,
    websocket_paths,
)
from realtime.servers.ports import Ports  # noqa: E402


async def _drain(seconds: float) -> None:
    node = bootstrap.running_node()
    if node is not None:  # a server that nobody has asked anything has none yet
        await node.drain(seconds)


_lane = DirectLane(bootstrap.get_node)

_unknown: Any = re_path("", cast("Any", refuse_unknown_path))
_router = ProtocolTypeRouter(
    {
        "http": StreamRoutes(DirectLaneApp(cast("Any", _django), _lane)),
        "websocket": URLRouter([*websocket_urlpatterns(), _unknown]),
    }
)

application = NodeApplication(
    cast("Any", _router),
    start=bootstrap.start_node,
    stop=bootstrap.stop_node,
    websocket_paths=websocket_paths(get_options()),
    direct_lane=_lane,
    # What goes around the consumer in the router above (a middleware, say) goes around it here too, or leave these out.
    direct_websockets=direct_websockets(),
    ports=Ports(get_options(), api=api_paths(get_options().http_api)),
    drain=_drain,
    listeners=make_listeners(get_options()),
)

# Django's app of that name imports the server early; without it there is nothing to put in place.
if "daphne.server" in sys.modules:
    from realtime.servers.daphne import DaphneHooks, install

    install(
        DaphneHooks(
            frames=frames_settings(get_options()),
            frames_by_path=frames_by_path(get_options()),
            start=application.start_early,
            drain=application.drain,
            stop=application.stop,
            ignored=ignored_by_daphne(get_options()),
        )
    )
