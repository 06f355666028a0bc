"""Any number of calls by ``pool.imap``, none of them kept: ``python -m benchmarks.growth_child SPEC``."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from typing import Any, Dict, Mapping

from .answer import MODEL, TEXT, prompts

__all__ = ["run"]


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Make ``spec["calls"]`` calls, ``spec["workers"]`` at a time; returns what they took, as ``contender_child``."""
    sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError
    from chatpool import ChatPool

    (prompt,) = prompts(1)
    calls, workers = spec["calls"], spec["workers"]
    with ChatPool(MODEL, api_key="k", base_url=spec["base_url"], max_workers=workers) as pool:
        pool.map([prompt] * 2 * workers, progress=False)
        gc.collect()
        gc.freeze()
        cpu, wall = time.process_time(), time.perf_counter()
        found = sum(
            item.ok and item.value.text == TEXT for item in pool.imap((prompt for _ in range(calls)), progress=False)
        )
        used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    lost = calls - found
    return {"calls": calls, "lost": lost, **used, "peak_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
