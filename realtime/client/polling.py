"""
Shared polls, from the client's side: subscribe, track and untrack keys.

The order in ``_track`` is the protocol's: check, keep the keys on the node (which may have to wait for the broker), write the
reply, and only then let the connection track them, so that values never come before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from realtime.auth.poll_signatures import PollSecrets, verify_batch
from realtime.auth.tokens import TokenExpired, TokenInvalid
from realtime.namespaces.options import SHARED_POLL_TYPE
from realtime.node.polls.plan import DEFAULTS
from realtime.node.polls.polls import lose
from realtime.protocol import errors
from realtime.protocol.delta import as_document
from realtime.protocol.errors import (
    BadRequestError,
    Disconnect,
    EngineError,
    InternalError,
    LimitExceededError,
    PermissionDeniedError,
    TokenExpiredError,
    UnknownChannelError,
)
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import (
    Command,
    Publication,
    Reply,
    SubRefreshRequest,
    SubRefreshResult,
    SubscribeResult,
    TrackBatch,
)


if TYPE_CHECKING:
    from msgspec import Raw

    from realtime.client.client import Client
    from realtime.namespaces.table import Channel
    from realtime.session.subscription import Subscription

REFRESH_TOKEN, TRACK, UNTRACK = 0, 1, 2  # SubRefreshRequest.type


async def establish(
    client: Client, subscription: Subscription, channel: Channel, data: Raw
) -> SubscribeResult:
    """
    Join a shared poll and work out what the client is told; ``subscription.options`` must be set.

    Raises:
        Disconnect: 3004 when a backend fails.

    """
    node = client.node
    options = subscription.options
    subscription.tags_filter = subscription.own_filter = (
        None  # there is nothing that they choose from
    )
    try:
        if options.push_join_leave:
            await node.join(subscription)
        else:
            node.hub.hold(subscription)  # publications come by keys, not by the channel
        if options.presence:
            info = client.session.client_info(channel.name)
            await node.presence.add(channel.name, client.session.client_id, info)
    except EngineError as error:
        raise Disconnect(*errors.SERVER_ERROR) from error
    tracking = subscription.tracking = node.polls.open(channel)
    return SubscribeResult(
        type=SHARED_POLL_TYPE, epoch=tracking.epoch, delta=bool(options.delta), data=data
    )


async def change_tracking(
    client: Client, subscription: Subscription, request: SubRefreshRequest, command: Command
) -> Reply | None:
    """Carry out a ``sub_refresh`` that tracks or untracks keys."""
    channel = client.node.table.resolve(request.channel)
    if channel is None:
        raise UnknownChannelError
    if channel.options.type_number != SHARED_POLL_TYPE or subscription.tracking is None:
        raise PermissionDeniedError
    if request.type == UNTRACK:
        if not request.untrack:
            raise BadRequestError
        client.node.polls.untrack(subscription, request.untrack)
        return Reply(id=command.id, sub_refresh=SubRefreshResult())
    if request.type != TRACK:
        raise BadRequestError
    await _track(client, subscription, channel, request, command)
    return None


async def _track(
    client: Client,
    subscription: Subscription,
    channel: Channel,
    request: SubRefreshRequest,
    command: Command,
) -> None:
    polls, tracking = client.node.polls, subscription.tracking
    assert tracking is not None
    versions = _versions(request.track)
    limit = channel.options.shared_poll.max_keys_per_connection or DEFAULTS.max_keys_per_connection
    _check_limit(tracking.keys, versions, request.untrack, limit)
    until = _verify(client, channel, request.track)
    names = list(versions)
    try:
        polled = await polls.hold(channel, names)
    except EngineError as error:
        raise InternalError from error
    attached = False
    try:
        # While the broker was asked the subscription may have ended.
        if not subscription.is_established or subscription.tracking is None:
            raise PermissionDeniedError
        _check_limit(tracking.keys, versions, request.untrack, limit)
        sent = polled.newer(versions) if polled.plan.is_versioned else []
        result = _result(subscription, until.values(), sent, now=client.node.clock())
        client.send(Reply(id=command.id, sub_refresh=result))
        if client.is_closed:
            return
        tracking.keys.update(until)
        versions.update({publication.key: publication.version for publication in sent})
        attached = True
    finally:
        if not attached:
            polls.let_go(polled, names)
    polls.attach(subscription, polled, versions)
    polled.note_sent(client, sent)
    if polled.plan.is_versioned and polled.epoch != tracking.epoch:
        lose(subscription)
    elif request.untrack:
        polls.untrack(subscription, request.untrack)


def _versions(batches: Sequence[TrackBatch]) -> dict[str, int]:
    """Return the keys that are asked for, with the versions that the client has; the last batch wins."""
    versions = {item.key: item.version for batch in batches for item in batch.items}
    if not batches or any(not batch.items for batch in batches):
        raise BadRequestError
    if any(version < 0 for version in versions.values()):
        raise BadRequestError
    return versions


def _check_limit(
    tracked: Mapping[str, int], wanted: Mapping[str, int], untracked: Sequence[str], limit: int
) -> None:
    total = tracked.keys() | wanted.keys()
    if len(total) > limit and len(total.difference(untracked)) > limit:
        raise LimitExceededError


def _verify(client: Client, channel: Channel, batches: Sequence[TrackBatch]) -> dict[str, int]:
    """
    Check every batch's signature.

    Returns:
        Until when each key may be tracked, in Unix seconds; 0 for ever.

    Raises:
        PermissionDeniedError, TokenExpiredError: One is no good, and so none is taken.
        InternalError: There is no key to check with.

    """
    node = client.node
    options = node.options.shared_poll
    if not options.hmac_secret_key:
        raise InternalError
    secrets = PollSecrets(
        options.hmac_secret_key,
        options.hmac_previous_secret_key,
        options.hmac_previous_secret_key_valid_until,
    )
    until: dict[str, int] = {}
    for batch in batches:
        keys = [item.key for item in batch.items]
        try:
            expire_at = verify_batch(
                batch.signature,
                secrets,
                user=client.session.user,
                channel=channel.name,
                keys=keys,
                now=node.clock(),
            )
        except TokenExpired as error:
            raise TokenExpiredError from error
        except TokenInvalid as error:
            raise PermissionDeniedError from error
        until.update(dict.fromkeys(keys, expire_at))
    return until


def _result(
    subscription: Subscription, until: Iterable[int], sent: Sequence[Publication], *, now: float
) -> SubRefreshResult:
    """Say when the first key ends, and give what is newer."""
    result = SubRefreshResult(items=_as_sent(subscription, sent))
    ends = [each for each in until if each]
    if ends:
        result.expires, result.ttl = True, max(int(min(ends) - now), 0)
    return result


def _as_sent(subscription: Subscription, sent: Sequence[Publication]) -> list[Publication]:
    is_json = subscription.client.wire.is_json
    try:
        if subscription.options.delta:
            return [as_document(publication, is_json=is_json) for publication in sent]
    except InvalidPayloadError as error:
        raise Disconnect(*errors.INAPPROPRIATE_PROTOCOL) from error
    return list(sent)
