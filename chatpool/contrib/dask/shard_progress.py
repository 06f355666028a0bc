"""The progress of all shards together, in rows."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Callable, Dict, Mapping, Optional, Type

from ..._observe.progress import check_progress, run_progress
from ..._values import Waiting
from ...batch.job import BatchProgress, BatchResult
from ...clock import current_clock
from ...types import Usage

__all__ = ["ShardProgress", "add_counts"]

_REPORT_SECONDS = 1.0  # between two calls of a function

_COUNTS = ("rows", "succeeded", "failed", "done_before", "changed", "bad_line_count", "blank_rows", "removed_rows")


class ShardProgress:
    """Shows one bar over the rows of all shards, or calls a function.

    Args:
        progress: as for :func:`chatpool.batch.run`.
        total: rows of all shards, None where that is not known.

    Raises:
        TypeError: ``progress`` is something else.
    """

    def __init__(self, progress: BatchProgress, total: Optional[int]) -> None:
        self._function: Optional[Callable[[Mapping[str, Any]], object]] = progress if callable(progress) else None
        if not callable(progress):
            check_progress(progress)
        self._bar = None if callable(progress) else run_progress(progress, total, "row")
        self._total = total
        self._started = current_clock().now()
        self._due_at = time.monotonic()
        self._last: Dict[int, Mapping[str, Any]] = {}  # what the last task of each shard has said
        self._ended: Dict[int, int] = {}  # rows of each shard that are shown
        self._failed: Dict[int, int] = {}
        self._before = 0  # rows that had ended before
        self._earlier = {"tokens": 0, "cost": None}  # of tasks that were not the last of their shard

    def __enter__(self) -> ShardProgress:
        if self._bar is not None:
            self._bar.open(Waiting)
        self._call()
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif exc_type is None:
            self._due_at = 0.0
            self._call()

    def update(self, facts: Mapping[str, Any]) -> None:
        """Count what a shard has done by now.

        Args:
            facts: ``shard``, ``attempt``, ``succeeded``, ``failed``, ``done_before``, ``tokens`` and ``cost``.
        """
        index, last = facts["shard"], self._last.get(facts["shard"])
        if last is not None and last["attempt"] > facts["attempt"]:
            return  # of a task that was given up
        if last is not None and (last["attempt"] < facts["attempt"] or last["tokens"] > facts["tokens"]):
            self._earlier = _sum(self._earlier, last)  # a new task, or the same one on another worker
        self._last[index] = facts
        self._advance(index, facts)
        self._call()

    def _advance(self, index: int, facts: Mapping[str, Any]) -> None:
        shown = self._ended.get(index, 0)
        ended = max(shown, facts["succeeded"] + facts["failed"])
        before = min(ended - shown, max(0, facts["done_before"] - shown))
        failed = min(ended - shown - before, max(0, facts["failed"] - self._failed.get(index, 0)))
        self._ended[index], self._failed[index] = ended, facts["failed"]
        self._before += before
        if self._bar is not None:
            self._bar.skip(before)
            self._bar.advance(ended - shown - before - failed, failed)

    def _call(self) -> None:
        now = time.monotonic()
        if self._function is not None and now >= self._due_at:
            self._due_at = now + _REPORT_SECONDS
            self._function(self.facts())

    def facts(self) -> Mapping[str, Any]:
        """Return the progress as values of JSON, under the names that a batch run has for them."""
        spent = self._earlier
        for last in self._last.values():
            spent = _sum(spent, last)
        failed = sum(self._failed.values())
        return {
            "total": self._total,
            "succeeded": sum(self._ended.values()) - failed,
            "failed": failed,
            "done_before": self._before,
            **spent,
            "elapsed": current_clock().now() - self._started,
        }


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> Dict[str, Any]:
    costs = [each["cost"] for each in (one, other) if each["cost"] is not None]
    return {"tokens": one["tokens"] + other["tokens"], "cost": sum(costs) if costs else None}


def add_counts(total: BatchResult, result: Mapping[str, Any]) -> None:
    """Add the counts of a shard to those of all."""
    for name in _COUNTS:
        setattr(total, name, getattr(total, name) + result.get(name, 0))
    for cause, count in result.get("causes", {}).items():
        total.causes[cause] = total.causes.get(cause, 0) + count
    if "usage" in result:
        total.usage += Usage(**result["usage"])
        if result["cost"] is not None:
            total.cost = (total.cost or 0.0) + result["cost"]
