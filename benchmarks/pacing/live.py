"""The six servers of the targets on real sockets: seconds against the ideal, and rejections."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from ..children import APART, CAP, run_capped, side_by_side
from ..contenders import CONTENDERS, RIVALS, installed
from ..measure import Sample
from ..store import HERE
from .scenarios import SCENARIOS

__all__ = ["CHATPOOL", "CONFIGURED", "Trial", "measure_live", "run", "trials"]

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


def trials(quick: bool, rivals: Sequence[str] = RIVALS) -> List[Trial]:
    """Return what is tried, with these of the rivals."""
    targets = [Trial(name) for name in SCENARIOS]
    if quick:
        return targets
    stated = [Trial(name, headers=True, rounds=1) for name in "ABE"]
    limited = [name for name, scenario in SCENARIOS.items() if scenario.limits]
    configured = [Trial(name, CONFIGURED, rounds=_ROUNDS if name == "A" else 1) for name in limited]
    without = [Trial(name, hint=hint, rounds=1) for hint in ("whole", None) for name in "ABCDEF"]
    clients = [*_OTHERS, *(CONTENDERS[rival].title for rival in rivals)]
    others = [Trial(name, client, rounds=1) for client in clients for name in "ABCDEF"]
    pairs = [Trial(name, pools=2, rounds=1) for name in "AC"]
    return [*targets, *stated, *configured, *without, *others, *pairs]


def measure_live(quick: bool) -> List[Sample]:
    """Every trial, round by round; side by side, as a limit leaves the machine idle most of the time.

    Rivals that pause come last, begun one soon after the other: each makes a few calls, and waits until it is ended.
    Nothing else runs meanwhile, as these need so much of a CPU for a call that others slow them down below the limit.
    """
    samples: List[Sample] = []
    pausing = {contender.title for contender in CONTENDERS.values() if contender.pauses}
    chosen = trials(quick, [] if quick else installed(RIVALS))
    for turn in range(1 if quick else _ROUNDS):
        taking_part = [trial for trial in chosen if turn < trial.rounds]
        idle = [trial for trial in taking_part if trial.client in pausing]
        busy = [trial for trial in taking_part if trial.client not in pausing]
        measured = side_by_side(run, busy, _SIDE_BY_SIDE) + side_by_side(run, idle, len(idle), APART)
        samples += [{"round": turn, **sample} for sample in measured]
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def run(trial: Trial, cap: float = CAP) -> Sample:
    """Make a trial's calls, and return its sample; calls that a client was ended before are lost."""
    spec = {"scenario": trial.scenario, "hint": trial.hint, "headers": trial.headers}
    counted: Dict[str, Any] = {}
    with _server(spec, counted) as base_url:
        where = {"scenario": trial.scenario, "client": trial.client, "base_url": base_url, "pools": trial.pools}
        with ThreadPoolExecutor(trial.pools) as executor:
            used = list(executor.map(lambda _: run_capped("pacing.live_client", where, cap), range(trial.pools)))
    scenario = SCENARIOS[trial.scenario]
    ideal = scenario.ideal_within_windows() if trial.client == CONFIGURED else scenario.ideal()
    walls, ended = [usage.get("wall", cap) for usage in used], all(used)
    lost = sum(usage["lost"] for usage in used) if ended else scenario.calls - len(counted["accepted_at"])
    measured = {"ideal": ideal, "calls": scenario.calls, "refused": len(counted["refused_at"]), "walls": walls}
    measured.update(wall=max(walls), cpu=sum(usage.get("cpu", 0.0) for usage in used), lost=lost, ended=ended)
    if trial.scenario in "AD" and trial.client == CHATPOOL and trial.pools == 1:
        measured["timeline"] = _timeline(counted)
    return {"what": "live", **trial._asdict(), **measured}


@contextmanager
def _server(spec: Mapping[str, Any], counted: Dict[str, Any]) -> Iterator[str]:
    """A server in a process of its own; yields its URL, and puts what it has counted into ``counted``."""
    command = [sys.executable, "-m", f"{__package__}.live_server", json.dumps(spec)]
    process = subprocess.Popen(
        command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield json.loads(process.stdout.readline())["base_url"]
            process.stdin.close()
            counted.update(json.loads(process.stdout.readline()))
        finally:
            process.kill()


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
