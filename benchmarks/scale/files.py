"""Cost of shards, measured with real files: CPU, bytes, memory; by row, and by shard.

CPU and not wall time, so that the figures are those of the code on a machine that does other things as well.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from chatpool._journal import DigestTable
from chatpool._journal.record import key_of
from chatpool.batch import shards
from chatpool.testing import MemoryPool

from ..measure import Sample

__all__ = ["measure_files"]

_QUESTION = "What is the answer to this question? " * 12  # about 100 tokens
_ANSWER = "An answer of some words. " * 16


def measure_files(quick: bool) -> List[Sample]:
    """Shards of many rows, shards of one row, and the custom_ids in memory."""
    rows, of_one_row, split_rows, names = (4_000, 100, 10_000, 20_000) if quick else (20_000, 500, 250_000, 300_000)
    with tempfile.TemporaryDirectory() as folder:
        return [
            {"round": 0, "what": "split", **_split(Path(folder, "split"), split_rows, 5_000)},
            {"round": 0, "what": "rows", **_all_steps(Path(folder, "rows"), rows, rows // 8)},
            {"round": 0, "what": "shards", **_all_steps(Path(folder, "shards"), of_one_row, 1)},
            {"round": 0, "what": "names", **_names(names)},
        ]


def _cpu(work: Callable[[], Any]) -> Tuple[float, Any]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def _write_source(folder: Path, rows: int) -> Path:
    folder.mkdir()
    with open(folder / "questions.jsonl", "w", encoding="ascii") as file:
        file.writelines(
            json.dumps({"custom_id": f"row-{number:08d}", "prompt": _QUESTION}) + "\n" for number in range(rows)
        )
    return folder / "questions.jsonl"


def _split(folder: Path, rows: int, shard_rows: int) -> Dict[str, Any]:
    source = _write_source(folder, rows)
    cpu, plan = _cpu(lambda: shards.split(source, folder / "work", rows=shard_rows))
    return {
        "rows": rows,
        "shards": len(plan.shards),
        "split": cpu,
        "source_bytes": source.stat().st_size,
        "manifest_bytes": os.path.getsize(plan.manifest),
    }


def _all_steps(folder: Path, rows: int, shard_rows: int) -> Dict[str, Any]:
    """Split, run, run again, status and merge."""
    found = _split(folder, rows, shard_rows)
    work, pool = folder / "work", MemoryPool("m", replies=_ANSWER)
    found["load"], plan = _cpu(lambda: shards.load(work))
    indices = range(len(plan.shards))

    def run_all() -> None:
        for index in indices:
            shards.run(plan, index, pool=pool, progress=False)

    found["run"], _ = _cpu(run_all)
    found["again"], _ = _cpu(run_all)
    found["status"], states = _cpu(lambda: shards.status(plan))
    found["merge"], merged = _cpu(lambda: shards.merge(plan, folder / "answers.jsonl"))
    assert sum(each.done for each in states) == merged.succeeded == rows
    files = [path for path in (work / "answers").rglob("*") if path.is_file()]
    found["files"] = len(files)
    found["answers_bytes"] = sum(path.stat().st_size for path in files)
    found["merge_memory"] = _peak_bytes(lambda: shards.merge(plan, folder / "answers.jsonl"))
    return found


def _names(number: int) -> Dict[str, Any]:
    """Memory of the table in which split looks for names that come twice."""

    def fill() -> None:
        table = DigestTable()
        for row in range(number):
            table.update(key_of(f"row-{row:08d}"), 0, row + 1)

    return {"rows": number, "memory": _peak_bytes(fill)}


def _peak_bytes(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
