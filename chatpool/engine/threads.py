"""The threads that workers run on."""

from __future__ import annotations

import functools
import queue
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Optional

from ..locks import run_beside

__all__ = ["WorkerThreads"]


class WorkerThreads(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` that Ctrl-C in :meth:`submit` does no harm.

    The standard one could lose the lock of its count of idle threads there, or leave a thread that never begins; both
    for ever.
    """

    _idle_semaphore: Any

    def __init__(self, max_workers: int, *, thread_name_prefix: str) -> None:
        super().__init__(max_workers, thread_name_prefix=thread_name_prefix)
        self._idle_semaphore = _Permits()

    if sys.version_info < (3, 10):

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            """Run it beside as a whole: its ``with`` may lose any lock."""
            submit = super().submit
            futures = []
            run_beside(lambda: futures.append(submit(fn, *args, **kwargs)))
            return futures[0]

    def _adjust_thread_count(self) -> None:
        if not self._idle_semaphore.acquire(timeout=0):
            run_beside(super()._adjust_thread_count)


class _Permits:
    """A semaphore, as far as the executor uses it, in which no exception can come between two steps."""

    def __init__(self) -> None:
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.release = functools.partial(self._permits.put, None)

    def acquire(self, timeout: Optional[float] = None) -> bool:
        """Take a permit if there is one."""
        try:
            self._permits.get(block=False)
        except queue.Empty:
            return False
        return True
