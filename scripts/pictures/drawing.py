"""Boxes, arrows and texts as SVG: readable on light and dark pages, with words for those who do not see them."""

from __future__ import annotations

import inspect
from html import escape
from typing import Callable, List, Sequence, Tuple

WIDTH = 560  # so that its texts can be read on a phone, where it is 340 pixels wide
TEXT_PIXELS = 15
SMALL_PIXELS = 13

# Kind of a shape -> (fill, stroke) on light ground, the same on dark.
_COLOURS = {
    "ground": ("#ffffff", "#d0d7de", "#161b22", "#3d444d"),
    "blue": ("#ddf4ff", "#0969da", "#121d2f", "#4493f8"),
    "green": ("#dafbe1", "#1a7f37", "#12261e", "#3fb950"),
    "amber": ("#fff8c5", "#9a6700", "#272115", "#d29922"),
    "red": ("#ffebe9", "#cf222e", "#2d171c", "#f85149"),
    "grey": ("#f6f8fa", "#8c959f", "#21262d", "#656c76"),
}
_INK, _SOFT = ("#1f2328", "#e6edf3"), ("#57606a", "#9198a1")

Point = Tuple[float, float]


class Picture:
    """A picture that grows shape by shape.

    Args:
        width, height: in pixels.
        title: what it shows, in a few words.
        description: all that it says, in sentences.
    """

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self._size = width, height
        self._words = title, description
        self._shapes: List[str] = []
        self.rect(0.5, 0.5, width - 1, height - 1, "ground", radius=8)

    def rect(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 5) -> None:
        """Draw a rectangle."""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self._shapes.append(f'<rect class="{kind}" {place} rx="{radius:g}"/>')

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        """Write a line.

        Args:
            x, y: where its base line starts, ends or has its middle, as ``anchor`` says.
            words: the line.
            style: any of ``soft``, ``small`` and ``bold``, and the kinds of shapes for their colours.
            anchor: ``"start"``, ``"middle"`` or ``"end"``.
        """
        anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
        styled = f' class="{style}"' if style else ""
        self._shapes.append(f'<text x="{x:g}" y="{y:g}"{styled}{anchored}>{escape(words)}</text>')

    def lines(self, x: float, y: float, words: Sequence[str], style: str = "small soft", anchor: str = "start") -> None:
        """Write lines below one another."""
        for number, line in enumerate(words):
            self.text(x, y + 17 * number, line, style, anchor)

    def box(self, x: float, y: float, width: float, height: float, label: str, kind: str = "blue") -> None:
        """Draw a rectangle with a word in its middle."""
        self.rect(x, y, width, height, kind)
        self.text(x + width / 2, y + height / 2 + 5, label, "bold", "middle")

    def arrow(self, *points: Point, kind: str = "grey") -> None:
        """Draw an arrow along the points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._shapes.append(f'<polyline class="arrow {kind}" points="{path}" marker-end="url(#head)"/>')

    def line(self, start: Point, end: Point, kind: str = "grey") -> None:
        """Draw a straight line."""
        ends = f'x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}"'
        self._shapes.append(f'<line class="{kind}" {ends}/>')

    def svg(self) -> str:
        """Return the picture as the text of a file."""
        width, height = self._size
        title, description = map(escape, self._words)
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        head = 'id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
            f'<title id="title">{title}</title>',
            f'<desc id="desc">{description}</desc>',
            f"<style>\n{_style()}\n</style>",
            f'<defs><marker {head}><path class="head" d="M0,0L8,4L0,8z"/></marker></defs>',
        ]
        return "\n".join([*lines, *self._shapes, "</svg>\n"])


def drawn(height: int) -> Callable[[Callable[[Picture], None]], Callable[[], Picture]]:
    """Make a picture of a function that draws on one: its docstring has the title, and below it the description."""

    def decorate(draw: Callable[[Picture], None]) -> Callable[[], Picture]:
        def make() -> Picture:
            title, _, description = inspect.getdoc(draw).partition("\n\n")
            picture = Picture(WIDTH, height, title.rstrip("."), " ".join(description.split()))
            draw(picture)
            return picture

        return make

    return decorate


def _style() -> str:
    fixed = [
        f"text {{ font: {TEXT_PIXELS}px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif }}",
        f"text.small {{ font-size: {SMALL_PIXELS}px }}",
        "text.bold { font-weight: 600 }",
        ".arrow { fill: none; stroke-width: 1.5 }",
    ]
    return "\n".join([*fixed, *_theme(0), "@media (prefers-color-scheme: dark) {", *_theme(1), "}"])


def _theme(dark: int) -> List[str]:
    rules = [f"text {{ fill: {_INK[dark]} }}", f"text.soft {{ fill: {_SOFT[dark]} }}"]
    rules.append(f".head {{ fill: {_SOFT[dark]} }}")
    for kind, colours in _COLOURS.items():
        fill, stroke = colours[2 * dark : 2 * dark + 2]
        rules.append(f".{kind} {{ fill: {fill}; stroke: {stroke} }}")
        rules.append(f"text.{kind} {{ fill: {stroke}; stroke: none }}")
    return [*rules, ".arrow { fill: none }"]
