"""The worker threads of a pool, and the functions of the user that are called in them."""

from __future__ import annotations

import concurrent.futures.thread
import functools
import logging
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, NamedTuple, Optional

from .._locks import HAS_SAFE_WITH, new_lock, run_beside
from .._reentrancy import runs_user_code

__all__ = ["WorkerHooks", "WorkerThreads"]

logger = logging.getLogger("chatpool")

_IDLE_SECONDS = 0.5  # without work, until a worker thread counts as idle

Hook = Optional[Callable[[], Any]]


class WorkerHooks(NamedTuple):
    """Functions of the user that are called in the worker threads, with no argument.

    Attributes:
        after_call: after each call.
        worker_idle: in a thread that has had no work for ``_IDLE_SECONDS``, once until it has work again.
        worker_end: in a thread that ends.
    """

    after_call: Hook = None
    worker_idle: Hook = None
    worker_end: Hook = None

    def run(self, name: str) -> None:
        """Call one of them if it is set; never raises."""
        hook: Hook = getattr(self, name)
        if hook is not None:
            _run(name, hook)


@runs_user_code
def _run(name: str, hook: Callable[[], Any]) -> None:
    try:
        hook()
    except BaseException:  # a SystemExit of the hook must not end the worker
        logger.exception("%s raised; no call is affected", name)


class WorkerThreads(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` that stays usable after Ctrl-C in :meth:`submit`.

    The standard one could lose the lock of its count of idle threads there, or leave a thread that never begins; both
    for ever.

    Args:
        max_workers: the greatest number of threads.
        hooks: ``worker_idle`` and ``worker_end`` of them are called.
        run_hook: calls one of them by its name.
    """

    _idle_semaphore: Any
    _shutdown: bool
    _work_queue: Any

    def __init__(self, max_workers: int, hooks: WorkerHooks, run_hook: Callable[[str], None]) -> None:
        super().__init__(max_workers, thread_name_prefix="chatpool")
        self._shutdown_lock = new_lock()  # which is released again where Ctrl-C has left it taken
        self._idle_semaphore = _Permits()
        if hooks.worker_idle is not None or hooks.worker_end is not None:
            self._work_queue = _WatchedQueue(run_hook)

    if not HAS_SAFE_WITH:

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            """Submit without a lock, or in another thread: the ``with`` of the method may lose any at Ctrl-C."""
            is_main = threading.get_ident() == threading.main_thread().ident  # no other gets a Ctrl-C
            is_open = not (self._shutdown or concurrent.futures.thread._shutdown)
            if is_main and is_open and self._idle_semaphore.acquire(timeout=0):  # a thread waits: none is to be started
                work = _Work(functools.partial(fn, *args, **kwargs))
                self._work_queue.put(work)
                return work.future
            submit = super().submit
            futures = []
            run_beside(lambda: futures.append(submit(fn, *args, **kwargs)))
            return futures[0]

    def _adjust_thread_count(self) -> None:
        if not self._idle_semaphore.acquire(timeout=0):
            run_beside(super()._adjust_thread_count)


class _Work:
    """A piece of work as the executor's threads take it: they call ``run``, from Python 3.14 on with an argument."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._function = function

    def run(self, *_: Any) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _WatchedQueue:
    """The queue that an executor's threads take their work from; it calls hooks in threads that get none.

    ``None`` in the queue tells a thread to end.
    """

    def __init__(self, run_hook: Callable[[str], None]) -> None:
        self._run_hook = run_hook
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put = self._queue.put

    def get(self, block: bool = True) -> Any:
        """Return the next piece of work; wait for it."""
        try:
            work = self._queue.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            self._run_hook("worker_idle")
            work = self._queue.get()
        return self._taken(work)

    def get_nowait(self) -> Any:
        """Return the next piece of work.

        Raises:
            queue.Empty: there is none.
        """
        return self._taken(self._queue.get_nowait())

    def _taken(self, work: Any) -> Any:
        if work is None:
            self._run_hook("worker_end")
        return work


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
