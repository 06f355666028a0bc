"""A server that is down for a while: what is sent to it meanwhile, how soon the pool is back, what is lost.

Attempts are counted where they are sent, for each kind of outage alike: a server that refuses connections cannot
count them.  An outage is recognised at the moment from which the pool's statistics say so.
"""

from __future__ import annotations

import bisect
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from . import nginx, outage_server
from .children import run_child
from .measure import Sample, grouped, spread
from .tables import Bound, Table, bounds_table

__all__ = ["Plan", "evaluate", "measure", "tables"]

_HANGING = "hanging"
_ATTEMPT = 1.0  # seconds that an attempt may take against a server that hangs
_START = 1.5  # seconds for a child to start
_WINDOW = 0.5  # seconds over which a speed is taken
_FULL = 0.9  # of the healthy speed is full speed
_LEAST_PROBES = 1.0  # per second: what may be sent to any server that is down
_SHARE = 0.02  # of the healthy speed: what may be sent, if that is more


class Plan(NamedTuple):
    """The length of each phase, in seconds."""

    healthy: float = 4.0
    down: float = 15.0
    recovered: float = 5.0
    flaps: int = 3
    flap_down: float = 0.7
    flap_up: float = 1.3

    @property
    def flapping(self) -> float:
        """Seconds of it."""
        return self.flaps * (self.flap_down + self.flap_up)

    @property
    def whole(self) -> float:
        """Seconds from the first call to the last."""
        return self.healthy + self.down + self.recovered + self.flapping


_QUICK = Plan(healthy=3.0, down=6.0, recovered=4.0, flaps=2)


def measure(quick: bool) -> List[Sample]:
    """Every kind of outage: side by side with 16 calls in flight, one after the other with 100."""
    if quick:
        return [_run(outage_server.KINDS[0], 16, _QUICK)]
    plan, kinds = Plan(), outage_server.KINDS
    with ThreadPoolExecutor(len(kinds)) as side_by_side:
        samples = list(side_by_side.map(lambda kind: _run(kind, 16, plan), kinds))
    print("C=16", file=sys.stderr)
    for kind in kinds:
        samples.append(_run(kind, 100, plan))
        print(f"C=100, {kind}", file=sys.stderr)
    return samples


def _run(kind: str, workers: int, plan: Plan) -> Sample:
    timeout = {"attempt": _ATTEMPT, "total": 120} if kind == _HANGING else None
    with outage_server.running() as patient, ThreadPoolExecutor(1) as beside:
        begin = time.monotonic() + _START
        spec = {"base_url": patient.base_url, "workers": workers, "timeout": timeout, "end": begin + plan.whole}
        child = beside.submit(run_child, "outage_child", spec)
        moments = _happen(patient, kind, plan, begin)
        found = child.result()
    return {"round": 0, "kind": kind, "workers": workers, **evaluate(found, moments)}


def _happen(patient: outage_server.Patient, kind: str, plan: Plan, begin: float) -> Dict[str, float]:
    """The plan, in real time; returns when what happened."""
    moments = {"begin": begin}
    at = begin + plan.healthy
    moments["down"] = _at(at, lambda: patient.fall(kind))
    at += plan.down
    moments["up"] = _at(at, patient.rise)
    at += plan.recovered
    moments["flapping"] = at
    for _ in range(plan.flaps):
        _at(at, lambda: patient.fall(kind))
        _at(at + plan.flap_down, patient.rise)
        at += plan.flap_down + plan.flap_up
    moments["end"] = at
    return moments


def _at(moment: float, action: Any) -> float:
    """Do it then; returns when it had been done."""
    time.sleep(max(0.0, moment - time.monotonic()))
    action()
    return time.monotonic()


def evaluate(found: Mapping[str, Any], moments: Mapping[str, float]) -> Dict[str, Any]:
    """Return the facts in a child's notes.

    Args:
        found: its ``calls``, ``lost`` and ``errors``; the times at which attempts were ``sent`` and calls
            ``succeeded``; the changes of whether the pool ``held`` its calls.
        moments: ``begin``, ``down``, ``up``, ``flapping`` and ``end``, on the same clock.

    Raises:
        RuntimeError: the pool never noticed the outage.
    """
    sent, succeeded = sorted(found["sent"]), sorted(found["succeeded"])
    down, up = moments["down"], moments["up"]
    healthy = statistics.median(_speeds(succeeded, moments["begin"] + 1, down))
    recognised = _recognised(found["held"], down, up)
    return {
        "healthy": healthy,
        "recognised": recognised - down,
        "while_down": _between(sent, recognised, up) / (up - recognised),
        "allowed": max(_LEAST_PROBES, _SHARE * healthy),
        "full_speed": _full_speed(succeeded, up, moments["flapping"], healthy),
        "flapping": _between(succeeded, moments["flapping"], moments["end"]) / (moments["end"] - moments["flapping"]),
        "calls": found["calls"],
        "lost": found["lost"],
        "errors": found["errors"],
    }


def _between(times: Sequence[float], start: float, end: float) -> int:
    return bisect.bisect_left(times, end) - bisect.bisect_left(times, start)


def _speeds(times: Sequence[float], start: float, end: float) -> List[float]:
    """Per second, in each window after ``start`` and before ``end``."""
    count = int((end - start) / _WINDOW)
    return [_between(times, start + n * _WINDOW, start + (n + 1) * _WINDOW) / _WINDOW for n in range(count)]


def _recognised(changes: Sequence[Tuple[float, bool]], down: float, up: float) -> float:
    times = [moment for moment, held in changes if held and down <= moment < up]
    if not times:
        raise RuntimeError("the pool did not notice that the server was down")
    return times[0]


def _full_speed(succeeded: Sequence[float], up: float, limit: float, healthy: float) -> float:
    """Seconds from ``up`` to the first window at full speed; to ``limit`` if there is none."""
    wanted = _FULL * healthy * _WINDOW
    for moment in succeeded[bisect.bisect_left(succeeded, up) : bisect.bisect_left(succeeded, limit)]:
        if _between(succeeded, moment, moment + _WINDOW) >= wanted:
            return moment - up
    return limit - up


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and every outage."""
    rows = [_row(found) for found in grouped(samples, "kind", "workers").values()]
    columns = (
        "outage",
        "calls in flight",
        "healthy, calls/s",
        "recognised after, s",
        "then attempts/s while down",
        "full speed after, s",
        "while flapping, calls/s",
        "calls lost",
    )
    note = f"Calls of {nginx.LATENCY * 1000:.0f} ms; against a server that hangs with Timeout(attempt=1, total=120)."
    return [bounds_table(list(_bounds(samples))), Table("Outages", columns, rows, note)]


def _row(samples: Sequence[Sample]) -> List[str]:
    first = samples[0]
    shown = [
        spread(sample[name] for sample in samples).show(digits)
        for name, digits in (("healthy", 0), ("recognised", 2), ("while_down", 2), ("full_speed", 2), ("flapping", 0))
    ]
    return [first["kind"], f"C={first['workers']}", *shown, str(sum(sample["lost"] for sample in samples))]


def _bounds(samples: Sequence[Sample]) -> Iterator[Bound]:
    """The worst outage of each round."""
    rounds = list(grouped(samples, "round").values())

    def worst(value: Any) -> Any:
        return spread(max(value(sample) for sample in found) for found in rounds)

    over = worst(lambda sample: sample["while_down"] / sample["allowed"])
    yield Bound("attempts while down, once recognised, over max(1/s, 2 % of the healthy rate)", over, 1.0)
    late = worst(lambda sample: sample["full_speed"] - (_ATTEMPT if sample["kind"] == _HANGING else 0.0))
    yield Bound("seconds from recovery to full speed (less one attempt when it hung)", late, 3.0)
    yield Bound("calls lost", worst(lambda sample: float(sample["lost"])), 0, digits=0)
