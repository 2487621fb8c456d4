"""Charts as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.bench.timeline import Panel, Series, render, ticks


SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_has_a_line_for_each_series() -> None:
    """Within its panel, the largest value at the top; texts are escaped."""
    panel = Panel("ms & more", [Series("a<b", [(0, 0), (1, 4)]), Series("c", [(0, 2), (1, 2)])])

    root = ET.fromstring(render("title", "x", [panel]))

    lines = [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    (left, bottom), (right, top) = lines[0]
    assert left < right
    assert top < lines[1][0][1] == lines[1][1][1] < bottom
    assert {"ms & more", "a<b", "c", "title", "x"} <= {
        text.text for text in root.iter(f"{SVG}text")
    }


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0, 4, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 440, [0, 100, 200, 300, 400]),
    ],
)
def test_ticks_are_round_numbers(first: float, last: float, expected: list[float]) -> None:
    """From the first to the last, none outside."""
    assert ticks(first, last) == expected


def test_nothing_to_draw_is_an_error() -> None:
    """Not an empty picture."""
    with pytest.raises(ValueError, match="nothing"):
        render("title", "x", [Panel("y", [])])
