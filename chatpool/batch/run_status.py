"""Status of a batch run under way, as it stands in a file beside the journal while the run lasts."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

from .._journal import Journal, StatusFile
from .._values import Hold, common_reason
from ..clock import current_clock
from ..types import PoolStats
from .job import BatchResult

__all__ = ["Counts", "RunStatus", "counts_of", "reported", "sum_of_counts"]

Counts = Mapping[str, Any]
"""What the calls of a pool do: numbers by the names below, and ``waits_for``, a text or None."""

_REPORT_SECONDS = 1.0  # between two calls of such a function
_CALLS = ("in_flight", "queued", "parked")
_NUMBERS = (*_CALLS, "retried", "reasked")


def counts_of(stats: PoolStats) -> Counts:
    """Return the counters of a pool as values of JSON."""
    return {**{name: getattr(stats, name) for name in _NUMBERS}, "waits_for": stats.waits_for}


def sum_of_counts(parts: Sequence[Counts]) -> Counts:
    """Return the counters of several pools together; one without calls is no way that is free."""
    reasons = [part.get("waits_for") for part in parts if any(part.get(name) for name in _CALLS)]
    waits_for = common_reason([None if reason is None else Hold(reason) for reason in reasons])
    return {**{name: sum(part.get(name, 0) for part in parts) for name in _NUMBERS}, "waits_for": waits_for}


class RunStatus:
    """Collects the status of a run.

    Args:
        result: its counts.

    Attributes:
        total: how many rows are selected, None while that is not known.
        counts: returns what its calls do; None while the input is read.
    """

    def __init__(self, result: BatchResult) -> None:
        self._result = result
        self._clock = current_clock()
        self._started = self._clock.now()
        self.total: Optional[int] = None
        self.counts: Optional[Callable[[], Counts]] = None

    def facts(self) -> Mapping[str, Any]:
        """Return the status, as values of JSON."""
        result = self._result
        return {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "at": self._clock.wall(),
            "elapsed": self._clock.now() - self._started,
            "total": self.total,
            "succeeded": result.succeeded,
            "failed": result.failed,
            "done_before": result.done_before,
            "causes": dict(result.causes),
            "tokens": result.usage.total_tokens,
            "cost": result.cost,
            "is_sending": self.counts is not None,
            **({} if self.counts is None else self.counts()),
        }

    def reporter(self, function: Callable[[Mapping[str, Any]], object]) -> Callable[[], None]:
        """Return a function that passes the status on to ``function``, at once and then once a second at most."""
        due_at = time.monotonic()  # in real time, as the file beside the journal is

        def report() -> None:
            nonlocal due_at
            now = time.monotonic()
            if now >= due_at:
                due_at = now + _REPORT_SECONDS
                function(self.facts())

        return report


@contextlib.contextmanager
def reported(journal: Journal, result: BatchResult) -> Iterator[RunStatus]:
    """Within the block, keep the status of a run beside its journal, unless that is a temporary one."""
    status = RunStatus(result)
    with contextlib.ExitStack() as stack:
        if result.journal is not None:
            stack.enter_context(StatusFile(journal.path, status.facts))
        yield status
