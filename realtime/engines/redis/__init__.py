"""
The Redis engine: streams, presence and control messages in Redis, delivery over channels-redis groups.

``connection`` speaks to one Redis, ``shard`` to one deployment, ``channel_layer`` is the channel layer that the groups
belong to; ``broker``, ``presence`` and ``control`` are the engine's three interfaces, put together by ``engine``.
Nothing here knows Django.
"""
