"""The figures of the page that compares chatpool with other tools are those of the benchmarks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Tuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "comparison.md"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"

# Column of the page -> section of the results, what else its row has, and what its cell is like.
# The first two are with 64 in flight: the last column but one.
CPU = ("### CPU per call: 50 ms\n", "", r"\| {client} \|(?:[^|\n]*\|)* [^|\n]*; {figure} ms \|[^|\n]*\|\n")
COLUMNS = [
    CPU,
    ("### Calls per second: 50 ms\n", "", r"\| {client} \|(?:[^|\n]*\|)* {figure} \([^|\n]*\|[^|\n]*\|\n"),
    ("### Seconds per run", "20 % random 503s, N=2,000", r"\| {where} \| {client} \| {figure} \("),
    (
        "### Servers that refuse",
        "nginx `limit_req` 5/s burst 2, 503",
        r"\| {where} \| 100 \| 16 \| {client}[^|]*\|[^|]*\|[^|]*\| {figure} \| [\d.]+ \(",
    ),
]


def figures() -> List[List[str]]:
    """Rows of the page's table of figures: the client, and its cells."""
    section = PAGE.read_text(encoding="utf-8").split("## Figures", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def is_measured(column: Tuple[str, str, str], client: str, figure: str) -> bool:
    """Return whether the results have this figure for this client."""
    heading, where, pattern = column
    section = RESULTS.read_text(encoding="utf-8").split(heading, 1)[1].split("\n##", 1)[0]
    values = {"client": re.escape(client), "where": re.escape(where), "figure": re.escape(figure)}
    return re.search(pattern.format(**values), section) is not None


@pytest.mark.parametrize("row", figures(), ids=lambda row: row[0])
def test_each_figure_is_the_benchmarks(row: List[str]):
    client, *cells = row
    assert any(cells)
    for column, cell in zip(COLUMNS, cells):
        if cell:
            assert is_measured(column, client, cell), (column, cell)


def test_the_page_on_asyncio_says_what_the_benchmarks_say():
    page = (ROOT / "docs" / "howto" / "from-asyncio.md").read_text(encoding="utf-8")
    theirs, ours = re.search(r"([\d.]+) ms against ([\d.]+) ms with 64 calls", page).groups()
    assert is_measured(CPU, "the recipe: aiohttp + tenacity", theirs)
    assert is_measured(CPU, "**chatpool** `pool.map`", ours)
