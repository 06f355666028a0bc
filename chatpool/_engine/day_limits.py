"""Limits per day, as calls meet them: one waits until there is room again, or ends with an error that says when."""

from __future__ import annotations

import math
from typing import Optional

from .._policy.retry import RetryDecision
from .._values import Hold, duration_text
from .._wire.rate_limit_headers import resume_line
from ..config import Limits
from ..errors import ChatPoolError, DayLimitError
from .call import Call

__all__ = ["after_day_refusal", "day_error", "day_hold", "is_of_own_day", "unsent_on_day"]

_RUN_PATIENCE_SECONDS = 600.0  # of a run, before a limit of its own: two slots of the day's count have room by then
_LOOK_AGAIN_SECONDS = 300.0  # after which a call that waits looks again: others may have given something back


def day_error(wait: float, limits: Optional[Limits], *, is_counted: bool = True) -> DayLimitError:
    """Return the error of a call for which a configured day has no room for ``wait`` seconds.

    Args:
        wait: the seconds.
        limits: the limits.
        is_counted: whether that is what was counted, and not that the count cannot be reached.
    """
    if not is_counted:
        return DayLimitError("the count of the day cannot be reached (the log says why)", retry_after=wait)
    amounts = {name: getattr(limits, name, None) for name in ("requests_per_day", "tokens_per_day")}
    told = ", ".join(f"{name}={amount:,.0f}" for name, amount in amounts.items() if amount is not None)
    return DayLimitError(f"the last 24 hours have taken all that Limits({told}) allows", retry_after=wait)


def is_of_own_day(error: Optional[ChatPoolError]) -> bool:
    """Return whether an error is that of a configured day; calls that it had room for are sent all the same."""
    return isinstance(error, DayLimitError) and error.status_code is None


def day_hold(seconds: float) -> Hold:
    """Return the hold of a limit per day."""
    return Hold(f"limit per day reached, goes on in {duration_text(math.ceil(seconds))}", seconds)


def unsent_on_day(call: Call, error: DayLimitError, seconds: float, now: float, wall: float) -> RetryDecision:
    """Return the decision on a call that is not sent because a day has no room for ``seconds``.

    Args:
        call: the call.
        error: why there is no room.
        seconds: until there is.
        now: the time.
        wall: the same, in seconds since the epoch.
    """
    is_own = is_of_own_day(error)
    if _waits(call, seconds, now, run_patience=_RUN_PATIENCE_SECONDS if is_own else 0.0):
        return _wait(call, min(seconds, _LOOK_AGAIN_SECONDS))
    unsent = error.copied("not sent again: " if call.attempts else "not sent: ")
    if is_own:
        unsent = DayLimitError(f"{error.message}; {resume_line(seconds, wall, of_day=True)}")
    unsent.__dict__.update(retry_after=seconds, resume_at=wall + seconds)
    return RetryDecision(error=unsent, scope="model")


def after_day_refusal(call: Call, decision: RetryDecision, now: float) -> RetryDecision:
    """Return ``decision`` on a call that a server has refused; one to wait if it was for the day and the call waits."""
    seconds = decision.reject_for
    if seconds is None or decision.wait is not None or not isinstance(decision.error, DayLimitError):
        return decision
    return _wait(call, seconds)._replace(reject_for=seconds) if _waits(call, seconds, now) else decision


def _waits(call: Call, seconds: float, now: float, *, run_patience: float = 0.0) -> bool:
    options = call.options
    if options.deadline is not None and now + seconds >= options.deadline:
        return False
    if options.waits_for_day:
        return True
    if options.is_single and now + seconds >= call.deadline().at:
        return False
    if options.fallbacks is not None and call.fallback < len(options.fallbacks.entries):
        return seconds <= options.retrier.policy.retry_after_max
    if options.is_single:
        return True
    return seconds <= max(run_patience, options.retrier.policy.retry_after_max)


def _wait(call: Call, seconds: float) -> RetryDecision:
    """Return the decision to wait; the time of the wait is not the call's."""
    if not call.attempts:
        call.first_sent_at = None
    call.blocked_seconds_at_send -= seconds
    return RetryDecision(wait=seconds)
