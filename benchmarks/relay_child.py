"""Many streams at once, relayed by one client in a process of its own: ``python -m benchmarks.relay_child SPEC``."""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any, Dict, List, Mapping

from .answer import prompts
from .stream_clients import STREAM_CLIENTS, StreamClient

__all__ = ["run"]


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Relay ``spec["streams"]`` streams at once, each of ``spec["chunks"]`` chunks with a pause before each.

    The text of a chunk is the moment at which it was sent.

    Returns:
        ``late`` and ``latest``: the median and the 99th percentile of the seconds between a chunk was sent and
        relayed; ``cpu`` and ``wall``: the seconds for all of them.
    """
    sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError
    count = spec["streams"]
    with ExitStack() as stack:
        out = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, out)
        query = {"n": str(spec["chunks"]), "pause": str(spec["pause"])}
        client = STREAM_CLIENTS[spec["client"]](spec["base_url"], query, count, stack)
        _relay_all(client, prompts(count), out)  # connections are made
        gc.collect()
        gc.freeze()
        cpu, wall = time.process_time(), time.perf_counter()
        late = _relay_all(client, prompts(count), out)
        used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    if len(late) != count * spec["chunks"]:
        raise RuntimeError(f"{len(late)} of {count * spec['chunks']} chunks came")
    return {**used, "late": statistics.median(late), "latest": sorted(late)[int(0.99 * len(late))]}


def _relay_all(client: StreamClient, asked: List[str], out: int) -> List[float]:
    """Relay a stream in each of as many threads; return how late each chunk was."""
    late: List[List[float]] = [[] for _ in asked]
    threads = [threading.Thread(target=_relay, args=(client, *each, out)) for each in zip(asked, late)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each for found in late for each in found]


def _relay(client: StreamClient, prompt: str, found: List[float], out: int) -> None:
    for text in client(prompt):
        if text:
            os.write(out, b"data: %b\n\n" % text.encode())
            found.append(time.monotonic() - float(text))


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
