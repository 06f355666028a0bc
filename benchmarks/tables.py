"""Tables of a report, and bounds that a measurement should keep."""

from __future__ import annotations

from typing import List, NamedTuple, Sequence

from .measure import Spread

__all__ = ["Bound", "Table", "bounds_table", "markdown"]


class Table(NamedTuple):
    """One table of a section; cells are text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Bound(NamedTuple):
    """A promise, and its measurement.

    Attributes:
        what: the quantity, in words.
        measured: its spread over the rounds.
        limit: the promise.
        at_least: whether the limit is one from below.
        digits: how precisely it is shown.
    """

    what: str
    measured: Spread
    limit: float
    at_least: bool = False
    digits: int = 2

    @property
    def kept(self) -> bool:
        """True if the median keeps the limit."""
        median = self.measured.median
        return median >= self.limit if self.at_least else median <= self.limit


def bounds_table(bounds: Sequence[Bound]) -> Table:
    """Promised and measured, side by side."""
    rows: List[List[str]] = [
        [
            bound.what,
            f"{'at least' if bound.at_least else 'at most'} {bound.limit:,g}",
            bound.measured.show(bound.digits),
            "yes" if bound.kept else "**no**",
        ]
        for bound in bounds
    ]
    return Table("Bounds", ("what", "bound", "median (min - max)", "kept"), rows)


def markdown(table: Table) -> str:
    """The table in Markdown, its title as a heading of the third level."""
    lines = [f"### {table.title}", ""]
    if table.note:
        lines += [table.note, ""]
    lines.append(_row(table.columns))
    lines.append(_row(["---", *["---:"] * (len(table.columns) - 1)]))
    lines += [_row(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
