"""A million rows in one batch run: the memory that it takes."""

from __future__ import annotations

from typing import List, Sequence

from . import nginx
from .children import run_child
from .measure import Sample, spread
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]

_LONGEST = 3600  # seconds


def measure(quick: bool) -> List[Sample]:
    """A run of 10,000 rows to compare with, and the long one, which takes about a quarter of an hour."""
    samples: List[Sample] = []
    with nginx.running() as server:
        for rows in (10_000, 100_000 if quick else 1_000_000):
            options = {"base_url": server.base_url("fast"), "workers": 16, "rows": rows}
            found = run_child("batch_child", {"task": "memory", "options": options}, longest=_LONGEST)
            samples.append({"round": 0, "rows": rows, **found})
    return samples


def tables(samples: Sequence[Sample]) -> List[Table]:
    """The bound, and what the runs did."""
    few, many = samples[0], samples[-1]
    growth = spread([(many["most"] - few["most"]) / 1e6])
    bound = Bound(f"memory of {many['rows']:,} rows over that of {few['rows']:,}, MB", growth, 30, digits=1)
    cells = [
        [
            f"{sample['rows']:,}",
            f"{sample['most'] / 1e6:,.0f}",
            f"{sample['rate']:,.0f}",
            f"{sample['cpu'] * 1e6:,.0f}",
        ]
        for sample in samples
    ]
    return [bounds_table([bound]), Table("The runs", ("rows", "memory, MB", "rows/s", "CPU per row, us"), cells)]
