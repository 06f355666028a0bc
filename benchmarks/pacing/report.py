"""What the measurements of pacing show."""

from __future__ import annotations

from typing import Iterator, List, Optional, Sequence

from ..children import CAP
from ..measure import Sample, grouped, spread
from ..tables import Bound, Table, bounds_table
from .live import CHATPOOL, CONFIGURED
from .scenarios import SCENARIOS
from .sweep import TARGETS, quantile

__all__ = ["pacing_tables"]

_NOTE = f"""The ideal is that of somebody who knows the server's limit. With limits configured it is that of somebody
who lets no minute exceed the limit and bursts with a second's worth, which takes longer where the server's burst is
larger. No client but that one is told the limit; what stands in brackets is a library's default. A client that loses
calls has fewer to wait for, and may be done before the ideal. One that takes longer than {CAP:.0f} s is ended, and what
it has no answer for is lost.
"""
# The slower of two pools that do not know of each other over the faster; where calls in flight are counted, a pool
# that is alone is not to pay for more.
_OF_TWO, _OF_TWO_IN_FLIGHT = 1.3, 1.6
_HINTS = {"exact": "exact", "whole": "whole seconds", None: "none"}


def pacing_tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, the six servers, the random ones."""
    pairs = [sample for sample in samples if sample.get("pools", 1) > 1]
    live = [sample for sample in samples if sample["what"] == "live" and sample not in pairs]
    sweep = [sample for sample in samples if sample["what"] == "sweep"]
    columns = ("server", "client", "hints", "over the ideal", "refused, % of the calls", "calls lost")
    rows = [_live_row(measured) for measured in grouped(live, "scenario", "client", "hint", "headers").values()]
    kinds = ("server", "seeds", "servers", "median", "90 %", "worst", "refused: median", "90 %", "calls lost")
    return [
        bounds_table([*_live_bounds(live), *_pair_bounds(pairs), *_sweep_bounds(sweep)]),
        Table("On sockets: seconds as a multiple of the ideal", columns, rows, _NOTE.strip()),
        Table("Random servers, simulated: seconds as a multiple of the ideal", kinds, [_sweep_row(s) for s in sweep]),
    ]


def _live_bounds(live: Sequence[Sample]) -> Iterator[Bound]:
    for measured in grouped(live, "scenario", "client", "hint", "headers").values():
        first = measured[0]
        name, scenario = first["scenario"], SCENARIOS[first["scenario"]]
        if first["headers"]:
            yield from _bounds_of(f"{name} with x-ratelimit headers", measured, 1.03, 0.01)
        elif first["client"] == CHATPOOL and first["hint"] == "exact":
            yield from _bounds_of(f"{name}, {scenario.title}", measured, scenario.over, scenario.rejected)
        elif first["client"] == CONFIGURED and name == "A":
            yield from _bounds_of("A configured", measured, 1.03, 0.01)
    lost = [float(sample["lost"]) for sample in live if str(sample["client"]).startswith(CHATPOOL)]
    if lost:
        yield Bound("calls lost in a run", spread(lost), 0, digits=0)


def _pair_bounds(pairs: Sequence[Sample]) -> Iterator[Bound]:
    for measured in grouped(pairs, "scenario").values():
        what = f"{measured[0]['scenario']}, two pools with half of the work each: the slower over the faster"
        limit = _OF_TWO_IN_FLIGHT if measured[0]["scenario"] == "C" else _OF_TWO
        yield Bound(what, spread(max(sample["walls"]) / min(sample["walls"]) for sample in measured), limit)


def _bounds_of(what: str, measured: Sequence[Sample], over: float, rejected: Optional[float]) -> Iterator[Bound]:
    yield Bound(f"{what}: over the ideal", spread(s["wall"] / s["ideal"] for s in measured), over)
    if rejected is not None:
        share = spread(100 * s["refused"] / s["calls"] for s in measured)
        yield Bound(f"{what}: refused, % of the calls", share, 100 * rejected, digits=1)


def _sweep_bounds(sweep: Sequence[Sample]) -> Iterator[Bound]:
    for sample in sweep:
        target = TARGETS.get(sample["kind"])
        if target is not None:
            what = f"random servers, {sample['kind']}, seeds {sample['seeds']}"
            yield Bound(f"{what}: median", spread([quantile(sample["over"], 0.5)]), target.median)
            yield Bound(f"{what}: 90 % are within", spread([quantile(sample["over"], 0.9)]), target.nearly_all)
    if sweep:
        lost = sum(float(sample.get("lost", 0)) for sample in sweep)
        yield Bound("random servers: calls lost", spread([lost]), 0, digits=0)


def _live_row(measured: Sequence[Sample]) -> List[str]:
    first = measured[0]
    hints = "in headers" if first["headers"] else _HINTS[first["hint"]]
    return [
        f"{first['scenario']}: {SCENARIOS[first['scenario']].title}",
        first["client"],
        hints,
        spread(sample["wall"] / sample["ideal"] for sample in measured).show(3),
        spread(100 * sample["refused"] / sample["calls"] for sample in measured).show(1),
        str(sum(sample["lost"] for sample in measured)),
    ]


def _sweep_row(sample: Sample) -> List[str]:
    over, rejected = sample["over"], sample["refused"]
    return [
        sample["kind"],
        sample["seeds"],
        str(len(over)),
        *(f"{quantile(over, share):.2f}" for share in (0.5, 0.9, 1.0)),
        *(f"{100 * quantile(rejected, share):.0f} %" for share in (0.5, 0.9)),
        str(sample.get("lost", 0)),
    ]
