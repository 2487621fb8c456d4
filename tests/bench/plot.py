"""
The recorded curves as an SVG file: two panels, drawn by hand so that no plotting library is needed.

The left axis of each panel begins at 0 or is logarithmic, as the panel says; what can't be seen by the height of a
point is written beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape


WIDTH, HEIGHT = 880, 420
_PANEL_WIDTH, _PANEL_TOP, _PANEL_BOTTOM = 350, 96, 316
_LEFTS = (64, 500)
_INK, _FAINT, _GRID, _LINE, _CARD = "#1f2933", "#5b6875", "#e3e8ed", "#0b6e8a", "#ffffff"

Point = tuple[float, float]
Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Panel:
    """
    One curve.

    Attributes:
        points: ``(x, y)``, ascending by x; x is on a logarithmic axis.
        is_log: Whether y is on one, too; else y begins at 0.

    """

    title: str
    x_label: str
    points: Sequence[Point]
    is_log: bool


def draw(panels: Sequence[Panel], title: str, notes: Sequence[str]) -> str:
    """Return the file's text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{_CARD}"/>',
        _text(24, 34, title, size=17, weight=600),
    ]
    for left, panel in zip(_LEFTS, panels, strict=False):
        parts += _panel(left, panel)
    for number, note in enumerate(notes):
        parts.append(_text(24, HEIGHT - 30 + 17 * number, note, size=12, color=_FAINT))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _panel(left: float, panel: Panel) -> list[str]:
    xs = [x for x, _ in panel.points]
    ys = [y for _, y in panel.points]
    across = _log_scale(min(xs), max(xs), left + 14, left + _PANEL_WIDTH - 26)
    if panel.is_log:
        low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))
        up = _log_scale(low, high, _PANEL_BOTTOM, _PANEL_TOP)
        ticks = _powers(low, high)
    else:
        ticks = _round_ticks(max(ys) * 1.25)
        up = _linear_scale(ticks[-1], _PANEL_BOTTOM, _PANEL_TOP)
    parts = [_text(left - 40, 70, panel.title, size=13, weight=600)]
    for tick in ticks:
        y = up(tick)
        parts.append(
            f'<line x1="{left}" x2="{left + _PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>'
        )
        parts.append(_text(left - 8, y + 4, _short(tick), anchor="end", color=_FAINT))
    parts += [
        _text(across(x), _PANEL_BOTTOM + 18, _short(x), anchor="middle", color=_FAINT) for x in xs
    ]
    middle = left + _PANEL_WIDTH / 2
    parts.append(_text(middle, _PANEL_BOTTOM + 36, panel.x_label, anchor="middle", color=_FAINT))
    line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in panel.points)
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="2" stroke-linejoin="round"/>'
    )
    for x, y in panel.points:
        parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="4" fill="{_LINE}"/>')
        label = f"{y:.3g}" if y < 100 else f"{y:.0f}"
        # The line may run behind the figure.
        figure = _text(across(x) + 2, up(y) - 10, label, anchor="middle", weight=600)
        parts.append(f'<g paint-order="stroke" stroke="{_CARD}" stroke-width="4">{figure}</g>')
    return parts


def _log_scale(low: float, high: float, start: float, end: float) -> Scale:
    if low == high:
        return lambda _: (start + end) / 2
    span = math.log10(high / low)
    return lambda value: start + (end - start) * math.log10(value / low) / span


def _linear_scale(high: float, start: float, end: float) -> Scale:
    return lambda value: start + (end - start) * value / high


def _powers(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    return [10.0**exponent for exponent in range(first, last + 1)]


def _round_ticks(high: float) -> list[float]:
    """Return from 3 to 6 round numbers, 0 first, the last one not below ``high``."""
    unit = 10 ** math.floor(math.log10(high))
    step = next(step for step in (unit / 5, unit / 2, unit, unit * 2) if high / step <= 5)
    return [step * number for number in range(math.ceil(high / step) + 1)]


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    weight: int = 400,
    anchor: str = "start",
    color: str = _INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{color}">{escape(text)}</text>'
    )


def draw_record(record: Mapping[str, Any]) -> str:
    """
    Draw what is recorded so far.

    Args:
        record: As ``bench.json`` has it: ``subscribers`` and ``channels``, each ``[{"x": ..., "cpu_us": ...}, ...]``,
            perhaps ``memory``, and ``machine`` and ``versions``.

    """
    panels = []
    if points := record.get("subscribers"):
        title = "Server CPU for a delivery, µs (logarithmic)"
        panels.append(Panel(title, "subscribers of one channel", _points(points), is_log=True))
    if points := record.get("channels"):
        title = "Server CPU for a publication and its delivery, µs"
        panels.append(
            Panel(title, "channels that have a subscriber", _points(points), is_log=False)
        )
    machine, versions = record["machine"], record["versions"]
    notes = [
        f"{machine['cores']} cores, {machine['cpu']}; Tidewire {versions['tidewire']}, Python {versions['python']}, "
        f"one process, memory engine; make bench"
    ]
    if memory := record.get("memory"):
        notes.insert(
            0, f"{memory['sockets']:,} idle sockets: {memory['kb_per_socket']:.1f} KB each"
        )
    return draw(panels, "What a message costs as the audience grows", notes)


def _points(points: Sequence[Mapping[str, float]]) -> list[Point]:
    return [(each["x"], each["cpu_us"]) for each in points]
