"""The end of calls: who is told, in which order, and how calls are ended from outside."""

from __future__ import annotations

import threading
from typing import Callable, Optional

from ..clock import Clock
from ..errors import CallCancelledError, ChatPoolError, DeadlineExceededError
from ..types import Verdict
from .call import Call, Sink
from .report import report_end
from .scheduler import Scheduler

__all__ = ["Delivery"]

_NO_WORKER = (
    "the time for the call (timeout.total) ran out while it waited for a worker; "
    "raise max_workers or timeout=Timeout(total=...)"
)


class Delivery:
    """Ends calls and delivers their outcomes, each once.

    Args:
        scheduler: knows which calls have ended.
        clock: the pool's clock.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock

    def deliver(
        self,
        call: Call,
        *,
        verdict: Optional[Verdict] = None,
        error: Optional[ChatPoolError] = None,
        now: Optional[float] = None,
    ) -> None:
        """Tell the listeners, then whoever waits; the call has been ended in the scheduler.

        With both, ``verdict`` is that of an answer that was not taken because of ``error``.
        """
        now = self._clock.now() if now is None else now
        call.payload = b""
        try:
            if verdict is None:
                report_end(call, now, error=error, usage=call.unreported)
            else:
                report_end(call, now, error=error, usage=verdict.usage, answer=verdict.value)
        finally:
            value = None if verdict is None or error is not None else verdict.value
            if verdict is not None and call.options.review is None:
                call.answered(verdict.usage)
            call.sink.deliver(call, call.outcome(now, value=value, error=error))
            self._scheduler.delivered(call)  # not after an interruption: settle() then delivers once more

    def fail(self, call: Call, error: ChatPoolError) -> None:
        """End a call with ``error``, unless it has ended."""
        if self._scheduler.end(call):
            self.deliver(call, error=error)

    def give_up(
        self, which: Callable[[Call], bool], error: Callable[[Call], ChatPoolError], *, in_flight: bool = True
    ) -> None:
        """End the calls that ``which`` picks, each with its own ``error``; exchanges under way are woken."""
        for call in self._scheduler.give_up(which, in_flight=in_flight):
            if call.token is not None:
                call.token.cancel()
            self.deliver(call, error=error(call))

    def cancel(self, call: Call) -> None:
        """End one call whose future is cancelled; nothing happens if it has ended."""
        if self._scheduler.cancel(call):
            if call.token is not None:
                call.token.cancel()
            self.deliver(call, error=CallCancelledError("cancelled"))

    def expire(self, call: Call) -> None:
        """End one call whose time is over before a worker got to it."""
        if self._scheduler.expire(call):
            self.deliver(call, error=DeadlineExceededError(_NO_WORKER))

    def settle(self, sink: Sink, error: Callable[[], ChatPoolError]) -> bool:
        """Deliver what this thread has ended for ``sink`` and was kept from delivering, by Ctrl-C say.

        Returns:
            Whether other threads are about to deliver something to it.
        """
        for call in self._scheduler.undelivered(sink):
            if call.ended_by == threading.get_ident():
                self.deliver(call, error=error())
        return bool(self._scheduler.undelivered(sink))

    def wake(self, sink: Sink) -> None:
        """Wake the exchanges under way for a sink that nobody looks at any more; takes no lock of the engine's."""
        for call in self._scheduler.in_flight(sink):
            if call.token is not None:
                call.token.cancel()
