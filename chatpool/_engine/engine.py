"""The engine: the worker threads of a pool, and the start and end of calls, of the pool and of its process."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import weakref
from time import sleep  # at import: a test that replaces time.sleep means its own code
from typing import Any, Callable, ContextManager, Dict, List, Mapping, Optional, Sequence, Tuple

from .._locks import release_forgotten
from .._policy.budget import BudgetReservation, BudgetTracker, TokenEstimate
from .._policy.retry import RetryDecision
from .._reentrancy import holds_locks, thread
from .._transport import Transport
from .._values import CallerError, Verdict, Waiting
from .._wire import background_response
from ..clock import Clock
from ..errors import CallCancelledError, ChatPoolError, PoolClosedError
from ..types import ChatRequest, LineStats, Usage
from .attempt import CANCELLED, Attempter, AttemptResult, ask_again, encode_payload, review_answer
from .background_state import BackgroundState
from .call import DONE, NEW, Call, CallOptions, OutcomeSink, UpstreamKey, report_queued
from .choice_limits import ChoiceLimits
from .completion import Delivery, ExpiryWatch
from .endpoints import Endpoints
from .fallback_switch import FallbackSwitch
from .lifecycle import register
from .polling import Poller
from .scheduler import Scheduler
from .streaming import ActiveStreams
from .withdrawals import Withdrawals
from .worker_threads import WorkerHooks, WorkerThreads

__all__ = ["Engine"]

logger = logging.getLogger("chatpool")

_this_thread = threading.local()  # .engine: the engine whose worker this thread is
_parent_objects: List[Any] = []  # of the process this one was forked from

_SHUTDOWN_PAUSE_SECONDS = 0.02
_DELIVERY_LOOKS, _DELIVERY_LOOK_SECONDS = 100, 0.0005  # before a fork: a callback of the user's may take longer
_NO_HOOKS = WorkerHooks()

_CLOSED = "the pool was closed while its stream was open"
_CLOSED_TO_CALLS = "the pool is closed; make a new ChatPool"
_ABORTED = "the pool was aborted while the call was under way"


class Engine:
    """Runs calls on at most ``max_workers`` threads.

    Args:
        connect: makes the endpoints to send to; called again in a forked child.
        max_workers: the concurrency cap.
        clock: time and waiting.
        hooks: called in the worker threads.
        budget_tracker: tracks the budget, None without one.
        runs_inline: whether each call runs in the thread that submits it, before that goes on; no worker is started.

    Attributes:
        runs_inline: the same.
        endpoints: the endpoints to send to.
        streams: the streams that are being read; its methods are the readings of their calls.
        choices: how many answers servers give to one request.
    """

    def __init__(
        self,
        connect: Callable[[], Endpoints],
        *,
        max_workers: int,
        clock: Clock,
        hooks: WorkerHooks = _NO_HOOKS,
        budget_tracker: Optional[BudgetTracker] = None,
        runs_inline: bool = False,
    ) -> None:
        self.clock = clock
        self.max_workers = max_workers
        self._connect = connect
        self._hooks = hooks
        self._budget_tracker = budget_tracker
        self.runs_inline = runs_inline
        self._ids = itertools.count(1)
        self._closed = self._released = self._closing = False
        self._some_fail_when_down = False  # from the first such call on
        self.streams = ActiveStreams(queues_all=runs_inline)
        self.choices = ChoiceLimits()
        self._start(connect())
        register(self)

    def _start(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self._default_endpoint = endpoints.first.spec.name
        self._scheduler = Scheduler(self.max_workers, endpoints.specs, self._budget_tracker)
        self._run_hook = _hook_runner(self, self._hooks)
        self._executor = WorkerThreads(self.max_workers, self._hooks, self._run_hook)
        self._attempter = Attempter(endpoints, self.clock, self._scheduler, self.choices)
        self._fallbacks = FallbackSwitch(endpoints, self.clock, self._scheduler, self._attempter)
        self._poller = Poller(self._attempter, endpoints, self.clock, self._scheduler)
        self._withdrawals = Withdrawals(endpoints)
        self._delivery = Delivery(self._scheduler, self.clock, self._withdrawals)
        self._expiry = ExpiryWatch(self.clock, self._delivery.expire)
        # For a pool that is never closed: workers keep the engine alive until their calls have ended.
        self._cleanup = weakref.finalize(self, endpoints.close)
        self._cleanup.atexit = False

    # -- calls come in ------------------------------------------------------------------------------

    def make_call(
        self, request: ChatRequest, options: CallOptions, sink: OutcomeSink, *, index: int = 0, item: Any = None
    ) -> Call:
        """Return a call, ready to be submitted.

        Its body is encoded now, so that later changes of the item do not reach it (attached files are read when they
        are sent), and it sees the context variables
        of this thread.

        Raises:
            TypeError, ConfigurationError: the body cannot be sent as JSON, or an attached file cannot be read.
        """
        call = Call(
            request,
            options,
            sink,
            id=next(self._ids),
            upstream_key=(self._default_endpoint, request.model),
            created_at=self.clock.now(),
            index=index,
            item=item,
        )
        call.payload = encode_payload(request, options.reading)
        return call

    def resume(self, call: Call, facts: Mapping[str, Any]) -> None:
        """Have a fresh call ask for a response that an earlier process had made, instead of sending its request.

        Nothing happens where the pool does not have the endpoint that has it.

        Args:
            call: the call.
            facts: what its sink was given to keep.
        """
        endpoint, response = facts.get("endpoint"), background_response(call.request, facts.get("id"))
        if response is not None and any(endpoint == spec.name for spec in self.endpoints.specs):
            if call.options.fallbacks is not None:
                self._fallbacks.begin_at(call, facts.get("fallback"))
            call.background = BackgroundState(response)
            call.move_to((str(endpoint), call.request.model))

    def submit(self, calls: Sequence[Call]) -> None:
        """Queue calls.  Where :meth:`runs_here` is true they run at once, one after the other.

        Raises:
            PoolClosedError: the pool is closed.
            BaseException: that of a :class:`CallerError`, from a call that ran at once.
        """
        self.check_open()
        for call in calls:
            report_queued(call)
        if self._closed:  # by a listener, or another thread: listeners know of the calls, and have to hear of their end
            for call in calls:
                self._delivery.fail(call, PoolClosedError(_CLOSED_TO_CALLS))
            return
        calls = [call for call in calls if call.options.fallbacks is None or not self._skip_refused(call)]
        if self.runs_here():
            self._run_here(calls)
            return
        self._start_workers(self._scheduler.submit(calls))
        for call in calls:
            if call.options.fails_when_down:
                self._some_fail_when_down = True
                self._give_up_down(call)
            self._watch(call)

    def submit_further(self, calls: Sequence[Call]) -> None:
        """Queue calls that go on with the work of one that has ended, before those of its run that begin something.

        Unlike those of :meth:`submit` they are made by other workers, and in a closed pool too.
        """
        for call in calls:
            report_queued(call)
        self._start_workers(self._scheduler.submit(calls, are_further=True))

    def check_open(self) -> None:
        """Refuse new calls in a closed pool.

        Raises:
            PoolClosedError: the pool is closed.
        """
        if self._closed:
            self._yield_to_shutdown()
            raise PoolClosedError(_CLOSED_TO_CALLS)

    def _yield_to_shutdown(self) -> None:
        """Leave the interpreter to the last calls: a thread may ask a closing pool again and again."""
        if self._closed and (self._closing or not self._released):
            sleep(_SHUTDOWN_PAUSE_SECONDS)

    def submit_stream(self, call: Call) -> None:
        """Queue a call whose stream is handed off.  Called in a worker of the engine, it runs in a new thread.

        The worker would otherwise wait for itself.

        Raises:
            PoolClosedError: the pool is closed.
        """
        if self._closed or self.runs_inline or not self.in_worker():
            self.submit([call])
            return
        report_queued(call)
        threading.Thread(target=self._run_in_new_thread, args=(call,), daemon=True).start()

    def _run_in_new_thread(self, call: Call) -> None:
        try:
            self._run_here([call])
        finally:
            self._run_hook("worker_end")

    def waiting(self) -> ContextManager[None]:
        """Return a context in which this thread waits for calls, and does not read its streams.

        Raises:
            RuntimeError: as :meth:`check_slots`, on entering it.
        """
        return self.streams.waiting(self._slots())

    def check_slots(self) -> None:
        """Refuse to wait for a call that cannot start until this thread goes on.

        Raises:
            RuntimeError: streams that this thread is reading take all slots.
        """
        self.streams.check_slots(self._slots())

    def _slots(self) -> float:
        return math.inf if self.runs_here() else self.max_workers  # a worker's own calls need none

    def _watch(self, call: Call) -> None:
        """Make sure that a single call ends in time even if no worker gets to it."""
        if call.background is not None:
            self._watch_background(call, call.background)
        elif call.options.is_single and call.state != DONE and self._scheduler.may_block(call, self.clock.now()):
            self._expiry.add(call)

    def _watch_background(self, call: Call, background: BackgroundState) -> None:
        """Watch a call that has been parked before its first poll: it may be parked for hours."""
        if call.options.is_single and call.state != DONE and background.polls == background.failures == 0:
            self._expiry.add(call)

    def in_worker(self) -> bool:
        """Return whether the calling thread is one of this engine's workers."""
        return getattr(_this_thread, "engine", None) is self

    def never_fits(self, call: Call) -> bool:
        """Return whether a call has more tokens than the limits of the pool ever let through."""
        return self._scheduler.never_fits(call)

    def runs_here(self) -> bool:
        """Return whether calls that the calling thread submits run in it: it is a worker, or there are none.

        For a worker to wait for another one could be to wait for itself.
        """
        return self.runs_inline or self.in_worker()

    def _start_workers(self, count: int) -> None:
        missing = count
        try:
            while missing:
                self._start_worker()
                missing -= 1
        finally:
            for _ in range(missing):  # Ctrl-C came between: they do not count
                self._scheduler.worker_not_started()

    def _start_worker(self) -> None:
        try:
            self._executor.submit(self._work)
        except RuntimeError as error:  # no thread can be started; the running workers do the rest
            if self._scheduler.worker_not_started() == 0:
                self._give_up_all(f"no worker thread can be started: {error}")

    # -- workers --------------------------------------------------------------------------------------

    def _work(self) -> None:
        scheduler, clock = self._scheduler, self.clock
        _this_thread.engine, thread.busy = self, True
        ended = False
        try:
            scheduler.worker_started()
            while not ended:
                step = scheduler.next_step(clock.now())
                if step.more_workers:
                    self._start_workers(step.more_workers)
                if step.call is not None:
                    self._run(step.call)
                elif step.lease_request is not None:
                    scheduler.lease_granted(step.lease_request, step.lease_request.acquire(), clock.now())
                elif step.wait:
                    scheduler.wait_for_work(clock)
                else:
                    ended = True
        finally:
            _this_thread.engine = None
            if not ended:
                scheduler.worker_ended()
            if self._closed and scheduler.idle():
                self._release()

    def _run(self, call: Call) -> None:
        try:
            wait = call.context.run(self._step, call)
            if wait is not None:
                self._park(call, wait)  # outside of the context: the next attempt, in another thread, enters it again
                return
        except BaseException as error:
            self._internal_error(call, error)
        self._hooks.run("after_call")

    def _park(self, call: Call, wait: float) -> None:
        self._scheduler.park(call, self.clock.now() + wait)
        self._watch(call)
        if call.background is not None and call.state == DONE:  # given up before the server promised its response
            self._withdrawals.withdraw(call)

    def _run_here(self, calls: Sequence[Call]) -> None:
        """Run calls in this thread, which is a worker meanwhile."""
        engine, busy = getattr(_this_thread, "engine", None), thread.busy
        _this_thread.engine, thread.busy = self, True
        callers: Optional[BaseException] = None
        try:
            for call in calls:
                if call.state == NEW:  # not cancelled before it came here
                    self._run_inline(call)
        except CallerError as error:
            callers = error.error
        finally:
            _this_thread.engine, thread.busy = engine, busy
            if self._closed and self._scheduler.idle():
                self._release()
        if callers is not None:
            raise callers

    def _run_inline(self, call: Call) -> None:
        """Run a call to its end in this thread."""
        call.context.run(self._run_to_end, call)

    def _run_to_end(self, call: Call) -> None:
        clock, scheduler = self.clock, self._scheduler
        outage = scheduler.outage(call, clock.now()) if call.options.fails_when_down else None
        if outage is not None and not outage.probe_is_due:
            self._delivery.fail(call, outage.error())
            return
        scheduler.adopt(call, clock.now())
        try:
            self._wait_for_lease(call)
            wait = self._step(call)
            while wait is not None:
                scheduler.wait_inline(call, clock.now() + wait, clock)
                scheduler.resend(call, clock.now())
                self._wait_for_lease(call)
                wait = self._step(call)
        except BaseException as error:
            if self.runs_inline and not isinstance(error, Exception):  # it is the caller's own, as is Ctrl-C
                self._break_off(call, error)
                raise
            self._internal_error(call, error)

    def _wait_for_lease(self, call: Call) -> None:
        request = self._scheduler.lease_request_for(call)
        if request is not None:
            self._scheduler.keep_lease(call, request.acquire_lease(self.clock), self.clock.now())
            if call.lease is not None:
                self._scheduler.wait_inline(call, call.lease.due_at, self.clock)

    def _step(self, call: Call) -> Optional[float]:
        """Make one attempt; return the seconds until the next one, None when the call has ended."""
        if call.background is not None and call.polls:
            return self._conclude(call, self._poller.poll(call))
        return self._conclude(call, self._attempter.attempt(call))

    def _conclude(self, call: Call, result: AttemptResult) -> Optional[float]:
        """Act on the result of an attempt; return as :meth:`_step`."""
        success, decision, ended_at = result
        if success is not None:
            return self._succeed(call, success, ended_at)
        if decision is not None and self._some_fail_when_down:
            self._give_up_down(call)  # before it goes elsewhere
        if decision is None:
            # Cancelled by its own token, in which case it has been ended, or with the whole transport.
            self._delivery.fail(call, PoolClosedError(_ABORTED))
        elif decision.wait is None:
            if call.options.fallbacks is not None:
                decision = self._fallbacks.follow(call, decision)
            if decision.wait is None:
                self._fail(call, decision)
            elif self._has_kept_answer(call):
                return None
        return None if decision is None else decision.wait

    def _internal_error(self, call: Call, error: BaseException) -> None:
        """End a call after an error of the engine or of a callback, so that it is not lost."""
        with contextlib.suppress(Exception):  # of a handler of the log, which may be what has raised
            logger.error("internal error in call %d", call.id, exc_info=error)
        self._break_off(call, error)

    def _break_off(self, call: Call, error: BaseException) -> None:
        """End a call that an exception has interrupted."""
        self._scheduler.returned(call, CANCELLED, self.clock.now())
        wrapped = ChatPoolError(f"internal error: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        self._delivery.fail(call, wrapped)

    def _succeed(self, call: Call, verdict: Verdict, now: float) -> Optional[float]:
        if call.options.review is not None:
            return self._review(call, verdict)
        won, workers = self._scheduler.succeed(call, verdict, now)
        if workers:
            self._start_workers(workers)  # before a callback takes its time
        if won:
            self._delivery.deliver(call, verdict=verdict, now=now)
        return None

    def _review(self, call: Call, verdict: Verdict) -> Optional[float]:
        """Have an answer reviewed; return 0.0 where the call is asked again or falls back, None when it has ended."""
        self._start_workers(self._scheduler.accepted(call, verdict, self.clock.now()))
        review = review_answer(call, verdict)
        if review.error is not None and call.options.fallbacks is not None:
            review = self._fallbacks.follow_review(call, verdict, review)
            if review.request is not None:
                return None if self._has_kept_answer(call) else 0.0
        if review.request is not None:
            if call.state == DONE:  # given up meanwhile
                return None
            ask_again(call, review.request, verdict, self.clock.now())
            return 0.0
        if self._scheduler.end(call):
            self._delivery.deliver(call, verdict=verdict._replace(value=review.value), error=review.error)
        return None

    def _give_up_down(self, call: Call) -> None:
        """End the calls to the model of ``call`` that do not wait for a server that is down, or have them fall back."""
        for waiting, error in self._delivery.give_up_down(call):
            waiting.context.copy().run(self._fall_back, waiting, error)

    def _fall_back(self, call: Call, error: ChatPoolError) -> None:
        decision = self._fallbacks.follow(call, RetryDecision(error=error))
        if decision.wait is None:
            self._fail(call, decision)
            return
        if not self._has_kept_answer(call):
            self._park(call, decision.wait)
        self._start_workers(self._scheduler.extra_workers(self.clock.now()))

    def _skip_refused(self, call: Call) -> bool:
        """Have a fresh call begin with a fallback where its request is refused; return whether it has ended thereby."""
        return self._fallbacks.skip_refused(call) and call.context.run(self._has_kept_answer, call)

    def _has_kept_answer(self, call: Call) -> bool:
        """End a call that begins a fallback whose answer is kept; return whether there is one."""
        value = call.sink.kept_answer(call)
        if value is None:
            return False
        if self._scheduler.end(call):
            self._delivery.deliver(call, verdict=Verdict("success", value=value), cached=True)
        self._start_workers(self._scheduler.extra_workers(self.clock.now()))
        return True

    def _fail(self, call: Call, decision: RetryDecision) -> None:
        error = decision.error or ChatPoolError("given up")
        if decision.reject_for is not None:
            self._scheduler.refuse(call.upstream_key, self.clock.now() + decision.reject_for, error)
        ended = self._scheduler.end(call)
        self._start_workers(self._scheduler.extra_workers(self.clock.now()))
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
        """True if the engine's calls are charged to a budget."""
        return self._budget_tracker is not None

    def reserve_budget(self, model: Optional[str], expected: TokenEstimate) -> Optional[BudgetReservation]:
        """Reserve what a call of another process is expected to take; None if it has to wait for others to end.

        Raises:
            BudgetExceededError: it does not fit any more.
            ConfigurationError: the budget has no price for its model.
        """
        assert self._budget_tracker is not None
        with self._scheduler.lock:
            if self._budget_tracker.would_exceed(model, expected):
                return None
            rejection = self._budget_tracker.rejection(model, expected)
            if rejection is not None:
                raise rejection
            reservation = self._budget_tracker.reservation(model, expected)
            self._budget_tracker.sent(reservation)
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
        assert self._budget_tracker is not None
        with self._scheduler.lock:
            for _ in range(timeouts):
                self._budget_tracker.sent(reservation)
                self._budget_tracker.returned(reservation, None, answered=True)
            self._budget_tracker.returned(reservation, usage, answered=answered, wrote=answered)

    # -- calls are given up -----------------------------------------------------------------------------

    def give_up(
        self, is_affected: Callable[[Call], bool], error: Callable[[Call], ChatPoolError], *, in_flight: bool = True
    ) -> None:
        """End the calls for which ``is_affected`` is true, each with its own ``error``; wake their exchanges.

        Args:
            is_affected: picks the calls.
            error: makes the outcome of one.
            in_flight: whether calls whose exchange is under way are ended too.
        """
        self._delivery.give_up(is_affected, error, in_flight=in_flight)

    @holds_locks
    def cancel(self, call: Call) -> None:
        """End one call whose future is cancelled; nothing happens if it has ended."""
        self._delivery.cancel(call)

    @holds_locks
    def settle(self, sink: OutcomeSink, error: Callable[[], ChatPoolError]) -> bool:
        """Deliver what this thread has ended for ``sink`` and could not deliver, for instance because of Ctrl-C.

        Returns:
            Whether other threads are about to deliver something to it.
        """
        return self._delivery.settle(sink, error)

    def wake(self, sink: OutcomeSink) -> None:
        """Wake the exchanges under way for a sink without readers; takes no lock of the engine."""
        self._delivery.wake(sink)

    @holds_locks
    def resync(self) -> None:
        """Make the state consistent after Ctrl-C, which may have come in the middle of anything in this thread."""
        release_forgotten()
        self._start_workers(self._scheduler.resync())

    # -- the end of the engine ------------------------------------------------------------------------------

    def accept_no_more(self) -> None:
        """Refuse further calls from now on."""
        self._closed = True

    def close(self, *, at_exit: bool = False) -> None:
        """Finish the submitted calls, then end; closing again does nothing."""
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
        # The calls of a dropped run have no reader, so they are not waited for.
        self.give_up(_is_unwanted, lambda call: call.sink.refusal(call) or PoolClosedError(_ABORTED))
        if self.in_worker() or not wait:
            if self._scheduler.idle():
                self._release()
            return
        abandoned = self.streams.abandoned(at_exit=at_exit)
        self.give_up(lambda call: call in abandoned, lambda call: CallCancelledError(_CLOSED))
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
            self.endpoints.abort()
        self._release()

    def _give_up_all(self, reason: str) -> None:
        self.give_up(lambda call: True, lambda call: PoolClosedError(reason))

    def _release(self, *, wait: bool = False) -> None:
        self._expiry.close()
        self._executor.shutdown(wait=wait)
        self.endpoints.close()
        self._scheduler.close_leases()
        self._released = True

    def before_fork(self) -> None:
        """Let outcomes that are on their way reach their sinks: those would get another one in the child."""
        for _ in range(_DELIVERY_LOOKS):
            if not self._scheduler.is_delivering():
                break
            sleep(_DELIVERY_LOOK_SECONDS)

    def after_fork_in_child(self) -> None:
        """Start over with new connections; the open calls are the parent's, and cancelled here."""
        orphans = self._scheduler.open_calls()
        old = self.endpoints
        # Kept for ever: to collect them would run finalizers that take locks which are never released.
        _parent_objects.append((self._scheduler, self._executor, old, self._attempter))
        self._cleanup.detach()
        self.streams.after_fork_in_child()
        _this_thread.engine = None
        try:
            self._start(self._connect())
        except Exception as error:  # for instance a CA file that no longer exists
            self._start(old.broken(error))
        for call in orphans:
            call.state = DONE
            call.sink.after_fork_in_child(call)

    @property
    def transport(self) -> Transport:
        """The transport of the first endpoint."""
        return self.endpoints.first.transport

    @property
    def closed(self) -> bool:
        """True once the engine takes no more calls."""
        return self._closed

    def counts(self) -> Tuple[int, int, int]:
        """Return the numbers of queued, parked and running calls; takes no lock."""
        return self._scheduler.counts()

    @holds_locks
    def upstream_stats(self) -> Dict[UpstreamKey, LineStats]:
        """Return the state of each (endpoint, model)."""
        self._yield_to_shutdown()
        return self._scheduler.upstream_stats(self.clock.now())

    @holds_locks
    def why_waiting(self, run_id: Optional[int] = None) -> Waiting:
        """Return why calls wait, those of one run or all, and how many are in flight."""
        return self._scheduler.waiting(run_id, self.clock.now())

    def upstream_stats_within(self, seconds: float) -> Optional[Dict[UpstreamKey, LineStats]]:
        """Return the same for a finalizer or a signal handler, None if the lock is not free in time."""
        return self._scheduler.upstream_stats_within(seconds, self.clock.now())


def _hook_runner(engine: Engine, hooks: WorkerHooks) -> Callable[[str], None]:
    """Return a function that runs a hook as in a worker of the engine, whose calls run at once.

    It does not keep the engine alive: worker threads hold it while they wait for work.
    """
    engine_if_alive = weakref.ref(engine)

    def run(name: str) -> None:
        _this_thread.engine = engine_if_alive()
        try:
            hooks.run(name)
        finally:
            _this_thread.engine = None

    return run


def _is_unwanted(call: Call) -> bool:
    return call.sink.refusal(call) is not None
