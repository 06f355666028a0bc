"""Lines on logarithmic axes, as a drawing for the documentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

__all__ = ["Panels", "draw", "write"]

Point = Tuple[float, float]
Panels = Dict[str, Dict[str, List[Point]]]
"""The lines of each panel by its title: points by the name of the client."""

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 300, 56, 110, 40, 34
_INK, _COLORS = "#555", ("#4477aa", "#ee6677", "#228833", "#aa3377")


def write(panels: Panels, path: Path) -> None:
    """Write the drawing to ``path``."""
    path.write_text(draw(panels), encoding="utf-8")


def draw(panels: Panels) -> str:
    """One panel below the other; both axes of each are logarithmic."""
    height = _HEIGHT * len(panels)
    frame = f'viewBox="0 0 {_WIDTH} {height}" role="img" font-family="sans-serif" font-size="12" fill="{_INK}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>', f"<title>{'; '.join(panels)}</title>"]
    for number, (title, lines) in enumerate(panels.items()):
        parts.append(f'<g transform="translate(0 {number * _HEIGHT})"><text x="{_LEFT}" y="20">{title}</text>')
        parts += _panel(lines) if lines else []
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _panel(lines: Dict[str, List[Point]]) -> List[str]:
    xs, ys = (_decades([point[axis] for points in lines.values() for point in points]) for axis in (0, 1))
    parts = [
        f'<text x="{_place(x, xs, 0):.0f}" y="{_HEIGHT - 14}" text-anchor="middle">{x:,g}</text>' for x in _ticks(xs)
    ]
    for y in _ticks(ys):
        at = _place(y, ys, 1)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:,g}</text>')
    ends = _spread_out({name: _place(points[-1][1], ys, 1) for name, points in lines.items()})
    for color, (name, points) in zip(_COLORS, lines.items()):
        placed = [f"{_place(x, xs, 0):.1f},{_place(y, ys, 1):.1f}" for x, y in points]
        parts.append(f'<polyline points="{" ".join(placed)}" fill="none" stroke="{color}" stroke-width="2"/>')
        x = _place(points[-1][0], xs, 0) + 6
        parts.append(f'<text x="{x:.1f}" y="{ends[name] + 4:.1f}" fill="{color}">{name}</text>')
    return parts


def _spread_out(heights: Dict[str, float]) -> Dict[str, float]:
    """Return where names stand that would otherwise lie upon each other."""
    placed: Dict[str, float] = {}
    last = -math.inf
    for name in sorted(heights, key=heights.__getitem__):
        last = placed[name] = max(heights[name], last + 14)
    return placed


def _decades(values: Sequence[float]) -> Tuple[int, int]:
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _ticks(decades: Tuple[int, int]) -> List[float]:
    return [10.0**power for power in range(decades[0], decades[1] + 1)]


def _place(value: float, decades: Tuple[int, int], axis: int) -> float:
    low, high = decades
    share = (math.log10(value) - low) / max(1, high - low)
    return (
        _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        if axis == 0
        else _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
    )
