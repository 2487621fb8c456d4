"""What a node does to its own connections because it, or another node, was asked to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from realtime.node.control import (
    ControlCommand,
    DisconnectUser,
    RefreshUser,
    ReloadConfiguration,
    SubscribeUser,
    UnsubscribeUser,
)
from realtime.protocol import errors
from realtime.protocol.messages import payload


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.node.node import Node


async def carry_out(node: Node, command: ControlCommand) -> None:
    """Carry a command out on this node's connections, and return when that is done."""
    match command:
        case SubscribeUser():
            await _subscribe(node, command)
        case UnsubscribeUser():
            for client in _clients_of(node, command):
                subscription = client.session.subscriptions.get(command.channel)
                if subscription is not None:
                    client.unsubscribe(subscription, command.code, command.reason)
        case DisconnectUser():
            for client in _clients_of(node, command):
                if client.session.client_id not in command.whitelist:
                    client.disconnect(command.code, command.reason)
        case RefreshUser():
            _refresh(node, command)
        case ReloadConfiguration():
            if command.revision != node.configuration.revision:
                node.spawn(node.reload())


def _clients_of(
    node: Node, command: SubscribeUser | UnsubscribeUser | DisconnectUser | RefreshUser
) -> list[Client]:
    return node.hub.clients.of(command.user, command.client, command.session)


async def _subscribe(node: Node, command: SubscribeUser) -> None:
    tasks = []
    for client in _clients_of(node, command):
        task = node.spawn(client.subscribe_from_server(command))
        if task is not None:
            tasks.append(task)
    if tasks:
        # They are the node's: who waits here may be cancelled, and the work goes on.
        await asyncio.wait(tasks)


def _refresh(node: Node, command: RefreshUser) -> None:
    for client in _clients_of(node, command):
        if command.expired or 0 < command.expire_at <= node.clock():
            client.disconnect(*errors.CONNECTION_EXPIRED)
            continue
        if command.info:
            client.session.info = payload(command.info)
        client.refreshed_by_server(command.expire_at)
