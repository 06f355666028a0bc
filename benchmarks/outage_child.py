"""Calls without end against a server that has an outage: ``python -m benchmarks.outage_child SPEC``."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from chatpool import ChatPool, Timeout
from chatpool.events import Event

from .answer import MODEL, TEXT, prompts

__all__ = ["run"]

_LOOK_EVERY = 0.02  # seconds
_LATE = 30.0  # seconds after the end of the questions: what has no answer then is lost


class Heard:
    """The times of attempts and successes, on the system's monotonic clock."""

    kinds = ("sent", "succeeded")

    def __init__(self) -> None:
        self.sent: List[float] = []
        self.succeeded: List[float] = []

    def __call__(self, event: Event) -> None:
        (self.sent if event.kind == "sent" else self.succeeded).append(event.time)


class Watch:
    """The changes of the pool's state, (time, whether calls are held because the server is down)."""

    def __init__(self, pool: ChatPool) -> None:
        self.changes: List[Tuple[float, bool]] = []
        self._pool = pool
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        held = False
        while not self._over.wait(_LOOK_EVERY):
            now = any("down" in (line.why or "") for line in self._pool.stats().lines.values())
            if now is not held:
                held = now
                self.changes.append((time.monotonic(), held))

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Make calls from now until the moment ``spec["end"]``; every one of them has its outcome in the end."""
    heard, lost, workers = Heard(), [], spec["workers"]
    pool = ChatPool(
        MODEL,
        api_key="key",
        base_url=spec["base_url"],
        max_workers=workers,
        timeout=Timeout(**spec["timeout"]) if spec["timeout"] else None,
        listeners=[heard],
    )
    with pool:
        watch = Watch(pool)
        calls = 0
        longest = spec["end"] - time.monotonic() + _LATE
        asked = _until(spec["end"])
        for outcome in pool.as_completed(asked, progress=False, buffersize=4 * workers, run_timeout=longest):
            calls += 1
            if outcome.value is None or outcome.value.text != TEXT:
                lost.append(f"{type(outcome.error).__name__}: {outcome.error}")
        watch.close()
    return {
        "calls": calls,
        "lost": len(lost),
        "errors": lost[:3],
        "sent": [round(time, 3) for time in heard.sent],
        "succeeded": [round(time, 3) for time in heard.succeeded],
        "held": watch.changes,
    }


def _until(end: float) -> Iterator[str]:
    asked = prompts(100)
    while time.monotonic() < end:
        yield from asked


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
