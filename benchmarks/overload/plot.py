"""Drawings for the documentation, of runs made for them: ``python -m benchmarks.overload.plot``.

Run again after a change of the pace; needs nginx, as the benchmark does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence

from ..pacing.plot import draw
from ..store import HERE
from .fronts import LATENCY
from .model_server import Entry
from .trials import CHATPOOL, ROWS, Trial, run

__all__ = ["DRAWINGS", "Drawing", "timeline", "write_plots"]

_ANSWERED = 200
_WORKERS = 64


class Drawing(NamedTuple):
    """One run and its drawing.

    Attributes:
        row: which of :data:`.trials.ROWS`.
        title: what the drawing calls it.
        step: seconds per bar.
    """

    row: str
    title: str
    step: float


DRAWINGS: Mapping[str, Drawing] = {
    "pacing-503": Drawing("limit_req", "nginx, 5 calls a second, burst 2, status 503", 0.5),
    "pacing-random": Drawing("random-15", "15 % rejected at random, status 429, no hint", 0.25),
}


def write_plots(folder: Path = HERE.parent / "docs" / "explanation") -> List[Path]:
    """Make every run, and a drawing of each."""
    written = []
    for name, drawing in DRAWINGS.items():
        _, log = run(Trial(drawing.row, CHATPOOL, _WORKERS))
        title = f"{drawing.title}; {ROWS[drawing.row].calls:,} calls, {_WORKERS} workers"
        path = folder / f"{name}.svg"
        path.write_text(draw(title, timeline(log, drawing.step), drawing.step), encoding="utf-8")
        written.append(path)
    return written


def timeline(log: Sequence[Entry], step: float) -> Dict[str, List[int]]:
    """Return calls accepted and refused in each ``step`` seconds, by the server's log.

    An answer is logged when it is done: the call was accepted earlier by the latency.
    """
    times = [(moment - LATENCY if status == _ANSWERED else moment, status) for moment, status in log]
    first, last = min(times)[0], max(times)[0]
    slots = int((last - first) / step) + 1
    counts = {"accepted": [0] * slots, "refused": [0] * slots}
    for moment, status in times:
        counts["accepted" if status == _ANSWERED else "refused"][int((moment - first) / step)] += 1
    return counts


if __name__ == "__main__":
    for path in write_plots():
        print(path)
