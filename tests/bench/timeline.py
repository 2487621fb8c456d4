"""Charts of what happened over time, as SVG: panels one above the other, over one horizontal axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


WIDTH, PANEL_HEIGHT = 760, 190
_LEFT, _RIGHT, _TOP, _GAP, _BOTTOM = 64, 16, 46, 40, 44
_COLORS = ("#2563eb", "#d97706", "#059669", "#dc2626")
_TEXT, _GRID = "#334155", "#e2e8f0"
_TICKS = 8

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line, its points in the order of x."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: what its vertical axis shows, and its lines."""

    label: str
    series: Sequence[Series]


def render(title: str, x_label: str, panels: Sequence[Panel]) -> str:
    """
    Draw the panels; all have the same x axis, and y axes that begin at 0.

    Raises:
        ValueError: There is no point in any of the panels.

    """
    xs = [x for panel in panels for series in panel.series for x, _ in series.points]
    if not xs:
        raise ValueError("nothing to draw")
    first, last = min(xs), max(xs)
    height = _TOP + len(panels) * (PANEL_HEIGHT + _GAP) - _GAP + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" fill="{_TEXT}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(_LEFT, 22, title, size=15),
    ]
    for number, panel in enumerate(panels):
        top = _TOP + number * (PANEL_HEIGHT + _GAP)
        parts += _panel(panel, top, first, last)
    bottom = height - _BOTTOM
    for tick in ticks(first, last):
        parts.append(_text(_x(tick, first, last), bottom + 16, f"{tick:g}", anchor="middle"))
    parts.append(_text(WIDTH / 2, bottom + 34, x_label, anchor="middle"))
    return "\n".join([*parts, "</svg>", ""])


def ticks(first: float, last: float) -> list[float]:
    """Return some round numbers from ``first`` to ``last``."""
    span = last - first or 1.0
    raw = span / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    count = math.floor(last / step) - math.ceil(first / step) + 1
    return [round((math.ceil(first / step) + number) * step, 10) for number in range(count)]


def _x(value: float, first: float, last: float) -> float:
    return _LEFT + (value - first) / (last - first or 1.0) * (WIDTH - _LEFT - _RIGHT)


def _panel(panel: Panel, top: float, first: float, last: float) -> list[str]:
    most = max((y for series in panel.series for _, y in series.points), default=0) or 1.0

    def place(y: float) -> float:
        return top + PANEL_HEIGHT * (1 - y / most)

    parts = [_text(_LEFT, top - 6, panel.label)]
    for tick in ticks(0, most):
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place(tick):.1f}" y2="{place(tick):.1f}" '
            f'stroke="{_GRID}"/>'
        )
        parts.append(_text(_LEFT - 8, place(tick) + 4, f"{tick:g}", anchor="end"))
    for number, series in enumerate(panel.series):
        color = _COLORS[number % len(_COLORS)]
        points = " ".join(f"{_x(x, first, last):.1f},{place(y):.1f}" for x, y in series.points)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        )
        parts.append(
            _text(WIDTH - _RIGHT, top - 6 + 14 * number, series.name, anchor="end", fill=color)
        )
    return parts


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, fill: str = _TEXT
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">'
        f"{escape(text)}</text>"
    )
