"""Fork and the end of the process: what has to happen then to whatever has threads and connections."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its own hook has to be there before that of the last line
import logging
import os
import sys
import threading
import weakref
from typing import List, Protocol

__all__ = ["Living", "register"]

logger = logging.getLogger("chatpool")


class Living(Protocol):
    """Something with threads and connections."""

    def after_fork_in_child(self) -> None:
        """Start over: threads did not come along, locks may be held by nobody, connections are the parent's."""

    def close(self, *, at_exit: bool = False) -> None:
        """Finish what was submitted, then end; ``at_exit`` tells that the process is about to."""

    def abort(self) -> None:
        """Give up everything and end."""


_living: weakref.WeakSet[Living] = weakref.WeakSet()


def register(one: Living) -> None:
    """Look after ``one`` for as long as somebody else refers to it."""
    _living.add(one)


def _survivors() -> List[Living]:
    return list(_living)


def _after_fork_in_child() -> None:
    for one in _survivors():
        try:
            one.after_fork_in_child()
        except Exception:  # the others must start over all the same
            logger.exception("%r cannot be used in this forked process", one)


def _at_exit() -> None:
    """A script that ends normally gets what it submitted; one that ends by an exception does not wait for it."""
    failed = getattr(sys, "last_exc", None) is not None or getattr(sys, "last_type", None) is not None
    for one in _survivors():
        if failed:
            one.abort()
        else:
            one.close(at_exit=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

# concurrent.futures joins its threads before atexit runs; hooks of threading run before that, the latest first.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
