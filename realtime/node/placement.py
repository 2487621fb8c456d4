"""
Which cohort a subscription belongs to, and how it moves from one to another.

A subscription is *held* while it is looked after on its own (``Room.held``), and *live* in a cohort. It steps in once it is
in step and its reader keeps up, and steps out when either ends. Those of one stage turn into the next one's together.

Order is kept by three rules. A member that comes finds nothing pending (the room is flushed first), and nothing gathered;
a member that goes takes both with it; and whatever a connection's own command wrote leaves before it joins a cohort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.node.batching import BatchCohort
from realtime.node.rooms import FIRST_OF, Cohort, CohortKey, Form, Room, form_of, is_variant
from realtime.session.subscription import Subscription, SubscriptionState


if TYPE_CHECKING:
    from realtime.client.client import Client
    from realtime.node.batching import Batches

LIVE, HELD = SubscriptionState.LIVE, SubscriptionState.HELD


def step_in(
    room: Room, subscription: Subscription, batches: Batches, *, can_release: bool = False
) -> None:
    """
    Move a held subscription to its cohort if it is in step and its reader keeps up.

    It stays where it is while something is gathered for the others, unless that may be released.
    """
    client = subscription.client
    if client.is_paused or (subscription.is_positioned and subscription.ahead > room.offset):
        return
    if room.extras is not None and not _can_gather(room, subscription, batches, can_release):
        return
    # What this client was answered in the same tick must leave before the cohort's writes, which
    # go straight to the transport.
    client.uncork()
    if client.is_paused:  # what left just now filled its buffer
        return
    room.flush()
    if is_variant(subscription):
        cohort = _variant(room, _key_of(room, subscription), batches)
    else:
        plain = room.cohorts.get(client.wire)
        if plain is None:
            plain = room.cohorts[client.wire] = Cohort(client.wire, room.head(client.wire, None))
        cohort = plain
    cohort.writes[client] = client.direct_write
    if room.held is not None:
        room.held.pop(client, None)
        if not room.held:
            room.held = None
    subscription.state = LIVE


def step_out(room: Room, subscription: Subscription, batches: Batches) -> None:
    """Hold a live subscription from now on."""
    leave_cohort(room, subscription, batches)
    subscription.state = HELD
    subscription.ahead = room.offset
    room.hold(subscription)


def leave_cohort(room: Room, subscription: Subscription, batches: Batches) -> None:
    """Take a live subscription out of its cohort, with what is pending for it."""
    client = subscription.client
    if is_variant(subscription):
        _leave_variant(room, subscription, batches)
        return
    cohort = room.cohorts[client.wire]
    _leave(cohort, client)
    if not cohort.writes:
        del room.cohorts[client.wire]


def turn(room: Room, form: Form, into: Form) -> None:
    """Move all subscribers of one stage to another, those of each wire together."""
    variants = room.variants
    assert variants is not None
    turning = [cohort for cohort in variants.values() if cohort.form is form]
    if any(
        (each.wire, into, each.tags_filter, each.manner) in variants for each in turning
    ):  # what is pending differs
        for each in variants.values():
            if isinstance(each, BatchCohort) and each.form in (form, into):
                each.release()
        room.flush()
    for cohort in turning:
        if not cohort.writes:
            continue  # a flush that met a full buffer moved the last one out
        del variants[cohort.wire, form, cohort.tags_filter, cohort.manner]
        key = (cohort.wire, into, cohort.tags_filter, cohort.manner)
        there = variants.get(key)
        if there is None:
            cohort.form = into
            variants[key] = cohort
        else:
            there.writes.update(cohort.writes)


def alone_of(room: Room, subscription: Subscription, batches: Batches) -> BatchCohort:
    """Return what gathers for one subscription."""
    alone = room.more().alone
    client = subscription.client
    cohort = alone.get(client)
    if cohort is None:
        manner = subscription.options.manner
        assert manner is not None
        form = form_of(subscription)
        cohort = batches.cohort(room, client.wire, form, None, manner, is_shared=False)
        cohort.writes[client] = client.write_checked
        alone[client] = cohort
    return cohort


def _can_gather(
    room: Room, subscription: Subscription, batches: Batches, can_release: bool
) -> bool:
    """Say whether a cohort has nothing gathered that isn't a newcomer's; what is gathered for that one leaves now."""
    extras = room.extras
    assert extras is not None
    if not extras.has_batches:
        return True
    key = _key_of(room, subscription)
    there = room.variants.get(key) if room.variants else None
    if isinstance(there, BatchCohort) and there.has_gathered:
        if not can_release:
            return False
        batches.release(there)
    alone = extras.alone.get(subscription.client)
    if alone is not None:
        alone.release()
        if alone.pending:
            alone.flush()  # before it is forgotten: a full buffer would leave the subscription held
        if subscription.client.is_paused or subscription.state is not HELD:
            return False
        del extras.alone[subscription.client]
    return True


def _key_of(room: Room, subscription: Subscription) -> CohortKey:
    """Say which variant a subscription that steps in belongs to."""
    form = form_of(subscription)
    if subscription.is_map:
        room.floor = max(room.floor, subscription.base)
    elif form is Form.IN_STEP and subscription.base != room.offset:
        form = Form.FRESH
    elif form is Form.FOLLOWING and not 0 < subscription.base == room.more().count:
        form = Form.STARTING
    return subscription.client.wire, form, subscription.tags_filter, subscription.options.manner


def _variant(room: Room, key: CohortKey, batches: Batches) -> Cohort:
    if room.variants is None:
        room.variants = {}
    cohort = room.variants.get(key)
    if cohort is None:
        wire, form, tags_filter, manner = key
        if manner is not None and manner.batching is not None:
            cohort = batches.cohort(room, wire, form, tags_filter, manner, is_shared=True)
        else:
            cohort = Cohort(wire, room.head(wire, manner), form, tags_filter, manner)
        room.variants[key] = cohort
    return cohort


def _leave_variant(room: Room, subscription: Subscription, batches: Batches) -> None:
    client = subscription.client
    assert room.variants is not None
    form = form_of(subscription)
    tags_filter, manner = subscription.tags_filter, subscription.options.manner
    key = client.wire, form, tags_filter, manner
    if form in FIRST_OF and not subscription.is_map:
        with_base = room.variants.get(key)
        if with_base is not None and client in with_base.writes:
            subscription.base = room.offset if form is Form.IN_STEP else room.more().count
        else:
            key = client.wire, FIRST_OF[form], tags_filter, manner
            subscription.base = 0
    cohort = room.variants[key]
    _leave(cohort, client)
    if not cohort.writes:
        del room.variants[key]
        if isinstance(cohort, BatchCohort) and cohort.has_gathered:
            # Those who wait for it to leave have nobody to wait for any more.
            batches.release(cohort)


def _leave(cohort: Cohort, client: Client) -> None:
    if not client.is_closed:
        owed = cohort.owed()
        if owed:
            client.write(owed)
    del cohort.writes[client]
