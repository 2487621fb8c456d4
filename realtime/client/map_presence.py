"""
Who is subscribed, as maps that others subscribe to.

A subscription to ``X`` is put down in ``<prefix>X``: a connection by its id, with its info, a user by its id alone. A connection's
key goes with its subscription; a user's stays until its time is over, since another connection may be there, or come
back. What a process leaves that died goes by its time, too. Nothing here ever fails a subscription.

Source: ``streams-and-state`` 12.11.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from realtime.engines.maps import IF_NEW, PLAIN_CHANGE, MapChange
from realtime.protocol.errors import EngineError
from realtime.protocol.messages import ClientInfo, Publication


if TYPE_CHECKING:
    from realtime.namespaces.table import Channel
    from realtime.node.node import Node
    from realtime.session.subscription import Subscription

logger = logging.getLogger(__name__)

_KEPT = MapChange(key_mode=IF_NEW, refresh_ttl=True)


async def keep(subscriptions: Iterable[Subscription]) -> None:
    """Put subscriptions down, or prolong what stands there; those that ended meanwhile are left out."""
    for subscription in subscriptions:
        client = subscription.client
        presence = subscription.options.map_presence
        if presence is None or not subscription.is_established:
            continue
        info = client.session.client_info(subscription.channel)
        name = subscription.channel
        if presence.clients_prefix:
            entry = Publication(key=info.client, info=info)
            await _write(client.node, presence.clients_prefix + name, entry)
        if presence.users_prefix and info.user:
            await _write(client.node, presence.users_prefix + name, Publication(key=info.user))


async def forget(subscription: Subscription, info: ClientInfo) -> None:
    """Take out what goes with a subscription that ended; ``info`` is the connection's."""
    node = subscription.client.node
    presence = subscription.options.map_presence
    assert presence is not None
    if presence.clients_prefix:
        await _remove(node, presence.clients_prefix + subscription.channel, info.client)
    if presence.removes_own_key:
        await _remove(node, subscription.channel, info.client)


def _map(node: Node, name: str) -> Channel | None:
    """Find a map; a namespace may have gone, or become something else, since the subscription began."""
    channel = node.table.resolve(name)
    if channel is None or not channel.options.is_map:
        logger.warning("there is no such map", extra={"channel": name})
        return None
    return channel


async def _write(node: Node, name: str, entry: Publication) -> None:
    channel = _map(node, name)
    if channel is None:
        return
    try:
        await node.maps.publish(name, entry, channel.map_rules, _KEPT)
    except EngineError:
        # What stands there lives on for its time, and the next tick tries again.
        logger.warning("a map's key was not kept", exc_info=True, extra={"channel": name})


async def _remove(node: Node, name: str, key: str) -> None:
    channel = _map(node, name)
    if channel is None:
        return
    removal = Publication(key=key, removed=True)
    try:
        await node.maps.remove(name, removal, channel.map_rules, PLAIN_CHANGE)
    except EngineError:
        logger.warning("a map's key was not removed", exc_info=True, extra={"channel": name})
