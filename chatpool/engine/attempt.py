"""One attempt of one call: cut its time, send it, have the answer judged."""

from __future__ import annotations

from ..clock import Clock
from ..config import Timeout
from ..errors import ChatPoolError
from ..transport import Cancelled, CancelToken, Transport
from ..types import Verdict
from ..wire import encode, judge_exception, judge_reply
from .call import Call
from .scheduler import Scheduler

__all__ = ["CANCELLED", "Attempter"]

CANCELLED = Verdict("fail")
"""The attempt was ended by the call's own cancel token; whoever cancelled it has delivered the outcome."""

_LEAST = 0.001  # seconds: a timeout of 0 would be refused as a setting, not as a lack of time


class Attempter:
    """Makes attempts over one transport.

    Args:
        transport: where the exchanges go.
        clock: the pool's clock.
        scheduler: knows what has succeeded before, on which some rules depend.
    """

    def __init__(self, transport: Transport, clock: Clock, scheduler: Scheduler) -> None:
        self._transport = transport
        self._clock = clock
        self._scheduler = scheduler

    def attempt(self, call: Call, left: float) -> Verdict:
        """Send the call once, within the ``left`` seconds of its time, and judge what came back; does not raise."""
        try:
            payload = self._payload(call)
        except (TypeError, ValueError, ChatPoolError) as error:
            return Verdict("fail", error=_as_pool_error(error))
        try:
            reply = self._transport.exchange(
                call.request,
                payload,
                timeout=_cut(call.options.timeout, left),
                cancel=call.token or CancelToken(),
                headers=call.options.headers,
                query=call.options.query,
            )
        except Cancelled:
            return CANCELLED
        except Exception as error:
            return judge_exception(error, url=self._transport.url_of(call.request.path))
        return judge_reply(
            reply,
            call.request,
            endpoint_proven=self._scheduler.endpoint_proven,
            model_proven=self._scheduler.health(call.line).proven,
            wall=self._clock.wall(),
        )

    def _payload(self, call: Call) -> bytes:
        if call.payload is None:
            call.payload = encode(call.request.body) if call.request.body or call.request.method != "GET" else b""
        return call.payload


def _cut(timeout: Timeout, left: float) -> Timeout:
    """The limits, each cut to the time that is left."""
    if left >= timeout.attempt:
        return timeout
    left = max(left, _LEAST)
    read = timeout.read if timeout.read is None else min(timeout.read, left)
    return Timeout(connect=min(timeout.connect, left), read=read, attempt=left, total=timeout.total)


def _as_pool_error(error: Exception) -> ChatPoolError:
    """An item that cannot be sent, as an outcome's error."""
    if isinstance(error, ChatPoolError):
        return error
    wrapped = ChatPoolError(str(error))
    wrapped.__cause__ = error
    return wrapped
