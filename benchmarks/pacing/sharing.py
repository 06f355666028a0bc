"""A limit that four processes with 32 threads each share, through a file and through Redis."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence

from .. import redis_server
from ..children import run_child
from ..measure import Sample, grouped, spread
from ..tables import Table

__all__ = ["measure", "tables"]

PROCESSES, THREADS = 4, 32
_SETTLED = 2.0  # seconds after which the first burst is used up

_CASES: Dict[str, Dict[str, Any]] = {
    "3,000 requests a minute": {"limits": {"requests_per_minute": 3000}, "tokens": 0, "used": 0, "unit": 1},
    "600,000 tokens a minute, estimates 50 % too high": {
        "limits": {"tokens_per_minute": 600_000},
        "tokens": 150,
        "used": 100,
        "unit": 100,
    },
}


def measure(quick: bool) -> List[Sample]:
    """Every case with every backend, in turn.

    Raises:
        RuntimeError: there is no redis-server, or the package redis is missing.
    """
    seconds = 5.0 if quick else 10.0
    samples: List[Sample] = []
    for turn in range(1 if quick else 2):
        for name, case in _CASES.items():
            for backend, places in (("file", _file), ("Redis", _redis)):
                with places() as (scope, env):
                    samples.append({"round": turn, "case": name, "backend": backend, **_run(scope, env, case, seconds)})
                print(f"round {turn + 1}: {name}, {backend}", file=sys.stderr)
    return samples


def _run(scope: str, env: Dict[str, str], case: Dict[str, Any], seconds: float) -> Sample:
    start = time.time() + 2
    spec = {"scope": scope, "threads": THREADS, "start": start, "seconds": seconds + _SETTLED, "env": env, **case}
    with ThreadPoolExecutor(PROCESSES) as executor:
        sharers = list(executor.map(lambda _: run_child("pacing.sharer", spec), range(PROCESSES)))
    threads = [slots for sharer in sharers for slots in sharer["threads"]]
    first = min(slot["at"] for slots in threads for slot in slots)
    begins, ends = first + _SETTLED, first + _SETTLED + seconds - 0.5
    used = sum(begins <= slot["at"] < ends for slots in threads for slot in slots)
    (per_minute,) = case["limits"].values()
    costs = sorted(slot["cost"] for slots in threads for slot in slots)
    return {
        "share": used * case["unit"] / (per_minute / 60 * (ends - begins)),
        "fewest": min(map(len, threads)),
        "most": max(map(len, threads)),
        "cost": costs[len(costs) // 2],
        "cost_p99": costs[int(len(costs) * 0.99)],
    }


@contextmanager
def _file() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        yield "benchmark", {"XDG_CACHE_HOME": folder}


@contextmanager
def _redis() -> Iterator[Any]:
    with redis_server.running() as url:
        yield f"{url}/benchmark", {}


def tables(samples: Sequence[Sample]) -> List[Table]:
    """How much of the limit is used, how evenly, and what asking costs."""
    rows = [
        [
            f"{group[0]['case']}: {group[0]['backend']}",
            spread(100 * sample["share"] for sample in group).show(1),
            f"{min(sample['fewest'] for sample in group)} - {max(sample['most'] for sample in group)}",
            spread(1000 * sample["cost"] for sample in group).show(2),
            spread(1000 * sample["cost_p99"] for sample in group).show(2),
        ]
        for group in grouped(samples, "case", "backend").values()
    ]
    columns = ("limit", "of the limit used, %", "calls per thread", "asking, ms", "asking, 99th percentile, ms")
    note = f"{PROCESSES} processes with {THREADS} threads each, which ask again as soon as they may."
    return [Table("Shared limits", columns, rows, note)]
