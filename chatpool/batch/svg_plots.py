"""Plots as SVG: bars over an axis of numbers, lines and areas over it, and bars by name.

Colours are CSS classes of the page that shows them, so that a plot follows its light or dark scheme and can be printed.
"""

from __future__ import annotations

import html
import math
from typing import List, NamedTuple, Sequence, Tuple

__all__ = ["Axis", "Bars", "Line", "Marker", "draw", "draw_by_name"]

_WIDTH, _HEIGHT = 560.0, 250.0  # in units of the view box; the page scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 46.0, 12.0, 40.0
_MOST_TICKS = 6
_ROW_HEIGHT = 44.0  # of bars by name: the name, and the bar below it
_LONGEST_NAME_CHARACTERS = 40


class Axis(NamedTuple):
    """The horizontal axis.

    Attributes:
        start, end: its numbers; slots divide it evenly.
        title: what it shows, with its unit.
    """

    start: float
    end: float
    title: str


class Bars(NamedTuple):
    """A bar for each slot, standing on the bars before it.

    Attributes:
        heights: one for each slot.
        style: the CSS class.
        name: what it counts, for the legend and the tooltips.
    """

    heights: Sequence[float]
    style: str
    name: str


class Line(NamedTuple):
    """A value for each slot.

    Attributes:
        values: one for each slot.
        style: the CSS class.
        name: for the legend.
        is_area: fill what is below it.
        on_the_right: measure it by an axis of its own, at the right.
    """

    values: Sequence[float]
    style: str
    name: str
    is_area: bool = False
    on_the_right: bool = False


class Marker(NamedTuple):
    """A dotted line at a number of the horizontal axis, with a label."""

    at: float
    label: str


def draw(
    axis: Axis, title: str, bars: Sequence[Bars] = (), lines: Sequence[Line] = (), markers: Sequence[Marker] = ()
) -> str:
    """Draw bars, lines or both over one axis.

    Args:
        axis: the horizontal one.
        title: what the vertical axis shows.
        bars, lines: what is drawn; all have as many slots.
        markers: vertical lines.

    Returns:
        An ``<svg>`` element.
    """
    stacked = [sum(heights) for heights in zip(*(each.heights for each in bars))]
    left_top = max([*stacked, *(value for line in lines if not line.on_the_right for value in line.values), 0.0])
    right_top = max([value for line in lines if line.on_the_right for value in line.values] or [0.0])
    parts = _grid(axis, title, _rounded_up(left_top))
    parts += _bars(axis, bars, _rounded_up(left_top))
    for line in lines:
        parts += _line(line, _rounded_up(right_top if line.on_the_right else left_top))
    if any(line.on_the_right for line in lines):
        parts += _right_axis(_rounded_up(right_top), next(line.name for line in lines if line.on_the_right))
    parts += [_marker(axis, marker, row) for row, marker in enumerate(markers)]
    named = [(bar.style, bar.name) for bar in bars] + [(line.style, line.name) for line in lines]
    return _svg(_HEIGHT, title, parts) + (_legend(named) if len(named) > 1 else "")


def draw_by_name(counts: Sequence[Tuple[str, int]], style: str, title: str) -> str:
    """Draw a horizontal bar for each name, below it, with its count beside it."""
    most = max((count for _, count in counts), default=1)
    length = _WIDTH - 90
    parts = []
    for row, (name, count) in enumerate(counts):
        y = row * _ROW_HEIGHT + 4
        shown = name if len(name) <= _LONGEST_NAME_CHARACTERS else name[: _LONGEST_NAME_CHARACTERS - 1] + "…"
        parts.append(
            f"<g><title>{html.escape(name)}: {count:,}</title>"
            f'<text class="label" x="0" y="{y + 14:.0f}">{html.escape(shown)}</text>'
            f'<rect class="{style}" x="0" y="{y + 20:.0f}" width="{max(length * count / most, 1):.1f}"'
            f' height="14" rx="2"/>'
            f'<text x="{length * count / most + 6:.1f}" y="{y + 32:.0f}">{count:,}</text></g>'
        )
    return _svg(len(counts) * _ROW_HEIGHT + 4, title, parts)


def _rounded_up(top: float) -> float:
    step = _step(top)
    return max(math.ceil(top / step) * step, step)


def _step(span: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides the span into few enough steps."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / _MOST_TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= _MOST_TICKS + 1e-9)


def _ticks(start: float, end: float) -> List[float]:
    step = _step(end - start)
    first = math.ceil(start / step - 1e-9)
    return [number * step for number in range(first, math.floor(end / step + 1e-9) + 1)]


def _label(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value / 1_000_000:g} M" if abs(value) >= 1_000_000 else f"{value / 1000:g} k"
    return f"{value:g}"


def _x(axis: Axis, value: float) -> float:
    share = (value - axis.start) / ((axis.end - axis.start) or 1.0)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)


def _grid(axis: Axis, title: str, top: float) -> List[str]:
    parts = []
    for value in _ticks(0.0, top):
        y = _y(value, top)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_label(value)}</text>')
    below = _HEIGHT - _BOTTOM
    for value in _ticks(axis.start, axis.end):
        x = _x(axis, value)
        parts.append(f'<text x="{x:.1f}" y="{below + 16}" text-anchor="middle">{_label(round(value, 9))}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{html.escape(axis.title)}</text>')
    parts.append(_sideways(12, title))
    return parts


def _sideways(x: float, words: str) -> str:
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    place = f'class="side" transform="translate({x},{middle}) rotate(-90)" text-anchor="middle"'
    return f"<text {place}>{html.escape(words)}</text>"


def _right_axis(top: float, title: str) -> List[str]:
    parts = [
        f'<text x="{_WIDTH - _RIGHT + 6}" y="{_y(value, top) + 4:.1f}">{_label(value)}</text>'
        for value in _ticks(0.0, top)
    ]
    return [*parts, _sideways(_WIDTH - 4, title)]


def _bars(axis: Axis, bars: Sequence[Bars], top: float) -> List[str]:
    if not bars:
        return []
    slots = len(bars[0].heights)
    width = (_WIDTH - _LEFT - _RIGHT) / slots
    slot_span = (axis.end - axis.start) / slots
    parts = []
    for slot in range(slots):
        foot = 0.0
        for each in bars:
            height = each.heights[slot]
            if height > 0:
                words = f"{each.name}: {height:,.4g} at {axis.start + slot * slot_span:,.4g} {axis.title}"
                y = _y(foot + height, top)
                parts.append(
                    f'<rect class="{each.style}" x="{_LEFT + slot * width:.1f}" y="{y:.1f}"'
                    f' width="{max(width - 0.6, 0.4):.1f}" height="{max(_y(foot, top) - y, 0.5):.1f}">'
                    f"<title>{html.escape(words)}</title></rect>"
                )
                foot += height
    return parts


def _line(line: Line, top: float) -> List[str]:
    width = (_WIDTH - _LEFT - _RIGHT) / len(line.values)
    path: List[str] = []
    for slot, value in enumerate(line.values):
        left, y = _LEFT + slot * width, _y(value, top)
        path.append(f"{'L' if path else 'M'}{left:.1f},{y:.1f} L{left + width:.1f},{y:.1f}")
    drawn = " ".join(path)
    if not line.is_area:
        return [f'<path class="line {line.style}" d="{drawn}"/>']
    foot = _y(0.0, top)
    closed = f"M{_LEFT},{foot:.1f} L{drawn[1:]} L{_WIDTH - _RIGHT:.1f},{foot:.1f} Z"
    return [f'<path class="area {line.style}" d="{closed}"/>', f'<path class="line {line.style}" d="{drawn}"/>']


def _marker(axis: Axis, marker: Marker, row: int) -> str:
    x = _x(axis, marker.at)
    turned = ' text-anchor="end"' if x > _WIDTH * 0.7 else ""
    shift = -4 if turned else 4
    return (
        f'<line class="marker" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        f'<text x="{x + shift:.1f}" y="{_TOP + 8 + 14 * row}"{turned}>{html.escape(marker.label)}</text>'
    )


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    drawn = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{html.escape(title, quote=True)}">\n'
        f"{drawn}\n</svg>"
    )


def _legend(named: Sequence[Tuple[str, str]]) -> str:
    keys = "".join(f'<span><i class="{style}"></i>{html.escape(name)}</span>' for style, name in named)
    return f'<div class="legend">{keys}</div>'
