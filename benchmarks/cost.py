"""The cost of a call: CPU of the client's process, and calls per second, at several numbers of calls in flight."""

from __future__ import annotations

import sys
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence

from . import nginx
from .children import run_child
from .contenders import BASELINE, CONTENDERS, RIVALS, installed
from .cost_tables import tables
from .measure import Sample, rotated, rounds

__all__ = ["measure", "tables"]


class Cell(NamedTuple):
    """One setting under which all contenders run.

    Attributes:
        server: what the report calls the kind of server.
        location: nginx's location.
        tls: whether over TLS.
        workers: calls in flight.
        calls: how many are made and measured.
    """

    server: str
    location: str
    tls: bool
    workers: int
    calls: int


_CELLS = (
    *(Cell("fast", "fast", False, workers, 1500) for workers in (1, 16, 64, 256)),
    *(Cell("fast, TLS", "fast", True, workers, 1500) for workers in (1, 64)),
    Cell("50 ms", "slow", False, 16, 500),
    Cell("50 ms", "slow", False, 64, 2000),
    Cell("50 ms", "slow", False, 256, 2000),
    Cell("50 ms, TLS", "slow", True, 64, 2000),
)

_QUICK = (
    Cell("fast", "fast", False, 1, 500),
    Cell("fast", "fast", False, 64, 1000),
    Cell("fast, TLS", "fast", True, 64, 1000),
    Cell("50 ms", "slow", False, 64, 1000),
)


def measure(quick: bool) -> List[Sample]:
    """All contenders but the rivals in all cells, round by round."""
    contenders = installed(name for name in CONTENDERS if name not in RIVALS)
    samples: List[Sample] = []
    with nginx.running() as server:
        for turn in range(rounds(2 if quick else 3)):
            for cell in _QUICK if quick else _CELLS:
                samples += _round(server, cell, turn, rotated(contenders, turn))
                print(f"round {turn + 1}: {cell.server}, {cell.workers} in flight", file=sys.stderr)
    return samples


def _round(server: nginx.Server, cell: Cell, turn: int, contenders: Iterable[str]) -> List[Sample]:
    target = {
        "base_url": server.base_url(cell.location, tls=cell.tls),
        "workers": cell.workers,
        "ca": server.ca if cell.tls else "",
    }
    samples: List[Sample] = []
    for name in contenders:
        calls = cell.calls if name == BASELINE else max(40, int(cell.calls * CONTENDERS[name].share))
        spec: Dict[str, Any] = {
            "contender": name,
            "target": target,
            "calls": calls,
            "warm_up": max(20, 2 * cell.workers),
        }
        where = {"round": turn, "server": cell.server, "workers": cell.workers, "contender": name}
        samples.append({**where, **run_child("contender_child", spec)})
    return samples


def compare(names: Sequence[str], *, workers: int = 64, calls: int = 2000, rounds: int = 5) -> List[Sample]:
    """Some contenders against the fast server only: to work on one of them."""
    cell = Cell("fast", "fast", False, workers, calls)
    with nginx.running() as server:
        return [sample for turn in range(rounds) for sample in _round(server, cell, turn, rotated(list(names), turn))]
