"""The time until a process with blocked workers ends: by Ctrl-C, by an exception inside ``with``, by ``abort()``."""

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

_LONGEST_SECONDS = 30.0  # seconds

WAYS: Mapping[str, int] = {"Ctrl-C": -signal.SIGINT, "with": 1, "abort": 0}
"""The ways to end a process, and its exit code after each."""

_TITLES = {"Ctrl-C": "Ctrl-C in `map`", "with": "an exception inside `with`", "abort": "`abort()`"}


def measure(quick: bool) -> List[Sample]:
    """Each state and each way in a process of its own, round by round."""
    samples: List[Sample] = []
    for turn in range(1 if quick else 3):
        for state, serve in STATES.items():
            for way in WAYS:
                with serve(WORKERS) as blocker:
                    samples.append({"round": turn, "state": state, "how": way, "seconds": _run(blocker, way)})
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def _run(blocker: Blocker, way: str) -> float:
    """Seconds from telling a process to end to its end."""
    spec = {"base_url": blocker.base_url, "workers": WORKERS, "how": way, "block_names": blocker.block_names}
    process = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.interrupts_child", json.dumps(spec)],
        cwd=HERE.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        return _end(process, blocker, way)
    finally:
        process.kill()
        process.communicate()


def _end(process: subprocess.Popen[str], blocker: Blocker, way: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"the process does not start: {process.stderr.read()[-3000:]}")
    blocker.wait()
    started = time.monotonic()
    if way == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        process.stdin.write("\n")
        process.stdin.flush()
    try:
        code = process.wait(_LONGEST_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{way}: the process does not end within {_LONGEST_SECONDS:.0f} s") from error
    seconds = time.monotonic() - started
    if code != WAYS[way]:
        raise RuntimeError(f"{way}: exit code {code}\n{process.stderr.read()[-3000:]}")
    return seconds


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and every state."""
    bounds = [
        Bound(f"{_TITLES[str(way)]}: seconds, worst state of each round", _worst(group), LIMIT)
        for way, group in grouped(samples, "how").items()
    ]
    rows = []
    for state, group in grouped(samples, "state").items():
        by_way: Dict[object, List[Sample]] = dict(grouped(group, "how"))
        rows.append([str(state), *(spread(s["seconds"] for s in by_way[way]).show() for way in WAYS)])
    columns = (f"{WORKERS} workers in", *(_TITLES[way] for way in WAYS))
    return [bounds_table(bounds), Table("Seconds from the signal to the end of the process", columns, rows)]


def _worst(samples: Sequence[Sample]) -> Spread:
    return spread(max(sample["seconds"] for sample in group) for group in grouped(samples, "round").values())
