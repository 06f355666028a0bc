"""Fork and exit of the process, for objects that have threads and connections; and the threads of workers."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its exit hook must be registered before the one below
import functools
import logging
import os
import queue
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, List, Optional, Protocol

from .._locks import run_beside

__all__ = ["ProcessObserver", "WorkerThreads", "register"]


logger = logging.getLogger("chatpool")


class ProcessObserver(Protocol):
    """An object with threads and connections."""

    def after_fork_in_child(self) -> None:
        """Start over: there are no threads, locks may stay held for ever, connections are the parent's."""

    def close(self, *, at_exit: bool = False) -> None:
        """Finish the submitted calls, then end; ``at_exit`` tells that the process is about to end."""

    def abort(self) -> None:
        """Give up everything and end."""


_living: weakref.WeakSet[ProcessObserver] = weakref.WeakSet()


def register(observer: ProcessObserver) -> None:
    """Tell ``observer`` of fork and exit for as long as something else refers to it."""
    _living.add(observer)


def _survivors() -> List[ProcessObserver]:
    return list(_living)


def _after_fork_in_child() -> None:
    for observer in _survivors():
        try:
            observer.after_fork_in_child()
        except Exception:  # the others must start over all the same
            logger.exception("%r cannot be used in this forked process", observer)


def _at_exit() -> None:
    """Finish the calls of a script that ends normally; abort those of one that ends with an exception."""
    failed = getattr(sys, "last_exc", None) is not None or getattr(sys, "last_type", None) is not None
    for observer in _survivors():
        if failed:
            observer.abort()
        else:
            observer.close(at_exit=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

# concurrent.futures joins its threads before atexit runs; hooks of threading run before that, the latest first.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)


class WorkerThreads(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` that stays usable after Ctrl-C in :meth:`submit`.

    The standard one could lose the lock of its count of idle threads there, or leave a thread that never begins; both
    for ever.
    """

    _idle_semaphore: Any

    def __init__(self, max_workers: int, *, thread_name_prefix: str) -> None:
        super().__init__(max_workers, thread_name_prefix=thread_name_prefix)
        self._idle_semaphore = _Permits()

    if sys.version_info < (3, 10):

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            """Submit in another thread: the ``with`` of the method may lose any lock at Ctrl-C."""
            submit = super().submit
            futures = []
            run_beside(lambda: futures.append(submit(fn, *args, **kwargs)))
            return futures[0]

    def _adjust_thread_count(self) -> None:
        if not self._idle_semaphore.acquire(timeout=0):
            run_beside(super()._adjust_thread_count)


class _Permits:
    """The part of a semaphore that the executor uses, in single steps that Ctrl-C cannot interrupt."""

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
