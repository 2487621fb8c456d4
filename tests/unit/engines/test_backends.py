"""Which broker, presence manager and control bus the options ask for, and what is refused."""

from __future__ import annotations

import pytest
from channels.layers import channel_layers, get_channel_layer

from realtime import backends
from realtime.conf import schema
from realtime.engines.memory import MemoryEngine
from realtime.engines.memory_maps import MemoryMaps
from realtime.engines.redis.broker import RedisBroker
from realtime.engines.redis.channel_layer import RealtimeChannelLayer
from realtime.engines.redis.control import RedisControlBus
from realtime.engines.redis.maps import RedisMaps
from realtime.engines.redis.presence import RedisPresence
from realtime.protocol.errors import ConfigError


REDIS = {"engine.type": "redis"}


@pytest.fixture(autouse=True)
def no_layers():
    """Leave no layer of a test's own behind."""
    yield
    channel_layers.backends.clear()


@pytest.mark.parametrize(
    ("values", "broker", "presence", "control_bus", "own_layers"),
    [
        ({}, MemoryEngine, MemoryEngine, MemoryEngine, 0),
        (REDIS, RedisBroker, RedisPresence, RedisControlBus, 0),
        (
            {"broker.enabled": True, "broker.type": "redis"},
            RedisBroker,
            MemoryEngine,
            RedisControlBus,
            0,
        ),
        (
            {**REDIS, "broker.enabled": True, "broker.type": "memory"},
            MemoryEngine,
            RedisPresence,
            MemoryEngine,
            1,
        ),
        (
            {**REDIS, "presence_manager.enabled": True, "presence_manager.type": "memory"},
            RedisBroker,
            MemoryEngine,
            RedisControlBus,
            0,
        ),
        (
            {"presence_manager.enabled": True, "presence_manager.type": "redis"},
            MemoryEngine,
            RedisPresence,
            MemoryEngine,
            1,
        ),
        (
            {
                **REDIS,
                "presence_manager.enabled": True,
                "presence_manager.type": "redis",
                "presence_manager.redis.address": ("redis://127.0.0.1:7000",),
            },
            RedisBroker,
            RedisPresence,
            RedisControlBus,
            1,
        ),
    ],
)
async def test_each_part_is_where_the_options_say(
    values, broker, presence, control_bus, own_layers
):
    """The engine's, unless a part is named on its own; control messages go the broker's way."""
    made = await backends.make_backends(schema.build(values), {}, "node")

    assert type(made.broker) is broker
    assert type(made.presence) is presence
    assert type(made.control_bus) is control_bus
    assert len(made.layers) == own_layers


@pytest.mark.parametrize(
    ("values", "maps", "broker"),
    [
        ({}, MemoryMaps, MemoryEngine),
        (REDIS, MemoryMaps, RedisBroker),
        ({"map_broker.type": "redis"}, RedisMaps, MemoryEngine),
        ({**REDIS, "map_broker.type": "redis"}, RedisMaps, RedisBroker),
    ],
)
async def test_maps_are_where_their_own_option_says(values, maps, broker):
    """Whatever the engine is; they have no part in its layer."""
    made = await backends.make_backends(schema.build(values), {}, "node")

    assert type(made.maps) is maps
    assert type(made.broker) is broker
    assert made.layers == ()


async def test_memory_parts_are_one_engine():
    """What is published is seen by who reads."""
    made = await backends.make_backends(schema.build({}), {}, "node")

    assert made.broker is made.presence is made.control_bus


async def test_the_brokers_layer_is_the_channel_layer():
    """Consumers of the project find it by its alias, with groups and messages of channels-redis."""
    await backends.make_backends(schema.build(REDIS), {}, "node")

    layer = get_channel_layer("realtime")

    assert isinstance(layer, RealtimeChannelLayer)
    assert layer.of_loop().prefix == "centrifugo"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}, "made from engine.redis"),
        ({"BACKEND": "x", "CONFIG": {"symmetric_encryption_keys": ["k"]}}, "can't encrypt"),
        ({"BACKEND": "x", "CONFIG": {"serializer_format": "json"}}, "serializer_format 'json'"),
        ({"BACKEND": backends.LAYER_BACKEND, "CONFIG": {"hosts": []}}, "has hosts in its CONFIG"),
    ],
)
def test_a_layer_setting_that_can_not_work_is_refused(setting, text):
    """With the reason and what to do."""
    with pytest.raises(ConfigError, match=text):
        backends.check_options(schema.build(REDIS), {"realtime": setting, "default": {}})


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        (REDIS, {}),
        (REDIS, {"default": {"BACKEND": "x", "CONFIG": {"symmetric_encryption_keys": ["k"]}}}),
        (REDIS, {"realtime": {"BACKEND": backends.LAYER_BACKEND, "CONFIG": {"capacity": 5}}}),
        ({}, {"realtime": {"BACKEND": "x"}}),
    ],
)
def test_other_layers_are_the_projects(values, settings):
    """And on the memory engine all of them."""
    backends.check_options(schema.build(values), settings)


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({**REDIS, "engine.redis.address": ("x://y",)}, "engine.redis"),
        (
            {
                "broker.enabled": True,
                "broker.type": "redis",
                "broker.redis.address": ("redis://:secret@y:port",),
            },
            "broker.redis",
        ),
        (
            {"map_broker.type": "redis", "map_broker.redis.address": ("redis://:secret@y:port",)},
            "map_broker.redis",
        ),
    ],
)
def test_a_malformed_address_is_refused_before_anything_connects(values, path):
    """By the section's name, without the password."""
    with pytest.raises(ConfigError, match=rf"^{path}\.address") as refusal:
        backends.check_options(schema.build(values), {})

    assert "secret" not in str(refusal.value)
