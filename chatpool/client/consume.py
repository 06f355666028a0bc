"""The three ways to consume a run: all at once, lazily in input order, lazily in order of completion."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from typing import Any, Dict, Iterator, List, Optional, TypeVar

from ..errors import CallCancelledError, ChatPoolError
from ..observe import ProgressBar
from ..reentrancy import defer, holds_locks, is_reentrant, waits_for_calls
from ..types import Outcome, Results
from .run import Run

__all__ = ["Outcomes", "RunIterator", "collect"]

T = TypeVar("T")

logger = logging.getLogger("chatpool")

_CANCELLED = "the run was cancelled"


@waits_for_calls
def collect(run: Run, *, window: int, on_error: str, bar: Optional[ProgressBar], started: float) -> Results:
    """Run to the end; one slot per item, in input order.

    Args:
        run: the run, not started yet.
        window: its look-ahead.
        on_error: what a failed item's slot holds (``"none"``, ``"return"``), or ``"raise"``.
        bar: closed at the end.
        started: when the run began, on the pool's clock.

    Raises:
        ChatPoolError: with ``on_error="raise"``, the first failure in time, with ``.results``.
        BaseException: what the input raised, or KeyboardInterrupt: the run is cancelled, and the exception
            carries what was done as ``.results``.
    """
    outcomes: List[Outcome[Any]] = []
    run.hurry = on_error == "raise"
    try:
        if bar is not None:
            bar.open()
        while True:
            taken = run.take(max(1, window // 4))
            outcomes += taken
            run.consumed(len(taken))
            if not taken:
                break
            if run.hurry and run.first_failure is not None:
                raise run.first_failure.error or ChatPoolError(_CANCELLED)
    except BaseException as error:
        outcomes += _abandon(run)
        with contextlib.suppress(Exception):  # a frozen exception takes no attribute
            error.results = _results(outcomes, on_error, run, started)  # type: ignore[attr-defined]  # see map
        raise
    finally:
        _close(bar)
    results = _results(outcomes, on_error, run, started)
    if on_error == "none":
        _warn(results)
    return results


class RunIterator(Iterator[T]):
    """An iterator over what comes of a run.

    Leaving it early, by :meth:`close`, as a context manager, or by dropping it, cancels what is left.

    Args:
        run: the run, not started yet.
        bar: opened at the first result asked for, closed at the end.
        results: takes them from the run.
    """

    def __init__(self, run: Run, bar: Optional[ProgressBar], results: Iterator[T]) -> None:
        run.lazy = True
        self._run = run
        self._bar = bar
        self._results = results
        self._ended = False

    def __iter__(self) -> RunIterator[T]:
        return self

    @waits_for_calls
    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        if self._bar is not None:
            self._bar.open()
        try:
            return next(self._results)
        except StopIteration:
            self._end()
            raise
        except BaseException:
            self._abandon()
            raise

    def close(self) -> None:
        """Cancel what is left of the run; nothing happens once it has ended."""
        self._close(reentrant=is_reentrant())

    def _close(self, *, reentrant: bool) -> None:
        if not reentrant:
            self._abandon()
        elif not self._ended:
            self._run.forsake()
            defer(self._abandon)

    @holds_locks
    def _abandon(self) -> None:
        if not self._ended:
            self._end()
            _abandon(self._run)

    def _end(self) -> None:
        self._ended = True
        _close(self._bar)

    def __enter__(self) -> RunIterator[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(reentrant=is_reentrant())

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            self._run.forsake()


class Outcomes(RunIterator[Outcome[Any]]):
    """An iterator over the outcomes of a run.

    Args:
        run, bar: as for :class:`RunIterator`.
        in_order: whether outcomes come in input order or as they are completed.
    """

    def __init__(self, run: Run, bar: Optional[ProgressBar], *, in_order: bool) -> None:
        super().__init__(run, bar, _in_order(run) if in_order else _completed(run))


def _completed(run: Run) -> Iterator[Outcome[Any]]:
    while True:
        taken = run.take()
        if not taken:
            return
        for outcome in taken:
            run.consumed(1)
            yield outcome


def _in_order(run: Run) -> Iterator[Outcome[Any]]:
    early: Dict[int, Outcome[Any]] = {}
    following = 0
    while True:
        taken = run.take()
        if not taken:
            return
        early.update((outcome.index, outcome) for outcome in taken)
        while following in early:
            run.consumed(1)
            yield early.pop(following)
            following += 1


def _abandon(run: Run) -> List[Outcome[Any]]:
    """End the run now; returns the outcomes that nobody has taken yet."""
    reason = CallCancelledError(_CANCELLED)
    run.repair()
    run.stop(reason)
    return run.drain(reason)


def _close(bar: Optional[ProgressBar]) -> None:
    if bar is not None:
        bar.close()


def _results(outcomes: List[Outcome[Any]], on_error: str, run: Run, started: float) -> Results:
    outcomes.sort(key=lambda outcome: outcome.index)
    failed = (lambda outcome: None) if on_error == "none" else (lambda outcome: outcome.error)
    values = [outcome.value if outcome.error is None else failed(outcome) for outcome in outcomes]
    results = Results(values, outcomes, run.now() - started, run.fatal)
    results._origin = run.origin
    return results


def _warn(results: Results) -> None:
    """One line about the lost calls: they are None in the list, and that is easily overlooked."""
    failures = results.failures
    if failures:
        causes = Counter(type(outcome.error).__name__ for outcome in failures)
        shown = ", ".join(f"{count} x {name}" for name, count in causes.most_common(5))
        logger.warning("%d of %d failed: %s; see results.explain()", len(failures), len(results), shown)
