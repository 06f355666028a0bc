"""Runs: many items, read with a bounded look-ahead, each with exactly one outcome.

A :class:`Run` reads items in the thread that consumes it and takes outcomes from workers.  It is consumed all at once
(:func:`collect`) or lazily, in input order or in order of completion (:class:`Outcomes`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Sized
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    TypeVar,
    Union,
    cast,
)

from .._engine import Call, CallOptions, Engine
from .._locks import Condition, convoy_free, new_lock
from .._observe import RunProgress
from .._reentrancy import defer, holds_locks, is_reentrant, runs_user_code, waits_for_calls
from .._values import Waiting
from ..errors import CallCancelledError, ChatPoolError, ConfigurationError, DeadlineExceededError, PoolClosedError
from ..types import ChatRequest, Outcome, Results
from .failures import FailureLimit
from .single_flight import SingleFlight, follower_outcome

if TYPE_CHECKING:
    from .run_cache import RunCache

__all__ = ["Outcomes", "Run", "RunIterator", "RunOrigin", "collect", "merged_outcome", "unusable_item"]


T = TypeVar("T")

logger = logging.getLogger("chatpool")

_run_ids = itertools.count(1)

_DRAIN_POLL_SECONDS = 0.05

_CHUNK_ITEMS = 64  # calls submitted under one lock; few enough that the first of them start at once

_CANCELLED = "the run was cancelled"


class RunOrigin(NamedTuple):
    """Origin of the calls of a run, to retry its failed items.

    Attributes:
        prepare: makes the request of an item.
        options: how calls were sent.
        dedupe: whether identical requests were sent once.
        journal: the file that has the outcomes, None without one.
        is_batched: whether many items went out in one request.
        max_pack: how many at most, None for as many as the API takes.
        item_key: returns the key of an item in the journal; None if its place is its key.
        samples: how many answers each item gets.
        occurrences: by the places of items: their numbers among identical ones, as far as the cache knows them.
    """

    prepare: Callable[[Any], ChatRequest]
    options: CallOptions
    dedupe: bool = False
    journal: Union[str, os.PathLike[str], None] = None
    is_batched: bool = False
    max_pack: Optional[int] = None
    item_key: Optional[Callable[[Any], Union[str, int]]] = None
    samples: int = 1
    occurrences: Mapping[int, int] = {}


class Run:
    """Feed items to the engine and collect their outcomes.

    Items are read in the thread that consumes the run, never in a worker, and never further ahead than
    ``window`` items beyond what has been consumed.

    Args:
        engine: where the calls run.
        items: the input; it may be endless.
        prepare: makes the request of an item; what it raises becomes that item's outcome.
        options: how calls are sent.
        window: the look-ahead.

    Attributes:
        fatal: the error that ended the run, or the calls of one model, early.
        first_failure: the first failed outcome in time.
        fail_fast: whether :meth:`take` returns at the first failure instead of waiting for more outcomes.
        lazy: whether the input may be endless: then nothing more is read once the run has been ended.
        single_flight: sends identical requests once; None where each is sent.
        cache: answers calls that are not sent then, and keeps answers; None without one.
        failure_limit: ends the run when too many items have failed; None where any number may.
        progress: counts the items that have ended; None without.
        patience_seconds: how long :meth:`take` waits at most; None for as long as it takes.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
    ) -> None:
        self.run_id: Optional[int] = next(_run_ids)
        self._engine = engine
        self._items: Iterator[Any] = iter(items)
        self._prepare = prepare
        self._options = options
        self._window = window
        # A list costs nothing to read; of any other input each item is sent before the next is read.
        self._chunk_items = _CHUNK_ITEMS if isinstance(items, (list, tuple, range)) and not engine.runs_here() else 1
        self._make_lock()
        self._finished: Deque[Outcome[Any]] = deque()  # delivered, not yet consumed
        self._wake_at = 0  # the consumer sleeps until this many are in _finished
        self._sleeping = False
        self._fed = self._taken = self._consumed = 0
        self._exhausted = False
        self._sized = isinstance(items, Sized)
        self._chunk: List[Any] = []  # read, and perhaps not submitted: an exception may come between
        self._chunk_start = 0
        self._stop_reason: Optional[ChatPoolError] = None
        self._ended = False  # by its time limit or its consumer, and not by a fatal error
        self._closed_error: Optional[ChatPoolError] = None  # of the pool, once it has refused calls
        self._refused_models: Dict[Tuple[str, Optional[str]], ChatPoolError] = {}
        self.fatal: Optional[ChatPoolError] = None
        self.first_failure: Optional[Outcome[Any]] = None
        self.fail_fast = False
        self.lazy = False
        self.single_flight: Optional[SingleFlight] = None
        self.cache: Optional[RunCache] = None
        self.failure_limit: Optional[FailureLimit] = None
        self.progress: Optional[RunProgress] = None
        self.patience_seconds: Optional[float] = None

    # -- called in workers ---------------------------------------------------------

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        """Take an outcome."""
        if self.cache is not None:
            self.cache.keep(call, outcome)
        self._count_and_put(outcome)
        self._answer_followers(call, outcome)

    def _count_and_put(self, outcome: Outcome[Any]) -> None:
        """Pass an outcome to the consumer, and end the run if too many items have failed with it."""
        self._count_in_progress(outcome)  # first: with the last outcome the consumer may close it
        too_many = None
        if self.failure_limit is not None and self._stop_reason is None:
            too_many = self.failure_limit.reached_by(self._item_outcomes(outcome))
        if too_many is None:
            self._put(outcome)
            return
        self.on_fatal(too_many)
        self._put(outcome)
        self.end(too_many)

    def _item_outcomes(self, outcome: Outcome[Any]) -> Iterable[Outcome[Any]]:
        """Return the outcomes of items in an outcome of the engine."""
        return (outcome,)

    def _answer_followers(self, call: Call, outcome: Outcome[Any]) -> None:
        if self.single_flight is not None:
            for follower in self.single_flight.ended(call, outcome):
                self.deliver(follower, follower_outcome(follower, outcome, self.now()))

    def _make_lock(self) -> None:
        lock = new_lock()
        self._changed = Condition(lock)
        self._putting = convoy_free(lock)  # every worker puts its outcomes

    def _put(self, outcome: Outcome[Any]) -> None:
        with self._putting:
            self._finished.append(outcome)
            if outcome.error is not None and self.first_failure is None:
                self.first_failure = outcome
            if self._sleeping and self._enough(self._wake_at):
                self._changed.notify_all()

    def _count_in_progress(self, outcome: Outcome[Any]) -> None:
        # What was cancelled has neither succeeded nor failed: the bar stays where the run was stopped.
        if self.progress is not None and not isinstance(outcome.error, CallCancelledError):
            self.progress.advance(int(outcome.ok), int(not outcome.ok))

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        """Return the error of a call that must not be sent any more, None if it may be."""
        reason = self._reason_not_to_send(call.request)
        return None if reason is None else reason.copied("not sent again: " if call.attempts else "not sent: ")

    def _reason_not_to_send(self, request: ChatRequest) -> Optional[ChatPoolError]:
        if self._stop_reason is not None or not self._refused_models:
            return self._stop_reason
        return self._refused_models.get((request.path, request.model))

    def kept_answer(self, call: Call) -> Any:
        """Return the value of the answer that the cache has for the fallback of a call."""
        return None if self.cache is None else self.cache.cache.answer_to_fallback(call)

    def keep_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        """Note a response that is made in the background; return whether a later run can go on with it."""
        return False

    def on_fatal(self, error: ChatPoolError) -> None:
        """Note the error, before the outcome that may be the last one."""
        with self._changed:
            self.fatal = self.fatal or error

    def refuse(self, call: Call, scope: str, error: ChatPoolError) -> None:
        """Stop sending the calls of ``scope``; those that are queued or parked end with the error."""
        if scope != "model":
            self.end(error)
            return
        with self._changed:
            self._refused_models.setdefault((call.request.path, call.request.model), error)
        self._give_up_waiting(error)

    def end(self, error: ChatPoolError) -> None:
        """End the run as fatal: calls in flight go on to their end, nothing else is sent."""
        with self._changed:
            self.fatal = self.fatal or error
            self._stop_reason = self._stop_reason or error
        self._give_up_waiting(error)

    def _give_up_waiting(self, error: ChatPoolError) -> None:
        self._engine.give_up(
            lambda other: other.sink is self and self._reason_not_to_send(other.request) is not None,
            lambda other: self.refusal(other) or error,
            in_flight=False,
        )

    def after_fork_in_child(self, call: Call) -> None:
        """Give the item of the parent's call an outcome that says so."""
        self._make_lock()  # a thread of the parent's may have held the old one
        if self.single_flight is not None:
            self.single_flight.after_fork_in_child()
        if all(outcome.index != call.index for outcome in self._finished):
            error = CallCancelledError("the call was under way in the parent process when this one was forked")
            outcome = call.outcome(self.now(), error=error)
            self._put(outcome)
            self._answer_followers(call, outcome)

    # -- called by the consumer --------------------------------------------------------------------------

    def stop(self, reason: ChatPoolError) -> None:
        """End the run: calls that are queued, parked or in flight end with ``reason``, and so do items not yet sent."""
        with self._changed:
            self._stop_reason = self._stop_reason or reason
            self._ended = True
        self._engine.give_up(lambda call: call.sink is self, lambda call: reason.copied())

    def take(self, at_least: int = 1) -> List[Outcome[Any]]:
        """Return the outcomes that are ready, in order of completion; an empty list at the end of the run.

        Wait until there are ``at_least`` that many, or all that are left; at most for ``patience_seconds``, if that is
        set: then the list may be empty before the end.  The consumer says with :meth:`consumed` when they no longer
        count against the look-ahead.
        """
        self._feed(at_least)
        while not self._wait(at_least):
            self.stop(DeadlineExceededError(f"the run's time ({self._options.deadline_limit}) ran out"))
        return self._take_ready()

    def _take_ready(self) -> List[Outcome[Any]]:
        with self._changed:
            ready = list(self._finished)
            self._finished.clear()
            self._taken += len(ready)
        return ready

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        """Return the outcomes of a stopped run that have not been taken yet.

        Items that were read and never submitted, because an exception came between, end with ``reason``.
        """
        while self._engine.settle(self, reason.copied):
            with self._changed:
                # In real time: listeners have the outcomes, and an installed clock does not move for them.
                self._changed.wait(_DRAIN_POLL_SECONDS)
        drained = {outcome.index: outcome for outcome in self._take_ready()}
        for index, item in enumerate(self._chunk, self._chunk_start):
            if index < self._fed and index not in drained:
                drained[index] = Outcome(index, item, error=reason.copied("not sent: "))
        return list(drained.values())

    def abandon(self) -> None:
        """Stop without taking a lock: the garbage collector may call this in a thread that holds any of them."""
        self._stop_reason = self._stop_reason or CallCancelledError("the iterator over the run was dropped")
        if self.progress is not None:
            self.progress.abandon()
        self._engine.wake(self)

    def resync(self) -> None:
        """Make the engine's counts right again after an exception in the consumer's thread."""
        self._engine.resync()

    def open_progress(self) -> None:
        """Show the progress, if there is any to be shown."""
        if self.progress is not None:
            self.progress.open(self.waiting)

    def close_progress(self) -> None:
        """Leave the progress as it stands."""
        if self.progress is not None:
            self.progress.close()

    @property
    def waiting(self) -> Callable[[], Waiting]:
        """Return why its calls wait; the function does not keep the run alive."""
        return functools.partial(self._engine.why_waiting, self.run_id)

    @property
    def origin(self) -> RunOrigin:
        """Origin of its calls, to make them again."""
        occurrences = {} if self.cache is None else self.cache.occurrences
        return RunOrigin(self._prepare, self._options, self.single_flight is not None, occurrences=occurrences)

    def now(self) -> float:
        """The time on the run's clock."""
        return self._engine.clock.now()

    def consumed(self, count: int) -> None:
        """Let ``count`` more items be read: as many outcomes have left the run."""
        self._consumed += count

    def _enough(self, wanted: int) -> bool:
        ready = len(self._finished)
        return ready >= min(wanted, self._fed - self._taken) or (self.fail_fast and self.first_failure is not None)

    def is_over(self) -> bool:
        """Return whether every outcome was taken, once :meth:`take` has returned none."""
        with self._changed:
            return self._fed <= self._taken

    def _wait(self, at_least: int) -> bool:
        """Wait for enough outcomes, or until patience ends; return False if the run's time ran out first."""
        with self._changed:
            if self._enough(at_least):
                return True
        patience = self.patience_seconds
        patient_until = math.inf if patience is None else self.now() + patience
        with self._engine.waiting(), self._changed:
            while not self._enough(at_least):
                left = self._time_left()
                if left is not None and left <= 0:
                    return False
                if patience is not None:
                    patience_left = patient_until - self.now()
                    if patience_left <= 0:
                        return True
                    left = patience_left if left is None else min(left, patience_left)
                self._wake_at, self._sleeping = at_least, True
                try:
                    self._engine.clock.wait(self._changed, left)
                finally:
                    self._sleeping = False
        return True

    def _time_left(self) -> Optional[float]:
        if self._options.deadline is None or self._stop_reason is not None:
            return None
        return self._options.deadline - self._engine.clock.now()

    @runs_user_code
    def _feed(self, at_least: int) -> None:
        """Read and submit items until the look-ahead is full, the input ends, or there are outcomes to return."""
        while not (self._exhausted or self._stops_reading()):
            may_be_read = self._window - (self._fed - self._consumed)
            if may_be_read <= 0:
                return
            self._submit(list(itertools.islice(self._items, min(may_be_read, self._chunk_items))))
            self._chunk = []
            if self._enough(at_least) and self._finished:
                return

    def _stops_reading(self) -> bool:
        """Return whether to read nothing more of an input that may be endless, as the run was ended.

        Otherwise reading goes on to the end of the input, so that every item gets an outcome.
        """
        return (self._ended or self._closed_error is not None) and self.lazy and not self._sized

    def _submit(self, items: List[Any]) -> None:
        if not items:
            self._exhausted = True
            return
        self._chunk_start, self._chunk = self._fed, items
        leads = [call for call in map(self._call_for, items) if call is not None and self._is_to_be_sent(call)]
        calls = self._calls_of(leads)
        try:
            self._engine.submit(calls)
        except PoolClosedError as error:
            self._closed_error = error  # calls that were submitted before are finished
            for call in calls:
                self._end_unsubmitted(call, call.outcome(self.now(), error=error.copied("not sent: ")))

    def _end_unsubmitted(self, call: Call, outcome: Outcome[Any]) -> None:
        """Take the outcome of a call that the closed pool has refused."""
        self._end_unsent(outcome)
        self._answer_followers(call, outcome)

    def _calls_of(self, calls: List[Call]) -> List[Call]:
        """Return the calls that are sent for those of items."""
        return calls

    def _is_to_be_sent(self, call: Call) -> bool:
        """Return whether the call is to be sent; otherwise it has an outcome, or will get another's."""
        if not self._leads(call):
            return False
        outcome = self._cached_outcome(call)
        if outcome is not None:
            self.deliver(call, outcome)
        return outcome is None

    def _cached_outcome(self, call: Call) -> Optional[Outcome[Any]]:
        return None if self.cache is None or self._engine.closed else self.cache.outcome_of(call)

    def _leads(self, call: Call) -> bool:
        """Return whether the call is to be sent; otherwise it gets the outcome of an identical one."""
        if self.single_flight is None:
            return True
        leads, answer = self.single_flight.join(call)
        if answer is not None:
            self.deliver(call, follower_outcome(call, answer, self.now()))
        return leads

    def _call_for(self, item: Any) -> Optional[Call]:
        """Make the call of the next item; return None if its outcome is already known."""
        index = self._fed
        self._fed += 1
        try:
            request = self._prepare(item)
        except Exception as error:
            self._end_unsent(Outcome(index, item, error=unusable_item(index, error)))
            return None
        return self._make_call(index, item, request)

    def _make_call(self, index: int, item: Any, request: ChatRequest) -> Optional[Call]:
        reason = self._closed_error or self._reason_not_to_send(request)
        if reason is None:
            try:
                call = self._engine.make_call(request, self._options, self, index=index, item=item)
                if self.cache is not None:
                    self.cache.note(call)
                return call
            except Exception as error:
                reason = unusable_item(index, error)
        else:
            reason = reason.copied("not sent: ")
        self._end_unsent(Outcome(index, item, request, error=reason))
        return None

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        """Take the outcome of an item that was not submitted; called in the consumer's thread."""
        self._count_and_put(outcome)


def unusable_item(index: int, error: Exception) -> ChatPoolError:
    """Return the error of an item of which no request could be made."""
    wrapped = ConfigurationError(f"item {index}: {error}")
    wrapped.__cause__ = error
    return wrapped


def merged_outcome(outcome: Outcome[Any]) -> Outcome[Any]:
    """Return one outcome of an item that two runs have sent: the second one's, whose item is the outcome of the first.

    It has the item of the first run, the value of the second, and the attempts, tokens and seconds of both.
    """
    first: Outcome[Any] = outcome.item
    usages = [usage for usage in (first.usage, outcome.usage) if usage is not None]
    error = outcome.error
    if isinstance(error, ConfigurationError) and str(error) == f"item {outcome.index}: {error.__cause__}":
        error = unusable_item(first.index, cast(Exception, error.__cause__))
    return Outcome(
        first.index,
        first.item,
        outcome.request or first.request,
        outcome.value,
        error,
        first.history + outcome.history,
        first.elapsed + outcome.elapsed,
        sum(usages[1:], usages[0]) if usages else None,
        outcome.fallback,
        first.charges + outcome.charges if first.fallback or outcome.fallback else (),
    )


@waits_for_calls
def collect(run: Run, *, window: int, on_error: str, started_at: float) -> Results[Any, Any]:
    """Run to the end; return one value per item, in input order.

    Args:
        run: the run, not started_at yet.
        window: its look-ahead.
        on_error: the value of a failed item: None (``"none"``) or its error (``"return"``); or ``"raise"``.
        started_at: when the run began, on the pool's clock.

    Raises:
        ChatPoolError: with ``on_error="raise"``, the first failure in time, with ``.results``.
        BaseException: the input's own, or KeyboardInterrupt: the run is cancelled, and the exception carries the
            results so far as ``.results``.
    """
    outcomes: List[Outcome[Any]] = []
    run.fail_fast = on_error == "raise"
    try:
        run.open_progress()
        while True:
            taken = run.take(max(1, window // 4))
            outcomes += taken
            run.consumed(len(taken))
            if not taken:
                break
            if run.fail_fast and run.first_failure is not None:
                raise run.first_failure.error or ChatPoolError(_CANCELLED)
    except BaseException as error:
        outcomes += _abandon(run)
        with contextlib.suppress(Exception):  # a frozen exception takes no attribute
            error.results = _results(outcomes, on_error, run, started_at)  # type: ignore[attr-defined]  # see map
        raise
    finally:
        run.close_progress()
    results = _results(outcomes, on_error, run, started_at)
    if on_error == "none":
        _warn(results)
    return results


class RunIterator(Iterator[T]):
    """An iterator over the results of a run.

    Leaving it early, by :meth:`close`, as a context manager, or by dropping it, cancels what is left.

    Args:
        run: the run, not started_at yet.
        results: takes them from the run.
    """

    def __init__(self, run: Run, results: Iterator[T]) -> None:
        run.lazy = True
        if run.cache is not None:
            run.cache.forgets = True
        self._run = run
        self._results = results
        self._ended = False

    def __iter__(self) -> RunIterator[T]:
        return self

    @waits_for_calls
    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        self._run.open_progress()
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
            self._run.abandon()
            defer(self._abandon)

    @holds_locks
    def _abandon(self) -> None:
        if not self._ended:
            self._end()
            _abandon(self._run)

    def _end(self) -> None:
        self._ended = True
        self._run.close_progress()

    def __enter__(self) -> RunIterator[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(reentrant=is_reentrant())

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            self._run.abandon()


class Outcomes(RunIterator[Outcome[Any]]):
    """An iterator over the outcomes of a run.

    Args:
        run: as for :class:`RunIterator`.
        in_order: whether outcomes come in input order or as they are completed.
    """

    def __init__(self, run: Run, *, in_order: bool) -> None:
        super().__init__(run, _in_order(run) if in_order else _completed(run))


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
    """End the run now; return the outcomes that have not been taken yet."""
    reason = CallCancelledError(_CANCELLED)
    run.resync()
    run.stop(reason)
    return run.drain(reason)


def _results(outcomes: List[Outcome[Any]], on_error: str, run: Run, started_at: float) -> Results[Any, Any]:
    outcomes.sort(key=lambda outcome: outcome.index)
    shows_errors = on_error != "none"
    values = [outcome.value if outcome.ok else outcome.error if shows_errors else None for outcome in outcomes]
    results: Results[Any, Any] = Results(values, outcomes, run.now() - started_at, run.fatal)
    results._origin = run.origin
    return results


def _warn(results: Results[Any, Any]) -> None:
    """Log one line about the failed items: they are None in the list, which is easily overlooked."""
    failures = results.failures
    if failures:
        causes = Counter(type(outcome.error).__name__ for outcome in failures)
        shown = ", ".join(f"{count} x {name}" for name, count in causes.most_common(5))
        logger.warning("%d of %d failed: %s; see results.explain()", len(failures), len(results), shown)
