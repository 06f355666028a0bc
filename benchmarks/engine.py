"""The pool with a transport that answers at once: what scheduling a call costs in CPU, memory and start-up."""

from __future__ import annotations

import sys
from typing import Any, Dict, List, Sequence, Tuple

from .children import run_child
from .measure import Sample, grouped, spread
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]

Task = Tuple[str, Dict[str, Any]]

_TASKS: Sequence[Task] = (
    ("cpu", {"workers": 1, "calls": 20_000}),
    ("cpu", {"workers": 64, "calls": 20_000}),
    ("queued", {"calls": 20_000}),
    ("lazy", {"calls": 100_000, "workers": 64}),
    ("start", {"workers": 512}),
)

_QUICK: Sequence[Task] = (
    ("cpu", {"workers": 1, "calls": 5_000}),
    ("cpu", {"workers": 64, "calls": 5_000}),
    ("queued", {"calls": 5_000}),
    ("lazy", {"calls": 20_000, "workers": 64}),
    ("start", {"workers": 512}),
)


def measure(quick: bool) -> List[Sample]:
    """Each task in a process of its own, round by round."""
    samples: List[Sample] = []
    for turn in range(2 if quick else 3):
        for task, options in _QUICK if quick else _TASKS:
            found = run_child("engine_child", {"task": task, "options": options})
            samples.append({"round": turn, "task": task, **options, **found})
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and where the CPU of a call goes."""
    groups = grouped(samples, "task")
    by_workers = grouped(groups["cpu"], "workers")
    rows = [
        [
            f"C={workers}",
            *(spread(sample[part] for sample in found).show(1, 1e6) for part in ("pool", "wire", "engine")),
        ]
        for workers, found in by_workers.items()
    ]
    columns = ("calls in flight", "`pool.map`, us", "of it: encode, judge, decode, us", "the rest, us")
    return [bounds_table(_bounds(groups, by_workers)), Table("CPU per call without a network", columns, rows)]


def _bounds(groups: Any, by_workers: Any) -> List[Bound]:
    queued, lazy, start = groups["queued"], groups["lazy"], groups["start"]
    engine, growth = spread(s["engine"] * 1e6 for s in by_workers[64]), spread(s["growth"] / 1e6 for s in lazy)
    return [
        Bound("CPU of the engine per call at C=64, us", engine, 60, digits=1),
        Bound("bytes per queued call of a run", spread(s["run"] for s in queued), 3000, digits=0),
        Bound("bytes per queued call with a future", spread(s["future"] for s in queued), 3000, digits=0),
        Bound(f"growth of memory over {lazy[0]['calls']:,} lazily fed items, MB", growth, 10, digits=1),
        Bound(f"seconds until {start[0]['workers']} workers are at work", spread(s["seconds"] for s in start), 1.0),
    ]
