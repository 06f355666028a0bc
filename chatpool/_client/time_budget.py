"""``deadline``: one end of time for all the calls that a piece of code makes."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Iterator, Optional

from ..clock import Clock, current_clock
from ..config import positive_seconds

__all__ = ["deadline", "deadline_on", "seconds_left"]

_ends_at: ContextVar[Optional[float]] = ContextVar("chatpool_deadline", default=None)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit the time of all calls and runs that are begun in this block, with whatever pool, together.

    ::

        with chatpool.deadline(3):
            language = pool.chat(f"Which language is this? {text}").text
            replies = pool.map(questions)

    A call ends with :class:`~chatpool.DeadlineExceededError` after ``seconds``, or after its own ``timeout.total`` if
    that comes first, and a run as after its ``run_timeout``; what is begun when the time is over is not sent.  Of a
    stream only the time until its first chunk is limited.  Of a block within a block the earlier end counts.

    The end is a context variable: the workers of a pool and ``asyncio.to_thread`` keep to it, a new thread does not.

    Args:
        seconds: from now; greater than 0.

    Raises:
        ConfigurationError, TypeError: ``seconds`` is no number greater than 0.
    """
    ends_at = current_clock().now() + positive_seconds("seconds", seconds)
    outer = _ends_at.get()
    token = _ends_at.set(ends_at if outer is None else min(ends_at, outer))
    try:
        yield
    finally:
        _ends_at.reset(token)


def seconds_left() -> Optional[float]:
    """Return the seconds that are left in this context, 0.0 or less when they are over; None outside of any block."""
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - current_clock().now()


def deadline_on(clock: Clock) -> Optional[float]:
    """Return the end of the time of this context on ``clock``; None outside of any block."""
    left = seconds_left()
    return None if left is None else clock.now() + left
