"""Locks that an exception of a signal handler, Ctrl-C's above all, never leaves taken.

Such an exception comes between any two steps of Python code in the main thread.  ``with`` of a lock that is written in
C lets none come between taking the lock and the block, nor between the block and its release.  Others do:
``threading.Condition``, whose ``__enter__`` is Python code; ``concurrent.futures.wait``, which takes the conditions of
futures one by one; and CPython 3.9, where it may come after a block has been left and before ``__exit__`` is called
(bpo-29988).  What is left taken all the same is released by :func:`release_forgotten`.

Taking a lock that many threads take all the time, without a convoy.

A thread that blocks in ``Lock.acquire`` owns the lock as soon as it is released, and then still has to wait for the
interpreter.  Whoever runs meanwhile finds the lock taken and blocks in its turn, and so do all the others from then
on: a lock convoy (Blasgen et al., "The Convoy Phenomenon", 1979).  With 64 workers on two idle cores it made each
call three switches between threads dearer.  It never forms when nobody queues: who finds the lock taken sleeps a
moment and tries again, and whoever runs may take it first ("barging").

A lock for many threads that want it often and hold it for microseconds.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
import weakref
from time import sleep  # at import: a test that replaces time.sleep means its own code
from typing import Any, Callable, ContextManager, Dict, List, Optional

__all__ = ["Condition", "Turns", "barging", "is_held", "new_lock", "release_forgotten", "run_beside"]


# Not a WeakSet, which cannot be looked through while other threads add to it.
_known: Dict[weakref.ref[Any], None] = {}


def new_lock() -> Any:
    """Return a lock for blocks that one thread enters and leaves, all of them with ``with``.

    It is a ``threading.RLock``: of others nobody knows who has taken them.
    """
    lock: Any = threading.RLock()
    if type(lock).__module__ == "_thread":  # not gevent's, whose event loop takes the signals
        _known[weakref.ref(lock, _known.pop)] = None
    return lock


def is_held(lock: Any) -> bool:
    """Return whether the calling thread has taken ``lock``."""
    return bool(lock._is_owned())


class _OfTheLock:
    """A method of a condition that is its lock's own, which is written in C."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, condition: Any, owner: Optional[type] = None) -> Any:
        return self if condition is None else getattr(condition._lock, self._name)


class Condition(threading.Condition):
    """A ``threading.Condition`` that is entered and left as its lock is.

    Args:
        lock: what :func:`new_lock` has returned; a new one by default.
    """

    _lock: Any

    def __init__(self, lock: Optional[Any] = None) -> None:
        super().__init__(new_lock() if lock is None else lock)

    __enter__: Any = _OfTheLock()
    __exit__: Any = _OfTheLock()

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait as ``threading.Condition.wait`` does; the lock is taken again whatever exception ends it."""
        try:
            return super().wait(timeout)
        except BaseException:
            if not is_held(self._lock):
                self._lock.acquire()
            raise


def release_forgotten() -> None:
    """Release what this thread has left taken; for where it holds none of these locks."""
    for reference in list(_known):
        lock = reference()
        while lock is not None and is_held(lock):
            lock.release()


def run_beside(function: Callable[[], object]) -> None:
    """Call ``function``, which takes locks of the standard library's, out of reach of Ctrl-C: in another thread.

    An exception that comes to this thread meanwhile ends no more than its wait.

    Raises:
        BaseException: what ``function`` has raised.
        RuntimeError: there is no thread to be had.
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

    # What is to start threads has to be a Thread of threading's itself; and starting one takes locks, too.
    thread = threading.Thread(target=run)
    _thread.start_new_thread(begin, ())
    ended.acquire()
    if errors:
        raise errors[0]


# Seconds. What is held for longer than all of them together is worth queueing for.
_PAUSES = (1e-4, *[1e-3] * 250)


def barging(lock: Any) -> ContextManager[Any]:
    """What takes ``lock``, a Lock or an RLock, without queueing for it; others may take it in the usual way.

    The lock itself where that is as good: gevent's, whose threads never interrupt each other, and on Windows, where
    the shortest sleep is long.

    Not for a lock whose own ``with`` the main thread needs, in which no Ctrl-C can come after the lock was taken and
    before the block has begun.
    """
    plain = type(lock).__module__ != "_thread" or sys.platform == "win32"
    return lock if plain else _Barging(lock)


class _Barging:
    __slots__ = ("_acquire", "_release")

    def __init__(self, lock: Any) -> None:
        self._acquire = lock.acquire
        self._release = lock.release

    def __enter__(self) -> None:
        if not self._acquire(False):
            self._wait()

    def _wait(self) -> None:
        for pause in _PAUSES:
            sleep(pause)
            if self._acquire(False):
                return
        self._acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._release()


_AGAIN_AFTER = 0.0001  # seconds


class Turns:
    """One thread at a time, as a context manager.

    A thread that waits in ``Lock.acquire`` is given the lock first and the interpreter's lock much later; in between
    nobody can use it, so that once there is a queue it never ends.  Here whoever finds the lock taken, which is
    rare, looks again a moment later, and so only a running thread ever holds it.
    """

    def __init__(self) -> None:
        lock = threading.Lock()
        # Bound once, for whoever cannot afford another call.
        self.take: Callable[[bool], bool] = lock.acquire
        self.give = lock.release

    def wait(self) -> None:
        """Take it, after ``take(False)`` has failed."""
        take = self.take
        while not take(False):
            time.sleep(_AGAIN_AFTER)

    def __enter__(self) -> None:
        if not self.take(False):
            self.wait()

    def __exit__(self, *_: object) -> None:
        self.give()
