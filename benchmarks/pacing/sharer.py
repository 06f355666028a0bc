"""A process with many threads that use a shared limit; prints what they were given, and what asking cost."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, Dict, List

from chatpool._quota import SharedLimit, Sharing


def main() -> None:
    """Run what the command line says."""
    spec: Dict[str, Any] = json.loads(sys.argv[1])
    limit = Sharing(spec["scope"], **spec["limits"]).limit("http://server", "m")
    limit.status()
    waits = threading.Event()
    waits.wait(spec["start"] - time.time())
    ends = time.monotonic() + spec["seconds"]
    slots_by_thread: List[List[Dict[str, float]]] = [[] for _ in range(spec["threads"])]
    threads = [threading.Thread(target=_use, args=(limit, ends, spec, slots)) for slots in slots_by_thread]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"threads": slots_by_thread, "shared": limit.is_shared}))


def _use(limit: SharedLimit, ends: float, spec: Dict[str, Any], slots: List[Dict[str, float]]) -> None:
    never = threading.Event()
    while True:
        asked = time.monotonic()
        slot = limit.reserve(1, spec["tokens"], max_wait=ends - asked)
        cost = time.monotonic() - asked
        if not slot.granted:
            return
        slots.append({"at": slot.at, "cost": cost})
        never.wait(slot.wait)
        limit.correct(slot, spec["used"])


if __name__ == "__main__":
    main()
