"""
Shared polls: values that are published directly, past the poll.

Source: ``server-api`` 8, ``streams-and-state`` 13.8.
"""

from __future__ import annotations

from realtime.commands.base import CommandNode, engine_errors, find_channel, read_payload
from realtime.namespaces.options import SHARED_POLL_TYPE
from realtime.node.polls.feeds import KeyPublish
from realtime.protocol.api_messages import SharedPollPublishRequest, SharedPollPublishResult
from realtime.protocol.errors import BadRequestError, NotAvailableError
from realtime.session.payloads import check_data_format


async def shared_poll_publish(
    node: CommandNode, request: SharedPollPublishRequest
) -> SharedPollPublishResult:
    """
    Push a key's value to everybody who tracks it, on all nodes.

    A version that is not newer than what a node has is dropped there, which is no error; another epoch begins anew.

    Raises:
        ClientError: 100, 102, 107 (also for another type of namespace), or 108 where it is not enabled.

    """
    if not request.channel or not request.key or not request.version:
        raise BadRequestError
    data = read_payload(request.data, request.b64data)
    channel = find_channel(node, request.channel)
    if channel.options.type_number != SHARED_POLL_TYPE:
        raise BadRequestError
    if not channel.options.shared_poll.publish_enabled:
        raise NotAvailableError
    if channel.data_format:
        check_data_format(channel.data_format, data)
    value = KeyPublish(channel.name, request.key, bytes(data), request.version, request.epoch)
    with engine_errors():
        await node.publish_polled(value)
    return SharedPollPublishResult()
