"""What an address turns out to be: a plain one may lead to a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from realtime.engines.redis.addresses import Deployment
from realtime.engines.redis.inquiry import greet_once
from realtime.protocol.errors import ConfigError, EngineError


logger = logging.getLogger(__name__)


async def settled(places: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """
    Ask every plain address what it is, and take one that answers as a cluster for a cluster.

    Where nobody answers nothing is known, and the address stays what it seems.

    Raises:
        ConfigError: Some are clusters and some are not: a channel has other names in a cluster.

    """
    found = tuple(await asyncio.gather(*map(_settle, places)))
    if len({place.kind == "cluster" for place in found}) > 1:
        raise ConfigError("either all shards of Redis are clusters, or none is")
    return found


async def _settle(place: Deployment) -> Deployment:
    if place.kind != "single":
        return place
    try:
        server = await greet_once(
            place.data,
            connect_timeout=place.connect_timeout,
            io_timeout=place.io_timeout,
            force_resp2=place.force_resp2,
        )
    except (OSError, EngineError):
        return place
    if server.get("mode") != "cluster":
        return place
    if place.data.db:
        raise ConfigError(f"Redis at {place.data.label} is a cluster and has no database but 0")
    logger.info("Redis is a cluster", extra={"redis": place.data.label})
    return replace(place, kind="cluster")
