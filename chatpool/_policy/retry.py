"""Retry decisions: whether a failed attempt is made again, and after how long.

A :class:`RetryDecider` belongs to a policy and is shared; the :class:`RetryState` of a call is made at its first
failure, so a call that succeeds at once pays nothing.  tenacity's strategies are asked for a wait and never sleep:
the result is a :class:`RetryDecision`, and waiting is the engine's task.
"""

from __future__ import annotations

import math
import random
from concurrent.futures import Future
from typing import Any, Dict, NamedTuple, Optional

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from .._reentrancy import runs_user_code
from .._values import Verdict
from ..config import RetryPolicy
from ..errors import APIError, ChatPoolError, DeadlineExceededError
from .circuit_breaker import FAILURE_KINDS
from .health import HealthSnapshot

__all__ = [
    "Deadline",
    "KeyRecheck",
    "RepeatedAnswers",
    "RetryDecider",
    "RetryDecision",
    "RetryState",
    "is_size_related",
]


_RETRIED_KINDS = frozenset({"throttled", "timeout", "unavailable", "retry"})

# The wait is never shorter than the server's hint; a little more keeps callers from coming back all at once.
_HINT_JITTER_SHARE = 0.05

# A server that has never answered is more likely misspelt than down.
_MAX_UNPROVEN_OUTAGE_SECONDS = 30.0

# As many failures since the last success do not come from single inputs.
_OUTAGE_FAILURES = 10

_MAX_EXPONENT = 30  # 2 ** 30 quarter seconds are far beyond any wait_max, and no float overflows


class RetryDecision(NamedTuple):
    """Decision after a failed attempt.

    Attributes:
        wait: seconds until the next attempt, None to give the call up.
        error: the error the call ends with, None when it goes on.
        scope: what else ends with it (see :class:`~chatpool.types.Verdict`); ``"call"`` for nothing.
        reject_for: seconds in which nothing may be sent to this (endpoint, model), None for no such pause.
        refresh_key: True if the API key is to be fetched again before the next attempt.
        avoid_for: seconds for which the call avoids this endpoint, because it fails over to another; None where it
            waits for this one.
        skipped: whether nothing was sent because a fallback was the better choice.
    """

    wait: Optional[float] = None
    error: Optional[ChatPoolError] = None
    scope: str = "call"
    reject_for: Optional[float] = None
    refresh_key: bool = False
    avoid_for: Optional[float] = None
    skipped: bool = False


class Deadline(NamedTuple):
    """End of a call's time, and the setting that it comes from.

    Attributes:
        at: on the pool's clock; ``inf`` for never.
        limit: ``"timeout.total"``, ``"timeout.background"``, ``"run_timeout"`` or ``"chatpool.deadline"``.
    """

    at: float = math.inf
    limit: str = "timeout.total"


_MAX_IDENTICAL_ANSWERS = 3


def is_size_related(verdict: Verdict) -> bool:
    """Recognise a failure that may come from the content of a call for many items, and says little about the server."""
    return verdict.about == "content" or (verdict.kind == "timeout" and verdict.status is not None)


class RepeatedAnswers:
    """Counts how often one call has met the same failure."""

    __slots__ = ("_identical_answers", "_recurrences")

    def __init__(self) -> None:
        self._recurrences = 0
        self._identical_answers: Optional[Dict[str, int]] = None

    def recurs(self, verdict: Verdict, *, suspects: int, down: bool) -> bool:
        """Note a failure; return True for the second that may be due to the content of the call, not to the server.

        Args:
            verdict: the failure.
            suspects: the number of items in the call; a single one has failed before, among others.
            down: True if the server seems to be down: then failures prove little.
        """
        certain = is_size_related(verdict) and (suspects > 1 or not down)
        if not certain and (suspects == 1 or down or verdict.kind not in ("timeout", "retry")):
            return False
        self._recurrences += 1
        return self._recurrences >= 2

    def repeats_exactly(self, verdict: Verdict) -> bool:
        """Note a failure; return True for an unusable answer that has come three times, the same to the last byte."""
        if verdict.fingerprint is None or verdict.kind != "retry":
            return False
        answers = self._identical_answers = self._identical_answers or {}
        answers[verdict.fingerprint] = answers.get(verdict.fingerprint, 0) + 1
        return answers[verdict.fingerprint] >= _MAX_IDENTICAL_ANSWERS


class RetryState(tenacity.RetryCallState):
    """tenacity's state of one call, and what our own strategies need besides."""

    repeats: RepeatedAnswers
    rechecks: int
    rejected_at: float
    verdict: Verdict
    excess_streak: int
    chance_failures: int
    chance_rejections: int
    retries: int
    timeouts: int
    throttles: int
    costs_no_retry: bool
    key_refreshed: bool
    has_peer: bool
    patient: bool
    failing_since: Optional[float]

    def __init__(self, retrying: tenacity.BaseRetrying, first_sent: float) -> None:
        super().__init__(retrying, fn=None, args=(), kwargs={})
        self.repeats, self.rechecks, self.rejected_at = RepeatedAnswers(), 0, math.inf
        self.start_time = first_sent
        self.excess_streak = self.chance_failures = self.chance_rejections = 0
        self.retries = self.timeouts = self.throttles = 0
        self.costs_no_retry = self.key_refreshed = self.has_peer = self.patient = False
        self.failing_since = None

    def failed(self, verdict: Verdict, attempt_number: int, now: float, snapshot: HealthSnapshot) -> None:
        """Note the attempt that has just failed."""
        outcome: Future[Any] = tenacity.Future(attempt_number)
        outcome.set_exception(verdict.error)
        self.outcome = outcome  # type: ignore[assignment]  # it is tenacity's own Future
        self.outcome_timestamp = now
        self.attempt_number = attempt_number
        self.verdict, self.has_peer, self.excess_streak = verdict, snapshot.has_peer, snapshot.excess_streak
        self.chance_failures, self.chance_rejections = snapshot.chance_failures, snapshot.chance_rejections

    def update_patience(self, patience: float, now: float, snapshot: HealthSnapshot) -> None:
        """Note if the call goes on although its retries are used up.

        Eight failures within seconds do not show that a call is lost, as long as the server answers others.
        """
        if self.verdict.kind != "unavailable":
            self.patient = False
            return
        if self.failing_since is None:
            self.failing_since = now
        self.patient = now - self.failing_since < patience and snapshot.since_success <= patience

    def count_retry(self) -> None:
        """Count a retry of the attempt noted last."""
        if self.verdict.kind == "throttled":
            self.throttles += 1
            return
        if self.costs_no_retry:
            return
        self.retries += 1
        self.timeouts += self.verdict.kind == "timeout"


class _StopAfterRetries(stop_base):
    """Strategy of ``max_retries``, ``patience`` and ``max_timeout_retries``; rejections for rate use up none."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        assert isinstance(retry_state, RetryState)
        policy, kind = self._policy, retry_state.verdict.kind
        if policy.max_retries == 0:
            return True
        if kind == "throttled" or retry_state.costs_no_retry:
            return False
        if kind == "timeout" and retry_state.timeouts >= policy.max_timeout_retries:
            return True
        return retry_state.retries >= policy.max_retries and not retry_state.patient


class _WaitByStreak(wait_base):
    """Back-off that grows with the failures of the server, and of the call, that chance does not explain.

    A rejection for rate says nothing about the streak: without a hint its wait doubles per rejection.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        assert isinstance(retry_state, RetryState)
        verdict = retry_state.verdict
        if verdict.kind == "throttled" and verdict.retry_after is not None:
            return 0.0  # a server that paces its callers knows the wait better
        if verdict.kind == "throttled":
            exponent = max(0, retry_state.throttles - retry_state.chance_rejections)
        else:
            by_chance = 0 if retry_state.excess_streak else retry_state.chance_failures
            exponent = max(0, retry_state.retries - by_chance)
        longest = self._policy.wait_initial / 2 * 2.0 ** min(exponent, _MAX_EXPONENT)
        return min(random.uniform(0.5, 1.0) * longest, self._policy.wait_max)


class _RetryIf(tenacity.retry_base):
    """Strategy that asks the user's ``retry_if`` first, then the verdict."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._retry_if = policy.retry_if

    @runs_user_code
    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        assert isinstance(retry_state, RetryState)
        verdict = retry_state.verdict
        decision = None if self._retry_if is None or verdict.error is None else self._retry_if(verdict.error)
        if decision is not None:
            return bool(decision)
        # A call that one endpoint rejects for good may be accepted by another.
        return verdict.kind in _RETRIED_KINDS or (verdict.kind == "fatal" and retry_state.has_peer)


class RetryDecider:
    """Decides, for every call under one policy, what follows a failed attempt.

    Args:
        policy: the settings.
        max_workers: as many failures in a row mean that all calls fail.
    """

    def __init__(self, policy: RetryPolicy, max_workers: int) -> None:
        self.policy = policy
        self._max_workers = max_workers
        self._retrying = tenacity.Retrying(
            retry=_RetryIf(policy),
            stop=policy.stop or _StopAfterRetries(policy),
            wait=policy.wait or _WaitByStreak(policy),
        )

    def start(self, first_sent: float) -> RetryState:
        """Return the state of a call whose first attempt was sent at ``first_sent`` and has failed."""
        return RetryState(self._retrying, first_sent)

    @runs_user_code
    def decide(
        self,
        state: RetryState,
        verdict: Verdict,
        *,
        attempt: int,
        now: float,
        deadline: Deadline,
        snapshot: HealthSnapshot,
        refreshable: bool = False,
        suspects: int = 0,
    ) -> RetryDecision:
        """Decide what follows attempt number ``attempt`` (from 1), which failed with ``verdict``.

        Args:
            state: the call's state; it is updated.
            verdict: why the attempt failed.
            attempt: its number.
            now: the time.
            deadline: when the call's total time ends.
            snapshot: the health of its upstream, this failure included.
            refreshable: True if a new API key can be fetched.
            suspects: the number of items in the call, any of which may be what the server fails on: then a 500, a
                timeout or an unusable answer that recurs ends it, for it is made again in parts; 0 for other calls.
        """
        state.failed(verdict, attempt, now, snapshot)
        state.update_patience(self.policy.patience, now, snapshot)
        if self._needs_new_key(state, verdict, refreshable):
            state.key_refreshed = True
            return RetryDecision(wait=0.0, refresh_key=True)
        if self._rechecks_access(state, verdict, now, deadline, snapshot):
            return RetryDecision(wait=snapshot.recheck)
        down = snapshot.is_open or (suspects == 1 and snapshot.streak >= max(_OUTAGE_FAILURES, self._max_workers))
        if suspects and state.repeats.recurs(verdict, suspects=suspects, down=down):
            return RetryDecision(error=verdict.error)
        repeated = state.repeats.repeats_exactly(verdict) and self._user_decision(verdict) is not True
        if repeated or not self._retrying.retry(state):
            return RetryDecision(error=verdict.error, scope=_scope(state, verdict, snapshot))
        gives_up = self._hint_too_long(verdict, snapshot) or self._down_too_long(verdict, snapshot)
        if gives_up is not None:
            return gives_up
        avoid_for, fails_over = self._wait(state, verdict), self._fails_over(verdict, snapshot)
        wait = 0.0 if fails_over else avoid_for
        state.upcoming_sleep = wait
        # While the server is down or starting a failure says nothing about the call: it costs no retry.  Nor does one
        # that is due to the load, unless the user has set the number of retries (then patience is 0).
        server_at_fault = snapshot.is_open or (snapshot.overloaded and self.policy.patience > 0)
        costs_no_retry = (server_at_fault and verdict.kind in FAILURE_KINDS) or verdict.about == "start"
        state.costs_no_retry = costs_no_retry or (fails_over and verdict.kind == "fatal")
        if self._retrying.stop(state):
            return RetryDecision(error=_cut_by_deadline(deadline, now, verdict) or verdict.error)
        if now + wait >= deadline.at:
            return RetryDecision(error=_deadline_error(deadline, now, verdict, wait))
        state.count_retry()
        state.idle_for += wait
        if not fails_over:
            return RetryDecision(wait=wait)
        reject_for = verdict.retry_after if verdict.kind == "throttled" and self._asks_for_too_long(verdict) else None
        return RetryDecision(wait=wait, reject_for=reject_for, avoid_for=avoid_for)

    def _fails_over(self, verdict: Verdict, snapshot: HealthSnapshot) -> bool:
        """Return True if the call goes to another endpoint, rather than wait for this one."""
        cannot_wait = verdict.kind == "fatal" or self._asks_for_too_long(verdict)
        return snapshot.has_healthy_peer or (snapshot.has_peer and cannot_wait)

    def _asks_for_too_long(self, verdict: Verdict) -> bool:
        return verdict.retry_after is not None and verdict.retry_after > self.policy.retry_after_max

    def _needs_new_key(self, state: RetryState, verdict: Verdict, refreshable: bool) -> bool:
        return refreshable and not state.key_refreshed and verdict.key_refused and self.policy.max_retries > 0

    def _rechecks_access(
        self, state: RetryState, verdict: Verdict, now: float, deadline: Deadline, snapshot: HealthSnapshot
    ) -> bool:
        """Return True if a rejection of key or model may pass: then the call is tried again without using a retry."""
        if snapshot.recheck is None or verdict.about != "access" or state.rechecks >= _MAX_RECHECKS:
            return False
        if now + snapshot.recheck >= deadline.at or self._user_decision(verdict) is False:
            return False
        state.rechecks += 1
        state.rejected_at = min(state.rejected_at, now)
        return True

    @runs_user_code
    def _user_decision(self, verdict: Verdict) -> Optional[bool]:
        """Return the result of the user's ``retry_if``, None without one."""
        if self.policy.retry_if is None or verdict.error is None:
            return None
        return self.policy.retry_if(verdict.error)

    def _down_too_long(self, verdict: Verdict, snapshot: HealthSnapshot) -> Optional[RetryDecision]:
        longest = self.policy.max_outage
        if snapshot.has_healthy_peer:
            return None
        if verdict.about == "start":  # it is up and says that it is starting
            failing_for = snapshot.failing_for or 0.0
        elif snapshot.down_for is not None:
            failing_for = snapshot.down_for
            longest = longest if snapshot.proven else min(_MAX_UNPROVEN_OUTAGE_SECONDS, longest)
        else:
            failing_for = snapshot.rejected_for or 0.0
        if failing_for <= longest or verdict.error is None:
            return None
        prefix = f"no call has succeeded for {failing_for:.0f} s (retry.max_outage): "
        return RetryDecision(error=verdict.error.copied(prefix), scope="model")

    def _hint_too_long(self, verdict: Verdict, snapshot: HealthSnapshot) -> Optional[RetryDecision]:
        if snapshot.has_peer or not self._asks_for_too_long(verdict):
            return None
        all_calls_fail = verdict.kind == "throttled" or snapshot.streak >= self._max_workers
        if not all_calls_fail:
            return RetryDecision(error=verdict.error)
        return RetryDecision(error=verdict.error, scope="model", reject_for=verdict.retry_after)

    @runs_user_code
    def _wait(self, state: RetryState, verdict: Verdict) -> float:
        computed = float(self._retrying.wait(state)) if self._retrying.wait is not None else 0.0
        if verdict.retry_after is None:
            return max(0.0, computed)
        return max(computed, verdict.retry_after * random.uniform(1.0, 1.0 + _HINT_JITTER_SHARE))


def _scope(state: RetryState, verdict: Verdict, snapshot: HealthSnapshot) -> str:
    """Return what ends with a call that is given up."""
    if verdict.kind != "fatal" or snapshot.good_sent_at > state.rejected_at:
        return "call"  # others were served meanwhile, by the same key and model
    return verdict.scope


def _cut_by_deadline(deadline: Deadline, now: float, verdict: Verdict) -> Optional[DeadlineExceededError]:
    """Return the error of an attempt that the total time cut short: that limit ends the call, not the retries."""
    return _deadline_error(deadline, now, verdict) if now >= deadline.at and verdict.kind == "timeout" else None


def _deadline_error(deadline: Deadline, now: float, verdict: Verdict, wait: float = 0.0) -> DeadlineExceededError:
    remaining = deadline.at - now
    if remaining <= 0:
        message = f"the time for the call ({deadline.limit}) ran out; the last attempt ended with: {verdict.error}"
    else:
        message = (
            f"the next attempt would start in {wait:.3g} s, but only {remaining:.3g} s of the time for the call "
            f"({deadline.limit}) are left; the last attempt ended with: {verdict.error}"
        )
    error = DeadlineExceededError(message)
    error.__cause__ = verdict.error if isinstance(verdict.error, APIError) else None
    return error


_MAX_RECHECKS = 3

_RECHECK_SECONDS = 1.0  # between two rechecks
_HOLD_SECONDS = 1.01  # for fresh calls: a rejected call is rechecked before they are sent
_WORKED_WITHIN_SECONDS = 60.0


class KeyRecheck:
    """Holds calls back while a rejection of the key, a permission or the model is in doubt; one call at a time checks.

    A gateway under load may reject a key that has just worked.  So a rejection is in doubt after a success within the
    last minute.  A success that was sent after the rejected attempt ends the doubt, and so do three rejected rechecks:
    then the rejection stands, until something succeeds again.

    Not thread-safe: the caller holds the lock.

    Attributes:
        stands: True if a rejection was in doubt and holds, and nothing has succeeded since.
        worked_at: when a call succeeded last.
        good_sent_at: the latest send of a call that succeeded.
    """

    __slots__ = (
        "_half_open",
        "_probe_at",
        "_rechecks",
        "_rejected_sent_at",
        "_since",
        "good_sent_at",
        "stands",
        "worked_at",
    )

    def __init__(self) -> None:
        self.worked_at = self.good_sent_at = -math.inf
        self._since: Optional[float] = None  # when the doubt began
        self._rejected_sent_at = 0.0
        self.stands = False
        self._rechecks = 0
        self._probe_at = 0.0
        self._half_open = False

    @property
    def pause(self) -> Optional[float]:
        """Seconds after which a rejected call may be tried again, None where the rejection stands."""
        return None if self._since is None else _RECHECK_SECONDS

    def wait(self, now: float) -> float:
        """Return the seconds until a call may be sent: 0 for now, ``inf`` while a recheck is in flight."""
        if self._since is None:
            return 0.0
        return math.inf if self._half_open else max(0.0, self._probe_at - now)

    def sent(self) -> None:
        """Note that a call is sent."""
        self._half_open = self._since is not None

    def succeeded(self, sent_at: float, now: float) -> None:
        """Note that a call sent at ``sent_at`` has succeeded."""
        self.worked_at, self.stands = now, False
        self.good_sent_at = max(self.good_sent_at, sent_at)
        if self._since is not None and sent_at >= self._rejected_sent_at:
            self._since, self._half_open = None, False

    def rejected(self, sent_at: float, now: float, worked_at: float) -> None:
        """Note that a call sent at ``sent_at`` was rejected.

        Args:
            sent_at: when it was sent.
            now: the time.
            worked_at: when the rejected key or model worked last.
        """
        if self._since is None:
            if self.stands or now - worked_at > _WORKED_WITHIN_SECONDS:
                return
            self._since, self._rejected_sent_at, self._rechecks = now, sent_at, 0
        elif sent_at >= self._since:
            self._rechecks += 1
        else:
            return  # it was in flight already
        self._half_open, self._probe_at = False, now + _HOLD_SECONDS
        if self._rechecks >= _MAX_RECHECKS:
            self._since, self.stands = None, True

    def ended(self, sent_at: float) -> None:
        """Note that a call sent at ``sent_at`` has ended in a way that says nothing about the rejection."""
        if self._since is not None and sent_at >= self._since:
            self._half_open = False
