"""Hundreds of random servers on a simulated clock."""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Dict, List, NamedTuple, Sequence

from chatpool._policy.pacing import Pacer

from ..measure import Sample
from .simulation import ideal, simulate
from .worlds import KINDS, random_scene

__all__ = ["TARGETS", "Target", "measure_sweep", "quantile"]

TUNED = range(100)  # the rules were tried on some of these while they were made
UNSEEN = range(10_000, 10_100)


class Target(NamedTuple):
    """The multiple of the ideal that half of the servers of a kind keep, and that 90 % keep."""

    median: float
    nearly_all: float


TARGETS: Dict[str, Target] = {
    "rate": Target(1.05, 1.25),
    "rate without burst": Target(1.45, 2.0),
    "in flight": Target(1.15, 1.3),
    "no limit": Target(1.01, 1.03),
    "window": Target(1.15, 1.5),
    "changing": Target(1.15, 1.7),
    "tenants": Target(1.0, 1.3),
    "tokens": Target(1.05, 1.3),
    "limits that say 503": Target(1.05, 1.3),
    "queue until given up": Target(1.4, 2.3),
    "random refusals": Target(1.1, 1.5),
    "random refusals on a rate": Target(1.1, 1.7),
    "random refusals on calls in flight": Target(1.3, 3.5),
}
_GIVEN_UP_AFTER = 3000.0  # seconds, on the simulated clock


def measure_sweep(quick: bool) -> List[Sample]:
    """One sample per kind of server and set of seeds."""
    sets = {"used for tuning": TUNED, "not used for tuning": UNSEEN}
    cells = list(itertools.product(sets, KINDS))
    with ProcessPoolExecutor() as processes:  # as many as there are cores
        seeds = [sets[name][: 40 if quick else None] for name, _ in cells]
        swept = processes.map(_sweep, [kind for _, kind in cells], seeds)
        return [
            {"what": "sweep", "round": 0, "seeds": name, "kind": kind, **found}
            for (name, kind), found in zip(cells, swept)
        ]


def _sweep(kind: str, seeds: Sequence[int]) -> Dict[str, Any]:
    over, rejected, lost = [], [], 0
    for seed in seeds:
        scene = random_scene(kind, seed)
        client = scene.client(Pacer())
        simulate(scene.world, [client], seed, until=_GIVEN_UP_AFTER)
        lost += client.calls - client.done
        over.append(float("inf") if client.done < client.calls else client.ended / ideal(scene.world, client, seed))
        rejected.append(len(client.rejections) / client.calls)
    return {"over": over, "refused": rejected, "lost": lost}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
