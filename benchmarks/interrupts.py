"""How soon a process ends whose workers are all blocked: by Ctrl-C, by an exception inside ``with``, by ``abort()``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Dict, List, Mapping, Sequence

from .interrupts_servers import STATES, Blocker
from .measure import Sample, Spread, grouped, spread
from .store import HERE
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]

WORKERS = 256
LIMIT = 1.0
"""Seconds from the signal to the end of the process."""

_LONGEST = 30.0  # seconds

WAYS: Mapping[str, int] = {"Ctrl-C": -signal.SIGINT, "with": 1, "abort": 0}
"""How a process is told to end, and the exit code that it has then."""

_TITLES = {"Ctrl-C": "Ctrl-C in `map`", "with": "an exception inside `with`", "abort": "`abort()`"}


def measure(quick: bool) -> List[Sample]:
    """Each state and each way in a process of its own, round by round."""
    samples: List[Sample] = []
    for turn in range(1 if quick else 5):
        for state, serve in STATES.items():
            for how in WAYS:
                with serve(WORKERS) as blocker:
                    samples.append({"round": turn, "state": state, "how": how, "seconds": _run(blocker, how)})
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def _run(blocker: Blocker, how: str) -> float:
    """Seconds from telling a process to end to its end."""
    spec = {"base_url": blocker.base_url, "workers": WORKERS, "how": how, "block_names": blocker.block_names}
    process = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.interrupts_child", json.dumps(spec)],
        cwd=HERE.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        return _end(process, blocker, how)
    finally:
        process.kill()
        process.communicate()


def _end(process: subprocess.Popen[str], blocker: Blocker, how: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"the process does not start: {process.stderr.read()[-3000:]}")
    blocker.wait()
    started = time.monotonic()
    if how == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        process.stdin.write("\n")
        process.stdin.flush()
    try:
        code = process.wait(_LONGEST)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{how}: the process does not end within {_LONGEST:.0f} s") from error
    seconds = time.monotonic() - started
    if code != WAYS[how]:
        raise RuntimeError(f"{how}: exit code {code}\n{process.stderr.read()[-3000:]}")
    return seconds


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and every state."""
    bounds = [
        Bound(f"{_TITLES[str(how)]}: seconds, worst state of each round", _worst(found), LIMIT)
        for how, found in grouped(samples, "how").items()
    ]
    rows = []
    for state, found in grouped(samples, "state").items():
        by_way: Dict[object, List[Sample]] = dict(grouped(found, "how"))
        rows.append([str(state), *(spread(s["seconds"] for s in by_way[how]).show() for how in WAYS)])
    columns = (f"{WORKERS} workers in", *(_TITLES[how] for how in WAYS))
    return [bounds_table(bounds), Table("Seconds from the signal to the end of the process", columns, rows)]


def _worst(samples: Sequence[Sample]) -> Spread:
    return spread(max(sample["seconds"] for sample in found) for found in grouped(samples, "round").values())
