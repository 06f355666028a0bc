"""The end of calls: outcomes are delivered, futures resolved, and calls that run out of time ended."""

from __future__ import annotations

import heapq
import math
import threading
import time
import weakref
from concurrent.futures import Future
from typing import Any, Callable, List, Mapping, Optional, Protocol, Tuple

from .._locks import Condition, run_beside
from .._reentrancy import defer, is_reentrant, waits_for_calls
from .._values import Verdict
from ..clock import Clock, interruptible
from ..errors import CallCancelledError, ChatPoolError, DeadlineExceededError
from ..types import ChatCompletion, Outcome
from .background_state import unfinished_in_time
from .call import DONE, RUNNING, Call, OutcomeSink, report_end
from .scheduler import Scheduler
from .withdrawals import Withdrawals

__all__ = ["CallFuture", "Delivery", "ExpiryWatch", "no_worker_in_time"]


_TIDY_FROM_CALLS = 64  # fewer watched calls are not worth tidying up


def no_worker_in_time(limit: str) -> DeadlineExceededError:
    """Return the error of a call that no worker got to before its time was over; ``limit`` names the setting."""
    return DeadlineExceededError(
        f"the time for the call ({limit}) ran out while it waited for a worker; raise max_workers or that time"
    )


class Delivery:
    """Ends calls and delivers their outcomes, each once.

    Args:
        scheduler: ends the calls, each once.
        clock: the pool's clock.
        withdrawals: tells servers of responses in the background that a call leaves behind.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock, withdrawals: Withdrawals) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._withdrawals = withdrawals

    def deliver(
        self,
        call: Call,
        *,
        verdict: Optional[Verdict] = None,
        error: Optional[ChatPoolError] = None,
        now: Optional[float] = None,
        cached: bool = False,
    ) -> None:
        """Tell the listeners, then the sink; the call has been ended in the scheduler, and this is its own context.

        With both, ``verdict`` is that of an answer that was not accepted because of ``error``.  With ``cached`` it is
        that of an answer from the cache, without usage.
        """
        now = self._clock.now() if now is None else now
        call.payload = b""
        try:
            if verdict is None:
                report_end(call, now, error=error, usage=call.unreported_usage)
            else:
                report_end(call, now, error=error, usage=verdict.usage, answer=verdict.value, cached=cached)
        finally:
            value = None if verdict is None or error is not None else verdict.value
            if verdict is not None and call.options.review is None:
                call.add_usage(verdict.usage)
            if call.fallback and isinstance(value, ChatCompletion):
                value._fallback = call.fallback
            outcome = call.outcome(now, value=value, error=error)
            outcome.cached = cached
            call.sink.deliver(call, outcome)
            self._scheduler.delivered(call)  # not after an interruption: settle() then delivers once more
            if call.background is not None:
                self._withdrawals.withdraw(call)

    def fail(self, call: Call, error: ChatPoolError) -> None:
        """End a call with ``error``, unless it has ended."""
        if self._scheduler.end(call):
            self._deliver_failure(call, error)

    def _deliver_failure(self, call: Call, error: ChatPoolError) -> None:
        """Deliver from anywhere: in a copy of the call's context, as a worker may be in the context itself."""
        call.context.copy().run(self.deliver, call, error=error)

    def give_up(
        self, is_affected: Callable[[Call], bool], error: Callable[[Call], ChatPoolError], *, in_flight: bool = True
    ) -> None:
        """End the calls for which ``is_affected`` is true, each with its own ``error``; wake their exchanges."""
        for call in self._scheduler.give_up(is_affected, in_flight=in_flight):
            if call.cancel_token is not None:
                call.cancel_token.cancel()
            self._deliver_failure(call, error(call))

    def give_up_down(self, call: Call) -> List[Tuple[Call, ChatPoolError]]:
        """End the calls to the model of ``call`` that do not wait for a server that is down, if it is.

        Returns:
            Those that may have a fallback, each with the error that it ends with otherwise: they run in this thread.
        """
        given_up, taken_out, outage = self._scheduler.give_up_down(call, self._clock.now())
        if outage is None:
            return []
        for ended in given_up:
            self._deliver_failure(ended, outage.error())
        return [(each, outage.error()) for each in taken_out]

    def cancel(self, call: Call) -> None:
        """End one call whose future is cancelled; nothing happens if it has ended."""
        if self._scheduler.cancel(call):
            if call.cancel_token is not None:
                call.cancel_token.cancel()
            self._deliver_failure(call, CallCancelledError("cancelled"))

    def expire(self, call: Call) -> None:
        """End one call whose time is over before a worker reached it."""
        if self._scheduler.expire(call):
            limit = call.deadline().limit
            late = no_worker_in_time(limit) if call.background is None else unfinished_in_time(call.background, limit)
            self._deliver_failure(call, late)

    def settle(self, sink: OutcomeSink, error: Callable[[], ChatPoolError]) -> bool:
        """Deliver what this thread has ended for ``sink`` and could not deliver, for instance because of Ctrl-C.

        Returns:
            Whether other threads are about to deliver something to it.
        """
        for call in self._scheduler.undelivered(sink):
            if call.ended_by == threading.get_ident():
                self._deliver_failure(call, error())
        return bool(self._scheduler.undelivered(sink))

    def wake(self, sink: OutcomeSink) -> None:
        """Wake the exchanges under way for a sink without readers; takes no lock of the engine."""
        for call in self._scheduler.in_flight(sink):
            if call.cancel_token is not None:
                call.cancel_token.cancel()


class Canceller(Protocol):
    """The part of an engine that a future needs."""

    def cancel(self, call: Call) -> None:
        """Give ``call`` up, unless it has ended."""


class CallFuture(Future):  # type: ignore[type-arg]  # generic at run time from 3.9 on, subclassing needs none of it
    """A ``concurrent.futures.Future`` whose call can be cancelled at any time before its end, also in flight."""

    run_id: Optional[int] = None

    def __init__(self) -> None:
        super().__init__()
        self._condition = Condition()  # the usual one may stay taken when Ctrl-C comes
        self._call: Optional[Call] = None
        self._engine: Optional[Canceller] = None

    def attach(self, call: Call, engine: Canceller) -> None:
        """Tie the future to its call and its engine."""
        self._call, self._engine = call, engine

    def running(self) -> bool:
        """Return whether an exchange of the call is under way."""
        call = self._call
        return call is not None and call.state == RUNNING and not self.done()

    def is_in_background(self) -> bool:
        """Return whether the server makes the response to the call in the background."""
        call = self._call
        return call is not None and call.background is not None

    def cancel(self) -> bool:
        """Give the call up in any state; return False if it has already ended.

        False, too, in a finalizer or a signal handler that came in the middle of the pool's own work: the call is
        then given up as soon as that is done.
        """
        if is_reentrant():
            defer(self.give_up)
            return False
        self.give_up()
        return self.cancelled()

    def give_up(self) -> None:
        """End the call; nothing happens if it has ended.  May wait for locks."""
        # The future itself stays PENDING until its end. The call is ended first, which ends in deliver():
        # callbacks find its worker free.
        call, engine = self._call, self._engine
        if call is not None and engine is not None:
            engine.cancel(call)

    def result(self, timeout: Optional[float] = None) -> Any:
        """Return the value; see ``concurrent.futures.Future.result``.

        Raises:
            RuntimeError: not ready, and the caller is a finalizer or signal handler that interrupted the pool.
        """
        return super().result() if self.done() else self._wait_for_result(timeout)

    @waits_for_calls
    def _wait_for_result(self, timeout: Optional[float]) -> Any:
        self._wait_in_parts(timeout)
        return super().result(0)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Return the error, None after a success; waits as :meth:`result` does, and raises what that does."""
        return super().exception() if self.done() else self._wait_for_exception(timeout)

    @waits_for_calls
    def _wait_for_exception(self, timeout: Optional[float]) -> Optional[BaseException]:
        self._wait_in_parts(timeout)
        return super().exception(0)

    def _wait_in_parts(self, timeout: Optional[float]) -> None:
        """Wait until it is done or the time is over; in the main thread in parts, see :func:`interruptible`."""
        ends_at = math.inf if timeout is None else time.monotonic() + timeout
        while not self.done():
            left = ends_at - time.monotonic()
            if left <= 0:
                return
            self.wait(interruptible(None if timeout is None else left))

    def wait(self, timeout: Optional[float]) -> bool:
        """Wait up to ``timeout`` seconds, None for as long as it takes; returns whether the future is done."""
        with self._condition:
            return self.done() or (self._condition.wait(timeout) and self.done())

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        """Resolve the future; called by the engine."""
        self._call = self._engine = None  # neither keeps the other alive any longer
        if isinstance(outcome.error, CallCancelledError):
            self._cancelled()
        elif outcome.error is not None:
            self.set_exception(outcome.error)
        else:
            self.set_result(outcome.value)

    def _cancelled(self) -> None:
        if super().cancel():
            self.set_running_or_notify_cancel()  # only this wakes wait() and as_completed()

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        """Return None: only cancellation stops a single call, and that takes it out of the queue."""
        return None

    def kept_answer(self, call: Call) -> Any:
        """Return None: nothing is kept."""
        return None

    def keep_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        """Return False: no journal knows of a single call."""
        return False

    def on_fatal(self, error: ChatPoolError) -> None:
        """Do nothing: a single call has no siblings."""

    def refuse(self, call: Call, scope: str, error: ChatPoolError) -> None:
        """Do nothing: a single call has no siblings."""

    def after_fork_in_child(self, call: Call) -> None:
        """Cancel the future: the call is the parent's.

        Its callbacks are the parent's too, and are called there.  Here they would run inside ``os.fork``, where
        their locks may stay held for ever, and on connections that the parent uses.
        """
        self._call = self._engine = None
        self._condition = Condition()  # a thread of the parent may have held the old one
        self._done_callbacks: List[Callable[[Future[Any]], Any]] = []
        self._waiters: List[Any] = []  # of threads that did not come along
        if not self.done():
            self._cancelled()


class ExpiryWatch:
    """Ends single calls whose time runs out while they wait for a worker.

    It has its own thread, because every worker may be busy; the thread exists only while calls are watched.

    Args:
        clock: the pool's clock.
        expire: a bound method that ends the call if it still waits; its object is not kept alive.
    """

    def __init__(self, clock: Clock, expire: Callable[[Call], None]) -> None:
        self._clock = clock
        self._expire = weakref.WeakMethod(expire)
        self._changed = Condition()
        self._watched: List[Tuple[float, int, Call]] = []
        self._tidy_at = _TIDY_FROM_CALLS
        self._running = False

    def add(self, call: Call) -> None:
        """Watch a call until its time ends."""
        if math.isinf(call.deadline().at):  # before its first send, where it may wait for the day
            return
        with self._changed:
            heapq.heappush(self._watched, (call.deadline().at, call.id, call))
            if len(self._watched) > self._tidy_at:
                self._tidy()
            if not self._running:
                watch = threading.Thread(target=self._watch, name="chatpool-expiry", daemon=True)
                run_beside(watch.start)
                self._running = True
            elif self._watched[0][2] is call:
                self._changed.notify_all()

    def close(self) -> None:
        """Stop watching."""
        with self._changed:
            self._watched.clear()
            self._changed.notify_all()

    def _tidy(self) -> None:
        self._watched = [entry for entry in self._watched if entry[2].state != DONE]
        heapq.heapify(self._watched)
        self._tidy_at = max(_TIDY_FROM_CALLS, 2 * len(self._watched))

    def _watch(self) -> None:
        while True:
            expired = self._next_expired()
            expire = self._expire()
            if expired is None or expire is None:
                return
            expire(expired)

    def _next_expired(self) -> Optional[Call]:
        """Wait for the end of a watched call's time; None when no call is watched any more."""
        with self._changed:
            while True:
                while self._watched and self._watched[0][2].state == DONE:
                    heapq.heappop(self._watched)
                if not self._watched:
                    self._running = False
                    return None
                seconds_left = self._watched[0][0] - self._clock.now()
                if seconds_left <= 0:
                    call = heapq.heappop(self._watched)[2]
                    ends_at = call.deadline().at
                    if ends_at <= self._clock.now():
                        return call
                    # Its response is made in the background, and may take longer.
                    heapq.heappush(self._watched, (ends_at, call.id, call))
                    continue
                self._clock.wait(self._changed, seconds_left)
