"""Locks that an exception of a signal handler, Ctrl-C's above all, never leaves taken.

Such an exception comes between any two steps of Python code in the main thread.  ``with`` of a lock that is written in
C lets none come between taking the lock and the block, nor between the block and its release.  Others do:
``threading.Condition``, whose ``__enter__`` is Python code; ``concurrent.futures.wait``, which takes the conditions of
futures one by one; and CPython 3.9, where it may come after a block has been left and before ``__exit__`` is called
(bpo-29988).  What is left taken all the same is released by :func:`release_forgotten`.
"""

from __future__ import annotations

import _thread
import threading
import weakref
from typing import Any, Callable, Dict, List, Optional

__all__ = ["Condition", "is_held", "new_lock", "release_forgotten", "run_beside"]

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
