"""The future of one submitted call."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Callable, List, Optional, Protocol

from ..errors import CallCancelledError, ChatPoolError
from ..locks import Condition
from ..reentrancy import defer, is_reentrant, waits_for_calls
from ..types import Outcome
from .call import RUNNING, Call

__all__ = ["CallFuture"]


class Canceller(Protocol):
    """An engine, as far as a future needs it."""

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
        """Tie the future to its call, and to who takes it out of the engine."""
        self._call, self._engine = call, engine

    def running(self) -> bool:
        """Whether an exchange of the call is under way."""
        call = self._call
        return call is not None and call.state == RUNNING and not self.done()

    def cancel(self) -> bool:
        """Give the call up, wherever it is; False if it has already ended.

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
            RuntimeError: it would have to be waited for, in a finalizer or a signal handler that interrupted the pool.
        """
        return super().result() if self.done() else self._wait_for_result(timeout)

    @waits_for_calls
    def _wait_for_result(self, timeout: Optional[float]) -> Any:
        return super().result(timeout)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Return the error, None after a success; waits as :meth:`result` does, and raises what that does."""
        return super().exception() if self.done() else self._wait_for_exception(timeout)

    @waits_for_calls
    def _wait_for_exception(self, timeout: Optional[float]) -> Optional[BaseException]:
        return super().exception(timeout)

    def wait(self, timeout: Optional[float]) -> bool:
        """Wait up to ``timeout`` seconds, None for as long as it takes; returns whether the future is done."""
        with self._condition:
            return self.done() or (self._condition.wait(timeout) and self.done())

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        """Resolve the future (the engine calls this)."""
        self._call = self._engine = None  # neither keeps the other alive any longer
        if isinstance(outcome.error, CallCancelledError):
            self._cancelled()
        elif outcome.error is not None:
            self.set_exception(outcome.error)
        else:
            self.set_result(outcome.value)

    def _cancelled(self) -> None:
        if super().cancel():
            self.set_running_or_notify_cancel()  # wait() and as_completed() hear of it through this only

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        """Nothing but cancellation stops a singular call, and that takes it out of the queue."""
        return None

    def on_fatal(self, error: ChatPoolError) -> None:
        """A singular call has no siblings."""

    def refuse(self, call: Call, scope: str, error: ChatPoolError) -> None:
        """A singular call has no siblings."""

    def after_fork_in_child(self, call: Call) -> None:
        """The call is the parent's: here its future is cancelled.

        Its callbacks are the parent's too, and are called there.  Here they would run inside ``os.fork``, where locks
        of their own may be held by nobody, and on connections that the parent uses.
        """
        self._call = self._engine = None
        self._condition = Condition()  # a thread of the parent's may have held the old one
        self._done_callbacks: List[Callable[[Future[Any]], Any]] = []
        self._waiters: List[Any] = []  # of threads that did not come along
        if not self.done():
            self._cancelled()
