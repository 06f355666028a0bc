"""Workers: they take calls from the scheduler, make one attempt each, and do what was decided."""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, List, Optional, Tuple

from ..clock import Clock
from ..errors import CallCancelledError, ChatPoolError, DeadlineExceededError, PoolClosedError
from ..policy.retry import Decision
from ..transport import Transport
from ..types import ChatRequest, LineStats, Verdict
from .attempt import CANCELLED, Attempter
from .call import DONE, Call, CallOptions, LineKey, Sink
from .report import attempt_of, report_end, report_retry, report_send
from .scheduler import Scheduler

__all__ = ["Engine"]

logger = logging.getLogger("chatpool")

_here = threading.local()  # .engine: the engine whose worker this thread is
_inherited: List[Any] = []  # of the process this one was forked from


class Engine:
    """Runs calls on at most ``max_workers`` threads.

    Args:
        transport: where exchanges go; closed with the engine.
        max_workers: the concurrency cap.
        clock: time and waiting.
        after_call: called with no argument in the worker thread after each call.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        max_workers: int,
        clock: Clock,
        after_call: Optional[Callable[[], Any]] = None,
    ) -> None:
        self.clock = clock
        self.max_workers = max_workers
        self._transport = transport
        self._after_call = after_call
        self._ids = itertools.count(1)
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._scheduler = Scheduler(self.max_workers)
        self._executor = ThreadPoolExecutor(self.max_workers, thread_name_prefix="chatpool")
        self._attempter = Attempter(self._transport, self.clock, self._scheduler)

    # -- calls come in ------------------------------------------------------------------------------

    def make_call(
        self, request: ChatRequest, options: CallOptions, sink: Sink, *, index: int = 0, item: Any = None
    ) -> Call:
        """A call, ready to be submitted; it will see the context variables of the thread that made it."""
        line = (self._transport.base_url, request.model)
        call = Call(
            request, options, sink, id=next(self._ids), line=line, created=self.clock.now(), index=index, item=item
        )
        call.context = contextvars.copy_context()
        return call

    def submit(self, calls: Iterable[Call]) -> None:
        """Queue calls.  From inside one of the engine's own workers they run at once, one after the other:
        waiting there for another worker could be waiting for itself.

        Raises:
            PoolClosedError: the pool is closed.
        """
        if self._closed:
            raise PoolClosedError("the pool is closed; make a new ChatPool")
        if self.in_worker():
            for call in calls:
                self._run_inline(call)
        else:
            self._start_workers(self._scheduler.submit(calls))

    def in_worker(self) -> bool:
        """Whether the calling thread is one of this engine's workers."""
        return getattr(_here, "engine", None) is self

    def _start_workers(self, count: int) -> None:
        for _ in range(count):
            try:
                self._executor.submit(self._work)
            except RuntimeError:  # shut down, or the interpreter is exiting: those that still run finish the rest
                if self._scheduler.worker_not_started() == 0:
                    self.give_up(lambda call: True, lambda call: PoolClosedError("the interpreter is shutting down"))

    # -- a worker's life ------------------------------------------------------------------------------

    def _work(self) -> None:
        scheduler, clock = self._scheduler, self.clock
        _here.engine = self
        scheduler.worker_started()
        try:
            while True:
                step = scheduler.next_step(clock.now())
                if step.more_workers:
                    self._start_workers(step.more_workers)
                if step.call is not None:
                    self._run(step.call)
                elif step.wait:
                    scheduler.wait_for_work(clock)
                else:
                    return
        finally:
            _here.engine = None

    def _run(self, call: Call) -> None:
        try:
            # Parking comes after the context was left: the next attempt, in another thread, enters it again.
            decision = call.context.run(self._attempt, call) if call.context else self._attempt(call)
            if decision is not None and decision.wait is not None:
                self._scheduler.park(call, self.clock.now() + decision.wait)
                return
            self._finish(call, decision)
        except BaseException as error:
            self._broken(call, error)
        if self._after_call is not None:
            self._run_hook(self._after_call)

    def _run_inline(self, call: Call) -> None:
        clock, scheduler = self.clock, self._scheduler
        scheduler.adopt(call, clock.now())
        while True:
            decision = self._attempt(call)
            if decision is None or decision.wait is None:
                return self._finish(call, decision)
            scheduler.wait_inline(call, clock.now() + decision.wait, clock)
            scheduler.resend(call, clock.now())

    @staticmethod
    def _run_hook(hook: Callable[[], Any]) -> None:
        try:
            hook()
        except Exception:
            logger.exception("after_call raised; the call it followed is not affected")

    def _broken(self, call: Call, error: BaseException) -> None:
        """Nothing is lost, not even to an error of our own or of a callback."""
        logger.error("internal error in call %d", call.id, exc_info=error)
        self._scheduler.returned(call, CANCELLED, self.clock.now())
        wrapped = ChatPoolError(f"internal error: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        if self._scheduler.end(call):
            self._deliver(call, error=wrapped)

    # -- one attempt ------------------------------------------------------------------------------------

    def _attempt(self, call: Call) -> Optional[Decision]:
        """Make one attempt; returns what follows, None if the call succeeded or was given up."""
        now = self.clock.now()
        deadline = self._deadline(call, now)
        refusal = self._refusal(call, now, deadline)
        if refusal is not None:
            self._scheduler.returned(call, CANCELLED, now)
            return refusal
        call.attempts += 1
        report_send(call, now)
        verdict = self._attempter.attempt(call, deadline - now)
        ended = self.clock.now()
        if verdict is CANCELLED:
            self._scheduler.returned(call, CANCELLED, ended)
            return None
        if verdict.kind == "success":
            call.history.append(attempt_of(verdict, None, ended - now))
            self._succeed(call, verdict, ended)
            return None
        return self._failed(call, verdict, ended, ended - now)

    def _deadline(self, call: Call, now: float) -> float:
        """When the call's time ends; in a run the time in which the pool itself holds it does not count."""
        if call.first_sent is None:
            call.first_sent = now
            return call.deadline()
        return call.deadline(0.0 if call.options.singular else self._scheduler.held(call, now))

    def _refusal(self, call: Call, now: float, deadline: float) -> Optional[Decision]:
        """Why the call must not be sent now, None if it may be."""
        error = call.sink.refusal(call)
        if error is not None:
            return Decision(error=error)
        if now >= deadline:
            return Decision(error=DeadlineExceededError("the call's time ran out before it could be sent"))
        refused = self._scheduler.health(call.line).refusal_at(now)
        return None if refused is None else Decision(error=refused.copied("not sent: "), scope="model")

    def _succeed(self, call: Call, verdict: Verdict, now: float) -> None:
        if self._scheduler.succeed(call, verdict, now):
            self._deliver(call, verdict=verdict, now=now)

    def _failed(self, call: Call, verdict: Verdict, now: float, elapsed: float) -> Decision:
        line = self._scheduler.returned(call, verdict, now)
        deadline = self._deadline(call, now)
        if call.retry is None:
            call.retry = call.options.retrier.start(call.first_sent or now)
        try:
            decision = call.options.retrier.decide(
                call.retry,
                verdict,
                attempt=call.attempts,
                now=now,
                deadline=deadline,
                line=line,
                refreshable=self._transport.auth.refreshable,
            )
            if decision.refresh_key:
                self._transport.auth.refresh()
        except Exception as error:
            decision = Decision(error=_from_callback(error))
        attempt = attempt_of(verdict, decision.wait, elapsed)
        call.history.append(attempt)
        if decision.wait is not None:
            report_retry(call, attempt, now)
        return decision

    # -- the end of a call --------------------------------------------------------------------------------

    def _finish(self, call: Call, decision: Optional[Decision]) -> None:
        if decision is None or decision.error is None:
            return
        if decision.refuse_for is not None:
            self._scheduler.refuse(call.line, self.clock.now() + decision.refuse_for, decision.error)  # type: ignore[arg-type]
        if self._scheduler.end(call):
            self._deliver(call, error=decision.error)
        if decision.scope != "call":
            call.sink.on_fatal(call, decision.scope, decision.error)

    def _deliver(
        self,
        call: Call,
        *,
        verdict: Optional[Verdict] = None,
        error: Optional[ChatPoolError] = None,
        now: Optional[float] = None,
    ) -> None:
        """Tell the listeners, then whoever waits; the call has been ended in the scheduler."""
        now = self.clock.now() if now is None else now
        call.payload = None
        report_end(call, now, error=error, usage=None if verdict is None else verdict.usage)
        value = None if verdict is None else verdict.value
        call.sink.deliver(call, call.outcome(now, value=value, error=error))

    def give_up(
        self,
        which: Callable[[Call], bool],
        error: Callable[[Call], ChatPoolError],
        *,
        in_flight: bool = True,
    ) -> None:
        """End the calls that ``which`` picks, each with its own ``error``; exchanges under way are woken."""
        for call in self._scheduler.give_up(which, in_flight=in_flight):
            if call.token is not None:
                call.token.cancel()
            self._deliver(call, error=error(call))

    def cancel(self, call: Call) -> None:
        """End one call whose future was cancelled."""
        if self._scheduler.cancel(call):
            if call.token is not None:
                call.token.cancel()
            self._deliver(call, error=CallCancelledError("cancelled"))

    def repair(self) -> None:
        """Put the books in order after Ctrl-C, which may have come in the middle of anything in this thread."""
        self._start_workers(self._scheduler.repair())

    # -- the end of the engine ------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish what was submitted, then end; further calls of ``close`` do nothing."""
        self.shutdown()

    def shutdown(self, *, wait: bool = True, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: whether to return only when everything has ended (never waited for in one of its own workers).
            cancel_futures: whether calls that are queued or parked are cancelled.
        """
        self._closed = True
        if cancel_futures:
            reason = "the pool was shut down before the call was sent"
            self.give_up(lambda call: True, lambda call: CallCancelledError(reason), in_flight=False)
        if self.in_worker() or not wait:
            return
        self._scheduler.wait_until_idle(self.clock)
        self._executor.shutdown(wait=True)
        self._transport.close()

    def abort(self) -> None:
        """Give up everything and end."""
        self._closed = True
        reason = "the pool was aborted while the call was under way"
        self.give_up(lambda call: True, lambda call: PoolClosedError(reason))
        self._transport.abort()
        self._executor.shutdown(wait=False)

    def after_fork_in_child(self, transport: Transport) -> None:
        """Start over with a transport of the child's own; what was under way is the parent's and cancelled here."""
        orphans = self._scheduler.everyone()
        # Kept for ever: to collect them would run finalizers that take locks nobody will ever release.
        _inherited.append((self._scheduler, self._executor, self._transport, self._attempter))
        _here.engine = None
        self._transport = transport
        self._start()
        for call in orphans:
            call.state = DONE
            call.sink.after_fork_in_child(call)

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more calls."""
        return self._closed

    def counts(self) -> Tuple[int, int, int]:
        """How many calls are queued, parked and running."""
        return self._scheduler.counts()

    def lines(self) -> List[Tuple[LineKey, LineStats]]:
        """The state of each (base_url, model)."""
        return list(self._scheduler.line_stats(self.clock.now()).items())


def _from_callback(error: Exception) -> ChatPoolError:
    if isinstance(error, ChatPoolError):
        return error
    wrapped = ChatPoolError(f"a callback of the retry policy or of the API key raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
