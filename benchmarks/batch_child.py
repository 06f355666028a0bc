"""Measures batch runs in a separate process; prints one JSON object."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping

from chatpool import ChatPool
from chatpool.batch import run

from .answer import MODEL, prompts

_LOOK_EVERY = 2_000  # rows


def against_map(base_url: str, rows: int, workers: int, first: str) -> Dict[str, Any]:
    """Rows per second and CPU per row of ``pool.map`` and of a batch run, one after the other on the same pool."""
    asked = prompts(rows)
    with _folder() as folder, ChatPool(MODEL, api_key="key", base_url=base_url, max_workers=workers) as pool:
        source = _write(folder, rows)
        pool.map(asked[: 4 * workers], progress=False)

        def of_map() -> None:
            if None in pool.map(asked, progress=False):
                raise RuntimeError("not every call was answered")

        def of_batch() -> None:
            _run(source, folder / "out.jsonl", rows, pool=pool)

        contenders: Mapping[str, Callable[[], None]] = {"map": of_map, "batch": of_batch}
        order = sorted(contenders, key=lambda name: name != first)
        found = {name: _measured(contenders[name], rows) for name in order}
    return {f"{name}_{what}": value for name, facts in found.items() for what, value in facts.items()}


def processes(base_url: str, rows: int, workers: int, count: int) -> Dict[str, Any]:
    """Rows per second and CPU per row of a batch run by ``count`` processes, the children's start included."""
    with _folder() as folder:
        source = _write(folder, rows)
        options = {"model": MODEL, "api_key": "key", "base_url": base_url, "max_workers": workers, "processes": count}
        return _measured(lambda: _run(source, folder / "out.jsonl", rows, **options), rows)


def memory(base_url: str, rows: int, workers: int) -> Dict[str, Any]:
    """The most resident memory that a run takes."""
    watch = _Watch()
    with _folder() as folder:
        source = _write(folder, rows)
        options = {"model": MODEL, "api_key": "key", "base_url": base_url, "max_workers": workers}
        facts = _measured(lambda: _run(source, folder / "out.jsonl", rows, listeners=[watch], **options), rows)
    return {**facts, "most": max(watch.most, _rss())}


class _Watch:
    """A listener that looks at the memory."""

    kinds = ("succeeded",)

    def __init__(self) -> None:
        self._seen = self.most = 0

    def __call__(self, event: Any) -> None:
        self._seen += 1
        if self._seen % _LOOK_EVERY == 0:
            self.most = max(self.most, _rss())


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chatpool-bench-") as folder:
        yield Path(folder)


def _write(folder: Path, rows: int) -> Path:
    path, asked = folder / "in.jsonl", prompts(1000)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            body = {"model": MODEL, "messages": [{"role": "user", "content": asked[number % len(asked)]}]}
            line = {"custom_id": f"row {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path


def _run(source: Path, target: Path, rows: int, **options: Any) -> None:
    result = run(source, target, progress=False, **options)
    if result.succeeded != rows:
        raise RuntimeError(result.summary())


def _measured(action: Callable[[], None], rows: int) -> Dict[str, float]:
    gc.collect()
    cpu, started = _cpu(), time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    return {"rate": rows / seconds, "cpu": (_cpu() - cpu) / rows}


def _cpu() -> float:
    """Seconds of CPU of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_TASKS: Mapping[str, Callable[..., Dict[str, Any]]] = {
    "against_map": against_map,
    "processes": processes,
    "memory": memory,
}


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    print(json.dumps(_TASKS[spec["task"]](**spec["options"])))
