"""Figures for people and for programs."""

from __future__ import annotations

import json

import pytest

from realtime.bench import report
from realtime.bench.histogram import Histogram
from realtime.bench.plan import SCENARIOS, Plan, Sizes, make_plan
from realtime.bench.report import Result


def complete() -> Result:
    """Return a run in which all went well."""
    result = Result.of(Plan("fanout", 10, 1, 100, 4), [77])
    result.done, result.delivered, result.missing = 100, 1000, 0
    result.seconds, result.cpu_seconds, result.kb_per_socket = 0.5, 0.002, 3.25
    histogram = Histogram()
    histogram.add([1_000_000] * 99 + [64_000_000])
    result.set_latencies(histogram)
    return result


def test_rates_and_costs_are_by_unit():
    """1,000 deliveries in half a second by 2 ms of CPU time."""
    result = complete()

    assert result.per_second == 2000
    assert result.cpu_us == pytest.approx(2)
    assert result.is_complete
    assert result.problems() == []


def test_json_says_what_was_measured_and_how():
    """It reads back, with the facts of the run around the figures."""
    text = report.to_json({"command": "manage.py bench fanout"}, [complete()])

    content = json.loads(text)
    assert content["command"] == "manage.py bench fanout"
    (scenario,) = content["scenarios"]
    assert scenario["cpu_us_per_unit"] == 2
    assert scenario["per_second"] == 2000
    assert scenario["latency_ms"]["p50"] == pytest.approx(1, rel=0.005)
    assert scenario["latency_ms"]["p999"] == pytest.approx(64, rel=0.005)
    assert (scenario["owed"], scenario["delivered"], scenario["missing"]) == (1000, 1000, 0)
    assert scenario["pids"] == [77]
    assert scenario["is_complete"] is True


def test_the_table_has_a_line_for_each_scenario_and_is_markdown():
    """What is not known is a dash, not a zero."""
    bare = Result.of(Plan("publish", 1, 1, 100, 4), [])

    head, rule, first, second = report.to_table([complete(), bare]).splitlines()

    assert len({len(line) for line in (head, rule, first, second)}) == 1
    assert set(rule) == set("|-: ")
    assert [cell.strip() for cell in first.split("|")[1:-1]] == [
        "fanout", "10 x 1", "1,000", "delivery", "2,000", "2.00", "1.00", "1.00", "64.09", "3.2",
    ]  # fmt: skip
    assert [cell.strip() for cell in second.split("|")[6:-1]] == ["-", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"missing": 3}, "fanout: 3 of 1,000 deliveries are missing"),
        ({"surplus": 1}, "fanout: 1 deliveries came that nobody was owed"),
        ({"failed": 2}, "fanout: 2 of 100 failed"),
        (
            {"errors": ["the server closed with 3008 slow"]},
            "fanout: the server closed with 3008 slow",
        ),
    ],
)
def test_what_is_wrong_is_told(change, text):
    """A run with a loss, a repetition, a failure or an error is not complete."""
    result = complete()

    for name, value in change.items():
        setattr(result, name, value)

    assert not result.is_complete
    assert result.problems() == [text]


def test_until_it_is_counted_everything_is_missing():
    """A run that ends early can't look like a good one."""
    result = Result.of(Plan("fanout", 10, 1, 100, 4), [])

    assert result.missing == 1000
    assert not result.is_complete


def test_clients_without_a_moment_to_spare_are_told_of():
    """0.95 of two processes' second each is."""
    result = complete()
    result.client_processes, result.seconds = 2, 1.0

    result.client_cpu_seconds = 1.9
    assert result.is_bound_by_clients
    result.client_cpu_seconds = 1.0
    assert not result.is_bound_by_clients


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_has_a_unit(scenario):
    """What it is divided by has a name."""
    assert Result.of(make_plan(scenario, Sizes()), []).unit


def test_the_machine_is_described_without_its_name():
    """A result is meant to be shown."""
    box = report.machine()

    assert box["cores"] >= 1
    assert box["memory_gb"] > 0
    assert set(box) == {"cpu", "cores", "memory_gb", "system"}
