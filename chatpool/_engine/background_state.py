"""Responses that the server makes in the background: their state in a call, and when each is asked for again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Optional

from .._values import BackgroundResponse, Verdict
from ..errors import DeadlineExceededError

if TYPE_CHECKING:
    from .._policy.budget import BudgetReservation
    from .._policy.retry import RetryState

__all__ = ["BackgroundState", "poll_wait", "unfinished_in_time"]

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 20.0
_JITTER_SHARE = 0.25
_MAX_POLLS_PER_SECOND = 20.0  # of one upstream: thousands of responses are asked for less often each
_MAX_EXPONENT = 30  # beyond any longest wait, and no float overflows


class BackgroundState:
    """State of a call whose response is made in the background.

    Written by the worker that runs the call, and under the scheduler's lock only where no worker does.

    Args:
        found: the response that an earlier run had made, as a journal says; None without one.

    Attributes:
        response: the response that the next exchange asks for; None once it has ended, and before the server has
            promised one.
        began_at: when the attempt under way began, on the pool's clock; None before its first exchange.
        is_kept: whether a later run can go on with the response, because a journal knows it.
        polls: the number of polls that found it unfinished.
        failures: polls in a row that have failed.
        retry: the state of their retries; those of the call itself go on when the response has failed.
        reservation: the budget that is reserved for the response.
        was_found: whether an earlier run had it made.
    """

    __slots__ = ("began_at", "failures", "is_kept", "polls", "reservation", "response", "retry", "was_found")

    def __init__(self, found: Optional[BackgroundResponse] = None) -> None:
        self.response = found
        self.began_at: Optional[float] = None
        self.is_kept = self.was_found = found is not None
        self.polls = self.failures = 0
        self.retry: Optional[RetryState] = None
        self.reservation: Optional[BudgetReservation] = None

    def start(self, response: BackgroundResponse, began_at: float, *, is_kept: bool) -> None:
        """Note that the server has promised a response to the attempt that began at ``began_at``."""
        self.began_at, self.is_kept, self.was_found = began_at, is_kept, False
        self.polls = self.failures = 0
        self.retry = None
        self.response = response

    def answered(self) -> None:
        """Note a poll that found the response unfinished: the failures before it are over."""
        self.polls += 1
        self.failures, self.retry = 0, None

    def take(self) -> Optional[BackgroundResponse]:
        """Return the response, and ask for it no more."""
        response, self.response = self.response, None
        return response


def poll_wait(background: BackgroundState, verdict: Verdict, *, others: int, longest_hint: float) -> float:
    """Return the seconds until a response is asked for again.

    They double from half a second to twenty, less up to a quarter at random; where very many wait, it takes longer.

    Args:
        background: its state.
        verdict: says that it is not finished, and perhaps how long to wait.
        others: the number of calls to this model that wait.
        longest_hint: the longest wait asked by the server that is obeyed, in seconds.
    """
    longest = min(_FIRST_WAIT_SECONDS * 2.0 ** min(background.polls, _MAX_EXPONENT), _LONGEST_WAIT_SECONDS)
    wait = max(longest, others / _MAX_POLLS_PER_SECOND) * random.uniform(1.0 - _JITTER_SHARE, 1.0)
    return max(wait, min(verdict.retry_after or 0.0, longest_hint))


def unfinished_in_time(background: BackgroundState, limit: str) -> DeadlineExceededError:
    """Return the error of a call whose time is over before its response was made; ``limit`` names the setting."""
    advice = "run it again: the journal knows the response, and the run goes on with it"
    return DeadlineExceededError(
        f"the time for the call ({limit}) ran out while the server made its response in the background; "
        f"{advice if background.is_kept else 'raise that time'}"
    )
