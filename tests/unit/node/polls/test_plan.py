"""How often a channel is polled."""

from __future__ import annotations

import pytest

from realtime.namespaces.options import NotificationOptions, SharedPollOptions
from realtime.node.polls.plan import next_interval, plan_of


def test_what_is_left_open_has_the_default():
    """0 means the default, as in a configuration file."""
    plan = plan_of(SharedPollOptions(refresh_interval=0, refresh_batch_size=0), 7, 3.0)

    assert (plan.interval, plan.batch_size, plan.proxy_name) == (10.0, 1000, "default")
    assert not plan.is_versioned
    assert (plan.notice_size, plan.notice_delay) == (7, 3.0)


def test_a_namespace_s_own_batches_count():
    """They replace the values for all."""
    own = SharedPollOptions(notification=NotificationOptions(batch_max_size=2, batch_max_delay=1.0))

    plan = plan_of(own, 7, 3.0)

    assert (plan.notice_size, plan.notice_delay) == (2, 1.0)


@pytest.mark.parametrize(
    ("current", "work", "expected"),
    [
        (10, 1, 10),  # idle: what is configured
        (20, 5, 15),  # back by a quarter
        (12, 1, 10),
        (10, 7.5, 12.5),  # in proportion
        (10, 10, 15),
        (10, 11, 20),  # overrun: doubled
        (30, 31, 40),  # no further than this
    ],
)
def test_the_interval_follows_the_load(current, work, expected):
    """Between what is configured and the maximum."""
    plan = plan_of(SharedPollOptions(backpressure_max_interval=40.0))

    assert next_interval(plan, current, work) == expected


def test_without_a_maximum_it_stays():
    """Whatever the load."""
    assert next_interval(plan_of(SharedPollOptions()), 10, 100) == 10
