"""How cost grows: with the number of calls, and with the number of calls in flight, against other clients."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Dict, List, NamedTuple, Sequence

from . import growth_plot, nginx
from .children import run_child
from .contenders import CONTENDERS
from .measure import Sample, grouped, rotated
from .store import HERE
from .tables import Table

__all__ = ["measure", "tables"]

_RIVALS = {"chatpool": "requests", "aiohttp": "aiohttp", "openai async": "openai", "openai": "openai"}
_IMAP = "chatpool imap"
_TITLES = {**{name: CONTENDERS[name].title for name in _RIVALS}, _IMAP: "**chatpool** `pool.imap`"}

_PANELS = {"calls": "seconds, by calls", "workers": "calls a second, by calls in flight"}
_COLUMNS = ("calls/s", "CPU per call, ms", "peak memory, MB", "lost")

_AT_ONCE = 64  # while the number of calls grows
_MOST_OF_RIVALS = 10_000
_SECONDS = 3.0  # that the calls of a cell take at least
_LONGEST = 3600


class _Cell(NamedTuple):
    """One number of calls, and how many of them at a time.

    Attributes:
        grows: what the cell is compared by: ``"calls"`` or ``"workers"``.
    """

    grows: str
    location: str
    workers: int
    calls: int


def _cells(quick: bool) -> List[_Cell]:
    calls = (100, 1000) if quick else (100, 1000, 10_000, 100_000)
    workers = (1, 64) if quick else (1, 4, 16, 64, 256, 1024)
    seconds = 1.0 if quick else _SECONDS
    return [
        *(_Cell("calls", "fast", _AT_ONCE, number) for number in calls),
        *(
            _Cell("workers", "slow", number, min(_MOST_OF_RIVALS, int(number / nginx.LATENCY * seconds)))
            for number in workers
        ),
    ]


def measure(quick: bool) -> List[Sample]:
    """All clients in all cells that they can end in minutes, and chatpool in the others; one round."""
    clients = [name for name, needed in _RIVALS.items() if importlib.util.find_spec(needed)]
    samples: List[Sample] = []
    with nginx.running() as server:
        for turn, cell in enumerate(_cells(quick)):
            names = rotated(clients, turn) if cell.calls <= _MOST_OF_RIVALS else [_IMAP]
            samples += [_sample(cell, name, server) for name in names]
            print(f"{cell.calls:,} calls, {cell.workers} at a time", file=sys.stderr)
    if not quick:
        growth_plot.write(_points(samples), HERE.parent / "docs" / "explanation" / "growth.svg")
    return samples


def _sample(cell: _Cell, client: str, server: nginx.Server) -> Sample:
    if cell.grows == "workers":
        cell = cell._replace(calls=max(1, int(cell.calls * CONTENDERS[client].share)))
    where: Dict[str, Any] = {"round": 0, **cell._asdict(), "client": client}
    base_url, calls = server.base_url(cell.location), cell.calls
    if client == _IMAP:
        spec = {"base_url": base_url, "workers": cell.workers, "calls": calls}
        return {**where, **run_child("growth_child", spec, longest=_LONGEST)}
    target = {"base_url": base_url, "workers": cell.workers}
    spec = {"contender": client, "target": target, "calls": calls, "warm_up": 2 * cell.workers}
    return {**where, **run_child("contender_child", spec, longest=_LONGEST)}


def _over_ideal(sample: Sample) -> float:
    """Time over that of a client that costs none, against a server that does not either."""
    return float(sample["wall"] / (sample["calls"] * nginx.LATENCY / sample["workers"]))


def _points(samples: Sequence[Sample]) -> growth_plot.Panels:
    """What is drawn: seconds over calls, and calls per second over calls in flight."""
    panels: growth_plot.Panels = {title: {} for title in _PANELS.values()}
    for sample in samples:
        calls, wall = sample["calls"], sample["wall"]
        point = (calls, wall) if sample["grows"] == "calls" else (sample["workers"], calls / wall)
        client = str(sample["client"]).replace(" imap", "")
        panels[_PANELS[sample["grows"]]].setdefault(client, []).append(point)
    return panels


def tables(samples: Sequence[Sample]) -> List[Table]:
    """One table for each thing that grows."""
    of = grouped(samples, "grows")
    shown = []
    if "calls" in of:
        columns = ("calls", "client", "seconds", *_COLUMNS)
        note = f"{_AT_ONCE} at a time, and a server that answers at once, on the same machine."
        rows = [[f"{s['calls']:,}", *_row(s, f"{s['wall']:,.1f}")] for s in _ordered(of["calls"], "calls")]
        shown.append(Table("With the number of calls", columns, rows, note))
    if "workers" in of:
        columns = ("at a time", "client", "time over the ideal", *_COLUMNS)
        note = f"Each answer takes {1000 * nginx.LATENCY:g} ms; calls for {_SECONDS:g} s, {_MOST_OF_RIVALS:,} at most."
        note += " Slow clients make fewer."
        rows = [[f"{s['workers']:,}", *_row(s, f"{_over_ideal(s):,.2f}")] for s in _ordered(of["workers"], "workers")]
        shown.append(Table("With the number of calls in flight", columns, rows, note))
    return shown


def _ordered(samples: Sequence[Sample], grows: str) -> List[Sample]:
    clients = list(_TITLES)  # measured in turn, and shown in one order
    return sorted(samples, key=lambda sample: (sample[grows], clients.index(sample["client"])))


def _row(sample: Sample, time: str) -> List[str]:
    return [
        _TITLES[sample["client"]],
        time,
        f"{sample['calls'] / sample['wall']:,.0f}",
        f"{1000 * sample['cpu'] / sample['calls']:.2f}",
        f"{sample['peak_rss_kb'] / 1024:,.0f}",
        f"{sample['lost']:,}",
    ]
