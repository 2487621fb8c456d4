"""
Which broker, presence manager, map broker and control bus the options ask for.

``engine.type`` names all three at once; ``broker`` and ``presence_manager``, where they are enabled, each replace their
part. Maps are where ``map_broker`` says, whatever the engine is. Control messages go the broker's way. The channel layer of the Redis broker becomes ``CHANNEL_LAYERS["realtime"]``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from channels.layers import channel_layers

from realtime.conf.durations import parse_duration
from realtime.conf.options import ProcessOptions, RedisOptions
from realtime.engines.base import Broker, ControlBus, PresenceManager
from realtime.engines.maps import MapBroker
from realtime.engines.memory import MemoryEngine
from realtime.engines.memory_maps import MemoryMaps
from realtime.engines.redis.addresses import deployments
from realtime.engines.redis.channel_layer import CAPACITY, RealtimeLoopLayer
from realtime.engines.redis.detection import settled
from realtime.engines.redis.engine import RedisEngine, make_layer, make_maps
from realtime.engines.redis.maps import RedisMaps
from realtime.engines.redis.notices import RedisNotices
from realtime.engines.redis.presence import RedisPresence
from realtime.namespaces.table import NamespaceTable
from realtime.protocol.errors import ConfigError, EngineError


_MAPS_SECTION = "map_broker.redis"
LAYER = "realtime"
_NOTICES = "shared_poll.notification.redis"
LAYER_BACKEND = "realtime.engines.redis.channel_layer.RealtimeChannelLayer"


@dataclass(frozen=True, slots=True)
class Backends:
    """
    What a node works with.

    Attributes:
        notices: Where an application says which keys of shared polls have changed, if that is asked for.
        layers: Those that the broker does not start and close itself.

    """

    broker: Broker
    presence: PresenceManager
    control_bus: ControlBus
    maps: MapBroker
    notices: RedisNotices | None = None
    layers: tuple[RealtimeLoopLayer, ...] = ()

    async def start(self) -> None:
        """Connect what the broker does not; call before the broker is started."""
        for layer in self.layers:
            await layer.start()

    async def check_support(self) -> None:
        """Raise ``ConfigError`` where a server lacks what the options ask for; one that is away can't be asked."""
        for part in (self.presence, self.maps):
            if isinstance(part, RedisPresence | RedisMaps):
                with contextlib.suppress(EngineError):
                    await part.check_support()

    async def close(self) -> None:
        """Let go of what the broker does not; may be called twice."""
        for layer in self.layers:
            await layer.close()


def uses_redis(options: ProcessOptions) -> bool:
    """Say whether publications go through Redis, where other processes get them."""
    return broker_type(options) == "redis"


def broker_type(options: ProcessOptions) -> str:
    """Return where the broker is."""
    return options.broker.type if options.broker.enabled else options.engine.type


def presence_type(options: ProcessOptions) -> str:
    """Return where presence is."""
    manager = options.presence_manager
    return manager.type if manager.enabled else options.engine.type


def maps_type(options: ProcessOptions) -> str:
    """Return where maps are."""
    return options.map_broker.type


def has_lone_maps(options: ProcessOptions, table: NamespaceTable) -> bool:
    """Say whether there are maps that other nodes, with which this one shares its publications, can't see."""
    is_lone = uses_redis(options) and maps_type(options) == "memory"
    return is_lone and any(
        each.is_map for each in (table.without_namespace, *table.namespaces.values())
    )


def check_options(options: ProcessOptions, channel_layer_settings: Mapping[str, Any]) -> None:
    """
    Refuse options and ``CHANNEL_LAYERS`` that can't work together, before anything connects.

    Raises:
        ConfigError: It says which, and what to do.

    """
    for path, section in _redis_sections(options):
        deployments(section, parse_duration=parse_duration, path=path)
    if uses_redis(options):
        _check_layer(channel_layer_settings.get(LAYER))


def _redis_sections(options: ProcessOptions) -> list[tuple[str, RedisOptions]]:
    sections: list[tuple[str, RedisOptions]] = []
    if options.shared_poll.notification.enabled:
        sections.append((_NOTICES, options.shared_poll.notification.redis))
    if broker_type(options) == "redis":
        sections.append(_broker_section(options))
    if presence_type(options) == "redis":
        sections.append(_presence_section(options))
    if maps_type(options) == "redis":
        sections.append((_MAPS_SECTION, options.map_broker.redis))
    return sections


def _broker_section(options: ProcessOptions) -> tuple[str, Any]:
    if options.broker.enabled:
        return "broker.redis", options.broker.redis
    return "engine.redis", options.engine.redis


def _presence_section(options: ProcessOptions) -> tuple[str, Any]:
    if options.presence_manager.enabled:
        return "presence_manager.redis", options.presence_manager.redis
    return "engine.redis", options.engine.redis


def _check_layer(setting: Mapping[str, Any] | None) -> None:
    if setting is None:
        return
    config = setting.get("CONFIG", {})
    where = f'CHANNEL_LAYERS["{LAYER}"]'
    if config.get("symmetric_encryption_keys"):
        raise ConfigError(
            f"{where} has symmetric_encryption_keys: scripts in Redis put its messages together and can't "
            "encrypt; take them out, and use TLS (rediss://) and a Redis of your own instead"
        )
    if config.get("serializer_format", "msgpack") != "msgpack":
        raise ConfigError(
            f"{where} has serializer_format {config['serializer_format']!r}: scripts in Redis put its messages "
            "together, in msgpack; take it out"
        )
    if setting.get("BACKEND") != LAYER_BACKEND:
        raise ConfigError(
            f"{where} is the engine's own layer, made from engine.redis: take it out, or give it the BACKEND "
            f"{LAYER_BACKEND}; other layers, default among them, are yours"
        )
    if unknown := sorted(set(config) - {"capacity", "serializer_format"}):
        raise ConfigError(
            f"{where} has {', '.join(unknown)} in its CONFIG: only capacity may stand there, the rest comes from engine.redis"
        )


async def make_backends(
    options: ProcessOptions, channel_layer_settings: Mapping[str, Any], node_id: str
) -> Backends:
    """
    Make what the options ask for, on the running loop; nothing stays connected yet.

    A plain address of Redis is asked whether it is a cluster's.

    Raises:
        ConfigError: As ``check_options``.

    """
    check_options(options, channel_layer_settings)
    memory = MemoryEngine(node_id=node_id)
    engine: RedisEngine | None = None
    layers: tuple[RealtimeLoopLayer, ...] = ()
    broker: Broker = memory
    control_bus: ControlBus = memory
    presence: PresenceManager = memory
    if uses_redis(options):
        path, section = _broker_section(options)
        config = (channel_layer_settings.get(LAYER) or {}).get("CONFIG", {})
        engine = await _engine(path, section, node_id, config.get("capacity", CAPACITY))
        channel_layers.set(LAYER, cast("Any", engine.channel_layer))
        broker, control_bus = engine.broker, engine.control_bus
    if presence_type(options) == "redis":
        path, section = _presence_section(options)
        if engine is None or path != _broker_section(options)[0]:
            engine = await _engine(path, section, node_id, CAPACITY)
            layers = (engine.layer,)
        presence = engine.presence(section)
    maps = await _redis_maps(options) if maps_type(options) == "redis" else MemoryMaps()
    notices = await _notices(options) if node_id else None
    return Backends(broker, presence, control_bus, maps, notices, layers)


async def _redis_maps(options: ProcessOptions) -> RedisMaps:
    """Make the map broker, on connections of its own: its layer is started and closed by it."""
    section = options.map_broker.redis
    places = await settled(deployments(section, parse_duration=parse_duration, path=_MAPS_SECTION))
    return make_maps(make_layer(places, prefix=section.prefix), section)


async def _notices(options: ProcessOptions) -> RedisNotices | None:
    notification = options.shared_poll.notification
    if not notification.enabled:
        return None
    places = deployments(notification.redis, parse_duration=parse_duration, path=_NOTICES)
    return RedisNotices(await settled(places), notification.channel)


async def _engine(path: str, section: Any, node_id: str, capacity: int) -> RedisEngine:
    places = await settled(deployments(section, parse_duration=parse_duration, path=path))
    return RedisEngine(
        make_layer(places, prefix=section.prefix, capacity=capacity),
        prefix=section.prefix,
        node_id=node_id,
        use_lists=getattr(section, "history_use_lists", False),
    )
