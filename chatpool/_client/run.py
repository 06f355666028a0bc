"""One run: many items, fed with bounded look-ahead, each with exactly one outcome.

The three ways to consume a run: all at once, lazily in input order, lazily in order of completion.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import Counter, deque
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sized,
    Tuple,
    TypeVar,
    Union,
)

from .._engine import Call, CallOptions, Engine
from .._locks import Condition, convoy_free, new_lock
from .._observe import ProgressBar
from .._reentrancy import defer, holds_locks, is_reentrant, runs_user_code, waits_for_calls
from ..errors import CallCancelledError, ChatPoolError, ConfigurationError, DeadlineExceededError, PoolClosedError
from ..types import ChatRequest, Outcome, Results
from .failure_limit import FailureLimit
from .single_flight import SingleFlight, follower_outcome

__all__ = ["Outcomes", "Run", "RunIterator", "RunOrigin", "collect", "unusable"]


_run_ids = itertools.count(1)

_LOOK_AGAIN = 0.05  # seconds

_STRIDE = 64  # calls handed over under one lock; few enough that the first of them start at once


class RunOrigin(NamedTuple):
    """How the calls of a run were made.

    Attributes:
        prepare: makes the request of an item.
        options: how calls were sent.
        dedupe: whether identical requests were sent once.
        journal: the file that has the outcomes, None without one.
        packed: whether many items went out in one request.
        max_pack: how many at most, None for as many as the API takes.
    """

    prepare: Callable[[Any], ChatRequest]
    options: CallOptions
    dedupe: bool = False
    journal: Union[str, os.PathLike[str], None] = None
    packed: bool = False
    max_pack: Optional[int] = None


class Run:
    """Feeds items to the engine and collects their outcomes.

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
        hurry: whether :meth:`take` returns at the first failure instead of waiting for more.
        lazy: whether the input may be endless: then nothing more is read once the run has been ended.
        single_flight: sends identical requests once; None where each is sent.
        failure_limit: ends the run when so many items have failed; None where they may.
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
        # A list costs nothing to read; from anything else each item is sent before the next is read.
        self._stride = _STRIDE if isinstance(items, (list, tuple, range)) and not engine.in_worker() else 1
        self._make_lock()
        self._finished: Deque[Outcome[Any]] = deque()  # delivered, not yet consumed
        self._wake_at = 0  # the consumer sleeps until this many are in _finished
        self._sleeping = False
        self._fed = self._taken = self._consumed = 0
        self._exhausted = False
        self._sized = isinstance(items, Sized)
        self._batch_items: List[Any] = []  # what is being handed over, should an exception come between
        self._batch_start = 0
        self._stopped: Optional[ChatPoolError] = None
        self._ended = False  # by its time limit or its consumer, and not by a fatal error
        self._refused: Optional[ChatPoolError] = None  # by the pool, which has been closed
        self._dead: Dict[Tuple[str, Optional[str]], ChatPoolError] = {}
        self.fatal: Optional[ChatPoolError] = None
        self.first_failure: Optional[Outcome[Any]] = None
        self.hurry = False
        self.lazy = False
        self.single_flight: Optional[SingleFlight] = None
        self.failure_limit: Optional[FailureLimit] = None

    # -- the engine's side: called in workers ---------------------------------------------------------

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        """Take an outcome."""
        self._count_and_put(outcome)
        self._answer_twins(call, outcome)

    def _count_and_put(self, outcome: Outcome[Any]) -> None:
        """Have an outcome read, and end the run if too many items have failed with it."""
        too_many = None
        if self.failure_limit is not None and self._stopped is None:
            too_many = self.failure_limit.reached_by(self._items_of(outcome))
        if too_many is None:
            self._put(outcome)
            return
        self.on_fatal(too_many)
        self._put(outcome)
        self.end(too_many)

    def _items_of(self, outcome: Outcome[Any]) -> Iterable[Outcome[Any]]:
        """The outcomes of items that an outcome of the engine's brings."""
        return (outcome,)

    def _answer_twins(self, call: Call, outcome: Outcome[Any]) -> None:
        if self.single_flight is not None:
            for twin in self.single_flight.ended(call, outcome):
                self.deliver(twin, follower_outcome(twin, outcome, self.now()))

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

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        """Why ``call`` must not be sent any more, None if it may be."""
        reason = self._reason_against(call.request)
        return None if reason is None else reason.copied("not sent again: " if call.attempts else "not sent: ")

    def _reason_against(self, request: ChatRequest) -> Optional[ChatPoolError]:
        return self._stopped or (self._dead.get((request.path, request.model)) if self._dead else None)

    def on_fatal(self, error: ChatPoolError) -> None:
        """Keep the error, before the outcome that may be the last one."""
        with self._changed:
            self.fatal = self.fatal or error

    def refuse(self, call: Call, scope: str, error: ChatPoolError) -> None:
        """Stop sending what ``scope`` concerns; queued and parked calls of it end with the reason."""
        if scope != "model":
            self.end(error)
            return
        with self._changed:
            self._dead.setdefault((call.request.path, call.request.model), error)
        self._give_up_waiting(error)

    def end(self, error: ChatPoolError) -> None:
        """End the run as fatal: what is in flight goes on to its end, nothing else is sent."""
        with self._changed:
            self.fatal = self.fatal or error
            self._stopped = self._stopped or error
        self._give_up_waiting(error)

    def _give_up_waiting(self, error: ChatPoolError) -> None:
        self._engine.give_up(
            lambda other: other.sink is self and self._reason_against(other.request) is not None,
            lambda other: self.refusal(other) or error,
            in_flight=False,
        )

    def after_fork_in_child(self, call: Call) -> None:
        """The call is the parent's; here its slot says so."""
        self._make_lock()  # a thread of the parent's may have held the old one
        if self.single_flight is not None:
            self.single_flight.after_fork_in_child()
        if all(outcome.index != call.index for outcome in self._finished):
            error = CallCancelledError("the call was under way in the parent process when this one was forked")
            outcome = call.outcome(self.now(), error=error)
            self._put(outcome)
            self._answer_twins(call, outcome)

    # -- the consumer's side --------------------------------------------------------------------------

    def stop(self, reason: ChatPoolError) -> None:
        """End the run: what is queued, parked or in flight ends with ``reason``, what has not been fed as well."""
        with self._changed:
            self._stopped = self._stopped or reason
            self._ended = True
        self._engine.give_up(lambda call: call.sink is self, lambda call: reason.copied())

    def take(self, at_least: int = 1) -> List[Outcome[Any]]:
        """Outcomes that are ready, in order of completion; waits until there are ``at_least`` that many
        (or all that are left).  An empty list means that the run has ended.

        Whoever takes them says with :meth:`consumed` when they no longer count against the look-ahead.
        """
        self._feed(at_least)
        while not self._wait(at_least):
            self.stop(DeadlineExceededError("the run's time (run_timeout) ran out"))
        return self._take_ready()

    def _take_ready(self) -> List[Outcome[Any]]:
        with self._changed:
            ready = list(self._finished)
            self._finished.clear()
            self._taken += len(ready)
        return ready

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        """The outcomes of a stopped run that have not been taken yet.

        Items that were read and never handed over, because an exception came between, end with ``reason``.
        """
        while self._engine.settle(self, reason.copied):
            with self._changed:
                # In plain time: outcomes are with the listeners, and no clock of ours moves for those.
                self._changed.wait(_LOOK_AGAIN)
        drained = {outcome.index: outcome for outcome in self._take_ready()}
        for index, item in enumerate(self._batch_items, self._batch_start):
            if index < self._fed and index not in drained:
                drained[index] = Outcome(index, item, error=reason.copied("not sent: "))
        return list(drained.values())

    def forsake(self) -> None:
        """Stop without a lock, for the garbage collector: it may run in a thread that holds any of them."""
        self._stopped = self._stopped or CallCancelledError("the iterator over the run was dropped")
        self._engine.wake(self)

    def repair(self) -> None:
        """Put the engine's books in order after an exception in the consumer's thread."""
        self._engine.resync()

    @property
    def origin(self) -> RunOrigin:
        """How its calls were made, to make them again."""
        return RunOrigin(self._prepare, self._options, self.single_flight is not None)

    def now(self) -> float:
        """The time on the run's clock."""
        return self._engine.clock.now()

    def consumed(self, count: int) -> None:
        """``count`` outcomes have left the run: as many items may be read."""
        self._consumed += count

    def _enough(self, wanted: int) -> bool:
        ready = len(self._finished)
        return ready >= min(wanted, self._fed - self._taken) or (self.hurry and self.first_failure is not None)

    def _wait(self, at_least: int) -> bool:
        """Wait until there are enough outcomes; False if the run's time ran out first."""
        with self._changed:
            if self._enough(at_least):
                return True
        with self._engine.waiting(), self._changed:
            while not self._enough(at_least):
                left = self._time_left()
                if left is not None and left <= 0:
                    return False
                self._wake_at, self._sleeping = at_least, True
                try:
                    self._engine.clock.wait(self._changed, left)
                finally:
                    self._sleeping = False
        return True

    def _time_left(self) -> Optional[float]:
        if self._options.deadline is None or self._stopped is not None:
            return None
        return self._options.deadline - self._engine.clock.now()

    @runs_user_code
    def _feed(self, at_least: int) -> None:
        """Read items until the look-ahead is full, the input ends, or there is something to hand over."""
        while not (self._exhausted or self._reads_no_more()):
            room = self._window - (self._fed - self._consumed)
            if room <= 0:
                return
            self._hand_over(list(itertools.islice(self._items, min(room, self._stride))))
            self._batch_items = []
            if self._enough(at_least) and self._finished:
                return

    def _reads_no_more(self) -> bool:
        """Whether the run was ended, and its input may have no end up to which every item could get the reason."""
        return (self._ended or self._refused is not None) and self.lazy and not self._sized

    def _hand_over(self, items: List[Any]) -> None:
        if not items:
            self._exhausted = True
            return
        self._batch_start, self._batch_items = self._fed, items
        calls = [call for call in map(self._call_for, items) if call is not None and self._is_first(call)]
        try:
            self._engine.submit(calls)
        except PoolClosedError as error:
            self._refused = error  # what was submitted before is finished
            for call in calls:
                outcome = call.outcome(self.now(), error=error.copied("not sent: "))
                self._end_unsent(outcome)
                self._answer_twins(call, outcome)

    def _is_first(self, call: Call) -> bool:
        """Whether the call is to be sent: none like it was."""
        if self.single_flight is None:
            return True
        leads, answer = self.single_flight.join(call)
        if answer is not None:
            self.deliver(call, follower_outcome(call, answer, self.now()))
        return leads

    def _call_for(self, item: Any) -> Optional[Call]:
        """The call for the next item, None if its outcome is already known."""
        index = self._fed
        self._fed += 1
        try:
            request = self._prepare(item)
        except Exception as error:
            self._end_unsent(Outcome(index, item, error=unusable(index, error)))
            return None
        return self._ready_call(index, item, request)

    def _ready_call(self, index: int, item: Any, request: ChatRequest) -> Optional[Call]:
        reason = self._refused or self._reason_against(request)
        if reason is None:
            try:
                return self._engine.make_call(request, self._options, self, index=index, item=item)
            except Exception as error:
                reason = unusable(index, error)
        else:
            reason = reason.copied("not sent: ")
        self._end_unsent(Outcome(index, item, request, error=reason))
        return None

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        """Take the outcome of an item of which no call was handed over; called in the consumer's thread."""
        self._count_and_put(outcome)


def unusable(index: int, error: Exception) -> ChatPoolError:
    """An item of which no request could be made, as its outcome's error."""
    wrapped = ConfigurationError(f"item {index}: {error}")
    wrapped.__cause__ = error
    return wrapped


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
