"""The engine: worker threads, and the beginning and end of calls, of itself and of its process."""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List, Optional, Sequence, Tuple

from ..clock import Clock
from ..config import Limits
from ..errors import CallCancelledError, ChatPoolError, PoolClosedError
from ..policy.retry import Decision
from ..policy.spending import Spending
from ..quota import Sharing
from ..transport import BrokenTransport, Transport
from ..types import ChatRequest, LineStats, Verdict
from ..wire import encode
from .attempt import CANCELLED, Attempter
from .call import DONE, Call, CallOptions, LineKey, Sink
from .delivery import Delivery
from .expiry import ExpiryWatch
from .lifecycle import register
from .scheduler import Scheduler

__all__ = ["Engine"]

logger = logging.getLogger("chatpool")

_here = threading.local()  # .engine: the engine whose worker this thread is
_inherited: List[Any] = []  # of the process this one was forked from

_ABORTED = "the pool was aborted while the call was under way"


class Engine:
    """Runs calls on at most ``max_workers`` threads.

    Args:
        connect: makes the transport that exchanges go over; called again in a forked child.
        max_workers: the concurrency cap.
        clock: time and waiting.
        after_call: called with no argument in the worker thread after each call.
        limits: what may be sent to each (endpoint, model) per minute, None without limits.
        spending: what has been spent of the budget, None without one.
    """

    def __init__(
        self,
        connect: Callable[[], Transport],
        *,
        max_workers: int,
        clock: Clock,
        after_call: Optional[Callable[[], Any]] = None,
        limits: Optional[Limits] = None,
        spending: Optional[Spending] = None,
    ) -> None:
        self.clock = clock
        self.max_workers = max_workers
        self._connect = connect
        self._after_call = after_call
        self._limits, self._spending = limits, spending
        self._sharing = Sharing.of(limits) if limits is not None else None
        self._ids = itertools.count(1)
        self._closed = False
        self._start(connect())
        register(self)

    def _start(self, transport: Transport) -> None:
        self.transport = transport
        self._scheduler = Scheduler(self.max_workers, self._limits, self._spending, self._sharing)
        self._executor = ThreadPoolExecutor(self.max_workers, thread_name_prefix="chatpool")
        self._attempter = Attempter(transport, self.clock, self._scheduler)
        self._delivery = Delivery(self._scheduler, self.clock)
        self._expiry = ExpiryWatch(self.clock, self._delivery.expire)
        # For a pool that nobody closes: workers keep the engine alive until their calls have ended.
        self._cleanup = weakref.finalize(self, transport.close)
        self._cleanup.atexit = False

    # -- calls come in ------------------------------------------------------------------------------

    def make_call(
        self, request: ChatRequest, options: CallOptions, sink: Sink, *, index: int = 0, item: Any = None
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
            line=(self.transport.base_url, request.model),
            created=self.clock.now(),
            index=index,
            item=item,
        )
        call.payload = encode(request.body) if request.body or request.method != "GET" else b""
        call.context = contextvars.copy_context()
        return call

    def submit(self, calls: Sequence[Call]) -> None:
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
            for call in calls:
                self._watch(call)

    def _watch(self, call: Call) -> None:
        """See to it that a singular call ends in time even if no worker gets to it."""
        if call.options.singular and call.state != DONE and self._scheduler.holds_up(call):
            self._expiry.add(call)

    def in_worker(self) -> bool:
        """Whether the calling thread is one of this engine's workers."""
        return getattr(_here, "engine", None) is self

    def _start_workers(self, count: int) -> None:
        for _ in range(count):
            try:
                self._executor.submit(self._work)
            except RuntimeError as error:  # no thread to be had; the workers that still run do the rest
                if self._scheduler.worker_not_started() == 0:
                    self._give_up_all(f"no worker thread can be started: {error}")

    # -- a worker's life ------------------------------------------------------------------------------

    def _work(self) -> None:
        scheduler, clock = self._scheduler, self.clock
        _here.engine = self
        scheduler.worker_started()
        ended = False
        try:
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
            call.grant = question.granted()
            self._scheduler.wait_inline(call, self.clock.now() + call.grant.slot.wait, self.clock)

    def _step(self, call: Call) -> Optional[float]:
        """Make one attempt; returns the seconds until the next one, None when the call has ended."""
        success, decision = self._attempter.attempt(call)
        if success is not None:
            self._succeed(call, success)
        elif decision is None:
            # Cancelled by its own token (then whoever did so has ended it), or with the whole transport.
            self._delivery.fail(call, PoolClosedError(_ABORTED))
        elif decision.wait is not None:
            return decision.wait
        else:
            self._fail(call, decision)
        return None

    @staticmethod
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

    def _succeed(self, call: Call, verdict: Verdict) -> None:
        now = self.clock.now()
        won, workers = self._scheduler.succeed(call, verdict, now)
        self._start_workers(workers)  # before anybody's callback takes its time
        if won:
            self._delivery.deliver(call, verdict=verdict, now=now)

    def _fail(self, call: Call, decision: Decision) -> None:
        error = decision.error or ChatPoolError("given up")
        if decision.refuse_for is not None:
            self._scheduler.refuse(call.line, self.clock.now() + decision.refuse_for, error)
        ended = self._scheduler.end(call)
        self._start_workers(self._scheduler.workers_wanted(self.clock.now()))
        if ended:
            self._delivery.deliver(call, error=error)
        if decision.scope != "call":
            call.sink.on_fatal(call, decision.scope, error)

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

    def cancel(self, call: Call) -> None:
        """End one call whose future is cancelled; nothing happens if it has ended."""
        self._delivery.cancel(call)

    def settle(self, sink: Sink, error: Callable[[], ChatPoolError]) -> bool:
        """Deliver what this thread has ended for ``sink`` and was kept from delivering, by Ctrl-C say.

        Returns:
            Whether other threads are about to deliver something to it.
        """
        return self._delivery.settle(sink, error)

    def wake(self, sink: Sink) -> None:
        """Wake the exchanges under way for a sink that nobody looks at any more; takes no lock of the engine's."""
        self._delivery.wake(sink)

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
        # Nobody waits for the calls of a run that was dropped: not this method either.
        self.give_up(_is_unwanted, lambda call: call.sink.refusal(call) or PoolClosedError(_ABORTED))
        if self.in_worker() or not wait:
            if self._scheduler.idle():
                self._release()
            return
        self._scheduler.wait_until_idle(self.clock)
        self._release(wait=True)

    def abort(self) -> None:
        """Give up everything and end."""
        self._closed = True
        for _ in range(2):  # once more for what another thread was submitting at the same time
            self._give_up_all(_ABORTED)
            self.transport.abort()
        self._release()

    def _give_up_all(self, reason: str) -> None:
        self.give_up(lambda call: True, lambda call: PoolClosedError(reason))

    def _release(self, *, wait: bool = False) -> None:
        self._expiry.close()
        self._executor.shutdown(wait=wait)
        self.transport.close()
        self._scheduler.close_grants()

    def after_fork_in_child(self) -> None:
        """Start over with connections of the child's own; what was under way is the parent's, and cancelled here."""
        orphans = self._scheduler.everyone()
        old = self.transport
        # Kept for ever: to collect them would run finalizers that take locks nobody will ever release.
        _inherited.append((self._scheduler, self._executor, old, self._attempter))
        self._cleanup.detach()
        _here.engine = None
        try:
            self._start(self._connect())
        except Exception as error:  # a CA file, say, that is not there any more
            self._start(BrokenTransport(old, error))
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


def _is_unwanted(call: Call) -> bool:
    return call.sink.refusal(call) is not None
