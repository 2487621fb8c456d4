"""The recorded curves become a picture."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.plot import HEIGHT, WIDTH, draw_record


ABOUT = {
    "machine": {"cores": 2, "cpu": "A <fast> one"},
    "versions": {"tidewire": "1", "python": "3"},
}
costs = st.floats(0.01, 10_000)


@given(st.lists(costs, min_size=1, max_size=6))
def test_every_point_is_drawn_inside_the_picture(values):
    """Whatever the machine's figures are."""
    points = [{"x": 10**number, "cpu_us": value} for number, value in enumerate(values)]

    text = draw_record({**ABOUT, "subscribers": points, "channels": points})

    root = ET.fromstring(text)
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 * len(values)
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < WIDTH
        assert 0 < float(circle.attrib["cy"]) < HEIGHT


@pytest.mark.parametrize("part", ["subscribers", "channels"])
def test_a_higher_cost_stands_higher(part):
    """On both kinds of axis."""
    points = [{"x": 1, "cpu_us": 80.0}, {"x": 10, "cpu_us": 5.0}]

    root = ET.fromstring(draw_record({**ABOUT, part: points}))

    dear, cheap = (
        float(each.attrib["cy"]) for each in root.findall("{http://www.w3.org/2000/svg}circle")
    )
    assert dear < cheap


def test_memory_is_told_where_it_was_measured():
    """And only there."""
    measured = {**ABOUT, "memory": {"sockets": 20_000, "kb_per_socket": 4.36}}

    assert "20,000 idle sockets: 4.4 KB each" in draw_record(measured)
    assert "idle sockets" not in draw_record(ABOUT)
