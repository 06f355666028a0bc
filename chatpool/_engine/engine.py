"""The engine: worker threads, and the beginning and end of calls, of itself and of its process."""

from __future__ import annotations

import contextvars
import itertools
import logging
import math
import threading
import weakref
from time import sleep  # at import: a test that replaces time.sleep means its own code
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Tuple

from .._locks import release_forgotten
from .._policy.budget import BudgetReservation, BudgetTracker, TokenEstimate
from .._policy.retry import RetryDecision
from .._reentrancy import holds_locks, runs_user_code, thread
from .._transport import Transport
from ..clock import Clock
from ..errors import CallCancelledError, ChatPoolError, PoolClosedError
from ..types import ChatRequest, LineStats, Usage, Verdict
from .attempt import CANCELLED, Attempter, ask_again, payload_of, review
from .call import DONE, NEW, Call, CallOptions, OutcomeSink, UpstreamKey
from .completion import Delivery, ExpiryWatch
from .endpoints import Endpoints
from .lifecycle import WorkerThreads, register
from .scheduler import Scheduler
from .streaming import ActiveStreams

__all__ = ["Engine"]

logger = logging.getLogger("chatpool")

_here = threading.local()  # .engine: the engine whose worker this thread is
_inherited: List[Any] = []  # of the process this one was forked from

_PAUSE = 0.02  # seconds

_CLOSED = "the pool was closed while its stream was open"
_ABORTED = "the pool was aborted while the call was under way"


class Engine:
    """Runs calls on at most ``max_workers`` threads.

    Args:
        connect: makes the endpoints that exchanges go to; called again in a forked child.
        max_workers: the concurrency cap.
        clock: time and waiting.
        after_call: called with no argument in the worker thread after each call.
        spending: what has been spent of the budget, None without one.

    Attributes:
        streams: the streams that are being read; its methods are the readings of their calls.
    """

    def __init__(
        self,
        connect: Callable[[], Endpoints],
        *,
        max_workers: int,
        clock: Clock,
        after_call: Optional[Callable[[], Any]] = None,
        spending: Optional[BudgetTracker] = None,
    ) -> None:
        self.clock = clock
        self.max_workers = max_workers
        self._connect = connect
        self._after_call = after_call
        self._spending = spending
        self._ids = itertools.count(1)
        self._closed = self._released = self._closing = False
        self.streams = ActiveStreams()
        self._start(connect())
        register(self)

    def _start(self, routes: Endpoints) -> None:
        self.routes = routes
        self._home = routes.first.plan.name
        self._scheduler = Scheduler(self.max_workers, routes.plans, self._spending)
        self._executor = WorkerThreads(self.max_workers, thread_name_prefix="chatpool")
        self._attempter = Attempter(routes, self.clock, self._scheduler)
        self._delivery = Delivery(self._scheduler, self.clock)
        self._expiry = ExpiryWatch(self.clock, self._delivery.expire)
        # For a pool that nobody closes: workers keep the engine alive until their calls have ended.
        self._cleanup = weakref.finalize(self, routes.close)
        self._cleanup.atexit = False

    # -- calls come in ------------------------------------------------------------------------------

    def make_call(
        self, request: ChatRequest, options: CallOptions, sink: OutcomeSink, *, index: int = 0, item: Any = None
    ) -> Call:
        """A call, ready to be submitted.

        Its body is encoded now, so that later changes of the item do not reach it, and it will see the context
        variables of this thread.

        Raises:
            TypeError, ConfigurationError: the body cannot be sent as JSON.
        """
        call = Call(
            request,
            options,
            sink,
            id=next(self._ids),
            line=(self._home, request.model),
            created=self.clock.now(),
            index=index,
            item=item,
        )
        call.payload = payload_of(request, options.reading)
        call.context = contextvars.copy_context()
        return call

    def submit(self, calls: Sequence[Call]) -> None:
        """Queue calls.  From inside one of the engine's own workers they run at once, one after the other:
        waiting there for another worker could be waiting for itself.

        Raises:
            PoolClosedError: the pool is closed.
        """
        self.check_open()
        if self.in_worker():
            for call in calls:
                self._run_inline(call)
        else:
            self._start_workers(self._scheduler.submit(calls))
            for call in calls:
                self._watch(call)

    def check_open(self) -> None:
        """Refuse calls that would not be made.

        Raises:
            PoolClosedError: the pool is closed.
        """
        if self._closed:
            self._let_the_end_come()
            raise PoolClosedError("the pool is closed; make a new ChatPool")

    def _let_the_end_come(self) -> None:
        """Have threads that ask a closing pool again and again leave the interpreter to what is to be finished."""
        if self._closed and (self._closing or not self._released):
            sleep(_PAUSE)

    def submit_stream(self, call: Call) -> None:
        """Queue a call whose stream is handed over.  For a worker of the engine's, which could be waiting for itself,
        it runs in a thread of its own.

        Raises:
            PoolClosedError: the pool is closed.
        """
        if self._closed or not self.in_worker():
            self.submit([call])
            return
        beside = threading.Thread(target=contextvars.copy_context().run, args=(self._run_beside, call), daemon=True)
        beside.start()

    def _run_beside(self, call: Call) -> None:
        _here.engine, thread.busy = self, True
        try:
            if call.state == NEW:  # not cancelled before it came here
                self._run_inline(call)
        finally:
            _here.engine = None
            if self._closed and self._scheduler.idle():
                self._release()

    def waiting(self) -> ContextManager[None]:
        """A block in which this thread waits for calls, and does not read its streams.

        Raises:
            RuntimeError: as :meth:`check_slots`, on entering it.
        """
        return self.streams.waiting(self._slots())

    def check_slots(self) -> None:
        """Refuse to wait for a call that cannot start before this very thread has gone on.

        Raises:
            RuntimeError: streams that this thread is reading take all slots.
        """
        self.streams.check_slots(self._slots())

    def _slots(self) -> float:
        return math.inf if self.in_worker() else self.max_workers  # a worker's own calls need none

    def _watch(self, call: Call) -> None:
        """See to it that a singular call ends in time even if no worker gets to it."""
        if call.options.singular and call.state != DONE and self._scheduler.holds_up(call, self.clock.now()):
            self._expiry.add(call)

    def in_worker(self) -> bool:
        """Whether the calling thread is one of this engine's workers."""
        return getattr(_here, "engine", None) is self

    def _start_workers(self, count: int) -> None:
        missing = count
        try:
            while missing:
                self._start_worker()
                missing -= 1
        finally:
            for _ in range(missing):  # Ctrl-C came between: nobody is to count on them
                self._scheduler.worker_not_started()

    def _start_worker(self) -> None:
        try:
            self._executor.submit(self._work)
        except RuntimeError as error:  # no thread to be had; the workers that still run do the rest
            if self._scheduler.worker_not_started() == 0:
                self._give_up_all(f"no worker thread can be started: {error}")

    # -- a worker's life ------------------------------------------------------------------------------

    def _work(self) -> None:
        scheduler, clock = self._scheduler, self.clock
        _here.engine, thread.busy = self, True
        ended = False
        try:
            scheduler.worker_started()
            while not ended:
                step = scheduler.next_step(clock.now())
                self._start_workers(step.more_workers)
                if step.call is not None:
                    self._run(step.call)
                elif step.question is not None:
                    scheduler.answered(step.question, step.question.ask(), clock.now())
                elif step.wait:
                    scheduler.wait_for_work(clock)
                else:
                    ended = True
        finally:
            _here.engine = None
            if not ended:
                scheduler.worker_ended()
            if self._closed and scheduler.idle():
                self._release()

    def _run(self, call: Call) -> None:
        try:
            wait = call.context.run(self._step, call) if call.context else self._step(call)
            if wait is not None:
                # After the context was left: the next attempt, in another thread, enters it again.
                self._scheduler.park(call, self.clock.now() + wait)
                self._watch(call)
                return
        except BaseException as error:
            self._broken(call, error)
        if self._after_call is not None:
            self._run_hook(self._after_call)

    def _run_inline(self, call: Call) -> None:
        clock, scheduler = self.clock, self._scheduler
        scheduler.adopt(call, clock.now())
        try:
            self._wait_for_slot(call)
            wait = self._step(call)
            while wait is not None:
                scheduler.wait_inline(call, clock.now() + wait, clock)
                scheduler.resend(call, clock.now())
                self._wait_for_slot(call)
                wait = self._step(call)
        except BaseException as error:
            self._broken(call, error)

    def _wait_for_slot(self, call: Call) -> None:
        question = self._scheduler.question_for(call)
        if question is not None:
            call.grant = question.granted(self.clock)
            self._scheduler.wait_inline(call, call.grant.due, self.clock)

    def _step(self, call: Call) -> Optional[float]:
        """Make one attempt; returns the seconds until the next one, None when the call has ended."""
        success, decision = self._attempter.attempt(call)
        if success is not None:
            return self._succeed(call, success)
        if decision is None:
            # Cancelled by its own token (then whoever did so has ended it), or with the whole transport.
            self._delivery.fail(call, PoolClosedError(_ABORTED))
        elif decision.wait is not None:
            return decision.wait
        else:
            self._fail(call, decision)
        return None

    @staticmethod
    @runs_user_code
    def _run_hook(hook: Callable[[], Any]) -> None:
        try:
            hook()
        except BaseException:  # a SystemExit of the hook's must not end the worker
            logger.exception("after_call raised; the call it followed is not affected")

    def _broken(self, call: Call, error: BaseException) -> None:
        """Nothing is lost, not even to an error of our own or of a callback."""
        logger.error("internal error in call %d", call.id, exc_info=error)
        self._scheduler.returned(call, CANCELLED, self.clock.now())
        wrapped = ChatPoolError(f"internal error: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        self._delivery.fail(call, wrapped)

    def _succeed(self, call: Call, verdict: Verdict) -> Optional[float]:
        if call.options.review is not None:
            return self._review(call, verdict)
        now = self.clock.now()
        won, workers = self._scheduler.succeed(call, verdict, now)
        self._start_workers(workers)  # before anybody's callback takes its time
        if won:
            self._delivery.deliver(call, verdict=verdict, now=now)
        return None

    def _review(self, call: Call, verdict: Verdict) -> Optional[float]:
        """Have an answer looked at; returns 0.0 where the call is asked again, None when it has ended."""
        self._start_workers(self._scheduler.answered_well(call, verdict, self.clock.now()))
        found = review(call, verdict)
        if found.request is not None:
            if call.state == DONE:  # given up meanwhile
                return None
            ask_again(call, found.request, verdict, self.clock.now())
            return 0.0
        if self._scheduler.end(call):
            self._delivery.deliver(call, verdict=verdict._replace(value=found.value), error=found.error)
        return None

    def _fail(self, call: Call, decision: RetryDecision) -> None:
        error = decision.error or ChatPoolError("given up")
        if decision.refuse_for is not None:
            self._scheduler.refuse(call.line, self.clock.now() + decision.refuse_for, error)
        ended = self._scheduler.end(call)
        self._start_workers(self._scheduler.workers_wanted(self.clock.now()))
        fatal = decision.scope != "call"
        if fatal:
            call.sink.on_fatal(error)  # the outcome that follows may be the last one that its reader waits for
        if ended:
            self._delivery.deliver(call, error=error)
        if fatal:
            call.sink.refuse(call, decision.scope, error)

    # -- the budget, for calls that other processes make ----------------------------------------------------

    @property
    def has_budget(self) -> bool:
        """Whether the engine's calls are charged to a budget."""
        return self._spending is not None

    def reserve_budget(self, model: Optional[str], expected: TokenEstimate) -> Optional[BudgetReservation]:
        """Reserve what a call of another process is expected to take; None if it has to wait for others to end.

        Raises:
            BudgetExceededError: it does not fit any more.
            ConfigurationError: the budget has no price for its model.
        """
        assert self._spending is not None
        with self._scheduler.lock:
            if self._spending.must_wait(model, expected):
                return None
            refusal = self._spending.refusal(model, expected)
            if refusal is not None:
                raise refusal
            reservation = self._spending.reservation(model, expected)
            self._spending.sent(reservation)
        return reservation

    def book_budget(
        self, reservation: BudgetReservation, usage: Optional[Usage], *, answered: bool, timeouts: int = 0
    ) -> None:
        """Book what a call of another process took.

        Args:
            reservation: what was reserved for it.
            usage: what it took, None where the server did not say, or nothing was sent.
            answered: whether it was answered; without usage it then counts as expected.
            timeouts: its attempts whose answer did not come in time; it may have been written and billed all the same.
        """
        assert self._spending is not None
        with self._scheduler.lock:
            for _ in range(timeouts):
                self._spending.sent(reservation)
                self._spending.returned(reservation, None, answered=True)
            self._spending.returned(reservation, usage, answered=answered, wrote=answered)

    # -- from outside ---------------------------------------------------------------------------------------

    def give_up(
        self, which: Callable[[Call], bool], error: Callable[[Call], ChatPoolError], *, in_flight: bool = True
    ) -> None:
        """End the calls that ``which`` picks, each with its own ``error``; exchanges under way are woken.

        Args:
            which: picks the calls.
            error: the outcome of one.
            in_flight: whether calls whose exchange is under way are ended too.
        """
        self._delivery.give_up(which, error, in_flight=in_flight)

    @holds_locks
    def cancel(self, call: Call) -> None:
        """End one call whose future is cancelled; nothing happens if it has ended."""
        self._delivery.cancel(call)

    @holds_locks
    def settle(self, sink: OutcomeSink, error: Callable[[], ChatPoolError]) -> bool:
        """Deliver what this thread has ended for ``sink`` and was kept from delivering, by Ctrl-C say.

        Returns:
            Whether other threads are about to deliver something to it.
        """
        return self._delivery.settle(sink, error)

    def wake(self, sink: OutcomeSink) -> None:
        """Wake the exchanges under way for a sink that nobody looks at any more; takes no lock of the engine's."""
        self._delivery.wake(sink)

    @holds_locks
    def repair(self) -> None:
        """Put the books in order after Ctrl-C, which may have come in the middle of anything in this thread."""
        release_forgotten()
        self._start_workers(self._scheduler.repair())

    # -- the end of the engine ------------------------------------------------------------------------------

    def accept_no_more(self) -> None:
        """Refuse further calls from now on."""
        self._closed = True

    def close(self, *, at_exit: bool = False) -> None:
        """Finish what was submitted, then end; further calls of ``close`` do nothing."""
        self.shutdown(at_exit=at_exit)

    @holds_locks
    def shutdown(self, *, wait: bool = True, cancel_futures: bool = False, at_exit: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: whether to return only when everything has ended (never waited for in one of its own workers).
            cancel_futures: whether calls that are queued or parked are cancelled.
            at_exit: whether the process is about to end, for which daemon threads are not waited for.
        """
        self._closed = True
        self.streams.wake()
        if cancel_futures:
            reason = "the pool was shut down before the call was sent"
            self.give_up(lambda call: True, lambda call: CallCancelledError(reason), in_flight=False)
        # Nobody waits for the calls of a run that was dropped: not this method either.
        self.give_up(_is_unwanted, lambda call: call.sink.refusal(call) or PoolClosedError(_ABORTED))
        if self.in_worker() or not wait:
            if self._scheduler.idle():
                self._release()
            return
        forgotten = self.streams.forgotten(at_exit=at_exit)
        self.give_up(lambda call: call in forgotten, lambda call: CallCancelledError(_CLOSED))
        self._closing = True
        try:
            self._scheduler.wait_until_idle(self.clock)
            self._release(wait=True)
        finally:
            self._closing = False

    @holds_locks
    def abort(self) -> None:
        """Give up everything and end."""
        self._closed = True
        for _ in range(2):  # once more for what another thread was submitting at the same time
            self._give_up_all(_ABORTED)
            self.routes.abort()
        self._release()

    def _give_up_all(self, reason: str) -> None:
        self.give_up(lambda call: True, lambda call: PoolClosedError(reason))

    def _release(self, *, wait: bool = False) -> None:
        self._expiry.close()
        self._executor.shutdown(wait=wait)
        self.routes.close()
        self._scheduler.close_grants()
        self._released = True

    def after_fork_in_child(self) -> None:
        """Start over with connections of the child's own; what was under way is the parent's, and cancelled here."""
        orphans = self._scheduler.everyone()
        old = self.routes
        # Kept for ever: to collect them would run finalizers that take locks nobody will ever release.
        _inherited.append((self._scheduler, self._executor, old, self._attempter))
        self._cleanup.detach()
        self.streams.after_fork_in_child()
        _here.engine = None
        try:
            self._start(self._connect())
        except Exception as error:  # a CA file, say, that is not there any more
            self._start(old.broken(error))
        for call in orphans:
            call.state = DONE
            call.sink.after_fork_in_child(call)

    @property
    def transport(self) -> Transport:
        """How to get to the first endpoint."""
        return self.routes.first.transport

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more calls."""
        return self._closed

    def counts(self) -> Tuple[int, int, int]:
        """How many calls are queued, parked and running; takes no lock."""
        return self._scheduler.counts()

    @holds_locks
    def lines(self) -> Dict[UpstreamKey, LineStats]:
        """Return the state of each (endpoint, model)."""
        self._let_the_end_come()
        return self._scheduler.line_stats(self.clock.now())

    def lines_within(self, seconds: float) -> Optional[Dict[UpstreamKey, LineStats]]:
        """Return the same, None if it is not to be had in time: a finalizer asks, or a signal handler."""
        return self._scheduler.line_stats_within(seconds, self.clock.now())


def _is_unwanted(call: Call) -> bool:
    return call.sink.refusal(call) is not None
