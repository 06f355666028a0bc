"""Streams over a connection, by several clients in turn: ``python -m benchmarks.first_token_child SPEC``."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from contextlib import ExitStack
from typing import Any, Dict, List, Mapping

from .answer import prompts
from .stream_clients import STREAM_CLIENTS, StreamClient

__all__ = ["run"]


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Read ``spec["streams"]`` streams of ``spec["chunks"]`` chunks with each of ``spec["clients"]``, in turn.

    Returns:
        Per client: ``first``, the median of the seconds to the first chunk, ``slow``, their 95th percentile,
        and ``cpu`` and ``wall``, the seconds for all chunks together.
    """
    sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError
    with ExitStack() as stack:
        query = {"n": str(spec["chunks"])}
        clients = {name: STREAM_CLIENTS[name](spec["base_url"], query, 1, stack) for name in spec["clients"]}
        for client in clients.values():
            _read(client, "warm up", spec["chunks"])
        gc.collect()
        gc.freeze()
        taken: Dict[str, List[Dict[str, float]]] = {name: [] for name in clients}
        for prompt in prompts(spec["streams"]):
            for name, client in clients.items():
                taken[name].append(_read(client, prompt, spec["chunks"]))
    return {name: _summary(each) for name, each in taken.items()}


def _read(client: StreamClient, prompt: str, expected: int) -> Dict[str, float]:
    cpu, started = time.process_time(), time.perf_counter()
    chunks = client(prompt)
    next(chunks)
    first = time.perf_counter() - started
    found = 1 + sum(1 for _ in chunks)
    used = {"first": first, "wall": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    if found < expected:
        raise RuntimeError(f"{found} of {expected} chunks came")
    return used


def _summary(taken: List[Dict[str, float]]) -> Dict[str, float]:
    first = sorted(each["first"] for each in taken)
    return {
        "first": statistics.median(first),
        "slow": first[int(0.95 * len(first))],
        "wall": sum(each["wall"] for each in taken),
        "cpu": sum(each["cpu"] for each in taken),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
