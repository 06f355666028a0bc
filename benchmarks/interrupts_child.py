"""A process whose workers are blocked, until it is told to end: ``python -m benchmarks.interrupts_child SPEC``."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from typing import Any, List, Mapping, NoReturn

from chatpool import ChatPool, Timeout
from chatpool.events import Event

__all__ = ["run"]


class _Started:
    """Prints ``ready`` on stdout when all workers have begun an attempt."""

    kinds = ("sent",)

    def __init__(self, workers: int) -> None:
        self._left = threading.Semaphore(0)
        self._workers = workers
        threading.Thread(target=self._announce, daemon=True).start()

    def __call__(self, event: Event) -> None:
        self._left.release()

    def _announce(self) -> None:
        for _ in range(self._workers):
            self._left.acquire()
        print("ready", flush=True)


def _block_names() -> None:
    """Let every look-up of a name hang, as with a name server that does not answer; addresses need none."""
    look_up = socket.getaddrinfo

    def hang(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> List[Any]:  # noqa: A002
        if flags & socket.AI_NUMERICHOST:
            return look_up(host, port, family, type, proto, flags)
        while True:
            threading.Event().wait()

    socket.getaddrinfo = hang


def run(spec: Mapping[str, Any]) -> None:
    """Block all workers; end on Ctrl-C, by an exception inside ``with``, or by ``abort()``.

    The last two on a line on stdin.
    """
    # A shell lets what it runs in the background ignore Ctrl-C, and so would every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if spec["block_names"]:
        _block_names()
    workers = spec["workers"]
    pool = ChatPool(
        "m",
        api_key="key",
        base_url=spec["base_url"],
        max_workers=workers,
        timeout=Timeout(connect=600),
        listeners=[_Started(workers)],
    )
    asked = [str(number) for number in range(2 * workers)]
    if spec["how"] == "Ctrl-C":
        pool.map(asked, progress=False)
    elif spec["how"] == "with":
        _leave_with(pool, asked)
    else:
        futures = [pool.submit(prompt) for prompt in asked]
        sys.stdin.readline()
        pool.abort()
        if not all(future.done() for future in futures):
            raise RuntimeError("abort() leaves calls without an outcome")


def _leave_with(pool: ChatPool, asked: List[str]) -> NoReturn:
    with pool:
        for prompt in asked:
            pool.submit(prompt)
        sys.stdin.readline()
        raise LookupError("of the script's own")


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
