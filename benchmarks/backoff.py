"""Calls that fail and are made again: how much longer a run takes than it has to."""

from __future__ import annotations

import sys
import uuid
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

from . import nginx
from .children import run_child
from .contenders import CONTENDERS
from .measure import Sample, grouped, ratios, spread
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]


class Scenario(NamedTuple):
    """One run against the server.

    Attributes:
        name: what the report calls it.
        contender: who makes the calls.
        location: nginx's location, which decides what fails.
        workers: calls in flight at most.
        calls: how many there are.
        ideal: seconds if no thread ever waits while there is work; 0 without a promise about it.
        wait_fixed: the wait between attempts; 0 for the contender's own back-off.
        rounds: how many of the rounds it takes part in.
    """

    name: str
    contender: str
    location: str
    workers: int
    calls: int
    ideal: float = 0.0
    wait_fixed: float = 0.0
    rounds: int = 3


def _ideal(calls: int, workers: int, attempts_per_call: float) -> float:
    return calls * attempts_per_call * nginx.LATENCY / workers


_FIFTH_10, _FIFTH_100 = "every 5th call fails once, C=10, N=400", "every 5th call fails once, C=100, N=2,000"
_RANDOM, _RANDOM_LONG, _HEALTHY = "20 % random 503s, N=2,000", "20 % random 503s, N=10,000", "no faults, N=10,000"

_SCENARIOS = (
    Scenario(_FIFTH_10, "chatpool", "fifth", 10, 400, _ideal(400, 10, 1.2), wait_fixed=1.0),
    Scenario(_FIFTH_100, "chatpool", "fifth", 100, 2000, _ideal(2000, 100, 1.2), wait_fixed=1.0),
    Scenario(_RANDOM, "chatpool", "random", 100, 2000, _ideal(2000, 100, 1.25)),
    Scenario(_RANDOM_LONG, "chatpool", "random", 100, 10_000, _ideal(10_000, 100, 1.25)),
    Scenario(_HEALTHY, "chatpool", "slow", 100, 10_000, _ideal(10_000, 100, 1.0)),
    Scenario(_FIFTH_100, "requests", "fifth", 100, 2000, wait_fixed=1.0, rounds=1),
    Scenario(_FIFTH_100, "aiohttp", "fifth", 100, 2000, wait_fixed=1.0, rounds=1),
    Scenario(_RANDOM, "requests", "random", 100, 2000, rounds=1),
    Scenario(_RANDOM, "aiohttp", "random", 100, 2000, rounds=1),
)


def measure(quick: bool) -> List[Sample]:
    """Every scenario, round by round."""
    samples: List[Sample] = []
    with nginx.running() as server:
        for turn in range(2 if quick else 3):
            samples += [_run(server, scenario, turn) for scenario in _SCENARIOS if _takes_part(scenario, turn, quick)]
            print(f"round {turn + 1}", file=sys.stderr)
    return samples


def _takes_part(scenario: Scenario, turn: int, quick: bool) -> bool:
    return turn < scenario.rounds and (scenario.contender == "chatpool" or not quick)


def _run(server: nginx.Server, scenario: Scenario, turn: int) -> Sample:
    target = {
        "base_url": server.base_url(scenario.location),
        "workers": scenario.workers,
        "query": f"run={uuid.uuid4().hex}",  # what the server has seen in another run does not count
        "wait_fixed": scenario.wait_fixed,
    }
    spec: Dict[str, Any] = {"contender": scenario.contender, "target": target, "calls": scenario.calls, "warm_up": 0}
    where = {"round": turn, "scenario": scenario.name, "contender": scenario.contender, "ideal": scenario.ideal}
    return {**where, **run_child("contender_child", spec)}


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and the seconds of every scenario; connections are made within the time measured."""
    rows = [_row(found) for found in grouped(samples, "scenario", "contender").values()]
    columns = ("scenario", "client", "seconds", "ideal", "over the ideal", "calls lost")
    return [bounds_table(list(_bounds(samples))), Table("Seconds per run, each call 50 ms", columns, rows)]


def _row(samples: Sequence[Sample]) -> List[str]:
    first = samples[0]
    seconds = spread(sample["wall"] for sample in samples)
    # The ideal of others is the same; it is not what they promise.
    ideal = first["ideal"]
    over = [f"{ideal:.2f}", spread(sample["wall"] / ideal for sample in samples).show()] if ideal else ["-", "-"]
    lost = sum(sample["lost"] for sample in samples)
    return [first["scenario"], CONTENDERS[first["contender"]].title, seconds.show(), *over, str(lost)]


def _bounds(samples: Sequence[Sample]) -> Iterator[Bound]:
    by_name = grouped([sample for sample in samples if sample["contender"] == "chatpool"], "scenario")
    for name, limit in ((_FIFTH_10, 1.5), (_FIFTH_100, 2.0)):
        yield Bound(f"{name}: over the ideal", spread(s["wall"] / s["ideal"] for s in by_name[name]), limit)
    long = ratios(by_name[_RANDOM_LONG], by_name[_HEALTHY], lambda sample: float(sample["wall"]))
    yield Bound(f"{_RANDOM_LONG}: over the same run without faults", spread(long), 1.8)
    yield Bound(f"{_RANDOM}: seconds", spread(s["wall"] for s in by_name[_RANDOM]), 2.2)
    lost = spread(float(sample["lost"]) for found in by_name.values() for sample in found)
    yield Bound("calls lost in a run", lost, 0, digits=0)
