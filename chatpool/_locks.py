"""Locks: some that Ctrl-C never leaves taken, and one that forms no convoy.

An exception of a signal handler, Ctrl-C's above all, comes between any two steps of Python code in the main thread.
``with`` of a lock that is written in C lets none come between taking the lock and the block, nor between the block and
its release.  Others do: ``threading.Condition``, whose ``__enter__`` is Python code; ``concurrent.futures.wait``, which
takes the conditions of futures one by one; CPython 3.9, where it may come after a block has been left and before
``__exit__`` is called (bpo-29988); and CPython 3.14, where it may come when a lock has just been taken and its block
has not begun (3.14.10: 16 times of 732 in a loop of such blocks; 3.12, 3.13 and 3.15: none).  A lock of
:func:`new_lock` that is left taken all the same is released by :func:`release_forgotten`; what takes other locks runs
in another thread (:func:`run_beside`).

Workers take the locks of the scheduler, of a run and of a journal all the time: :func:`convoy_free` keeps them from
queueing for one.
"""

from __future__ import annotations

import _thread
import operator
import sys
import threading
import weakref
from collections import deque
from time import sleep  # at import: a test that replaces time.sleep means its own code
from typing import Any, Callable, ContextManager, Deque, Dict, List, Optional

__all__ = ["HAS_SAFE_WITH", "Condition", "convoy_free", "is_held", "new_lock", "release_forgotten", "run_beside"]

HAS_SAFE_WITH = (3, 10) <= sys.version_info < (3, 14) or sys.version_info >= (3, 15)
"""Whether ``with`` of a lock that is written in C always releases it on this Python, whenever Ctrl-C comes."""

# Not a WeakSet, which cannot be looked through while other threads add to it.
_locks: Dict[weakref.ref[Any], None] = {}


def new_lock() -> Any:
    """Return a lock for blocks that one thread enters and leaves, all of them with ``with``.

    It is a ``threading.RLock``, which knows the thread that has taken it; other locks do not.
    """
    lock: Any = threading.RLock()
    if type(lock).__module__ == "_thread":  # not gevent's, whose event loop takes the signals
        _locks[weakref.ref(lock, _locks.pop)] = None
    return lock


def is_held(lock: Any) -> bool:
    """Return whether the calling thread has taken ``lock``."""
    return bool(lock._is_owned())


def _lock_method(name: str) -> Any:
    """Return the attribute of a condition that is the method of its lock, which is written in C as this getter is."""
    return property(operator.attrgetter(f"_lock.{name}"))


class Condition(threading.Condition):
    """A ``threading.Condition`` that is entered and left as its lock is.

    Args:
        lock: a lock that :func:`new_lock` has returned; a new one by default.
    """

    _lock: Any

    def __init__(self, lock: Optional[Any] = None) -> None:
        # Not the usual one: its five bound methods of the lock would be 400 bytes of each future.
        self._lock = new_lock() if lock is None else lock
        self._waiters: Deque[Any] = deque()

    __enter__: Any = _lock_method("__enter__")
    __exit__: Any = _lock_method("__exit__")
    acquire: Any = _lock_method("acquire")
    release: Any = _lock_method("release")
    _release_save: Any = _lock_method("_release_save")
    _acquire_restore: Any = _lock_method("_acquire_restore")
    _is_owned: Any = _lock_method("_is_owned")

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait as ``threading.Condition.wait`` does; take the lock again whatever exception ends the wait."""
        try:
            return super().wait(timeout)
        except BaseException:
            if not is_held(self._lock):
                self._lock.acquire()
            raise


def release_forgotten() -> None:
    """Release every lock that this thread has left taken; to be called where it should hold none of them."""
    for reference in list(_locks):
        lock = reference()
        while lock is not None and is_held(lock):
            lock.release()


def run_beside(function: Callable[[], object]) -> None:
    """Call ``function``, which takes locks of the standard library, in another thread, where no Ctrl-C can come.

    An exception that comes to this thread meanwhile ends its wait only.

    Raises:
        BaseException: the error that ``function`` has raised.
        RuntimeError: no thread can be started.
    """
    if threading.get_ident() != threading.main_thread().ident:
        function()
        return
    ended = threading.Lock()
    ended.acquire()
    errors: List[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
        finally:
            ended.release()

    def begin() -> None:
        try:
            thread.start()
        except BaseException as error:
            errors.append(error)
            ended.release()

    # A thread that starts threads has to be a threading.Thread itself; and starting one takes locks, too.
    thread = threading.Thread(target=run)
    _thread.start_new_thread(begin, ())
    ended.acquire()
    if errors:
        raise errors[0]


# Between two tries. A lock that is held for longer than all of them together is worth queueing for.
_PAUSES_SECONDS = (1e-4, *[1e-3] * 250)


def convoy_free(lock: Any) -> ContextManager[Any]:
    """Return a context manager that takes ``lock``, a Lock or an RLock, without queueing for it.

    For a lock that many threads take often and hold for microseconds.  A thread that blocks in ``Lock.acquire`` owns
    the lock as soon as it is released, and then still waits for the interpreter.  Threads that run meanwhile find the
    lock taken and block too, and so does every thread from then on: a lock convoy (Blasgen et al., "The Convoy
    Phenomenon", 1979).  With 64 workers on two idle cores it added three switches between threads to each call.  No
    convoy forms without a queue: a thread that finds the lock taken sleeps a moment and tries again, and a running
    thread may take it first ("barging").

    Other threads may take ``lock`` in the usual way.  It is returned itself where that is as good: gevent's lock, whose
    threads never interrupt each other; on Windows, where the shortest sleep is long; and where there is no interpreter
    to wait for: without the global lock, threads that try again and again cost a quarter more with 16 workers on two
    cores, and half as much again with 64.

    Not for a lock whose own ``with`` the main thread needs, in which no Ctrl-C can come after the lock was taken and
    before the block has begun.
    """
    has_global_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    is_plain = type(lock).__module__ != "_thread" or sys.platform == "win32" or not has_global_lock
    return lock if is_plain else _ConvoyFree(lock)


class _ConvoyFree:
    __slots__ = ("_acquire", "_release")

    def __init__(self, lock: Any) -> None:
        self._acquire = lock.acquire
        self._release = lock.release

    def __enter__(self) -> None:
        if not self._acquire(False):
            self._wait()

    def _wait(self) -> None:
        for pause in _PAUSES_SECONDS:
            sleep(pause)
            if self._acquire(False):
                return
        self._acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._release()
