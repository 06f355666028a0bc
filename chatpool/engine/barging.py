"""Taking a lock that many threads take all the time, without a convoy.

A thread that blocks in ``Lock.acquire`` owns the lock as soon as it is released, and then still has to wait for the
interpreter.  Whoever runs meanwhile finds the lock taken and blocks in its turn, and so do all the others from then
on: a lock convoy (Blasgen et al., "The Convoy Phenomenon", 1979).  With 64 workers on two idle cores it made each
call three switches between threads dearer.  It never forms when nobody queues: who finds the lock taken sleeps a
moment and tries again, and whoever runs may take it first ("barging").
"""

from __future__ import annotations

import sys
from time import sleep  # at import: a test that replaces time.sleep means its own code
from typing import Any, ContextManager

__all__ = ["barging"]

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
