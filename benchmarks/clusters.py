"""Shards on a Dask cluster of four processes: what is lost, doubled and sent again, and a limit for all of them."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from chatpool.batch import shards
from chatpool.testing import Delay, FakeServer

from . import redis_server
from .measure import Sample, grouped, spread
from .store import HERE
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]

WORKERS, MAX_WORKERS, KILLS = 4, 8, 5
_LATENCY_SECONDS = 0.05
_LIMIT = 600  # requests a minute
_LONGEST_SECONDS = 600.0


def measure(quick: bool) -> List[Sample]:
    """All cases, round by round; about two and a half minutes, most of them for the limit.

    Raises:
        RuntimeError: the package distributed or redis, or redis-server, is missing.
    """
    try:
        import distributed  # noqa: F401 - for the child
    except ImportError:
        raise RuntimeError("the package distributed is missing: pip install 'chatpool[dask]'") from None
    parts, rows = (8, 25) if quick else (40, 100)
    samples: List[Sample] = []
    for turn in range(1 if quick else 2):
        for case, kills in (("no fault", 0), (f"{KILLS} workers killed", KILLS)):
            samples.append({"round": turn, "case": case, "kills": kills, **_run(parts, rows, kills=kills)})
        print(f"round {turn + 1}", file=sys.stderr)
    with redis_server.running() as url:
        parts, rows = (4, 100) if quick else (8, 100)
        limited = _run(parts, rows, limits={"requests_per_minute": _LIMIT, "scope": f"{url}/clusters"})
    samples.append({"round": 0, "case": f"{_LIMIT} a minute by Redis", "kills": 0, **limited})
    return samples


def _run(parts: int, rows: int, *, kills: int = 0, limits: Optional[Dict[str, Any]] = None) -> Sample:
    """Answer a plan of shards in a program of its own; return the counts, and times as the server saw them."""
    with tempfile.TemporaryDirectory() as folder, FakeServer(lambda request: Delay(_LATENCY_SECONDS)) as server:
        source, work = Path(folder, "rows.jsonl"), Path(folder, "work")
        names = [f"row {number}" for number in range(parts * rows)]
        source.write_text("".join(json.dumps({"custom_id": name, "prompt": name}) + "\n" for name in names))
        shards.split(source, work, rows=rows)
        spec = {"base_url": server.base_url, "max_workers": MAX_WORKERS, "limits": limits}
        started = time.monotonic()
        with _child(work, spec) as child:
            for turn in range(kills):
                sent = len(names) * (turn + 1) // (kills + 1)
                server.wait_until(lambda sent=sent: len(server.requests) >= sent, _LONGEST_SECONDS)  # type: ignore[misc]
                os.kill(_workers_of(child.pid)[turn % WORKERS], signal.SIGKILL)
            if child.wait(_LONGEST_SECONDS):
                raise RuntimeError(f"the program has ended with exit code {child.returncode}")
        seconds = time.monotonic() - started
        shards.merge(work, Path(folder, "merged.jsonl"))
        merged = [json.loads(line)["custom_id"] for line in Path(folder, "merged.jsonl").read_text().splitlines()]
        arrivals = sorted(request.time for request in server.requests)
        sent_again = len(server.requests) - len({request.prompt for request in server.requests})
    counts = collections.Counter(merged)
    first, last = arrivals[0], arrivals[-1]
    return {
        "rows": len(names),
        "lost": len(set(names) - set(counts)),
        "doubled": sum(counts.values()) - len(counts),
        "sent again": sent_again,
        "seconds": seconds,
        "of ideal": (last - first) / ((len(names) - 1) * 60 / _LIMIT) if limits else 0.0,
        "fullest minute": max(sum(start <= at < start + 60 for at in arrivals) for start in arrivals) if limits else 0,
    }


@contextlib.contextmanager
def _child(work: Path, spec: Dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"{__package__}.clusters_child", str(work), json.dumps(spec)]
    environment = {**os.environ, "OPENAI_API_KEY": "sk-of-the-benchmark"}
    process = subprocess.Popen(command, cwd=HERE.parent, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _workers_of(pid: int) -> List[int]:
    """Return the processes of the cluster's workers that live at this moment."""
    import psutil  # with distributed

    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in word for word in child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return sorted(found)


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and all counts."""
    by_case: Any = grouped(samples, "case")
    lossless = [sample["lost"] + sample["doubled"] for sample in samples]
    bounds = [Bound("rows lost or doubled, all cases", spread(lossless), 0)]
    rows = []
    for case, group in by_case.items():
        again = spread(sample["sent again"] for sample in group)
        bounds.append(Bound(f"rows sent again: {case}", again, group[0]["kills"] * MAX_WORKERS))
        if group[0]["of ideal"]:
            bounds.append(Bound(f"requests in the fullest minute: {case}", _of(group, "fullest minute"), _LIMIT))
            bounds.append(Bound(f"time over the ideal: {case}", _of(group, "of ideal"), 1.05))
        counts = (str(max(sample[name] for sample in group)) for name in ("lost", "doubled", "sent again"))
        rows.append([case, str(group[0]["rows"]), *counts, _of(group, "seconds").show()])
    note = f"{WORKERS} processes, {MAX_WORKERS} calls in flight in each, {_LATENCY_SECONDS * 1000:.0f} ms a call."
    columns = ("case", "rows", "lost", "doubled", "sent again", "seconds, start of the cluster included")
    return [bounds_table(bounds), Table("Shards on a Dask cluster", columns, rows, note)]


def _of(samples: Sequence[Sample], name: str) -> Any:
    return spread(sample[name] for sample in samples)
