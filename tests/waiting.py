"""Waits of tests for what tells nobody that it has happened."""

from __future__ import annotations

import time
from typing import Callable

__all__ = ["until"]


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, a minute at most.

    For what a server does, its ``wait_until`` is better: that looks when something happens.
    """
    ends_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
