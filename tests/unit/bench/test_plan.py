"""Who holds what, and what has to arrive."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.bench.plan import SCENARIOS, Plan, PlanError, Sizes, make_plan, with_variants


counts = st.integers(1, 40)


@given(st.sampled_from(["fanout", "channels"]), counts, counts, st.integers(1, 100))
def test_deliveries_are_those_of_publishing_in_turn(scenario, clients, channels, publications):
    """Counting publication by publication gives what each socket, and all together, are said to be owed."""
    plan = Plan(scenario, clients, channels, publications, publishers=3)
    held = {socket: list(plan.channels_of(socket)) for socket in range(clients)}

    owed: Counter[int] = Counter()
    for number in range(publications):
        owed.update(socket for socket, own in held.items() if number % channels in own)

    assert [plan.expected_by(socket) for socket in range(clients)] == [
        owed[socket] for socket in range(clients)
    ]
    assert plan.deliveries == owed.total()


@given(counts, counts)
def test_every_socket_and_every_channel_is_used(clients, channels):
    """None is left out, and none is held twice by the same socket."""
    plan = Plan("fanout", clients, channels, publications=1, publishers=1)

    pairs = [(socket, each) for socket in range(clients) for each in plan.channels_of(socket)]

    assert {socket for socket, _ in pairs} == set(range(clients))
    assert {each for _, each in pairs} == set(range(channels))
    assert len(set(pairs)) == len(pairs) == max(clients, channels)


def test_inbound_publications_come_back_to_all_who_share_the_channel():
    """Three sockets on two channels, each publishes five times."""
    plan = Plan("inbound", clients=3, channels=2, publications=5, publishers=1)

    assert [plan.expected_by(socket) for socket in range(3)] == [10, 5, 10]
    assert plan.deliveries == 25


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_has_sizes_of_its_own(scenario):
    """And within the bounds."""
    assert make_plan(scenario, Sizes()).scenario == scenario


def test_a_channel_for_each_socket_follows_the_number_of_sockets():
    """Unless channels are given, too; one channel stays one."""
    assert make_plan("channels", Sizes(clients=50)).channels == 50
    assert make_plan("connect", Sizes(clients=50)).channels == 50
    assert make_plan("channels", Sizes(clients=50, channels=10)).channels == 10
    assert make_plan("fanout", Sizes(clients=50)).channels == 1


@pytest.mark.parametrize(
    ("scenario", "sizes", "text"),
    [
        ("fanout", Sizes(clients=0), "clients 0: expected 1 to 100,000"),
        ("fanout", Sizes(clients=100_001), "clients 100001: expected"),
        ("fanout", Sizes(others={"rate": float("nan")}), "rate nan: expected"),
        (
            "fanout",
            Sizes(others={"max_seconds": float("inf")}),
            "max_seconds inf: expected 1 to 600",
        ),
        (
            "fanout",
            Sizes(clients=100_000, publications=1000),
            "100,000,000 deliveries are more than",
        ),
        (
            "fanout",
            Sizes(publications=601, others={"rate": 10.0}),
            "601 publications at 10 a second take longer than the 60 s",
        ),
        ("inbound", Sizes(clients=2, channels=3), "3 channels for 2 clients"),
        ("fanout", Sizes(others={"filters": 10_001}), "filters 10001: expected 0 to 10,000"),
    ],
)
def test_too_much_is_refused(scenario, sizes, text):
    """The text names what and how much it may be."""
    with pytest.raises(PlanError, match=text):
        make_plan(scenario, sizes)


def test_variants_come_after_the_plain_run_and_change_what_is_asked_for():
    """Deltas and filters each on their own; equal sizes, so that they can be compared."""
    plain, deltas, filters = with_variants(make_plan("fanout", Sizes()), delta=True, filters=3)

    assert [each.variant for each in (plain, deltas, filters)] == ["", "delta", "3 filters"]
    assert plain.deliveries == deltas.deliveries == filters.deliveries
    assert (plain.request_of(1), plain.publish_options) == ({}, "")
    assert deltas.request_of(1) == {"delta": "fossil"}
    assert deltas.publish_options == ',"delta":true'
    wanted = [filters.request_of(socket)["tf"]["val"] for socket in range(6)]
    assert len(set(wanted)) == 3
    assert wanted[:3] == wanted[3:]
    assert filters.publish_options == ',"tags":{"kind":"bench"}'


@pytest.mark.parametrize("scenario", ["publish", "connect", "inbound"])
def test_scenarios_without_variants_are_carried_out_once(scenario):
    """They have no subscriptions that count, or no publications over HTTP."""
    plan = make_plan(scenario, Sizes())

    assert with_variants(plan, delta=True, filters=100) == [plan]
