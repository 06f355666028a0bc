"""Fork and exit of the process, for objects that have threads and connections."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its exit hook must be registered before the one below
import logging
import os
import sys
import threading
import weakref
from typing import List, Protocol

__all__ = ["ProcessObserver", "register"]


logger = logging.getLogger("chatpool")


class ProcessObserver(Protocol):
    """An object with threads and connections."""

    def before_fork(self) -> None:
        """Let what other threads are in the middle of come to its end, for a moment at most; never raises."""

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


def _before_fork() -> None:
    for observer in _survivors():
        observer.before_fork()


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
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)

# concurrent.futures joins its threads before atexit runs; hooks of threading run before that, the latest first.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
