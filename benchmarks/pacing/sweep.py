"""Hundreds of random servers on a simulated clock."""

from __future__ import annotations

from typing import Dict, List, Sequence

from chatpool.policy.pacing import Pacer

from ..measure import Sample
from .simulation import Client, ideal, simulate
from .worlds import KINDS, random_scene

__all__ = ["TARGETS", "measure_sweep", "quantile"]

TUNED = range(200)  # the rules were tried on some of these while they were made
UNSEEN = range(10_000, 10_200)

# The share of the servers, and the multiple of the ideal that these keep.
TARGETS: Dict[str, float] = {"rate": 1.25, "in flight": 1.3, "rate without burst": 2.0, "no limit": 1.03}
_GIVEN_UP_AFTER = 3000.0  # seconds, on the simulated clock


def measure_sweep(quick: bool) -> List[Sample]:
    """One sample per kind of server and set of seeds."""
    samples: List[Sample] = []
    for seeds, name in ((TUNED, "used for tuning"), (UNSEEN, "not used for tuning")):
        where = {"what": "sweep", "round": 0, "seeds": name}
        samples += [{**where, "kind": kind, **_sweep(kind, seeds, quick)} for kind in KINDS]
    return samples


def _sweep(kind: str, seeds: Sequence[int], quick: bool) -> Dict[str, List[float]]:
    over, refused = [], []
    for seed in seeds[: 40 if quick else None]:
        scene = random_scene(kind, seed)
        client = Client(Pacer(), scene.calls, scene.workers)
        simulate(scene.world, [client], seed, until=_GIVEN_UP_AFTER)
        lost = client.done < client.calls
        over.append(float("inf") if lost else client.ended / ideal(scene.world, client, seed))
        refused.append(len(client.refusals) / client.calls)
    return {"over": over, "refused": refused}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
