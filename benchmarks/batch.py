"""Batch runs: their throughput against ``pool.map``, and what a second process brings."""

from __future__ import annotations

import sys
from typing import Any, Dict, List, Sequence, Tuple

from . import nginx
from .children import run_child
from .measure import Sample, grouped, ratios, rounds, spread
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]

Cell = Tuple[str, str, int, int]  # what the report calls it, nginx's location, calls in flight, rows

_CELLS: Sequence[Cell] = (
    ("fast", "fast", 16, 10_000),
    ("fast", "fast", 64, 10_000),
    ("50 ms", "slow", 64, 5_000),
)
_QUICK: Sequence[Cell] = (("fast", "fast", 64, 2_000), ("50 ms", "slow", 64, 1_000))

_PROCESSES = (1, 2)


def measure(quick: bool) -> List[Sample]:
    """Every cell and every number of processes, round by round."""
    samples: List[Sample] = []
    with nginx.running() as server:
        for turn in range(rounds(2 if quick else 3)):
            for name, location, workers, rows in _QUICK if quick else _CELLS:
                options = {"base_url": server.base_url(location), "workers": workers, "rows": rows}
                options["first"] = ("map", "batch")[turn % 2]
                found = run_child("batch_child", {"task": "against_map", "options": options})
                samples.append({"round": turn, "task": "map", "server": name, "workers": workers, **found})
            rows = 5_000 if quick else 15_000
            for count in _PROCESSES:
                options = {"base_url": server.base_url("fast"), "workers": 32, "rows": rows, "count": count}
                found = run_child("batch_child", {"task": "processes", "options": options})
                samples.append({"round": turn, "task": "processes", "count": count, "rows": rows, **found})
            print(f"round {turn + 1}", file=sys.stderr)
    return samples


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, the rates behind them, and the CPU."""
    tasks: Any = grouped(samples, "task")
    cells: Any = grouped(tasks["map"], "server", "workers")
    by_count: Any = grouped(tasks["processes"], "count")
    bounds = [
        Bound(
            f"rows/s: batch run over `pool.map`; {server}, {workers} in flight",
            spread(sample["batch_rate"] / sample["map_rate"] for sample in found),
            0.85,
            at_least=True,
        )
        for (server, workers), found in cells.items()
    ]
    gain = spread(ratios(by_count[2], by_count[1], lambda sample: float(sample["rate"])))
    bounds.append(Bound("rows/s: two processes over one; fast, 32 in flight", gain, 1.3, at_least=True))
    return [bounds_table(bounds), _against_map(cells), _processes(by_count)]


def _against_map(cells: Dict[Any, List[Sample]]) -> Table:
    rows = [
        [
            f"{server}, {workers} in flight",
            *(spread(sample[f"{name}_rate"] for sample in found).show(0) for name in ("map", "batch")),
            *(spread(sample[f"{name}_cpu"] for sample in found).show(0, 1e6) for name in ("map", "batch")),
        ]
        for (server, workers), found in cells.items()
    ]
    columns = ("server", "`pool.map`, calls/s", "batch run, rows/s", "`pool.map`, CPU us", "batch run, CPU us")
    return Table("Throughput and CPU per call", columns, rows)


def _processes(by_count: Dict[Any, List[Sample]]) -> Table:
    rows = [
        [
            str(count),
            spread(sample["rate"] for sample in found).show(0),
            spread(sample["cpu"] for sample in found).show(0, 1e6),
        ]
        for count, found in by_count.items()
    ]
    note = "The server has the same two cores. The start of the processes is in both columns."
    return Table("Processes", ("processes", "rows/s", "CPU per row, us"), rows, note)
