"""The tables of the cost benchmark."""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from .contenders import BASELINE, CONTENDERS
from .measure import Sample, Spread, grouped, ratios, spread
from .tables import Bound, Table, bounds_table

__all__ = ["tables"]

_LATENCY = {"50 ms": 0.05, "50 ms, TLS": 0.05}

Cells = Dict[Tuple[str, int, str], List[Sample]]


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and per kind of server the CPU and the rate of every contender."""
    cells: Cells = dict(grouped(samples, "server", "workers", "contender"))  # type: ignore[arg-type]
    shown = [bounds_table(list(_bounds(cells)))]
    for server in dict.fromkeys(server for server, _, _ in cells):
        shown += [_cpu_table(cells, server), _rate_table(cells, server)]
    return shown


def cpu_per_call(sample: Sample) -> float:
    """Seconds of user and system time."""
    return float(sample["cpu"] / sample["calls"])


def rate(sample: Sample) -> float:
    """Calls per second."""
    return float(sample["calls"] / sample["wall"])


def _bounds(cells: Cells) -> Iterator[Bound]:
    for workers in (1, 64):
        for server in ("fast", "fast, TLS"):
            where = f"{server}, {workers} in flight"
            for contender, reference, limit in (
                ("chatpool", BASELINE, 1.15),
                ("chatpool", BASELINE, 0.95),
                ("transport", BASELINE, 0.8),
                ("chatpool", "openai", 0.25),
            ):
                measured = _ratio(cells, server, workers, contender, reference, cpu_per_call)
                # Over TLS only the bound itself was promised.
                if measured is not None and (server == "fast" or limit == 1.15):
                    yield Bound(f"CPU: {_short(contender)} over {reference}; {where}", measured, limit)
    measured = _ratio(cells, "50 ms", 64, "chatpool", "aiohttp", rate)
    if measured is not None:
        yield Bound("calls/s: `pool.map` over aiohttp + tenacity; 50 ms, 64 in flight", measured, 1.0, at_least=True)
        ideal = 64 / _LATENCY["50 ms"]
        share = spread(rate(sample) / ideal for sample in cells["50 ms", 64, "chatpool"])
        yield Bound("calls/s: `pool.map` over the ideal; 50 ms, 64 in flight", share, 0.85, at_least=True)


def _short(contender: str) -> str:
    return "the transport alone" if contender == "transport" else "`pool.map`"


def _ratio(
    cells: Cells, server: str, workers: int, contender: str, reference: str, value: Callable[[Sample], float]
) -> Optional[Spread]:
    found = cells.get((server, workers, contender))
    base = cells.get((server, workers, reference))
    return spread(ratios(found, base, value)) if found and base else None


def _cpu_table(cells: Cells, server: str) -> Table:
    def cell(workers: int, contender: str) -> str:
        relative = _ratio(cells, server, workers, contender, BASELINE, cpu_per_call)
        found = cells.get((server, workers, contender))
        if relative is None or not found:
            return "-"
        return f"{relative.show()}; {spread(map(cpu_per_call, found)).median * 1000:.2f} ms"

    note = "Relative to bare urllib3 in the same round, and the median in milliseconds."
    return _table(cells, server, f"CPU per call: {server}", note, cell)


def _rate_table(cells: Cells, server: str) -> Table:
    latency = _LATENCY.get(server)

    def cell(workers: int, contender: str) -> str:
        found = cells.get((server, workers, contender))
        if not found:
            return "-"
        rates = spread(map(rate, found))
        ideal = f"; {rates.median * latency / workers:.0%} of the ideal" if latency else ""
        return f"{rates.show(0)}{ideal}"

    return _table(cells, server, f"Calls per second: {server}", "The server runs on the same machine.", cell)


def _table(cells: Cells, server: str, title: str, note: str, cell: Callable[[int, str], str]) -> Table:
    counts = sorted({workers for kind, workers, _ in cells if kind == server})
    present = {contender for kind, _, contender in cells if kind == server}
    shown = [name for name in CONTENDERS if name in present]
    rows = [[CONTENDERS[name].title, *(cell(workers, name) for workers in counts)] for name in shown]
    return Table(title, ("client", *(f"C={workers}" for workers in counts)), rows, note)
