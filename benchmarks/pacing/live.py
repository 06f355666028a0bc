"""The six servers of the targets on real sockets: seconds against the ideal, and rejections."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

from ..children import run_child
from ..measure import Sample
from ..store import HERE
from .scenarios import SCENARIOS

__all__ = ["CHATPOOL", "CONFIGURED", "Trial", "measure_live", "trials"]

CHATPOOL = "chatpool"
CONFIGURED = "chatpool, limits configured"
_ROUNDS, _SIDE_BY_SIDE = 2, 8
_OTHERS = ("the recipe: aiohttp + tenacity", "openai SDK, 2 retries", "openai SDK, 10 retries")


class Trial(NamedTuple):
    """One client against one server.

    Attributes:
        scenario: the server.
        client: who makes the calls.
        hint: what a rejection says: ``"exact"``, ``"whole"`` (seconds) or None.
        headers: whether answers state the limit.
        rounds: how many of the rounds it takes part in.
        pools: how many of the client share the work, each in a process of its own.
    """

    scenario: str
    client: str = CHATPOOL
    hint: Optional[str] = "exact"
    headers: bool = False
    rounds: int = _ROUNDS
    pools: int = 1


def trials(quick: bool) -> List[Trial]:
    """What is tried."""
    targets = [Trial(name) for name in SCENARIOS]
    if quick:
        return targets
    stated = [Trial(name, headers=True, rounds=1) for name in "ABE"]
    limited = [name for name, scenario in SCENARIOS.items() if scenario.limits]
    configured = [Trial(name, CONFIGURED, rounds=_ROUNDS if name == "A" else 1) for name in limited]
    without = [Trial(name, hint=hint, rounds=1) for hint in ("whole", None) for name in "ABCDEF"]
    others = [Trial(name, client, rounds=1) for client in _OTHERS for name in "ABCDEF"]
    pairs = [Trial(name, pools=2, rounds=1) for name in "AC"]
    return [*targets, *stated, *configured, *without, *others, *pairs]


def measure_live(quick: bool) -> List[Sample]:
    """Every trial, round by round; side by side, as a limit leaves the machine idle most of the time."""
    samples: List[Sample] = []
    for turn in range(1 if quick else _ROUNDS):
        taking_part = [trial for trial in trials(quick) if turn < trial.rounds]
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as side_by_side:
            outcomes = list(side_by_side.map(_run, taking_part))
        found = zip(taking_part, outcomes)
        samples += [{"what": "live", "round": turn, **trial._asdict(), **outcome} for trial, outcome in found]
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def _run(trial: Trial) -> Dict[str, Any]:
    spec = {"scenario": trial.scenario, "hint": trial.hint, "headers": trial.headers}
    counted: Dict[str, Any] = {}
    with _server(spec, counted) as base_url:
        where = {"scenario": trial.scenario, "client": trial.client, "base_url": base_url, "pools": trial.pools}
        with ThreadPoolExecutor(trial.pools) as executor:
            used = list(executor.map(lambda _: run_child("pacing.live_client", where), range(trial.pools)))
    scenario = SCENARIOS[trial.scenario]
    ideal = scenario.ideal_within_windows() if trial.client == CONFIGURED else scenario.ideal()
    walls = [usage["wall"] for usage in used]
    measured = {"ideal": ideal, "calls": scenario.calls, "refused": len(counted["refused_at"]), "walls": walls}
    measured.update(wall=max(walls), cpu=sum(usage["cpu"] for usage in used), lost=sum(usage["lost"] for usage in used))
    if trial.scenario in "AD" and trial.client == CHATPOOL and trial.pools == 1:
        measured["timeline"] = _timeline(counted)
    return measured


@contextmanager
def _server(spec: Mapping[str, Any], counted: Dict[str, Any]) -> Iterator[str]:
    """A server in a process of its own; yields its URL, and puts what it has counted into ``counted``."""
    command = [sys.executable, "-m", f"{__package__}.live_server", json.dumps(spec)]
    process = subprocess.Popen(
        command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["base_url"]
        process.stdin.close()
        counted.update(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def _timeline(counted: Mapping[str, List[float]]) -> Dict[str, List[int]]:
    """Calls accepted and rejected in each half second."""
    last = max([*counted["accepted_at"], *counted["refused_at"]])
    slots = int(2 * last) + 1
    timeline = {}
    for kind in ("accepted", "refused"):
        timeline[kind] = [0] * slots
        for time in counted[f"{kind}_at"]:
            timeline[kind][int(2 * time)] += 1
    return timeline
