"""How one channel is polled: its namespace's options with the defaults filled in, captured when its polling begins."""

from __future__ import annotations

from dataclasses import dataclass

from realtime.namespaces.options import SharedPollOptions


DEFAULTS = SharedPollOptions()
DEFAULT_PROXY = "default"


@dataclass(frozen=True, slots=True)
class PollPlan:
    """
    One channel's options; seconds are floats.

    ``notice_size`` and ``notice_delay`` say when keys of notifications are polled: as soon as there are so many, or so late;
    at once where both are 0.
    """

    proxy_name: str
    interval: float
    batch_size: int
    is_versioned: bool
    shutdown_delay: float
    expiry_delay: float
    has_publish: bool
    keeps_data: bool
    max_interval: float
    notice_size: int
    notice_delay: float


def plan_of(options: SharedPollOptions, notice_size: int = 0, notice_delay: float = 0) -> PollPlan:
    """Fill in what a namespace leaves open; the last two are the values for all namespaces."""
    size, delay = options.notification.batch_max_size, options.notification.batch_max_delay
    interval = options.refresh_interval or DEFAULTS.refresh_interval
    return PollPlan(
        proxy_name=options.proxy_name or DEFAULT_PROXY,
        interval=interval,
        batch_size=options.refresh_batch_size or DEFAULTS.refresh_batch_size,
        is_versioned=options.mode == "versioned",
        shutdown_delay=options.channel_shutdown_delay,
        expiry_delay=options.track_expired_extra_delay,
        has_publish=options.publish_enabled,
        keeps_data=options.keep_latest_data,
        max_interval=max(options.backpressure_max_interval, interval)
        if options.backpressure_max_interval
        else interval,
        notice_size=size or notice_size,
        notice_delay=delay or notice_delay,
    )


def next_interval(plan: PollPlan, current: float, work: float) -> float:
    """
    Return the seconds of the next cycle, by how long calls of this one were under way.

    Busy for less than half of its time a channel comes back to what was configured by quarters; up to all of it, it slows down in
    proportion; beyond that it doubles.
    """
    if plan.max_interval <= plan.interval:
        return plan.interval
    load = work / current
    if load < 0.5:
        wanted = current * 0.75
    elif load <= 1:
        wanted = current * (0.5 + load)
    else:
        wanted = current * 2
    return min(max(wanted, plan.interval), plan.max_interval)
