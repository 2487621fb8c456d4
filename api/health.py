"""The endpoint that a load balancer asks."""

from __future__ import annotations

import asyncio
import logging

from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from realtime.bootstrap import ensure_node
from realtime.protocol.errors import EngineError


logger = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds; a load balancer's own patience is rarely longer
_PROBE = "tidewire:health"  # read only, so nothing comes into being by that name


@csrf_exempt
async def health(request: HttpRequest) -> HttpResponse:
    """Say ``{}`` while the process serves; with ``?deep=1`` only if the database and the engine answer."""
    is_well = request.GET.get("deep") != "1" or await _is_well()
    return HttpResponse(b"{}", status=200 if is_well else 503, content_type="application/json")


async def _is_well() -> bool:
    try:
        async with asyncio.timeout(TIMEOUT):
            await sync_to_async(_ask_database)()
            node = await ensure_node()
            await node.broker.check()
            await node.maps.check()
            presence = node.presence
            if presence is not None:
                await presence.presence_stats(_PROBE)
    except (DatabaseError, EngineError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        logger.warning("a deep health check failed: %s", reason, extra={"error": reason})
        return False
    return True


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
