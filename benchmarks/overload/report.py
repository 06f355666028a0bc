"""The tables of the measurements of overload."""

from __future__ import annotations

import statistics
from typing import Dict, Iterator, List, Sequence

from ..contenders import CONTENDERS
from ..measure import Sample, grouped, ratios, spread
from ..tables import Bound, Table, bounds_table
from .fronts import LATENCY
from .trials import CAP, CHATPOOL, RETRIES, ROWS

__all__ = ["overload_tables"]

_NOTE = f"""Every answer takes {1000 * LATENCY:.0f} ms, a refusal nothing. The time is that of the whole run over the
ideal, which is that of somebody who knows the limit; where refusals come at random, over the same client's run without
refusals in the same round. Refusals are counted by the server; shown is their mean. A client that takes longer than
{CAP:.0f} s is ended, and what it has no answer for is lost; one that loses calls may be done before the ideal. None is
told the limit. What stands in brackets is a library's default. Where refusals come at random, clients other than
chatpool run a few at a time: compare their times with their own, and not their seconds with chatpool's.
"""
_TITLES = {"openai": f"openai SDK in threads, {RETRIES} retries"}

_COLUMNS = (
    "server", "calls", "workers", "client", "answered", "refused", "refused per call", "seconds", "over the ideal"
)  # fmt: skip


def overload_tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and every row with every client."""
    rows = [_row(group, samples) for group in _by_row(samples)]
    return [bounds_table(list(_bounds(samples))), Table("Servers that refuse", _COLUMNS, rows, _NOTE.strip())]


def _by_row(samples: Sequence[Sample]) -> List[List[Sample]]:
    """In the order of :data:`.trials.ROWS`, chatpool first in each."""
    keys = list(ROWS)
    groups = grouped(samples, "row", "workers", "contender").values()
    return sorted(groups, key=lambda group: (keys.index(group[0]["row"]), group[0]["contender"] != CHATPOOL))


def _row(group: Sequence[Sample], samples: Sequence[Sample]) -> List[str]:
    first = group[0]
    refused = statistics.mean(sample["refused"] for sample in group)
    over = _over(group, samples)
    return [
        ROWS[first["row"]].title,
        f"{first['calls']:,}",
        str(first["workers"]),
        _TITLES.get(first["contender"], CONTENDERS[first["contender"]].title),
        spread(sample["answered"] for sample in group).show(0),
        f"{refused:,.0f}",
        f"{refused / first['calls']:.2f}",
        spread(sample["wall"] for sample in group).show(1),
        spread(over).show(2) if over else "-",
    ]


def _over(group: Sequence[Sample], samples: Sequence[Sample]) -> List[float]:
    """The time over the ideal, or over the base of the same round; empty for a base."""
    first = group[0]
    row = ROWS[first["row"]]
    if row.ideal:
        return [sample["wall"] / row.ideal for sample in group]
    base = [s for s in samples if (s["row"], s["contender"]) == (row.base, first["contender"])]
    return ratios(group, base, lambda sample: float(sample["wall"]))


def _bounds(samples: Sequence[Sample]) -> Iterator[Bound]:
    ours = [sample for sample in samples if sample["contender"] == CHATPOOL]
    for group in _by_row(ours):
        row, workers = ROWS[group[0]["row"]], group[0]["workers"]
        title = f"{row.title}, {workers} workers, {row.calls:,} calls"
        over = _over(group, samples)
        if row.over and over:
            yield Bound(f"{title}: over {'the ideal' if row.ideal else 'no refusals'}", spread(over), row.over)
        if row.refused:
            refused = spread(float(sample["refused"]) for sample in group)
            yield Bound(f"{title}: refused", refused, row.refused, digits=0)
    yield from _lost(ours)


def _lost(ours: Sequence[Sample]) -> Iterator[Bound]:
    """The sum of each round, so that no run that loses is hidden by others."""
    by_round: Dict[int, float] = {}
    for sample in ours:
        by_round[sample["round"]] = by_round.get(sample["round"], 0.0) + sample["lost"]
    if by_round:
        yield Bound("calls lost in a round", spread(by_round.values()), 0, digits=0)
