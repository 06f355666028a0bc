"""Retry decisions: which attempt is followed by another, and after how long."""

from __future__ import annotations

import math

import pytest
import tenacity

from chatpool._policy.health import HealthSnapshot
from chatpool._policy.retry import Deadline, KeyRecheck, RetryDecider, RetryDecision
from chatpool._values import Verdict
from chatpool.config import RetryPolicy
from chatpool.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    DeadlineExceededError,
    InternalServerError,
    RateLimitError,
)

UNAVAILABLE = Verdict("unavailable", error=InternalServerError("down", status_code=503), status=503)
TIMED_OUT = Verdict("timeout", error=APITimeoutError("slow"))
GARBLED = Verdict("retry", error=APIConnectionError("garbled"), status=200)
REJECTED = Verdict("throttled", error=RateLimitError("slow down", status_code=429), status=429)
WRONG = Verdict("fail", error=BadRequestError("wrong", status_code=400), status=400)


SNAPSHOT = HealthSnapshot(streak=1, excess_streak=0)


class Case:
    """One call under a policy, with a clock of its own."""

    def __init__(self, policy=None, max_workers=10, deadline=math.inf):
        self.retrier = RetryDecider(policy or RetryPolicy(), max_workers)
        self.state = self.retrier.start(first_sent=0.0)
        self.deadline = Deadline(deadline)
        self.now = 0.0
        self.attempts = 0

    def fail(self, verdict, snapshot=SNAPSHOT, refreshable=False) -> RetryDecision:
        self.attempts += 1
        return self.retrier.decide(
            self.state,
            verdict,
            attempt=self.attempts,
            now=self.now,
            deadline=self.deadline,
            snapshot=snapshot,
            refreshable=refreshable,
        )

    def attempts_until_it_gives_up(self, verdict, at_most=50) -> int:
        while self.fail(verdict).wait is not None and self.attempts < at_most:
            pass
        return self.attempts


@pytest.mark.parametrize(
    ("verdict", "policy", "attempts"),
    [
        (UNAVAILABLE, RetryPolicy(), 9),
        (GARBLED, RetryPolicy(max_retries=3), 4),
        (TIMED_OUT, RetryPolicy(), 3),
        (TIMED_OUT, RetryPolicy(max_timeout_retries=0), 1),
        (TIMED_OUT, RetryPolicy(max_retries=1, max_timeout_retries=5), 2),
        (WRONG, RetryPolicy(), 1),
        (UNAVAILABLE, RetryPolicy(max_retries=0), 1),
        (REJECTED, RetryPolicy(max_retries=0), 1),
        (UNAVAILABLE, RetryPolicy(stop=tenacity.stop_after_attempt(20)), 20),
        (REJECTED, RetryPolicy(stop=tenacity.stop_after_attempt(3)), 3),
        (TIMED_OUT, RetryPolicy(stop=tenacity.stop_after_attempt(7)), 7),
        (WRONG, RetryPolicy(retry_if=lambda error: True), 9),
        (UNAVAILABLE, RetryPolicy(retry_if=lambda error: False), 1),
        (UNAVAILABLE, RetryPolicy(retry_if=lambda error: None), 9),
    ],
)
def test_attempts_are_made_as_often_as_the_policy_says(verdict, policy, attempts):
    assert Case(policy).attempts_until_it_gives_up(verdict) == attempts


def test_a_rejection_for_rate_uses_up_no_retry():
    case = Case(RetryPolicy(max_retries=1, wait_initial=0))
    for _ in range(40):
        assert case.fail(REJECTED).wait is not None
    assert case.fail(UNAVAILABLE).wait is not None
    assert case.fail(UNAVAILABLE).wait is None


def test_the_last_attempts_own_error_is_the_calls_error():
    case = Case(RetryPolicy(max_retries=1))
    case.fail(UNAVAILABLE)
    assert case.fail(GARBLED).error is GARBLED.error


def test_back_off_stays_short_for_one_unlucky_call_of_a_healthy_line():
    case = Case(RetryPolicy(max_retries=30, wait_initial=1.0), max_workers=10)
    waits = [case.fail(UNAVAILABLE, snapshot=HealthSnapshot(streak=1, chance_failures=20)).wait for _ in range(20)]
    assert all(0.25 <= wait <= 0.5 for wait in waits)


def test_back_off_grows_for_a_call_that_fails_more_often_than_chance_explains():
    case = Case(RetryPolicy(max_retries=30, wait_initial=1.0), max_workers=10)
    waits = [case.fail(UNAVAILABLE, snapshot=HealthSnapshot(streak=1, chance_failures=2)).wait for _ in range(6)]
    assert all(0.25 <= wait <= 0.5 for wait in waits[:3])
    for times, wait in zip((2, 4, 8), waits[3:]):
        assert 0.25 * times <= wait <= 0.5 * times


def test_back_off_counts_all_failures_of_a_call_once_the_server_is_in_trouble():
    case = Case(RetryPolicy(max_retries=30, wait_initial=1.0), max_workers=10)
    for _ in range(5):
        case.fail(UNAVAILABLE, snapshot=HealthSnapshot(streak=1, chance_failures=4))
    assert 8 <= case.fail(UNAVAILABLE, snapshot=HealthSnapshot(streak=5, excess_streak=1, chance_failures=4)).wait <= 16


def test_back_off_grows_with_the_failure_streak_up_to_wait_max():
    policy = RetryPolicy(max_retries=30, wait_initial=1.0, wait_max=6.0)
    case = Case(policy, max_workers=10)
    for _ in range(8):
        last = case.fail(UNAVAILABLE, snapshot=HealthSnapshot(excess_streak=6)).wait
    assert last == 6.0


def test_back_off_does_not_overflow_after_a_thousand_failures():
    case = Case(RetryPolicy(max_retries=3000, wait_max=1.0), max_workers=1)
    for _ in range(2000):
        wait = case.fail(UNAVAILABLE, snapshot=HealthSnapshot(excess_streak=100_000)).wait
    assert wait <= 1.0


def test_rejections_without_a_hint_wait_twice_as_long_each_time():
    case = Case(RetryPolicy(wait_initial=1.0))
    first, *_, fifth = [case.fail(REJECTED).wait for _ in range(5)]
    assert 0.25 <= first <= 0.5
    assert 4 <= fifth <= 8


def test_rejections_that_chance_explains_do_not_make_the_waits_longer():
    case = Case(RetryPolicy(wait_initial=1.0))
    waits = [case.fail(REJECTED, SNAPSHOT._replace(chance_rejections=4)).wait for _ in range(8)]
    for expected, wait in zip([1, 1, 1, 1, 1, 2, 4, 8], waits):
        assert expected / 4 <= wait <= expected / 2


@pytest.mark.parametrize("verdict", [UNAVAILABLE, REJECTED])
def test_the_servers_hint_is_never_undercut(verdict):
    case = Case(RetryPolicy(max_retries=30))
    for _ in range(20):
        wait = case.fail(verdict._replace(retry_after=5.0), snapshot=HealthSnapshot(streak=1, chance_failures=20)).wait
        assert 5.0 <= wait <= 5.5


def test_the_longer_of_tenacitys_wait_and_the_hint_applies():
    case = Case(RetryPolicy(wait=tenacity.wait_fixed(3)))
    assert case.fail(UNAVAILABLE).wait == 3
    assert case.fail(UNAVAILABLE._replace(retry_after=1.0)).wait == 3
    assert case.fail(UNAVAILABLE._replace(retry_after=10.0)).wait >= 10


def test_the_recipes_policy_can_be_said_in_tenacitys_words():
    random_wait = tenacity.wait_random_exponential(min=1, max=60)
    asked = []

    def wait(state):
        asked.append(random_wait(state))
        return asked[-1]

    case = Case(RetryPolicy(wait=wait, stop=tenacity.stop_after_attempt(20)))
    waits = [case.fail(UNAVAILABLE).wait for _ in range(19)]
    assert waits == asked  # what the strategy says is what is waited, whatever its version makes of min=
    assert max(waits) <= 60
    assert case.fail(UNAVAILABLE).error is UNAVAILABLE.error


def test_tenacitys_time_based_stop_sees_the_calls_own_time():
    case = Case(RetryPolicy(stop=tenacity.stop_after_delay(10), wait=tenacity.wait_none()))
    case.now = 9.0
    assert case.fail(UNAVAILABLE).wait == 0
    case.now = 10.0
    assert case.fail(UNAVAILABLE).wait is None


def test_tenacitys_strategies_see_the_error_and_the_attempt_number():
    seen = []

    def stop(state):
        seen.append((state.attempt_number, state.outcome.exception()))
        return False

    case = Case(RetryPolicy(stop=stop))
    case.fail(UNAVAILABLE)
    case.fail(REJECTED)
    assert seen == [(1, UNAVAILABLE.error), (2, REJECTED.error)]


def test_a_rejection_for_longer_than_is_waited_ends_the_line_until_then():
    decision = Case().fail(REJECTED._replace(retry_after=86_400.0))
    assert decision == RetryDecision(error=REJECTED.error, scope="model", reject_for=86_400.0)


def test_a_lone_server_error_with_a_long_hint_ends_only_its_call():
    decision = Case(max_workers=10).fail(UNAVAILABLE._replace(retry_after=86_400.0), snapshot=HealthSnapshot(streak=9))
    assert decision == RetryDecision(error=UNAVAILABLE.error)


def test_a_server_error_with_a_long_hint_ends_the_line_when_everybody_fails():
    decision = Case(max_workers=10).fail(UNAVAILABLE._replace(retry_after=86_400.0), snapshot=HealthSnapshot(streak=10))
    assert decision.scope == "model"


def test_a_wait_that_would_end_after_the_deadline_is_not_begun():
    case = Case(deadline=3.0)
    case.now = 1.0
    decision = case.fail(REJECTED._replace(retry_after=60.0))
    assert isinstance(decision.error, DeadlineExceededError)
    assert decision.error.__cause__ is REJECTED.error
    assert "timeout.total" in str(decision.error)


def test_an_attempt_cut_by_the_total_time_ends_with_that_reason():
    case = Case(RetryPolicy(max_timeout_retries=0), deadline=3.0)
    case.now = 3.0
    assert isinstance(case.fail(TIMED_OUT).error, DeadlineExceededError)


def test_a_fatal_verdict_carries_its_scope():
    verdict = Verdict("fatal", scope="run", error=RateLimitError("no credit"), status=429)
    assert Case().fail(verdict) == RetryDecision(error=verdict.error, scope="run")


class TestPatience:
    """5xx of one call while others succeed: eight of them within seconds do not show that it is lost."""

    WELL = HealthSnapshot(streak=1, chance_failures=4, proven=True, since_success=0.1)

    def given_up_at(self, case, verdict=UNAVAILABLE, snapshot=WELL):
        """The time at which the call is given up that fails at 100 s, and a tenth of a second after each wait."""
        case.now = 100.0
        while (wait := case.fail(verdict, snapshot).wait) is not None and case.attempts < 500:
            case.now += wait + 0.1
        return case.now - 100.0

    @pytest.mark.parametrize("run", range(10))
    def test_a_call_is_not_given_up_before_half_a_minute_of_them(self, run):
        assert 30 <= self.given_up_at(Case()) < 70

    @pytest.mark.parametrize("wait", [0.0, 0.5])
    def test_however_many_attempts_that_takes(self, wait):
        case = Case(RetryPolicy(wait=tenacity.wait_fixed(wait)))
        assert 30 <= self.given_up_at(case) < 31
        assert case.attempts > 50

    def test_it_can_be_set(self):
        assert 5 <= self.given_up_at(Case(RetryPolicy(patience=5, wait=tenacity.wait_fixed(0)))) < 5.2

    @pytest.mark.parametrize("max_retries", [0, 1, 8])
    def test_a_number_of_retries_that_is_given_is_kept_to(self, max_retries):
        case = Case(RetryPolicy(max_retries=max_retries))
        self.given_up_at(case)
        assert case.attempts == max_retries + 1

    def test_with_both_whichever_takes_longer(self):
        slow, quick = [RetryPolicy(max_retries=3, patience=5, wait=tenacity.wait_fixed(wait)) for wait in (4, 0.5)]
        case = Case(slow)
        assert self.given_up_at(case) > 12
        assert case.attempts == 4
        case = Case(quick)
        assert 5 <= self.given_up_at(case) < 5.7
        assert case.attempts == 10

    @pytest.mark.parametrize("since_success", [31.0, math.inf])
    def test_it_ends_where_no_other_call_succeeds(self, since_success):
        case = Case()
        self.given_up_at(case, snapshot=self.WELL._replace(since_success=since_success))
        assert case.attempts == 9

    @pytest.mark.parametrize(("verdict", "attempts"), [(GARBLED, 9), (TIMED_OUT, 3)])
    def test_it_is_for_nothing_else(self, verdict, attempts):
        case = Case()
        self.given_up_at(case, verdict)
        assert case.attempts == attempts

    def test_time_counts_from_the_first_of_them(self):
        case = Case(RetryPolicy(wait=tenacity.wait_fixed(0)))
        case.fail(REJECTED, self.WELL)
        assert self.given_up_at(case) >= 30

    def test_no_call_waits_beyond_its_time_for_it(self):
        case = Case(deadline=110.0)
        assert self.given_up_at(case) <= 10
        assert isinstance(case.fail(UNAVAILABLE, self.WELL).error, DeadlineExceededError)


class TestLoad:
    """Failures of a server that has too much to do."""

    BUSY = HealthSnapshot(streak=1, overloaded=True, proven=True, since_success=0.1)

    @pytest.mark.parametrize("verdict", [UNAVAILABLE, TIMED_OUT])
    def test_they_use_up_no_retry(self, verdict):
        case = Case()
        for _ in range(60):
            case.now += 1.0
            assert case.fail(verdict, self.BUSY).wait is not None
        for _ in range(2):
            assert case.fail(verdict).wait is not None

    def test_but_a_number_of_retries_that_is_given_is_kept_to(self):
        case = Case(RetryPolicy(max_retries=2))
        assert [case.fail(UNAVAILABLE, self.BUSY).wait is None for _ in range(3)] == [False, False, True]

    def test_unless_patience_is_given_too(self):
        case = Case(RetryPolicy(max_retries=2, patience=1))
        assert all(case.fail(UNAVAILABLE, self.BUSY).wait is not None for _ in range(20))

    def test_an_answer_that_makes_no_sense_is_not_due_to_it(self):
        assert Case(RetryPolicy(max_retries=1, patience=1)).attempts_until_it_gives_up(GARBLED) == 2


class TestKeyRefresh:
    rejected_key = Verdict(
        "fatal", scope="run", error=RateLimitError("bad key", status_code=401), status=401, key_refused=True
    )

    def test_a_rejected_key_is_fetched_again_once(self):
        case = Case()
        assert case.fail(self.rejected_key, refreshable=True) == RetryDecision(wait=0.0, refresh_key=True)
        assert case.fail(self.rejected_key, refreshable=True).error is self.rejected_key.error

    def test_a_fixed_key_is_not(self):
        assert Case().fail(self.rejected_key).error is self.rejected_key.error

    def test_no_retries_means_no_refresh_either(self):
        assert Case(RetryPolicy(max_retries=0)).fail(self.rejected_key, refreshable=True).wait is None


class TestOutage:
    down = HealthSnapshot(streak=30, excess_streak=3, is_open=True, down_for=20.0, proven=True)

    @pytest.mark.parametrize("verdict", [UNAVAILABLE, TIMED_OUT])
    def test_failures_while_the_server_is_down_use_up_no_retry(self, verdict):
        case = Case(RetryPolicy(max_retries=1, max_timeout_retries=1))
        for _ in range(20):
            assert case.fail(verdict, self.down).wait is not None
        assert case.fail(verdict).wait is not None
        assert case.fail(verdict).wait is None

    def test_no_retries_still_means_no_second_attempt(self):
        assert Case(RetryPolicy(max_retries=0)).fail(UNAVAILABLE, self.down).wait is None

    @pytest.mark.parametrize(
        ("verdict", "fields", "seconds"),
        [
            (UNAVAILABLE, {"down_for": 601}, 601),
            (TIMED_OUT, {"down_for": 601}, 601),
            (UNAVAILABLE, {"down_for": 31, "proven": False}, 31),
            (REJECTED, {"is_open": False, "down_for": None, "rejected_for": 601}, 601),
        ],
    )
    def test_after_max_outage_the_line_is_given_up(self, verdict, fields, seconds):
        decision = Case().fail(verdict, self.down._replace(**fields))
        assert decision.scope == "model"
        assert type(decision.error) is type(verdict.error)
        assert f"no call has succeeded for {seconds} s (retry.max_outage)" in str(decision.error)

    @pytest.mark.parametrize(
        ("verdict", "fields"),
        [
            (UNAVAILABLE, {"down_for": 599}),
            (UNAVAILABLE, {"down_for": 29, "proven": False}),
            (REJECTED, {"is_open": False, "down_for": None, "rejected_for": 599, "proven": False}),
        ],
    )
    def test_until_then_it_is_not(self, verdict, fields):
        assert Case().fail(verdict, self.down._replace(**fields)).wait is not None


class TestWithOtherEndpoints:
    """``has_healthy_peer``: another one takes the call at once; ``has_peer``: it may do so later."""

    HEALTHY_PEER = HealthSnapshot(streak=1, has_healthy_peer=True, has_peer=True)
    PEER = HealthSnapshot(streak=1, has_peer=True)
    FATAL = Verdict("fatal", "run", error=RateLimitError("no credit", status_code=402), status=402)

    @pytest.mark.parametrize("verdict", [UNAVAILABLE, TIMED_OUT, GARBLED, REJECTED])
    def test_a_call_moves_without_a_wait_and_stays_away_for_its_back_off(self, verdict):
        decision = Case().fail(verdict, self.HEALTHY_PEER)
        assert decision.wait == 0.0
        assert decision.avoid_for > 0

    def test_it_stays_away_as_long_as_the_server_has_said(self):
        decision = Case().fail(REJECTED._replace(retry_after=20.0), self.HEALTHY_PEER)
        assert decision.wait == 0.0
        assert 20 <= decision.avoid_for <= 21

    def test_moving_uses_up_retries_all_the_same(self):
        case = Case(RetryPolicy(max_retries=2))
        assert [case.fail(UNAVAILABLE, self.HEALTHY_PEER).wait for _ in range(3)] == [0.0, 0.0, None]

    def test_a_rejection_that_holds_for_every_call_moves_it_at_no_cost(self):
        case = Case(RetryPolicy(max_retries=1))
        decisions = [case.fail(self.FATAL, self.PEER) for _ in range(5)]
        assert [decision.wait for decision in decisions] == [0.0] * 5
        assert case.fail(UNAVAILABLE).wait is not None

    def test_with_nowhere_left_to_go_it_ends_what_it_ends_for_a_single_one(self):
        decision = Case().fail(self.FATAL)
        assert (decision.error, decision.scope) == (self.FATAL.error, "run")

    def test_no_retry_is_no_second_attempt_elsewhere_either(self):
        for verdict in (UNAVAILABLE, self.FATAL):
            assert Case(RetryPolicy(max_retries=0)).fail(verdict, self.HEALTHY_PEER).error is verdict.error

    def test_retry_if_has_the_last_word(self):
        case = Case(RetryPolicy(retry_if=lambda error: False))
        assert case.fail(self.FATAL, self.HEALTHY_PEER).error is self.FATAL.error

    def test_the_wait_of_one_endpoint_need_not_fit_into_the_calls_time(self):
        case = Case(deadline=5.0)
        assert case.fail(REJECTED._replace(retry_after=60.0), self.HEALTHY_PEER).wait == 0.0
        assert isinstance(case.fail(REJECTED._replace(retry_after=60.0)).error, DeadlineExceededError)

    @pytest.mark.parametrize("snapshot", [HEALTHY_PEER, PEER])
    def test_a_wait_of_hours_is_for_the_endpoint_and_not_for_the_call(self, snapshot):
        decision = Case().fail(REJECTED._replace(retry_after=3600.0), snapshot)
        assert (decision.wait, decision.reject_for) == (0.0, 3600.0)

    def test_an_outage_is_none_while_another_takes_calls(self):
        down = HealthSnapshot(streak=50, is_open=True, down_for=10_000.0, proven=True)
        assert Case().fail(UNAVAILABLE, down._replace(has_healthy_peer=True, has_peer=True)).wait == 0.0
        assert Case().fail(UNAVAILABLE, down).scope == "model"


def worked(at=0.0):
    recheck = KeyRecheck()
    recheck.sent()
    recheck.succeeded(at, at)
    return recheck


def reject(recheck, sent_at, now=None):
    recheck.sent()
    recheck.rejected(sent_at, sent_at if now is None else now, recheck.worked_at)


class TestKeyRecheck:
    def test_without_a_success_in_the_last_minute_a_rejection_stands(self):
        for recheck, now in ((KeyRecheck(), 0.0), (worked(), 61.0)):
            reject(recheck, now)
            assert (recheck.pause, recheck.wait(now)) == (None, 0.0)

    def test_a_doubt_holds_the_line_for_a_second_and_lets_one_call_try(self):
        recheck = worked()
        reject(recheck, 5.0)
        assert (recheck.pause, round(recheck.wait(5.0), 3), recheck.wait(6.1)) == (1.0, 1.01, 0.0)
        recheck.sent()
        assert recheck.wait(6.1) == math.inf

    def test_three_rejected_tries_end_the_doubt_until_something_succeeds(self):
        recheck = worked()
        for second in range(5, 9):
            assert recheck.pause == (None if second == 5 else 1.0)
            reject(recheck, second)
        assert (recheck.pause, recheck.wait(8.0)) == (None, 0.0)
        reject(recheck, 9.0)
        assert recheck.pause is None
        recheck.succeeded(10.0, 10.0)
        reject(recheck, 11.0)
        assert recheck.pause == 1.0

    def test_calls_that_were_on_their_way_are_no_tries(self):
        recheck = worked()
        reject(recheck, 5.0, 5.2)
        for _ in range(20):
            recheck.rejected(5.1, 5.4, 0.0)
        assert (recheck.pause, round(recheck.wait(5.2), 3)) == (1.0, 1.01)

    def test_a_success_that_was_sent_later_ends_the_doubt_and_an_earlier_one_does_not(self):
        recheck = worked()
        reject(recheck, 5.0)
        recheck.succeeded(4.9, 5.1)
        assert recheck.pause == 1.0
        recheck.succeeded(5.0, 5.2)
        assert (recheck.pause, recheck.wait(5.2)) == (None, 0.0)

    def test_a_try_that_says_nothing_makes_room_for_the_next(self):
        recheck = worked()
        reject(recheck, 5.0)
        recheck.sent()
        recheck.ended(6.1)
        assert recheck.wait(6.1) == 0.0
